//! Exports layers and images in the formats of the OCI specification, byte for byte as they were imported.

use crate::{
    cancel,
    config::digest_of,
    error::{Context, Error, Result},
    layer::{disk::Root, holes::read_payload, skeleton::Record},
    store::Store,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::Path,
};
use walt_types::{DiffId, ImageId};

/// Bytes held back until the digest is known to be right: without them, the receiver has an incomplete tar.
const HELD_BACK: usize = 512;

/// A writer that holds back the last bytes.
struct HoldBack<W> {
    inner: W,
    hash: Sha256,
    held: Vec<u8>,
    count: u64,
}

impl<W: Write> HoldBack<W> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.count += bytes.len() as u64;
        if bytes.len() >= HELD_BACK {
            self.inner.write_all(&self.held)?;
            let (now, later) = bytes.split_at(bytes.len() - HELD_BACK);
            self.inner.write_all(now)?;
            self.held.clear();
            self.held.extend_from_slice(later);
        } else {
            self.held.extend_from_slice(bytes);
            let surplus = self.held.len().saturating_sub(HELD_BACK);
            self.inner.write_all(&self.held[..surplus])?;
            self.held.drain(..surplus);
        }
        Ok(())
    }
}

impl Store {
    /// Writes the tar of a layer, the same bytes that were imported or hashed, and returns their count. The digest is
    /// checked before the last block goes out: on an error the receiver has an incomplete tar.
    pub fn export_layer(&self, layer: &DiffId, out: impl Write) -> Result<u64> {
        let mut skeleton = self.skeleton(layer)?;
        let fs_dir = self.layer_fs(layer);
        let root = Root::open(&fs_dir).on("open", &fs_dir)?;
        let mut out = HoldBack { inner: out, hash: Sha256::new(), held: Vec::new(), count: 0 };
        let mut buffer = Vec::new();
        let what = "write the tar of";
        // The sparse file whose parts are being written.
        let mut sparse: Option<(Vec<u8>, File)> = None;
        while let Some(record) = skeleton.next()? {
            cancel::check()?;
            match record {
                Record::Raw(bytes) => out.put(&bytes).on(what, &fs_dir)?,
                Record::File { path, size } => {
                    let show = root.show(&path);
                    let file = root.file(&path).on("open", &show)?;
                    let meta = file.metadata().on("read the metadata of", &show)?;
                    if meta.len() != size {
                        return Err(Error::Damaged {
                            path: show,
                            why: format!("its size is not {size} bytes"),
                        });
                    }
                    read_payload(&file, 0, size, &mut buffer, &mut |b| out.put(b)).on(what, &show)?;
                }
                Record::Part { path, offset, length } => {
                    let show = root.show(&path);
                    if sparse.as_ref().is_none_or(|(open, _)| *open != path) {
                        sparse = Some((path.clone(), root.file(&path).on("open", &show)?));
                    }
                    let Some((_, file)) = &sparse else { continue };
                    let size = file.metadata().on("read the metadata of", &show)?.len();
                    if offset.checked_add(length).is_none_or(|end| end > size) {
                        let why = format!("it has less than {length} bytes after offset {offset}");
                        return Err(Error::Damaged { path: show, why });
                    }
                    read_payload(file, offset, length, &mut buffer, &mut |b| out.put(b)).on(what, &show)?;
                }
            }
        }
        if out.hash.finalize().as_slice() != layer.0.0 {
            return Err(Error::Damaged { path: fs_dir, why: "its digest is not the layer's".into() });
        }
        out.inner.write_all(&out.held).on(what, &fs_dir)?;
        out.inner.flush().on(what, &fs_dir)?;
        Ok(out.count)
    }

    /// Writes an image as an OCI image layout into the new directory `dir`; `name` becomes its reference (annotation
    /// `org.opencontainers.image.ref.name`). Layers are plain tars: their digests are their diff-ids.
    pub fn export_oci_layout(&self, image: &ImageId, name: &str, dir: &Path) -> Result<()> {
        let blobs = dir.join("blobs/sha256");
        fs::create_dir_all(&blobs).on("create", &blobs)?;
        let config = self.config_bytes(image)?;
        let mut layers = Vec::new();
        for layer in self.config(image)?.layers()? {
            let path = blobs.join(layer.to_string());
            let file = File::create(&path).on("create", &path)?;
            let size = self.export_layer(&layer, BufWriter::new(file))?;
            layers.push(descriptor("application/vnd.oci.image.layer.v1.tar", &layer.oci(), size));
        }
        write(&blobs.join(image.to_string()), &config)?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &image.oci(), config.len() as u64),
            "layers": layers,
        })
        .to_string();
        let digest = digest_of(manifest.as_bytes());
        write(&blobs.join(digest.to_string()), manifest.as_bytes())?;
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let mut entry = descriptor(kind, &format!("sha256:{digest}"), manifest.len() as u64);
        entry["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [entry],
        });
        write(&dir.join("index.json"), index.to_string().as_bytes())?;
        write(&dir.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)
    }
}

fn descriptor(media_type: &str, digest: &str, size: u64) -> Value {
    json!({ "mediaType": media_type, "digest": digest, "size": size })
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).on("write", path)
}
