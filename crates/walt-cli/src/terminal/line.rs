//! A line that is edited on a terminal in raw mode, with the lines before it: the usual keys and no more. A line that is
//! wider than the window is shown in part.
//!
//! | key | |
//! |---|---|
//! | left, right, home, end, ctrl-A, ctrl-E | move |
//! | backspace, delete, ctrl-U, ctrl-K, ctrl-W | delete a character, all before, all behind, a word |
//! | up, down | the lines before |
//! | ctrl-C, ctrl-D on an empty line | give the line up, end |

use crate::{
    terminal::{RawMode, window_size},
    ui::{Interrupt, Ui, prompt::Answer},
};
use std::io::{self, Write};

/// Lines that are kept.
const HISTORY_MAX: usize = 500;
/// Longest line, in characters; further ones are ignored.
const LINE_MAX: usize = 16 << 10;

/// The editor, with the lines that were entered.
#[derive(Debug, Default)]
pub struct Editor {
    history: Vec<String>,
    /// Bytes that were typed or pasted after the end of the last line, or a part of a key.
    pending: Vec<u8>,
}

/// What a key has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    More,
    Entered,
    GivenUp,
    End,
}

/// The line.
#[derive(Debug, Default)]
struct Line {
    text: Vec<char>,
    at: usize,
    /// Which line of the history it began as; the number of lines for a new one.
    row: usize,
}

impl Editor {
    /// Reads a line from the terminal.
    ///
    /// # Errors
    /// The terminal fails.
    pub async fn read(&mut self, ui: &mut Ui, prompt: &str) -> io::Result<Answer> {
        let _raw = RawMode::enter()?;
        let mut line = Line { row: self.history.len(), ..Line::default() };
        loop {
            let step = self.take(&mut line);
            print(&line.shown(prompt, usize::from(window_size().1)))?;
            match step {
                Step::More => {}
                Step::Entered => {
                    print("\r\n")?;
                    return Ok(Answer::Line(self.entered(&line)));
                }
                Step::GivenUp => {
                    print("^C\r\n")?;
                    return Ok(Answer::Interrupted);
                }
                Step::End => {
                    print("\r\n")?;
                    return Ok(Answer::End);
                }
            }
            tokio::select! {
                bytes = ui.input.bytes() => {
                    let bytes = bytes?;
                    if bytes.is_empty() {
                        return Ok(Answer::End);
                    }
                    self.pending.extend_from_slice(&bytes);
                }
                interrupt = ui.signals.next() => return Ok(match interrupt {
                    Interrupt::Interrupted => Answer::Interrupted,
                    Interrupt::Terminated(number) => Answer::Terminated(number),
                }),
            }
        }
    }

    /// Applies pending keys up to the end of the line.
    fn take(&mut self, line: &mut Line) -> Step {
        while let Some(length) = key_length(&self.pending) {
            let key: Vec<u8> = self.pending.drain(..length).collect();
            match line.key(&key, &self.history) {
                Step::More => {}
                step => return step,
            }
        }
        Step::More
    }

    fn entered(&mut self, line: &Line) -> String {
        let text: String = line.text.iter().collect();
        if !text.trim().is_empty() && self.history.last() != Some(&text) {
            self.history.push(text.clone());
            if self.history.len() > HISTORY_MAX {
                self.history.remove(0);
            }
        }
        text
    }
}

/// How many bytes the first key has; none if it is not complete.
fn key_length(bytes: &[u8]) -> Option<usize> {
    let first = *bytes.first()?;
    let length = match first {
        0x1b => match bytes.get(1) {
            None => return None,
            Some(b'[') => {
                let end = bytes.iter().skip(2).position(|b| (0x40..=0x7e).contains(b))?;
                end + 3
            }
            Some(b'O') => 3,
            Some(_) => 2,
        },
        0xc0..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf7 => 4,
        _ => 1,
    };
    (bytes.len() >= length).then_some(length)
}

impl Line {
    fn key(&mut self, key: &[u8], history: &[String]) -> Step {
        match key {
            b"\r" | b"\n" => return Step::Entered,
            b"\x03" => return Step::GivenUp,
            b"\x04" if self.text.is_empty() => return Step::End,
            b"\x04" | b"\x1b[3~" => self.delete(self.at, self.at + 1),
            b"\x01" | b"\x1b[H" | b"\x1bOH" | b"\x1b[1~" => self.at = 0,
            b"\x05" | b"\x1b[F" | b"\x1bOF" | b"\x1b[4~" => self.at = self.text.len(),
            b"\x02" | b"\x1b[D" | b"\x1bOD" => self.at = self.at.saturating_sub(1),
            b"\x06" | b"\x1b[C" | b"\x1bOC" => self.at = (self.at + 1).min(self.text.len()),
            b"\x7f" | b"\x08" => self.delete(self.at.saturating_sub(1), self.at),
            b"\x15" => self.delete(0, self.at),
            b"\x0b" => self.delete(self.at, self.text.len()),
            b"\x17" => self.delete(self.word_start(), self.at),
            b"\x10" | b"\x1b[A" | b"\x1bOA" => self.recall(self.row.checked_sub(1), history),
            b"\x0e" | b"\x1b[B" | b"\x1bOB" => self.recall(self.row.checked_add(1), history),
            // A tab of a text that is pasted.
            b"\t" => self.insert(' '),
            _ => {
                let text = String::from_utf8_lossy(key);
                text.chars().filter(|c| !c.is_control()).for_each(|c| self.insert(c));
            }
        }
        Step::More
    }

    fn insert(&mut self, c: char) {
        if self.text.len() < LINE_MAX {
            self.text.insert(self.at, c);
            self.at += 1;
        }
    }

    fn delete(&mut self, from: usize, to: usize) {
        self.text.drain(from..to.min(self.text.len()));
        self.at = from;
    }

    fn word_start(&self) -> usize {
        let before = &self.text[..self.at];
        let end = before.iter().rposition(|c| !c.is_whitespace()).map_or(0, |at| at + 1);
        before[..end].iter().rposition(|c| c.is_whitespace()).map_or(0, |at| at + 1)
    }

    /// Replaces the line by one of the history, or by an empty one behind it.
    fn recall(&mut self, row: Option<usize>, history: &[String]) {
        let Some(row) = row.filter(|row| *row <= history.len()) else { return };
        self.row = row;
        self.text = history.get(row).map_or_else(Vec::new, |text| text.chars().collect());
        self.at = self.text.len();
    }

    /// What redraws the line: the part of it around the cursor that fits in the window.
    fn shown(&self, prompt: &str, columns: usize) -> String {
        let before = prompt.chars().count();
        let room = columns.saturating_sub(before + 1).max(1);
        let first = self.at.saturating_sub(room);
        let part: String = self.text.iter().skip(first).take(room).collect();
        let column = before + self.at - first;
        let move_right = if column == 0 { String::new() } else { format!("\x1b[{column}C") };
        format!("\r{prompt}{part}\x1b[K\r{move_right}")
    }
}

fn print(text: &str) -> io::Result<()> {
    let mut stderr = io::stderr().lock();
    stderr.write_all(text.as_bytes())?;
    stderr.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The line after these bytes, with a bar at the cursor, and what the last key has done.
    fn typed(editor: &mut Editor, bytes: &[u8]) -> (String, Step) {
        let mut line = Line { row: editor.history.len(), ..Line::default() };
        editor.pending.extend_from_slice(bytes);
        let step = editor.take(&mut line);
        let mut shown = line.text.clone();
        shown.insert(line.at, '|');
        if step == Step::Entered {
            editor.entered(&line);
        }
        (shown.into_iter().collect(), step)
    }

    fn line(bytes: &[u8]) -> String {
        typed(&mut Editor::default(), bytes).0
    }

    #[test]
    fn keys() {
        assert_eq!(line("sélect".as_bytes()), "sélect|");
        assert_eq!(line(b"abc\x1b[D\x1b[Dx\x7f\x7f"), "|bc");
        assert_eq!(line(b"abc\x01x\x1b[3~\x05y"), "xbcy|");
        assert_eq!(line(b"one two  \x17"), "one |");
        assert_eq!(line(b"one\x02\x02\x0b"), "o|");
        assert_eq!(line(b"one\x02\x15"), "|e");
        assert_eq!(line(b"a\tb\x1b[99~\x1bq\x00"), "a b|");
        assert_eq!(line(b"\x7f\x1b[D\x1b[C\x1b[A\x1b[B"), "|");
    }

    #[test]
    fn ends() {
        let mut editor = Editor::default();
        assert_eq!(typed(&mut editor, b"ab\rcd").1, Step::Entered);
        assert_eq!(typed(&mut editor, b"e"), ("cde|".to_owned(), Step::More), "what was pasted behind it");
        assert_eq!(typed(&mut editor, b"ab\x03").1, Step::GivenUp);
        assert_eq!(typed(&mut editor, b"\x04").1, Step::End);
        assert_eq!(typed(&mut editor, b"ab\x02\x04"), ("a|".to_owned(), Step::More));
        // Half a key waits for its other half.
        assert_eq!(typed(&mut editor, b"a\x1b["), ("a|".to_owned(), Step::More));
        assert_eq!(typed(&mut editor, "Dé".as_bytes()), ("é|".to_owned(), Step::More));
    }

    #[test]
    fn lines_before() {
        let mut editor = Editor::default();
        for text in [&b"one\r"[..], b"two\r", b"two\r", b"  \r"] {
            assert_eq!(typed(&mut editor, text).1, Step::Entered);
        }
        assert_eq!(editor.history, ["one", "two"]);
        assert_eq!(typed(&mut editor, b"\x1b[A").0, "two|");
        assert_eq!(typed(&mut editor, b"\x1b[A\x1b[A\x1b[A").0, "one|");
        assert_eq!(typed(&mut editor, b"x\x1b[A\x1b[B").0, "|");
    }

    #[test]
    fn what_is_shown() {
        let line = |text: &str, at: usize| Line { text: text.chars().collect(), at, row: 0 };
        assert_eq!(line("abc", 1).shown("> ", 80), "\r> abc\x1b[K\r\x1b[3C");
        assert_eq!(line("0123456789", 10).shown("> ", 8), "\r> 56789\x1b[K\r\x1b[7C");
        assert_eq!(line("0123456789", 0).shown("", 5), "\r0123\x1b[K\r");
    }
}
