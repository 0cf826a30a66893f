//! What a Dockerfile reveals about its result before it is built.

use super::{
    BuildArgs, Dockerfile, Error, Result,
    state::{Globals, State},
};
use walt_images::ImageConfig;
use walt_registry::Platform;

/// The stage that is built.
///
/// # Errors
/// There is no stage with that name.
pub(super) fn stage(file: &Dockerfile, target: Option<&str>) -> Result<usize> {
    let count = file.stages.len();
    match target {
        None => Ok(count - 1),
        Some(name) => file
            .stage_before(name, count)
            .ok_or_else(|| Error::Dockerfile { line: 1, why: format!("there is no stage '{name}'") }),
    }
}

/// The value of a label of the result that the Dockerfile itself sets; `None` if it does not, or if that depends on
/// its base image.
pub fn label(file: &Dockerfile, args: &BuildArgs, target: Option<&str>, name: &str) -> Option<String> {
    let here = Platform::new("", "");
    let mut globals = Globals::new(file, args, "", &here).ok()?;
    let mut number = stage(file, target).ok()?;
    let mut chain = vec![number];
    loop {
        let stage = &file.stages[number];
        let base = globals.expand(stage.line, &stage.base, file.escape).ok()?;
        match file.stage_before(&base, number).filter(|_| !base.contains('/')) {
            Some(before) => number = before,
            None => break,
        }
        chain.push(number);
    }
    let mut state = State::new(ImageConfig::default(), file.escape);
    for number in chain.into_iter().rev() {
        state = state.continued();
        for step in &file.stages[number].steps {
            // Errors are reported when the instruction is executed.
            let _ = state.apply(step, &mut globals);
        }
    }
    state.config.label(name).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_known_beforehand() {
        let text = "ARG board=rpi-2-b\nFROM debian AS base\nARG more=rpi-b\nLABEL m=\"a,$more\"\n\
            FROM other AS apart\nLABEL m=x\nFROM base\nARG board\nRUN x\nCOPY --from=apart /a /b\nLABEL n=$board";
        let file = Dockerfile::parse(text).unwrap();
        let args = BuildArgs::from([("more".to_owned(), "given".to_owned())]);
        let of = |target, name| label(&file, &args, target, name);
        assert_eq!(of(None, "m").as_deref(), Some("a,given"));
        assert_eq!(of(None, "n").as_deref(), Some("rpi-2-b"));
        assert_eq!(of(Some("apart"), "m").as_deref(), Some("x"));
        assert_eq!((of(None, "o"), of(Some("nowhere"), "m")), (None, None));
    }
}
