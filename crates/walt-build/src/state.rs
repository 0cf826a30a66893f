//! What each instruction means at its place: tracks variables and the configuration, and determines the action.
//!
//! Pure. Source: Dockerfile reference, and BuildKit where that says nothing.

mod copy;
mod globals;
mod run;
mod settings;

pub(crate) use copy::{Copy, NAMELESS, Origin};
pub(crate) use globals::Globals;
pub(crate) use run::Run;

use super::{
    Error, Result,
    dockerfile::{Command, Instruction, Pair, Step},
    expand::{self, Variables},
};
use serde_json::{Map, Value, json};
use settings::{healthcheck, is_signal, port_range};
use std::collections::BTreeMap;
use walt_images::{ImageConfig, RunConfig};

/// `PATH`, unless the configuration sets it.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Arguments that need no `ARG`. Cached steps do not depend on them.
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
/// Values given for `ARG`s.
pub type BuildArgs = BTreeMap<String, String>;

/// The action of an instruction, in addition to changing the configuration.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    /// Nothing.
    Configure,
    /// Make a directory with its parents, owned by the user, unless it exists.
    Mkdir { path: String, user: String },
    /// A command runs.
    Run(Run),
    /// Files are copied.
    Copy(Copy),
}

/// The state of a stage: configuration and variables.
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

    /// A stage that starts from another one, and keeps its arguments.
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

    /// Takes the triggers of the base image.
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

    /// Applies an instruction to the configuration, and returns its action.
    pub fn apply(&mut self, step: &Step, globals: &mut Globals<'_>) -> Result<Action> {
        let line = step.line;
        match &step.instruction {
            Instruction::Arg(pairs) => self.arg(line, pairs, globals)?,
            Instruction::Env(pairs) => {
                // All values are expanded with the variables before the instruction.
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
                self.set_command("Cmd", command);
                self.cmd_set = true;
            }
            Instruction::Entrypoint(command) => {
                self.set_command("Entrypoint", command);
                if !self.cmd_set {
                    // The command was meant for another entry point.
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
                        format!("'{signal}' is not a signal: use a number or a name such as SIGTERM"),
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
                match user.trim() {
                    // As in BuildKit: an unset variable means root.
                    "" => drop(self.other().remove("User")),
                    user => drop(self.other().insert("User".into(), json!(user))),
                }
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
                (None, None) => globals.value(&name).map(str::to_owned),
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

    /// Sets a command of the configuration; `[]` removes that of the base image.
    fn set_command(&mut self, key: &str, command: &Command) {
        match self.command(command) {
            words if words.is_empty() => drop(self.other().remove(key)),
            words => drop(self.other().insert(key.into(), json!(words))),
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

#[cfg(test)]
mod tests {
    use super::{copy::destination, *};
    use crate::chmod::Chmod;
    use crate::dockerfile::Dockerfile;
    use walt_registry::Platform;

    /// Applies all instructions of the last stage to an image with some settings; the actions, and the state.
    fn apply(text: &str, given: &[(&str, &str)]) -> Result<(Vec<Action>, State)> {
        let file = Dockerfile::parse(text)?;
        let given: BuildArgs = given.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut globals = Globals::new(&file, &given, "amd64", &Platform::new("arm", "v6"))?;
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
            ("USER a\nUSER ${none}", "User", Value::Null),
            ("CMD a b", "Cmd", json!(["/bin/sh", "-c", "a b"])),
            ("SHELL [\"s\", \"-x\"]\nCMD a b", "Cmd", json!(["s", "-x", "a b"])),
            ("ENTRYPOINT [\"e\"]", "Cmd", Value::Null),
            ("ENTRYPOINT [\"e\"]\nENTRYPOINT []", "Entrypoint", Value::Null),
            ("ENTRYPOINT []", "Cmd", Value::Null),
            ("CMD []", "Cmd", Value::Null),
            ("CMD [\"c\"]\nENTRYPOINT [\"e\"]", "Cmd", json!(["c"])),
            ("WORKDIR x/../y", "WorkingDir", json!("/base/y")),
            ("WORKDIR /z/", "WorkingDir", json!("/z")),
            ("ENV p=8-9\nEXPOSE $p 7/UDP", "ExposedPorts", json!({"8/tcp": {}, "9/tcp": {}, "7/udp": {}})),
            (
                "EXPOSE 80:81 127.0.0.1:82:83/udp [::1]:84:85 86/ 87-88:89-90",
                "ExposedPorts",
                json!({"81/tcp": {}, "83/udp": {}, "85/tcp": {}, "86/tcp": {}, "89/tcp": {}, "90/tcp": {}}),
            ),
            ("HEALTHCHECK --interval=5s none", "Healthcheck", json!({"Test": ["NONE"]})),
            (
                "HEALTHCHECK --interval=0 --timeout= --retries= --start-period=\"1s\" CMD x",
                "Healthcheck",
                json!({"Test": ["CMD-SHELL", "x"], "StartPeriod": 1_000_000_000u64}),
            ),
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
            (copy.dest.as_str(), copy.chmod.clone(), copy.chown.as_deref()),
            ("/base/d/", Some(Chmod::Octal(0o640)), Some("a:b"))
        );
        assert_eq!(copy.sources, [Origin::Path("a".into()), Origin::Path("b*".into())]);
        let text = "FROM x\nCOPY --chown= --chmod= --from= --link=FALSE --exclude= a b\nADD --checksum= --unpack=TRUE a b";
        let (actions, _) = apply(text, &[]).expect("it is right");
        let [Action::Copy(plain), Action::Copy(add)] = actions.as_slice() else { panic!("{actions:?}") };
        assert_eq!((&plain.chown, &plain.chmod, &plain.from, plain.link), (&None, &None, &None, false));
        assert_eq!((&add.checksum, add.unpack), (&None, Some(true)));
        assert_eq!(destination("/w", "."), "/w/");
        assert_eq!(destination("/w", "../x/."), "/x/");
    }

    #[test]
    fn wrong_instructions_name_their_line() {
        for (text, part) in [
            ("ADD git@example.org:x /z", "your key"),
            ("ADD http://x /z/", "what the file is called"),
            ("ADD --checksum=sha256:1 http://x/y /z", "64"),
            ("ADD --checksum=sha256:1 a /z", "for one URL"),
            ("COPY git@example.org:x /z", "not a path"),
            ("COPY --checksum=x a /z", "no option"),
            ("COPY http://x/y /z", "not a path"),
            ("COPY a b c", "end with /"),
            ("COPY --chmod=9 a b", "octal"),
            ("ADD --from=x a b", "no option '--from'"),
            ("RUN --network=host x", "default or none"),
            ("RUN --security=insecure x", "rights"),
            ("RUN --mount=type=ssh,required x", "ssh"),
            ("EXPOSE x", "port"),
            ("EXPOSE x:80", "port"),
            ("EXPOSE 1-2:80-83", "port"),
            ("EXPOSE nowhere:1:80", "port"),
            ("RUN --mount x", "value"),
            ("EXPOSE 9-8", "port"),
            ("STOPSIGNAL SIGX", "signal"),
            ("HEALTHCHECK --interval=x CMD y", "duration"),
            ("LABEL a=${x:?why}", "why"),
        ] {
            match apply(&format!("FROM x\n{text}"), &[]) {
                Err(Error::Dockerfile { line: 2, why }) => assert!(why.contains(part), "{text}: {why}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }
}
