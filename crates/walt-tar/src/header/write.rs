//! Writing the headers of one entry.

use super::{BLOCK, Header, Time, Type, XATTR_PREFIX};

/// Largest value of a seven-digit octal field.
const MAX_OCTAL_7: u64 = 0o7_777_777;
/// Largest value of an eleven-digit octal field.
const MAX_OCTAL_11: u64 = 0o77_777_777_777;

fn put_octal(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    let text = format!("{value:0digits$o}");
    // Callers pass values that fit, others go to PAX records and 0 comes here.
    field[..digits].copy_from_slice(&text.as_bytes()[text.len() - digits..]);
}

fn pax_record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let body = key.len() + value.len() + 3;
    let mut length = body + 1;
    while length != body + length.to_string().len() {
        length = body + length.to_string().len();
    }
    out.extend_from_slice(format!("{length} ").as_bytes());
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn block(header: &Header, name: &[u8], flag: u8, size: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let cut = name.len().min(100);
    block[..cut].copy_from_slice(&name[..cut]);
    let fits = |value: u64, max: u64| if value <= max { value } else { 0 };
    put_octal(&mut block[100..108], u64::from(header.mode & 0o7777));
    put_octal(&mut block[108..116], fits(u64::from(header.uid), MAX_OCTAL_7));
    put_octal(&mut block[116..124], fits(u64::from(header.gid), MAX_OCTAL_7));
    put_octal(&mut block[124..136], fits(size, MAX_OCTAL_11));
    put_octal(&mut block[136..148], fits(u64::try_from(header.mtime.sec).unwrap_or(0), MAX_OCTAL_11));
    block[156] = flag;
    if flag != b'x' {
        let cut = header.link.len().min(100);
        block[157..157 + cut].copy_from_slice(&header.link[..cut]);
    }
    block[257..265].copy_from_slice(b"ustar\x0000");
    put_octal(&mut block[329..337], fits(u64::from(header.rdev.0), MAX_OCTAL_7));
    put_octal(&mut block[337..345], fits(u64::from(header.rdev.1), MAX_OCTAL_7));
    sum(&mut block);
    block
}

fn sum(block: &mut [u8; BLOCK]) {
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|b| u64::from(*b)).sum();
    block[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
    block[154] = 0;
}

/// Writes one entry's headers: a ustar block, and a PAX header before it only where ustar cannot hold a value.
/// The bytes depend on the entry alone. A directory's name ends with a slash. A sparse file's header says that its map
/// comes first in what follows (GNU's PAX format 1.0).
pub fn write_header(out: &mut Vec<u8>, header: &Header) {
    write_header_as(out, header, Dialect::Pax);
}

/// How what ustar cannot hold is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// In PAX headers (POSIX.1-2001).
    Pax,
    /// Names, sizes and owners as GNU tar did before; the rest in PAX headers. For busybox, which passes over these, and
    /// for which there are no sparse files.
    Gnu,
}

/// [`write_header`] in a dialect.
pub fn write_header_as(out: &mut Vec<u8>, header: &Header, dialect: Dialect) {
    let gnu = dialect == Dialect::Gnu;
    let mut name = header.path.clone();
    if header.kind == Type::Dir {
        name.extend_from_slice(if name.is_empty() { b"./" } else { b"/" });
    }
    let mut pax = Vec::new();
    if let Some(sparse) = &header.sparse {
        pax_record(&mut pax, b"GNU.sparse.major", b"1");
        pax_record(&mut pax, b"GNU.sparse.minor", b"0");
        pax_record(&mut pax, b"GNU.sparse.name", &name);
        pax_record(&mut pax, b"GNU.sparse.realsize", sparse.size.to_string().as_bytes());
        // What programs that do not know the format make of it.
        name = b"GNUSparseFile.0/sparse".to_vec();
    }
    if name.len() > 100 && !gnu {
        pax_record(&mut pax, b"path", &name);
    }
    if header.link.len() > 100 && !gnu {
        pax_record(&mut pax, b"linkpath", &header.link);
    }
    if header.size > MAX_OCTAL_11 && !gnu {
        pax_record(&mut pax, b"size", header.size.to_string().as_bytes());
    }
    for (key, id) in [(b"uid", header.uid), (b"gid", header.gid)] {
        if u64::from(id) > MAX_OCTAL_7 && !gnu {
            pax_record(&mut pax, key, id.to_string().as_bytes());
        }
    }
    let Time { sec, nsec } = header.mtime;
    if nsec != 0 || !u64::try_from(sec).is_ok_and(|s| s <= MAX_OCTAL_11) {
        let text = match (sec, nsec) {
            (s, 0) => s.to_string(),
            (s, n) if s < 0 => format!("-{}.{:09}", (s + 1).unsigned_abs(), 1_000_000_000 - n),
            (s, n) => format!("{s}.{n:09}"),
        };
        pax_record(&mut pax, b"mtime", text.as_bytes());
    }
    for (name, value) in &header.xattrs {
        pax_record(&mut pax, &[XATTR_PREFIX, name].concat(), value);
    }
    if !pax.is_empty() {
        let plain = Header {
            mode: 0o644,
            sparse: None,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            rdev: (0, 0),
            ..header.clone()
        };
        out.extend_from_slice(&block(&plain, b"././@PaxHeader", b'x', pax.len() as u64));
        let padded = pax.len().next_multiple_of(BLOCK);
        pax.resize(padded, 0);
        out.extend_from_slice(&pax);
    }
    for (flag, text) in [(b'L', &name), (b'K', &header.link)] {
        if gnu && text.len() > 100 {
            let long = Header { mode: 0o644, link: Vec::new(), ..Header::file(0) };
            out.extend_from_slice(&block(&long, b"././@LongLink", flag, text.len() as u64 + 1));
            let end = out.len() + (text.len() + 1).next_multiple_of(BLOCK);
            out.extend_from_slice(text);
            out.resize(end, 0);
        }
    }
    let flag = match header.kind {
        Type::File => b'0',
        Type::HardLink => b'1',
        Type::Symlink => b'2',
        Type::Char => b'3',
        Type::Block => b'4',
        Type::Dir => b'5',
        Type::Fifo => b'6',
    };
    let mut block = block(header, &name, flag, header.size);
    if gnu {
        for (range, value, most) in [
            (108..116, u64::from(header.uid), MAX_OCTAL_7),
            (116..124, u64::from(header.gid), MAX_OCTAL_7),
            (124..136, header.size, MAX_OCTAL_11),
        ] {
            if value > most {
                let field = &mut block[range];
                field.fill(0);
                let start = field.len() - 8;
                field[start..].copy_from_slice(&value.to_be_bytes());
                field[0] |= 0x80;
            }
        }
        sum(&mut block);
    }
    out.extend_from_slice(&block);
}
