//! Getting an image: which one a name means, and its layers.
//!
//! ```text
//! resolve    manifest, or index ─▶ the manifest that fits; configuration
//! Downloads  each layer ─▶ a file that grows (beside each other; goes on after a cut) ─▶ unpacked while it grows
//! ```
//! An unpacked layer has the right diff-id, and its blob the right digest and size. The caller puts it into the store.

use super::{
    Error, LayerBlob, Registry, Result,
    manifest::{self, Document, IndexEntry, Manifest},
};
use crate::{
    ImageConfig, Store,
    config::parse as parse_config,
    store::{Temporary, Unpacked},
};
use hyper::{StatusCode, header::CONTENT_RANGE};
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::{self, Read, Write},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::{
    sync::Semaphore,
    task::{JoinSet, spawn_blocking},
};
use walt_types::{DiffId, Hash256};

/// Downloads at once.
pub const PARALLEL: usize = 4;
/// Images of an index that are looked at.
const MAX_CANDIDATES: usize = 8;
/// Progress after which a cut does not count as a repetition, in bytes.
const PROGRESS: u64 = 1 << 20;

/// What a name of a registry means.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// Digest of the manifest.
    pub manifest: Hash256,
    /// The configuration's bytes; their digest is the image's id.
    pub config_bytes: Vec<u8>,
    /// The configuration.
    pub config: ImageConfig,
    /// The layers, lowest first.
    pub layers: Vec<LayerBlob>,
}

/// Looks at an image, by tag or digest, without getting its layers. Of an index it is the first image, ordered for
/// `models` ([`manifest::order`]), that `fits`; the first at all if none does.
///
/// # Errors
/// As for [`Registry::manifest`]; manifests and configurations that do not belong together are nonsense.
pub async fn resolve(
    registry: &Registry,
    repository: &str,
    reference: &str,
    models: &[String],
    fits: impl Fn(&ImageConfig) -> bool,
) -> Result<Resolved> {
    let (bytes, digest) = registry.manifest(repository, reference).await?;
    let nonsense = |why| registry.http().nonsense(why);
    match manifest::parse(&bytes).map_err(nonsense)? {
        Document::Image(image) => with_config(registry, repository, digest, &image).await,
        Document::Index(entries) => {
            let mut first = None;
            for IndexEntry { manifest: entry, .. } in
                manifest::order(&entries, models).into_iter().take(MAX_CANDIDATES)
            {
                let (bytes, digest) =
                    registry.manifest(repository, &format!("sha256:{}", entry.digest)).await?;
                // An index in an index is allowed, and nobody needs it.
                let Document::Image(image) = manifest::parse(&bytes).map_err(nonsense)? else { continue };
                let resolved = with_config(registry, repository, digest, &image).await?;
                if fits(&resolved.config) {
                    return Ok(resolved);
                }
                first.get_or_insert(resolved);
            }
            first.ok_or_else(|| Error::Unfit(format!("{repository}:{reference} has no image for Linux")))
        }
    }
}

async fn with_config(
    registry: &Registry,
    repository: &str,
    digest: Hash256,
    image: &Manifest,
) -> Result<Resolved> {
    let config_bytes = registry.document(repository, &image.config).await?;
    let nonsense = |why: String| registry.http().nonsense(why);
    let config = parse_config(&config_bytes).map_err(|e| nonsense(e.to_string()))?;
    let diff_ids = config.layers().map_err(|e| nonsense(e.to_string()))?;
    let layers = manifest::pair(&image.layers, &diff_ids).map_err(nonsense)?;
    Ok(Resolved { manifest: digest, config_bytes, config, layers })
}

/// Bytes that were transferred.
#[derive(Debug, Default, Clone)]
pub struct Progress(Arc<AtomicU64>);

impl Progress {
    /// So far.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn counter(&self) -> Arc<AtomicU64> {
        self.0.clone()
    }
}

/// Layers on their way; dropping it stops the downloads.
#[derive(Debug)]
pub struct Downloads {
    layers: Vec<(LayerBlob, Arc<Growing>)>,
    /// Only to be dropped: the results are in the files.
    _tasks: JoinSet<()>,
}

impl Downloads {
    /// Starts to get `layers` of a repository into files of the store.
    ///
    /// # Errors
    /// A file cannot be made.
    pub fn start(
        registry: &Arc<Registry>,
        repository: &str,
        layers: &[LayerBlob],
        store: &Store,
        progress: &Progress,
    ) -> Result<Self> {
        let slots = Arc::new(Semaphore::new(PARALLEL));
        let mut tasks = JoinSet::new();
        let mut all = Vec::new();
        for layer in layers {
            let growing = Arc::new(Growing::create(store.temporary_name(), layer.size)?);
            // In this order: the lowest is needed first.
            let (slots, registry, repository) = (slots.clone(), registry.clone(), repository.to_owned());
            let (layer, progress) = (layer.clone(), progress.clone());
            let filling = Filling(growing.clone());
            all.push((layer.clone(), growing));
            tasks.spawn(async move {
                // Invariant: nobody closes this semaphore.
                let _slot = slots.acquire().await.expect("the semaphore is open");
                let end = download(&registry, &repository, &layer, &filling.0, &progress).await;
                filling.0.end(end);
            });
        }
        Ok(Self { layers: all, _tasks: tasks })
    }

    /// Waits for a layer and unpacks it while it comes; `below` are the layers under it, in the store.
    ///
    /// # Errors
    /// The download failed, or the bytes are not the right ones.
    pub async fn unpack<S>(&self, layer: &DiffId, below: Vec<DiffId>, store: Arc<S>) -> Result<Unpacked>
    where
        S: AsRef<Store> + Send + Sync + 'static,
    {
        let found = self.layers.iter().find(|(l, _)| l.diff_id == *layer);
        let (layer, growing) =
            found.ok_or_else(|| Error::Unfit(format!("layer {layer} is not on its way")))?.clone();
        let unpack = move || {
            let reader = GrowingReader { growing: growing.clone(), file: None, at: 0 };
            let unpacked = S::as_ref(&store).unpack_layer(reader, &below, &layer.diff_id);
            // Whatever was unpacked, the reason is what came from the registry.
            growing.wait_for_end()?;
            Ok(unpacked?)
        };
        spawn_blocking(unpack)
            .await
            .unwrap_or_else(|e| Err(Error::Local { what: "unpack a layer", source: e.into() }))
    }
}

/// A file that is being downloaded and read at once.
#[derive(Debug)]
pub struct Growing {
    file: Temporary,
    size: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    out: File,
    hash: Sha256,
    written: u64,
    ended: Option<std::result::Result<(), String>>,
    /// Taken by who asks first.
    error: Option<Error>,
}

/// Whoever fills a file; if that is dropped, its readers are told.
struct Filling(Arc<Growing>);

impl Drop for Filling {
    fn drop(&mut self) {
        let why = io::Error::other("the download was stopped");
        self.0.end(Err(Error::Local { what: "get a layer", source: why }));
    }
}

impl Growing {
    fn create(file: Temporary, size: u64) -> Result<Self> {
        let out = File::create(file.path())
            .map_err(|source| Error::Local { what: "make a file for a layer", source })?;
        let state = State { out, hash: Sha256::new(), written: 0, ended: None, error: None };
        Ok(Self { file, size, state: Mutex::new(state), changed: Condvar::new() })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, bytes: &[u8]) -> Result<()> {
        let mut state = self.state();
        state.hash.update(bytes);
        state
            .out
            .write_all(bytes)
            .map_err(|source| Error::Local { what: "write a layer's bytes", source })?;
        state.written += bytes.len() as u64;
        self.changed.notify_all();
        Ok(())
    }

    fn written(&self) -> u64 {
        self.state().written
    }

    fn digest(&self) -> Hash256 {
        Hash256(self.state().hash.clone().finalize().into())
    }

    fn end(&self, result: Result<()>) {
        let mut state = self.state();
        if state.ended.is_none() {
            state.ended = Some(result.as_ref().map(|&()| ()).map_err(ToString::to_string));
            state.error = result.err();
            self.changed.notify_all();
        }
    }

    fn wait_for_end(&self) -> Result<()> {
        let mut state = self.state();
        loop {
            match &state.ended {
                Some(Ok(())) => return Ok(()),
                Some(Err(why)) => {
                    let source = io::Error::other(why.clone());
                    return Err(state.error.take().unwrap_or(Error::Local { what: "get a layer", source }));
                }
                // The download has its own bounds, and tells when it is dropped.
                None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

/// Reads a file that grows.
struct GrowingReader {
    growing: Arc<Growing>,
    file: Option<File>,
    at: u64,
}

impl Read for GrowingReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.growing.state();
        let there = loop {
            if state.written > self.at {
                break state.written - self.at;
            }
            match &state.ended {
                Some(Ok(())) => return Ok(0),
                Some(Err(why)) => return Err(io::Error::other(why.clone())),
                None => state = self.growing.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        };
        drop(state);
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(File::open(self.growing.file.path())?),
        };
        let most = usize::try_from(there).unwrap_or(usize::MAX).min(buffer.len());
        let n = file.read(&mut buffer[..most])?;
        self.at += n as u64;
        Ok(n)
    }
}

/// Gets a blob; after a cut it goes on where it was.
async fn download(
    registry: &Registry,
    repository: &str,
    layer: &LayerBlob,
    growing: &Growing,
    progress: &Progress,
) -> Result<()> {
    let limits = &registry.http().limits;
    let (mut tries, mut pause, mut before) = (0, limits.pause, 0);
    loop {
        match download_once(registry, repository, layer, growing, progress).await {
            Ok(()) => break,
            Err(e) if e.is_transient() => {
                let now = growing.written();
                if now >= before + PROGRESS {
                    (tries, pause, before) = (0, limits.pause, now);
                }
                tries += 1;
                if tries > limits.repetitions {
                    return Err(e);
                }
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            Err(e) => return Err(e),
        }
    }
    if growing.digest() != layer.digest {
        let why = format!("the blob sha256:{} has the digest sha256:{}", layer.digest, growing.digest());
        return Err(registry.http().nonsense(why));
    }
    Ok(())
}

async fn download_once(
    registry: &Registry,
    repository: &str,
    layer: &LayerBlob,
    growing: &Growing,
    progress: &Progress,
) -> Result<()> {
    let http = registry.http();
    let offset = growing.written();
    if offset == layer.size {
        return Ok(());
    }
    let mut answer = registry.blob_from(repository, &layer.digest, offset).await?;
    let mut skip = offset;
    if answer.status() == StatusCode::PARTIAL_CONTENT {
        let range = answer.headers().get(CONTENT_RANGE).and_then(|r| r.to_str().ok());
        if !range.is_some_and(|r| r.starts_with(&format!("bytes {offset}-"))) {
            return Err(http.nonsense("it sends another part of a blob than was asked for"));
        }
        skip = 0;
    }
    while let Some(piece) = http.piece(answer.body_mut()).await? {
        // The registry began anew: these bytes are here.
        let known = skip.min(piece.len() as u64);
        skip -= known;
        let new = &piece[known as usize..];
        if growing.written() + new.len() as u64 > growing.size {
            return Err(http
                .nonsense(format!("the blob sha256:{} is longer than {} bytes", layer.digest, layer.size)));
        }
        growing.append(new)?;
        progress.add(new.len() as u64);
    }
    match growing.written() {
        n if n == layer.size => Ok(()),
        n => Err(http.unreachable(format!(
            "the blob sha256:{} ended after {n} of {} bytes",
            layer.digest, layer.size
        ))),
    }
}
