//! `walt image build`

mod context;

use crate::{
    commands::options::Confirmed,
    confirm::{Attempt, confirmed},
    context::Context,
    error::Failure,
    registries,
    stdio::Output as LocalOutput,
    ui,
};
use clap::{ArgGroup, Args};
use context::BuildContext;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use walt_api::build::{MAX_SECRET, OpenImageBuild, Secret};
use walt_api::term::{ClientMessage, ServerMessage};
use walt_client::{Error, Output, TerminalInput, TerminalOutput};

/// `walt image build`
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("source").required(true).args(["from_dir", "from_url"])))]
pub struct Build {
    image_name: String,
    /// local directory that contains a Dockerfile
    #[arg(long, value_name = "DIRECTORY:str")]
    from_dir: Option<PathBuf>,
    /// URL of a git repository that contains a Dockerfile
    #[arg(long, value_name = "GIT_URL:str")]
    from_url: Option<String>,
    /// sub-directory of the git repository to build in
    #[arg(long, value_name = "PATH:str", requires = "from_url", conflicts_with = "from_dir")]
    sub_dir: Option<String>,
    /// value for an ARG of the Dockerfile; may be repeated
    #[arg(long, value_name = "NAME=VALUE:str", action = clap::ArgAction::Append)]
    build_arg: Vec<String>,
    /// id=ID,src=FILE or id=ID,env=NAME: visible only to commands that mount it; may be repeated
    #[arg(long, value_name = "SECRET:str", action = clap::ArgAction::Append)]
    secret: Vec<String>,
    /// stage of the Dockerfile to build; the last one by default
    #[arg(long, value_name = "STAGE:str")]
    target: Option<String>,
    /// run all steps again
    #[arg(long)]
    no_cache: bool,
    /// ask the registries again what the names after FROM point to
    #[arg(long)]
    pull: bool,
    #[command(flatten)]
    confirmed: Confirmed,
}

impl Build {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        self.build(context).await.inspect_err(|failure| {
            // A user who declined or interrupted it knows.
            if matches!(failure, Failure::Failed { .. } | Failure::Api(_) | Failure::Client(_)) {
                ui::note("Sorry, image build FAILED.");
            }
        })
    }

    async fn build(&self, context: &mut Context) -> Result<(), Failure> {
        let build_args = self.build_args()?;
        let secrets = self.secrets()?;
        let (dir, _clone) = self.directory(context).await?;
        let build_context = BuildContext::find(&dir)?;
        let mut open = OpenImageBuild {
            image: self.image_name.clone(),
            dockerfile_size: build_context.dockerfile.len() as u64,
            secrets: secrets.iter().map(|(id, b)| Secret { id: id.clone(), size: b.len() as u64 }).collect(),
            build_args,
            target: self.target.clone(),
            no_cache: self.no_cache,
            pull: self.pull,
            answers: true,
            receiving: self.from_dir.is_some(),
            command: self.command(),
            yes: self.confirmed.yes,
            confirm: None,
        };
        // With --yes the server does not ask, so no answer is needed here.
        let subject = "what this would overwrite";
        confirmed(context, false, subject, async |context: &mut Context, token| {
            open.confirm = token;
            let pair = context.ui.watch(context.client.image_build(&open)).await?;
            Attempt::from_result(self.stream(context, pair, &build_context, &secrets).await)
        })
        .await
    }

    /// The command, as the history of the image records it; without values that may be secret.
    fn command(&self) -> String {
        let mut text = String::from("walt image build");
        if let Some(dir) = &self.from_dir {
            text.push_str(&format!(" --from-dir {}", dir.display()));
        }
        if let Some(url) = &self.from_url {
            text.push_str(&format!(" --from-url {url}"));
        }
        if let Some(dir) = &self.sub_dir {
            text.push_str(&format!(" --sub-dir {dir}"));
        }
        format!("{text} {}", self.image_name)
    }

    fn build_args(&self) -> Result<BTreeMap<String, String>, Failure> {
        let mut all = BTreeMap::new();
        for text in &self.build_arg {
            let (name, value) = match text.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                // As docker: the value of the caller's environment, if there is one.
                None => (text.clone(), std::env::var(text).ok()),
            };
            if name.is_empty() {
                return Err(Failure::new(format!("--build-arg {text}: the name before '=' is missing.")));
            }
            if let Some(value) = value {
                all.insert(name, value);
            }
        }
        Ok(all)
    }

    fn secrets(&self) -> Result<Vec<(String, Vec<u8>)>, Failure> {
        let mut all = Vec::new();
        for text in &self.secret {
            let (mut id, mut source, mut variable) = (None, None, None);
            for field in text.split(',') {
                match field.split_once('=') {
                    Some(("id", value)) => id = Some(value.to_owned()),
                    Some(("src" | "source", value)) => source = Some(value.to_owned()),
                    Some(("env", value)) => variable = Some(value.to_owned()),
                    Some(("type", "file" | "env")) => {}
                    _ => {
                        return Err(Failure::new(format!(
                            "--secret {text}: use id=ID,src=FILE or id=ID,env=NAME."
                        )));
                    }
                }
            }
            let id = id.ok_or_else(|| Failure::new(format!("--secret {text}: the id is missing.")))?;
            let bytes = match (source, variable) {
                (Some(_), Some(_)) => {
                    return Err(Failure::new(format!("--secret {text}: use src or env, not both.")));
                }
                (None, Some(name)) => std::env::var(&name)
                    .map_err(|_| Failure::new(format!("--secret {text}: the variable {name} is not set.")))?
                    .into_bytes(),
                (source, None) => {
                    let path = source.unwrap_or_else(|| id.clone());
                    std::fs::read(&path)
                        .map_err(|e| Failure::new(format!("--secret {text}: cannot read {path}: {e}.")))?
                }
            };
            if bytes.len() as u64 > MAX_SECRET {
                return Err(Failure::new(format!(
                    "--secret {text}: the secret is larger than {MAX_SECRET} bytes."
                )));
            }
            all.push((id, bytes));
        }
        Ok(all)
    }

    /// The directory to build in, and the temporary directory that holds it if it was cloned.
    async fn directory(
        &self,
        context: &mut Context,
    ) -> Result<(PathBuf, Option<tempfile::TempDir>), Failure> {
        let Some(url) = &self.from_url else {
            return Ok((self.from_dir.clone().unwrap_or_default(), None));
        };
        ui::out(&format!("** Cloning the git repository at {url}"))?;
        let clone = tempfile::Builder::new().prefix("walt-build-").tempdir()?;
        let top = clone.path().join("repository");
        let mut git = tokio::process::Command::new("git");
        git.args(["clone", "--depth", "1", "--single-branch", "--quiet", "--"])
            .arg(url)
            .arg(&top)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let cloning = async {
            let status = git.status().await.map_err(|e| {
                Failure::with_hint(
                    format!("cannot run git: {e}."),
                    "Install the package 'git' on this machine.",
                )
            })?;
            match status.success() {
                true => Ok(()),
                false => Err(Failure::new(format!("git could not clone {url}; its message is above."))),
            }
        };
        context.ui.watch(cloning).await?;
        let _ = std::fs::remove_dir_all(top.join(".git"));
        let Some(sub) = &self.sub_dir else { return Ok((top, Some(clone))) };
        let dir = top.join(sub.trim_matches('/'));
        let real = (std::fs::canonicalize(&dir).ok()).zip(std::fs::canonicalize(&top).ok());
        match real {
            // A symbolic link in the repository must not point to other files of this machine.
            Some((real, top)) if real.starts_with(&top) && real.is_dir() => Ok((real, Some(clone))),
            _ => Err(Failure::new(format!("there is no directory '{sub}' in the repository."))),
        }
    }

    /// One connection: sends everything once the server is ready, and shows the server's messages.
    async fn stream(
        &self,
        context: &mut Context,
        (mut input, mut output): (TerminalInput, TerminalOutput),
        build_context: &BuildContext,
        secrets: &[(String, Vec<u8>)],
    ) -> Result<(), Failure> {
        let stdout = LocalOutput::new(&io::stdout())?;
        // The server asks questions only once it has everything; until then `sending` owns the input.
        let mut idle_input = None;
        let mut sending = std::pin::pin!(async {
            input.bytes(&build_context.dockerfile).await?;
            for (_, bytes) in secrets {
                input.bytes(bytes).await?;
            }
            let mut tar = context::pack(build_context);
            while let Some(bytes) = tar.next().await {
                input.bytes(&bytes).await?;
            }
            tar.end().await?;
            input.message(&ClientMessage::Eof).await?;
            Ok::<_, Failure>(input)
        });
        let (mut server_ready, mut sent) = (false, false);
        loop {
            let ui = &mut context.ui;
            let message = tokio::select! {
                message = output.next() => message,
                result = &mut sending, if server_ready && !sent => {
                    sent = true;
                    match result {
                        Ok(input) => idle_input = Some(input),
                        // The server may explain the end of the connection better: go on reading.
                        Err(Failure::Client(_)) => {}
                        Err(failure) => return Err(failure),
                    }
                    continue;
                }
                interrupt = ui.signals.next() => return Err(ui.interrupted(interrupt)),
                () = ui.busy.tick() => continue,
            };
            let message = message.inspect_err(|_| ui.busy.clear())?;
            if !matches!(message, Some(Output::Message(ServerMessage::Busy { .. }))) {
                ui.busy.clear();
            }
            match message {
                None => return Err(Error::ended_early().into()),
                Some(Output::Stdout(bytes) | Output::Stderr(bytes)) => stdout.write(&bytes).await?,
                // For commands on several nodes.
                Some(Output::NodeStdout(..) | Output::NodeStderr(..)) => {}
                Some(Output::Message(message)) => match message {
                    ServerMessage::Busy { label } => ui.busy.label(&label),
                    ServerMessage::Note { text } => ui::note(&text),
                    ServerMessage::Started { .. } => server_ready = true,
                    ServerMessage::Credentials { registry, needed } => {
                        let credentials = registries::credentials_for(context, &registry, needed).await?;
                        if let Some(input) = &mut idle_input {
                            input.message(&ClientMessage::Credentials { registry, credentials }).await?;
                        }
                    }
                    ServerMessage::Exited { status: 0 } => return Ok(()),
                    ServerMessage::Exited { .. } => return Err(Failure::reported()),
                    ServerMessage::Error { error } => return Err(error.into()),
                    ServerMessage::Nodes { .. }
                    | ServerMessage::NodeExited { .. }
                    | ServerMessage::NodeFailed { .. }
                    | ServerMessage::Consumed { .. }
                    | ServerMessage::Eof => {}
                },
            }
        }
    }
}
