//! `RUN`: the command, its environment, what is mounted for it.

use super::{Globals, PATH, PREDEFINED, Scope, State, at, wrong};
use crate::{
    Result,
    dockerfile::{Command, Flag},
    expand::{self, Variables},
    lines::{self, HereDoc},
    mounts::{self, Mount},
};

/// A command.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Run {
    /// The program and its arguments. If there is a script, it is put before them.
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

impl State {
    pub(super) fn run(
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
                "mount" => {
                    let expand = &|text: &str| expand::word(text, self.escape, &Scope(&self.env, &self.args));
                    all.push(at(line, mounts::parse(value, self.workdir(), expand))?);
                }
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
                                format!("unknown network '{other}': use default or none"),
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
}
