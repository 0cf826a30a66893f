//! Output of several nodes: whole lines, each with the name of its node in front.

use std::io::Write;

/// Longest line that stays whole, in bytes; of a longer one, each part of this size is a line.
const LINE_MAX: usize = 1 << 20;

/// One stream of one node.
#[derive(Debug)]
pub struct Lines {
    prefix: String,
    /// Whether the node ends lines as a terminal does, by `\r\n`.
    of_terminal: bool,
    /// The beginning of a line.
    partial: Vec<u8>,
}

impl Lines {
    /// A stream of the node `name`; names are padded to `width`.
    pub fn new(name: &str, width: usize, of_terminal: bool) -> Self {
        Self { prefix: format!("{name:width$} | "), of_terminal, partial: Vec::new() }
    }

    /// More output; the lines that it completes, as they are to be shown.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut shown = Vec::new();
        for mut part in bytes.split_inclusive(|b| *b == b'\n') {
            while !part.is_empty() {
                let (piece, rest) = part.split_at(part.len().min(LINE_MAX - self.partial.len()));
                self.partial.extend_from_slice(piece);
                part = rest;
                if piece.ends_with(b"\n") || self.partial.len() >= LINE_MAX {
                    self.flush(&mut shown);
                }
            }
        }
        shown
    }

    /// The last line, if it has no end.
    pub fn end(&mut self) -> Vec<u8> {
        let mut shown = Vec::new();
        if !self.partial.is_empty() {
            self.flush(&mut shown);
        }
        shown
    }

    fn flush(&mut self, shown: &mut Vec<u8>) {
        let line = self.partial.strip_suffix(b"\n").unwrap_or(&self.partial);
        let line = if self.of_terminal { line.strip_suffix(b"\r").unwrap_or(line) } else { line };
        // Writing to memory cannot fail.
        let _ = shown.write_all(self.prefix.as_bytes());
        shown.extend_from_slice(line);
        shown.push(b'\n');
        self.partial.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    #[test]
    fn lines_are_whole_wherever_they_are_cut() {
        let all = b"one\n\ntwo\r\n\xff last";
        for cut in 0..all.len() {
            let mut lines = Lines::new("vn1", 5, false);
            let mut shown = lines.push(&all[..cut]);
            shown.extend(lines.push(&all[cut..]));
            assert_eq!(text(&shown), "vn1   | one\nvn1   | \nvn1   | two\r\n", "{cut}");
            assert_eq!(lines.end(), b"vn1   | \xff last\n");
            assert!(lines.end().is_empty());
        }
        let mut lines = Lines::new("vn1", 3, true);
        assert_eq!(text(&lines.push(b"a\r\nb\rc\n")), "vn1 | a\nvn1 | b\rc\n");
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let mut lines = Lines::new("n", 1, false);
        let mut shown = lines.push(&vec![b'x'; LINE_MAX - 1]);
        assert!(shown.is_empty());
        shown = lines.push(b"xyz");
        assert_eq!(shown.len(), "n | ".len() + LINE_MAX + 1);
        assert_eq!(text(&lines.end()), "n | yz\n");
    }
}
