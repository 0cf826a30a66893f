//! `walt image build`.
//!
//! ```text
//! client ─ options, Dockerfile, secrets, context (tar) ─▶ receive ─▶ walt-build, with host ─▶ publish_ref
//!    ◀──────────── output of the build ───────────────────────────────┤
//!    ◀─── credentials for a registry? ────── base: resolves FROM ─────┘
//! ```
//! A build has a directory below `sessions/`, pinned like its layers. If the server dies, the pins go, the running
//! step ends by itself, and the next server removes the directory. If the client disconnects, the build is cancelled.
//!
//! Limits: a Dockerfile of 1 MiB, 64 secrets of 500 KiB each, and for the context the limits of layers.

mod base;
mod build_dir;
mod from_registries;
mod host;
mod receive;

pub use crate::actions::build::base::CredentialSource;
pub use crate::actions::build::build_dir::sweep;
pub use crate::services::images::build_cache::{live_layers, prune};

use crate::{
    actions::{
        app::App,
        build::{build_dir::BuildDir, host::BuildHost},
        publish_ref::Target,
    },
    base::{
        db::{By, blocking},
        events::Events,
        failure::{Failure, Outcome, refused, refused_hint},
        terminal::{FromClient, Input, ToClient},
        time,
    },
    services::images::labels::{self, LABEL_MODELS},
};
use anyhow::Context;
use std::{collections::BTreeMap, path::Path, sync::Arc};
use tokio::sync::{mpsc, watch};
use walt_api::build::OpenImageBuild;
use walt_api::term::{ClientMessage, STDOUT};
use walt_build::step;
use walt_images::ImageConfig;
use walt_registry::{Platform, platform};
use walt_types::{ImageId, Model, UserName};

/// CPU architecture of images that start from scratch, in Go's names.
const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
/// Answers of a client that may wait to be read; more are dropped.
const ANSWERS: usize = 4;

/// `walt-server build-step DIR`.
pub fn step(dir: &Path) -> i32 {
    step::run(dir)
}

/// `walt-server build-fetch`.
pub fn fetch() -> i32 {
    walt_build::fetch::run()
}

/// The output of a build on its client's terminal.
#[derive(Clone)]
struct BuildOutput(ToClient);

impl BuildOutput {
    /// A line of the builder.
    async fn line(&self, text: impl AsRef<str>) {
        self.0.output(STDOUT, format!("{}\n", text.as_ref()).as_bytes()).await;
    }
    /// Output of a command.
    async fn bytes(&self, bytes: &[u8]) {
        self.0.output(STDOUT, bytes).await;
    }
    /// A note for standard error.
    async fn note(&self, text: impl Into<String>) {
        self.0.message(&walt_api::term::ServerMessage::Note { text: text.into() }).await;
    }
}

/// Serves one build: 0 if the image was made.
pub async fn serve(
    app: &Arc<App>,
    user: &UserName,
    open: OpenImageBuild,
    to: ToClient,
    from: FromClient,
) -> Outcome<i32> {
    let output = BuildOutput(to.clone());
    let target = {
        let decision = app.base().decide().await;
        for note in app.images().first_images(user, &decision)? {
            output.note(note).await;
        }
        let target = Target::plan(app, user, &open.image, &decision)?;
        target.check_consent(app, user, "build", open.confirm.as_deref(), open.yes, &decision)?;
        target
    };
    to.message(&walt_api::term::ServerMessage::Started { session: None, os: false }).await;
    let dir = BuildDir::make(app).await?;
    let (cancel, cancelled) = watch::channel(false);
    let made = {
        let build = build(app, user, &open, &target, &output, from, &dir, cancel, cancelled);
        build.await
    };
    let outcome = match made {
        Ok(image) => finish(app, user, &open, &target, image, &output).await,
        Err(failure) => Err(failure),
    };
    dir.clear(app).await;
    if let Err(failure) = &outcome {
        tracing::debug!(?failure, "an image build failed");
    }
    outcome
}

#[allow(clippy::too_many_arguments, reason = "called from one place, where each is at hand")]
async fn build(
    app: &Arc<App>,
    user: &UserName,
    open: &OpenImageBuild,
    target: &Target,
    output: &BuildOutput,
    mut from: FromClient,
    dir: &BuildDir,
    cancel: watch::Sender<bool>,
    cancelled: watch::Receiver<bool>,
) -> Outcome<ImageConfig> {
    if open.receiving {
        output.line("** Receiving the client directory content").await;
    }
    let received = receive::all(app, open, &mut from).await?;
    output.line("** Verifying the repository").await;
    let file = walt_build::Dockerfile::read(&received.dockerfile).map_err(failure)?;
    for note in &file.notes {
        output.note(note).await;
    }
    let (unpacked, secrets) = (received.context, received.secrets);
    if let Some(note) = unpacked.skipped().note() {
        output.note(format!("Note: {note}")).await;
    }
    let context = {
        let _writing = app.images().writing().await;
        let kept = blocking(|| app.store().keep_layer(unpacked))?;
        dir.pinned().layer(kept.diff_id);
        kept.diff_id
    };
    output.line("** Building the image").await;
    let path = dir.path.clone();
    let program = std::env::current_exe().context("cannot find the path of this program")?;
    let now = time::now() as i64;
    let now_text = time::rfc3339(now);
    let platforms = platforms(app, open, target, &file)?;
    let order = walt_build::Request {
        file: &file,
        args: &open.build_args,
        target: open.target.as_deref(),
        no_cache: open.no_cache,
        context,
        secrets: &secrets,
        dir: &path,
        program: &program,
        architecture: ARCHITECTURE,
        platforms: &platforms,
        now: (now, &now_text),
    };
    let (answer, answered) = mpsc::channel(ANSWERS);
    let credentials = CredentialSource::new(output, open.answers, answered);
    let (pull, bases) = (open.pull, BTreeMap::new());
    let mut server = BuildHost {
        app,
        user,
        output,
        dir,
        slot: None,
        noted: false,
        pull,
        credentials: &credentials,
        bases,
    };
    // In a task of its own, since this task is busy while files are hashed and copied.
    let mut listening = tokio::task::JoinSet::new();
    listening.spawn(async move {
        // From here on, the client only answers questions.
        while let Some(input) = from.next().await {
            if let Input::Message(ClientMessage::Credentials { registry, credentials }) = input {
                let _ = answer.try_send((registry, credentials));
            }
        }
        cancel.send_replace(true);
    });
    let built = walt_build::execute(app.store(), &mut server, &order, cancelled).await;
    drop(listening);
    built.map_err(failure)
}

/// The platforms of the result, most wanted first: of the models in its label, else of the nodes that use the name,
/// else of the image that the name points to, else the server's own CPU.
fn platforms(
    app: &App,
    open: &OpenImageBuild,
    target: &Target,
    file: &walt_build::Dockerfile,
) -> Outcome<Vec<Platform>> {
    let label = walt_build::label(file, &open.build_args, open.target.as_deref(), LABEL_MODELS);
    let mut models: Vec<Model> = label.as_deref().map(labels::models_in).unwrap_or_default();
    if models.is_empty() {
        models = target.users.iter().map(|n| n.facts.model.clone()).collect();
    }
    if models.is_empty()
        && let Some(present) = &target.present
    {
        models = app.images().models_of(&present.image_id)?;
    }
    let names: Vec<String> = models.iter().map(ToString::to_string).collect();
    let mut all = platform::of_models(&names);
    if all.is_empty() {
        all.push(Platform::new(ARCHITECTURE, ""));
    }
    Ok(all)
}

/// A failure of a build, for its user. Failures of the server itself are logged.
fn failure(e: walt_build::Error) -> Failure {
    match e {
        walt_build::Error::Dockerfile { .. }
        | walt_build::Error::Command { .. }
        | walt_build::Error::Cancelled => refused(e),
        walt_build::Error::Container(_) => refused(e),
        walt_build::Error::Store(walt_images::Error::Layer(_) | walt_images::Error::Commit(_)) => refused(e),
        other => Failure::Internal(anyhow::Error::new(other)),
    }
}

async fn finish(
    app: &Arc<App>,
    user: &UserName,
    open: &OpenImageBuild,
    target: &Target,
    config: ImageConfig,
    output: &BuildOutput,
) -> Outcome<i32> {
    output.line("** Verifying the image").await;
    if labels::models_of(&config).is_empty() {
        return Err(refused_hint(
            format!("the image has no label {LABEL_MODELS} with the node models that it is made for"),
            format!(
                "add to the Dockerfile: LABEL {LABEL_MODELS}=\"pc-x86-64\" (see 'walt help show image-build')"
            ),
        ));
    }
    labels::fits_server(&config)?;
    let mut pinned = app.images().pins().begin();
    let image = match same(app, target, &config)? {
        Some(present) => present,
        None => {
            let _writing = app.images().writing().await;
            let image = blocking(|| app.store().put_config(&config))?;
            pinned.image(image);
            image
        }
    };
    crate::base::fail_points::point("build-config");
    output.line("OK").await;
    let (events, forwarding) = Events::to_terminal(output.0.clone());
    let by = By::new(user, open.command.clone());
    let done = target.publish_and_reboot(app, image, time::now() as i64, &by, &events).await;
    drop(events);
    // The forwarder ends with the events; the answer must come after them.
    let _ = forwarding.await;
    Ok(if done? { 0 } else { 1 })
}

/// The image that the name points to, if it differs from `config` in its creation times only.
fn same(app: &App, target: &Target, config: &ImageConfig) -> Outcome<Option<ImageId>> {
    let Some(present) = target.present.as_ref().map(|p| p.image_id) else { return Ok(None) };
    let timeless = |config: &ImageConfig| {
        let mut config = config.clone();
        config.created = None;
        config.history.iter_mut().flatten().for_each(|h| h.created = None);
        config
    };
    let before = app.store().config(&present)?;
    Ok((timeless(&before) == timeless(config)).then_some(present))
}
