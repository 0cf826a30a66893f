//! The serial port of a guest: output is read from the log that qemu writes, input goes to a socket that is open only
//! while somebody types.
//!
//! A client of the socket that does not read blocks the guest; a reader of the file cannot. So any number of watchers
//! read the file, and only the keyboard connects to the socket: it discards what it reads, and disconnects 1 s after
//! the last key.

use crate::{Error, Result, failed};
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

/// How large the log may grow before its head is dropped, in bytes.
pub const LOG_CAP: u64 = 8 * 1024 * 1024;
/// How much of the log stays when its head is dropped, in bytes.
pub const LOG_KEEP: u64 = 1024 * 1024;
/// Suffix of the file with the tail that is kept.
const OLD: &str = ".1";
/// How long after the last key the socket stays open.
pub const KEYBOARD_IDLE: Duration = Duration::from_secs(1);
/// How often an open socket is emptied.
const DRAIN_INTERVAL: Duration = Duration::from_millis(10);
/// Most messages of typed bytes that wait for a guest that does not read.
const KEYBOARD_QUEUE: usize = 64;
/// How long a guest may leave typed bytes unread before they are dropped.
const KEYBOARD_PATIENCE: Duration = Duration::from_secs(2);
/// How much of the log is searched for its last line, in bytes.
const LAST_LINE_WINDOW: u64 = 8 * 1024;
/// Longest last line that is shown, in characters.
const LAST_LINE_MAX: usize = 200;

/// What the kernel begins its last message with.
const PANIC: &str = "Kernel panic - not syncing";
/// How much of the log is searched for a panic at once, in bytes.
const PANIC_CHUNK: u64 = 64 * 1024;
/// Longest line in which a panic is looked for, in bytes.
const PANIC_LINE_MAX: usize = 1024;

/// The log of a console.
#[derive(Debug, Clone)]
pub struct Log {
    path: PathBuf,
}

impl Log {
    /// The log at this path, which need not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> Log {
        Log { path: path.into() }
    }

    /// Opens it for qemu to append to.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open_for_append(&self) -> Result<File> {
        let open = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path);
        open.map_err(failed(format!("open {}", self.path.display())))
    }

    /// Its last `bytes` bytes at most; nothing if there is no log.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn tail(&self, bytes: u64) -> Result<Vec<u8>> {
        let reading = || format!("read {}", self.path.display());
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(failed(reading())(e)),
        };
        let length = file.seek(SeekFrom::End(0)).map_err(failed(reading()))?;
        file.seek(SeekFrom::Start(length.saturating_sub(bytes))).map_err(failed(reading()))?;
        let mut tail = Vec::new();
        file.take(bytes).read_to_end(&mut tail).map_err(failed(reading()))?;
        Ok(tail)
    }

    /// The last line with something visible on it, without escape sequences.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn last_line(&self) -> Result<Option<String>> {
        Ok(last_line(&self.tail(LAST_LINE_WINDOW)?))
    }

    /// Drops the head of the log if it is longer than `cap`: the last `keep` bytes go to a file next to it, and the
    /// log starts again at zero. Safe while qemu writes, which appends. Returns whether it did.
    ///
    /// # Errors
    /// When the copy cannot be written; the log is then as it was.
    pub fn trim(&self, cap: u64, keep: u64) -> Result<bool> {
        let length = std::fs::metadata(&self.path).map_or(0, |m| m.len());
        if length <= cap {
            return Ok(false);
        }
        let tail = self.tail(keep)?;
        let mut old = self.path.clone().into_os_string();
        old.push(OLD);
        std::fs::write(&old, tail).map_err(failed(format!("write {}", Path::new(&old).display())))?;
        let log = OpenOptions::new().write(true).open(&self.path);
        log.and_then(|log| log.set_len(0)).map_err(failed(format!("truncate {}", self.path.display())))?;
        Ok(true)
    }

    /// Follows the log from its present end, or from `history` bytes before it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn follow(&self, history: u64) -> Result<Follower> {
        let length = std::fs::metadata(&self.path).map_or(0, |m| m.len());
        Ok(Follower { path: self.path.clone(), offset: length.saturating_sub(history) })
    }

    /// Follows the log from this offset on; one that is shorter is read from its beginning.
    pub fn follow_from(&self, offset: u64) -> Follower {
        Follower { path: self.path.clone(), offset }
    }

    /// Its length in bytes; 0 if there is no log.
    pub fn length(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |m| m.len())
    }

    /// Looks for a panic of the kernel in what is written from this offset on. A log that is shorter has been trimmed,
    /// and is read from its beginning.
    pub fn panics_from(&self, offset: u64) -> Panics {
        Panics { follower: self.follow_from(offset), line: Vec::new(), is_cut: false }
    }
}

/// Looks for a panic of the guest's kernel in a log that grows.
#[derive(Debug)]
pub struct Panics {
    follower: Follower,
    /// The beginning of a line whose end is not written yet.
    line: Vec<u8>,
    /// Whether this line is too long, and its rest is skipped.
    is_cut: bool,
}

impl Panics {
    /// The line of a panic, if one was written since the last call.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn look(&mut self) -> Result<Option<String>> {
        loop {
            let bytes = self.follower.read(PANIC_CHUNK)?;
            if bytes.is_empty() {
                return Ok(None);
            }
            for byte in bytes {
                if byte != b'\n' {
                    self.is_cut |= self.line.len() >= PANIC_LINE_MAX;
                    if !self.is_cut {
                        self.line.push(byte);
                    }
                    continue;
                }
                self.is_cut = false;
                let line = std::mem::take(&mut self.line);
                if let Some(panic) = panic_line(&line) {
                    return Ok(Some(panic));
                }
            }
        }
    }
}

/// The message of a kernel that panics, without its time stamp, if this line of a console is one.
pub fn panic_line(line: &[u8]) -> Option<String> {
    let text = plain_text(line);
    let at = text.find(PANIC)?;
    // The same words stand in the last line of the report.
    if text[..at].contains("end ") {
        return None;
    }
    Some(text[at..].trim().chars().take(LAST_LINE_MAX).collect())
}

/// A reader of a log that grows. It does not block: ask again.
#[derive(Debug)]
pub struct Follower {
    path: PathBuf,
    offset: u64,
}

impl Follower {
    /// How far it has read.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// What was written since, at most `limit` bytes. If the log was trimmed or restarted, it is read from its
    /// beginning.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&mut self, limit: u64) -> Result<Vec<u8>> {
        let reading = || format!("read {}", self.path.display());
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(failed(reading())(e)),
        };
        if file.metadata().map_err(failed(reading()))?.len() < self.offset {
            self.offset = 0;
        }
        file.seek(SeekFrom::Start(self.offset)).map_err(failed(reading()))?;
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes).map_err(failed(reading()))?;
        self.offset += bytes.len() as u64;
        Ok(bytes)
    }
}

/// Types on a console. After it is dropped, it disconnects once the last key was delivered.
#[derive(Debug)]
pub struct Keyboard {
    keys: SyncSender<Vec<u8>>,
}

impl Keyboard {
    /// A keyboard for the socket at this path; connects only when something is typed.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn new(socket: impl Into<PathBuf>) -> Result<Keyboard> {
        let socket = socket.into();
        let (keys, typed) = sync_channel(KEYBOARD_QUEUE);
        std::thread::Builder::new()
            .name("keyboard".into())
            .spawn(move || deliver(&socket, &typed))
            .map_err(failed("start a thread for a keyboard"))?;
        Ok(Keyboard { keys })
    }

    /// Types these bytes. Returns at once.
    ///
    /// # Errors
    /// [`Error::Timeout`] when the guest has left too much unread; the bytes are dropped.
    pub fn type_bytes(&self, bytes: &[u8]) -> Result<()> {
        match self.keys.try_send(bytes.to_vec()) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                Err(Error::Timeout("accept the typed input"))
            }
        }
    }
}

/// Delivers keys until the keyboard is dropped.
fn deliver(socket: &Path, typed: &Receiver<Vec<u8>>) {
    while let Ok(first) = typed.recv() {
        // qemu may be restarting: input is lost then, as on a machine that is off.
        let Ok(stream) = UnixStream::connect(socket) else { continue };
        if stream.set_nonblocking(true).is_ok() && converse(stream, first, typed).is_none() {
            return;
        }
    }
}

/// Writes typed input and discards output, until nothing was typed for a while. `None`: the keyboard is gone.
fn converse(mut stream: UnixStream, first: Vec<u8>, typed: &Receiver<Vec<u8>>) -> Option<()> {
    let mut waiting: VecDeque<u8> = first.into();
    let mut last_progress = Instant::now();
    let mut trash = [0; 16 * 1024];
    let mut gone = false;
    loop {
        match typed.recv_timeout(DRAIN_INTERVAL) {
            Ok(more) => {
                waiting.extend(more);
                last_progress = Instant::now();
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                gone = true;
                // The channel answers at once from now on.
                std::thread::sleep(DRAIN_INTERVAL);
            }
        }
        loop {
            match stream.read(&mut trash) {
                Ok(0) => return (!gone).then_some(()),
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return (!gone).then_some(()),
            }
        }
        if !waiting.is_empty() {
            match stream.write(waiting.make_contiguous()) {
                Ok(written) => {
                    waiting.drain(..written);
                    last_progress = Instant::now();
                }
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    if last_progress.elapsed() > KEYBOARD_PATIENCE {
                        waiting.clear();
                    }
                }
                Err(_) => return (!gone).then_some(()),
            }
        } else if gone || last_progress.elapsed() > KEYBOARD_IDLE {
            return (!gone).then_some(());
        }
    }
}

/// The last line with something visible on it, without escape sequences, cut to 200 characters.
pub fn last_line(bytes: &[u8]) -> Option<String> {
    let text = plain_text(bytes);
    let line = text.lines().map(str::trim).rfind(|line| !line.is_empty())?;
    Some(line.chars().take(LAST_LINE_MAX).collect())
}

/// Text as it would appear on a screen: without escape sequences and control characters; after a carriage return, the
/// new text replaces the old.
pub fn plain_text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::with_capacity(text.len());
    let mut line_start = 0;
    let mut returned = false;
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '\u{1b}' => skip_escape(&mut characters),
            '\r' => returned = true,
            '\n' => {
                out.push('\n');
                line_start = out.len();
                returned = false;
            }
            '\t' => out.push(' '),
            c if c.is_control() => {}
            c => {
                if std::mem::take(&mut returned) {
                    out.truncate(line_start);
                }
                out.push(c);
            }
        }
    }
    out
}

/// Skips a sequence of ECMA-48 after its ESC.
fn skip_escape(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match characters.next() {
        // CSI: parameters and intermediates up to a final byte.
        Some('[') => {
            while let Some(c) = characters.next_if(|c| !c.is_control()) {
                if ('@'..='~').contains(&c) {
                    break;
                }
            }
        }
        // OSC, DCS, PM, APC: up to BEL or ESC \, but not beyond the line, which a cut log may leave open.
        Some(']' | 'P' | '^' | '_') => {
            while let Some(c) = characters.next_if(|c| *c != '\n') {
                if c == '\u{7}' {
                    break;
                }
                if c == '\u{1b}' {
                    characters.next_if_eq(&'\\');
                    break;
                }
            }
        }
        // Character sets: one more byte.
        Some('(' | ')' | '*' | '+' | '#' | '%') => drop(characters.next_if(|c| !c.is_control())),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn last_lines() {
        for (bytes, line) in [
            (&b""[..], None),
            (b"\n \r\n\x1b[0m\n", None),
            (b"one\ntwo\n", Some("two")),
            (b"one\r\ntwo\r\n\r\n", Some("two")),
            (b"\x1b[0;32m  OK  \x1b[0m Started x.\r\n", Some("OK   Started x.")),
            (b"\x1b]0;title\x07login: ", Some("login:")),
            (b"\x1b]0;title\x1b\\login: ", Some("login:")),
            (b"10%\r20%\r30%", Some("30%")),
            (b"\x1b(Bplain\x1bc", Some("plain")),
            (b"done\n\x1b[", Some("done")),
            (b"a\tb\x00\n", Some("a b")),
        ] {
            assert_eq!(last_line(bytes).as_deref(), line, "{bytes:?}");
        }
    }

    #[test]
    fn panics_are_found() {
        for (line, panic) in [
            (
                "[    2.1] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100\r",
                Some("Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100"),
            ),
            ("\x1b[0mKernel panic - not syncing", Some("Kernel panic - not syncing")),
            ("[    2.2] ---[ end Kernel panic - not syncing: Attempted to kill init! ]---", None),
            ("Kernel panic", None),
        ] {
            assert_eq!(panic_line(line.as_bytes()).as_deref(), panic, "{line:?}");
        }
        let dir = tempfile::tempdir().unwrap();
        let log = Log::new(dir.path().join("console.log"));
        let mut qemu = log.open_for_append().unwrap();
        qemu.write_all(b"Kernel panic - not syncing: of the boot before\n").unwrap();
        let mut panics = log.panics_from(log.length());
        assert_eq!(panics.look().unwrap(), None);
        // A line that comes in pieces, behind one that is too long to be kept.
        qemu.write_all(&[b'x'; 3 * PANIC_LINE_MAX]).unwrap();
        qemu.write_all(b"\n[1.0] Kernel panic - not ").unwrap();
        assert_eq!(panics.look().unwrap(), None);
        qemu.write_all(b"syncing: no init\nmore\n").unwrap();
        assert_eq!(panics.look().unwrap().as_deref(), Some("Kernel panic - not syncing: no init"));
        assert_eq!(panics.look().unwrap(), None);
        // A log that was trimmed.
        assert!(log.trim(0, 0).unwrap());
        qemu.write_all(b"Kernel panic - not syncing: again\n").unwrap();
        assert_eq!(panics.look().unwrap().as_deref(), Some("Kernel panic - not syncing: again"));
    }

    #[test]
    fn a_log_is_followed_and_trimmed() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::new(dir.path().join("console.log"));
        assert_eq!(log.tail(10).unwrap(), b"");
        let mut follower = log.follow(100).unwrap();
        assert_eq!(follower.read(100).unwrap(), b"");
        let mut qemu = log.open_for_append().unwrap();
        qemu.write_all(b"hello\nworld\n").unwrap();
        assert_eq!(follower.read(7).unwrap(), b"hello\nw");
        assert_eq!(follower.read(100).unwrap(), b"orld\n");
        assert_eq!(log.last_line().unwrap().as_deref(), Some("world"));
        assert!(!log.trim(12, 6).unwrap());
        assert!(log.trim(11, 6).unwrap());
        assert_eq!(std::fs::read(dir.path().join("console.log.1")).unwrap(), b"world\n");
        qemu.write_all(b"again\n").unwrap();
        assert_eq!(follower.read(100).unwrap(), b"again\n");
        assert_eq!(log.tail(3).unwrap(), b"in\n");
    }

    #[test]
    fn a_keyboard_leaves_when_nobody_types() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let keyboard = Keyboard::new(&path).unwrap();
        keyboard.type_bytes(b"ls").unwrap();
        let (mut guest, _) = listener.accept().unwrap();
        guest.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        guest.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
        // More than a socket holds: the keyboard reads it away.
        guest.write_all(&vec![b'x'; 4 * 1024 * 1024]).unwrap();
        keyboard.type_bytes(b"\n").unwrap();
        let mut got = Vec::new();
        guest.read_to_end(&mut got).unwrap();
        assert_eq!(got, b"ls\n", "and then the end, since nothing more was typed");
        keyboard.type_bytes(b"more").unwrap();
        drop(keyboard);
        let (mut guest, _) = listener.accept().unwrap();
        got.clear();
        guest.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        guest.read_to_end(&mut got).unwrap();
        assert_eq!(got, b"more", "delivered although the keyboard is gone");
    }

    proptest! {
        #[test]
        fn any_bytes_are_readable(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let text = plain_text(&bytes);
            prop_assert!(text.chars().all(|c| c == '\n' || !c.is_control()));
        }
    }
}
