//! Executes stages: one instruction after the other; each one that changes files makes a layer.
//!
//! Stages are built when something needs them: the target, what it starts from, what it copies or mounts from. The
//! other stages are only parsed.

mod fetch;
mod files;
mod run;

use super::{
    Dockerfile, Error, Result,
    dockerfile::{self, Stage, Step},
    remote::Remote,
    state::{Action, BuildArgs, Globals, PATH, State},
    step::StepSpec,
    target,
};
use std::{
    collections::BTreeMap,
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
};
use tokio::sync::watch;
use walt_images::{History, ImageConfig, MAX_LAYERS, RunConfig, Store, View, cancel};
use walt_registry::Platform;
use walt_types::{DiffId, ImageId};

/// Version of cache keys, to be increased when the same step gives another result.
const KEY_VERSION: u32 = 1;
/// Longest text of an instruction that is shown or kept in the history, in characters.
const MAX_SHOWN: usize = 400;

/// What a build needs from the server.
pub trait Host: Send + Sync {
    /// A guard that keeps garbage collection away while layers are added to the store.
    type Writing<'a>: Send
    where
        Self: 'a;

    /// Prints a line for the user.
    fn line(&self, text: String) -> impl Future<Output = ()> + Send;
    /// Passes on output of a command.
    fn output(&self, bytes: &[u8]) -> impl Future<Output = ()> + Send;
    /// Waits until layers can be added to the store.
    fn writing(&self) -> impl Future<Output = Self::Writing<'_>> + Send;
    /// Keeps a layer, which is in the store, until the end of the build.
    fn pin(&self, layer: DiffId, writing: &Self::Writing<'_>);
    /// The image that `FROM name` means, or why there is none. It stays until the end of the build. An image that the
    /// server does not have is pulled for the first of these platforms that it exists for.
    fn base(
        &mut self,
        name: &str,
        platforms: &[Platform],
    ) -> impl Future<Output = std::result::Result<ImageId, String>> + Send;
    /// The result of an earlier step with this key: a layer, or that nothing changed.
    fn cached(
        &self,
        key: &str,
        writing: &Self::Writing<'_>,
    ) -> std::result::Result<Option<Option<DiffId>>, String>;
    /// Stores the result of a step. A failure only costs time later.
    fn remember(&self, key: &str, found: Option<&DiffId>);
    /// The directory of a cache mount.
    fn cache_dir(&self, id: &str) -> std::result::Result<PathBuf, String>;
    /// A specification for a container, without the command; with a network if requested. It can run programs of
    /// `image`, whatever their CPU, or the error says what is missing. It has a user namespace if that maps all
    /// owners in `trees`, which are mounted in it.
    fn container(
        &mut self,
        number: usize,
        network: bool,
        image: &ImageConfig,
        trees: &[Arc<View>],
    ) -> impl Future<Output = std::result::Result<StepSpec, String>> + Send;
}

/// A request to build an image.
#[derive(Debug)]
pub struct Request<'a> {
    /// The file.
    pub file: &'a Dockerfile,
    /// Values for its arguments.
    pub args: &'a BuildArgs,
    /// The stage that is wanted; the last one if absent.
    pub target: Option<&'a str>,
    /// Whether results of earlier builds are not used.
    pub no_cache: bool,
    /// The layer of the context.
    pub context: DiffId,
    /// Contents of secrets.
    pub secrets: &'a BTreeMap<String, Vec<u8>>,
    /// A directory for temporary files of the build.
    pub dir: &'a Path,
    /// The program that has the command `build-step`.
    pub program: &'a Path,
    /// CPU architecture of this machine, in Go's names.
    pub architecture: &'a str,
    /// Acceptable platforms of the result, best first; an image from scratch is for the first one.
    pub platforms: &'a [Platform],
    /// Now, in seconds since the epoch, and as RFC 3339.
    pub now: (i64, &'a str),
}

/// Builds an image. Returns its configuration; its layers are in the store and pinned.
///
/// When `cancelled` becomes true, the command that runs is ended.
pub async fn execute<H: Host>(
    store: &Store,
    host: &mut H,
    order: &Request<'_>,
    cancelled: watch::Receiver<bool>,
) -> Result<ImageConfig> {
    let here = Platform::new(order.architecture, "");
    let globals =
        Globals::new(order.file, order.args, order.architecture, order.platforms.first().unwrap_or(&here))?;
    let target = target::stage(order.file, order.target)?;
    let mut executor = Executor {
        store,
        host,
        order,
        cancelled,
        globals,
        built: BTreeMap::new(),
        fetched: BTreeMap::new(),
        number: 0,
        empty: None,
    };
    let state = executor.stage(target).await?;
    let unused = executor.globals.unused().join(", ");
    if !unused.is_empty() {
        executor.host.line(format!("Note: no ARG of the Dockerfile uses --build-arg {unused}.")).await;
    }
    let mut config = state.config;
    if config.rootfs.diff_ids.is_empty() {
        // An image needs at least one layer, even if it is empty.
        let empty = executor.empty().await?;
        config.rootfs.diff_ids.push(empty.oci());
    }
    config.created = Some(order.now.1.to_owned());
    Ok(config)
}

struct Executor<'a, H> {
    store: &'a Store,
    host: &'a mut H,
    order: &'a Request<'a>,
    cancelled: watch::Receiver<bool>,
    globals: Globals<'a>,
    /// Finished stages.
    built: BTreeMap<usize, State>,
    /// Counts temporary directories.
    number: usize,
    /// Fetched sources: each one is fetched once in a build.
    fetched: BTreeMap<Remote, fetch::Identified>,
    /// An empty layer, once it was needed.
    empty: Option<DiffId>,
}

/// Runs blocking work, which ends soon after the build is cancelled. On a worker thread of the runtime, other tasks
/// are moved away first.
fn blocking<T>(cancelled: &watch::Receiver<bool>, work: impl FnOnce() -> T) -> T {
    let cancelled = cancelled.clone();
    let work = || cancel::when(move || *cancelled.borrow(), work);
    match tokio::runtime::Handle::try_current().map(|h| h.runtime_flavor()) {
        Ok(tokio::runtime::RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// Resolves when the build is cancelled.
async fn is_cancelled(cancelled: &mut watch::Receiver<bool>) {
    if cancelled.wait_for(|c| *c).await.is_err() {
        // Nobody is left who could cancel it.
        std::future::pending::<()>().await;
    }
}

fn at(line: usize) -> impl Fn(String) -> Error {
    move |why| Error::Dockerfile { line, why }
}

/// The digest of what a step depends on.
struct Key(blake3::Hasher);

impl Key {
    fn of(layers: &[DiffId], what: &str) -> Self {
        let mut key = Self(blake3::Hasher::new());
        key.part(&KEY_VERSION.to_le_bytes());
        layers.iter().for_each(|layer| key.part(layer.to_string().as_bytes()));
        key.part(what.as_bytes());
        key
    }
    fn part(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }
    fn text(&self) -> String {
        self.0.finalize().to_hex().to_string()
    }
}

fn shown(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl<H: Host> Executor<'_, H> {
    /// Builds a stage, and the stages it needs.
    fn stage(&mut self, number: usize) -> Pin<Box<dyn Future<Output = Result<State>> + Send + '_>> {
        Box::pin(async move {
            if let Some(state) = self.built.get(&number) {
                return Ok(state.clone());
            }
            let file = self.order.file;
            let stage = &file.stages[number];
            let base = self.globals.expand(stage.line, &stage.base, file.escape)?;
            let mut state = match file.stage_before(&base, number).filter(|_| !base.contains('/')) {
                Some(other) => self.stage(other).await?.continued(),
                None => {
                    let wanted = self.wanted(stage)?;
                    State::new(self.image(stage.line, &base, wanted.as_ref()).await?, file.escape)
                }
            };
            let name = stage.name.as_ref().map(|n| format!(" AS {n}")).unwrap_or_default();
            self.host.line(format!("FROM {base}{name}")).await;
            for text in state.triggers() {
                for step in dockerfile::trigger(&text, stage.line)? {
                    self.step(number, &mut state, &step).await?;
                }
            }
            for step in &stage.steps {
                self.step(number, &mut state, step).await?;
            }
            self.built.insert(number, state.clone());
            Ok(state)
        })
    }

    /// An empty layer, the only layer of an image from scratch until it gets others.
    async fn empty(&mut self) -> Result<DiffId> {
        if let Some(layer) = self.empty {
            return Ok(layer);
        }
        let writing = self.host.writing().await;
        let layer = blocking(&self.cancelled, || self.store.build_layer(Vec::new(), None))?.diff_id;
        self.host.pin(layer, &writing);
        drop(writing);
        self.empty = Some(layer);
        Ok(layer)
    }

    /// The tree of some layers.
    async fn view(&mut self, layers: &[DiffId]) -> Result<Arc<View>> {
        let layers = match layers {
            [] => vec![self.empty().await?],
            some => some.to_vec(),
        };
        Ok(blocking(&self.cancelled, || self.store.view(&layers, None))?)
    }

    /// The platform in `FROM --platform`.
    fn wanted(&self, stage: &Stage) -> Result<Option<Platform>> {
        let Some(text) = &stage.platform else { return Ok(None) };
        let text = self.globals.expand_option(stage.line, text, self.order.file.escape)?;
        if text.is_empty() {
            return Ok(None);
        }
        Platform::parse(&text, &self.usual()).map(Some).map_err(at(stage.line))
    }

    /// The default platform of an image.
    fn usual(&self) -> Platform {
        let first = self.order.platforms.first();
        first.cloned().unwrap_or_else(|| Platform::new(self.order.architecture, ""))
    }

    /// The configuration that `FROM name` starts with; one for another platform than the `wanted` one is refused.
    async fn image(&mut self, line: usize, name: &str, wanted: Option<&Platform>) -> Result<ImageConfig> {
        if name == "scratch" {
            let mut config = ImageConfig {
                os: "linux".into(),
                config: Some(RunConfig { env: Some(vec![format!("PATH={PATH}")]), ..RunConfig::default() }),
                ..ImageConfig::default()
            };
            wanted.unwrap_or(&self.usual()).put_into(&mut config);
            return Ok(config);
        }
        let platforms = wanted.map_or(self.order.platforms, std::slice::from_ref);
        let image = self.host.base(name, platforms).await.map_err(at(line))?;
        let config = self.store.config(&image)?;
        if let (Some(wanted), Some(found)) = (wanted, Platform::of(&config))
            && !wanted.accepts(&found)
        {
            return Err(at(line)(format!("'{name}' is for {found}, not for {wanted}")));
        }
        Ok(config)
    }

    /// The tree of a stage or an image, by the name in `--from`.
    async fn tree(&mut self, line: usize, before: usize, name: &str) -> Result<Arc<View>> {
        let config = match self.order.file.stage_before(name, before) {
            Some(stage) => self.stage(stage).await?.config,
            None => self.image(line, name, None).await?,
        };
        let layers = config.layers()?;
        self.view(&layers).await
    }

    async fn source(&mut self, line: usize, stage: usize, from: Option<&str>) -> Result<Arc<View>> {
        match from {
            Some(name) => self.tree(line, stage, name).await,
            None => self.view(&[self.order.context]).await,
        }
    }

    async fn step(&mut self, stage: usize, state: &mut State, step: &Step) -> Result<()> {
        if *self.cancelled.borrow() {
            return Err(Error::Cancelled);
        }
        self.host.line(shown(&step.text)).await;
        let action = state.apply(step, &mut self.globals)?;
        let layers = state.config.layers()?;
        let found = match &action {
            Action::Configure => None,
            Action::Mkdir { path, user } => self.mkdir(step, &layers, path, user).await?,
            Action::Run(run) => self.run(stage, step, &state.config, run).await?,
            Action::Copy(copy) => self.copy(stage, step, &layers, copy).await?,
        };
        let history = History {
            created: Some(self.order.now.1.to_owned()),
            created_by: Some(shown(&step.text)),
            empty_layer: found.is_none().then_some(true),
            ..History::default()
        };
        match found {
            Some(layer) => {
                if state.config.is_full() {
                    self.make_room(state, &layers).await?;
                }
                state.config.push_layer(&layer, history);
                Ok(())
            }
            None => {
                state.config.history.get_or_insert_default().push(history);
                Ok(())
            }
        }
    }

    /// Squashes all layers into one, so that there can be one more. Cached like the result of a step.
    async fn make_room(&mut self, state: &mut State, layers: &[DiffId]) -> Result<()> {
        let text = format!("(an image can have {MAX_LAYERS} layers: those so far become one)");
        self.host.line(text).await;
        let key = Key::of(layers, "squash").text();
        let known = self.known(&key).await?.flatten();
        let layer = match known {
            Some(layer) => layer,
            None => {
                let view = self.view(layers).await?;
                let writing = self.host.writing().await;
                let layer = blocking(&self.cancelled, || self.store.squash(&view))?.diff_id;
                self.host.pin(layer, &writing);
                self.host.remember(&key, Some(&layer));
                drop(writing);
                layer
            }
        };
        state.config.set_squashed_for_room(&layer, Some(self.order.now.1.to_owned()));
        Ok(())
    }

    /// The result of an earlier step with this key; its layer is pinned.
    async fn known(&mut self, key: &str) -> Result<Option<Option<DiffId>>> {
        if self.order.no_cache {
            return Ok(None);
        }
        let writing = self.host.writing().await;
        let found = self.host.cached(key, &writing).map_err(at(0))?;
        if let Some(Some(layer)) = found {
            self.host.pin(layer, &writing);
        }
        drop(writing);
        if found.is_some() {
            self.host.line("(unchanged since the last build)".into()).await;
        }
        Ok(found)
    }
}
