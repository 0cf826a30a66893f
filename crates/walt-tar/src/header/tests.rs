#![allow(clippy::unwrap_used, reason = "tests fail by panicking: unwrap is their assertion")]

use super::*;

/// Writes a part of a header in place of what is there.
type Edit<'a> = (usize, &'a [u8]);

/// Fields of a header (POSIX.1-2017, ustar).
const NAME: usize = 0;
const MODE: usize = 100;
const UID: usize = 108;
const GID: usize = 116;
const SIZE: usize = 124;
const MTIME: usize = 136;
const FLAG: usize = 156;
const LINK: usize = 157;
const MAGIC: usize = 257;
const MAJOR: usize = 329;
const MINOR: usize = 337;
const PREFIX: usize = 345;

/// The header of an empty file `f`, changed.
fn block(edits: &[Edit<'_>]) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    let file: [Edit<'_>; 10] = [
        (NAME, b"f"),
        (MODE, b"0000640"),
        (UID, b"0001750"),
        (GID, b"0000144"),
        (SIZE, b"00000000000"),
        (MTIME, b"00000000012"),
        (FLAG, b"0"),
        (MAGIC, b"ustar\x0000"),
        (MAJOR, b"0000010"),
        (MINOR, b"0000001"),
    ];
    for (at, bytes) in file.iter().chain(edits) {
        block[*at..at + bytes.len()].copy_from_slice(bytes);
    }
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block
}

/// An extended header with this payload.
fn extended(flag: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut out = block(&[(NAME, b"x"), (SIZE, format!("{:011o}", payload.len()).as_bytes()), (FLAG, flag)]);
    out.extend_from_slice(payload);
    out.resize(out.len().next_multiple_of(BLOCK), 0);
    out
}

/// PAX records: each has its own length in front.
fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let mut payload = String::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let length = (rest..).find(|n| *n == rest + n.to_string().len()).unwrap();
        payload += &format!("{length} {key}={value}\n");
    }
    extended(b"x", payload.as_bytes())
}

fn read(parts: &[Vec<u8>]) -> Result<Header> {
    let bytes = parts.concat();
    Ok(read_header(&mut bytes.as_slice(), &mut Vec::new())?.expect("an entry"))
}

/// What is in an entry, in one line.
fn told(header: &Header) -> String {
    let Header { kind, path, link, mode, uid, gid, size, mtime, rdev, xattrs, sparse } = header;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut told = format!("{kind:?} {}", text(path));
    if !link.is_empty() {
        told += &format!(" -> {}", text(link));
    }
    told += &format!(" {mode:o} {uid}:{gid} {size} {}.{:09}", mtime.sec, mtime.nsec);
    if *rdev != (0, 0) {
        told += &format!(" {rdev:?}");
    }
    for (name, value) in xattrs {
        told += &format!(" {}={}", text(name), text(value));
    }
    if let Some(sparse) = sparse {
        told += &format!(" of {} {:?}", sparse.size, sparse.map);
    }
    told
}

/// Each kind of entry and each record, as the entry that comes of it.
#[test]
fn entries() {
    let long = "d/".repeat(60) + "n";
    let name = [long.as_bytes(), b"\0"].concat();
    let of = |edits: &[Edit<'_>]| vec![block(edits)];
    let with = |records: &[(&str, &str)], edits: &[Edit<'_>]| vec![pax(records), block(edits)];
    let xattr = |name: &str| format!("SCHILY.xattr.{name}");
    for (parts, expected) in [
        (of(&[]), "File f 640 1000:100 0 10.000000000"),
        (of(&[(SIZE, b"00000000017")]), "File f 640 1000:100 15 10.000000000"),
        // Types of POSIX and before it; what is not a file has no payload.
        (of(&[(FLAG, b"\0")]), "File f 640 1000:100 0 10.000000000"),
        (of(&[(FLAG, b"7")]), "File f 640 1000:100 0 10.000000000"),
        (of(&[(NAME, b"d/"), (FLAG, b"\0")]), "Dir d 640 1000:100 0 10.000000000"),
        (of(&[(NAME, b"d/")]), "Dir d 640 1000:100 0 10.000000000"),
        (
            of(&[(FLAG, b"1"), (LINK, b"./o"), (SIZE, b"00000000017")]),
            "HardLink f -> o 640 1000:100 0 10.000000000",
        ),
        (of(&[(FLAG, b"2"), (LINK, b"./o/")]), "Symlink f -> ./o/ 640 1000:100 0 10.000000000"),
        (of(&[(FLAG, b"3")]), "Char f 640 1000:100 0 10.000000000 (8, 1)"),
        (of(&[(FLAG, b"4")]), "Block f 640 1000:100 0 10.000000000 (8, 1)"),
        (of(&[(FLAG, b"5"), (SIZE, b"00000000017")]), "Dir f 640 1000:100 0 10.000000000"),
        (of(&[(FLAG, b"5"), (NAME, b"./")]), "Dir  640 1000:100 0 10.000000000"),
        (of(&[(FLAG, b"6")]), "Fifo f 640 1000:100 0 10.000000000"),
        (of(&[(FLAG, b"D")]), "Dir f 640 1000:100 0 10.000000000"),
        // Links only lead somewhere.
        (of(&[(LINK, b"o")]), "File f 640 1000:100 0 10.000000000"),
        // The prefix is one of POSIX; GNU keeps times there.
        (of(&[(PREFIX, b"p/q")]), "File p/q/f 640 1000:100 0 10.000000000"),
        (of(&[(PREFIX, b"123"), (MAGIC, b"ustar  \0")]), "File f 640 1000:100 0 10.000000000"),
        // Only the bits of permissions; times before 1970 and far away.
        (of(&[(MODE, b"0104755")]), "File f 4755 1000:100 0 10.000000000"),
        (of(&[(MTIME, &[0xff; 12])]), "File f 640 1000:100 0 -1.000000000"),
        (of(&[(UID, &[0x80, 0, 0, 0, 0, 1, 0, 0])]), "File f 640 65536:100 0 10.000000000"),
        // Long names of GNU, before the fields; records of PAX, before those.
        (vec![extended(b"L", &name), block(&[])], &format!("File {long} 640 1000:100 0 10.000000000")),
        (
            vec![extended(b"K", &name), block(&[(FLAG, b"2"), (LINK, b"o")])],
            &format!("Symlink f -> {long} 640 1000:100 0 10.000000000"),
        ),
        (
            vec![extended(b"L", &name), pax(&[("path", "p")]), block(&[])],
            "File p 640 1000:100 0 10.000000000",
        ),
        (with(&[("path", "p/")], &[]), "Dir p 640 1000:100 0 10.000000000"),
        (with(&[("linkpath", "p")], &[(FLAG, b"1")]), "HardLink f -> p 640 1000:100 0 10.000000000"),
        (
            with(&[("size", "9"), ("uid", "4294967295"), ("gid", "0"), ("mtime", "-1.25")], &[]),
            "File f 640 4294967295:0 9 -2.750000000",
        ),
        (with(&[("mtime", "7.1234567891")], &[]), "File f 640 1000:100 0 7.123456789"),
        (with(&[("mtime", "-7")], &[]), "File f 640 1000:100 0 -7.000000000"),
        // What is not for this archive.
        (
            with(&[("comment", "x"), ("atime", "x"), ("LIBARCHIVE.x", "y")], &[]),
            "File f 640 1000:100 0 10.000000000",
        ),
        (vec![extended(b"g", b"x"), extended(b"V", b"x"), block(&[])], "File f 640 1000:100 0 10.000000000"),
        // Attributes are sorted, the last of a name counts; those of other systems are told by their records.
        (
            with(&[(&xattr("user.b"), "1"), (&xattr("user.a"), "2"), (&xattr("user.b"), "3")], &[]),
            "File f 640 1000:100 0 10.000000000 user.a=2 user.b=3",
        ),
        (with(&[("SCHILY.acl.access", "u")], &[]), "File f 640 1000:100 0 10.000000000 SCHILY.acl.access=u"),
        (
            with(
                &[("GNU.sparse.name", "p"), ("GNU.sparse.map", "5,3"), ("GNU.sparse.size", "9")],
                &[(SIZE, b"00000000003")],
            ),
            "File p 640 1000:100 3 10.000000000 of 9 Some([(5, 3)])",
        ),
        (with(&[("GNU.sparse.name", "p")], &[]), "File f 640 1000:100 0 10.000000000"),
    ] {
        assert_eq!(told(&read(&parts).unwrap()), expected);
    }
}

#[test]
fn entries_that_are_refused() {
    let of = |edits: &[Edit<'_>]| vec![block(edits)];
    let with = |key: &str, value: &str| vec![pax(&[(key, value)]), block(&[])];
    let long = "n".repeat(256);
    let far = "n/".repeat(MAX_PATH / 2);
    for (parts, expected) in [
        (of(&[(UID, b"x")]), "its uid is not a number"),
        (of(&[(UID, &[0xff; 8])]), "its uid is out of range"),
        (of(&[(GID, b"9")]), "its gid is not a number"),
        (of(&[(GID, &[0x80, 0, 0, 1, 0, 0, 0, 0])]), "its gid is out of range"),
        (of(&[(MODE, b"-1")]), "its mode is not a number"),
        (of(&[(MTIME, b"x")]), "its mtime is not a number"),
        (of(&[(FLAG, b"3"), (MAJOR, b"x")]), "its major number is not a number"),
        (of(&[(FLAG, b"4"), (MINOR, &[0xff; 8])]), "its minor number is out of range"),
        (of(&[(FLAG, b"Z")]), "its type 'Z' is not known"),
        (of(&[(FLAG, b"\n")]), "its type '\\n' is not known"),
        (of(&[(FLAG, b"2")]), "its link target is empty or too long"),
        (vec![pax(&[("linkpath", &far)]), block(&[(FLAG, b"2")])], "its link target is empty or too long"),
        (vec![pax(&[("linkpath", "a\0b")]), block(&[(FLAG, b"2")])], "its link target is empty or too long"),
        (of(&[(FLAG, b"1"), (LINK, b"../o")]), "a path with '..' is refused"),
        (with("path", "/."), "an entry that is not a directory takes the place of the root"),
        (with("path", "a/../b"), "a path with '..' is refused"),
        (with("path", &long), "a name is longer than 255 bytes"),
        (with("path", "a\0b"), "a name has a NUL byte"),
        (with("path", &(far.clone() + "n")), "the path is longer than 4095 bytes"),
        (with("size", "x"), "its PAX record 'size' is damaged"),
        (with("size", "9223372036854775808"), "its size is out of range"),
        (with("uid", "4294967296"), "its PAX record 'uid' is damaged"),
        (with("gid", "-1"), "its PAX record 'gid' is damaged"),
        (with("mtime", "1.x"), "its PAX record 'mtime' is damaged"),
        (with("SCHILY.xattr.", "x"), "its PAX record 'SCHILY.xattr.' is damaged"),
        (with("SCHILY.xattr.a\0b", "x"), "is damaged"),
        (with(&format!("SCHILY.xattr.{long}"), "x"), "is damaged"),
        (with("GNU.sparse.map", "1"), "its PAX record 'GNU.sparse.map' is damaged"),
        (with("GNU.sparse.map", "5,3"), "the map of its sparse file is damaged"),
        (
            vec![pax(&[("GNU.sparse.map", "5,3"), ("GNU.sparse.size", "9")]), block(&[])],
            "the map of its sparse file is damaged",
        ),
        (vec![extended(b"x", b"99 path=x\n"), block(&[])], "its PAX header is damaged"),
        (vec![extended(b"x", b"9 path=x\t"), block(&[])], "its PAX header is damaged"),
        (vec![extended(b"x", b"7 path\n"), block(&[])], "its PAX header is damaged"),
        (vec![pax(&[("path", "x")])], "the tar ends after an extended header"),
        (vec![block(&[])[..100].to_vec()], "the tar ends in the middle of a block"),
        (of(&[(SIZE, b"x")]), "a header's size is not a number"),
        (vec![vec![7; BLOCK]], "a header's checksum is wrong"),
    ] {
        let error = read(&parts).unwrap_err().to_string();
        assert!(error.contains(expected), "{error} has no '{expected}'");
    }
}

#[test]
fn headers_round_trip() {
    let base = Header {
        kind: Type::File,
        path: b"a/b".to_vec(),
        link: vec![],
        mode: 0o4755,
        uid: 3_000_000,
        gid: 7,
        size: 1 << 40,
        sparse: None,
        mtime: Time { sec: -5, nsec: 123_456_789 },
        rdev: (0, 0),
        xattrs: vec![(b"user.x".to_vec(), b"a\n=\0b".to_vec())],
    };
    let long = Header { path: [b'n'; 120].to_vec(), mtime: Time { sec: 7, nsec: 0 }, ..base.clone() };
    let link = Header { kind: Type::Symlink, link: [b'/'; 101].to_vec(), size: 0, ..base.clone() };
    for header in [base, long, link] {
        let mut bytes = Vec::new();
        write_header(&mut bytes, &header);
        assert_eq!(bytes.len() % BLOCK, 0);
        let mut raw = Vec::new();
        let back = read_header(&mut bytes.as_slice(), &mut raw).unwrap().unwrap();
        assert_eq!(raw, bytes);
        assert_eq!(format!("{back:?}"), format!("{header:?}"));
        let mut bytes = Vec::new();
        write_header_as(&mut bytes, &header, Dialect::Gnu);
        let back = read_header(&mut bytes.as_slice(), &mut Vec::new()).unwrap().unwrap();
        assert_eq!(format!("{back:?}"), format!("{header:?}"), "GNU");
    }
}

#[test]
fn hostile_names_are_refused() {
    for path in ["../x", "a/../../x", &"n".repeat(256)] {
        assert!(clean(path.as_bytes()).is_err(), "{path}");
    }
    assert_eq!(clean(b"/./a//b/").unwrap(), b"a/b");
}
