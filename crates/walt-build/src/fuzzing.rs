//! Entry points for the fuzzer in `fuzz/` only.

use crate::{BuildArgs, Dockerfile, dockerfile, state};
use walt_images::ImageConfig;
use walt_registry::Platform;

/// Reads a Dockerfile and expands what its instructions name, every step of every stage on an empty image, as far as
/// that goes without files and images.
pub fn dockerfile(bytes: &[u8]) {
    let Ok(file) = Dockerfile::read(bytes) else { return };
    let args = BuildArgs::new();
    let here = Platform::new("amd64", "");
    let Ok(mut globals) = state::Globals::new(&file, &args, "amd64", &here) else { return };
    for stage in &file.stages {
        let mut state = state::State::new(ImageConfig::default(), file.escape);
        for step in &stage.steps {
            if state.apply(step, &mut globals).is_err() {
                break;
            }
        }
        for text in state.triggers() {
            let _ = dockerfile::trigger(&text, stage.line);
        }
    }
}
