//! Carries stages out: one instruction after the other, each that changes files as a layer.
//!
//! Stages are built when something needs them: the target, what it starts from, what it copies or mounts from. The
//! rest of the file is read, and not built.

use super::{
    Dockerfile, Error, Result,
    accounts::Accounts,
    copy::Copier,
    dockerfile::{self, Step},
    mounts::{Mount, MountKind, Sharing},
    state::{Action, BuildArgs, Copy, Globals, Origin, PATH, Run, State},
    step::{self, Ended, Secrets, StepMount, StepSpec, What},
};
use crate::{
    History, ImageConfig, MAX_LAYERS, Prepared, RunConfig, SaveRules, Store, Time, View,
    compose::{Composed, Last, Meta},
    layer::disk::split,
};
use std::{
    collections::BTreeMap,
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
    process::Stdio,
    sync::Arc,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
    sync::watch,
};
use walt_types::{DiffId, ImageId};

/// Version of cache keys: raised when the same step gives another result.
const KEY_VERSION: u32 = 1;
/// Bytes of a command's output that are passed on at once.
const CHUNK: usize = 16 << 10;
/// Mode of a directory that `WORKDIR` makes.
const DIR_MODE: u32 = 0o755;
/// Longest text of an instruction that is shown or kept in the history, in characters.
const MAX_SHOWN: usize = 400;
/// Said of a step whose process left no result.
const NO_ANSWER: &str = "the process of this step ended without an answer: the server's log may say why";

/// What a build needs of the server around it.
pub trait Host: Send + Sync {
    /// Held while layers come into the store: housekeeping stays away.
    type Writing<'a>: Send
    where
        Self: 'a;

    /// Says a line to the user.
    fn line(&self, text: String) -> impl Future<Output = ()> + Send;
    /// Passes output of a command on.
    fn output(&self, bytes: &[u8]) -> impl Future<Output = ()> + Send;
    /// Waits until layers may come into the store.
    fn writing(&self) -> impl Future<Output = Self::Writing<'_>> + Send;
    /// Keeps a layer, which is in the store, until the end of the build. Called with [`Host::writing`] held.
    fn pin(&self, layer: DiffId);
    /// The image that `FROM name` means, or why there is none.
    fn base(&self, name: &str) -> std::result::Result<ImageId, String>;
    /// What an earlier step of this key found: a layer, or that nothing changed. Called with
    /// [`Host::writing`] held.
    fn cached(&self, key: &str) -> std::result::Result<Option<Option<DiffId>>, String>;
    /// Keeps what a step found; a failure costs time later, nothing else.
    fn remember(&self, key: &str, found: Option<&DiffId>);
    /// The directory of a cache mount.
    fn cache_dir(&self, id: &str) -> std::result::Result<PathBuf, String>;
    /// A specification for a container, all but the command; with a network if so asked. Programs of `image` can run
    /// in it, whatever its CPU is, or the answer says what is missing.
    fn container(
        &mut self,
        number: usize,
        network: bool,
        image: &ImageConfig,
    ) -> impl Future<Output = std::result::Result<StepSpec, String>> + Send;
}

/// What is to be built.
#[derive(Debug)]
pub struct Order<'a> {
    /// The file.
    pub file: &'a Dockerfile,
    /// Values for its arguments.
    pub args: &'a BuildArgs,
    /// The stage that is wanted; the last one if absent.
    pub target: Option<&'a str>,
    /// Whether results of earlier builds are left alone.
    pub no_cache: bool,
    /// The layer of the context.
    pub context: DiffId,
    /// Contents of secrets.
    pub secrets: &'a BTreeMap<String, Vec<u8>>,
    /// A directory for what the build makes on its way.
    pub dir: &'a Path,
    /// The program that has the command `build-step`.
    pub program: &'a Path,
    /// CPU architecture of images from scratch, in Go's names.
    pub architecture: &'a str,
    /// Now, in seconds since the epoch, and as RFC 3339.
    pub now: (i64, &'a str),
}

/// Builds; the configuration of the result, whose layers are in the store and pinned.
///
/// When `cancelled` becomes true, the command that runs is ended.
pub async fn execute<H: Host>(
    store: &Store,
    host: &mut H,
    order: &Order<'_>,
    cancelled: watch::Receiver<bool>,
) -> Result<ImageConfig> {
    let globals = Globals::new(order.file, order.args, order.architecture)?;
    let stages = &order.file.stages;
    let target = match order.target {
        None => stages.len() - 1,
        Some(name) => order
            .file
            .stage_before(name, stages.len())
            .ok_or_else(|| Error::Dockerfile { line: 1, why: format!("there is no stage '{name}'") })?,
    };
    let mut executor =
        Executor { store, host, order, cancelled, globals, built: BTreeMap::new(), number: 0, empty: None };
    let state = executor.stage(target).await?;
    let unused = executor.globals.unused().join(", ");
    if !unused.is_empty() {
        executor.host.line(format!("Note: no ARG of the Dockerfile asked for --build-arg {unused}.")).await;
    }
    let mut config = state.config;
    if config.rootfs.diff_ids.is_empty() {
        // An image has a tree, if an empty one.
        let empty = executor.empty().await?;
        config.rootfs.diff_ids.push(empty.oci());
    }
    config.created = Some(order.now.1.to_owned());
    Ok(config)
}

struct Executor<'a, H> {
    store: &'a Store,
    host: &'a mut H,
    order: &'a Order<'a>,
    cancelled: watch::Receiver<bool>,
    globals: Globals<'a>,
    /// Stages that are done.
    built: BTreeMap<usize, State>,
    /// Counts what has a directory.
    number: usize,
    /// A layer without entries, once it was needed.
    empty: Option<DiffId>,
}

/// Runs blocking work; on a worker thread of the runtime, its other tasks are moved elsewhere first.
fn blocking<T>(work: impl FnOnce() -> T) -> T {
    match tokio::runtime::Handle::try_current().map(|h| h.runtime_flavor()) {
        Ok(tokio::runtime::RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// Resolves when the build is not wanted any more.
async fn is_cancelled(cancelled: &mut watch::Receiver<bool>) {
    if cancelled.wait_for(|c| *c).await.is_err() {
        // Nobody is left who could say so.
        std::future::pending::<()>().await;
    }
}

fn at(line: usize) -> impl Fn(String) -> Error {
    move |why| Error::Dockerfile { line, why }
}

/// The digest of what a step depends on.
struct Key(blake3::Hasher);

impl Key {
    fn of(layers: &[String], what: &str) -> Self {
        let mut key = Self(blake3::Hasher::new());
        key.part(&KEY_VERSION.to_le_bytes());
        layers.iter().for_each(|layer| key.part(layer.as_bytes()));
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
    /// Builds a stage, and those it needs.
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
                None => State::new(self.image(stage.line, &base)?, file.escape),
            };
            if let Some(platform) = &stage.platform {
                let wanted = self.globals.expand(stage.line, platform, file.escape)?;
                let found = format!("linux/{}", state.config.architecture);
                if wanted != found {
                    let why = format!("'{base}' is for {found}, not for {wanted}");
                    return Err(Error::Dockerfile { line: stage.line, why });
                }
            }
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

    /// A layer without entries, which an image from scratch starts with as long as it has no other.
    async fn empty(&mut self) -> Result<DiffId> {
        if let Some(layer) = self.empty {
            return Ok(layer);
        }
        let writing = self.host.writing().await;
        let layer = blocking(|| self.store.build_layer(Vec::new(), None))?.diff_id;
        self.host.pin(layer);
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
        Ok(blocking(|| self.store.view(&layers, None))?)
    }

    /// The configuration that `FROM name` starts with.
    fn image(&mut self, line: usize, name: &str) -> Result<ImageConfig> {
        if name == "scratch" {
            return Ok(ImageConfig {
                architecture: self.order.architecture.to_owned(),
                os: "linux".into(),
                config: Some(RunConfig { env: Some(vec![format!("PATH={PATH}")]), ..RunConfig::default() }),
                ..ImageConfig::default()
            });
        }
        let image = self.host.base(name).map_err(at(line))?;
        Ok(self.store.config(&image)?)
    }

    /// The tree of a stage or an image, by the name in `--from`.
    async fn tree(&mut self, line: usize, before: usize, name: &str) -> Result<Arc<View>> {
        let config = match self.order.file.stage_before(name, before) {
            Some(stage) => self.stage(stage).await?.config,
            None => self.image(line, name)?,
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
            Some(_) if layers.len() >= MAX_LAYERS => {
                Err(crate::Error::TooManyLayers { count: layers.len() + 1, max: MAX_LAYERS }.into())
            }
            Some(layer) => {
                state.config.push_layer(&layer, history);
                Ok(())
            }
            None => {
                state.config.history.get_or_insert_default().push(history);
                Ok(())
            }
        }
    }

    /// The result of an earlier step with this key; its layer is pinned.
    async fn known(&mut self, key: &str) -> Result<Option<Option<DiffId>>> {
        if self.order.no_cache {
            return Ok(None);
        }
        let writing = self.host.writing().await;
        let found = self.host.cached(key).map_err(at(0))?;
        if let Some(Some(layer)) = found {
            self.host.pin(layer);
        }
        drop(writing);
        if found.is_some() {
            self.host.line("(unchanged since the last build)".into()).await;
        }
        Ok(found)
    }

    async fn mkdir(
        &mut self,
        step: &Step,
        layers: &[DiffId],
        path: &str,
        user: &str,
    ) -> Result<Option<DiffId>> {
        let view = self.view(layers).await?;
        let exists = view.resolve(path.trim_start_matches('/').as_bytes());
        if exists.and_then(|n| view.entry(n)).is_some_and(|e| e.kind == crate::Kind::Dir) {
            return Ok(None);
        }
        let account = Accounts::of(&view).find(user).map_err(at(step.line))?;
        let names: Vec<String> = layers.iter().map(ToString::to_string).collect();
        let key = Key::of(&names, &format!("mkdir {path} {} {}", account.uid, account.gid)).text();
        if let Some(found) = self.known(&key).await? {
            return Ok(found);
        }
        let meta = Meta {
            mode: DIR_MODE,
            uid: account.uid,
            gid: account.gid,
            mtime: Time { sec: self.order.now.0, nsec: 0 },
            xattrs: Vec::new(),
        };
        let mut composer = self.store.compose(&view)?;
        let real = composer.resolve(path.as_bytes(), Last::Follow)?;
        composer.make_dirs(split(&real).0, &meta)?;
        composer.make_dirs(&real, &meta)?;
        let writing = self.host.writing().await;
        let found = self.found(&key, blocking(|| composer.finish())?);
        drop(writing);
        Ok(found)
    }

    /// Keeps what was made.
    fn found(&self, key: &str, made: Composed) -> Option<DiffId> {
        let layer = match made {
            Composed::Unchanged => None,
            Composed::Layer(info) => Some(info.diff_id),
        };
        if let Some(layer) = layer {
            self.host.pin(layer);
        }
        self.host.remember(key, layer.as_ref());
        layer
    }

    async fn copy(
        &mut self,
        stage: usize,
        step: &Step,
        layers: &[DiffId],
        copy: &Copy,
    ) -> Result<Option<DiffId>> {
        let needs_source = copy.sources.iter().any(|s| matches!(s, Origin::Path(_)));
        let source = match needs_source {
            true => Some(self.source(step.line, stage, copy.from.as_deref()).await?),
            false => None,
        };
        let view = self.view(layers).await?;
        let copier = Copier { line: step.line, copy, source, now: self.order.now.0 };
        let owner = copier.owner(&view)?;
        let digest = blocking(|| copier.digest(owner))?;
        let names: Vec<String> = layers.iter().map(ToString::to_string).collect();
        let mut key = Key::of(&names, &format!("{copy:?}"));
        key.part(digest.as_bytes());
        let key = key.text();
        if let Some(found) = self.known(&key).await? {
            return Ok(found);
        }
        let mut composer = self.store.compose(&view)?;
        blocking(|| copier.apply(&mut composer))?;
        let writing = self.host.writing().await;
        let found = self.found(&key, blocking(|| composer.finish())?);
        drop(writing);
        Ok(found)
    }

    fn new_dir(&mut self, what: &str) -> Result<PathBuf> {
        self.number += 1;
        let dir = self.order.dir.join(format!("{what}-{}", self.number));
        std::fs::create_dir(&dir).map_err(|e| Error::io("make", &dir, e))?;
        Ok(dir)
    }

    fn lowers(&self, layers: &[DiffId]) -> Vec<PathBuf> {
        layers.iter().rev().map(|layer| self.store.layer_fs(layer)).collect()
    }

    /// What a command is shown, with what the key of its step gets for it.
    async fn mount(
        &mut self,
        stage: usize,
        line: usize,
        mount: &Mount,
        secrets: &mut Secrets,
        key: &mut Key,
    ) -> Result<Option<StepMount>> {
        key.part(format!("{mount:?}").as_bytes());
        let what = match &mount.kind {
            MountKind::Bind { from, source } => {
                let view = self.source(line, stage, from.as_deref()).await?;
                view.layers().iter().for_each(|layer| key.part(layer.to_string().as_bytes()));
                What::Tree { lowers: self.lowers(view.layers()), source: source.clone() }
            }
            MountKind::Cache { id, from, source, sharing, mode, uid, gid } => {
                let dir = self.host.cache_dir(id).map_err(at(line))?;
                if from.is_some() || source != "/" {
                    let why =
                        "a cache that starts with files of a stage is not offered: copy them in the command";
                    return Err(Error::Dockerfile { line, why: why.into() });
                }
                let prepare = || -> std::io::Result<()> {
                    use std::os::unix::fs::PermissionsExt;
                    if std::fs::read_dir(&dir)?.next().is_none() {
                        std::os::unix::fs::chown(&dir, Some(*uid), Some(*gid))?;
                        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(*mode))?;
                    }
                    Ok(())
                };
                prepare().map_err(|e| Error::io("prepare", &dir, e))?;
                // A private cache is one that others wait for: it is used by one build at a time, too.
                What::Cache { dir, locked: *sharing != Sharing::Shared }
            }
            MountKind::Tmpfs { size } => What::Tmpfs(*size),
            MountKind::Secret { id, env, file, required, mode, uid, gid } => {
                let Some(bytes) = self.order.secrets.get(id) else {
                    if *required {
                        let why =
                            format!("the secret '{id}' is needed: give it with --secret id={id},src=FILE");
                        return Err(Error::Dockerfile { line, why });
                    }
                    return Ok(None);
                };
                if let Some(name) = env {
                    let text = String::from_utf8_lossy(bytes);
                    secrets.env.push(format!("{name}={text}"));
                }
                if !file {
                    return Ok(None);
                }
                secrets.files.insert(id.clone(), bytes.clone());
                What::Secret { id: id.clone(), mode: *mode, uid: *uid, gid: *gid }
            }
        };
        Ok(Some(StepMount { target: mount.target.clone(), read_only: mount.read_only, what }))
    }

    async fn run(
        &mut self,
        stage: usize,
        step: &Step,
        image: &ImageConfig,
        run: &Run,
    ) -> Result<Option<DiffId>> {
        let layers = &image.layers()?;
        let names: Vec<String> = layers.iter().map(ToString::to_string).collect();
        let facts = (&run.argv, &run.script, &run.env, &run.workdir, &run.user, run.network);
        let mut key = Key::of(&names, &format!("{facts:?}"));
        let mut secrets = Secrets::default();
        let mut mounts = Vec::new();
        for mount in &run.mounts {
            mounts.extend(self.mount(stage, step.line, mount, &mut secrets, &mut key).await?);
        }
        let key = key.text();
        if let Some(found) = self.known(&key).await? {
            return Ok(found);
        }
        let view = self.view(layers).await?;
        let account = Accounts::of(&view).find(&run.user).map_err(at(step.line))?;
        let dir = self.new_dir("step")?;
        blocking(|| self.store.prepare_upper(&dir.join("layer"), &view))?;
        let mut spec = self.host.container(self.number, run.network, image).await.map_err(at(step.line))?;
        spec.lowers = self.lowers(layers);
        spec.argv = run.argv.clone();
        spec.script = run.script.clone();
        spec.env = run.env.iter().chain(&run.proxies).cloned().collect();
        spec.workdir = run.workdir.clone();
        spec.user = (account.uid, account.gid, account.groups);
        spec.mounts = mounts;
        match self.in_container(&dir, &spec, &secrets).await? {
            Ended::Status(0) => {}
            Ended::Status(status) => {
                return Err(Error::Command { line: step.line, text: shown(&step.text), status });
            }
            Ended::Error(why) => return Err(at(step.line)(why)),
            Ended::Cancelled => return Err(Error::Cancelled),
        }
        let layer_dir = dir.join("layer");
        let prepared = blocking(|| self.store.prepare_commit(&layer_dir, &view, &SaveRules::exact()))?;
        let layer = match prepared {
            Prepared::Unchanged { .. } => None,
            Prepared::Layer { info, .. } => {
                let writing = self.host.writing().await;
                blocking(|| self.store.adopt_layer(&layer_dir, &info.diff_id))?;
                self.host.pin(info.diff_id);
                drop(writing);
                Some(info.diff_id)
            }
        };
        self.host.remember(&key, layer.as_ref());
        // What is left (trees that were shown, empty directories) is of no use; the build's end removes it at the latest.
        let _ = blocking(|| std::fs::remove_dir_all(&dir));
        Ok(layer)
    }

    /// Has the step's own process run the container.
    async fn in_container(&mut self, dir: &Path, spec: &StepSpec, secrets: &Secrets) -> Result<Ended> {
        let path = dir.join(step::SPEC);
        let bytes = serde_json::to_vec(spec).map_err(|e| Error::io("express", &path, e.into()))?;
        std::fs::write(&path, bytes).map_err(|e| Error::io("write", &path, e))?;
        let failed = |e| Error::io("start", self.order.program, e);
        let (reader, writer) = std::io::pipe().map_err(failed)?;
        let mut command = Command::new(self.order.program);
        command
            .arg("build-step")
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(writer.try_clone().map_err(failed)?)
            .stderr(writer);
        let mut child = command.spawn().map_err(failed)?;
        // It holds the writing end of the pipe.
        drop(command);
        let mut stdin = child.stdin.take();
        let mut line = serde_json::to_vec(secrets).map_err(|e| Error::io("express", &path, e.into()))?;
        line.push(b'\n');
        if let Some(stdin) = &mut stdin {
            // A process that has ended before it read says why in its result.
            let _ = stdin.write_all(&line).await;
        }
        let mut output = tokio::net::unix::pipe::Receiver::from_owned_fd(reader.into()).map_err(failed)?;
        let mut buffer = vec![0; CHUNK];
        let mut cancelled = self.cancelled.clone();
        loop {
            tokio::select! {
                read = output.read(&mut buffer) => match read {
                    Ok(n) if n > 0 => self.host.output(&buffer[..n]).await,
                    _ => break,
                },
                () = is_cancelled(&mut cancelled), if stdin.is_some() => stdin = None,
            }
        }
        child.wait().await.map_err(failed)?;
        drop(stdin);
        let path = dir.join(step::RESULT);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| Error::io("understand", &path, e.into())),
            Err(_) => Ok(Ended::Error(NO_ANSWER.into())),
        }
    }
}
