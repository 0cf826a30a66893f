//! Reading the tar of a layer for nodes, from any offset.

use super::NodeTarKey;
use crate::{
    error::{Context, Error, Result},
    layer::{
        disk::Root,
        skeleton::{Record, SkeletonReader},
    },
    store::Store,
};
use std::{fs::File, os::unix::fs::FileExt, path::PathBuf};

/// What comes next in the tar.
enum Piece {
    Raw { bytes: Vec<u8>, at: usize },
    File { file: File, offset: u64, left: u64, show: PathBuf },
}

/// The bytes of a tar, made again from its skeleton and the files of the layer.
pub struct NodeTarReader {
    root: Root,
    skeleton: SkeletonReader,
    piece: Option<Piece>,
}

impl Store {
    /// Opens a tar that was made ([`Store::make_node_tar`]) at an offset.
    ///
    /// # Errors
    /// It does not exist, is damaged or ends before the offset, or the disk failed.
    pub fn open_node_tar(&self, key: &NodeTarKey, offset: u64) -> Result<NodeTarReader> {
        let path = self.node_tars().join(key.to_string()).join("skeleton");
        if !path.exists() || !self.has_layer(key.layer()) {
            return Err(Error::Missing { kind: "tar for nodes of layer", id: key.layer().to_string() });
        }
        let fs_dir = self.layer_fs(key.layer());
        let root = Root::open(&fs_dir).on("open", &fs_dir)?;
        let mut reader = NodeTarReader { root, skeleton: SkeletonReader::open(&path)?, piece: None };
        reader.skip(offset)?;
        Ok(reader)
    }
}

impl NodeTarReader {
    /// Makes sure that there is a piece; false at the end.
    fn load(&mut self) -> Result<bool> {
        while self.piece.is_none() {
            let (path, offset, length) = match self.skeleton.next()? {
                None => return Ok(false),
                Some(Record::Raw(bytes)) => {
                    self.piece = Some(Piece::Raw { bytes, at: 0 });
                    break;
                }
                Some(Record::File { path, size }) => (path, 0, size),
                Some(Record::Part { path, offset, length }) => (path, offset, length),
            };
            let show = self.root.show(&path);
            let file = self.root.file(&path).on("open", &show)?;
            self.piece = (length > 0).then_some(Piece::File { file, offset, left: length, show });
        }
        Ok(true)
    }

    fn skip(&mut self, mut count: u64) -> Result<()> {
        while count > 0 {
            if !self.load()? {
                return Err(Error::Layer("its tar ends before this offset".into()));
            }
            let Some(piece) = &mut self.piece else { continue };
            let left = match piece {
                Piece::Raw { bytes, at } => (bytes.len() - *at) as u64,
                Piece::File { left, .. } => *left,
            };
            let step = count.min(left);
            match piece {
                Piece::Raw { at, .. } => *at += step as usize,
                Piece::File { offset, left, .. } => (*offset, *left) = (*offset + step, *left - step),
            }
            count -= step;
            if step == left {
                self.piece = None;
            }
        }
        Ok(())
    }

    /// The next `count` bytes; less only at the end of the tar.
    ///
    /// # Errors
    /// A file of the layer is damaged, or the disk failed.
    pub fn read(&mut self, count: usize) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(count);
        while out.len() < count && self.load()? {
            let room = count - out.len();
            let ended = match &mut self.piece {
                None => false,
                Some(Piece::Raw { bytes, at }) => {
                    let n = room.min(bytes.len() - *at);
                    out.extend_from_slice(&bytes[*at..*at + n]);
                    *at += n;
                    *at == bytes.len()
                }
                Some(Piece::File { file, offset, left, show }) => {
                    let n = usize::try_from(*left).unwrap_or(usize::MAX).min(room);
                    let start = out.len();
                    out.resize(start + n, 0);
                    file.read_exact_at(&mut out[start..], *offset).on("read", &*show)?;
                    (*offset, *left) = (*offset + n as u64, *left - n as u64);
                    *left == 0
                }
            };
            if ended {
                self.piece = None;
            }
        }
        Ok(out)
    }
}
