//! A tar put on top of a view.

use super::{Composer, Last, Meta, refuse};
use crate::{
    cancel,
    error::{Context, Error, Result},
    layer::{implied::IMPLIED_MODE, scan::Kind},
};
use std::io::{BufReader, Read};
use walt_tar::paths::join;
use walt_tar::paths::split;
use walt_tar::{CopyError, Header, Type, read_file, read_header};

/// Bytes read from the tar at once.
const CHUNK: usize = 1 << 18;

/// Called with each entry before it is put: it may change the entry, or leave it out by returning `false`.
pub type Edit<'a> = &'a mut dyn FnMut(&mut Header) -> Result<bool>;

impl Composer<'_> {
    /// Puts the entries of an uncompressed tar below the directory `into`, a path from [`Composer::resolve`].
    /// `progress` is called with the number of bytes of files that were read since the last call.
    ///
    /// Existing symbolic links in paths are followed inside the merged tree. A directory over a symbolic link to a
    /// directory is merged with that directory, which keeps its metadata; everything else replaces the link. If a
    /// name occurs twice, the last entry counts. Hard links can refer to files of the tar and to existing files below
    /// `into`.
    ///
    /// Fails on the first entry that cannot be put (see [`walt_tar`] and the limits of this module); what was put
    /// before stays in the composer, which the caller then drops.
    pub fn extract(
        &mut self,
        tar: &mut dyn Read,
        into: &[u8],
        edit: Edit,
        progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let mut input = BufReader::with_capacity(CHUNK, tar);
        let mut raw = Vec::new();
        while let Some(mut header) = read_header(&mut input, &mut raw)? {
            raw.clear();
            let size = header.size;
            let padded = size.checked_next_multiple_of(walt_tar::BLOCK as u64).unwrap_or(u64::MAX);
            if edit(&mut header)? {
                self.entry(&mut input, &header, into, progress)?;
            } else {
                let skipped = std::io::copy(&mut (&mut input).take(padded), &mut std::io::sink());
                let skipped = skipped.map_err(|e| Error::Layer(format!("the tar cannot be read: {e}")))?;
                if skipped < padded {
                    return Err(Error::Layer("the tar ends in the middle of a file".into()));
                }
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        input: &mut impl Read,
        header: &Header,
        into: &[u8],
        progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let meta = Meta {
            mode: header.mode,
            uid: header.uid,
            gid: header.gid,
            mtime: header.mtime,
            xattrs: header.xattrs.clone(),
        };
        let path = self.resolve(&join(into, &header.path), Last::Keep)?;
        let implied = Meta { mode: IMPLIED_MODE, mtime: header.mtime, ..Meta::default() };
        self.make_dirs(split(&path).0, &implied)?;
        match header.kind {
            Type::Dir => {
                if self.kind(&path) == Some(Kind::Symlink) {
                    let real = self.resolve(&path, Last::Follow);
                    if real.is_ok_and(|real| self.kind(&real) == Some(Kind::Dir)) {
                        return Ok(());
                    }
                }
                self.put_dir(&path, &meta)
            }
            Type::File => {
                let show = self.root.show(&path);
                let mut stopped = Ok(());
                let mut input = Cancellable(input, &mut stopped);
                let done = self.new_file(&path, &meta, header.file_size(), &mut |file| match read_file(
                    &mut input, header, file, progress,
                ) {
                    Ok(()) => Ok(()),
                    Err(CopyError::Tar(e)) => Err(refuse(&header.path, &e.0)),
                    Err(CopyError::File(e)) => Err(e).on("write", &show),
                });
                stopped.and(done)
            }
            Type::HardLink => {
                let target = self.resolve(&join(into, &header.link), Last::Keep)?;
                self.put_link(&path, &target)
            }
            Type::Symlink => self.put_symlink(&path, &meta, &header.link),
            Type::Char => self.put_node(&path, &meta, Kind::Char, header.rdev),
            Type::Block => self.put_node(&path, &meta, Kind::Block, header.rdev),
            Type::Fifo => self.put_node(&path, &meta, Kind::Fifo, (0, 0)),
        }
    }
}

/// Reads until the work is cancelled; the error is kept for the caller.
struct Cancellable<'a, R>(&'a mut R, &'a mut Result<()>);

impl<R: Read> Read for Cancellable<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if let Err(e) = cancel::check() {
            *self.1 = Err(e);
            return Err(std::io::Error::other("it was cancelled"));
        }
        self.0.read(buffer)
    }
}
