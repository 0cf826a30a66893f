//! The committed inputs: each goes through its target, and the binary ones are what is generated here.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking: unwrap is their assertion")]

use std::path::{Path, PathBuf};
use walt_fuzz::{TARGETS, corpus};
use walt_images::Store;

#[test]
fn every_input_passes() {
    for ((name, target), (of, inputs)) in sorted().into_iter().zip(corpus()) {
        assert_eq!(name, of);
        assert!(!inputs.is_empty(), "{name} has nothing to start from");
        for (input, bytes) in inputs {
            eprintln!("{name}/{input}");
            target(&bytes);
            // Cut ones cost nothing, and find what assumes that more will come.
            (0..bytes.len().min(600)).for_each(|len| target(&bytes[..len]));
        }
    }
}

fn sorted() -> Vec<(&'static str, walt_fuzz::Target)> {
    let mut all = TARGETS.to_vec();
    all.sort_by_key(|(name, _)| *name);
    all
}

#[test]
fn the_corpus_is_as_generated() {
    let update = std::env::var_os("WALT_UPDATE_SNAPSHOTS").is_some();
    for (path, bytes) in generated() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(&path);
        if update {
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, &bytes).unwrap();
        }
        let found = std::fs::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        assert!(found == bytes, "{} is not what is generated: WALT_UPDATE_SNAPSHOTS=1", file.display());
    }
}

fn generated() -> Vec<(PathBuf, Vec<u8>)> {
    let mut all: Vec<(PathBuf, Vec<u8>)> = Vec::new();
    for procedure in 0..22 {
        all.push((format!("rpc/nfs-{procedure:02}").into(), one_record(&call(100_003, 3, procedure))));
    }
    for (name, program, version, procedures) in
        [("mount", 100_005, 3, 6), ("portmap", 100_000, 2, 6), ("acl", 100_227, 3, 3)]
    {
        for procedure in 0..procedures {
            let record = one_record(&call(program, version, procedure));
            all.push((format!("rpc/{name}-{procedure}").into(), record));
        }
    }
    all.push(("handle/first".into(), vec![1, 2, 3]));
    for (name, tar) in tars() {
        all.push((format!("tar/{name}").into(), tar.clone()));
        all.push((format!("layer/{name}").into(), tar));
    }
    all.push(("index/small".into(), index()));
    all.extend(netboot());
    let skeleton = [&[1, 3, 0, 0, 0][..], b"raw", &[2, 4, 0], b"file", &9_u64.to_le_bytes(), &[0]].concat();
    all.push(("skeleton/small".into(), skeleton));
    let mut shaped = b"walt-net[lat=1ms,jitter=1ms,dist=pareto,loss=5%,burst=1%/25%,dup=5%,reorder=5%,corrupt=50%,queue=3,\
        bw=64kbps,seed=7],lab[lat.up=2s]\n"
        .to_vec();
    for length in [0, 1, 13, 14, 15, 60, 200, 60, 60, 60, 60] {
        shaped.push(length);
        shaped.extend(0..length);
    }
    all.push(("link/all".into(), shaped));
    all
}

/// Packets, each behind its length.
fn conversation(packets: &[&[u8]]) -> Vec<u8> {
    let framed =
        packets.iter().flat_map(|p| [&u16::try_from(p.len()).unwrap().to_be_bytes()[..], p].concat());
    framed.collect()
}

/// What real clients sent, and what transfers and queries are made of.
fn netboot() -> Vec<(PathBuf, Vec<u8>)> {
    const UDHCPC: &[u8] = include_bytes!("../../crates/walt-netboot/src/dhcp/samples/udhcpc-discover.bin");
    const IPXE: &[u8] = include_bytes!("../../crates/walt-netboot/src/dhcp/samples/ipxe-discover.bin");
    const SOLICITATION: &[u8] = include_bytes!("../../crates/walt-netboot/src/samples/ipxe-solicitation.bin");
    let request: &[u8] =
        b"\x00\x01kernel\0octet\0tsize\x000\0blksize\x001024\0windowsize\x004\0timeout\x002\0";
    let (ack0, ack4, error): (&[u8], &[u8], &[u8]) =
        (&[0, 4, 0, 0], &[0, 4, 0, 4], b"\x00\x05\x00\x00enough\0");
    let query = |name: &[u8], kind: u8| {
        [b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00", name, &[0, 0, kind, 0, 1]].concat()
    };
    vec![
        ("dhcp/udhcpc".into(), conversation(&[UDHCPC, UDHCPC])),
        ("dhcp/ipxe".into(), conversation(&[IPXE, UDHCPC, IPXE])),
        ("tftp/options".into(), conversation(&[request, ack0, ack4, b"", ack4, error])),
        ("tftp/plain".into(), conversation(&[b"\x00\x01a\0octet\0", &[0, 4, 0, 1], b"", b""])),
        ("dns/name".into(), query(b"\x03vn1\x04walt", 1)),
        ("dns/address".into(), query(b"\x012\x03183\x03168\x03192\x07in-addr\x04arpa", 12)),
        ("ra/ipxe".into(), SOLICITATION.to_vec()),
        ("boot-path/plain".into(), b"/pxe/../boot/./start.ipxe".to_vec()),
        ("boot-path/node".into(), b"/var/lib/walt/nodes/vn1/tftp/kernel".to_vec()),
    ]
}

/// Arguments that fit many procedures: handle, name, handle, name, zeros.
fn call(program: u32, version: u32, procedure: u32) -> Vec<u8> {
    let mut out = Vec::new();
    for word in [7, 0, 2, program, version, procedure, 1, 24, 0, 0, 0, 0, 1, 0, 0, 0] {
        out.extend(u32::to_be_bytes(word));
    }
    let name = |out: &mut Vec<u8>, name: &[u8]| {
        out.extend(u32::try_from(name.len()).unwrap().to_be_bytes());
        out.extend(name);
        out.resize(out.len().next_multiple_of(4), 0);
    };
    match (program, procedure) {
        (100_005, _) => name(&mut out, b"/x"),
        (100_000, _) => [100_003, 3, 6, 0].iter().for_each(|w| out.extend(u32::to_be_bytes(*w))),
        // READDIR and READDIRPLUS: cookie, verifier, sizes; READ and COMMIT: offset, count
        (_, 16 | 17) => {
            out.extend(b"HNDL");
            [0, 0, 0, 0, 4096, 4096].iter().for_each(|w| out.extend(u32::to_be_bytes(*w)));
        }
        (_, 6 | 21) => {
            out.extend(b"HNDL");
            [0, 0, 512].iter().for_each(|w| out.extend(u32::to_be_bytes(*w)));
        }
        (_, 7) => {
            out.extend(b"HNDL");
            [0, 0, 4, 2, 4, 0x6461_7461].iter().for_each(|w| out.extend(u32::to_be_bytes(*w)));
        }
        // LINK: two handles
        (_, 15) => {
            out.extend(b"HNDLHNDL");
            name(&mut out, b"new");
        }
        _ => {
            out.extend(b"HNDL");
            name(&mut out, b"file1");
            out.extend(b"HNDL");
            name(&mut out, b"file2");
            out.extend([0; 32]);
        }
    }
    out
}

/// As a connection from one of root's ports: a mark and the record.
fn one_record(record: &[u8]) -> Vec<u8> {
    let mut out = vec![0];
    out.extend((u32::try_from(record.len()).unwrap() | 1 << 31).to_be_bytes());
    out.extend(record);
    out
}

fn tars() -> Vec<(&'static str, Vec<u8>)> {
    let end = vec![0; 1024];
    let xattrs = [
        pax("SCHILY.xattr.user.note", "x"),
        pax("SCHILY.xattr.trusted.overlay.redirect", "/etc"),
        pax("SCHILY.xattr.trusted.overlay.opaque", "y"),
        pax("mtime", "-1.5"),
        pax("path", "dir/a-long-name"),
    ]
    .concat();
    vec![
        ("plain", [entry("dir/", b'5', b"", ""), entry("dir/file", b'0', b"text", ""), end.clone()].concat()),
        (
            "links",
            [
                entry("up", b'2', b"", "../../.."),
                entry("up/secret", b'0', b"x", ""),
                entry("hard", b'1', b"", "up/secret"),
                entry("../secret", b'0', b"x", ""),
                end.clone(),
            ]
            .concat(),
        ),
        (
            "hard-link",
            [entry("a", b'0', b"x", ""), entry("b", b'1', b"", "a"), entry("p", b'6', b"", ""), end.clone()]
                .concat(),
        ),
        (
            "whiteouts",
            [
                entry("d/.wh.x", b'0', b"", ""),
                entry("d/.wh..wh..opq", b'0', b"", ""),
                entry("d/x", b'0', b"new", ""),
                entry("n", b'3', b"", ""),
                end.clone(),
            ]
            .concat(),
        ),
        ("pax", [entry("pax", b'x', &xattrs, ""), entry("short", b'0', b"data", ""), end.clone()].concat()),
        (
            "gnu",
            [entry("././@LongLink", b'L', b"dir/long-name\0", ""), entry("dir/lo", b'0', b"", ""), end]
                .concat(),
        ),
    ]
}

fn pax(key: &str, value: &str) -> Vec<u8> {
    let body = format!(" {key}={value}\n");
    let mut len = body.len() + 2;
    while len != body.len() + len.to_string().len() {
        len = body.len() + len.to_string().len();
    }
    format!("{len}{body}").into_bytes()
}

/// A ustar entry (POSIX.1-2017, pax).
fn entry(name: &str, kind: u8, data: &[u8], link: &str) -> Vec<u8> {
    let mut block = vec![0; 512];
    let mut put = |at: usize, text: &[u8]| block[at..at + text.len()].copy_from_slice(text);
    put(0, name.as_bytes());
    put(100, b"0000755\x000000000\x000000000\0");
    put(124, format!("{:011o}\0", data.len()).as_bytes());
    put(136, b"00000000001\0        ");
    put(156, &[kind]);
    put(157, link.as_bytes());
    put(257, b"ustar\x0000");
    put(329, b"0000001\x000000003\0");
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block.extend(data);
    block.resize(block.len().next_multiple_of(512), 0);
    block
}

/// The index of a view of one small layer.
fn index() -> Vec<u8> {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let store = Store::open(dir.path()).unwrap();
    let layer = store.import_tar(tars()[0].1.as_slice()).unwrap();
    let view = store.view(&[layer.diff_id], None).unwrap();
    std::fs::read(dir.path().join("images/views").join(view.id().to_string())).unwrap()
}
