//! The dispatcher over a small tree in memory: what is refused before the back end is asked, the limits
//! of READDIR, and that no bytes make it panic.

#![allow(clippy::unwrap_used)] // a test's assertion, also in its helpers

mod mem;

use mem::{Mem, SECRET, dispatcher, object};
use proptest::prelude::*;
use std::net::Ipv4Addr;
use std::sync::atomic::Ordering;
use walt_nfs::xdr::{Reader, Write};
use walt_nfs::*;

const TRUSTED: Peer = Peer { address: Ipv4Addr::new(10, 0, 0, 2), trusted: true };

fn record(program: u32, version: u32, procedure: u32, args: &[u8]) -> Vec<u8> {
    let mut rec = Vec::new();
    for v in [77, 0, 2, program, version, procedure, 1, 20, 0, 0, 0, 0, 0, 0, 0] {
        rec.put_u32(v);
    }
    rec.extend_from_slice(args);
    rec
}

/// The reply's words after the xid.
fn ask(d: &Dispatcher<Mem>, peer: Peer, program: u32, version: u32, proc: u32, args: &[u8]) -> Vec<u8> {
    let rec = record(program, version, proc, args);
    let mut out = Vec::new();
    d.reply(&Call::parse(&rec).expect("a call"), peer, &mut out);
    assert_eq!(out[..4], 77u32.to_be_bytes());
    assert_eq!(out.len() % 4, 0);
    out.split_off(4)
}

/// The result of an NFS procedure, after the header of an accepted call.
fn nfs(d: &Dispatcher<Mem>, proc: Proc, args: &[u8]) -> Vec<u8> {
    let reply = ask(d, TRUSTED, 100_003, 3, proc as u32, args);
    assert_eq!(
        reply[..20],
        [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        "{proc:?} accepted"
    );
    reply[20..].to_vec()
}

fn handle(entry: u32) -> Vec<u8> {
    HandleKey::new(&SECRET).seal(&object(entry)).as_slice().to_vec()
}

fn status(result: &[u8]) -> u32 {
    Reader::new(result).u32().expect("a status")
}

/// Well-formed arguments of every procedure but NULL, on the given handle.
fn arguments(h: &[u8]) -> Vec<(Proc, Vec<u8>)> {
    let zero = |n: usize| vec![0; 4 * n];
    let name = |s: &str| {
        let mut v = Vec::new();
        v.put_opaque(s.as_bytes());
        v
    };
    let second = || {
        let mut v = Vec::new();
        v.put_opaque(h);
        v
    };
    use Proc::*;
    [
        (GetAttr, vec![]),
        (SetAttr, zero(7)),
        (Lookup, name("file1")),
        (Access, vec![0, 0, 0, 63]),
        (ReadLink, vec![]),
        (Read, [zero(2), vec![0, 0, 0, 9]].concat()),
        (Write, zero(5)),
        (Create, [name("n"), zero(7)].concat()),
        (MkDir, [name("n"), zero(6)].concat()),
        (SymLink, [name("n"), zero(6), name("target")].concat()),
        (MkNod, [name("n"), vec![0, 0, 0, 7], zero(6)].concat()),
        (Remove, name("n")),
        (RmDir, name("n")),
        (Rename, [name("n"), second(), name("m")].concat()),
        (Link, [second(), name("m")].concat()),
        (ReadDir, [zero(4), vec![0, 1, 0, 0]].concat()),
        (ReadDirPlus, [zero(4), vec![0, 1, 0, 0], vec![0, 1, 0, 0]].concat()),
        (FsStat, vec![]),
        (FsInfo, vec![]),
        (PathConf, vec![]),
        (Commit, zero(3)),
    ]
    .into_iter()
    .map(|(p, rest)| (p, [second(), rest].concat()))
    .collect()
}

#[test]
fn every_procedure_answers() {
    let d = dispatcher(3);
    for (proc, args) in arguments(&handle(0)) {
        let want = match proc {
            Proc::ReadLink => 22,
            p if p.must_not_repeat() && p != Proc::MkDir || p == Proc::Write => 30,
            _ => 0,
        };
        assert_eq!(status(&nfs(&d, proc, &args)), want, "{proc:?}");
    }
}

#[test]
fn a_bad_handle_never_reaches_the_back_end() {
    let d = dispatcher(3);
    let good = handle(0);
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        for (proc, args) in arguments(&bad) {
            assert_eq!(status(&nfs(&d, proc, &args)), Status::BadHandle as u32, "{proc:?} byte {at}");
        }
    }
    for (proc, args) in arguments(&good) {
        let peer = Peer { trusted: false, ..TRUSTED };
        let reply = ask(&d, peer, 100_003, 3, proc as u32, &args);
        assert_eq!(status(&reply[20..]), Status::Perm as u32, "{proc:?}");
    }
    assert_eq!(d.vfs().asked.load(Ordering::Relaxed), 0);
}

#[test]
fn names_are_one_component() {
    let d = dispatcher(3);
    let long = "x".repeat(256);
    for (proc, name, want) in [
        (Proc::Lookup, "a/b", 13),
        (Proc::Lookup, "", 13),
        (Proc::Lookup, "a\0", 13),
        (Proc::Lookup, long.as_str(), 63),
        (Proc::Remove, "..", 22),
        (Proc::Remove, "../x", 13),
        (Proc::RmDir, ".", 22),
    ] {
        let mut args = Vec::new();
        args.put_opaque(&handle(0));
        args.put_opaque(name.as_bytes());
        assert_eq!(status(&nfs(&d, proc, &args)), want, "{proc:?} {name:?}");
    }
    let mut args = Vec::new();
    args.put_opaque(&handle(0));
    args.put_opaque(b"..");
    args.extend([0; 24]);
    assert_eq!(status(&nfs(&d, Proc::MkDir, &args)), 17);
}

#[test]
fn refusals() {
    let d = dispatcher(0);
    for (program, version, proc, args, want) in [
        (100_003, 2, 1, &[][..], &[1, 0, 0, 0, 2, 3, 3][..]),
        (100_003, 4, 0, &[], &[1, 0, 0, 0, 2, 3, 3]),
        // NLM: nodes mount with nolock
        (100_021, 4, 0, &[], &[1, 0, 0, 0, 1]),
        (100_227, 3, 0, &[], &[1, 0, 0, 0, 0]),
        (100_227, 3, 3, &[], &[1, 0, 0, 0, 3]),
        (100_003, 3, 22, &[], &[1, 0, 0, 0, 3]),
        (100_003, 3, 1, &[0, 0], &[1, 0, 0, 0, 4]),
        (100_005, 3, 9, &[], &[1, 0, 0, 0, 3]),
        (100_000, 2, 5, &[], &[1, 0, 0, 0, 3]),
        (100_003, 3, 0, &[], &[1, 0, 0, 0, 0]),
        (100_005, 3, 0, &[], &[1, 0, 0, 0, 0]),
        // GETPORT of NFS over TCP, over UDP
        (100_000, 2, 3, &[0, 1, 0x86, 0xa3, 0, 0, 0, 3, 0, 0, 0, 6, 0, 0, 0, 0], &[1, 0, 0, 0, 0, 2049]),
        (100_000, 2, 3, &[0, 1, 0x86, 0xa3, 0, 0, 0, 3, 0, 0, 0, 17, 0, 0, 0, 0], &[1, 0, 0, 0, 0, 0]),
    ] {
        let reply = ask(&d, TRUSTED, program, version, proc, args);
        let words: Vec<u32> =
            reply.chunks_exact(4).map(|c| u32::from_be_bytes(c.try_into().unwrap())).collect();
        assert_eq!(words, want, "{program} {version} {proc}");
    }
}

#[test]
fn there_are_no_acls() {
    let d = dispatcher(1);
    let ask_acl = |proc, handle: &[u8], mask: u32| {
        let mut args = Vec::new();
        args.put_opaque(handle);
        args.put_u32(mask);
        ask(&d, TRUSTED, nfsacl::PROGRAM, nfsacl::VERSION, proc, &args)[20..].to_vec()
    };
    let mut want = Vec::new();
    // OK, attributes follow; after them the mask and four zeros: two empty lists with their numbers.
    want.put_u32(0);
    want.put_bool(true);
    let got = ask_acl(1, &handle(1), 0xf);
    assert_eq!(got[..8], want);
    assert_eq!(got[got.len() - 20..], [0, 0, 0, 0xf, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(got.len(), 8 + 84 + 20);
    assert_eq!(status(&ask_acl(1, &handle(1), 0x10)), Status::Inval as u32);
    assert_eq!(status(&ask_acl(1, &handle(7), 0xf)), Status::Stale as u32);
    assert_eq!(status(&ask_acl(1, b"bad", 0xf)), Status::BadHandle as u32);
    assert_eq!(status(&ask_acl(2, &handle(1), 0xf)), Status::NotSupp as u32);
}

#[test]
fn mount_gives_a_handle() {
    let d = dispatcher(1);
    let mut args = Vec::new();
    args.put_opaque(b"/x");
    let reply = ask(&d, TRUSTED, 100_005, 3, 1, &args);
    let mut r = Reader::new(&reply[20..]);
    assert_eq!(r.u32(), Ok(0));
    assert_eq!(r.opaque(64), Ok(&handle(0)[..]));
    assert_eq!((r.u32(), r.u32()), (Ok(1), Ok(1)));
    let reply = ask(&d, Peer { trusted: false, ..TRUSTED }, 100_005, 3, 1, &args);
    assert_eq!(status(&reply[20..]), 13);
}

#[test]
fn a_retry_gets_its_first_answer() {
    let d = dispatcher(1);
    let (proc, args) = arguments(&handle(0)).into_iter().find(|(p, _)| *p == Proc::MkDir).expect("listed");
    let first = nfs(&d, proc, &args);
    let asked = d.vfs().asked.load(Ordering::Relaxed);
    assert_eq!(nfs(&d, proc, &args), first);
    assert_eq!(d.vfs().asked.load(Ordering::Relaxed), asked, "not run twice");
}

/// Reads a whole directory in replies of at most `count` bytes.
fn list(
    d: &Dispatcher<Mem>,
    plus: bool,
    dircount: u32,
    count: u32,
) -> std::result::Result<Vec<Vec<u8>>, u32> {
    let (mut names, mut cookie) = (Vec::new(), 0);
    loop {
        let mut args = Vec::new();
        args.put_opaque(&handle(0));
        args.put_u64(cookie);
        args.put_u64(0);
        if plus {
            args.put_u32(dircount);
        }
        args.put_u32(count);
        let result = nfs(d, if plus { Proc::ReadDirPlus } else { Proc::ReadDir }, &args);
        let mut r = Reader::new(&result);
        let status = r.u32().unwrap();
        if status != 0 {
            return Err(status);
        }
        assert!(r.rest().len() <= count as usize, "{} bytes for {count}", r.rest().len());
        assert!(r.bool().unwrap());
        r = Reader::new(&r.rest()[84 + 8..]);
        while r.bool().unwrap() {
            let _fileid = r.u64().unwrap();
            names.push(r.opaque(255).unwrap().to_vec());
            cookie = r.u64().unwrap();
            if plus {
                assert!(r.bool().unwrap());
                r = Reader::new(&r.rest()[84..]);
                assert!(r.bool().unwrap());
                r.opaque(64).unwrap();
            }
        }
        if r.bool().unwrap() {
            assert!(r.rest().is_empty());
            return Ok(names);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn directories_are_whole_whatever_the_limits(names in 0u32..200, plus: bool, dircount in 0u32..4096, count in 0u32..6000) {
        match list(&dispatcher(names), plus, dircount, count) {
            Ok(got) => {
                let want: Vec<_> = (1..=names).map(|n| format!("file{n}").into_bytes()).collect();
                prop_assert_eq!(got, want);
            }
            Err(status) => {
                prop_assert_eq!(status, Status::TooSmall as u32);
                prop_assert!(count < 104 + 28 + 12 + 88 + 52 + 4);
            }
        }
    }

    #[test]
    fn any_arguments(proc in 0u32..24, program in prop_oneof![Just(100_000u32), Just(100_003), Just(100_005), Just(100_227)],
                     with_handle: bool, tail in proptest::collection::vec(any::<u8>(), 0..120)) {
        let d = dispatcher(3);
        let mut args = Vec::new();
        if with_handle {
            args.put_opaque(&handle(0));
        }
        args.extend(tail);
        let version = if program == 100_000 { 2 } else { 3 };
        ask(&d, TRUSTED, program, version, proc, &args);
    }

    #[test]
    fn cut_arguments(which in 0usize..21, cut in any::<prop::sample::Index>(), flip in any::<prop::sample::Index>(), bit in 0u8..8) {
        let d = dispatcher(3);
        let (proc, mut args) = arguments(&handle(1)).swap_remove(which);
        let at = flip.index(args.len());
        args[at] ^= 1 << bit;
        args.truncate(cut.index(args.len()) + 1);
        ask(&d, TRUSTED, 100_003, 3, proc as u32, &args);
    }
}
