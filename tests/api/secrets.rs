//! What is secret stays where it belongs: files of their owner, and nothing in the log, the database, or what `ps` shows.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};
use walt_testkit::{Options, TestServer, User};

const PASSWORD: &str = "correct-horse-battery";
/// `ann` and it, in base64.
const ENCODED: &str = "YW5uOmNvcnJlY3QtaG9yc2UtYmF0dGVyeQ==";

/// A registry that asks who is there, and notes what it hears.
fn registry() -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, heard) = (listener.local_addr().unwrap().port(), Arc::new(Mutex::new(Vec::new())));
    let notes = heard.clone();
    let answer = move |mut stream: TcpStream| -> std::io::Result<()> {
        let lines = BufReader::new(stream.try_clone()?).lines();
        let head: Vec<String> = lines.map_while(Result::ok).take_while(|l| !l.is_empty()).collect();
        let who = head.iter().find(|l| l.to_ascii_lowercase().starts_with("authorization:")).cloned();
        notes.lock().unwrap().extend(who.clone());
        // Long enough for those who look at the processes.
        thread::sleep(Duration::from_millis(300));
        match who {
            Some(_) => {
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}")
            }
            None => write!(
                stream,
                "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            ),
        }
    };
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = answer(stream);
        }
    });
    (port, heard)
}

/// Looks at the arguments and environments of all processes, but this one, until it is stopped.
struct Watch(Arc<AtomicBool>, thread::JoinHandle<(usize, Vec<String>)>);

impl Watch {
    fn start(secrets: &'static [&'static str]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let ended = stop.clone();
        let look = move || {
            let (mut rounds, mut found) = (0, Vec::new());
            while !ended.load(Ordering::Relaxed) {
                for entry in fs::read_dir("/proc").unwrap().flatten() {
                    if entry.file_name().to_str() == Some(&std::process::id().to_string()) {
                        continue;
                    }
                    for file in ["cmdline", "environ"] {
                        // Processes end at any moment.
                        let bytes = fs::read(entry.path().join(file)).unwrap_or_default();
                        let text = String::from_utf8_lossy(&bytes);
                        if secrets.iter().any(|secret| text.contains(secret)) {
                            found.push(text.replace('\0', " "));
                        }
                    }
                }
                rounds += 1;
            }
            (rounds, found)
        };
        Self(stop, thread::spawn(look))
    }

    fn end(self) -> (usize, Vec<String>) {
        self.0.store(true, Ordering::Relaxed);
        self.1.join().unwrap()
    }
}

#[test]
fn a_password_is_in_no_log_and_in_no_list_of_processes() {
    let (port, heard) = registry();
    let config = format!(
        "registries: [{{label: safe, api: docker-registry-v2, host: 127.0.0.1, port: {port}, protocol: http, auth: basic}}]\n"
    );
    let server = TestServer::prepare(Options { config, ..Options::default() });
    server.launch_with(&[("WALT_LOG", "trace")]).unwrap_or_else(|e| panic!("{e:?}"));
    let watch = Watch::start(&[PASSWORD, ENCODED]);
    let credentials = serde_json::json!({"username": "ann", "password": PASSWORD});
    let login = serde_json::json!({"action": "registry-login", "registry": "safe", "credentials": credentials.clone()});
    let reply = server.api(Some("ann")).post("/api/v1/actions/image", &login, None);
    assert_eq!(reply.status, 200, "{reply:?}");
    // One that fails later, with the server's own words.
    let clone = serde_json::json!({"action": "clone", "link": "safe:ann/x", "credentials": credentials});
    let failed = server.api(Some("ann")).post("/api/v1/actions/image", &clone, None);
    assert!(!failed.body.contains(PASSWORD), "{failed:?}");
    let (rounds, found) = watch.end();
    assert!(rounds > 3, "{rounds} looks at the processes");
    assert_eq!(found, Vec::<String>::new());
    assert!(heard.lock().unwrap().iter().any(|h| h.contains(ENCODED)), "the password was used: {heard:?}");

    let log = server.log();
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "the log is as talkative as it can be: {log}");
    assert!(!log.contains(PASSWORD) && !log.contains(ENCODED), "{log}");
    let platform =
        server.walt(User::RootFor("ann"), &["log", "show", "--history", "full", "--issuers", "server"]).ok();
    assert!(!platform.contains(PASSWORD) && !platform.contains(ENCODED), "{platform}");
    let mut files = Vec::new();
    walk(&server.state_dir(), &mut files);
    for file in files.iter().filter(|f| f.is_file()) {
        let bytes = fs::read(file).unwrap_or_default();
        let has = |secret: &str| bytes.windows(secret.len()).any(|w| w == secret.as_bytes());
        assert!(!has(PASSWORD) && !has(ENCODED), "the password is in {}", file.display());
    }
}

/// All that is below a directory, links not followed.
fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            walk(&path, found);
        }
        found.push(path);
    }
}

#[test]
fn files_of_a_used_server() {
    let server = TestServer::start_tiny();
    let ann = User::RootFor("ann");
    server.walt(ann, &["node", "create", "vn1"]).ok();
    let shown = server.walt(ann, &["image", "show"]).ok();
    let image = shown.lines().skip_while(|l| !l.starts_with("---")).nth(1).and_then(|l| l.split(' ').next());
    server.walt(ann, &["image", "duplicate", image.unwrap_or_else(|| panic!("{shown}")), "copy"]).ok();

    // Everything in the state directory is root's alone, since nobody else gets into it.
    let state = server.state_dir();
    assert_eq!(fs::metadata(&state).unwrap().mode() & 0o7777, 0o700);
    // Secrets do not rely on that.
    for name in [
        "keys/id_ecdsa",
        "keys/ssh_host_ecdsa_key",
        "keys/known_hosts.nodes",
        "walt.sqlite",
        "walt.sqlite-wal",
    ] {
        let mode = fs::metadata(state.join(name)).unwrap_or_else(|e| panic!("{name}: {e}")).mode() & 0o7777;
        assert_eq!(mode, 0o600, "{name}: {mode:o}");
    }
    for name in ["keys", "images", "logs", "nodes", "sessions"] {
        let mode = fs::metadata(state.join(name)).unwrap_or_else(|e| panic!("{name}: {e}")).mode() & 0o7777;
        assert_eq!(mode, 0o700, "{name}: {mode:o}");
    }

    // In the run directory, users reach the socket of the API and nothing else.
    let run = server.dir().join("run");
    let reachable = |path: &Path| {
        path.ancestors()
            .skip(1)
            .take_while(|d| d.starts_with(&run))
            .all(|d| fs::metadata(d).unwrap().permissions().mode() & 0o001 != 0)
    };
    let mut files = Vec::new();
    walk(&run, &mut files);
    let open: BTreeSet<String> = files
        .iter()
        .filter(|path| {
            let data = fs::symlink_metadata(path).unwrap();
            let (mode, kind) = (data.mode(), data.file_type());
            let is_open = match () {
                () if kind.is_symlink() => false,
                () if kind.is_socket() => mode & 0o002 != 0,
                () => mode & 0o006 != 0,
            };
            is_open && reachable(path)
        })
        .map(|path| path.strip_prefix(&run).unwrap().display().to_string())
        .collect();
    assert_eq!(open, BTreeSet::from(["walt.sock".to_owned()]), "{files:?}");
}
