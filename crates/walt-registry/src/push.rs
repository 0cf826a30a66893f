//! Pushing an image to a registry: missing layers, configuration, manifest.

use super::{
    Error, LayerBlob, Registry, Result,
    gzip::ParallelGzip,
    http,
    manifest::{self, OCI_LAYER_GZIP, OCI_MANIFEST},
    pull::Progress,
};
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::{self, BufWriter, Write},
    sync::{Arc, atomic::AtomicU64},
};
use tokio::task::spawn_blocking;
use walt_images::{Store, Temporary};
use walt_types::{DiffId, Hash256, ImageId};

/// Parallel uploads.
pub const PARALLEL: usize = 3;

/// A known blob of a layer in a registry.
#[derive(Debug, Clone)]
pub struct KnownBlob {
    /// The blob.
    pub blob: LayerBlob,
    /// A repository of the target registry that had it, if any.
    pub repository: Option<String>,
}

/// A writer that counts and hashes.
struct Tee<W> {
    inner: W,
    hash: Sha256,
    count: u64,
}

impl<W: Write> Write for Tee<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.hash.update(&bytes[..n]);
        self.count += n as u64;
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Compresses a layer into a file.
fn compress(store: &Store, layer: &DiffId) -> Result<(Temporary, LayerBlob)> {
    let local = |source| Error::Local { what: "write a compressed layer", source };
    let file = store.temporary_name();
    let out = Tee {
        inner: BufWriter::new(File::create(file.path()).map_err(local)?),
        hash: Sha256::new(),
        count: 0,
    };
    let mut gzip = ParallelGzip::new(out);
    store.export_layer(layer, &mut gzip)?;
    let out = gzip.finish().map_err(local)?;
    let digest = Hash256(out.hash.finalize().into());
    let blob = LayerBlob { diff_id: *layer, digest, size: out.count, media_type: OCI_LAYER_GZIP.to_owned() };
    Ok((file, blob))
}

/// Makes sure that a repository has a layer, and returns its blob there. `known` are blobs of the layer: if the
/// repository has one, or can mount one from another repository, it is not uploaded.
///
/// # Errors
/// The registry refuses or fails; the layer cannot be read.
pub async fn layer<S>(
    registry: &Registry,
    repository: &str,
    layer: DiffId,
    known: Vec<KnownBlob>,
    store: Arc<S>,
    progress: &Progress,
) -> Result<LayerBlob>
where
    S: AsRef<Store> + Send + Sync + 'static,
{
    for KnownBlob { blob, .. } in &known {
        if registry.has_blob(repository, &blob.digest).await? {
            return Ok(blob.clone());
        }
    }
    for KnownBlob { blob, repository: from } in &known {
        let Some(from) = from.as_deref().filter(|f| *f != repository) else { continue };
        match registry.begin_upload(repository, Some((&blob.digest, from))).await {
            Ok(None) => return Ok(blob.clone()),
            // The registry started an upload instead, which it will discard, or the user may not read the source.
            Ok(Some(_)) | Err(Error::Credentials { .. } | Error::NotFound { .. } | Error::Refused { .. }) => {
            }
            Err(e) => return Err(e),
        }
    }
    let work = spawn_blocking(move || compress(S::as_ref(&store), &layer));
    let done =
        work.await.unwrap_or_else(|e| Err(Error::Local { what: "compress a layer", source: e.into() }));
    let (file, blob) = done?;
    // Another client may have uploaded the same layer.
    if !registry.has_blob(repository, &blob.digest).await? {
        upload(registry, repository, &blob, &file, progress).await?;
    }
    Ok(blob)
}

/// Uploads a file as a blob; an interrupted upload starts from the beginning.
async fn upload(
    registry: &Registry,
    repository: &str,
    blob: &LayerBlob,
    file: &Temporary,
    progress: &Progress,
) -> Result<()> {
    let limits = &registry.http().limits;
    let (mut tries, mut pause) = (0, limits.pause);
    loop {
        let sent = progress.counter();
        let once = async {
            let begun = registry.begin_upload(repository, None).await?;
            let url =
                begun.ok_or_else(|| registry.http().invalid("an upload that has ended before it started"))?;
            let body = http::file(file.path(), sent.clone()).await;
            let body = body.map_err(|source| Error::Local { what: "read a compressed layer", source })?;
            registry.finish_upload(repository, &url, &blob.digest, blob.size, body, &sent).await
        };
        match once.await {
            Err(e) if e.is_transient() && tries < limits.repetitions => {
                tries += 1;
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            other => return other,
        }
    }
}

async fn small_blob(registry: &Registry, repository: &str, bytes: &[u8]) -> Result<Hash256> {
    let digest = manifest::digest_of(bytes);
    if !registry.has_blob(repository, &digest).await? {
        let begun = registry.begin_upload(repository, None).await?;
        let url =
            begun.ok_or_else(|| registry.http().invalid("an upload that has ended before it started"))?;
        let (body, size) = (http::full(bytes.to_vec()), bytes.len() as u64);
        registry.finish_upload(repository, &url, &digest, size, body, &AtomicU64::new(0)).await?;
    }
    Ok(digest)
}

/// Uploads an empty layer, for an image that only has labels.
///
/// # Errors
/// The registry refuses or fails.
pub async fn empty_layer(registry: &Registry, repository: &str) -> Result<LayerBlob> {
    let local = |source| Error::Local { what: "compress a layer", source };
    let tar = [0; 1024]; // the end of an archive
    let mut gzip = ParallelGzip::new(Vec::new());
    gzip.write_all(&tar).map_err(local)?;
    let bytes = gzip.finish().map_err(local)?;
    let digest = small_blob(registry, repository, &bytes).await?;
    let diff_id = DiffId(manifest::digest_of(&tar));
    Ok(LayerBlob { diff_id, digest, size: bytes.len() as u64, media_type: OCI_LAYER_GZIP.to_owned() })
}

/// Uploads configuration and manifest of an image whose layers are in the repository. Returns the manifest's digest.
///
/// # Errors
/// The registry refuses or fails.
pub async fn finish(
    registry: &Registry,
    repository: &str,
    tag: &str,
    config: &[u8],
    layers: &[LayerBlob],
) -> Result<Hash256> {
    let digest = small_blob(registry, repository, config).await?;
    let bytes = manifest::write(&ImageId(digest), config.len() as u64, layers);
    registry.put_manifest(repository, tag, OCI_MANIFEST, &bytes).await
}
