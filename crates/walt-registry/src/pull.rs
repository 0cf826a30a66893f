//! Pulling an image: which one a reference means, and its layers.
//!
//! ```text
//! resolve    manifest, or index ─▶ the manifest that fits; configuration
//! Pull       each layer ─▶ pieces (in parallel; resumed after a break) ─▶ unpacked as they arrive, to the caller in order
//! ```
//! The diff-id of an unpacked layer, and the digest and size of its blob, have been checked. The caller puts it into
//! the store. Pieces that wait to be unpacked are in memory; if the disk is slower than the network, the download is
//! slowed down.

use super::{
    Error, LayerBlob, Registry, Result, Wanted,
    manifest::{self, Document, IndexEntry, Manifest},
};
use hyper::{StatusCode, body::Bytes, header::CONTENT_RANGE};
use sha2::{Digest, Sha256};
use std::{
    collections::VecDeque,
    io::{self, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    task::{JoinSet, spawn_blocking},
};
use walt_images::{ImageConfig, Store, Unpacked};
use walt_types::Hash256;

/// Layers that are pulled and unpacked in parallel.
pub const PARALLEL: usize = 4;
/// Pieces of one layer that wait to be unpacked; one is as much as hyper has read at once, half a megabyte at most.
const PIECES: usize = 16;
/// Most images of an index that are inspected.
const MAX_CANDIDATES: usize = 8;
/// Progress that resets the count of retries, in bytes.
const PROGRESS: u64 = 1 << 20;

/// What a reference points to.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// Digest of the document that the reference points to: the manifest, or the index that contains it.
    pub named: Hash256,
    /// Digest of the manifest.
    pub manifest: Hash256,
    /// The configuration's bytes; their digest is the image's id.
    pub config_bytes: Vec<u8>,
    /// The configuration.
    pub config: ImageConfig,
    /// The layers, lowest first.
    pub layers: Vec<LayerBlob>,
}

/// Finds an image by tag or digest, without its layers. In an index, it is the first of the `wanted` images that
/// `fits`, or the first one if none does.
///
/// # Errors
/// As for [`Registry::manifest`]; manifests and configurations that do not match are invalid.
pub async fn resolve(
    registry: &Registry,
    repository: &str,
    reference: &str,
    wanted: Wanted<'_>,
    fits: impl Fn(&ImageConfig) -> bool,
) -> Result<Resolved> {
    let (bytes, digest) = registry.manifest(repository, reference).await?;
    let invalid = |why| registry.http().invalid(why);
    match manifest::parse(&bytes).map_err(invalid)? {
        Document::Image(image) => with_config(registry, repository, (digest, digest), &image).await,
        Document::Index(entries) => {
            let mut first = None;
            for IndexEntry { manifest: entry, .. } in wanted.order(&entries).into_iter().take(MAX_CANDIDATES)
            {
                let (bytes, own) = registry.manifest(repository, &format!("sha256:{}", entry.digest)).await?;
                // Nested indexes are allowed, but not used in practice.
                let Document::Image(image) = manifest::parse(&bytes).map_err(invalid)? else { continue };
                let resolved = with_config(registry, repository, (digest, own), &image).await?;
                if fits(&resolved.config) {
                    return Ok(resolved);
                }
                first.get_or_insert(resolved);
            }
            first.ok_or_else(|| {
                Error::Unfit(format!("{repository}:{reference}: {}", wanted.missing(&entries)))
            })
        }
    }
}

async fn with_config(
    registry: &Registry,
    repository: &str,
    (named, manifest): (Hash256, Hash256),
    image: &Manifest,
) -> Result<Resolved> {
    let config_bytes = registry.document(repository, &image.config).await?;
    let invalid = |why: String| registry.http().invalid(why);
    let config = ImageConfig::parse(&config_bytes).map_err(|e| invalid(e.to_string()))?;
    let diff_ids = config.layers().map_err(|e| invalid(e.to_string()))?;
    let layers = manifest::pair(&image.layers, &diff_ids).map_err(invalid)?;
    Ok(Resolved { named, manifest, config_bytes, config, layers })
}

/// Count of transferred bytes.
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

/// Layers being pulled. Dropping it stops the downloads.
#[derive(Debug)]
pub struct Pull {
    layers: VecDeque<oneshot::Receiver<Result<Unpacked>>>,
    /// Only to be dropped: results arrive by `layers`.
    _tasks: JoinSet<()>,
}

impl Pull {
    /// Starts to pull and unpack `layers` of a repository.
    pub fn start<S>(
        registry: &Arc<Registry>,
        repository: &str,
        layers: &[LayerBlob],
        store: &Arc<S>,
        progress: &Progress,
    ) -> Self
    where
        S: AsRef<Store> + Send + Sync + 'static,
    {
        let slots = Arc::new(Semaphore::new(PARALLEL));
        let mut tasks = JoinSet::new();
        let mut results = VecDeque::new();
        for layer in layers {
            let (sender, receiver) = oneshot::channel();
            results.push_back(receiver);
            let (slots, store) = (slots.clone(), store.clone());
            let download = Download {
                registry: registry.clone(),
                repository: repository.to_owned(),
                layer: layer.clone(),
                progress: progress.clone(),
                hash: Sha256::new(),
                written: 0,
            };
            tasks.spawn(async move {
                // In this order: the lowest is kept first. Invariant: nobody closes this semaphore.
                let _slot = slots.acquire().await.expect("the semaphore is open");
                // Nobody waits for it if it cannot be sent.
                let _ = sender.send(get(download, store).await);
            });
        }
        Self { layers: results, _tasks: tasks }
    }

    /// The next layer in the order given, unpacked; none after the last.
    ///
    /// # Errors
    /// The download failed, or the bytes are not the right ones.
    pub async fn next(&mut self) -> Option<Result<Unpacked>> {
        let result = self.layers.front_mut()?.await;
        self.layers.pop_front();
        let ended = |_| Error::Local { what: "get a layer", source: io::Error::other("it was stopped") };
        Some(result.map_err(ended).flatten())
    }

    /// Like [`Pull::next`], but returns `None` instead of waiting.
    pub fn ready(&mut self) -> Option<Result<Unpacked>> {
        let result = self.layers.front_mut()?.try_recv().ok()?;
        self.layers.pop_front();
        Some(result)
    }
}

/// Downloads a layer and unpacks it as it arrives.
async fn get<S>(mut download: Download, store: Arc<S>) -> Result<Unpacked>
where
    S: AsRef<Store> + Send + Sync + 'static,
{
    let (sender, pieces) = mpsc::channel(PIECES);
    let diff_id = download.layer.diff_id;
    let unpack = spawn_blocking(move || {
        let reader = PieceReader { pieces, piece: Bytes::new() };
        S::as_ref(&store).unpack_layer(reader, &diff_id)
    });
    let downloaded = download.run(&sender).await;
    drop(sender);
    let unpacked = unpack.await.map_err(|e| Error::Local { what: "unpack a layer", source: e.into() })?;
    // An error of the download is the cause of an error of unpacking.
    downloaded?;
    Ok(unpacked?)
}

/// Reads the pieces of a blob. If the download fails, they end early, and its error is reported instead.
struct PieceReader {
    pieces: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl Read for PieceReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let n = self.piece.len().min(buffer.len());
        buffer[..n].copy_from_slice(&self.piece.split_to(n));
        Ok(n)
    }
}

/// The download of a blob.
struct Download {
    registry: Arc<Registry>,
    repository: String,
    layer: LayerBlob,
    progress: Progress,
    hash: Sha256,
    written: u64,
}

impl Download {
    /// Downloads the blob; after a break, it continues where it stopped.
    async fn run(&mut self, pieces: &mpsc::Sender<Bytes>) -> Result<()> {
        let registry = self.registry.clone();
        let limits = &registry.http().limits;
        let (mut tries, mut pause, mut before) = (0, limits.pause, 0);
        loop {
            match self.once(pieces).await {
                Ok(()) => break,
                Err(e) if e.is_transient() => {
                    if self.written >= before + PROGRESS {
                        (tries, pause, before) = (0, limits.pause, self.written);
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
        let digest = Hash256(self.hash.clone().finalize().into());
        if digest != self.layer.digest {
            let why = format!("the blob sha256:{} has the digest sha256:{digest}", self.layer.digest);
            return Err(registry.http().invalid(why));
        }
        Ok(())
    }

    async fn once(&mut self, pieces: &mpsc::Sender<Bytes>) -> Result<()> {
        let http = self.registry.http();
        let LayerBlob { digest, size, .. } = self.layer;
        let offset = self.written;
        if offset == size {
            return Ok(());
        }
        let mut answer = self.registry.blob_from(&self.repository, &digest, offset).await?;
        let mut skip = offset;
        if answer.status() == StatusCode::PARTIAL_CONTENT {
            let range = answer.headers().get(CONTENT_RANGE).and_then(|r| r.to_str().ok());
            if !range.is_some_and(|r| r.starts_with(&format!("bytes {offset}-"))) {
                return Err(http.invalid("it sent a different part of a blob than requested"));
            }
            skip = 0;
        }
        while let Some(mut piece) = http.piece(answer.body_mut()).await? {
            // The registry started from the beginning: skip the bytes we have.
            let known = skip.min(piece.len() as u64);
            skip -= known;
            let new = piece.split_off(known as usize);
            if self.written + new.len() as u64 > size {
                return Err(http.invalid(format!("the blob sha256:{digest} is longer than {size} bytes")));
            }
            self.hash.update(&new);
            self.written += new.len() as u64;
            self.progress.add(new.len() as u64);
            // If the layer cannot be unpacked there is no receiver, and the digest shows whether the registry is to
            // blame.
            let _ = pieces.send(new).await;
        }
        match self.written {
            n if n == size => Ok(()),
            n => Err(http.unreachable(format!("the blob sha256:{digest} ended after {n} of {size} bytes"))),
        }
    }
}
