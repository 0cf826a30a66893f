//! A program on a pseudo-terminal, driven as a user would: type, and wait for what appears.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use walt_sys::pty;

/// Lines of the terminal.
const ROWS: u16 = 40;
/// Columns: wide, so that lines of the tests are not wrapped.
const COLS: u16 = 240;
/// How long a program may take to end by itself before it is killed.
const END_LIMIT: Duration = Duration::from_secs(10);

/// Numbers the commands of all shells.
static COMMANDS: AtomicU32 = AtomicU32::new(0);

/// A program and its terminal. Dropping it kills the program.
#[derive(Debug)]
pub struct Terminal {
    name: String,
    master: File,
    child: Child,
    screen: Arc<Screen>,
    /// What has been read of the screen's text, in bytes.
    at: usize,
}

#[derive(Debug, Default)]
struct Screen {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    text: String,
    /// All bytes that came, also those that are not text.
    raw: Vec<u8>,
    ended: bool,
}

impl Terminal {
    /// Starts a program on a new terminal.
    pub fn spawn(mut command: Command) -> Self {
        let name = format!("{command:?}");
        let pty = pty::open().expect("there are pseudo-terminals");
        pty::set_size(&pty.master, ROWS, COLS).expect("a terminal has a size");
        command.env("TERM", "xterm");
        pty::attach(&mut command, pty.slave).expect("a terminal can be attached");
        let child = command.spawn().unwrap_or_else(|e| panic!("cannot start {name}: {e}"));
        drop(command); // it holds the slave, whose last close ends the reader
        let master = File::from(pty.master);
        let screen = Arc::new(Screen::default());
        let reader = master.try_clone().expect("a descriptor can be copied");
        std::thread::spawn({
            let screen = screen.clone();
            move || read(reader, &screen)
        });
        Self { name, master, child, screen, at: 0 }
    }

    /// Types.
    pub fn send(&mut self, text: &str) {
        self.master
            .write_all(text.as_bytes())
            .unwrap_or_else(|e| panic!("cannot type to {}: {e}", self.name));
    }

    /// Types a line.
    pub fn line(&mut self, text: &str) {
        self.send(&format!("{text}\r"));
    }

    /// Changes the size of the window.
    pub fn resize(&mut self, rows: u16, cols: u16) {
        pty::set_size(&self.master, rows, cols).expect("a terminal has a size");
    }

    /// Waits for `pattern` and returns the text up to its end that had not been read before.
    ///
    /// # Panics
    /// After `limit` or at the end of the program, with the unread text.
    pub fn expect(&mut self, pattern: &str, limit: Duration) -> String {
        self.find(&format!("{pattern:?}"), limit, |text| text.find(pattern).map(|i| i + pattern.len()))
    }

    /// Runs a command in the shell that reads this terminal: its status and what it printed.
    pub fn shell(&mut self, command: &str, limit: Duration) -> (i32, String) {
        // A resumed shell shows its last output again: the marks of each command are its own. The echo of
        // the line has neither of them, since quotes and a variable come between.
        let n = COMMANDS.fetch_add(1, Ordering::Relaxed);
        let (begin, end) = (format!("<begin{n}>\n"), format!(">end{n}\n"));
        self.line(&format!("echo '<'begin{n}'>'; {command}; echo \"<$?>end\"{n}"));
        let text =
            self.find(&format!("the end of `{command}`"), limit, |t| t.find(&end).map(|at| at + end.len()));
        // Before it there are the prompt and the echo, in an order that depends on who was faster.
        let output = text.rsplit_once(&begin).map_or("", |(_, output)| output).trim_end_matches(&end);
        let (output, status) = output.rsplit_once('<').unwrap_or_else(|| panic!("no status in {text}"));
        let status = status.parse().unwrap_or_else(|e| panic!("no status in {text}: {e}"));
        (status, output.to_owned())
    }

    /// As [`Terminal::shell`], for a command that must succeed.
    pub fn must(&mut self, command: &str, limit: Duration) -> String {
        let (status, output) = self.shell(command, limit);
        assert_eq!(status, 0, "`{command}` failed: {output}");
        output
    }

    /// Whether the program has asked the terminal where its cursor is: what it prints then follows its prompt.
    pub fn was_asked_for_cursor(&self) -> bool {
        let state = self.screen.state.lock().expect("not poisoned");
        state.raw.windows(4).any(|bytes| bytes == b"\x1b[6n")
    }

    fn find(&mut self, what: &str, limit: Duration, end: impl Fn(&str) -> Option<usize>) -> String {
        let start = Instant::now();
        // Invariant: no thread panics while it holds the lock.
        let mut state = self.screen.state.lock().expect("not poisoned");
        loop {
            let unread = &state.text[self.at..];
            if let Some(end) = end(unread) {
                let found = unread[..end].to_owned();
                self.at += end;
                return found;
            }
            let waited = start.elapsed();
            if state.ended || waited >= limit {
                let why =
                    if state.ended { "it ended".into() } else { format!("waited {} s", limit.as_secs()) };
                let unread = unread.to_owned();
                drop(state);
                panic!("{}: {why} before {what} appeared; unread:\n{unread}\n(end of unread)", self.name);
            }
            // Invariant: as above.
            state = self.screen.changed.wait_timeout(state, limit - waited).expect("not poisoned").0;
        }
    }

    /// Waits for the end of the program: its status, and the text that had not been read.
    ///
    /// # Panics
    /// After `limit`, with the unread text.
    pub fn end(mut self, limit: Duration) -> (ExitStatus, String) {
        let name = self.name.clone();
        let status = crate::until(&format!("the end of {name}; unread: {}", self.unread()), limit, || {
            self.child.try_wait().expect("a child can be waited for")
        });
        // What was written before the end may still be on its way.
        let start = Instant::now();
        while !self.screen.state.lock().expect("not poisoned").ended && start.elapsed() < END_LIMIT {
            std::thread::sleep(crate::POLL);
        }
        (status, self.unread())
    }

    fn unread(&self) -> String {
        self.screen.state.lock().expect("not poisoned").text[self.at..].to_owned()
    }

    /// Kills the program as `kill -9` would: it says goodbye to nobody.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(mut master: File, screen: &Screen) {
    let mut filter = Filter::default();
    let mut bytes = [0; 4096];
    loop {
        // A terminal whose other side is closed answers EIO.
        let n = master.read(&mut bytes).unwrap_or(0);
        let mut state = screen.state.lock().expect("not poisoned");
        if n == 0 {
            state.ended = true;
        } else {
            state.text.push_str(&filter.text(&bytes[..n]));
            state.raw.extend_from_slice(&bytes[..n]);
        }
        screen.changed.notify_all();
        if n == 0 {
            return;
        }
    }
}

/// Takes escape sequences (ECMA-48 CSI, OSC and two-byte ones), carriage returns and bells out.
#[derive(Debug, Default)]
struct Filter {
    state: Escape,
    /// Bytes of a character that is not complete.
    rest: Vec<u8>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum Escape {
    #[default]
    None,
    Start,
    Csi,
    Osc,
}

impl Filter {
    fn text(&mut self, bytes: &[u8]) -> String {
        for &b in bytes {
            self.state = match (self.state, b) {
                (Escape::None, 0x1b) => Escape::Start,
                (Escape::None, b'\r' | 0x07) => Escape::None,
                (Escape::None, _) => {
                    self.rest.push(b);
                    Escape::None
                }
                (Escape::Start, b'[') => Escape::Csi,
                (Escape::Start, b']') => Escape::Osc,
                (Escape::Start, b'(' | b')') => Escape::Start,
                (Escape::Csi, 0x40..=0x7e) | (Escape::Osc, 0x07) | (Escape::Start, _) => Escape::None,
                (Escape::Osc, 0x1b) => Escape::Start,
                (state, _) => state,
            };
        }
        let valid = match std::str::from_utf8(&self.rest) {
            Ok(_) => self.rest.len(),
            Err(e) if e.error_len().is_none() => e.valid_up_to(),
            Err(_) => self.rest.len(),
        };
        let rest = self.rest.split_off(valid);
        String::from_utf8_lossy(&std::mem::replace(&mut self.rest, rest)).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[test]
    fn a_shell_is_driven() {
        let mut command = Command::new("sh");
        command.env("PS1", "$ ");
        let mut terminal = Terminal::spawn(command);
        assert_eq!(terminal.must("echo one; echo two", LIMIT), "one\ntwo\n");
        assert_eq!(terminal.shell("false", LIMIT).0, 1);
        terminal.resize(17, 99);
        assert_eq!(terminal.must("stty size", LIMIT), "17 99\n");
        terminal.line("exit 3");
        assert_eq!(terminal.end(LIMIT).0.code(), Some(3));
    }

    #[test]
    #[should_panic(expected = "before \"never\" appeared; unread:\nhello\n")]
    fn a_wait_says_what_it_waited_for() {
        let mut command = Command::new("echo");
        command.arg("hello");
        Terminal::spawn(command).expect("never", LIMIT);
    }

    #[test]
    fn escapes_are_taken_out() {
        let mut filter = Filter::default();
        assert_eq!(filter.text(b"a\x1b[?2004hb\x1b]0;title\x07c\x1b[1"), "abc");
        assert_eq!(filter.text(b"md\r\n\xc3"), "d\n");
        assert_eq!(filter.text(b"\xa9"), "\u{e9}");
    }
}
