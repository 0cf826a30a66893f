//! Blobs that others refer to by digest: compressed layers of images that were pushed to this server. They cannot be
//! made again from the layers, since it is not known how they were compressed.

use crate::{
    error::{Context, Result},
    layer::disk,
    store::{Store, Temporary},
};
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File},
    io::Write,
    path::PathBuf,
};
use walt_types::Hash256;

/// A blob while it is received. Dropping it removes it.
#[derive(Debug)]
pub struct NewBlob {
    file: Temporary,
    out: File,
    hash: Sha256,
    size: u64,
}

impl NewBlob {
    /// Appends bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).on("write", self.file.path())?;
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Number of bytes so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Digest of the bytes so far.
    pub fn digest(&self) -> Hash256 {
        Hash256(self.hash.clone().finalize().into())
    }

    /// Opens the blob for reading from its start.
    pub fn open(&self) -> Result<File> {
        File::open(self.file.path()).on("open", self.file.path())
    }
}

impl Store {
    /// Starts an empty blob.
    pub fn new_blob(&self) -> Result<NewBlob> {
        let file = self.temporary_name();
        let out = File::create(file.path()).on("create", file.path())?;
        Ok(NewBlob { file, out, hash: Sha256::new(), size: 0 })
    }

    /// Path of a stored blob.
    pub(crate) fn blob_path(&self, digest: &Hash256) -> PathBuf {
        self.images_dir().join("blobs").join(digest.to_string())
    }

    /// Whether a blob is stored.
    pub fn has_blob(&self, digest: &Hash256) -> bool {
        self.blob_path(digest).is_file()
    }

    /// Opens a stored blob and returns its size.
    pub fn open_blob(&self, digest: &Hash256) -> Result<(File, u64)> {
        let path = self.blob_path(digest);
        let file = File::open(&path).on("open", &path)?;
        let size = file.metadata().on("read the metadata of", &path)?.len();
        Ok((file, size))
    }

    /// Stores a blob. It is durable when this returns, and stays while [`Live`](crate::Live) names it.
    pub fn keep_blob(&self, blob: &NewBlob) -> Result<()> {
        let path = self.blob_path(&blob.digest());
        if path.is_file() {
            return Ok(());
        }
        blob.out.sync_all().on("write to disk", blob.file.path())?;
        match fs::rename(blob.file.path(), &path) {
            // Another task has just stored it.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && path.is_file() => {}
            other => other.on("move the blob to", &path)?,
        }
        let dir = self.images_dir().join("blobs");
        disk::sync_dir(&dir).on("write to disk", &dir)
    }
}
