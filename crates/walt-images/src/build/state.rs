//! What each instruction means at its place: the variables, the configuration so far, and what is to be done.
//!
//! Pure. Source: Dockerfile reference; where it is silent, what its present builder (BuildKit) does.

use super::{
    Error, Result,
    dockerfile::{Command, Dockerfile, Flag, Instruction, Pair, Source, Step},
    expand::{self, Variables},
    lines::{self, HereDoc},
    mounts::{self, Mount},
};
use crate::config::{ImageConfig, RunConfig};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Where programs are looked for, unless the configuration says otherwise.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Arguments that need no `ARG`. They are no part of what a cached step depends on.
pub(crate) const PREDEFINED: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];
/// Widest range of ports that `EXPOSE` takes.
const MAX_PORTS: u32 = 65_536;

/// Values given for `ARG`s.
pub type BuildArgs = BTreeMap<String, String>;

/// What is to be done for an instruction besides changing the configuration.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    /// Nothing.
    Configure,
    /// A directory must be there: made with its parents, for the user.
    Mkdir { path: String, user: String },
    /// A command runs.
    Run(Run),
    /// Files are copied.
    Copy(Copy),
}

/// A command.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Run {
    /// The program and its arguments; with a script of its own, the script is to be put before them.
    pub argv: Vec<String>,
    /// A here-document that names its interpreter.
    pub script: Option<String>,
    /// `NAME=value`, without the predefined arguments.
    pub env: Vec<String>,
    /// The predefined arguments that were given.
    pub proxies: Vec<String>,
    pub workdir: String,
    pub user: String,
    /// Whether there is a network.
    pub network: bool,
    pub mounts: Vec<Mount>,
}

/// Files to copy.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Copy {
    pub add: bool,
    /// The stage or image they come from; none: the context.
    pub from: Option<String>,
    pub sources: Vec<Origin>,
    /// An absolute path; a slash at its end means a directory.
    pub dest: String,
    pub chown: Option<String>,
    pub chmod: Option<u32>,
    pub link: bool,
    pub parents: bool,
    pub exclude: Vec<String>,
    /// Whether archives are unpacked; none: as `ADD` and `COPY` do by themselves.
    pub unpack: Option<bool>,
}

/// Where something copied comes from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Origin {
    /// A path with wildcards.
    Path(String),
    /// A file written down in the Dockerfile: name and content.
    Inline(String, String),
}

/// What a stage starts from, and where its instructions have brought it.
#[derive(Debug, Clone)]
pub(crate) struct State {
    escape: char,
    pub config: ImageConfig,
    /// `ENV`, of the base image too.
    env: Vec<(String, String)>,
    /// `ARG`s with a value.
    args: Vec<(String, String)>,
    cmd_set: bool,
}

/// `ENV` hides `ARG`.
struct Scope<'a>(&'a [(String, String)], &'a [(String, String)]);

impl Variables for Scope<'_> {
    fn value(&self, name: &str) -> Option<&str> {
        self.0.value(name).or_else(|| self.1.value(name))
    }
}

/// Arguments of the whole file: those before the first `FROM`, and the platform.
#[derive(Debug)]
pub(crate) struct Globals<'a> {
    values: Vec<(String, String)>,
    given: &'a BuildArgs,
    used: BTreeSet<String>,
}

impl<'a> Globals<'a> {
    /// `architecture` in Go's names.
    pub fn new(file: &Dockerfile, given: &'a BuildArgs, architecture: &str) -> Result<Self> {
        let mut all = Self { values: Vec::new(), given, used: BTreeSet::new() };
        for side in ["TARGET", "BUILD"] {
            all.set(&format!("{side}PLATFORM"), format!("linux/{architecture}"));
            all.set(&format!("{side}OS"), "linux".into());
            all.set(&format!("{side}ARCH"), architecture.into());
            all.set(&format!("{side}VARIANT"), String::new());
        }
        for (line, pairs) in &file.globals {
            for (name, default) in pairs {
                let value = match (all.given(name), default) {
                    (Some(given), _) => Some(given),
                    (None, Some(text)) => {
                        Some(at(*line, expand::word(text, file.escape, all.values.as_slice()))?)
                    }
                    (None, None) => None,
                };
                if let Some(value) = value {
                    all.set(name, value);
                }
            }
        }
        Ok(all)
    }

    fn set(&mut self, name: &str, value: String) {
        self.values.push((name.to_owned(), value));
    }

    fn given(&mut self, name: &str) -> Option<String> {
        let value = self.given.get(name)?;
        self.used.insert(name.to_owned());
        Some(value.clone())
    }

    /// Expands what follows `FROM`.
    pub fn expand(&self, line: usize, text: &str, escape: char) -> Result<String> {
        let found = at(line, expand::word(text, escape, self.values.as_slice()))?;
        match found.is_empty() {
            true => {
                Err(wrong(line, format!("'{text}' names no image: is an ARG before FROM without a value?")))
            }
            false => Ok(found),
        }
    }

    /// Names that were given and that no `ARG` asked for.
    pub fn unused(&self) -> Vec<&str> {
        let known = |name: &&String| self.used.contains(*name) || PREDEFINED.contains(&name.as_str());
        self.given.keys().filter(|n| !known(n)).map(String::as_str).collect()
    }
}

fn wrong(line: usize, why: impl Into<String>) -> Error {
    Error::Dockerfile { line, why: why.into() }
}

fn at<T>(line: usize, result: std::result::Result<T, String>) -> Result<T> {
    result.map_err(|why| wrong(line, why))
}

impl State {
    /// A stage on an image.
    pub fn new(config: ImageConfig, escape: char) -> Self {
        let lines = config.config.as_ref().and_then(|c| c.env.clone()).unwrap_or_default();
        let pair = |line: &String| line.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
        Self {
            escape,
            env: lines.iter().filter_map(pair).collect(),
            args: Vec::new(),
            config,
            cmd_set: false,
        }
    }

    /// A stage on another one: its arguments go on.
    pub fn continued(&self) -> Self {
        Self { cmd_set: false, ..self.clone() }
    }

    fn run_config(&mut self) -> &mut RunConfig {
        self.config.config.get_or_insert_default()
    }

    fn other(&mut self) -> &mut Map<String, Value> {
        &mut self.run_config().other
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.config.config.as_ref()?.other.get(key)?.as_str().filter(|s| !s.is_empty())
    }

    fn list(&self, key: &str) -> Option<Vec<String>> {
        let list = self.config.config.as_ref()?.other.get(key)?.as_array()?;
        Some(list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
    }

    /// The directory commands run in.
    pub fn workdir(&self) -> &str {
        self.text("WorkingDir").unwrap_or("/")
    }

    /// The account commands run as; empty is root.
    pub fn user(&self) -> &str {
        self.text("User").unwrap_or("")
    }

    fn shell(&self) -> Vec<String> {
        self.list("Shell").unwrap_or_else(|| vec!["/bin/sh".into(), "-c".into()])
    }

    /// Takes the triggers that the base image has left.
    pub fn triggers(&mut self) -> Vec<String> {
        let found = self.list("OnBuild").unwrap_or_default();
        self.other().remove("OnBuild");
        found
    }

    fn word(&self, line: usize, text: &str) -> Result<String> {
        at(line, expand::word(text, self.escape, &Scope(&self.env, &self.args)))
    }

    fn words(&self, line: usize, texts: &[String]) -> Result<Vec<String>> {
        texts.iter().map(|t| self.word(line, t)).collect()
    }

    fn set_env(&mut self, name: &str, value: &str) {
        match self.env.iter_mut().find(|(n, _)| n == name) {
            Some(found) => found.1 = value.to_owned(),
            None => self.env.push((name.to_owned(), value.to_owned())),
        }
        let lines = self.env.iter().map(|(n, v)| format!("{n}={v}")).collect();
        self.run_config().env = Some(lines);
    }

    /// Carries an instruction out, as far as the configuration goes; what else is to be done.
    pub fn apply(&mut self, step: &Step, globals: &mut Globals<'_>) -> Result<Action> {
        let line = step.line;
        match &step.instruction {
            Instruction::Arg(pairs) => self.arg(line, pairs, globals)?,
            Instruction::Env(pairs) => {
                // All values see the variables as they were before the instruction.
                for (name, value) in self.pairs(line, pairs)? {
                    self.set_env(&name, &value);
                }
            }
            Instruction::Label(pairs) => {
                for (name, value) in self.pairs(line, pairs)? {
                    self.run_config().labels.get_or_insert_default().insert(name, value);
                }
            }
            Instruction::Maintainer(name) => self.config.author = Some(name.clone()),
            Instruction::Cmd(command) => {
                let value = json!(self.command(command));
                self.other().insert("Cmd".into(), value);
                self.cmd_set = true;
            }
            Instruction::Entrypoint(command) => {
                let value = json!(self.command(command));
                self.other().insert("Entrypoint".into(), value);
                if !self.cmd_set {
                    // A command meant for another entry point.
                    self.other().remove("Cmd");
                }
            }
            Instruction::Shell(words) => {
                self.other().insert("Shell".into(), json!(words));
            }
            Instruction::Expose(ports) => self.expose(line, ports)?,
            Instruction::Volume(paths) => {
                for path in self.words(line, paths)? {
                    if path.trim().is_empty() {
                        return Err(wrong(line, "VOLUME needs a path"));
                    }
                    self.set_member("Volumes", path);
                }
            }
            Instruction::Stopsignal(signal) => {
                let signal = self.word(line, signal)?;
                if !is_signal(&signal) {
                    return Err(wrong(
                        line,
                        format!("'{signal}' is no signal: use a number or a name as SIGTERM"),
                    ));
                }
                self.other().insert("StopSignal".into(), json!(signal));
            }
            Instruction::Healthcheck { flags, test } => {
                let value = healthcheck(flags, test.as_ref()).map_err(|why| wrong(line, why))?;
                self.other().insert("Healthcheck".into(), value);
            }
            Instruction::Onbuild(text) => {
                let list = self.other().entry("OnBuild").or_insert_with(|| json!([]));
                if let Value::Array(list) = list {
                    list.push(json!(text));
                }
            }
            Instruction::User(user) => {
                let user = self.word(line, user)?;
                if user.is_empty() {
                    return Err(wrong(line, "USER needs a name or a number"));
                }
                self.other().insert("User".into(), json!(user));
            }
            Instruction::Workdir(path) => {
                let path = self.word(line, path)?;
                let path = absolute(self.workdir(), &path);
                self.other().insert("WorkingDir".into(), json!(path));
                if path != "/" {
                    return Ok(Action::Mkdir { path, user: self.user().to_owned() });
                }
            }
            Instruction::Run { flags, command, here_docs } => {
                return Ok(Action::Run(self.run(line, flags, command, here_docs, globals)?));
            }
            Instruction::Copy { add, flags, sources, dest } => {
                return Ok(Action::Copy(self.copy(line, *add, flags, sources, dest)?));
            }
        }
        Ok(Action::Configure)
    }

    fn arg(&mut self, line: usize, pairs: &[Pair], globals: &mut Globals<'_>) -> Result<()> {
        for (name, default) in pairs {
            let name = self.word(line, name)?;
            let value = match (globals.given(&name), default) {
                (Some(given), _) => Some(given),
                (None, Some(text)) => Some(self.word(line, text)?),
                (None, None) => globals.values.as_slice().value(&name).map(str::to_owned),
            };
            self.args.retain(|(n, _)| *n != name);
            if let Some(value) = value {
                self.args.push((name, value));
            }
        }
        Ok(())
    }

    fn pairs(&self, line: usize, pairs: &[Pair]) -> Result<Vec<(String, String)>> {
        let mut all = Vec::with_capacity(pairs.len());
        for (name, value) in pairs {
            let name = self.word(line, name)?;
            if name.is_empty() {
                return Err(wrong(line, "a name is empty"));
            }
            all.push((name, self.word(line, value.as_deref().unwrap_or_default())?));
        }
        Ok(all)
    }

    fn command(&self, command: &Command) -> Vec<String> {
        match command {
            Command::Exec(words) => words.clone(),
            Command::Shell(text) => {
                let mut words = self.shell();
                words.push(text.clone());
                words
            }
        }
    }

    fn set_member(&mut self, key: &str, member: String) {
        let set = self.other().entry(key).or_insert_with(|| json!({}));
        if !set.is_object() {
            *set = json!({});
        }
        if let Value::Object(set) = set {
            set.insert(member, json!({}));
        }
    }

    fn expose(&mut self, line: usize, ports: &[String]) -> Result<()> {
        for text in ports {
            let scope = Scope(&self.env, &self.args);
            for word in at(line, expand::words(text, self.escape, &scope))? {
                for port in at(line, port_range(&word))? {
                    self.set_member("ExposedPorts", port);
                }
            }
        }
        Ok(())
    }

    fn run(
        &self,
        line: usize,
        flags: &[Flag],
        command: &Command,
        here_docs: &[HereDoc],
        globals: &mut Globals<'_>,
    ) -> Result<Run> {
        let (mut network, mut all) = (true, Vec::new());
        for flag in flags {
            let value = flag.value.as_deref().unwrap_or_default();
            match flag.name.as_str() {
                "mount" => all.push(at(line, mounts::parse(&self.word(line, value)?, self.workdir()))?),
                "network" => {
                    network = match self.word(line, value)?.as_str() {
                        "default" => true,
                        "none" => false,
                        "host" => {
                            return Err(wrong(
                                line,
                                "--network=host would open the server's own network: use default or none",
                            ));
                        }
                        other => {
                            return Err(wrong(
                                line,
                                format!("--network={other} is not known: use default or none"),
                            ));
                        }
                    };
                }
                "security" if value == "sandbox" => {}
                "security" => {
                    return Err(wrong(line, "commands of a build have no more rights than an image shell"));
                }
                other => return Err(wrong(line, format!("RUN has no option '--{other}'"))),
            }
        }
        let (argv, script) = match (command, here_docs) {
            (Command::Shell(text), [here]) if lines::here_doc(text).is_some() => {
                let content = here.content();
                match content.starts_with("#!") {
                    true => (Vec::new(), Some(content)),
                    false => (self.command(&Command::Shell(content)), None),
                }
            }
            (Command::Shell(text), _) => {
                // The shell reads the here-documents itself.
                let mut text = text.clone();
                for here in here_docs {
                    text.push('\n');
                    text.push_str(&here.text);
                    text.push_str(&here.name);
                }
                (self.command(&Command::Shell(text)), None)
            }
            (exec, _) => (self.command(exec), None),
        };
        let mut env = Vec::new();
        let has = |name: &str| self.env.iter().any(|(n, _)| n == name);
        if !has("PATH") {
            env.push(format!("PATH={PATH}"));
        }
        env.extend(self.env.iter().map(|(n, v)| format!("{n}={v}")));
        let hidden = |name: &str| has(name) || PREDEFINED.contains(&name);
        env.extend(self.args.iter().filter(|(n, _)| !hidden(n)).map(|(n, v)| format!("{n}={v}")));
        let mut proxies = Vec::new();
        for name in PREDEFINED {
            let value = globals.given(name).or_else(|| self.args.as_slice().value(name).map(str::to_owned));
            if let Some(value) = value.filter(|_| !has(name)) {
                proxies.push(format!("{name}={value}"));
            }
        }
        Ok(Run {
            argv,
            script,
            env,
            proxies,
            workdir: self.workdir().to_owned(),
            user: self.user().to_owned(),
            network,
            mounts: all,
        })
    }

    fn copy(&self, line: usize, add: bool, flags: &[Flag], sources: &[Source], dest: &str) -> Result<Copy> {
        let what = if add { "ADD" } else { "COPY" };
        let dest = self.word(line, dest)?;
        let mut copy = Copy {
            add,
            from: None,
            sources: Vec::new(),
            dest: destination(self.workdir(), &dest),
            chown: None,
            chmod: None,
            link: false,
            parents: false,
            exclude: Vec::new(),
            unpack: None,
        };
        for flag in flags {
            let value = match &flag.value {
                Some(value) => Some(self.word(line, value)?),
                None => None,
            };
            let needed =
                || value.clone().ok_or_else(|| wrong(line, format!("--{} needs a value", flag.name)));
            let switch = || match value.as_deref() {
                None | Some("true") => Ok(true),
                Some("false") => Ok(false),
                Some(other) => Err(wrong(line, format!("--{}={other}: use true or false", flag.name))),
            };
            match flag.name.as_str() {
                "from" if !add => copy.from = Some(needed()?),
                "chown" => copy.chown = Some(needed()?),
                "chmod" => {
                    let text = needed()?;
                    let mode = u32::from_str_radix(&text, 8).ok().filter(|m| *m <= 0o7777);
                    let why = || wrong(line, format!("--chmod={text}: use an octal number up to 7777"));
                    copy.chmod = Some(mode.ok_or_else(why)?);
                }
                "link" => copy.link = switch()?,
                "parents" if !add => copy.parents = switch()?,
                "exclude" => copy.exclude.push(needed()?),
                "unpack" if add => copy.unpack = Some(switch()?),
                other => return Err(wrong(line, format!("{what} has no option '--{other}'"))),
            }
        }
        for source in sources {
            copy.sources.push(match source {
                Source::Inline(here) => {
                    let content = here.content();
                    let content = match here.expand {
                        true => at(line, expand::here_document(&content, &Scope(&self.env, &self.args)))?,
                        false => content,
                    };
                    Origin::Inline(here.name.clone(), content)
                }
                Source::Path(path) => Self::origin(line, add, &self.word(line, path)?)?,
            });
        }
        let directory = dest.is_empty() || dest.ends_with('/') || dest == "." || dest.ends_with("/.");
        if copy.sources.len() > 1 && !directory {
            return Err(wrong(
                line,
                format!("with several sources, the destination of {what} must end with /"),
            ));
        }
        Ok(copy)
    }

    fn origin(line: usize, add: bool, path: &str) -> Result<Origin> {
        if is_remote(path) {
            let why = match add {
                // The server fetches nothing for others from its own place in the network.
                true => {
                    "is not fetched by this server: put it into the directory of the Dockerfile, or fetch it in a RUN"
                }
                false => "is no path: COPY takes files of the directory, of a stage or of an image",
            };
            return Err(wrong(line, format!("'{path}' {why}")));
        }
        if path.is_empty() {
            return Err(wrong(line, "a source is empty"));
        }
        Ok(Origin::Path(path.to_owned()))
    }
}

/// A URL, or a git repository.
fn is_remote(source: &str) -> bool {
    let lower = source.to_ascii_lowercase();
    ["http://", "https://", "git://", "ssh://", "git@"].iter().any(|start| lower.starts_with(start))
}

/// Joins and tidies a path: absolute, without `.`, `..` and doubled slashes.
pub(crate) fn absolute(base: &str, path: &str) -> String {
    let whole = if path.starts_with('/') { path.to_owned() } else { format!("{base}/{path}") };
    let mut names: Vec<&str> = Vec::new();
    for name in whole.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    format!("/{}", names.join("/"))
}

/// As [`absolute`], for the destination of a copy: what means a directory keeps a slash at its end.
fn destination(workdir: &str, dest: &str) -> String {
    let directory = dest.is_empty() || dest.ends_with('/') || dest == "." || dest.ends_with("/.");
    let mut path = absolute(workdir, dest);
    if directory && !path.ends_with('/') {
        path.push('/');
    }
    path
}

/// `80`, `80/udp`, `80-82/tcp` as the entries of a configuration.
fn port_range(text: &str) -> std::result::Result<Vec<String>, String> {
    let why = || format!("'{text}' is no port: use 80, 80/udp or 80-82/tcp");
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(why());
    }
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let number = |text: &str| text.parse::<u32>().ok().filter(|n| *n < MAX_PORTS).ok_or_else(why);
    let (first, last) = (number(first)?, number(last)?);
    if first > last {
        return Err(why());
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

fn is_signal(text: &str) -> bool {
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    match text.parse::<u32>() {
        Ok(number) => (1..=64).contains(&number),
        Err(_) => {
            const NAMES: [&str; 33] = [
                "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT",
                "KILL", "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM",
                "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU",
            ];
            let real_time = name.strip_prefix("RTM").is_some_and(|rest| {
                let digits = rest.trim_start_matches("IN+").trim_start_matches("AX-");
                matches!(rest, "IN" | "AX") || digits.parse::<u8>().is_ok_and(|n| n <= 15)
            });
            NAMES.contains(&name) || name == "XFSZ" || real_time
        }
    }
}

/// A duration as Go writes it, in nanoseconds: `1m30s`, `500ms`.
fn duration(text: &str) -> Option<u64> {
    let mut total = 0f64;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1e0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        rest = &rest[end..];
        total += number * unit;
    }
    // Ten years: what is longer is a slip.
    (!text.is_empty() && total < 3.2e17).then_some(total as u64)
}

fn healthcheck(flags: &[Flag], test: Option<&Command>) -> std::result::Result<Value, String> {
    let Some(test) = test else {
        return match flags.is_empty() {
            true => Ok(json!({"Test": ["NONE"]})),
            false => Err("HEALTHCHECK NONE takes no option".into()),
        };
    };
    let words = match test {
        Command::Shell(text) => vec!["CMD-SHELL".to_owned(), text.clone()],
        Command::Exec(words) => std::iter::once("CMD".to_owned()).chain(words.iter().cloned()).collect(),
    };
    let mut value = json!({"Test": words});
    for flag in flags {
        let text = flag.value.as_deref().unwrap_or_default();
        let key = match flag.name.as_str() {
            "interval" => "Interval",
            "timeout" => "Timeout",
            "start-period" => "StartPeriod",
            "start-interval" => "StartInterval",
            "retries" => {
                let count: u32 = text.parse().map_err(|_| format!("--retries={text} is no number"))?;
                value["Retries"] = json!(count);
                continue;
            }
            other => return Err(format!("HEALTHCHECK has no option '--{other}'")),
        };
        let nanoseconds =
            duration(text).ok_or_else(|| format!("--{}={text} is no duration as 1m30s", flag.name))?;
        value[key] = json!(nanoseconds);
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Applies all instructions of the last stage to an image with some settings; the actions, and the state.
    fn apply(text: &str, given: &[(&str, &str)]) -> Result<(Vec<Action>, State)> {
        let file = Dockerfile::parse(text)?;
        let given: BuildArgs = given.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut globals = Globals::new(&file, &given, "amd64")?;
        let base = json!({
            "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []},
            "config": {"Env": ["BASE=1"], "WorkingDir": "/base", "Cmd": ["base"]},
        });
        let base = serde_json::from_value(base).expect("a configuration");
        let mut state = State::new(base, file.escape);
        let stage = file.stages.last().expect("a stage");
        let mut actions = Vec::new();
        for step in &stage.steps {
            actions.push(state.apply(step, &mut globals)?);
        }
        Ok((actions, state))
    }

    fn settings(text: &str) -> Value {
        let (_, state) = apply(&format!("FROM x\n{text}"), &[]).unwrap_or_else(|e| panic!("{text}: {e}"));
        serde_json::to_value(state.config.config).expect("JSON")
    }

    #[test]
    fn settings_of_images() {
        for (text, key, value) in [
            ("ENV a=1\nENV BASE=2", "Env", json!(["BASE=2", "a=1"])),
            ("CMD a b", "Cmd", json!(["/bin/sh", "-c", "a b"])),
            ("SHELL [\"s\", \"-x\"]\nCMD a b", "Cmd", json!(["s", "-x", "a b"])),
            ("ENTRYPOINT [\"e\"]", "Cmd", Value::Null),
            ("CMD [\"c\"]\nENTRYPOINT [\"e\"]", "Cmd", json!(["c"])),
            ("WORKDIR x/../y", "WorkingDir", json!("/base/y")),
            ("WORKDIR /z/", "WorkingDir", json!("/z")),
            ("ENV p=8-9\nEXPOSE $p 7/UDP", "ExposedPorts", json!({"8/tcp": {}, "9/tcp": {}, "7/udp": {}})),
            (
                "HEALTHCHECK --interval=1h0.5s CMD x",
                "Healthcheck",
                json!({"Test": ["CMD-SHELL", "x"], "Interval": 3_600_500_000_000u64}),
            ),
            ("STOPSIGNAL RTMIN+3", "StopSignal", json!("RTMIN+3")),
            ("LABEL a=$BASE b='$BASE'", "Labels", json!({"a": "1", "b": "$BASE"})),
            ("ONBUILD RUN x\nONBUILD ENV a=b", "OnBuild", json!(["RUN x", "ENV a=b"])),
        ] {
            assert_eq!(settings(text)[key], value, "{text}");
        }
    }

    #[test]
    fn arguments_and_their_scope() {
        let text = "ARG g=global\nARG h\nFROM x\nARG g\nARG h=own\nARG u\nENV e=env\nARG e=arg\nLABEL l=$g-$h-$u-$e-$TARGETARCH\nRUN x";
        let (actions, state) =
            apply(text, &[("u", "given"), ("HTTP_PROXY", "p"), ("other", "o")]).expect("it is right");
        let labels = state.config.config.as_ref().and_then(|c| c.labels.clone()).unwrap_or_default();
        assert_eq!(labels["l"], "global-own-given-env-");
        let Some(Action::Run(run)) = actions.last() else { panic!("{actions:?}") };
        assert_eq!(
            run.env,
            [
                format!("PATH={PATH}"),
                "BASE=1".into(),
                "e=env".into(),
                "g=global".into(),
                "h=own".into(),
                "u=given".into()
            ]
        );
        assert_eq!(run.proxies, ["HTTP_PROXY=p"]);
        assert_eq!((run.workdir.as_str(), run.network), ("/base", true));
        assert_eq!(run.argv, ["/bin/sh", "-c", "x"]);
    }

    #[test]
    fn copies() {
        let (actions, _) = apply("FROM x\nCOPY --chmod=0640 --chown=a:b a b* d/", &[]).expect("it is right");
        let [Action::Copy(copy)] = actions.as_slice() else { panic!("{actions:?}") };
        assert_eq!(
            (copy.dest.as_str(), copy.chmod, copy.chown.as_deref()),
            ("/base/d/", Some(0o640), Some("a:b"))
        );
        assert_eq!(copy.sources, [Origin::Path("a".into()), Origin::Path("b*".into())]);
        assert_eq!(destination("/w", "."), "/w/");
        assert_eq!(destination("/w", "../x/."), "/x/");
    }

    #[test]
    fn wrong_instructions_name_their_line() {
        for (text, part) in [
            ("ADD http://x/y /z", "not fetched"),
            ("ADD git@example.org:x /z", "not fetched"),
            ("COPY http://x/y /z", "no path"),
            ("COPY a b c", "end with /"),
            ("COPY --chmod=9 a b", "octal"),
            ("ADD --from=x a b", "no option '--from'"),
            ("RUN --network=host x", "default or none"),
            ("RUN --security=insecure x", "rights"),
            ("RUN --mount=type=ssh x", "ssh"),
            ("EXPOSE x", "port"),
            ("EXPOSE 9-8", "port"),
            ("STOPSIGNAL SIGX", "signal"),
            ("HEALTHCHECK --interval=x CMD y", "duration"),
            ("USER $none", "USER needs"),
            ("LABEL a=${x:?why}", "why"),
        ] {
            match apply(&format!("FROM x\n{text}"), &[]) {
                Err(Error::Dockerfile { line: 2, why }) => assert!(why.contains(part), "{text}: {why}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }
}
