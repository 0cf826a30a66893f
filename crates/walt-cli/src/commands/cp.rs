//! What `image cp` and `node cp` share: operands, and both directions of a copy.
//!
//! The files are packed and unpacked here, in a thread of its own; frames pass between it and the connection
//! through a queue, so that neither runs ahead of the other.

use crate::commands::Context;
use crate::error::Failure;
use crate::ui::{self, Interrupt, Ui, prompt};
use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use tokio::sync::mpsc;
use walt_api::transfer::{
    self, ClientMessage, Found, MAX_FRAME, Open, Placed, ServerMessage, Source, SourceKind, What,
};
use walt_api::{ApiError, Event};
use walt_client::{Error, TransferInput, TransferOutput, Transferred};
use walt_tar::Dialect;
use walt_tar::local::{LocalError, Packing, Target, Watch, pack, unpack};

/// Frames between the thread that packs or unpacks and the connection.
const QUEUE: usize = 8;
/// Times a confirmation is asked again because the state of things changed meanwhile.
const MAX_CONFIRMATIONS: usize = 10;
/// What is shown while files are copied.
const LABEL: &str = "Transfering";

/// One side of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operand {
    /// A path of this machine.
    Local(PathBuf),
    /// `<entity>:<path>`.
    Remote {
        /// Image or node.
        entity: String,
        /// Path there; relative to `/root`.
        path: transfer::Path,
    },
}

impl Operand {
    /// Reads an operand: `<entity>:<path>`, split at the last colon. What begins with `/` or `.` is a path of this machine.
    pub fn parse(text: &OsStr) -> Self {
        let bytes = text.as_bytes();
        let colon = bytes.iter().rposition(|b| *b == b':');
        match colon {
            Some(at) if !matches!(bytes[0], b'/' | b'.') => Self::Remote {
                entity: String::from_utf8_lossy(&bytes[..at]).into_owned(),
                path: transfer::Path(bytes[at + 1..].to_vec()),
            },
            _ => Self::Local(PathBuf::from(text)),
        }
    }
}

/// What a copy's words come to, or a usage failure.
pub fn direction(source: &OsStr, destination: &OsStr, usage: &str) -> Result<(Operand, Operand), Failure> {
    let pair = (Operand::parse(source), Operand::parse(destination));
    match pair {
        (Operand::Local(_), Operand::Remote { .. }) | (Operand::Remote { .. }, Operand::Local(_)) => Ok(pair),
        _ => Err(Failure::Usage {
            reason: "exactly one of source and destination must be a path of this machine".to_owned(),
            help: usage.to_owned(),
        }),
    }
}

/// The words that a user understands of a local path.
fn show(path: &Path) -> String {
    transfer::Path(path.as_os_str().as_bytes().to_vec()).show()
}

/// Drops trailing slashes: they mean nothing.
fn trimmed(path: &Path) -> PathBuf {
    let bytes = path.as_os_str().as_bytes();
    let end = bytes.iter().rposition(|b| *b != b'/').map_or(1, |at| at + 1);
    PathBuf::from(OsString::from_vec(bytes[..end.min(bytes.len())].to_vec()))
}

/// What a local source is.
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
    Ok(Source { kind, name: transfer::Path(name) })
}

/// The state of a local destination.
fn found(path: &Path) -> Found {
    match path.metadata() {
        Ok(meta) if meta.is_dir() => Found::Directory,
        Ok(_) => Found::File,
        // A link that leads nowhere is in the way, and is replaced.
        Err(_) if path.symlink_metadata().is_ok() => Found::File,
        Err(_) => {
            let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            if parent.is_dir() { Found::Absent } else { Found::NoParent }
        }
    }
}

/// A confirmation that the server asks for, and the state between its questions.
struct Questions<'a> {
    context: &'a mut Context,
    yes: bool,
    asked: usize,
}

impl Questions<'_> {
    /// The user's answer to a refusal: the token, or the failure.
    async fn answer(&mut self, error: Box<ApiError>) -> Result<String, Failure> {
        let Some(confirmation) = error.confirmation.clone() else { return Err(Failure::Api(error)) };
        self.asked += 1;
        if self.asked > MAX_CONFIRMATIONS {
            return Err(Failure::new(
                "the state of things changed each time you confirmed; nothing was done.",
            ));
        }
        if self.yes {
            confirmation.warnings.iter().for_each(|w| ui::note(w));
        } else {
            prompt::confirm(&mut self.context.ui, &confirmation.warnings).await?;
        }
        Ok(confirmation.token)
    }
}

/// Copies a local path to an image or a node.
pub async fn upload(
    context: &mut Context,
    path: &Path,
    what: impl Fn(Source) -> What,
    yes: bool,
) -> Result<(), Failure> {
    let path = trimmed(path);
    let mut open = Open { what: what(local_source(&path)?), confirm: None, yes: false };
    let mut questions = Questions { context, yes, asked: 0 };
    loop {
        match upload_once(questions.context, &path, &open).await {
            Err(Failure::Api(error)) => open.confirm = Some(questions.answer(error).await?),
            other => return other,
        }
    }
}

/// An open transfer, before its files and beside them.
struct Link<'a> {
    ui: &'a mut Ui,
    input: Option<TransferInput>,
    output: TransferOutput,
    /// The user does not want to wait for the node's boot any longer.
    proceeded: bool,
    /// Once files are on their way.
    moved: Option<Moved>,
}

/// How much of the files has passed.
struct Moved {
    bytes: Rc<Cell<u64>>,
    /// 0 if it is not known.
    total: u64,
}

impl<'a> Link<'a> {
    async fn open(context: &'a mut Context, open: &Open) -> Result<Self, Failure> {
        let (input, output) = context.ui.watch(context.client.transfer(open)).await?;
        Ok(Self { ui: &mut context.ui, input: Some(input), output, proceeded: false, moved: None })
    }

    /// From here on files are on their way: gives the counter of their bytes, which is shown.
    fn transferring(&mut self, total: u64) -> Rc<Cell<u64>> {
        let bytes = Rc::new(Cell::new(0));
        self.moved = Some(Moved { bytes: bytes.clone(), total });
        bytes
    }

    /// The next message, while `work` goes on; `None` for a signal that was dealt with, or the end of the work.
    /// "Press ctrl-C to proceed anyway": the first one before the copy begins does, the others abort.
    async fn next(&mut self, work: &mut Option<Work>) -> Result<Option<Option<Transferred>>, Failure> {
        if let Some(Moved { bytes, total }) = &self.moved {
            self.ui.busy.progress(LABEL, bytes.get(), *total);
        }
        tokio::select! {
            message = self.output.next() => Ok(Some(message.inspect_err(|_| self.ui.busy.clear())?)),
            done = async { work.as_mut().expect("the guard says so").await }, if work.is_some() => {
                (*work, self.moved) = (None, None);
                match done {
                    Ok(()) => done_line(self.ui),
                    // What the server says about the end of the connection is better: go on reading.
                    Err(Failure::Client(_)) => {}
                    Err(failure) => {
                        self.ui.busy.clear();
                        return Err(failure);
                    }
                }
                Ok(None)
            }
            interrupt = self.ui.signals.next() => {
                self.ui.busy.clear();
                match &mut self.input {
                    Some(input) if interrupt == Interrupt::Interrupted && self.ui.interactive && !self.proceeded => {
                        self.proceeded = true;
                        input.message(&ClientMessage::Proceed).await?;
                        Ok(None)
                    }
                    _ => Err(interrupt.failure()),
                }
            }
            () = self.ui.busy.tick() => Ok(None),
        }
    }
}

/// Files on their way to the server.
type Work = Pin<Box<dyn Future<Output = Result<(), Failure>>>>;

async fn upload_once(context: &mut Context, path: &Path, open: &Open) -> Result<(), Failure> {
    let mut link = Link::open(context, open).await?;
    let mut work: Option<Work> = None;
    loop {
        let Some(message) = link.next(&mut work).await? else { continue };
        match message {
            Some(Transferred::Message(ServerMessage::Ready { top, busybox })) => {
                if let Some(input) = link.input.take() {
                    let size = path.metadata().ok().filter(|m| m.is_file()).map_or(0, |m| m.len());
                    let moved = link.transferring(size);
                    work = Some(Box::pin(feed(path.to_owned(), top.0, busybox, input, moved)));
                }
            }
            other => {
                if let Some(end) = follow(link.ui, other)? {
                    return end;
                }
            }
        }
    }
}

/// Tells a message of the server; the command's end if it is the last one.
fn follow(ui: &mut Ui, message: Option<Transferred>) -> Result<Option<Result<(), Failure>>, Failure> {
    let event = match message {
        Some(Transferred::Message(ServerMessage::Event { event })) => event,
        Some(_) => return Ok(None),
        None => return Err(Error::Broken("the server stopped before the end".to_owned()).into()),
    };
    if !matches!(event, Event::Busy { .. } | Event::Progress { .. }) {
        ui.busy.clear();
    }
    match event {
        Event::Out { text } => ui::out(&text)?,
        Event::Note { text } => ui::note(&text),
        Event::Busy { label } => ui.busy.label(&label),
        Event::Progress { label, done, total } => ui.busy.progress(&label, done, total),
        // Of a search only.
        Event::Found { .. } => {}
        Event::Error { error } => return Ok(Some(Err(error.into()))),
        Event::Done { ok: true } => return Ok(Some(Ok(()))),
        Event::Done { ok: false } => return Ok(Some(Err(Failure::said()))),
    }
    Ok(None)
}

/// The end of the animation.
fn done_line(ui: &mut Ui) {
    ui.busy.clear();
    if ui.interactive {
        ui::note(&format!("{LABEL}... done"));
    }
    ui.busy.label("Server is working");
}

/// Writes into the queue of frames.
struct Frames {
    queue: mpsc::Sender<Vec<u8>>,
    frame: Vec<u8>,
}

impl Write for Frames {
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
async fn feed(
    path: PathBuf,
    top: Vec<u8>,
    busybox: bool,
    mut input: TransferInput,
    moved: Rc<Cell<u64>>,
) -> Result<(), Failure> {
    let (queue, mut frames) = mpsc::channel(QUEUE);
    let packer = tokio::task::spawn_blocking(move || -> Result<Vec<String>, LocalError> {
        let mut out = Frames { queue, frame: Vec::with_capacity(MAX_FRAME) };
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
        moved.set(moved.get() + length);
    }
    let packed = packer.await.map_err(|e| Failure::new(format!("packing ended abnormally: {e}")))?;
    let notes = packed.map_err(|e| Failure::new(format!("{e}; nothing was copied.")))?;
    notes.iter().for_each(|note| ui::note(note));
    Ok(input.message(&ClientMessage::End).await?)
}

/// Reads from the queue of frames; the end is an empty one.
struct Arriving {
    queue: mpsc::Receiver<Vec<u8>>,
    frame: Vec<u8>,
    at: usize,
    ended: bool,
}

impl Read for Arriving {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.frame.len() && !self.ended {
            match self.queue.blocking_recv() {
                Some(frame) => {
                    self.ended = frame.is_empty();
                    (self.frame, self.at) = (frame, 0);
                }
                None => return Err(io::Error::other("the server stopped before the end")),
            }
        }
        let n = buffer.len().min(self.frame.len() - self.at);
        buffer[..n].copy_from_slice(&self.frame[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

/// Lets the server copy: no files pass here.
pub async fn remote(context: &mut Context, what: What, yes: bool) -> Result<(), Failure> {
    let mut open = Open { what, confirm: None, yes: false };
    let mut questions = Questions { context, yes, asked: 0 };
    loop {
        match remote_once(questions.context, &open).await {
            Err(Failure::Api(error)) => open.confirm = Some(questions.answer(error).await?),
            other => return other,
        }
    }
}

async fn remote_once(context: &mut Context, open: &Open) -> Result<(), Failure> {
    let mut link = Link::open(context, open).await?;
    loop {
        let Some(message) = link.next(&mut None).await? else { continue };
        if let Some(end) = follow(link.ui, message)? {
            return end;
        }
    }
}

/// Copies from an image or a node to a local path.
pub async fn download(context: &mut Context, what: What, path: &Path, yes: bool) -> Result<(), Failure> {
    let path = trimmed(path);
    let mut open = Open { what, confirm: None, yes: false };
    let mut questions = Questions { context, yes, asked: 0 };
    loop {
        match download_once(questions.context, &open, &path).await {
            Err(Failure::Api(error)) => open.confirm = Some(questions.answer(error).await?),
            other => return other,
        }
    }
}

/// Where a source goes on this machine: a directory, and a name in it unless its contents are meant.
fn local_place(source: &Source, path: &Path) -> Result<(PathBuf, Option<OsString>), Failure> {
    let state = found(path);
    if state == Found::File && source.kind == SourceKind::File && path.metadata().is_ok_and(|m| !m.is_file())
    {
        return Err(Failure::new(format!("{} is no regular file: it is not replaced.", show(path))));
    }
    match transfer::place(source.kind, state, &show(path)).map_err(Failure::new)? {
        Placed::Merged => Ok((path.to_owned(), None)),
        Placed::Inside => {
            let name = OsString::from_vec(source.name.0.clone());
            let odd = matches!(name.as_bytes(), b"" | b"." | b"..") || name.as_bytes().contains(&b'/');
            if odd {
                return Err(Failure::new("the source has no name that it could have in the destination."));
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
    let mut link = Link::open(context, open).await?;
    let (source, top) = loop {
        match link.next(&mut None).await? {
            None => {}
            Some(Some(Transferred::Message(ServerMessage::Source { source, top }))) => break (source, top.0),
            Some(other) => {
                if let Some(end) = follow(link.ui, other)? {
                    return end;
                }
            }
        }
    };
    let (dir, name) = local_place(&source, path)?;
    // From here on ctrl-C aborts; dropping the link cancels the transfer.
    link.proceeded = true;
    let moved = link.transferring(0);
    let (queue, frames) = mpsc::channel(QUEUE);
    let mut unpacker = tokio::task::spawn_blocking(move || {
        let mut notes = Vec::new();
        let mut watch = Watch { progress: &mut |_| (), note: &mut |note| notes.push(note) };
        let target = Target { dir: &dir, name: name.as_deref(), top: &top };
        let mut input = Arriving { queue: frames, frame: Vec::new(), at: 0, ended: false };
        unpack(&mut input, &target, &mut watch).map(|()| notes)
    });
    let mut queue = Some(queue);
    loop {
        match link.next(&mut None).await? {
            None => {}
            Some(Some(Transferred::Bytes(bytes))) => {
                let Some(open) = &queue else { continue };
                moved.set(moved.get() + bytes.len() as u64);
                let sent = tokio::select! {
                    sent = open.send(bytes.to_vec()) => sent,
                    interrupt = link.ui.signals.next() => {
                        link.ui.busy.clear();
                        return Err(interrupt.failure());
                    }
                };
                if sent.is_err() {
                    // The reader has ended: by the end of the tar, or with a failure that it tells.
                    queue = None;
                    unpacked(link.ui, (&mut unpacker).await)?;
                }
            }
            Some(other) => match follow(link.ui, other)? {
                Some(Ok(())) => break,
                Some(failed) => return failed,
                None => {}
            },
        }
    }
    if let Some(open) = queue.take() {
        // The reader has seen the end of the tar, or waits for this.
        let _ended = open.send(Vec::new()).await;
        unpacked(link.ui, unpacker.await)?;
    }
    done_line(link.ui);
    Ok(())
}

fn unpacked(
    ui: &mut Ui,
    outcome: Result<Result<Vec<String>, LocalError>, tokio::task::JoinError>,
) -> Result<(), Failure> {
    ui.busy.clear();
    let outcome = outcome.map_err(|e| Failure::new(format!("unpacking ended abnormally: {e}")))?;
    outcome.map_err(|e| Failure::new(format!("{e}.")))?.iter().for_each(|note| ui::note(note));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(entity: &str, path: &str) -> Operand {
        Operand::Remote { entity: entity.into(), path: transfer::Path(path.into()) }
    }

    #[test]
    fn operands_are_split_at_the_last_colon() {
        for (text, expected) in [
            ("img:/etc", remote("img", "/etc")),
            ("img:tag:etc", remote("img:tag", "etc")),
            ("img:", remote("img", "")),
            ("/a:b", Operand::Local("/a:b".into())),
            ("./a:b", Operand::Local("./a:b".into())),
            ("a", Operand::Local("a".into())),
            ("", Operand::Local("".into())),
        ] {
            assert_eq!(Operand::parse(OsStr::new(text)), expected, "{text}");
        }
    }

    #[test]
    fn slashes_at_the_end_mean_nothing() {
        for (path, expected) in
            [("a//", "a"), ("/", "/"), ("///", "/"), ("a/b/", "a/b"), (".", "."), ("./", ".")]
        {
            assert_eq!(trimmed(Path::new(path)), Path::new(expected));
        }
        assert_eq!(local_source(Path::new(".")).unwrap().kind, SourceKind::Contents);
        assert!(
            local_source(Path::new("/nowhere/x"))
                .unwrap_err()
                .text()
                .contains("No such file or directory: /nowhere/x")
        );
    }
}
