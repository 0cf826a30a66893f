//! Packs a part of a view into a tar, for copies out of an image or to another image.

use crate::{
    cancel,
    error::{Context, Result},
    layer::scan::Kind,
    view::View,
};
use std::{
    collections::HashMap,
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::PathBuf,
};
use walt_tar::{Dialect, Header, Time, Type, write_file, write_header};

impl View {
    /// Writes the entry `number` and everything below it as entries `name` and `name/…`. With an empty name, only the
    /// contents of the directory `number` are written. Owners, modes, times, hard links among these entries, holes
    /// and extended attributes are kept. The end of the archive is not written ([`walt_tar::END`]).
    ///
    /// `progress` is called with the number of bytes of files that were written since the last call.
    pub fn pack(
        &self,
        number: u32,
        name: &[u8],
        out: &mut dyn Write,
        progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let mut first_names: HashMap<u32, Vec<u8>> = HashMap::new();
        let mut pending = vec![(number, name.to_vec())];
        let out = &mut Cancellable(out);
        while let Some((number, path)) = pending.pop() {
            cancel::check()?;
            for child in self.children(number).iter().rev() {
                pending.push((*child, walt_tar::paths::join(&path, self.name(*child))));
            }
            if !path.is_empty() {
                self.pack_one(number, path, &mut first_names, out, progress)?;
            }
        }
        Ok(())
    }

    fn pack_one(
        &self,
        number: u32,
        path: Vec<u8>,
        first_names: &mut HashMap<u32, Vec<u8>>,
        out: &mut dyn Write,
        progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let Some(entry) = self.entry(number) else { return Ok(()) };
        let show = PathBuf::from("/").join(walt_tar::paths::as_path(&self.path(number)));
        let kind = match entry.kind {
            Kind::File => Type::File,
            Kind::Dir => Type::Dir,
            Kind::Symlink => Type::Symlink,
            Kind::Char => Type::Char,
            Kind::Block => Type::Block,
            Kind::Fifo => Type::Fifo,
            Kind::Socket | Kind::Whiteout => return Ok(()),
        };
        let mut header = Header {
            kind,
            path,
            link: entry.target.to_vec(),
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            size: 0,
            sparse: None,
            mtime: entry.mtime,
            rdev: entry.rdev,
            xattrs: self.xattrs(number).on("read the extended attributes of", &show)?,
        };
        if kind != Type::Dir && entry.nlink > 1 {
            if let Some(first) = first_names.get(&entry.fileid) {
                header = Header {
                    kind: Type::HardLink,
                    link: first.clone(),
                    xattrs: Vec::new(),
                    mtime: Time { nsec: 0, ..header.mtime },
                    ..header
                };
            } else {
                first_names.insert(entry.fileid, header.path.clone());
            }
        }
        if header.kind == Type::File {
            header.size = entry.size;
            let mut file = self.open(number).on("open", &show)?;
            let blocks = file.metadata().on("read the metadata of", &show)?.blocks();
            return write_file(out, &header, &mut file, blocks, Dialect::Pax, progress).on("copy", &show);
        }
        let mut bytes = Vec::new();
        write_header(&mut bytes, &header);
        out.write_all(&bytes).on("copy", &show)
    }
}

/// A writer that fails once the work is cancelled.
struct Cancellable<'a>(&'a mut dyn Write);

impl Write for Cancellable<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        cancel::check_io()?;
        self.0.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
