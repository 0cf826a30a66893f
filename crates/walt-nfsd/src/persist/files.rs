//! Content of `/persist` files: READ, WRITE, COMMIT, and the files that stay open between them.

use super::{Export, Persist, act, allowed, errno, kind};
use crate::{kernel, may_read, status};
use parking_lot::Mutex;
use rustix::fs::OFlags;
use rustix::io::{Errno, ReadWriteFlags};
use std::collections::HashMap;
use std::fs::File;
use std::io::IoSlice;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use walt_nfs::vfs::Result;
use walt_nfs::{Attr, Context, FileType, KernelHandle, Stable, Status, Wcc, Written, access};

/// A regular file, open for reading and writing.
pub(super) struct OpenFile {
    pub(super) file: File,
    /// Written and not committed.
    dirty: AtomicBool,
    /// The last COMMIT lost data.
    failing: AtomicBool,
}

impl OpenFile {
    fn is_dirty(&self) -> bool {
        self.dirty.load(Ordering::Acquire)
    }
}

type Key = (u64, KernelHandle);

/// Open files by export and handle; the least recently used are closed first.
pub(super) struct OpenFiles {
    max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    clock: u64,
    files: HashMap<Key, (Arc<OpenFile>, u64)>,
}

impl OpenFiles {
    pub(super) fn new(max: usize) -> Self {
        Self { max, state: Mutex::default() }
    }

    fn get(&self, key: &Key) -> Option<Arc<OpenFile>> {
        let mut state = self.state.lock();
        state.clock += 1;
        let now = state.clock;
        let (file, used) = state.files.get_mut(key)?;
        *used = now;
        Some(file.clone())
    }

    /// Adds a file; returns those that had to go.
    fn add(&self, key: Key, file: Arc<OpenFile>) -> Vec<Arc<OpenFile>> {
        let mut state = self.state.lock();
        let mut gone = Vec::new();
        if state.files.len() >= self.max {
            let mut times: Vec<u64> = state.files.values().map(|(_, used)| *used).collect();
            let middle = times.len() / 2;
            let (_, median, _) = times.select_nth_unstable(middle);
            let median = *median;
            state.files.retain(|_, (file, used)| {
                let keep = *used > median;
                if !keep {
                    gone.push(file.clone());
                }
                keep
            });
        }
        let now = state.clock;
        state.files.insert(key, (file, now));
        gone
    }

    /// How many are open.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.state.lock().files.len()
    }

    /// Closes a file that has no name any more, so that its space is free.
    pub(super) fn forget(&self, export: u64, file: &KernelHandle) {
        self.state.lock().files.remove(&(export, *file));
    }
}

impl Persist {
    /// Opens a regular file, or finds it open.
    pub(super) fn file(&self, x: &Export, handle: &KernelHandle) -> Result<(Arc<OpenFile>, Attr)> {
        let key = (x.id, *handle);
        if let Some(open) = self.files.get(&key) {
            let stat = rustix::fs::fstat(&open.file).map_err(errno)?;
            if stat.st_nlink == 0 {
                self.files.forget(x.id, handle);
                return Err(Status::Stale);
            }
            return Ok((open, x.attr(&stat)));
        }
        let (_, stat) = x.path(handle)?;
        match kind(&stat) {
            FileType::Regular => {}
            FileType::Directory => return Err(Status::IsDir),
            _ => return Err(Status::Inval),
        }
        let file = kernel::open(x.dir.as_fd(), handle, OFlags::RDWR | OFlags::NOFOLLOW)?;
        let open =
            Arc::new(OpenFile { file, dirty: AtomicBool::new(false), failing: AtomicBool::new(false) });
        for old in self.files.add(key, open.clone()) {
            // Its errors would be lost with it.
            if old.is_dirty()
                && let Err(error) = (self.sync_data)(&old.file)
            {
                self.lost(&error);
            }
        }
        Ok((open, x.attr(&stat)))
    }

    /// READ.
    pub fn read(
        &self,
        ctx: &Context,
        x: &Export,
        handle: &KernelHandle,
        offset: u64,
        count: u32,
        out: &mut Vec<u8>,
    ) -> Result<(bool, Attr)> {
        let (open, attr) = self.file(x, handle)?;
        may_read(ctx, &attr)?;
        let want = u64::from(count).min(attr.size.saturating_sub(offset)) as usize;
        let start = out.len();
        out.resize(start + want, 0);
        let mut done = 0;
        while done < want {
            match open.file.read_at(&mut out[start + done..], offset + done as u64) {
                Ok(0) => break, // became shorter
                Ok(n) => done += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(status(&e)),
            }
        }
        out.truncate(start + done);
        Ok((offset.saturating_add(done as u64) >= attr.size || done < want, attr))
    }

    /// WRITE.
    pub fn write(
        &self,
        ctx: &Context,
        x: &Export,
        handle: &KernelHandle,
        offset: u64,
        data: &[u8],
        stable: Stable,
    ) -> Result<Written> {
        let (open, attr) = self.file(x, handle)?;
        // The owner may have opened the file before its mode was changed.
        if allowed(ctx, &attr) & access::MODIFY == 0 && ctx.uid != attr.uid {
            return Err(Status::Access);
        }
        let flags = match stable {
            Stable::Unstable => ReadWriteFlags::empty(),
            Stable::DataSync => ReadWriteFlags::DSYNC,
            Stable::FileSync => ReadWriteFlags::SYNC,
        };
        if stable == Stable::Unstable {
            open.dirty.store(true, Ordering::Release);
        }
        let mut done = 0;
        {
            // As the caller, so that the kernel clears set-uid bits and counts quotas as it should.
            let _as = act(ctx)?;
            while done < data.len() {
                let rest = [IoSlice::new(&data[done..])];
                match rustix::io::pwritev2(&open.file, &rest, offset + done as u64, flags) {
                    Ok(0) => break,
                    Ok(n) => done += n,
                    Err(Errno::INTR) => {}
                    // What fits is written; the client sends the rest again and gets the error then.
                    Err(_) if done > 0 => break,
                    // The error may be of the sync and of data that was written before: nobody else is
                    // told of it again.
                    Err(e) if stable != Stable::Unstable && (e == Errno::IO || open.is_dirty()) => {
                        drop(_as);
                        return Err(self.lost(&e.into()));
                    }
                    Err(e) => return Err(errno(e)),
                }
            }
        }
        let after = rustix::fs::fstat(&open.file).ok().map(|s| x.attr(&s));
        let file = Wcc { before: Some((&attr).into()), after };
        Ok(Written { count: done as u32, stable, file })
    }

    /// COMMIT.
    pub fn commit(&self, x: &Export, handle: &KernelHandle) -> Result<Wcc> {
        let (open, attr) = self.file(x, handle)?;
        // Before the sync: what is written meanwhile is dirty again.
        open.dirty.store(false, Ordering::Release);
        if let Err(error) = (self.sync_data)(&open.file) {
            let status = self.lost(&error);
            // The new verifier alone makes the client write again what it has not committed. What cannot
            // get better by that is an error at once, and so is what has not.
            if open.failing.swap(true, Ordering::AcqRel) || status != Status::Io {
                return Err(status);
            }
        } else {
            open.failing.store(false, Ordering::Release);
        }
        let after = rustix::fs::fstat(&open.file).ok().map(|s| x.attr(&s));
        Ok(Wcc { before: Some((&attr).into()), after })
    }
}
