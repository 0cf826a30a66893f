//! Tar headers: ustar, GNU long names and PAX records, read from a stream; how they are written: `write`.
//!
//! Sources: POSIX.1-2017 `pax`, GNU tar manual "Basic Tar Format", OCI image specification "layer".

#[cfg(test)]
mod tests;
mod write;

pub use write::{Dialect, write_header, write_header_as};

use crate::{
    Error, Result,
    sparse::{self, Sparse},
};
use std::io::{self, Read};

/// Size of a tar block in bytes.
pub const BLOCK: usize = 512;
/// Longest extended header (PAX records or GNU long name) accepted, in bytes.
const MAX_EXTENDED: u64 = 1 << 20;
/// Longest path accepted, in bytes (Linux PATH_MAX).
pub const MAX_PATH: usize = 4096;
/// Longest file name accepted, in bytes (Linux NAME_MAX).
const MAX_NAME: usize = 255;
/// Most bytes accepted after the end-of-archive marker: tar programs pad to 10 KiB, some to a megabyte.
const MAX_TRAILER: u64 = 16 << 20;
/// Records by which other systems keep what belongs to a file and has no place here: labels, lists of who may access
/// it, flags. They are told as attributes of these names, which no file system has.
const FOREIGN: [&[u8]; 4] = [b"RHT.security.", b"SCHILY.acl.", b"SCHILY.fflags", b"MSWINDOWS."];
/// PAX prefix of an extended attribute (star, GNU tar, Go).
const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";

/// A point in time: seconds since 1970 (may be negative) and nanoseconds (0 to 999,999,999).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord)]
pub struct Time {
    /// Seconds since the epoch.
    pub sec: i64,
    /// Nanoseconds within the second.
    pub nsec: u32,
}

/// Type of a tar entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// Regular file.
    File,
    /// Another name of a file that came before.
    HardLink,
    /// Symbolic link.
    Symlink,
    /// Character device.
    Char,
    /// Block device.
    Block,
    /// Directory.
    Dir,
    /// Named pipe.
    Fifo,
}

/// One tar entry, extended headers merged in. Paths are relative, without `.` or `..`, empty for the root.
#[derive(Debug, Clone)]
pub struct Header {
    /// Type.
    pub kind: Type,
    /// Path below the root of the archive.
    pub path: Vec<u8>,
    /// Target of a symbolic link as it is, or path of a hard link's other name.
    pub link: Vec<u8>,
    /// Permission bits, 0 to 0o7777.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes that follow in the stream, without padding: 0 for all but regular files.
    pub size: u64,
    /// A regular file with holes: what follows in the stream is then not the whole file.
    pub sparse: Option<Sparse>,
    /// Last modification.
    pub mtime: Time,
    /// Major and minor number of a device.
    pub rdev: (u32, u32),
    /// Names and values of extended attributes, sorted by name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Header {
    /// A regular file of this size, without a name or metadata.
    pub fn file(size: u64) -> Self {
        Self {
            kind: Type::File,
            path: Vec::new(),
            link: Vec::new(),
            mode: 0,
            uid: 0,
            gid: 0,
            size,
            sparse: None,
            mtime: Time::default(),
            rdev: (0, 0),
            xattrs: Vec::new(),
        }
    }
}

fn bad(path: &[u8], why: impl std::fmt::Display) -> Error {
    Error(format!("entry '{}': {why}", String::from_utf8_lossy(path)))
}

fn text(field: &[u8]) -> &[u8] {
    field.split(|b| *b == 0).next().unwrap_or_default()
}

/// A numeric field: octal text, or base-256 when the first bit is set.
pub(crate) fn number(field: &[u8]) -> Option<i128> {
    if field.first()? & 0x80 != 0 {
        let negative = field[0] & 0x40 != 0;
        let mut value: i128 = if negative { -1 } else { 0 };
        for (i, byte) in field.iter().enumerate() {
            let byte = match (i, negative) {
                (0, false) => byte & 0x7f,
                _ => *byte,
            };
            value = value.checked_shl(8)? | i128::from(byte);
            if i128::from(i64::MIN) > value || value > i128::from(i64::MAX) {
                return None;
            }
        }
        return Some(value);
    }
    let digits = text(field);
    let digits = std::str::from_utf8(digits).ok()?.trim_matches(' ');
    if digits.is_empty() {
        return Some(0);
    }
    i128::from_str_radix(digits, 8).ok().filter(|v| *v >= 0)
}

pub(crate) fn decimal(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// A PAX time: `[-]seconds[.fraction]`; the fraction is cut to nanoseconds.
fn pax_time(value: &[u8]) -> Option<Time> {
    let value = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    let negative = whole.starts_with('-');
    let sec: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let mut digits: String = fraction.chars().take(9).collect();
    while digits.len() < 9 {
        digits.push('0');
    }
    let nsec: u32 = digits.parse().ok()?;
    match (negative, nsec) {
        (true, n) if n > 0 => Some(Time { sec: sec.checked_sub(1)?, nsec: 1_000_000_000 - n }),
        _ => Some(Time { sec, nsec }),
    }
}

/// The records `"<length> <key>=<value>\n"` of a PAX header.
fn pax_records(mut data: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut records = Vec::new();
    while !data.is_empty() && data[0] != 0 {
        let space = data.iter().position(|b| *b == b' ')?;
        let length = usize::try_from(decimal(&data[..space])?).ok()?;
        let record = data.get(space + 1..length)?;
        let record = record.strip_suffix(b"\n")?;
        let equal = record.iter().position(|b| *b == b'=')?;
        records.push((&record[..equal], &record[equal + 1..]));
        data = &data[length..];
    }
    Some(records)
}

/// Makes a tar path relative to the root of the layer; refuses `..`, long names and NUL.
fn clean(path: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(path.len());
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => continue,
            b".." => return Err(bad(path, "a path with '..' is refused")),
            _ if part.len() > MAX_NAME => return Err(bad(path, "a name is longer than 255 bytes")),
            _ if part.contains(&0) => return Err(bad(path, "a name has a NUL byte")),
            _ => {}
        }
        if !out.is_empty() {
            out.push(b'/');
        }
        out.extend_from_slice(part);
    }
    if out.len() >= MAX_PATH {
        return Err(bad(path, "the path is longer than 4095 bytes"));
    }
    Ok(out)
}

/// Reads exactly one block, or says that the stream ended before it.
fn read_block(input: &mut impl Read, block: &mut [u8; BLOCK]) -> Result<bool> {
    let mut filled = 0;
    while filled < BLOCK {
        match input.read(&mut block[filled..]) {
            Ok(0) if filled == 0 => return Ok(false),
            Ok(0) => return Err(Error("the tar ends in the middle of a block".into())),
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Error(format!("the tar cannot be read: {e}"))),
        }
    }
    Ok(true)
}

/// Is this block a header: does its checksum fit?
pub fn is_header(block: &[u8; BLOCK]) -> bool {
    let Some(wanted) = number(&block[148..156]) else { return false };
    // The field itself counts as spaces. Half a million at most: 512 bytes.
    let (mut unsigned, mut signed) = (8 * i32::from(b' '), 8 * i32::from(b' '));
    for byte in block[..148].iter().chain(&block[156..]) {
        unsigned += i32::from(*byte);
        signed += i32::from(byte.cast_signed());
    }
    wanted == i128::from(unsigned) || wanted == i128::from(signed)
}

/// Reads the payload of an extended header, appending every byte to `raw`.
fn read_extended(input: &mut impl Read, raw: &mut Vec<u8>, size: u64) -> Result<Vec<u8>> {
    if size > MAX_EXTENDED {
        return Err(Error(format!("an extended header has {size} bytes, the limit is {MAX_EXTENDED}")));
    }
    let padded = size.next_multiple_of(BLOCK as u64);
    let mut data = Vec::new();
    input.take(padded).read_to_end(&mut data).map_err(|e| Error(format!("the tar cannot be read: {e}")))?;
    if data.len() as u64 != padded {
        return Err(Error("the tar ends in an extended header".into()));
    }
    raw.extend_from_slice(&data);
    data.truncate(size as usize);
    Ok(data)
}

/// Reads the headers of the next entry. Every byte read is appended to `raw`. `None` is the end of the
/// archive: its marker and what follows are in `raw`.
pub fn read_header(input: &mut impl Read, raw: &mut Vec<u8>) -> Result<Option<Header>> {
    let mut block = [0; BLOCK];
    let (mut long, mut pax) = (LongNames::default(), Vec::new());
    loop {
        let extended = !long.is_empty() || !pax.is_empty();
        if !read_block(input, &mut block)? {
            if extended {
                return Err(Error("the tar ends after an extended header".into()));
            }
            return Ok(None);
        }
        raw.extend_from_slice(&block);
        if block.iter().all(|b| *b == 0) {
            let trailer = io::copy(&mut input.take(MAX_TRAILER + 1), raw)
                .map_err(|e| Error(format!("the tar cannot be read: {e}")))?;
            if trailer > MAX_TRAILER {
                return Err(Error("more than 16 MiB follow the end of the tar".into()));
            }
            return Ok(None);
        }
        if !is_header(&block) {
            return Err(Error("a header's checksum is wrong; this is not a tar, or it is damaged".into()));
        }
        let size = number(&block[124..136])
            .and_then(|v| u64::try_from(v).ok())
            .ok_or_else(|| Error("a header's size is not a number".into()))?;
        match block[156] {
            b'L' => long.path = Some(text(&read_extended(input, raw, size)?).to_vec()),
            b'K' => long.link = Some(text(&read_extended(input, raw, size)?).to_vec()),
            // X: Solaris' name of the same.
            b'x' | b'X' => pax = read_extended(input, raw, size)?,
            // Labels of volumes (GNU); lists and attributes of Solaris, for the entry that comes.
            b'V' | b'A' | b'E' => drop(read_extended(input, raw, size)?),
            // Global records are comments in practice (git archive); no unpacker applies paths from them.
            b'g' => drop(read_extended(input, raw, size)?),
            flag => {
                let map = match flag {
                    b'S' => Some(sparse::old_gnu(&block, &mut || {
                        let mut more = [0; BLOCK];
                        if !read_block(input, &mut more)? {
                            return Err(Error("the tar ends in the map of a sparse file".into()));
                        }
                        raw.extend_from_slice(&more);
                        Ok(more)
                    })?),
                    // A directory with the names of what is in it (GNU, incremental).
                    b'D' => {
                        read_extended(input, raw, size)?;
                        None
                    }
                    _ => None,
                };
                return entry(&block, size, map, long, &pax).map(Some);
            }
        }
    }
}

/// Names that stood in entries of their own, since the fields of a header are too short (GNU).
#[derive(Default)]
struct LongNames {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl LongNames {
    fn is_empty(&self) -> bool {
        self.path.is_none() && self.link.is_none()
    }
}

/// The entry of a header, of what stood before it, and of its records; each counts more than the one before.
fn entry(
    block: &[u8; BLOCK],
    size: u64,
    sparse: Option<Sparse>,
    long: LongNames,
    pax: &[u8],
) -> Result<Header> {
    let mut header = Header { sparse, ..fields(block, size, long)? };
    apply_records(&mut header, pax)?;
    header.kind = kind(block[156], &header.path)?;
    checked(header)
}

/// What a header's own fields say: paths as they are written, and any type.
fn fields(block: &[u8; BLOCK], size: u64, long: LongNames) -> Result<Header> {
    let name = text(&block[..100]);
    let prefix = text(&block[345..500]);
    let path = match long.path {
        Some(path) => path,
        // The prefix field exists in POSIX headers only; GNU headers keep times there.
        None if &block[257..263] == b"ustar\0" && !prefix.is_empty() => [prefix, b"/", name].concat(),
        None => name.to_vec(),
    };
    let field = |range: std::ops::Range<usize>, what: &str| {
        number(&block[range]).ok_or_else(|| bad(&path, format!("its {what} is not a number")))
    };
    let id = |range: std::ops::Range<usize>, what: &str| {
        u32::try_from(field(range, what)?).map_err(|_| bad(&path, format!("its {what} is out of range")))
    };
    let (uid, gid) = (id(108..116, "uid")?, id(116..124, "gid")?);
    let mode = (field(100..108, "mode")? & 0o7777) as u32;
    let mtime = Time { sec: field(136..148, "mtime")?.try_into().unwrap_or(0), nsec: 0 };
    let is_device = matches!(block[156], b'3' | b'4');
    let rdev =
        if is_device { (id(329..337, "major number")?, id(337..345, "minor number")?) } else { (0, 0) };
    let link = long.link.unwrap_or_else(|| text(&block[157..257]).to_vec());
    Ok(Header { path, link, mode, uid, gid, mtime, rdev, ..Header::file(size) })
}

/// Puts what the PAX records say in place of what the fields say.
fn apply_records(header: &mut Header, pax: &[u8]) -> Result<()> {
    let name = header.path.clone();
    let mut sparse = sparse::Records::default();
    let mut sparse_name = None;
    for (key, value) in pax_records(pax).ok_or_else(|| bad(&name, "its PAX header is damaged"))? {
        let wrong = || bad(&name, format!("its PAX record '{}' is damaged", String::from_utf8_lossy(key)));
        let id = || decimal(value).and_then(|v| v.try_into().ok()).ok_or_else(wrong);
        match key {
            b"path" => header.path = value.to_vec(),
            b"linkpath" => header.link = value.to_vec(),
            b"size" => header.size = decimal(value).ok_or_else(wrong)?,
            b"uid" => header.uid = id()?,
            b"gid" => header.gid = id()?,
            b"mtime" => header.mtime = pax_time(value).ok_or_else(wrong)?,
            b"GNU.sparse.name" => sparse_name = Some(value.to_vec()),
            _ => match key.strip_prefix(b"GNU.sparse.") {
                Some(key) => sparse.add(key, value).ok_or_else(wrong)?,
                None => add_xattr(&mut header.xattrs, key, value).ok_or_else(wrong)?,
            },
        }
    }
    header.xattrs.sort();
    if let Some(found) = sparse.finish() {
        header.sparse = Some(found.ok_or_else(|| bad(&header.path, sparse::DAMAGED))?);
        if let Some(name) = sparse_name {
            header.path = name;
        }
    }
    Ok(())
}

/// Keeps a record that is an extended attribute; `None` if no attribute can have its name.
fn add_xattr(xattrs: &mut Vec<(Vec<u8>, Vec<u8>)>, key: &[u8], value: &[u8]) -> Option<()> {
    if let Some(name) = key.strip_prefix(XATTR_PREFIX) {
        if name.is_empty() || name.len() > MAX_NAME || name.contains(&0) {
            return None;
        }
        xattrs.retain(|(n, _)| n != name);
        xattrs.push((name.to_vec(), value.to_vec()));
    } else if FOREIGN.iter().any(|f| key.starts_with(f)) && key.len() <= MAX_NAME {
        xattrs.push((key.to_vec(), value.to_vec()));
    }
    Some(())
}

/// The type of an entry, by its flag and its path as it is written.
fn kind(flag: u8, path: &[u8]) -> Result<Type> {
    Ok(match flag {
        // Before POSIX, a slash at the end of its name made a directory.
        b'0' | 0 | b'7' if path.ends_with(b"/") => Type::Dir,
        b'0' | 0 | b'7' | b'S' => Type::File,
        b'1' => Type::HardLink,
        b'2' => Type::Symlink,
        b'3' => Type::Char,
        b'4' => Type::Block,
        b'5' | b'D' => Type::Dir,
        b'6' => Type::Fifo,
        other => {
            return Err(bad(path, format!("its type '{}' is not known", char::from(other).escape_default())));
        }
    })
}

/// An entry as it leaves this module: paths cleaned, nothing that is not of its type.
fn checked(mut header: Header) -> Result<Header> {
    let Header { kind, path, link, size, sparse, .. } = &mut header;
    if i64::try_from(*size).is_err() {
        return Err(bad(path, "its size is out of range"));
    }
    match kind {
        Type::HardLink => *link = clean(link)?,
        Type::Symlink if link.is_empty() || link.len() >= MAX_PATH || link.contains(&0) => {
            return Err(bad(path, "its link target is empty or too long"));
        }
        Type::Symlink => {}
        _ => link.clear(),
    }
    *path = clean(path)?;
    if path.is_empty() && *kind != Type::Dir {
        return Err(Error("an entry that is not a directory takes the place of the root".into()));
    }
    // Links, devices and directories have no payload whatever their size field says (as in Go's archive/tar).
    if *kind != Type::File {
        (*size, *sparse) = (0, None);
    }
    if sparse.as_ref().is_some_and(|s| !s.fits(*size)) {
        return Err(bad(path, sparse::DAMAGED));
    }
    Ok(header)
}
