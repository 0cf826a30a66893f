//! `ADD` of URLs and git repositories, from a machine beyond the server's.
//!
//! ```text
//!  containers ── [ room: walt-server ] uplink ── eth0 [ outside: web server, git daemon ]
//! ```

use super::{
    SOON, USER,
    build::{LABEL, image_id, run},
    trees::{Tree, digest, ours},
};
use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};
use walt_images::Store;
use walt_testkit::{Netns, Options, TestServer, until};

/// Addresses of the room's uplink and of the machine beyond it.
const UPLINK: &str = "198.51.100.1";
const OUTSIDE: &str = "198.51.100.2";
/// `Last-Modified` of a file, and the same in seconds.
const TIME: (&str, i64) = ("Fri, 13 Feb 2009 23:31:30 GMT", 1_234_567_890);
/// SHA-256 of "content\n".
const SHA256: &str = "434728a410a78f56fc1b5899c3593436e61ab0c731e9072d95e96db290205e53";

/// What the web server has been asked for.
#[derive(Default)]
struct Web {
    root: PathBuf,
    downloads: AtomicUsize,
}

impl Web {
    fn serve(self: Arc<Self>, listener: TcpListener) {
        for stream in listener.incoming().flatten() {
            let web = Arc::clone(&self);
            thread::spawn(move || web.answer(stream));
        }
    }

    /// One request per connection.
    fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let request = lines.next().unwrap_or_else(|| Ok(String::new()))?;
        let headers: Vec<String> = lines.map_while(Result::ok).take_while(|l| !l.is_empty()).collect();
        let path = request.split(' ').nth(1).unwrap_or_default().split('?').next().unwrap_or_default();
        let known = headers.iter().any(|h| h.eq_ignore_ascii_case("authorization: basic yw5uonnly3jlda=="));
        let mut say = |head: &str, body: &[u8]| {
            let length = format!("Content-Length: {}\r\n", body.len());
            let length = if head.contains("Content-Length") { "" } else { &length };
            write!(stream, "HTTP/1.1 {head}{length}Connection: close\r\n\r\n")?;
            stream.write_all(body)
        };
        let ok = "200 OK\r\n";
        match path {
            "/file" => {
                self.downloads.fetch_add(1, Ordering::Relaxed);
                say(&format!("{ok}Last-Modified: {}\r\n", TIME.0), b"content\n")
            }
            "/a%20b" => say(ok, b"no time\n"),
            "/moved" => say("302 Found\r\nLocation: /file\r\n", b""),
            "/loop" => say("302 Found\r\nLocation: /loop\r\n", b""),
            "/private" if known => say(ok, b"private\n"),
            "/private" => say("401 Unauthorized\r\n", b""),
            "/large" => say(&format!("{ok}Content-Length: 99999999999\r\n"), b""),
            "/short" => say(&format!("{ok}Content-Length: 99\r\n"), b"begins"),
            path => match fs::read(self.root.join(path.trim_start_matches('/'))) {
                Ok(bytes) => say(ok, &bytes),
                Err(_) => say("404 Not Found\r\n", b""),
            },
        }
    }
}

/// A git daemon, ended with the test.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Repositories: `project.git`, which has `module.git` as a submodule. The commit of the tag `v1`.
fn repositories(root: &Path) -> String {
    let git = |dir: &Path, words: &[&str]| {
        let who = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "protocol.file.allow=always"];
        let output = Command::new("git").args(who).args(words).current_dir(dir).output().unwrap();
        assert!(output.status.success(), "git {words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    for name in ["module", "project"] {
        let dir = root.join(name);
        fs::create_dir_all(dir.join("sub/deep")).unwrap();
        fs::write(dir.join("sub/deep/x"), format!("{name}\n")).unwrap();
        git(&dir, &["-c", "init.defaultBranch=main", "init", "-q"]);
        git(&dir, &["add", "-A"]);
        git(&dir, &["commit", "-qm", "first"]);
    }
    let dir = root.join("project");
    fs::write(dir.join("script"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(dir.join("script"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("/etc/passwd", dir.join("link")).unwrap();
    git(&dir, &["submodule", "--quiet", "add", "../module", "module"]);
    git(&dir, &["config", "-f", ".gitmodules", "submodule.module.url", "../module.git"]);
    git(&dir, &["add", "-A"]);
    git(&dir, &["commit", "-qm", "second"]);
    git(&dir, &["tag", "-a", "v1", "-m", "one"]);
    let commit = git(&dir, &["rev-parse", "HEAD"]);
    fs::write(dir.join("later"), "later\n").unwrap();
    git(&dir, &["add", "-A"]);
    git(&dir, &["commit", "-qm", "third"]);
    for name in ["module", "project"] {
        let bare = format!("{name}.git");
        git(root, &["clone", "-q", "--bare", name, &bare]);
        // For readers over plain HTTP.
        git(&root.join(bare), &["update-server-info"]);
    }
    commit
}

struct Room {
    server: TestServer,
    place: PathBuf,
    web: Arc<Web>,
    port: u16,
    _daemon: Daemon,
    _outside: Netns,
    netns: Netns,
}

impl Room {
    fn new(place: &Path) -> (Self, String) {
        let (netns, outside) = (Netns::new(), Netns::new());
        netns.cable(&outside, "uplink", "eth0");
        for (at, dev, address) in [(&netns, "uplink", UPLINK), (&outside, "eth0", OUTSIDE)] {
            at.run(&["ip", "link", "set", "lo", "up"]);
            at.run(&["ip", "addr", "add", &format!("{address}/24"), "dev", dev]);
        }
        netns.run(&["ip", "route", "add", "default", "via", OUTSIDE]);
        let root = place.join("web");
        let commit = repositories(&root);
        let listener = outside.inside(|| TcpListener::bind((OUTSIDE, 0)).unwrap());
        let port = listener.local_addr().unwrap().port();
        let web = Arc::new(Web { root: root.clone(), downloads: AtomicUsize::new(0) });
        thread::spawn({
            let web = Arc::clone(&web);
            move || web.serve(listener)
        });
        let base = format!("--base-path={}", root.display());
        let wrapper = outside.wrapper();
        let mut daemon = Command::new(&wrapper[0]);
        // Itself, and not by git, which would be its parent: it is to end with us.
        let programs = Command::new("git").arg("--exec-path").output().unwrap().stdout;
        let program = Path::new(String::from_utf8(programs).unwrap().trim()).join("git-daemon");
        daemon.args(&wrapper[1..]).arg(program).args(["--export-all", "--reuseaddr", &base]);
        daemon.arg(root).env("GIT_CONFIG_COUNT", "1").env("GIT_CONFIG_KEY_0", "safe.directory");
        daemon.env("GIT_CONFIG_VALUE_0", "*").stdin(Stdio::null()).stderr(Stdio::null());
        let daemon = Daemon(daemon.spawn().unwrap());
        let answers = || outside.inside(|| TcpStream::connect((OUTSIDE, 9418)).ok());
        until("the git daemon to answer", SOON, answers);
        let server = TestServer::start_with(Options { wrapper: netns.wrapper(), ..Options::default() });
        let server = server.unwrap_or_else(|e| panic!("{e:?}"));
        let place = place.join("context");
        fs::create_dir(&place).unwrap();
        (Self { server, place, web, port, _daemon: daemon, _outside: outside, netns }, commit)
    }

    fn url(&self, path: &str) -> String {
        format!("http://{OUTSIDE}:{}/{path}", self.port)
    }

    fn try_build(&self, lines: &str) -> walt_testkit::Ran {
        fs::write(self.place.join("Dockerfile"), format!("FROM scratch\n{LABEL}\n{lines}\n")).unwrap();
        let dir = self.place.to_str().unwrap();
        self.server.walt(USER, &["image", "build", "--yes", "--from-dir", dir, "built"])
    }

    fn build(&self, lines: &str) -> (Tree, String) {
        let said = self.try_build(lines).ok();
        let store = Store::open_to_read(&self.server.state_dir());
        let layers = store.config(&image_id(&self.server, "built")).unwrap().layers().unwrap();
        (ours(&store.view(&layers, None).unwrap()), said)
    }
}

fn file(mode: &str, owner: &str, text: &str) -> String {
    format!("{mode} {owner} file {}", digest(text.as_bytes()))
}

#[test]
fn urls_and_repositories_are_added() {
    let place = tempfile::Builder::new().prefix("walt-fetch-").tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (room, commit) = Room::new(place.path());

    // A file: its name, mode, owner and time.
    let (url, unnamed, moved) = (room.url("file"), room.url("a%20b?x=1"), room.url("moved"));
    let private = format!("http://ann:secret@{OUTSIDE}:{}/private", room.port);
    let lines = format!(
        "ADD {url} {unnamed} /d/\nADD --chmod=644 --chown=7:8 {moved} /named\nADD {private} /private\n\
         ADD {url} /d\nADD --checksum=sha256:{SHA256} {url} /sum"
    );
    let (tree, _) = room.build(&lines);
    for (path, facts, time) in [
        ("/d/file", file("600", "0:0", "content\n"), TIME.1),
        ("/d/a b", file("600", "0:0", "no time\n"), 0),
        ("/named", file("644", "7:8", "content\n"), TIME.1),
        ("/private", file("600", "0:0", "private\n"), 0),
        ("/sum", file("600", "0:0", "content\n"), TIME.1),
    ] {
        assert_eq!((&tree[path].facts, tree[path].mtime), (&facts, (time, 0)), "{path}");
    }
    assert_eq!(tree.len(), 7, "{tree:?}");
    // Once for the three names of one URL, and once for what leads there.
    assert_eq!(room.web.downloads.load(Ordering::Relaxed), 2);
    // Again: asked for, and unchanged; with a checksum it is not asked for.
    let (_, said) = room.build(&lines);
    assert_eq!(said.matches("unchanged since").count(), 5, "{said}");
    assert_eq!(room.web.downloads.load(Ordering::Relaxed), 4);
    room.build(&format!("ADD --checksum=sha256:{SHA256} {url} /sum"));
    assert_eq!(room.web.downloads.load(Ordering::Relaxed), 5, "on another layer it is");
    room.build(&format!("ADD --checksum=sha256:{SHA256} {url} /sum"));
    assert_eq!(room.web.downloads.load(Ordering::Relaxed), 5);

    // An archive stays one, unless it is to be unpacked.
    run("tar", &["-cf", "archive.tar", "-C", "module", "sub"], &room.web.root);
    let (tree, _) =
        room.build(&format!("ADD {0} /kept\nADD --unpack=true {0} /unpacked/", room.url("archive.tar")));
    assert!(tree["/kept"].facts.contains("600 0:0 file"), "{tree:?}");
    assert!(tree.contains_key("/unpacked/sub/deep/x"), "{tree:?}");

    // What cannot be fetched, and why.
    let large = format!("ADD {} /x", room.url("large"));
    let sum = format!("ADD --checksum=sha256:{} {url} /x", "0".repeat(64));
    let git = format!("git://{OUTSIDE}/project.git");
    for (line, why) in [
        (format!("ADD {} /x", room.url("missing")), "the server answered 404 Not Found"),
        (format!("ADD {} /x", room.url("private")), "the server answered 401"),
        (format!("ADD {} /x", room.url("loop")), "redirections"),
        (format!("ADD {} /x", room.url("short")), "cannot reach the server"),
        (large, "more than"),
        (sum, SHA256),
        ("ADD http://127.0.0.1:9/x /x".into(), "cannot reach the server"),
        (format!("ADD {git}#nothing /x"), "no branch, tag or commit 'nothing'"),
        (format!("ADD {git}#v1:nothing /x"), "no such directory"),
        (format!("ADD --checksum=0000000 {git}#v1 /x"), &commit),
        (format!("ADD git://{OUTSIDE}/none.git /x"), "git: "),
    ] {
        let ran = room.try_build(&line);
        assert!(ran.status == Some(1) && ran.err.contains(why), "{line}: {why}: {ran:?}");
        assert!(ran.err.contains("Sorry, image build FAILED."), "{ran:?}");
    }

    // The server itself is out of reach, as for every command of a build: nothing of it answers.
    let own = room.netns.inside(|| TcpListener::bind((UPLINK, 0)).unwrap());
    own.set_nonblocking(true).unwrap();
    let line = format!("ADD http://{UPLINK}:{}/x /x", own.local_addr().unwrap().port());
    let ran = room.try_build(&line);
    assert!(ran.status == Some(1) && ran.err.contains("cannot reach the server"), "{ran:?}");
    assert!(own.accept().is_err(), "nobody was there");

    // Trees of git, over its own protocol and over plain HTTP.
    let dumb = room.url("project.git");
    let expected: BTreeMap<&str, String> = BTreeMap::from([
        ("/p", "755 0:0 dir".into()),
        ("/p/.gitmodules", String::new()),
        ("/p/link", "777 0:0 link /etc/passwd".into()),
        ("/p/module", "755 0:0 dir".into()),
        ("/p/module/sub", "755 0:0 dir".into()),
        ("/p/module/sub/deep", "755 0:0 dir".into()),
        ("/p/module/sub/deep/x", file("644", "0:0", "module\n")),
        ("/p/script", file("755", "0:0", "#!/bin/sh\n")),
        ("/p/sub", "755 0:0 dir".into()),
        ("/p/sub/deep", "755 0:0 dir".into()),
        ("/p/sub/deep/x", file("644", "0:0", "project\n")),
    ]);
    for line in [
        format!("ADD {git}#v1 /p"),
        format!("ADD {git}#{commit} /p/"),
        format!("ADD {dumb}#v1 /p"),
        format!("ADD --checksum={} {dumb}#{} /p", &commit[..9], &commit[..12]),
    ] {
        let (tree, _) = room.build(&line);
        let names: Vec<&str> = tree.keys().map(String::as_str).filter(|p| *p != "/").collect();
        assert_eq!(names, expected.keys().copied().collect::<Vec<_>>(), "{line}");
        for (path, facts) in &expected {
            assert!(tree[*path].facts.starts_with(facts), "{line}: {path}: {:?}, not {facts}", tree[*path]);
        }
    }
    let (_, said) = room.build(&format!("ADD {git}#{commit} /p/"));
    assert!(said.contains("(unchanged"), "{said}");
    let (tree, _) = room.build(&format!("ADD --chown=5 {git}#main:sub/deep /q\nADD {git} /r/"));
    assert_eq!(tree["/q/x"].facts, file("644", "5:5", "project\n"));
    assert!(tree.contains_key("/r/later") && !tree.contains_key("/r/.git"), "{tree:?}");
    let (tree, _) = room.build(&format!("ADD --keep-git-dir {git}#v1 /p"));
    assert!(tree.contains_key("/p/.git/HEAD") && tree.contains_key("/p/.git/index"), "{tree:?}");
}
