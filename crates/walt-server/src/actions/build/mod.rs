//! `walt image build`: what the client sends, the stages, and the end.
//!
//! ```text
//! client ─ options, Dockerfile, secrets, context (tar) ─▶ receive ─▶ executor ─▶ land
//!    ◀──────────── what the build says, as it comes ──────────────────┤
//!    ◀─── what has the user for a registry? ─── base: what FROM means ┘
//! ```
//! A build has a directory below `sessions/`, pinned like its layers; with the server's death the pins go, the step that
//! runs ends by itself, and the next server sweeps the directory. The client that goes away cancels the build.
//!
//! Limits: a Dockerfile of 1 MiB, 64 secrets of 500 KiB each, and those of layers for the context.

mod base;
mod executor;
mod from_registries;
mod receive;

pub use crate::actions::build::base::Asker;
pub use crate::services::images::build_cache::{live_layers, prune};

use crate::actions::build::executor::Server;
use crate::actions::publish_ref::Target;
use crate::{
    actions::app::App,
    base::{
        db::By,
        events::Events,
        failure::{Failure, Outcome, refused, refused_hint},
        terminal::{FromClient, Input, ToClient},
    },
    services::images::{
        labels::{self, LABEL_MODELS},
        pins::Pinned,
    },
};
use anyhow::Context;
use parking_lot::{Mutex, MutexGuard};
use std::{
    collections::BTreeMap,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::sync::{mpsc, watch};
use walt_api::build::OpenImageBuild;
use walt_api::term::{ClientMessage, STDOUT};
use walt_build::step;
use walt_images::ImageConfig;
use walt_registry::{Platform, platform};
use walt_types::{ImageId, Model, UserName};

/// CPU architecture of images that start from scratch, in Go's names.
const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
/// What directories of builds are named, below `sessions/`.
const PREFIX: &str = "build-";
/// How long the step of a build that nobody wants any more may take to end.
const STEP_END_LIMIT: Duration = Duration::from_secs(60);
/// Answers of a client that may wait to be read: more than were asked for are dropped.
const ANSWERS: usize = 4;
/// How often it is looked whether it has.
const STEP_END_PAUSE: Duration = Duration::from_millis(50);

/// The directory of one build, and all that it holds in the store.
struct Workplace {
    dir: PathBuf,
    pinned: Mutex<Pinned>,
}

impl Workplace {
    fn pinned(&self) -> MutexGuard<'_, Pinned> {
        // A list cannot be left half done by a panic.
        self.pinned.lock()
    }

    async fn make(app: &App) -> Outcome<Self> {
        let name = format!("{PREFIX}{}", crate::base::random::random_uuid());
        let dir = app.store().sessions_dir().join(&name);
        let mut pinned = app.images().pins().begin();
        let _writing = app.images().writing().await;
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&dir)
            .with_context(|| format!("cannot make {}", dir.display()))?;
        pinned.session(&name);
        Ok(Self { dir, pinned: Mutex::new(pinned) })
    }

    /// Waits for what still runs in it, and removes it.
    async fn clear(self, app: &App) {
        if let Err(e) = sweep_one(&self.dir).await {
            // Housekeeping removes it once nobody holds it.
            tracing::warn!("the directory of a build stays for now: {e:#}");
        }
        drop(self.pinned);
        app.images().request_housekeeping();
    }
}

/// Removes a build's directory, after the end of the steps in it.
async fn sweep_one(dir: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry?.path();
        if !path.join(step::SPEC).exists() {
            continue;
        }
        let alive = || step::is_alive(&path);
        let ended = tokio::time::timeout(STEP_END_LIMIT, async {
            while alive() {
                tokio::time::sleep(STEP_END_PAUSE).await;
            }
        });
        if ended.await.is_err() {
            anyhow::bail!("the step in {} does not end", path.display());
        }
        let text = std::fs::read(path.join(step::SPEC))?;
        let spec: step::StepSpec = serde_json::from_slice(&text)?;
        step::clean(&spec, &path).await?;
    }
    crate::base::db::blocking(|| crate::base::files::remove_tree(dir))
}

/// Removes what builds of an earlier server have left; its steps end by themselves. Called at the start.
pub async fn sweep(app: &App) {
    let Ok(list) = std::fs::read_dir(app.store().sessions_dir()) else { return };
    for entry in list.flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX))
            && let Err(e) = sweep_one(&entry.path()).await
        {
            tracing::warn!("what a build has left stays for now: {e:#}");
        }
    }
}

/// `walt-server build-step DIR`.
pub fn step(dir: &Path) -> i32 {
    step::run(dir)
}

/// `walt-server build-fetch`.
pub fn fetch() -> i32 {
    walt_build::fetch::run()
}

/// What a build says, to its client.
#[derive(Clone)]
struct Say(ToClient);

impl Say {
    /// A line of ours.
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
    let say = Say(to.clone());
    let target = {
        let decision = app.base().decide().await;
        for note in app.images().first_images(user, &decision)? {
            say.note(note).await;
        }
        let target = Target::plan(app, user, &open.image, &decision)?;
        target.check_consent(app, user, "build", open.confirm.as_deref(), open.yes, &decision)?;
        target
    };
    to.message(&walt_api::term::ServerMessage::Started { session: None, os: false }).await;
    let place = Workplace::make(app).await?;
    let (cancel, cancelled) = watch::channel(false);
    let made = {
        let build = build(app, user, &open, &target, &say, from, &place, cancel, cancelled);
        build.await
    };
    let outcome = match made {
        Ok(image) => finish(app, user, &open, &target, image, &say).await,
        Err(failure) => Err(failure),
    };
    place.clear(app).await;
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
    say: &Say,
    mut from: FromClient,
    place: &Workplace,
    cancel: watch::Sender<bool>,
    cancelled: watch::Receiver<bool>,
) -> Outcome<ImageConfig> {
    if open.receiving {
        say.line("** Receiving the client directory content").await;
    }
    let received = receive::all(app, open, &mut from).await?;
    say.line("** Verifying the repository").await;
    let file = walt_build::Dockerfile::read(&received.dockerfile).map_err(failure)?;
    for note in &file.notes {
        say.note(note).await;
    }
    let (unpacked, secrets) = (received.context, received.secrets);
    if let Some(note) = unpacked.skipped().note() {
        say.note(format!("Note: {note}")).await;
    }
    let context = {
        let _writing = app.images().writing().await;
        let kept = crate::base::db::blocking(|| app.store().keep_layer(unpacked))?;
        place.pinned().layer(kept.diff_id);
        kept.diff_id
    };
    say.line("** Building the image").await;
    let dir = place.dir.clone();
    let program = std::env::current_exe().context("where this program is")?;
    let now = crate::base::time::now() as i64;
    let now_text = crate::base::time::rfc3339(now);
    let platforms = platforms(app, open, target, &file)?;
    let order = walt_build::Order {
        file: &file,
        args: &open.build_args,
        target: open.target.as_deref(),
        no_cache: open.no_cache,
        context,
        secrets: &secrets,
        dir: &dir,
        program: &program,
        architecture: ARCHITECTURE,
        platforms: &platforms,
        now: (now, &now_text),
    };
    let (answer, answered) = mpsc::channel(ANSWERS);
    let asker = Asker::new(say, open.answers, answered);
    let (pull, bases) = (open.pull, BTreeMap::new());
    let mut server = Server { app, user, say, place, slot: None, noted: false, pull, asker: &asker, bases };
    // A task of its own: this one is busy while files are hashed and copied.
    let mut listening = tokio::task::JoinSet::new();
    listening.spawn(async move {
        // The client only answers from here on: what comes else is its end.
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

/// What the result is for, most wanted first: the models that its label names, else those of the nodes that use the name,
/// else those of the image that the name means now; else this server's own CPU.
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

/// A failure of a build, for its user. What is nobody's mistake goes to the log.
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
    say: &Say,
) -> Outcome<i32> {
    say.line("** Verifying the image").await;
    if labels::models_of(&config).is_empty() {
        return Err(refused_hint(
            format!(
                "the image has no label {LABEL_MODELS}, which names the node models it is made for, or it names none"
            ),
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
            let image = crate::base::db::blocking(|| app.store().put_config(&config))?;
            pinned.image(image);
            image
        }
    };
    crate::base::fail_points::point("build-config");
    say.line("OK").await;
    let (events, forwarding) = Events::to_terminal(say.0.clone());
    let by = By::new(user, open.command.clone());
    let done = target.publish_and_reboot(app, image, crate::base::time::now() as i64, &by, &events).await;
    drop(events);
    // It ends with the events; the answer must come after them.
    let _ = forwarding.await;
    Ok(if done? { 0 } else { 1 })
}

/// What the name means now, if only the times of its making differ from those of `config`.
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
