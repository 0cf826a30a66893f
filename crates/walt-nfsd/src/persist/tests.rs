//! What RFC 1813 promises of `/persist`, through the back end as the dispatcher calls it.

use super::{MAX_EXPORTS, MAX_OPEN_FILES};
use crate::{Backend, Config, Durability, Exports, MountError, MountKind, serve, view::ReadView};
use std::cell::Cell;
use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use walt_nfs::vfs::Result;
use walt_nfs::{
    CallKey, Context, CreateHow, FileType, Object, SetAttr, SetTime, Special, Stable, Status, Time, Vfs,
};
use walt_types::ViewId;

const PEER: Ipv4Addr = Ipv4Addr::LOCALHOST;
const USER: (u32, u32) = (1001, 1002);

/// Each number below `persist` is an export.
struct Numbered(PathBuf);

impl Exports for Numbered {
    fn mount(&self, _: Ipv4Addr, node: &str, _: MountKind) -> std::result::Result<crate::Export, MountError> {
        let export_id = node.parse().map_err(|_| MountError::NotFound)?;
        let dir = self.0.join(node);
        std::fs::create_dir_all(&dir).unwrap();
        Ok(crate::Export::Persist { export_id, dir })
    }
    fn view(&self, _: Ipv4Addr, _: &ViewId) -> Result<Arc<dyn ReadView>> {
        Err(Status::Stale)
    }
    fn persist(&self, _: Ipv4Addr, export_id: u64) -> Result<PathBuf> {
        Ok(self.0.join(export_id.to_string()))
    }
}

struct Fixture {
    dir: PathBuf,
    sync_data: fn(&File) -> io::Result<()>,
    server: Backend,
    xid: Cell<u32>,
    _temporary: Option<tempfile::TempDir>,
}

fn backend(dir: &Path, sync_data: fn(&File) -> io::Result<()>) -> Backend {
    let config = Config {
        dir: dir.join("state"),
        durability: Durability::Full,
        sync_data,
        reserved_ports_only: false,
        mappings: Vec::new(),
        limits: serve::Limits::default(),
    };
    Backend::new(Arc::new(Numbered(dir.join("persist"))), &config).unwrap()
}

impl Fixture {
    fn new() -> Self {
        Self::with_disk(File::sync_data)
    }

    fn with_disk(sync_data: fn(&File) -> io::Result<()>) -> Self {
        let temporary = tempfile::tempdir_in("/var/tmp").unwrap();
        let new = Self::at(temporary.path(), sync_data);
        Self { _temporary: Some(temporary), ..new }
    }

    fn at(dir: &Path, sync_data: fn(&File) -> io::Result<()>) -> Self {
        let server = backend(dir, sync_data);
        Self { dir: dir.to_owned(), sync_data, server, xid: Cell::new(0), _temporary: None }
    }

    /// As after `kill -9`: nothing but the disk is left.
    fn restart(&mut self) {
        self.server = backend(&self.dir, self.sync_data);
    }

    /// A new call of a user's.
    fn call(&self, (uid, gid): (u32, u32)) -> Context {
        self.xid.set(self.xid.get() + 1);
        let key = CallKey { xid: self.xid.get(), procedure: 0, checksum: 0 };
        Context { peer: PEER, uid, gid, groups: Default::default(), key }
    }

    fn root_user(&self) -> Context {
        self.call((0, 0))
    }

    fn export(&self, number: u64) -> Object {
        let path = format!("{}{number}/persist", crate::NODES);
        self.server.mount(&self.root_user(), path.as_bytes()).unwrap()
    }

    /// The first export's root, which everybody may write.
    fn root(&self) -> Object {
        let root = self.export(1);
        std::fs::set_permissions(self.path(""), PermissionsExt::from_mode(0o777)).unwrap();
        root
    }

    /// A file of the first export, as the server's disk has it.
    fn path(&self, name: &str) -> PathBuf {
        self.dir.join("persist/1").join(name)
    }

    fn file(&self, name: &str) -> Object {
        let how = CreateHow::Guarded(SetAttr { mode: Some(0o644), ..SetAttr::default() });
        self.server.create(&self.root_user(), &self.root(), name.as_bytes(), &how).unwrap().object
    }

    fn write(&self, o: &Object, data: &[u8], stable: Stable) -> Result<u32> {
        self.server.write(&self.root_user(), o, 0, data, stable).map(|w| w.count)
    }
}

fn set(mode: u32) -> SetAttr {
    SetAttr { mode: Some(mode), ..SetAttr::default() }
}

#[test]
fn what_a_caller_makes_is_the_callers() {
    let f = Fixture::new();
    let (root, s) = (f.root(), &f.server);
    s.create(&f.call(USER), &root, b"file", &CreateHow::Guarded(set(0o640))).unwrap();
    s.create(&f.call(USER), &root, b"exclusive", &CreateHow::Exclusive(*b"verifier")).unwrap();
    s.mkdir(&f.call(USER), &root, b"dir", &set(0o2755)).unwrap();
    s.symlink(&f.call(USER), &root, b"link", b"nowhere", &SetAttr::default()).unwrap();
    s.mknod(&f.call(USER), &root, b"fifo", Special::Fifo, &set(0o600)).unwrap();
    s.mknod(&f.call(USER), &root, b"socket", Special::Socket, &set(0o600)).unwrap();
    for name in ["file", "exclusive", "dir", "link", "fifo", "socket"] {
        let meta = std::fs::symlink_metadata(f.path(name)).unwrap();
        assert_eq!((meta.uid(), meta.gid()), USER, "{name}");
    }
    let mode = |name: &str| std::fs::symlink_metadata(f.path(name)).unwrap().mode() & 0o7777;
    assert_eq!([mode("file"), mode("dir"), mode("fifo")], [0o640, 0o2755, 0o600]);
    assert!(std::fs::symlink_metadata(f.path("socket")).unwrap().file_type().is_socket());

    // Devices are root's to make, and are as asked for.
    let null = Special::Char(1, 3);
    assert_eq!(s.mknod(&f.call(USER), &root, b"null", null, &set(0o666)).unwrap_err(), Status::Perm);
    let made = s.mknod(&f.root_user(), &root, b"null", null, &set(0o666)).unwrap();
    assert_eq!((made.attr.kind, made.attr.rdev), (FileType::Char, (1, 3)));
    let disk = s.mknod(&f.root_user(), &root, b"disk", Special::Block(259, 70_000), &set(0o600)).unwrap();
    assert_eq!((disk.attr.kind, disk.attr.rdev), (FileType::Block, (259, 70_000)));

    // Rights are those of the caller.
    let private = s.mkdir(&f.root_user(), &root, b"private", &set(0o700)).unwrap().object;
    let denied = s.create(&f.call(USER), &private, b"x", &CreateHow::Guarded(set(0o600)));
    assert_eq!(denied.unwrap_err(), Status::Access);
    let secret = s.create(&f.root_user(), &root, b"secret", &CreateHow::Guarded(set(0o600))).unwrap().object;
    assert_eq!(s.read(&f.call(USER), &secret, 0, 1, &mut Vec::new()).unwrap_err(), Status::Access);
    let refused = s.write(&f.call(USER), &secret, 0, b"x", Stable::Unstable);
    assert_eq!(refused.unwrap_err(), Status::Access);
    assert_eq!(s.setattr(&f.call(USER), &secret, &set(0o666), None).unwrap_err(), Status::Perm);
}

#[test]
fn an_exclusive_create_knows_its_own() {
    let mut f = Fixture::new();
    let (root, verifier) = (f.root(), *b"\xff\x80\x01\x02\xfe\x03\x04\x05");
    let create = |f: &Fixture, v| f.server.create(&f.root_user(), &root, b"x", &CreateHow::Exclusive(v));
    let first = create(&f, verifier).unwrap().object;
    assert_eq!(create(&f, verifier).unwrap().object, first, "another call, the same verifier");
    f.restart();
    assert_eq!(create(&f, verifier).unwrap().object, first, "after a restart");
    assert_eq!(create(&f, *b"\x7f\x80\x01\x02\xfe\x03\x04\x05").unwrap_err(), Status::Exist);
    // The client's next call sets the times.
    let times = SetAttr { atime: SetTime::Now, mtime: SetTime::Now, ..set(0o644) };
    f.server.setattr(&f.root_user(), &first, &times, None).unwrap();
    assert_eq!(create(&f, verifier).unwrap_err(), Status::Exist);
}

/// Each call is done, and the server is killed before its result is in the ring.
#[test]
fn a_call_that_was_cut_short_gets_its_answer() {
    type Call = fn(&Backend, &Context, &Object) -> Result<()>;
    let mut f = Fixture::new();
    let root = f.root();
    for name in ["removed", "moved", "over-1", "over-2", "linked", "guarded"] {
        f.file(name);
    }
    f.server.mkdir(&f.root_user(), &root, b"empty", &set(0o755)).unwrap();
    fn look(s: &Backend, ctx: &Context, root: &Object, name: &[u8]) -> Object {
        s.lookup(ctx, root, name).unwrap().object
    }
    let calls: &[(&str, Call, Status)] = &[
        ("MKDIR", |s, c, r| s.mkdir(c, r, b"d", &set(0o755)).map(drop), Status::Exist),
        ("SYMLINK", |s, c, r| s.symlink(c, r, b"s", b"t", &set(0)).map(drop), Status::Exist),
        ("MKNOD", |s, c, r| s.mknod(c, r, b"p", Special::Fifo, &set(0o600)).map(drop), Status::Exist),
        ("CREATE", |s, c, r| s.create(c, r, b"f", &CreateHow::Guarded(set(0o600))).map(drop), Status::Exist),
        ("REMOVE", |s, c, r| s.remove(c, r, b"removed").map(drop), Status::NoEnt),
        ("RMDIR", |s, c, r| s.rmdir(c, r, b"empty").map(drop), Status::NoEnt),
        ("RENAME", |s, c, r| s.rename(c, (r, b"moved"), (r, b"here")).map(drop), Status::NoEnt),
        ("RENAME over", |s, c, r| s.rename(c, (r, b"over-1"), (r, b"over-2")).map(drop), Status::NoEnt),
        ("LINK", |s, c, r| s.link(c, &look(s, c, r, b"linked"), r, b"second").map(drop), Status::Exist),
    ];
    for (name, call, otherwise) in calls {
        let ctx = f.root_user();
        call(&f.server, &ctx, &root).unwrap_or_else(|e| panic!("{name}: {e}"));
        f.restart();
        call(&f.server, &ctx, &root).unwrap_or_else(|e| panic!("{name}, again: {e}"));
        f.restart();
        call(&f.server, &ctx, &root).unwrap_or_else(|e| panic!("{name}, a third time: {e}"));
        assert_eq!(call(&f.server, &f.root_user(), &root).unwrap_err(), *otherwise, "another {name}");
    }
    // What was not done is done by the repetition, and what fails fails again.
    let ctx = f.root_user();
    assert_eq!(f.server.mkdir(&ctx, &root, b"d", &set(0o755)).unwrap_err(), Status::Exist);
    f.restart();
    assert_eq!(f.server.mkdir(&ctx, &root, b"d", &set(0o755)).unwrap_err(), Status::Exist);
    // A guard that held the first time.
    let (ctx, file) = (f.root_user(), look(&f.server, &f.root_user(), &root, b"guarded"));
    let guard = Some(f.server.getattr(&ctx, &file).unwrap().ctime);
    f.server.setattr(&ctx, &file, &set(0o600), guard).unwrap();
    f.restart();
    f.server.setattr(&ctx, &file, &set(0o600), guard).unwrap();
    let another = f.server.setattr(&f.root_user(), &file, &set(0o600), guard.map(|t| Time { sec: 1, ..t }));
    assert_eq!(another.unwrap_err(), Status::NotSync);
}

/// All names from a cookie on, at most `most`, and the cookie behind them.
fn list(f: &Fixture, dir: &Object, mut cookie: u64, most: usize) -> (Vec<String>, u64, bool) {
    let mut names = Vec::new();
    let listed = f.server.readdir(&f.root_user(), dir, cookie, false, &mut |e| {
        if names.len() == most {
            return false;
        }
        names.push(String::from_utf8(e.name.to_vec()).unwrap());
        cookie = e.cookie;
        true
    });
    (names, cookie, listed.unwrap().end)
}

#[test]
fn cookies_go_on_after_changes_and_restarts() {
    let mut f = Fixture::new();
    let root = f.root();
    let wanted: HashSet<String> = (0..2000).map(|n| format!("file-{n}")).collect();
    wanted.iter().for_each(|name| std::fs::write(f.path(name), "").unwrap());
    let (mut seen, mut cookie) = (Vec::new(), 0);
    loop {
        let (names, next, end) = list(&f, &root, cookie, 97);
        assert!(i64::try_from(next).is_ok(), "63 bits: {next:x}");
        // What was listed goes, as `rm -r` does; what comes may be listed or not.
        names
            .iter()
            .filter(|n| n.starts_with("file-"))
            .for_each(|n| std::fs::remove_file(f.path(n)).unwrap());
        std::fs::write(f.path(&format!("new-{cookie}")), "").unwrap();
        seen.extend(names.into_iter().filter(|n| n.starts_with("file-")));
        cookie = next;
        f.restart();
        if end {
            break;
        }
    }
    assert_eq!(seen.len(), wanted.len(), "none twice");
    assert_eq!(seen.into_iter().collect::<HashSet<_>>(), wanted, "none left out");
    let beyond = f.server.readdir(&f.root_user(), &root, 1 << 63, false, &mut |_| true);
    assert_eq!(beyond.unwrap_err(), Status::BadCookie);
}

#[test]
fn a_file_without_a_name_is_stale_and_takes_no_room() {
    let f = Fixture::new();
    let (root, file) = (f.root(), f.file("gone"));
    f.write(&file, b"data", Stable::Unstable).unwrap();
    f.server.rename(&f.root_user(), (&root, b"gone"), (&root, b"moved")).unwrap();
    f.server.link(&f.root_user(), &file, &root, b"second").unwrap();
    f.server.remove(&f.root_user(), &root, b"moved").unwrap();
    assert_eq!(f.server.getattr(&f.root_user(), &file).unwrap().nlink, 1, "one name is left");
    f.server.remove(&f.root_user(), &root, b"second").unwrap();
    assert_eq!(f.server.getattr(&f.root_user(), &file).unwrap_err(), Status::Stale);
    assert_eq!(f.server.read(&f.root_user(), &file, 0, 1, &mut Vec::new()).unwrap_err(), Status::Stale);
    assert_eq!(f.write(&file, b"data", Stable::FileSync).unwrap_err(), Status::Stale);
    let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let ours: Vec<_> = open
        .filter_map(|e| std::fs::read_link(e.path()).ok())
        .filter(|path| path.starts_with(f.path("")) && path.to_string_lossy().ends_with("(deleted)"))
        .collect();
    assert!(ours.is_empty(), "{ours:?}");
}

#[test]
fn an_export_is_not_left() {
    let f = Fixture::new();
    let (root, ctx) = (f.root(), f.root_user());
    assert_eq!(f.server.lookup(&ctx, &root, b"..").unwrap().object, root);
    let dir = f.server.mkdir(&ctx, &root, b"dir", &set(0o755)).unwrap().object;
    assert_eq!(f.server.lookup(&ctx, &dir, b"..").unwrap().object, root);
    std::os::unix::fs::symlink("/etc", f.path("etc")).unwrap();
    let link = f.server.lookup(&ctx, &root, b"etc").unwrap();
    assert_eq!(link.attr.kind, FileType::Symlink);
    assert_eq!(f.server.lookup(&ctx, &link.object, b"passwd").unwrap_err(), Status::NotDir);
    assert_eq!(f.server.read(&ctx, &link.object, 0, 1, &mut Vec::new()).unwrap_err(), Status::Inval);
    // A handle of another export of the same disk opens nothing here: the MAC covers the export's number.
    let other = f.export(2);
    assert_ne!(root, other);
}

thread_local! {
    /// Results of the next syncs of file data; then they succeed.
    static DISK: Cell<&'static [Option<i32>]> = const { Cell::new(&[]) };
}

fn failing_disk(file: &File) -> io::Result<()> {
    match DISK.get() {
        [] => file.sync_data(),
        [next, rest @ ..] => {
            DISK.set(rest);
            next.map_or(Ok(()), |code| Err(io::Error::from_raw_os_error(code)))
        }
    }
}

#[test]
fn a_lost_write_changes_the_verifier_for_good() {
    const EIO: i32 = 5;
    const ENOSPC: i32 = 28;
    let mut f = Fixture::with_disk(failing_disk);
    let file = f.file("file");
    let first = f.server.write_verifier();
    f.write(&file, b"one", Stable::Unstable).unwrap();
    f.server.commit(&f.root_user(), &file).unwrap();
    f.restart();
    assert_eq!(f.server.write_verifier(), first, "a restart loses nothing");

    // Lost once: the client sends it again, and no program hears of it.
    DISK.set(&[Some(EIO)]);
    f.write(&file, b"two", Stable::Unstable).unwrap();
    f.server.commit(&f.root_user(), &file).unwrap();
    let second = f.server.write_verifier();
    assert_ne!(second, first);
    f.write(&file, b"two", Stable::Unstable).unwrap();
    f.server.commit(&f.root_user(), &file).unwrap();
    assert_eq!(f.server.write_verifier(), second);
    f.restart();
    assert_eq!(f.server.write_verifier(), second, "other clients learn of it after a restart, too");

    // Lost again and again: an error.
    DISK.set(&[Some(EIO), Some(EIO), None, Some(ENOSPC)]);
    f.server.commit(&f.root_user(), &file).unwrap();
    assert_eq!(f.server.commit(&f.root_user(), &file).unwrap_err(), Status::Io);
    let third = f.server.write_verifier();
    assert_ne!(third, second);
    f.server.commit(&f.root_user(), &file).unwrap();
    // What cannot be stored is an error at once.
    assert_eq!(f.server.commit(&f.root_user(), &file).unwrap_err(), Status::NoSpc);
    assert_ne!(f.server.write_verifier(), third);
}

#[test]
fn stable_writes_are_what_they_say() {
    let f = Fixture::new();
    let file = f.file("file");
    for stable in [Stable::Unstable, Stable::DataSync, Stable::FileSync] {
        let written = f.server.write(&f.root_user(), &file, 1, b"abc", stable).unwrap();
        assert_eq!((written.count, written.stable), (3, stable));
        let sizes = (written.file.before.map(|b| b.size), written.file.after.map(|a| a.size));
        assert!(matches!(sizes, (Some(0 | 4), Some(4))), "{sizes:?}");
    }
    let mut out = Vec::new();
    assert!(f.server.read(&f.root_user(), &file, 0, 100, &mut out).unwrap().0, "the end is told");
    assert_eq!(out, b"\0abc");
    // A set-user-id bit does not survive a write by somebody else.
    let program = f.file("program");
    f.server.setattr(&f.root_user(), &program, &set(0o4777), None).unwrap();
    f.server.write(&f.call(USER), &program, 0, b"x", Stable::Unstable).unwrap();
    assert_eq!(f.server.getattr(&f.root_user(), &program).unwrap().mode, 0o777);
}

/// Runs a test on a disk of its own, a tmpfs with these options, in a mount namespace of its own.
fn on_disk(options: &'static str, test: fn(&Path)) -> bool {
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};
    std::thread::spawn(move || {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).expect("the tests run as root");
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        if let Err(e) = mount(Some("none"), dir.path(), Some("tmpfs"), MsFlags::empty(), Some(options)) {
            eprintln!("skipped: this kernel has no tmpfs with '{options}': {e}");
            return false;
        }
        walt_sys::creds::respect_quotas().unwrap();
        test(dir.path());
        nix::mount::umount2(dir.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
        true
    })
    .join()
    .unwrap()
}

#[test]
fn a_full_disk_is_enospc_until_there_is_room() {
    let ran = on_disk("size=2m", |disk| {
        let f = Fixture::at(disk, File::sync_data);
        let (root, file) = (f.root(), f.file("file"));
        let data = vec![7; 1 << 20];
        let mut full = None;
        for n in 0..4 {
            let name = format!("more-{n}");
            let made =
                f.server.create(&f.root_user(), &root, name.as_bytes(), &CreateHow::Guarded(set(0o644)));
            let wrote = made.and_then(|c| f.write(&c.object, &data, Stable::Unstable));
            match wrote {
                Ok(count) if count as usize == data.len() => {}
                // What fitted; the rest fails.
                Ok(_) => full = Some(f.write(&file, &data, Stable::Unstable).unwrap_err()),
                Err(e) => full = Some(e),
            }
        }
        assert_eq!(full, Some(Status::NoSpc));
        assert_eq!(f.server.fsstat(&f.root_user(), &root).unwrap().bytes[2], 0);
        // A restart in between, and room is made.
        drop(f);
        let f = Fixture::at(disk, File::sync_data);
        f.xid.set(1000);
        let root = f.root();
        f.server.remove(&f.root_user(), &root, b"more-0").unwrap();
        assert_eq!(f.write(&file, &data[..4096], Stable::FileSync), Ok(4096));
        f.server.commit(&f.root_user(), &file).unwrap();
    });
    assert!(ran, "every kernel has tmpfs");
}

#[test]
fn a_disk_that_is_full_before_the_ring_is_made_can_be_emptied() {
    let ran = on_disk("size=1m", |disk| {
        let f = Fixture::at(disk, File::sync_data);
        std::fs::create_dir_all(f.path("")).unwrap();
        let fill = io::copy(&mut io::repeat(7), &mut File::create(f.path("filler")).unwrap());
        assert_eq!(fill.unwrap_err().kind(), io::ErrorKind::StorageFull);
        let root = f.root();
        assert_eq!(f.server.mkdir(&f.root_user(), &root, b"d", &set(0o755)).unwrap_err(), Status::NoSpc);
        f.server.remove(&f.root_user(), &root, b"filler").unwrap();
        f.server.mkdir(&f.root_user(), &root, b"d", &set(0o755)).unwrap();
    });
    assert!(ran, "every kernel has tmpfs");
}

#[test]
fn a_quota_is_edquot_for_its_user() {
    on_disk("size=8m,usrquota,usrquota_block_hardlimit=256k", |disk| {
        let f = Fixture::at(disk, File::sync_data);
        let root = f.root();
        let theirs = CreateHow::Guarded(set(0o666));
        let file = f.server.create(&f.call(USER), &root, b"theirs", &theirs).unwrap().object;
        let data = vec![7; 512 << 10];
        let mut offset = 0;
        let refused = loop {
            let rest = &data[..data.len() - offset as usize];
            match f.server.write(&f.call(USER), &file, offset, rest, Stable::Unstable) {
                Ok(written) => offset += u64::from(written.count),
                Err(e) => break e,
            }
            assert!(offset < data.len() as u64, "the quota holds");
        };
        assert_eq!(refused, Status::DQuot);
        assert!(offset <= 256 << 10);
        let others = f.server.create(&f.call((1003, 1003)), &root, b"others", &theirs).unwrap().object;
        let wrote = f.server.write(&f.call((1003, 1003)), &others, 0, &data[..4096], Stable::Unstable);
        assert_eq!(wrote.unwrap().count, 4096);
    });
}

#[test]
fn what_a_crashed_node_left_open_is_swept() {
    let f = Fixture::new();
    let root = f.root();
    let name = |n: u32| format!(".nfs{:016x}{n:08x}", 77);
    std::fs::create_dir_all(f.path("a/b")).unwrap();
    let (old, deep, new) = (name(1), format!("a/b/{}", name(2)), name(3));
    let kept = [".nfs", ".nfs00", "file", ".nfsg00000000000000000000001", "a/.nfs0000000000000001000000010"];
    [&*old, &*deep].into_iter().chain(kept).for_each(|n| std::fs::write(f.path(n), "x").unwrap());
    std::fs::create_dir(f.path(&name(4))).unwrap();
    std::os::unix::fs::symlink("/etc", f.path("a/link")).unwrap();
    let open = f.server.lookup(&f.root_user(), &root, old.as_bytes()).unwrap().object;
    f.write(&open, b"y", Stable::Unstable).unwrap();
    // The change time of a file cannot be set: what is new was changed after the boot.
    let booted = std::fs::metadata(f.path(&old)).unwrap().ctime() + 2;
    let clock = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    while (clock().as_secs() as i64) <= booted {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    std::fs::write(f.path(&new), "x").unwrap();
    let swept = f.server.sweep(1, &f.path(""), booted).unwrap();
    assert_eq!(swept.removed, 2);
    assert!(!f.path(&old).exists() && !f.path(&deep).exists());
    for name in kept.into_iter().chain([&*new, &*name(4)]) {
        assert!(f.path(name).exists(), "{name}");
    }
    assert_eq!(f.server.getattr(&f.root_user(), &open).unwrap_err(), Status::Stale);
    assert_eq!(f.server.sweep(1, &f.path(""), booted).unwrap().removed, 0);
}

#[test]
fn exports_and_mounts_are_bounded() {
    let f = Fixture::new();
    let first = f.export(1);
    for number in 0..MAX_EXPORTS as u64 + 8 {
        f.export(number);
    }
    assert!(f.server.persist.exports.lock().len() <= MAX_EXPORTS);
    assert!(f.server.getattr(&f.root_user(), &first).is_ok(), "opened again when it is needed");
    assert_eq!(f.server.mounts(&f.root_user()).len(), crate::MAX_MOUNTS.0);
}

#[test]
fn a_sweep_ends_and_a_later_one_goes_on() {
    let f = Fixture::new();
    f.root();
    for n in 0..9 {
        std::fs::write(f.path(&format!(".nfs{:016x}{n:08x}", 77)), "x").unwrap();
    }
    let (x, later) = (f.server.persist.export(1, &f.path("")).unwrap(), i64::MAX);
    let swept = f.server.persist.sweep_at_most(&x, later, 4).unwrap();
    assert_eq!((swept.names, swept.removed), (4, 4));
    let swept = f.server.sweep(1, &f.path(""), later).unwrap();
    assert_eq!((swept.names, swept.removed), (5, 5));
}

thread_local! {
    /// Files that were synced by this thread.
    static SYNCED: Cell<usize> = const { Cell::new(0) };
}

/// Data that was not committed is on the disk before its file is closed: nobody would be told of an error later.
#[test]
fn open_files_are_bounded_and_synced_before_they_are_closed() {
    let f = Fixture::with_disk(|file| {
        SYNCED.set(SYNCED.get() + 1);
        file.sync_data()
    });
    let files = MAX_OPEN_FILES + 1;
    for n in 0..files {
        f.write(&f.file(&format!("f{n}")), b"x", Stable::Unstable).unwrap();
        assert!(f.server.persist.files.len() <= MAX_OPEN_FILES, "after {n}");
    }
    let open = f.server.persist.files.len();
    assert!(open < files && open > 1, "{open}");
    assert_eq!(SYNCED.get(), files - open);
}
