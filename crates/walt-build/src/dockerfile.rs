//! Parses a Dockerfile into stages and instructions. Nothing is expanded yet.

use super::{
    Error, Result,
    expand::split,
    flags,
    lines::{self, HereDoc, Line, Lines},
};
use parse_dockerfile::{self as library, HealthcheckArguments, JsonOrStringArray};

/// A whole file.
#[derive(Debug)]
pub struct Dockerfile {
    /// Notes for the user.
    pub notes: Vec<String>,
    pub(crate) escape: char,
    /// `ARG` before the first `FROM`.
    pub(crate) globals: Vec<(usize, Vec<Pair>)>,
    pub(crate) stages: Vec<Stage>,
}

/// From one `FROM` to the next.
#[derive(Debug)]
pub(crate) struct Stage {
    pub line: usize,
    /// What follows `FROM`.
    pub base: String,
    pub platform: Option<String>,
    /// Its name, in lower case.
    pub name: Option<String>,
    pub steps: Vec<Step>,
}

/// One instruction.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Step {
    pub line: usize,
    /// The text of the instruction, on one line.
    pub text: String,
    pub instruction: Instruction,
}

/// A name, and what is assigned to it.
pub(crate) type Pair = (String, Option<String>);

/// `--name` or `--name=value`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Flag {
    pub name: String,
    pub value: Option<String>,
}

/// A command in either form.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Command {
    Shell(String),
    Exec(Vec<String>),
}

/// What is copied.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Source {
    Path(String),
    Inline(HereDoc),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Instruction {
    Arg(Vec<Pair>),
    Cmd(Command),
    Copy { add: bool, flags: Vec<Flag>, sources: Vec<Source>, dest: String },
    Entrypoint(Command),
    Env(Vec<Pair>),
    Expose(Vec<String>),
    Healthcheck { flags: Vec<Flag>, test: Option<Command> },
    Label(Vec<Pair>),
    Maintainer(String),
    Onbuild(String),
    Run { flags: Vec<Flag>, command: Command, here_docs: Vec<HereDoc> },
    Shell(Vec<String>),
    Stopsignal(String),
    User(String),
    Volume(Vec<String>),
    Workdir(String),
}

/// A `FROM`, or another instruction.
enum Parsed {
    From { flags: Vec<Flag>, base: String, name: Option<String> },
    Other(Instruction),
}

impl Dockerfile {
    /// Reads a file as it is on disk. Comments may be in any encoding.
    ///
    /// # Errors
    /// [`Error::Dockerfile`], with the line.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        let wrong = |(line, why)| Error::Dockerfile { line, why };
        let mut cut = lines::cut_bytes(bytes).map_err(wrong)?;
        let mut notes = Vec::new();
        for line in &mut cut.lines {
            let Some(at) = line.damaged else { continue };
            // Nothing depends on these texts, so a note is enough.
            if !matches!(first_word(&line.text).as_str(), "MAINTAINER" | "LABEL") {
                return Err(wrong((at, NOT_UTF8.into())));
            }
            notes.push(format!(
                "line {at} of the Dockerfile is not UTF-8: invalid bytes are replaced by '\u{fffd}'."
            ));
        }
        let mut file = Self::of(cut)?;
        file.notes.append(&mut notes);
        Ok(file)
    }

    /// Reads a text.
    ///
    /// # Errors
    /// [`Error::Dockerfile`], with the line.
    pub fn parse(text: &str) -> Result<Self> {
        Self::of(lines::cut(text).map_err(|(line, why)| Error::Dockerfile { line, why })?)
    }

    fn of(cut: Lines) -> Result<Self> {
        let wrong = |(line, why)| Error::Dockerfile { line, why };
        let mut file =
            Self { notes: Vec::new(), escape: cut.escape, globals: Vec::new(), stages: Vec::new() };
        if let Some(syntax) = &cut.syntax {
            file.notes.push(format!("'# syntax={syntax}' is ignored: the builder of this server is used."));
        }
        for line in &cut.lines {
            let parsed = instruction(line, cut.escape).map_err(|why| wrong((line.number, why)))?;
            file.add(line, parsed).map_err(|why| wrong((line.number, why)))?;
        }
        if file.stages.is_empty() {
            return Err(wrong((1, "there is no FROM".into())));
        }
        Ok(file)
    }

    fn add(&mut self, line: &Line, parsed: Parsed) -> std::result::Result<(), String> {
        let step = match parsed {
            Parsed::From { flags, base, name } => {
                let mut platform = None;
                for flag in flags {
                    match (flag.name.as_str(), flag.value) {
                        // As if it were not given.
                        ("platform", Some(value)) if value.is_empty() => {}
                        ("platform", Some(value)) => platform = Some(value),
                        (other, _) => return Err(format!("FROM has no option '--{other}'")),
                    }
                }
                if let Some(name) = &name
                    && !is_stage_name(name)
                {
                    return Err(format!(
                        "'{name}' is not a valid name of a stage: use a letter, then letters, digits, '-', '_', '.'"
                    ));
                }
                let name = name.map(|n| n.to_lowercase());
                self.stages.push(Stage { line: line.number, base, platform, name, steps: Vec::new() });
                return Ok(());
            }
            Parsed::Other(instruction) => Step { line: line.number, text: line.text.clone(), instruction },
        };
        match (self.stages.last_mut(), step.instruction) {
            (Some(stage), instruction) => stage.steps.push(Step { instruction, ..step }),
            (None, Instruction::Arg(pairs)) => self.globals.push((line.number, pairs)),
            (None, _) => return Err("only ARG is allowed before the first FROM".into()),
        }
        Ok(())
    }

    /// The stage of that name or number before stage `before`.
    pub(crate) fn stage_before(&self, name: &str, before: usize) -> Option<usize> {
        let stages = &self.stages[..before.min(self.stages.len())];
        let wanted = name.to_lowercase();
        let named = stages.iter().rposition(|s| s.name.as_deref() == Some(wanted.as_str()));
        named.or_else(|| name.parse().ok().filter(|n| *n < stages.len()))
    }
}

/// The instructions of an `ONBUILD` of the base image.
pub(crate) fn trigger(text: &str, line: usize) -> Result<Vec<Step>> {
    let wrong =
        |why: String| Error::Dockerfile { line, why: format!("ONBUILD of the base image: '{text}': {why}") };
    let cut = lines::cut(text).map_err(|(_, why)| wrong(why))?;
    let mut steps = Vec::new();
    for found in &cut.lines {
        match instruction(found, cut.escape).map_err(wrong)? {
            Parsed::Other(instruction) => steps.push(Step { line, text: found.text.clone(), instruction }),
            Parsed::From { .. } => return Err(wrong("FROM is not allowed there".into())),
        }
    }
    Ok(steps)
}

fn is_stage_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

/// Put before the instruction that is parsed: the library requires an open stage.
const OPENING: &str = "FROM scratch\n";
/// The error about an instruction that is not UTF-8.
const NOT_UTF8: &str =
    "this is not text in UTF-8; in a path of COPY and ADD, '?' stands for a character of another encoding";

/// The name of a line's instruction, in upper case.
fn first_word(line: &str) -> String {
    line.split_whitespace().next().unwrap_or_default().to_ascii_uppercase()
}

/// Parses one instruction: its options here, the rest by the library.
fn instruction(line: &Line, escape: char) -> std::result::Result<Parsed, String> {
    let word = first_word(&line.text);
    let mut bare = line.text.clone();
    let mut flags = Vec::new();
    if matches!(word.as_str(), "FROM" | "RUN" | "COPY" | "ADD" | "HEALTHCHECK") {
        let (found, rest) = flags::take(line.text.trim_start().get(word.len()..).unwrap_or_default(), escape);
        bare = format!("{word} {rest}");
        flags = found;
    }
    let arguments = bare.trim_start().get(word.len()..).unwrap_or_default().trim();
    if word == "ENTRYPOINT"
        && let Some(inside) = arguments.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'))
        && inside.trim().is_empty()
    {
        // The library supports it for CMD only.
        return Ok(Parsed::Other(Instruction::Entrypoint(Command::Exec(Vec::new()))));
    }
    let directive = if escape == '`' { "# escape=`\n" } else { "" };
    let mut text = format!("{directive}{OPENING}");
    if word == "RUN" && !line.here_docs.is_empty() {
        // The library supports here-documents of RUN only as the whole command: hide them from it.
        text.push_str(&bare.replace("<<", "\u{1}\u{1}"));
    } else {
        text.push_str(&bare);
        for here in &line.here_docs {
            text.push_str(if text.ends_with('\n') { "" } else { "\n" });
            text.push_str(&here.text);
            text.push_str(&here.name);
        }
    }
    let mut found = library::parse_iter(&text).map_err(|e| plain(&e))?;
    // The stage that was opened for it.
    found.next();
    match found.next() {
        Some(Ok(parsed)) => owned(parsed, line, flags, arguments, escape),
        Some(Err(e)) => Err(plain(&e)),
        None => Err("an instruction is missing".into()),
    }
}

/// The library's error without its position, which is relative to our excerpt.
fn plain(e: &library::Error) -> String {
    let text = e.to_string();
    text.split(" at line ").next().unwrap_or(&text).trim().to_owned()
}

fn strings(all: &[library::UnescapedString<'_>]) -> Vec<String> {
    all.iter().map(|s| s.value.to_string()).collect()
}

fn command(parsed: &library::Command<'_>) -> Command {
    match parsed {
        library::Command::Exec(words) => Command::Exec(strings(&words.value)),
        library::Command::Shell(text) => Command::Shell(text.value.to_owned()),
        // The library has no other form yet.
        _ => Command::Exec(Vec::new()),
    }
}

/// Converts the library's result. `flags` and `arguments` are those of the instruction.
fn owned(
    parsed: library::Instruction<'_>,
    line: &Line,
    flags: Vec<Flag>,
    arguments: &str,
    escape: char,
) -> std::result::Result<Parsed, String> {
    use library::Instruction as I;
    let other = match parsed {
        I::From(from) => {
            return Ok(Parsed::From {
                flags,
                base: from.image.value.to_string(),
                name: from.as_.map(|(_, name)| name.value.to_string()),
            });
        }
        I::Add(i) => copy(true, flags, &i.src, &i.dest, line),
        I::Copy(i) => copy(false, flags, &i.src, &i.dest, line),
        I::Arg(i) => Instruction::Arg(declared(&i.arguments.value, escape)?),
        I::Cmd(i) => Instruction::Cmd(command(&i.arguments)),
        I::Entrypoint(i) => Instruction::Entrypoint(command(&i.arguments)),
        I::Env(i) => Instruction::Env(assignments("ENV", &i.arguments.value, escape)?),
        I::Label(i) => Instruction::Label(assignments("LABEL", &i.arguments.value, escape)?),
        I::Expose(i) => Instruction::Expose(strings(&i.arguments)),
        I::Healthcheck(i) => Instruction::Healthcheck {
            flags,
            test: match &i.arguments {
                HealthcheckArguments::Cmd { arguments, .. } => Some(command(arguments)),
                _ => None,
            },
        },
        I::Maintainer(i) => Instruction::Maintainer(i.name.value.to_string()),
        I::Onbuild(i) => {
            if matches!(*i.instruction, I::Onbuild(_) | I::From(_) | I::Maintainer(_)) {
                return Err("ONBUILD cannot contain ONBUILD, FROM or MAINTAINER".into());
            }
            let mut text = line.text[i.onbuild.span.len()..].trim_start().to_owned();
            for here in &line.here_docs {
                text.push('\n');
                text.push_str(&here.text);
                text.push_str(&here.name);
            }
            Instruction::Onbuild(text)
        }
        I::Run(i) => {
            let command = match &i.arguments {
                library::Command::Exec(words) => Command::Exec(strings(&words.value)),
                _ => Command::Shell(arguments.to_owned()),
            };
            if command == Command::Shell(String::new()) {
                return Err("RUN needs a command".into());
            }
            Instruction::Run { flags, command, here_docs: line.here_docs.clone() }
        }
        I::Shell(i) => Instruction::Shell(strings(&i.arguments)),
        I::Stopsignal(i) => Instruction::Stopsignal(i.arguments.value.to_string()),
        I::User(i) => Instruction::User(i.arguments.value.to_string()),
        I::Volume(i) => Instruction::Volume(match &i.arguments {
            JsonOrStringArray::Json(words) => strings(&words.value),
            JsonOrStringArray::String(words) => strings(words),
        }),
        I::Workdir(i) => Instruction::Workdir(i.arguments.value.to_string()),
        _ => return Err("unknown instruction".into()),
    };
    Ok(Parsed::Other(other))
}

fn copy(
    add: bool,
    flags: Vec<Flag>,
    src: &[library::Source<'_>],
    dest: &library::UnescapedString<'_>,
    line: &Line,
) -> Instruction {
    let mut here_docs = line.here_docs.iter().cloned();
    let source = |s: &library::Source<'_>| match s {
        library::Source::Path(path) => match lines::here_doc(&path.value).and_then(|_| here_docs.next()) {
            Some(here) => Source::Inline(here),
            None => Source::Path(path.value.to_string()),
        },
        // Our parser knows whether tabs are removed.
        _ => Source::Inline(here_docs.next().unwrap_or_default()),
    };
    let sources = src.iter().map(source).collect();
    Instruction::Copy { add, flags, sources, dest: dest.value.to_string() }
}

/// The arguments of `ARG`: names, with or without a default.
fn declared(text: &str, escape: char) -> std::result::Result<Vec<Pair>, String> {
    let pair = |word: String| match word.split_once('=') {
        Some(("", _)) => Err(format!("'{word}' has no name before '='")),
        Some((name, value)) => Ok((name.to_owned(), Some(value.to_owned()))),
        None => Ok((word, None)),
    };
    split(text, escape).into_iter().map(pair).collect()
}

/// The arguments of `ENV` and `LABEL`: `name=value …`, or the old `name value`.
fn assignments(what: &str, text: &str, escape: char) -> std::result::Result<Vec<Pair>, String> {
    let words = split(text, escape);
    let Some(first) = words.first() else { return Err(format!("{what} needs an argument")) };
    if !first.contains('=') {
        let value = text.trim_start()[first.len()..].trim();
        if value.is_empty() {
            return Err(format!("{what} needs a value: {first}=value"));
        }
        return Ok(vec![(first.clone(), Some(value.to_owned()))]);
    }
    let pair = |word: &String| match word.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), Some(value.to_owned()))),
        _ => Err(format!("'{word}' is not name=value; put quotes around values with blanks")),
    };
    words.iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(text: &str) -> Vec<Instruction> {
        let file =
            Dockerfile::parse(&format!("FROM scratch\n{text}")).unwrap_or_else(|e| panic!("{text}: {e}"));
        file.stages[0].steps.iter().map(|s| s.instruction.clone()).collect()
    }

    fn one(text: &str) -> Instruction {
        steps(text).remove(0)
    }

    fn pairs(all: &[(&str, Option<&str>)]) -> Vec<Pair> {
        all.iter().map(|(k, v)| ((*k).to_owned(), v.map(str::to_owned))).collect()
    }

    #[test]
    fn each_instruction() {
        let exec = |words: &[&str]| Command::Exec(words.iter().map(|w| (*w).to_owned()).collect());
        let shell = |text: &str| Command::Shell(text.into());
        assert_eq!(one("ARG a b=1"), Instruction::Arg(pairs(&[("a", None), ("b", Some("1"))])));
        assert_eq!(one("cmd [\"a\", \"b c\"]"), Instruction::Cmd(exec(&["a", "b c"])));
        assert_eq!(one("CMD a \\\n b"), Instruction::Cmd(shell("a  b")));
        assert_eq!(one("CMD ['a']"), Instruction::Cmd(shell("['a']")));
        assert_eq!(one("ENTRYPOINT [ ]x"), Instruction::Entrypoint(shell("[ ]x")));
        assert_eq!(one("entrypoint [ ] "), Instruction::Entrypoint(exec(&[])));
        assert_eq!(
            one("ENV a=\"b c\" d=e\\ f"),
            Instruction::Env(pairs(&[("a", Some("\"b c\"")), ("d", Some("e\\ f"))]))
        );
        assert_eq!(one("ENV a  b  c=d "), Instruction::Env(pairs(&[("a", Some("b  c=d"))])));
        assert_eq!(one("EXPOSE 80 90/udp"), Instruction::Expose(vec!["80".into(), "90/udp".into()]));
        assert_eq!(one("HEALTHCHECK NONE"), Instruction::Healthcheck { flags: vec![], test: None });
        assert_eq!(
            one("HEALTHCHECK --interval=5s CMD a b"),
            Instruction::Healthcheck {
                flags: vec![Flag { name: "interval".into(), value: Some("5s".into()) }],
                test: Some(shell("a b"))
            }
        );
        assert_eq!(one("ONBUILD RUN a"), Instruction::Onbuild("RUN a".into()));
        assert_eq!(one("SHELL [\"a\", \"-c\"]"), Instruction::Shell(vec!["a".into(), "-c".into()]));
        assert_eq!(one("VOLUME /a /b"), Instruction::Volume(vec!["/a".into(), "/b".into()]));
        assert_eq!(one("VOLUME [\"/a b\"]"), Instruction::Volume(vec!["/a b".into()]));
        assert_eq!(one("WORKDIR /a b"), Instruction::Workdir("/a b".into()));
        let run = |command, here_docs| Instruction::Run { flags: vec![], command, here_docs };
        assert_eq!(one("RUN [\"a\"]"), run(exec(&["a"]), vec![]));
        assert_eq!(one("RUN a | b # c"), run(shell("a | b # c"), vec![]));
        assert_eq!(one("RUN -- a --b"), run(shell("a --b"), vec![]));
        let mount = Flag { name: "mount".into(), value: Some("source=a b,target=/c".into()) };
        assert_eq!(
            one("RUN --mount=\"source=a b\",target=/c  [\"d\"]"),
            Instruction::Run { flags: vec![mount], command: exec(&["d"]), here_docs: vec![] }
        );
        let here = HereDoc { name: "E".into(), expand: true, chomp: false, text: "x\n".into() };
        assert_eq!(one("RUN <<E\nx\nE"), run(shell("<<E"), vec![here.clone()]));
        assert_eq!(one("RUN cat <<E >/y\nx\nE"), run(shell("cat <<E >/y"), vec![here.clone()]));
        assert_eq!(one("RUN cat << E >/y\nx\nE"), run(shell("cat << E >/y"), vec![here.clone()]));
        assert_eq!(
            one("RUN --mount=type=tmpfs,target=/t --network=none <<E\nx\nE\n"),
            Instruction::Run {
                flags: vec![
                    Flag { name: "mount".into(), value: Some("type=tmpfs,target=/t".into()) },
                    Flag { name: "network".into(), value: Some("none".into()) }
                ],
                command: shell("<<E"),
                here_docs: vec![here.clone()],
            }
        );
        assert_eq!(
            one("COPY --link <<E <<-'F' a /d/\nx\nE\n\ty\nF\n"),
            Instruction::Copy {
                add: false,
                flags: vec![Flag { name: "link".into(), value: None }],
                sources: vec![
                    Source::Inline(here),
                    Source::Inline(HereDoc {
                        name: "F".into(),
                        expand: false,
                        chomp: true,
                        text: "\ty\n".into()
                    }),
                    Source::Path("a".into()),
                ],
                dest: "/d/".into(),
            }
        );
        assert_eq!(
            one("ADD [\"a b\", \"/c\"]"),
            Instruction::Copy {
                add: true,
                flags: vec![],
                sources: vec![Source::Path("a b".into())],
                dest: "/c".into()
            }
        );
    }

    #[test]
    fn files_in_other_encodings() {
        let file = Dockerfile::read(
            b"# J\xe9r\xf4me\nFROM scratch\nRUN a \\\n # \xe9\n b\nMAINTAINER J\xe9r\xf4me\nLABEL a=\xe9\n",
        )
        .unwrap();
        assert_eq!(file.notes.len(), 2, "{:?}", file.notes);
        assert!(file.notes[0].starts_with("line 6 "), "{:?}", file.notes);
        assert_eq!(
            file.stages[0].steps[1].instruction,
            Instruction::Maintainer("J\u{fffd}r\u{fffd}me".into())
        );
        for (text, at) in [
            (&b"FROM a\nCOPY \xe4 /x"[..], 2),
            (b"FROM a\nRUN a \\\n# \xe4\n\xe4", 4),
            (b"FROM a\nRUN <<E\n# \xe4\nE", 3),
            (b"ARG a\xe4\nFROM a", 1),
        ] {
            match Dockerfile::read(text) {
                Err(Error::Dockerfile { line, why }) => {
                    assert!(line == at && why.contains("UTF-8"), "{line} {why}")
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn stages() {
        let file =
            Dockerfile::parse("ARG v=1\nFROM --platform=linux/amd64 a:$v AS One\nFROM one\nRUN x").unwrap();
        assert_eq!(file.globals, [(1, pairs(&[("v", Some("1"))]))]);
        assert_eq!(file.stages[0].base, "a:$v");
        assert_eq!(file.stages[0].name.as_deref(), Some("one"));
        assert_eq!(file.stage_before("ONE", 1), Some(0));
        assert_eq!(file.stage_before("0", 1), Some(0));
        assert_eq!(file.stage_before("one", 0), None);
        assert_eq!(file.stage_before("1", 1), None);
    }

    #[test]
    fn wrong_files() {
        for (text, line, part) in [
            ("", 1, "no FROM"),
            ("# nothing", 1, "no FROM"),
            ("RUN a", 1, "before the first FROM"),
            ("FROM a\nRUN", 2, "RUN"),
            ("FROM a\nFOO b", 2, "nstruction"),
            ("FROM a\n\nENV a", 3, "value"),
            ("FROM a\nENV a=1 b", 2, "name=value"),
            ("FROM a AS 1x", 1, "not a valid name of a stage"),
            ("FROM a\nONBUILD FROM b", 2, "ONBUILD"),
            ("FROM --x=y a", 1, "--x"),
            ("FROM a b c", 1, ""),
            ("FROM a\nCOPY a", 2, ""),
            ("FROM a\nSHELL a", 2, ""),
        ] {
            match Dockerfile::parse(text) {
                Err(Error::Dockerfile { line: at, why }) => {
                    assert!(at == line && why.contains(part), "{text:?}: line {at}: {why}");
                }
                other => panic!("{text:?}: {other:?}"),
            }
        }
    }
}
