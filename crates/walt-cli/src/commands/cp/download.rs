//! From an image or a node to this machine; a thread of its own unpacks the tar.

use super::local::{show, trimmed};
use super::transfer::{QUEUE, Transfer, finish_progress, run_confirmed, show_message};
use crate::{
    context::Context,
    error::Failure,
    ui::{self, Ui},
};
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;
use walt_api::transfer::{Found, Open, Placed, ServerMessage, Source, SourceKind, What, place};
use walt_client::Transferred;
use walt_tar::local::{LocalError, Target, Watch, unpack};

/// The state of a local destination.
fn destination_state(path: &Path) -> Found {
    match path.metadata() {
        Ok(meta) if meta.is_dir() => Found::Directory,
        Ok(_) => Found::File,
        // A dangling link: it is replaced.
        Err(_) if path.symlink_metadata().is_ok() => Found::File,
        Err(_) => {
            let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            if parent.is_dir() { Found::Absent } else { Found::NoParent }
        }
    }
}

/// Reads from the queue of frames; an empty frame is the end.
struct FrameReader {
    queue: mpsc::Receiver<Vec<u8>>,
    frame: Vec<u8>,
    at: usize,
    ended: bool,
}

impl Read for FrameReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.frame.len() && !self.ended {
            match self.queue.blocking_recv() {
                Some(frame) => {
                    self.ended = frame.is_empty();
                    (self.frame, self.at) = (frame, 0);
                }
                None => return Err(io::Error::other("the server closed the connection before the end")),
            }
        }
        let n = buffer.len().min(self.frame.len() - self.at);
        buffer[..n].copy_from_slice(&self.frame[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

/// Copies from an image or a node to a local path.
pub async fn download(context: &mut Context, what: What, path: &Path, yes: bool) -> Result<(), Failure> {
    let path = trimmed(path);
    run_confirmed(context, what, yes, async |context, open| download_once(context, open, &path).await).await
}

/// Where a source goes on this machine: a directory, and its name there unless only its contents are copied.
fn local_destination(source: &Source, path: &Path) -> Result<(PathBuf, Option<OsString>), Failure> {
    let state = destination_state(path);
    if state == Found::File && source.kind == SourceKind::File && path.metadata().is_ok_and(|m| !m.is_file())
    {
        return Err(Failure::new(format!("{} is not a regular file; left unchanged.", show(path))));
    }
    match place(source.kind, state, &show(path)).map_err(Failure::new)? {
        Placed::Merged => Ok((path.to_owned(), None)),
        Placed::Inside => {
            let name = OsString::from_vec(source.name.0.clone());
            let unusable = matches!(name.as_bytes(), b"" | b"." | b"..") || name.as_bytes().contains(&b'/');
            if unusable {
                return Err(Failure::new("the source has no name that could be used in the destination."));
            }
            Ok((path.to_owned(), Some(name)))
        }
        Placed::Itself => {
            // A link to a file: the file is overwritten.
            let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
            let name =
                path.file_name().ok_or_else(|| Failure::new(format!("{} has no name.", show(&path))))?;
            let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            Ok((dir.to_owned(), Some(name.to_owned())))
        }
    }
}

async fn download_once(context: &mut Context, open: &Open, path: &Path) -> Result<(), Failure> {
    let mut transfer = Transfer::open(context, open).await?;
    let (source, top) = loop {
        match transfer.next(&mut None).await? {
            None => {}
            Some(Some(Transferred::Message(ServerMessage::Source { source, top }))) => break (source, top.0),
            Some(other) => {
                let last = show_message(transfer.ui, other)?.is_break();
                if last {
                    return Ok(());
                }
            }
        }
    };
    let (dir, name) = local_destination(&source, path)?;
    // From here on ctrl-C aborts; dropping the connection cancels the transfer.
    transfer.proceeded = true;
    let transferred = transfer.transferring(0);
    let (queue, frames) = mpsc::channel(QUEUE);
    let mut unpacker = tokio::task::spawn_blocking(move || {
        let mut notes = Vec::new();
        let mut watch = Watch { progress: &mut |_| (), note: &mut |note| notes.push(note) };
        let target = Target { dir: &dir, name: name.as_deref(), top: &top };
        let mut input = FrameReader { queue: frames, frame: Vec::new(), at: 0, ended: false };
        unpack(&mut input, &target, &mut watch).map(|()| notes)
    });
    let mut queue = Some(queue);
    loop {
        match transfer.next(&mut None).await? {
            None => {}
            Some(Some(Transferred::Bytes(bytes))) => {
                let Some(open) = &queue else { continue };
                transferred.set(transferred.get() + bytes.len() as u64);
                let sent = tokio::select! {
                    sent = open.send(bytes.to_vec()) => sent,
                    interrupt = transfer.ui.signals.next() => return Err(transfer.ui.interrupted(interrupt)),
                };
                if sent.is_err() {
                    // The unpacker has ended: at the end of the tar, or with a failure that it returns.
                    queue = None;
                    unpacked(transfer.ui, (&mut unpacker).await)?;
                }
            }
            Some(other) => {
                let last = show_message(transfer.ui, other)?.is_break();
                if last {
                    break;
                }
            }
        }
    }
    if let Some(open) = queue.take() {
        // The unpacker has seen the end of the tar, or waits for it.
        let _ended = open.send(Vec::new()).await;
        unpacked(transfer.ui, unpacker.await)?;
    }
    finish_progress(transfer.ui);
    Ok(())
}

fn unpacked(
    ui: &mut Ui,
    outcome: Result<Result<Vec<String>, LocalError>, tokio::task::JoinError>,
) -> Result<(), Failure> {
    ui.busy.clear();
    let outcome = outcome.map_err(|e| Failure::new(format!("unpacking failed unexpectedly: {e}")))?;
    outcome.map_err(|e| Failure::new(format!("{e}.")))?.iter().for_each(|note| ui::note(note));
    Ok(())
}
