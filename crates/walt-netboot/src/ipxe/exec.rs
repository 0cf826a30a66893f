//! Commands, one after the other.

use super::expand::{self, Value};
use super::script::{self, Then};
use super::uri::Location;
use super::{
    Boot, Error, Files, MAX_COMMAND_LINE, MAX_CONSOLE, MAX_DEPTH, MAX_IMAGES, MAX_SCRIPT, MAX_STEPS, Machine,
    Outcome, Problem,
};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// How a command or a script ended, unless it stopped everything.
enum Done {
    /// As wanted.
    Yes,
    /// Not as wanted: `||` may go on from here.
    No(Failure),
    /// Go on at this index of the script's lines.
    Goto(usize),
    /// The scripts are at their end.
    Out(Outcome),
    /// A chained script took the place of this one, and ended.
    Replaced,
}

type Step = Result<Done, Problem>;

/// The innermost command that failed, with its place once that is known.
struct Failure {
    place: Option<(String, usize)>,
    command: String,
    reason: String,
}

fn no(reason: impl Into<String>) -> Done {
    Done::No(Failure { place: None, command: String::new(), reason: reason.into() })
}

/// What a loaded file is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Script,
    Kernel { arguments: String },
    Initrd,
}

/// A file that is loaded, under the name by which scripts speak of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Image {
    name: String,
    path: String,
    kind: Kind,
}

/// The state of a boot.
pub struct Interpreter<'a> {
    files: &'a dyn Files,
    server: Ipv4Addr,
    variables: BTreeMap<String, Value>,
    images: Vec<Image>,
    steps: usize,
    console: String,
    /// Where the command in hand stands, for errors.
    place: (String, usize),
}

/// The script in hand.
struct Frame<'s> {
    location: &'s Location,
    lines: &'s [script::Line],
    depth: usize,
}

impl<'a> Interpreter<'a> {
    pub fn new(machine: &Machine, files: &'a dyn Files) -> Self {
        Interpreter {
            files,
            server: machine.next_server,
            variables: machine.variables(),
            images: Vec::new(),
            steps: 0,
            console: String::new(),
            place: (String::new(), 0),
        }
    }

    pub fn into_console(self) -> String {
        self.console
    }

    pub fn start(&mut self, name: &str) -> Result<Outcome, Error> {
        let location = Location::first(name);
        self.place = (name.to_owned(), 0);
        let problem = match self.script(&location, 0) {
            Ok(Done::Out(outcome)) => return Ok(outcome),
            Ok(Done::No(Failure { place, command, reason })) => {
                // Without a place no line was reached: the first script itself cannot be read.
                let command = if place.is_some() { command } else { format!("chain {name}") };
                self.place = place.unwrap_or_else(|| (name.to_owned(), 1));
                Problem::Failed { command, reason }
            }
            Ok(Done::Yes | Done::Goto(_) | Done::Replaced) => Problem::NotBooted,
            Err(problem) => problem,
        };
        let (file, line) = self.place.clone();
        Err(Error { file, line: line.max(1), problem })
    }

    /// Loads a script and runs it to its end.
    fn script(&mut self, location: &Location, depth: usize) -> Step {
        if depth > MAX_DEPTH {
            return Err(Problem::Limit { what: "the depth of chained scripts", limit: MAX_DEPTH });
        }
        let Some(name) = location.file() else { return Ok(no("no such file")) };
        let bytes = match self.files.read(&name, MAX_SCRIPT) {
            Ok(bytes) if bytes.len() as u64 > MAX_SCRIPT => {
                return Err(Problem::Limit { what: "the size of a script", limit: MAX_SCRIPT as usize });
            }
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(no("no such file")),
            Err(e) => return Ok(no(e.to_string())),
        };
        let lines = script::parse(&name, &bytes)?;
        let caller = std::mem::replace(&mut self.place, (name, 0));
        let frame = Frame { location, lines: &lines, depth };
        let done = self.lines(&frame)?;
        if depth > 0 && !matches!(done, Done::Out(_)) {
            self.place = caller;
        }
        Ok(done)
    }

    fn lines(&mut self, frame: &Frame<'_>) -> Step {
        let mut at = 0;
        while let Some(line) = frame.lines.get(at) {
            self.place.1 = line.number;
            at += 1;
            match self.line(frame, line)? {
                Done::Yes => {}
                Done::Goto(target) => at = target,
                end => return Ok(end),
            }
        }
        Ok(Done::Yes)
    }

    fn line(&mut self, frame: &Frame<'_>, line: &script::Line) -> Step {
        let mut last = Done::Yes;
        let mut wanted = true;
        for command in &line.commands {
            if wanted {
                last = self.command(frame, &command.words)?;
                if !matches!(last, Done::Yes | Done::No(_)) {
                    return Ok(last);
                }
            }
            wanted = match command.then {
                Then::IfDone => matches!(last, Done::Yes),
                Then::IfFailed => matches!(last, Done::No(_)),
                Then::Always => true,
                Then::End => false,
            };
        }
        Ok(last)
    }

    fn command(&mut self, frame: &Frame<'_>, words: &[String]) -> Step {
        if words.is_empty() {
            return Ok(Done::Yes);
        }
        self.steps += 1;
        if self.steps > MAX_STEPS {
            return Err(Problem::Limit { what: "the number of commands", limit: MAX_STEPS });
        }
        let words: Vec<String> =
            words.iter().map(|word| expand::expand(word, &self.variables)).collect::<Result<_, _>>()?;
        let Some((name, rest)) = words.split_first() else { return Ok(Done::Yes) };
        let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
        let done = match name.as_str() {
            "set" => self.set(&rest)?,
            "echo" => self.echo(&rest)?,
            "chain" => self.chain(frame, &rest)?,
            "imgfree" => self.imgfree(&rest)?,
            "initrd" => self.initrd(frame, &rest)?,
            "kernel" => self.kernel(frame, &rest)?,
            "boot" => self.boot(frame, &rest)?,
            "sleep" => sleep(&rest)?,
            "reboot" => Done::Out(Outcome::Reboot),
            "shell" => Done::Out(Outcome::Shell),
            "isset" => isset(&rest)?,
            "iseq" => iseq(&rest)?,
            "goto" => goto(frame, &rest)?,
            unknown => return Err(Problem::UnknownCommand(unknown.to_owned())),
        };
        Ok(match done {
            Done::No(mut failure) => {
                self.print(&format!("{}: {}\n", words.join(" "), failure.reason));
                // That of a chained script has its place already.
                if failure.place.is_none() {
                    failure.place = Some(self.place.clone());
                    failure.command = words.join(" ");
                }
                Done::No(failure)
            }
            done => done,
        })
    }

    fn set(&mut self, words: &[&str]) -> Step {
        let Some((name, value)) = words.split_first() else {
            return Err(Problem::Usage("set <name> [<value>...]"));
        };
        let (name, _as_type) = name.split_once(':').unwrap_or((name, ""));
        let value = value.join(" ");
        let limit = super::MAX_VALUE;
        if value.len() > limit {
            return Err(Problem::Limit { what: "a value", limit });
        }
        self.variables.insert(expand::unscoped(name).to_owned(), Value::Text(value));
        Ok(Done::Yes)
    }

    fn echo(&mut self, words: &[&str]) -> Step {
        let (options, words) = options("echo", words, &["-n", "--n"], &[])?;
        let end = if options.is_empty() { "\n" } else { "" };
        self.print(&(words.join(" ") + end));
        Ok(Done::Yes)
    }

    fn print(&mut self, text: &str) {
        let room = MAX_CONSOLE.saturating_sub(self.console.len());
        let mut end = text.len().min(room);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.console.push_str(&text[..end]);
    }

    fn chain(&mut self, frame: &Frame<'_>, words: &[&str]) -> Step {
        let flags = ["-a", "--autofree", "-r", "--replace"];
        let (options, words) = options("chain", words, &flags, &["-n", "--name", "-t", "--timeout"])?;
        let Some(uri) = words.first() else { return Err(Problem::Usage("chain [options] <uri>")) };
        let location = frame.location.resolve(uri, self.server)?;
        let given =
            |names: &[&str]| options.iter().find(|(name, _)| names.contains(name)).map(|(_, value)| *value);
        let free = given(&["-a", "--autofree"]).is_some();
        let replace = given(&["-r", "--replace"]).is_some();
        let name = given(&["-n", "--name"]).map_or_else(|| location.base_name(), str::to_owned);
        let done = self.script(&location, frame.depth + 1)?;
        // A script that was read stays loaded until it is freed, also after it failed.
        if !free && let Some(path) = location.file().filter(|path| self.files.exists(path)) {
            self.load(Image { name, path, kind: Kind::Script })?;
        }
        Ok(match done {
            Done::Yes | Done::Replaced if replace => Done::Replaced,
            Done::Yes | Done::Replaced => Done::Yes,
            done => done,
        })
    }

    /// Remembers a file, in place of one of the same name.
    fn load(&mut self, image: Image) -> Result<(), Problem> {
        self.images.retain(|other| other.name != image.name);
        if self.images.len() >= MAX_IMAGES {
            return Err(Problem::Limit { what: "the number of loaded files", limit: MAX_IMAGES });
        }
        self.images.push(image);
        Ok(())
    }

    fn imgfree(&mut self, words: &[&str]) -> Step {
        let (_, names) = options("imgfree", words, &[], &[])?;
        if names.is_empty() {
            self.images.clear();
        }
        for name in names {
            let before = self.images.len();
            self.images.retain(|image| image.name != name);
            if self.images.len() == before {
                return Ok(no(format!("no file '{name}' is loaded")));
            }
        }
        Ok(Done::Yes)
    }

    fn initrd(&mut self, frame: &Frame<'_>, words: &[&str]) -> Step {
        self.fetch("initrd", frame, words, |_| Kind::Initrd, "initrd [--name <name>] <uri>")
    }

    fn kernel(&mut self, frame: &Frame<'_>, words: &[&str]) -> Step {
        let kind = |arguments: &[&str]| Kind::Kernel { arguments: arguments.join(" ") };
        self.fetch("kernel", frame, words, kind, "kernel [--name <name>] <uri> [<argument>...]")
    }

    fn fetch(
        &mut self,
        command: &str,
        frame: &Frame<'_>,
        words: &[&str],
        kind: impl FnOnce(&[&str]) -> Kind,
        usage: &'static str,
    ) -> Step {
        let (options, words) =
            options(command, words, &["-a", "--autofree"], &["-n", "--name", "-t", "--timeout"])?;
        let Some((uri, arguments)) = words.split_first() else { return Err(Problem::Usage(usage)) };
        let location = frame.location.resolve(uri, self.server)?;
        let Some(path) = location.file().filter(|path| self.files.exists(path)) else {
            return Ok(no("no such file"));
        };
        let named = options.iter().find(|(name, _)| matches!(*name, "-n" | "--name"));
        let name = named.map_or_else(|| location.base_name(), |(_, value)| (*value).to_owned());
        let kind = kind(arguments);
        if matches!(kind, Kind::Kernel { .. }) {
            // One kernel is selected, the last one loaded.
            self.images.retain(|image| !matches!(image.kind, Kind::Kernel { .. }));
        }
        self.load(Image { name, path, kind })?;
        Ok(Done::Yes)
    }

    fn boot(&mut self, frame: &Frame<'_>, words: &[&str]) -> Step {
        let flags = ["-a", "--autofree", "-r", "--replace"];
        let (_, words) = options("boot", words, &flags, &["-n", "--name", "-t", "--timeout"])?;
        let loaded = |images: &[Image], name: &str| {
            images.iter().any(|image| image.name == name && matches!(image.kind, Kind::Kernel { .. }))
        };
        if let Some((name, arguments)) = words.split_first() {
            if !loaded(&self.images, name) {
                let fetched = self.kernel(frame, &words)?;
                if !matches!(fetched, Done::Yes) {
                    return Ok(fetched);
                }
            } else if !arguments.is_empty() {
                for image in &mut self.images {
                    if image.name == *name {
                        image.kind = Kind::Kernel { arguments: arguments.join(" ") };
                    }
                }
            }
        }
        let kernel = self.images.iter().find_map(|image| match &image.kind {
            Kind::Kernel { arguments } => Some((image.path.clone(), arguments.clone())),
            _ => None,
        });
        let Some((kernel, command_line)) = kernel else { return Ok(no("no kernel is loaded")) };
        if command_line.len() > MAX_COMMAND_LINE {
            return Err(Problem::Limit { what: "the kernel's command line", limit: MAX_COMMAND_LINE });
        }
        let initrds = self.images.iter().filter(|i| i.kind == Kind::Initrd).map(|i| i.path.clone()).collect();
        Ok(Done::Out(Outcome::Boot(Boot { kernel, initrds, command_line })))
    }
}

/// An option and its value (empty for a flag).
type Options<'w> = Vec<(&'w str, &'w str)>;

/// Takes options off the front of the words.
fn options<'w>(
    command: &str,
    words: &[&'w str],
    flags: &[&str],
    with_value: &[&str],
) -> Result<(Options<'w>, Vec<&'w str>), Problem> {
    let mut found = Vec::new();
    let mut words = words.iter().copied();
    let mut rest = Vec::new();
    while let Some(word) = words.next() {
        if word == "--" {
            break;
        }
        if !word.starts_with('-') || word == "-" {
            rest.push(word);
            break;
        }
        let (name, attached) = match word.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(value)),
            _ => (word, None),
        };
        let unknown = || Problem::UnknownOption { command: command.to_owned(), option: word.to_owned() };
        if flags.contains(&name) && attached.is_none() {
            found.push((name, ""));
        } else if with_value.contains(&name) {
            found.push((name, attached.or_else(|| words.next()).ok_or_else(unknown)?));
        } else {
            return Err(unknown());
        }
    }
    rest.extend(words);
    Ok((found, rest))
}

fn sleep(words: &[&str]) -> Step {
    match words {
        [seconds] if seconds.parse::<u32>().is_ok() => Ok(Done::Yes),
        _ => Err(Problem::Usage("sleep <seconds>")),
    }
}

fn isset(words: &[&str]) -> Step {
    match words {
        [""] => Ok(no("it is empty")),
        [_] => Ok(Done::Yes),
        _ => Err(Problem::Usage("isset <value>")),
    }
}

fn iseq(words: &[&str]) -> Step {
    match words {
        [a, b] if a == b => Ok(Done::Yes),
        [_, _] => Ok(no("they differ")),
        _ => Err(Problem::Usage("iseq <value> <value>")),
    }
}

fn goto(frame: &Frame<'_>, words: &[&str]) -> Step {
    let [label] = words else { return Err(Problem::Usage("goto <label>")) };
    match frame.lines.iter().position(|line| line.label.as_deref() == Some(label)) {
        Some(target) => Ok(Done::Goto(target)),
        None => Ok(no(format!("no label ':{label}'"))),
    }
}
