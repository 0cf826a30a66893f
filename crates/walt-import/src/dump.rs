//! Reads what `pg_dump` writes as plain text: blocks `COPY … FROM stdin;` (text format, PostgreSQL documentation, "COPY"),
//! and `INSERT INTO … VALUES …;` as `--inserts` and `--column-inserts` make it. Other statements are skipped.

use std::io::{self, BufRead};

/// Longest row, in bytes. Longer ones are reported; they are never held in memory.
pub const ROW_MAX: usize = 4 << 20;
/// Most values of a row.
const VALUES_MAX: usize = 64;
/// Longest name of a table or a column, in bytes; PostgreSQL's own limit is 63.
const NAME_MAX: usize = 255;
/// The last line of a complete dump.
const TRAILER: &[u8] = b"-- PostgreSQL database dump complete";
/// How dumps that only `pg_restore` reads begin: those of `-Fc`.
const CUSTOM: &[u8] = b"PGDMP";

/// Why a dump cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// Reading failed.
    #[error("cannot read it: {0}")]
    Io(#[from] io::Error),
    /// A format for `pg_restore`.
    #[error(
        "it is in a format for pg_restore: convert it to text by 'pg_restore --data-only -f dump.sql FILE', or use \
         'pg_dump --data-only' without -F"
    )]
    Custom,
    /// Nothing in it looks like rows of tables.
    #[error(
        "it has no rows of tables: 'pg_dump --data-only walt' of the existing server makes what is read here"
    )]
    NoRows,
    /// It ends within a table or a statement.
    #[error("it ends within the table {table} (line {line}): the dump is truncated, make it again")]
    Truncated {
        /// The table.
        table: String,
        /// Its last line.
        line: u64,
    },
    /// A line that should begin a table.
    #[error("line {line} cannot be understood: {why}")]
    Syntax {
        /// Its number.
        line: u64,
        /// What is wrong.
        why: &'static str,
    },
}

/// A value: null, or bytes.
pub type Value = Option<Vec<u8>>;

/// A row as it stands in the dump.
#[derive(Debug)]
pub struct RawRow<'a> {
    /// The table, with its schema if that is not `public`.
    pub table: &'a str,
    /// Names of the columns, if the dump has them.
    pub columns: Option<&'a [String]>,
    /// Number of the line, or of the first one.
    pub line: u64,
    /// Its values, or why they cannot be read.
    pub values: Result<Vec<Value>, &'static str>,
}

/// What the end of a dump says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Whether the dump has the line that says that it is complete.
    pub has_trailer: bool,
}

/// Reads a dump to its end. Rows of tables that `wanted` refuses have no values (they are empty lists).
///
/// # Errors
/// It is not one, or it is truncated. Rows before were passed on.
pub fn read(
    input: impl BufRead,
    mut wanted: impl FnMut(&str) -> bool,
    mut row: impl FnMut(RawRow<'_>),
) -> Result<End, DumpError> {
    let mut lines = Lines { input, number: 0, line: Vec::new(), is_cut: false };
    let (mut tables, mut end) = (0_u64, End { has_trailer: false });
    while lines.next()? {
        if lines.number == 1 && (lines.line.starts_with(CUSTOM) || lines.line.starts_with(b"toc.dat\0")) {
            return Err(DumpError::Custom);
        }
        end.has_trailer |= lines.line.starts_with(TRAILER);
        if let Some(rest) = after(&lines.line, b"COPY ") {
            let (table, columns) = copy_header(rest)
                .ok_or(DumpError::Syntax {
                    line: lines.number, why: "it should be 'COPY … FROM stdin;'"
                })?;
            tables += 1;
            let is_wanted = wanted(&table);
            copy(&mut lines, &table, &columns, is_wanted, &mut row)?;
        } else if after(&lines.line, b"INSERT INTO ").is_some() {
            tables += 1;
            insert(&mut lines, &mut wanted, &mut row)?;
        }
    }
    if tables == 0 && !end.has_trailer {
        return Err(DumpError::NoRows);
    }
    Ok(end)
}

fn after<'a>(line: &'a [u8], word: &[u8]) -> Option<&'a [u8]> {
    line.strip_prefix(word)
}

/// The lines of a dump, without their ends.
struct Lines<R> {
    input: R,
    number: u64,
    line: Vec<u8>,
    /// Whether the line is longer than [`ROW_MAX`]: the rest was skipped.
    is_cut: bool,
}

impl<R: BufRead> Lines<R> {
    /// Reads the next line; false at the end.
    fn next(&mut self) -> io::Result<bool> {
        self.line.clear();
        self.is_cut = false;
        let mut any = false;
        loop {
            let there = match self.input.fill_buf() {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                there => there?,
            };
            if there.is_empty() {
                break;
            }
            any = true;
            let end = there.iter().position(|b| *b == b'\n');
            let part = &there[..end.unwrap_or(there.len())];
            let room = ROW_MAX - self.line.len();
            self.is_cut |= part.len() > room;
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            let used = part.len() + usize::from(end.is_some());
            self.input.consume(used);
            if end.is_some() {
                break;
            }
        }
        if self.line.last() == Some(&b'\r') {
            self.line.pop();
        }
        self.number += u64::from(any);
        Ok(any)
    }
}

/// Table and columns of `public.devices (mac, ip) FROM stdin;`.
fn copy_header(rest: &[u8]) -> Option<(String, Vec<String>)> {
    let mut scan = Scan { text: rest, at: 0 };
    let table = scan.table()?;
    let columns = scan.columns()?;
    let from = scan.text.get(scan.at..)?.trim_ascii();
    from.eq_ignore_ascii_case(b"FROM stdin;").then_some((table, columns))
}

fn copy<R: BufRead>(
    lines: &mut Lines<R>,
    table: &str,
    columns: &[String],
    is_wanted: bool,
    row: &mut impl FnMut(RawRow<'_>),
) -> Result<(), DumpError> {
    while lines.next()? {
        if lines.line == b"\\." {
            return Ok(());
        }
        let values = match (is_wanted, lines.is_cut) {
            (false, _) => Ok(Vec::new()),
            (true, true) => Err("it is longer than 4 MiB"),
            (true, false) => fields(&lines.line),
        };
        row(RawRow { table, columns: Some(columns), line: lines.number, values });
    }
    Err(DumpError::Truncated { table: table.to_owned(), line: lines.number })
}

/// The values of a line in COPY's text format.
fn fields(line: &[u8]) -> Result<Vec<Value>, &'static str> {
    let parts = line.split(|b| *b == b'\t');
    let values: Vec<Value> = parts.take(VALUES_MAX + 1).map(field).collect();
    if values.len() > VALUES_MAX {
        return Err("it has more than 64 values");
    }
    Ok(values)
}

/// One value: `\N` is null; a backslash begins an escape.
fn field(text: &[u8]) -> Value {
    if text == b"\\N" {
        return None;
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        // COPY reads a backslash at the end of a line as itself.
        let Some((&escape, after)) = rest.split_first() else {
            out.push(byte);
            break;
        };
        rest = after;
        match escape {
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'v' => out.push(11),
            b'0'..=b'7' => {
                let more = rest.iter().take(2).take_while(|b| matches!(b, b'0'..=b'7')).count();
                let digits = [&[escape], &rest[..more]].concat();
                out.push(number(&digits, 8));
                rest = &rest[more..];
            }
            b'x' if rest.first().is_some_and(u8::is_ascii_hexdigit) => {
                let more = rest.iter().take(2).take_while(|b| b.is_ascii_hexdigit()).count();
                out.push(number(&rest[..more], 16));
                rest = &rest[more..];
            }
            other => out.push(other),
        }
    }
    Some(out)
}

/// A byte of its digits; as in PostgreSQL, what is above 255 loses its high bits.
fn number(digits: &[u8], radix: u32) -> u8 {
    let add = |n: u32, b: &u8| n * radix + char::from(*b).to_digit(radix).unwrap_or(0);
    digits.iter().fold(0, add) as u8
}

/// Reads a statement `INSERT INTO`, which may be of several rows and lines.
fn insert<R: BufRead>(
    lines: &mut Lines<R>,
    wanted: &mut impl FnMut(&str) -> bool,
    row: &mut impl FnMut(RawRow<'_>),
) -> Result<(), DumpError> {
    let first = lines.number;
    let mut text = std::mem::take(&mut lines.line);
    let mut state = Strings::default();
    let mut seen = 0;
    let mut is_cut = lines.is_cut;
    loop {
        let is_over = state.ends(&text[seen..]);
        seen = text.len();
        if is_over {
            break;
        }
        if !lines.next()? {
            let table = Scan { text: &text, at: "INSERT INTO ".len() }.table();
            return Err(DumpError::Truncated { table: table.unwrap_or_default(), line: lines.number });
        }
        if text.len() + lines.line.len() < ROW_MAX {
            text.push(b'\n');
            text.extend_from_slice(&lines.line);
            is_cut |= lines.is_cut;
        } else {
            // Only the end of the statement is still looked for.
            is_cut = true;
            let over = state.ends(b"\n") || state.ends(&lines.line);
            if over {
                break;
            }
        }
    }
    let syntax = DumpError::Syntax { line: first, why: "it should be 'INSERT INTO … VALUES (…);'" };
    let mut scan = Scan { text: &text, at: "INSERT INTO ".len() };
    let Some(table) = scan.table() else { return Err(syntax) };
    let columns = match scan.peek() {
        Some(b'(') => match scan.columns() {
            Some(columns) => Some(columns),
            None => return Err(syntax),
        },
        _ => None,
    };
    let columns = columns.as_deref();
    let mut give = |values| row(RawRow { table: &table, columns, line: first, values });
    if is_cut {
        give(Err("it is longer than 4 MiB"));
        return Ok(());
    }
    let is_wanted = wanted(&table);
    if !scan.word(b"VALUES") {
        return Err(syntax);
    }
    loop {
        let Some(values) = scan.values() else {
            give(Err("its values cannot be understood"));
            return Ok(());
        };
        give(Ok(if is_wanted { values } else { Vec::new() }));
        match scan.peek() {
            Some(b',') => scan.at += 1,
            _ => return Ok(()),
        }
    }
}

/// Where a statement is while its end is looked for.
#[derive(Default)]
struct Strings {
    in_string: bool,
    /// Within `E'…'`, where a backslash hides the next byte.
    has_escapes: bool,
    hidden: bool,
    last: u8,
}

impl Strings {
    /// Whether the statement ends in this text, which follows what was given before.
    fn ends(&mut self, text: &[u8]) -> bool {
        for &byte in text {
            if self.in_string {
                match byte {
                    _ if self.hidden => self.hidden = false,
                    b'\\' if self.has_escapes => self.hidden = true,
                    b'\'' => self.in_string = false,
                    _ => {}
                }
            } else if byte == b'\'' {
                // The second one of '' begins a string of its own, with the same rules.
                if self.last != b'\'' {
                    self.has_escapes = matches!(self.last, b'E' | b'e');
                }
                self.in_string = true;
            } else if byte == b';' {
                return true;
            }
            self.last = byte;
        }
        false
    }
}

/// A reader of names and values.
struct Scan<'a> {
    text: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    fn skip(&mut self) {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }

    fn peek(&mut self) -> Option<u8> {
        self.skip();
        self.text.get(self.at).copied()
    }

    fn word(&mut self, word: &[u8]) -> bool {
        self.skip();
        let is = self.text.get(self.at..self.at + word.len()).is_some_and(|t| t.eq_ignore_ascii_case(word));
        self.at += if is { word.len() } else { 0 };
        is
    }

    /// A name, plain or in quotes.
    fn name(&mut self) -> Option<String> {
        let first = self.peek()?;
        let mut name = Vec::new();
        if first == b'"' {
            self.at += 1;
            loop {
                let byte = *self.text.get(self.at)?;
                self.at += 1;
                match byte {
                    b'"' if self.text.get(self.at) == Some(&b'"') => self.at += 1,
                    b'"' => break,
                    _ => {}
                }
                name.push(byte);
            }
        } else {
            let plain = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_' || *b == b'$' || *b >= 0x80;
            let length = self.text[self.at..].iter().take_while(|b| plain(b)).count();
            name.extend_from_slice(&self.text[self.at..self.at + length]);
            self.at += length;
        }
        let fits = !name.is_empty() && name.len() <= NAME_MAX;
        String::from_utf8(name).ok().filter(|_| fits)
    }

    /// The name of a table, without the schema `public`.
    fn table(&mut self) -> Option<String> {
        let first = self.name()?;
        if self.text.get(self.at) != Some(&b'.') {
            return Some(first);
        }
        self.at += 1;
        let second = self.name()?;
        Some(if first == "public" { second } else { format!("{first}.{second}") })
    }

    /// Names in parentheses.
    fn columns(&mut self) -> Option<Vec<String>> {
        let mut names = Vec::new();
        let mut expected = b'(';
        loop {
            if self.peek()? != expected {
                return None;
            }
            self.at += 1;
            if names.len() >= VALUES_MAX {
                return None;
            }
            names.push(self.name()?);
            if self.peek()? == b')' {
                self.at += 1;
                return Some(names);
            }
            expected = b',';
        }
    }

    /// Values in parentheses.
    fn values(&mut self) -> Option<Vec<Value>> {
        let mut values = Vec::new();
        let mut expected = b'(';
        loop {
            if self.peek()? != expected || values.len() >= VALUES_MAX {
                return None;
            }
            self.at += 1;
            values.push(self.value()?);
            if self.peek()? == b')' {
                self.at += 1;
                return Some(values);
            }
            expected = b',';
        }
    }

    fn value(&mut self) -> Option<Value> {
        let first = self.peek()?;
        let has_escapes = matches!(first, b'E' | b'e') && self.text.get(self.at + 1) == Some(&b'\'');
        if first == b'\'' || has_escapes {
            self.at += 1 + usize::from(has_escapes);
            return self.string(has_escapes).map(Some);
        }
        let length = self.text[self.at..].iter().take_while(|b| !matches!(b, b',' | b')')).count();
        let word = self.text[self.at..self.at + length].trim_ascii();
        self.at += length;
        if word.eq_ignore_ascii_case(b"NULL") {
            return Some(None);
        }
        (!word.is_empty()).then(|| Some(word.to_vec()))
    }

    /// The rest of a string, behind its first quote.
    fn string(&mut self, has_escapes: bool) -> Option<Vec<u8>> {
        let start = self.at;
        let mut out = Vec::new();
        let mut hidden = false;
        loop {
            let byte = *self.text.get(self.at)?;
            self.at += 1;
            match byte {
                _ if hidden => hidden = false,
                b'\\' if has_escapes => hidden = true,
                b'\'' if self.text.get(self.at) == Some(&b'\'') => {
                    self.at += 1;
                }
                b'\'' => break,
                _ => {}
            }
            out.push(byte);
        }
        debug_assert!(self.at > start, "it has read the quote at the end");
        // The escapes are those of COPY, as far as pg_dump uses them.
        if has_escapes { field(&out) } else { Some(out) }
    }
}

#[cfg(test)]
mod tests;
