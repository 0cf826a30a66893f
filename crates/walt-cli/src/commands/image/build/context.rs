//! The build context: the Dockerfile, and the files of its directory that `.dockerignore` does not exclude.
//!
//! In the image, all files belong to root. Sockets are left out; a file that shrinks while it is read is an error.

use crate::error::Failure;
use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use walt_tar::{Dialect, Header, Time, Type};
use walt_types::patterns::Patterns;

/// Names of a Dockerfile; the first one that exists is used.
const DOCKERFILE_NAMES: [&str; 3] = ["Dockerfile", "Containerfile", "ContainerFile"];
/// Names of a list of excluded files, after the one that is named after the Dockerfile.
const IGNORE_FILES: [&str; 2] = [".containerignore", ".dockerignore"];
/// Size of a chunk of the tar, in bytes.
const CHUNK: usize = 48 << 10;
/// Chunks that may wait to be sent; then packing waits.
const QUEUE: usize = 16;

/// A directory to build in.
#[derive(Debug)]
pub struct BuildContext {
    dir: PathBuf,
    /// The Dockerfile's bytes.
    pub dockerfile: Vec<u8>,
    ignore: Patterns,
}

impl BuildContext {
    /// Finds the Dockerfile in `dir`, and the list of excluded files.
    ///
    /// # Errors
    /// `dir` is not a directory, has no Dockerfile, or cannot be read.
    pub fn find(dir: &Path) -> Result<Self, Failure> {
        let meta = fs::metadata(dir).map_err(|e| cannot("find", dir, &e))?;
        if !meta.is_dir() {
            return Err(Failure::new(format!("{} is not a directory.", dir.display())));
        }
        let name = DOCKERFILE_NAMES.into_iter().find(|name| dir.join(name).is_file()).ok_or_else(|| {
            Failure::with_hint(
                format!("no Dockerfile or Containerfile found in {}.", dir.display()),
                "See 'walt help show image-build'.",
            )
        })?;
        let path = dir.join(name);
        let dockerfile = fs::read(&path).map_err(|e| cannot("read", &path, &e))?;
        let own = format!("{name}.dockerignore");
        let lists = std::iter::once(own.as_str()).chain(IGNORE_FILES);
        let mut ignore = Patterns::default();
        if let Some(path) = lists.map(|name| dir.join(name)).find(|path| path.is_file()) {
            let text = fs::read(&path).map_err(|e| cannot("read", &path, &e))?;
            ignore = Patterns::parse(&text);
        }
        Ok(Self { dir: dir.to_owned(), dockerfile, ignore })
    }
}

/// A tar that a thread is packing.
pub struct TarStream {
    chunks: mpsc::Receiver<Vec<u8>>,
    task: JoinHandle<Result<(), (PathBuf, io::Error)>>,
}

impl TarStream {
    /// The next chunk; `None` at the end, or after a failure, which [`TarStream::end`] returns.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        self.chunks.recv().await
    }

    /// The result of packing.
    pub async fn end(self) -> Result<(), Failure> {
        match self.task.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err((path, e))) => Err(cannot("read", &path, &e)),
            Err(e) => Err(Failure::new(format!("reading the directory failed unexpectedly: {e}."))),
        }
    }
}

/// Starts packing a context as a tar.
pub fn pack(context: &BuildContext) -> TarStream {
    let (send, chunks) = mpsc::channel(QUEUE);
    let (dir, ignore) = (context.dir.clone(), context.ignore.clone());
    let task = tokio::task::spawn_blocking(move || {
        let mut packer =
            Packer { out: ChunkWriter { send, current: Vec::new() }, dir, ignore, links: HashMap::new() };
        packer.pack()
    });
    TarStream { chunks, task }
}

/// Cuts the tar into chunks and queues them.
struct ChunkWriter {
    send: mpsc::Sender<Vec<u8>>,
    current: Vec<u8>,
}

impl Write for ChunkWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.current.extend_from_slice(bytes);
        if self.current.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        let chunk = std::mem::take(&mut self.current);
        self.send.blocking_send(chunk).map_err(|_| io::Error::other("the connection is closed"))
    }
}

struct Packer {
    out: ChunkWriter,
    dir: PathBuf,
    ignore: Patterns,
    /// First name of each file with several hard links, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
}

type Packed<T> = Result<T, (PathBuf, io::Error)>;

impl Packer {
    fn pack(&mut self) -> Packed<()> {
        let top = self.dir.clone();
        let failed = |e| (top.clone(), e);
        let meta = fs::metadata(&top).map_err(failed)?;
        let header = header(Type::Dir, Vec::new(), &meta);
        self.write_header(&header).map_err(failed)?;
        self.directory(&top, &[])?;
        self.out.write_all(&walt_tar::END).and_then(|()| self.out.flush()).map_err(failed)
    }

    fn write_header(&mut self, header: &Header) -> io::Result<()> {
        let mut bytes = Vec::new();
        walt_tar::write_header(&mut bytes, header);
        self.out.write_all(&bytes)
    }

    /// Writes the entries of a directory; true if there were any. `pending` holds excluded directories above it:
    /// their headers are written only if something in them is not excluded.
    fn directory(&mut self, dir: &Path, pending: &[(Vec<u8>, Metadata)]) -> Packed<bool> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir).map_err(|e| (dir.to_owned(), e))? {
            names.push(entry.map_err(|e| (dir.to_owned(), e))?.file_name());
        }
        names.sort();
        let mut written = false;
        for name in names {
            let path = dir.join(&name);
            let inner = path.strip_prefix(&self.dir).unwrap_or(&path).as_os_str().as_bytes().to_vec();
            let left_out = self.ignore.matches(&inner);
            let meta = fs::symlink_metadata(&path).map_err(|e| (path.clone(), e))?;
            if left_out && !(meta.is_dir() && self.ignore.has_exceptions()) {
                continue;
            }
            let above: &[(Vec<u8>, Metadata)] = if written { &[] } else { pending };
            if left_out {
                let mut more = above.to_vec();
                more.push((inner, meta));
                written |= self.directory(&path, &more)?;
                continue;
            }
            for (name, meta) in above {
                self.write_header(&header(Type::Dir, name.clone(), meta)).map_err(|e| (path.clone(), e))?;
            }
            written = true;
            self.entry(&path, inner, &meta).map_err(|e| (path.clone(), e))?;
            if meta.is_dir() {
                self.directory(&path, &[])?;
            }
        }
        Ok(written)
    }

    fn entry(&mut self, path: &Path, inner: Vec<u8>, meta: &Metadata) -> io::Result<()> {
        let kind = meta.file_type();
        if kind.is_dir() {
            return self.write_header(&header(Type::Dir, inner, meta));
        }
        if kind.is_socket() {
            return Ok(());
        }
        if meta.nlink() > 1 {
            let key = (meta.dev(), meta.ino());
            if let Some(first) = self.links.get(&key) {
                let link = Header { link: first.clone(), size: 0, ..header(Type::HardLink, inner, meta) };
                return self.write_header(&link);
            }
            self.links.insert(key, inner.clone());
        }
        if kind.is_symlink() {
            let target = fs::read_link(path)?;
            let link = target.as_os_str().as_bytes().to_vec();
            return self.write_header(&Header { link, ..header(Type::Symlink, inner, meta) });
        }
        if kind.is_file() {
            // The file may have been replaced since its metadata was read: by a link, or by a fifo that would block.
            const FLAGS: i32 =
                (rustix::fs::OFlags::NOFOLLOW.bits() | rustix::fs::OFlags::NONBLOCK.bits()) as i32;
            let mut file = File::options().read(true).custom_flags(FLAGS).open(path)?;
            let meta = file.metadata()?;
            if !meta.is_file() {
                return Err(io::Error::other("it was replaced while it was read"));
            }
            let header = Header { size: meta.len(), ..header(Type::File, inner, &meta) };
            // Holes are sent as zeros: the server keeps the stream as a layer.
            let (out, blocks) = (&mut self.out, meta.len());
            return walt_tar::write_file(out, &header, &mut file, blocks, Dialect::Pax, &mut |_| ());
        }
        let which = match (kind.is_char_device(), kind.is_block_device()) {
            (true, _) => Type::Char,
            (_, true) => Type::Block,
            _ => Type::Fifo,
        };
        let device = meta.rdev();
        let rdev = (rustix::fs::major(device), rustix::fs::minor(device));
        self.write_header(&Header { rdev, ..header(which, inner, meta) })
    }
}

fn header(kind: Type, path: Vec<u8>, meta: &Metadata) -> Header {
    Header {
        kind,
        path,
        mode: meta.mode() & 0o7777,
        mtime: Time { sec: meta.mtime(), nsec: meta.mtime_nsec() as u32 },
        ..Header::file(0)
    }
}

/// The failure of an operation on a path.
fn cannot(what: &str, path: &Path, e: &io::Error) -> Failure {
    Failure::new(format!("cannot {what} {}: {e}.", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(files: &[&str], ignore: &str) -> Vec<String> {
        let files: Vec<&[u8]> = files.iter().map(|f| f.as_bytes()).collect();
        let names = packed_bytes(&files, ignore.as_bytes());
        names.into_iter().map(|name| String::from_utf8(name).unwrap()).collect()
    }

    fn packed_bytes(files: &[&[u8]], ignore: &[u8]) -> Vec<Vec<u8>> {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(std::ffi::OsStr::from_bytes(file));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
        fs::write(dir.path().join("Dockerfile"), "FROM scratch").unwrap();
        fs::write(dir.path().join(".dockerignore"), ignore).unwrap();
        let context = BuildContext::find(dir.path()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let bytes = runtime.block_on(async {
            let (mut bytes, mut tar) = (Vec::new(), pack(&context));
            while let Some(chunk) = tar.next().await {
                bytes.extend(chunk);
            }
            tar.end().await.unwrap();
            bytes
        });
        let (mut input, mut raw, mut names) = (bytes.as_slice(), Vec::new(), Vec::new());
        while let Some(header) = walt_tar::read_header(&mut input, &mut raw).unwrap() {
            assert_eq!((header.uid, header.gid), (0, 0));
            let padded = header.size.next_multiple_of(512) as usize;
            input = &input[padded..];
            names.push(header.path);
        }
        names.retain(|n| !n.is_empty() && n != b"Dockerfile" && n != b".dockerignore");
        names
    }

    #[test]
    fn what_is_left_out() {
        let files = ["a/b/c", "a/b/d", "a/e", "f"];
        assert_eq!(packed(&files, ""), ["a", "a/b", "a/b/c", "a/b/d", "a/e", "f"]);
        assert_eq!(packed(&files, "a"), ["f"]);
        assert_eq!(packed(&files, "*\n!a/b/c"), ["a", "a/b", "a/b/c"]);
        assert_eq!(packed(&files, "**/d\nf"), ["a", "a/b", "a/b/c", "a/e"]);
    }

    #[test]
    fn names_are_bytes() {
        let files = [&b"d/G\xe4rten"[..], b"d/G\xf6rten", b"d/G\xfcrten"];
        assert_eq!(packed_bytes(&files, b"*\n!d/G\xf6*"), [&b"d"[..], b"d/G\xf6rten"]);
        assert_eq!(packed_bytes(&files, b"d/G\xe4rten"), [&b"d"[..], b"d/G\xf6rten", b"d/G\xfcrten"]);
    }

    #[test]
    fn which_file_is_the_dockerfile() {
        let dir = tempfile::tempdir().unwrap();
        assert!(BuildContext::find(dir.path()).unwrap_err().text().contains("no Dockerfile"));
        fs::write(dir.path().join("ContainerFile"), "1").unwrap();
        assert_eq!(BuildContext::find(dir.path()).unwrap().dockerfile, b"1");
        fs::write(dir.path().join("Containerfile"), "2").unwrap();
        fs::write(dir.path().join("Containerfile.dockerignore"), "x").unwrap();
        fs::write(dir.path().join(".dockerignore"), "y").unwrap();
        let context = BuildContext::find(dir.path()).unwrap();
        assert_eq!(context.dockerfile, b"2");
        assert!(context.ignore.matches(b"x") && !context.ignore.matches(b"y"));
    }
}
