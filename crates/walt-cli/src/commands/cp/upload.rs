//! From this machine to an image or a node; a thread of its own packs the tar.

use super::local::{show, trimmed};
use super::transfer::{QUEUE, Transfer, Upload, run_confirmed, show_message};
use crate::{context::Context, error::Failure, ui};
use std::cell::Cell;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use tokio::sync::mpsc;
use walt_api::transfer::{
    ClientMessage, MAX_FRAME, Open, Path as RemotePath, ServerMessage, Source, SourceKind, What,
};
use walt_client::{TransferInput, Transferred};
use walt_tar::Dialect;
use walt_tar::local::{LocalError, Packing, Watch, pack};

/// The kind and name of a local source.
fn local_source(path: &Path) -> Result<Source, Failure> {
    let missing = || Failure::new(format!("No such file or directory: {}", show(path)));
    let meta = path.metadata().map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => missing(),
        _ => Failure::new(format!("cannot read {}: {e}", show(path))),
    })?;
    let bytes = path.as_os_str().as_bytes();
    let contents =
        |path: &[u8]| path == b"." || path.ends_with(b"/.") || path == b"/" || path.ends_with(b"..");
    let kind = match meta.is_dir() {
        true if contents(bytes) => SourceKind::Contents,
        true => SourceKind::Directory,
        false => SourceKind::File,
    };
    let name = path.file_name().map(|n| n.as_bytes().to_vec()).unwrap_or_default();
    Ok(Source { kind, name: RemotePath(name) })
}

/// Copies a local path to an image or a node.
pub async fn upload(
    context: &mut Context,
    path: &Path,
    what: impl FnOnce(Source) -> What,
    yes: bool,
) -> Result<(), Failure> {
    let path = trimmed(path);
    let what = what(local_source(&path)?);
    run_confirmed(context, what, yes, async |context, open| upload_once(context, &path, open).await).await
}

async fn upload_once(context: &mut Context, path: &Path, open: &Open) -> Result<(), Failure> {
    let mut transfer = Transfer::open(context, open).await?;
    let mut upload: Option<Upload> = None;
    loop {
        let Some(message) = transfer.next(&mut upload).await? else { continue };
        match message {
            Some(Transferred::Message(ServerMessage::Ready { top, busybox })) => {
                if let Some(input) = transfer.input.take() {
                    let size = path.metadata().ok().filter(|m| m.is_file()).map_or(0, |m| m.len());
                    let transferred = transfer.transferring(size);
                    upload = Some(Box::pin(send_files(path.to_owned(), top.0, busybox, input, transferred)));
                }
            }
            other => {
                if show_message(transfer.ui, other)?.is_break() {
                    return Ok(());
                }
            }
        }
    }
}

/// Writes into the queue of frames.
struct FrameWriter {
    queue: mpsc::Sender<Vec<u8>>,
    frame: Vec<u8>,
}

impl Write for FrameWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(MAX_FRAME - self.frame.len());
        self.frame.extend_from_slice(&bytes[..n]);
        if self.frame.len() == MAX_FRAME {
            self.flush()?;
        }
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        let frame = std::mem::replace(&mut self.frame, Vec::with_capacity(MAX_FRAME));
        self.queue.blocking_send(frame).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Packs `path` and sends all of it.
async fn send_files(
    path: PathBuf,
    top: Vec<u8>,
    busybox: bool,
    mut input: TransferInput,
    transferred: Rc<Cell<u64>>,
) -> Result<(), Failure> {
    let (queue, mut frames) = mpsc::channel(QUEUE);
    let packer = tokio::task::spawn_blocking(move || -> Result<Vec<String>, LocalError> {
        let mut out = FrameWriter { queue, frame: Vec::with_capacity(MAX_FRAME) };
        let mut notes = Vec::new();
        let mut watch = Watch { progress: &mut |_| (), note: &mut |note| notes.push(note) };
        let dialect = if busybox { Dialect::Gnu } else { Dialect::Pax };
        let packing = Packing { name: &top, dialect, owner: Some((0, 0)) };
        pack(&path, &packing, &mut out, &mut |_, _| true, &mut watch)?;
        let ended = out.write_all(&walt_tar::END).and_then(|()| out.flush());
        ended.map_err(|e| LocalError::Stream(e.to_string()))?;
        Ok(notes)
    });
    while let Some(frame) = frames.recv().await {
        let length = frame.len() as u64;
        input.bytes(frame).await?;
        transferred.set(transferred.get() + length);
    }
    let packed = packer.await.map_err(|e| Failure::new(format!("packing failed unexpectedly: {e}")))?;
    let notes = packed.map_err(|e| Failure::new(format!("{e}; nothing was copied.")))?;
    notes.iter().for_each(|note| ui::note(note));
    Ok(input.message(&ClientMessage::End).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_sources() {
        assert_eq!(local_source(Path::new(".")).unwrap().kind, SourceKind::Contents);
        assert!(
            local_source(Path::new("/nowhere/x"))
                .unwrap_err()
                .text()
                .contains("No such file or directory: /nowhere/x")
        );
    }
}
