//! Each procedure, word by word: what the back end is asked for by a call, and what the client is told of
//! its result. The words are those of RFC 1813.

#![allow(clippy::unwrap_used)] // a test's assertion, also in its helpers

mod recorder;

use recorder::{ATTR, Recorder, WCC_WORDS, dir, persist, view};
use std::net::Ipv4Addr;
use walt_nfs::xdr::Write;
use walt_nfs::*;

const SECRET: [u8; 16] = [5; 16];
const PEER: Peer = Peer { address: Ipv4Addr::new(10, 0, 0, 2), trusted: true };
fn words(of: &[u32]) -> Vec<u8> {
    of.iter().flat_map(|w| w.to_be_bytes()).collect()
}

fn opaque(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_opaque(bytes);
    out
}

fn handle(o: &Object) -> Vec<u8> {
    opaque(HandleKey::new(&SECRET).seal(o).as_slice())
}

/// The words of bytes that were encoded.
fn read(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|c| u32::from_be_bytes(c.try_into().unwrap())).collect()
}

/// A call of AUTH_SYS by user 1000 of group 100, with group 27 besides.
fn record(program: u32, version: u32, procedure: u32, args: &[u8]) -> Vec<u8> {
    let credential = words(&[0, 0, 1000, 100, 1, 27]);
    [words(&[77, 0, 2, program, version, procedure, 1]), opaque(&credential), words(&[0, 0]), args.to_vec()]
        .concat()
}

/// The words of the reply behind the transaction's number, and what the back end was asked for.
fn ask(vfs: Recorder, peer: Peer, record: &[u8]) -> (Vec<u32>, Vec<String>) {
    let d = Dispatcher::new(vfs, HandleKey::new(&SECRET), portmap::one_port(2049));
    let mut out = Vec::new();
    d.reply(&Call::parse(record).expect("a call"), peer, &mut out);
    assert_eq!(out.len() % 4, 0);
    let reply = read(&out);
    assert_eq!(reply[0], 77);
    (reply[1..].to_vec(), d.vfs().asked.lock().unwrap().clone())
}

/// The result of an NFS procedure on [`dir`], behind the header of an accepted call, and what was asked.
fn nfs(vfs: Recorder, proc: Proc, args: &[u8]) -> (Vec<u32>, Vec<String>) {
    let args = [handle(&dir()), args.to_vec()].concat();
    let (reply, asked) = ask(vfs, PEER, &record(nfs3::PROGRAM, nfs3::VERSION, proc as u32, &args));
    assert_eq!(reply[..5], [1, 0, 0, 0, 0], "{proc:?} was accepted");
    (reply[5..].to_vec(), asked)
}

/// `sattr3` with everything in it, and what it means.
fn all_attributes() -> (Vec<u8>, SetAttr) {
    // The type of the file in the mode is not the client's to say.
    let bytes = words(&[1, 0o104_755, 1, 1001, 1, 101, 1, 1, 2, 1, 2, 50, 60]);
    let to = SetTime::To(Time { sec: 50, nsec: 60 });
    let set = SetAttr {
        mode: Some(0o4755),
        uid: Some(1001),
        gid: Some(101),
        size: Some(0x1_0000_0002),
        atime: SetTime::Now,
        mtime: to,
    };
    (bytes, set)
}

const NO_ATTRIBUTES: [u32; 6] = [0; 6];

#[test]
fn calls_and_results() {
    let (set_bytes, set) = all_attributes();
    let none = walt_nfs::SetAttr::default();
    let (dir_handle, new) = (handle(&view(9, 3)), read(&handle(&view(9, 7))));
    let created = [&[0, 1][..], &new, &[1], &ATTR, &WCC_WORDS].concat();
    let with_attr = |rest: &[u32]| [&[0, 1], &ATTR[..], rest].concat();
    let changed = [&[0][..], &WCC_WORDS].concat();
    let mut other = ATTR;
    other[14] = 41;
    let n = || opaque(b"name");
    use Proc::*;
    let table: Vec<(Proc, Vec<u8>, String, Vec<u32>)> = vec![
        (GetAttr, vec![], "getattr view9/1 1000 100 [27]".into(), [&[0], &ATTR[..]].concat()),
        (
            SetAttr,
            [set_bytes.clone(), words(&[1, 30, 3])].concat(),
            format!("setattr view9/1 {set:?} {:?}", Some(Time { sec: 30, nsec: 3 })),
            changed.clone(),
        ),
        (SetAttr, words(&[0; 7]), format!("setattr view9/1 {none:?} None"), changed.clone()),
        (Lookup, n(), "lookup view9/1 name".into(), [&[0][..], &new, &[1], &ATTR, &[1], &other].concat()),
        (Access, words(&[0x15]), "access view9/1 0x15".into(), with_attr(&[0x11])),
        (ReadLink, vec![], "readlink view9/1".into(), with_attr(&read(&opaque(b"/etc/x")))),
        (
            Read,
            words(&[1, 7, 9]),
            "read view9/1 4294967303 9".into(),
            with_attr(&[&[5, 1][..], &read(&opaque(b"hello"))].concat()),
        ),
        // More than is served at once is read in part.
        (
            Read,
            words(&[0, 0, u32::MAX]),
            "read view9/1 0 1048576".into(),
            with_attr(&[&[5, 1][..], &read(&opaque(b"hello"))].concat()),
        ),
        (
            Create,
            [n(), words(&[0]), set_bytes.clone()].concat(),
            format!("create view9/1 name {:?}", CreateHow::Unchecked(set)),
            created.clone(),
        ),
        (
            Create,
            [n(), words(&[1]), words(&NO_ATTRIBUTES)].concat(),
            format!("create view9/1 name {:?}", CreateHow::Guarded(none)),
            created.clone(),
        ),
        (
            Create,
            [n(), words(&[2]), b"verifier".to_vec()].concat(),
            format!("create view9/1 name {:?}", CreateHow::Exclusive(*b"verifier")),
            created.clone(),
        ),
        (MkDir, [n(), set_bytes.clone()].concat(), format!("mkdir view9/1 name {set:?}"), created.clone()),
        (
            SymLink,
            [n(), set_bytes.clone(), opaque(b"../x")].concat(),
            format!("symlink view9/1 name ../x {set:?}"),
            created.clone(),
        ),
        (Remove, n(), "remove view9/1 name".into(), changed.clone()),
        (RmDir, n(), "rmdir view9/1 name".into(), changed.clone()),
        (
            Rename,
            [n(), dir_handle.clone(), opaque(b"new")].concat(),
            "rename view9/1 name view9/3 new".into(),
            [&changed[..], &[0, 0]].concat(),
        ),
        (
            Link,
            [dir_handle, n()].concat(),
            "link view9/1 view9/3 name".into(),
            [&[0, 1], &ATTR[..], &WCC_WORDS].concat(),
        ),
        (
            FsInfo,
            vec![],
            "getattr view9/1 1000 100 [27]".into(),
            // 1 MiB in blocks of 4 KiB at once, 64 KiB of a directory, files of 2^63 - 1 bytes, times in ns;
            // links, symbolic links, the same for all files, times can be set.
            with_attr(&[
                0x10_0000,
                0x10_0000,
                4096,
                0x10_0000,
                0x10_0000,
                4096,
                0x1_0000,
                0x7fff_ffff,
                u32::MAX,
                0,
                1,
                0x1b,
            ]),
        ),
        (PathConf, vec![], "getattr view9/1 1000 100 [27]".into(), with_attr(&[32_000, 255, 1, 1, 0, 1])),
        (Commit, words(&[0, 0, 0]), "commit view9/1".into(), [&changed[..], &[8, 9]].concat()),
    ];
    let specials = [
        (vec![3], vec![8, 1], Special::Block(8, 1)),
        (vec![4], vec![1, 3], Special::Char(1, 3)),
        (vec![6], vec![], Special::Socket),
        (vec![7], vec![], Special::Fifo),
    ];
    let specials = specials.map(|(kind, device, special)| {
        let args = [n(), words(&kind), set_bytes.clone(), words(&device)].concat();
        (MkNod, args, format!("mknod view9/1 name {special:?} {set:?}"), created.clone())
    });
    for (proc, args, call, result) in table.into_iter().chain(specials) {
        let (told, asked) = nfs(Recorder { end: true, ..Recorder::default() }, proc, &args);
        assert_eq!(told, result, "{proc:?}");
        let expected = match proc {
            // RFC 1813, section 4.5, on what is not idempotent.
            SetAttr | Create | MkDir | SymLink | MkNod | Remove | RmDir | Rename | Link => {
                vec!["replay view9/1".to_owned(), call, "completed view9/1 0".to_owned()]
            }
            _ => vec![call],
        };
        assert_eq!(asked, expected, "{proc:?}");
    }
    let (told, asked) = nfs(Recorder::default(), FsStat, &[]);
    assert_eq!(told, with_attr(&[1, 0, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 7]));
    assert_eq!(asked[0], "fsstat view9/1");
    let (told, _) = nfs(Recorder::default(), Read, &words(&[0, 0, 9]));
    assert_eq!(told[24], 0, "not the end of the file");
}

#[test]
fn writes() {
    let write = |offset: u64, count: u32, stable: u32, data: &[u8]| {
        let args = [offset.to_be_bytes().to_vec(), words(&[count, stable]), opaque(data)].concat();
        let args = [handle(&dir()), args].concat();
        ask(Recorder::default(), PEER, &record(nfs3::PROGRAM, nfs3::VERSION, Proc::Write as u32, &args))
    };
    for (number, stable) in [(0, "Unstable"), (1, "DataSync"), (2, "FileSync")] {
        let (told, asked) = write(1 << 33, 5, number, b"hello");
        assert_eq!(asked, [format!("write view9/1 8589934592 hello {stable}")]);
        // What was written, how durable it is, and the verifier: as the back end says.
        assert_eq!(told[5..], [&[0][..], &WCC_WORDS, &[3, 2, 8, 9]].concat());
    }
    let last = i64::MAX as u64;
    assert_eq!(write(last - 5, 5, 0, b"hello").0[5], 0, "the last byte that a file can have");
    assert_eq!(write(last - 4, 5, 0, b"hello").0[5..], [Status::FBig as u32, 0, 0]);
    assert_eq!(write(u64::MAX, 5, 0, b"hello").0[5..], [Status::FBig as u32, 0, 0]);
    for (count, stable) in [(5, 3), (4, 0), (6, 0)] {
        assert_eq!(write(0, count, stable, b"hello"), (vec![1, 0, 0, 0, 4], vec![]), "garbage");
    }
}

#[test]
fn what_cannot_be_made() {
    let n = || opaque(b"name");
    let none = || words(&NO_ATTRIBUTES);
    let link = |target: usize| [n(), none(), opaque(&vec![b'x'; target])].concat();
    for (proc, args, status) in [
        (Proc::SymLink, link(1), 0),
        (Proc::SymLink, link(nfs3::MAX_TARGET), 0),
        (Proc::SymLink, link(nfs3::MAX_TARGET + 1), 63),
        (Proc::SymLink, link(8000), 63),
        (Proc::SymLink, link(0), 22),
        (Proc::SymLink, [n(), none(), opaque(b"a\0b")].concat(), 22),
        (Proc::MkNod, [n(), words(&[1]), none()].concat(), 10007),
        (Proc::MkNod, [n(), words(&[2]), none()].concat(), 10007),
        (Proc::MkNod, [n(), words(&[5]), none()].concat(), 10007),
        (Proc::MkNod, [n(), words(&[8]), none()].concat(), 10007),
        (Proc::MkDir, [opaque(&[b'x'; 255]), none()].concat(), 0),
        (Proc::MkDir, [opaque(&[b'x'; 256]), none()].concat(), 63),
        (Proc::MkDir, [opaque(b""), none()].concat(), 13),
        (Proc::MkDir, [opaque(b"."), none()].concat(), 17),
        // Nothing leaves its view or export.
        (Proc::Rename, [n(), handle(&view(8, 3)), n()].concat(), 18),
        (Proc::Rename, [n(), handle(&persist(1)), n()].concat(), 18),
        (Proc::Link, [handle(&view(8, 3)), n()].concat(), 18),
        (Proc::Link, [handle(&persist(1)), n()].concat(), 18),
        (Proc::Rename, [n(), opaque(b"bad"), n()].concat(), 10001),
        (Proc::Rename, [n(), handle(&view(9, 3)), opaque(b"..")].concat(), 17),
        (Proc::Rename, [opaque(b".."), handle(&view(9, 3)), n()].concat(), 22),
        (Proc::Link, [handle(&view(9, 3)), opaque(b"..")].concat(), 17),
    ] {
        let (told, asked) = nfs(Recorder::default(), proc, &args);
        assert_eq!(told[0], status, "{proc:?} {asked:?}");
        let is_done = |call: &String| !call.starts_with("replay") && !call.starts_with("completed");
        assert_eq!(asked.iter().any(is_done), status == 0, "{proc:?} {asked:?}");
    }
    // Between two files of /persist it depends on the export.
    for (export, status) in [(1, 0), (2, 18)] {
        let args = [handle(&persist(1)), handle(&persist(export)), n()].concat();
        let record = record(nfs3::PROGRAM, nfs3::VERSION, Proc::Link as u32, &args);
        assert_eq!(ask(Recorder::default(), PEER, &record).0[5], status);
    }
    for (proc, args) in [
        (Proc::Create, [n(), words(&[3]), none()].concat()),
        (Proc::SetAttr, words(&[0, 0, 0, 0, 0, 0, 2])),
        (Proc::SetAttr, words(&[0, 0, 0, 0, 3, 0, 0])),
        (Proc::Lookup, opaque(&[b'x'; 4097])),
    ] {
        let args = [handle(&dir()), args].concat();
        let record = record(nfs3::PROGRAM, nfs3::VERSION, proc as u32, &args);
        assert_eq!(ask(Recorder::default(), PEER, &record), (vec![1, 0, 0, 0, 4], vec![]), "{proc:?}");
    }
}

/// The `resfail` of each procedure: what can be left out is left out.
#[test]
fn failures() {
    let n = || opaque(b"name");
    let none = || words(&NO_ATTRIBUTES);
    let second = || handle(&view(9, 3));
    use Proc::*;
    for (proc, args, missing) in [
        (GetAttr, vec![], 0),
        (SetAttr, words(&[0; 7]), 2),
        (Lookup, n(), 1),
        (Access, words(&[1]), 1),
        (ReadLink, vec![], 1),
        (Read, words(&[0, 0, 9]), 1),
        (Write, [words(&[0, 0, 1, 0]), opaque(b"x")].concat(), 2),
        (Create, [n(), words(&[0]), none()].concat(), 2),
        (MkDir, [n(), none()].concat(), 2),
        (SymLink, [n(), none(), opaque(b"x")].concat(), 2),
        (MkNod, [n(), words(&[7]), none()].concat(), 2),
        (Remove, n(), 2),
        (RmDir, n(), 2),
        (Rename, [n(), second(), n()].concat(), 4),
        (Link, [second(), n()].concat(), 3),
        (ReadDir, words(&[0, 0, 0, 0, 4096]), 1),
        (ReadDirPlus, words(&[0, 0, 0, 0, 4096, 4096]), 1),
        (FsStat, vec![], 1),
        (FsInfo, vec![], 1),
        (PathConf, vec![], 1),
        (Commit, words(&[0, 0, 0]), 2),
    ] {
        let failing = |status| Recorder { failure: Some(status), ..Recorder::default() };
        let (told, asked) = nfs(failing(Status::Io), proc, &args);
        assert_eq!(told, [vec![5], vec![0; missing]].concat(), "{proc:?}");
        let keeps = proc.must_not_repeat();
        assert_eq!(keeps, asked.last().is_some_and(|call| call == "completed view9/1 5"), "{asked:?}");
        // "Try again later" is not an answer to keep.
        let (told, asked) = nfs(failing(Status::Jukebox), proc, &args);
        assert_eq!(told, [vec![10008], vec![0; missing]].concat(), "{proc:?}");
        assert_eq!(keeps, asked.last().is_some_and(|call| call == "deferred view9/1"), "{asked:?}");
        // What was kept is told again, and nothing is done.
        if keeps {
            let kept = words(&[0, 11, 12]);
            let (told, asked) = nfs(Recorder { kept: Some(kept), ..Recorder::default() }, proc, &args);
            assert_eq!((told, asked), (vec![0, 11, 12], vec!["replay view9/1".to_owned()]), "{proc:?}");
        }
    }
    // The directory's attributes let a client keep "no such name".
    let failing = Recorder { failure: Some(Status::NoEnt), ..Recorder::default() };
    assert_eq!(nfs(failing, Lookup, &n()).0, [&[2, 1], &ATTR[..]].concat());
}

/// Two names, the second without attributes: what fits, to the byte.
#[test]
fn directories() {
    let new = read(&handle(&view(9, 7)));
    let mut attr = ATTR;
    attr[14] = 41;
    let head = [&[0, 1], &attr[..], &[0, 0]].concat();
    let first = [1, 0, 40, 1, u32::from_be_bytes(*b"a\0\0\0"), 0, 5];
    let second = [&[1, 1, 0][..], &read(&opaque(b"bcdef")), &[0, 6]].concat();
    let plain = [head.clone(), first.to_vec(), second.clone()].concat();
    let plus = [&head[..], &first, &[1], &ATTR, &[1], &new, &second, &[0, 0]].concat();
    let one = |all: &[u32], words: usize| [&all[..head.len() + words], &[0, 0]].concat();
    let list = |count: u32, end: bool| {
        nfs(Recorder { end, ..Recorder::default() }, Proc::ReadDir, &words(&[1, 3, 0, 0, count]))
    };
    // Attributes 88, verifier 8, the names 28 and 32, no more names 4, eof 4.
    let (told, asked) = list(164, true);
    assert_eq!(asked, ["readdir view9/1 4294967299 false"]);
    assert_eq!(told, [&plain[..], &[0, 1]].concat());
    assert_eq!(list(u32::MAX, true).0, told);
    assert_eq!(list(u32::MAX, false).0, [&plain[..], &[0, 0]].concat(), "the back end has more");
    // A name that did not fit is still to come, whatever the back end says.
    assert_eq!(list(163, true).0, one(&plain, 7));
    assert_eq!(list(132, false).0, one(&plain, 7));
    assert_eq!(list(131, true).0, [Status::TooSmall as u32, 0]);
    let list = |dircount: u32, count: u32| {
        let args = words(&[0, 0, 0, 0, dircount, count]);
        nfs(Recorder { end: true, ..Recorder::default() }, Proc::ReadDirPlus, &args)
    };
    // The first has attributes 88 and a handle 56 besides, the second 8 bytes that say "none".
    let (told, asked) = list(60, 316);
    assert_eq!(asked, ["readdir view9/1 0 true"]);
    assert_eq!(told, [&plus[..], &[0, 1]].concat());
    for (dircount, count) in [(60, 315), (59, 316), (0, 4096), (4096, 276)] {
        assert_eq!(list(dircount, count).0, one(&plus, 43), "{dircount} {count}");
    }
    assert_eq!(list(60, 275).0, [Status::TooSmall as u32, 0]);
    let bare = Recorder { bare: true, end: true, ..Recorder::default() };
    let (told, _) = nfs(bare, Proc::ReadDir, &words(&[0, 0, 0, 0, 200]));
    assert_eq!(told[..4], [0, 0, 0, 0], "no attributes, the verifier");
}

#[test]
fn who_calls() {
    let args = handle(&dir());
    let call = |credential: &[u32], body: &[u8]| {
        let head = [&[77, 0, 2, nfs3::PROGRAM, 3, 1][..], credential].concat();
        let record = [words(&head), opaque(body), words(&[0, 0]), args.clone()].concat();
        ask(Recorder::default(), PEER, &record)
    };
    assert_eq!(call(&[0], &[]).1, ["getattr view9/1 65534 65534 []"], "AUTH_NONE is nobody");
    let groups: Vec<u32> = (1..=16).collect();
    let body = |count: u32, ids: &[u32]| {
        [words(&[0]), opaque(b"vn1"), words(&[1000, 100, count]), words(ids)].concat()
    };
    let asked = call(&[1], &body(16, &groups)).1;
    assert_eq!(asked, [format!("getattr view9/1 1000 100 {groups:?}")]);
    // RFC 5531: denied, an error of authentication, AUTH_BADCRED.
    for (credential, body) in [(1, body(17, &[1; 17])), (1, body(2, &[1])), (1, vec![]), (6, vec![])] {
        assert_eq!(call(&[credential], &body), (vec![1, 1, 1, 1], vec![]), "{credential} {body:?}");
    }
    // Denied, another version of RPC: 2 to 2.
    let (reply, asked) = ask(Recorder::default(), PEER, &words(&[77, 0, 3, nfs3::PROGRAM, 3, 1]));
    assert_eq!((reply, asked), (vec![1, 1, 0, 2, 2], vec![]));
    // A reply is not a call.
    assert!(Call::parse(&words(&[77, 1, 0, 0, 0, 0])).is_err());
    // Whom nothing is believed is told so without a word to the back end.
    let peer = Peer { trusted: false, ..PEER };
    let record = record(nfsacl::PROGRAM, 3, 1, &[args.clone(), words(&[0xf])].concat());
    assert_eq!(ask(Recorder::default(), peer, &record), (vec![1, 0, 0, 0, 0, 1, 0], vec![]));
}

/// What is in a call's key: a client that was rebooted may use a number again.
#[test]
fn keys_of_calls() {
    let key = |program: u32, proc: Proc, args: &[u8]| {
        let record = record(program, 3, proc as u32, args);
        let call = Call::parse(&record).unwrap();
        call_key(&call)
    };
    let nfs = |proc, args: &[u8]| key(nfs3::PROGRAM, proc, args);
    assert_eq!(nfs(Proc::MkDir, b"a"), nfs(Proc::MkDir, b"a"));
    assert_ne!(nfs(Proc::MkDir, b"a"), nfs(Proc::MkDir, b"b"));
    assert_ne!(nfs(Proc::MkDir, b"a"), nfs(Proc::RmDir, b"a"));
    // Not for calls that may run twice: nobody needs it, and the arguments of a WRITE are long.
    assert_eq!(nfs(Proc::Write, b"a"), CallKey { xid: 77, procedure: 7, checksum: 0 });
    assert_eq!(key(mount::PROGRAM, Proc::SetAttr, b"a").checksum, 0);
    assert_ne!(nfs(Proc::SetAttr, b"a").checksum, 0);
}

/// Calls on `/persist` may wait for the disk.
#[test]
fn calls_that_may_block() {
    for (program, args, want) in [
        (nfs3::PROGRAM, handle(&persist(1)), true),
        (nfs3::PROGRAM, handle(&dir()), false),
        (nfs3::PROGRAM, vec![], false),
        (nfs3::PROGRAM, opaque(&[2; 65]), false),
        (mount::PROGRAM, handle(&persist(1)), false),
    ] {
        let record = record(program, 3, 1, &args);
        assert_eq!(nfs3::may_block(&Call::parse(&record).unwrap()), want, "{program} {args:?}");
    }
}

#[test]
fn mounts_and_exports() {
    let mount = |peer: Peer, procedure: u32, args: &[u8]| {
        let (told, asked) = ask(Recorder::default(), peer, &record(mount::PROGRAM, 3, procedure, args));
        assert_eq!(told[..5], [1, 0, 0, 0, 0], "accepted");
        (told[5..].to_vec(), asked)
    };
    let text = |of: &str| read(&opaque(of.as_bytes()));
    let root = read(&handle(&dir()));
    let path = opaque(b"/x");
    assert_eq!(mount(PEER, 1, &path), ([&[0][..], &root, &[1, 1]].concat(), vec!["mount /x".to_owned()]));
    let list = [&[1][..], &text("10.0.0.2"), &text("/a"), &[1], &text("10.0.0.2"), &text("/mount"), &[0]];
    assert_eq!(mount(PEER, 2, &[]), (list.concat(), vec![]));
    assert_eq!(mount(PEER, 3, &path), (vec![], vec!["unmount Some(\"/x\")".to_owned()]));
    assert_eq!(mount(PEER, 4, &[]), (vec![], vec!["unmount None".to_owned()]));
    assert_eq!(mount(PEER, 5, &[]), ([&[1][..], &text("/b"), &[0, 0]].concat(), vec![]));
    let stranger = Peer { trusted: false, ..PEER };
    assert_eq!(mount(stranger, 1, &path), (vec![13], vec![]));
    assert_eq!(mount(stranger, 3, &path), (vec![], vec![]));
    assert_eq!(mount(stranger, 4, &[]), (vec![], vec![]));
}

#[test]
fn port_mapper() {
    let portmap = |procedure: u32, args: &[u32]| {
        let record = record(portmap::PROGRAM, portmap::VERSION, procedure, &words(args));
        ask(Recorder::default(), PEER, &record).0[5..].to_vec()
    };
    let all = [100_003, 100_005, 100_227].map(|program| [1, program, 3, 6, 2049]).concat();
    assert_eq!(portmap(4, &[]), [&all[..], &[0]].concat());
    for (program, version, protocol, port) in [
        (100_003, 3, 6, 2049),
        (100_005, 3, 6, 2049),
        (100_227, 3, 6, 2049),
        // There it is told which versions there are.
        (100_003, 4, 6, 2049),
        (100_003, 3, 17, 0),
        (100_021, 4, 6, 0),
    ] {
        assert_eq!(portmap(3, &[program, version, protocol, 0]), [port], "{program} {version} {protocol}");
    }
    // Nobody registers here.
    assert_eq!(portmap(1, &[100_003, 3, 6, 666]), [0]);
    assert_eq!(portmap(2, &[100_003, 3, 6, 2049]), [0]);
}

/// The longest WRITE, with the longest credential and handle, is one record.
#[test]
fn the_longest_record() {
    let data = vec![7; nfs3::MAX_TRANSFER as usize];
    let args = [words(&[0, 0, nfs3::MAX_TRANSFER, 0]), opaque(&data)].concat();
    let head = words(&[77, 0, 2, nfs3::PROGRAM, 3, 7, 1]);
    let whole = [head, opaque(&[0; 400]), words(&[0]), opaque(&[0; 400]), opaque(&[0; 64]), args].concat();
    let mark = 0x8000_0000 | whole.len() as u32;
    let next = record::Assembler::default().mark(mark.to_be_bytes());
    assert_eq!(next, Ok(record::Next::Fragment { len: whole.len(), last: true }));
}
