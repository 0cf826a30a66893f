//! Images to and from registries (Debian's docker-registry), a hub, and a podman daemon; credentials.

mod from;
mod index;
mod layers;
mod layout;
mod own;

use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;
use walt_testkit::{DockerRegistry, Options, TestServer, User, images, until};

const ANN: User = User::RootFor("ann");
const BOB: User = User::RootFor("bob");
/// Seconds a foreign program or the client may take.
const LIMIT: &str = "300";
/// How long something on a terminal may take to come.
const SOON: Duration = Duration::from_secs(60);

/// A server with the tiny default image and these registries.
pub(crate) fn server_with(registries: &str, environment: &[(&str, &str)]) -> TestServer {
    let server = empty_server_with(registries, environment);
    let dir = images::tiny(server.dir());
    server.import(images::TINY, &dir);
    server
}

/// The same without any image.
fn empty_server_with(registries: &str, environment: &[(&str, &str)]) -> TestServer {
    let config = format!("registries:\n{registries}");
    let server = TestServer::prepare(Options { config, ..Options::default() });
    server.launch_with(environment).unwrap_or_else(|e| panic!("{e:?}"));
    server
}

pub(crate) fn line(label: &str, port: u16, auth: &str) -> String {
    format!(
        "- {{label: {label}, api: docker-registry-v2, host: 127.0.0.1, port: {port}, protocol: http, auth: {auth}}}\n"
    )
}

/// Runs the client with a home directory; status, standard output, standard error.
pub(crate) fn walt_at(
    server: &TestServer,
    home: &Path,
    env: &[(&str, &str)],
    arguments: &[&str],
) -> (Option<i32>, String, String) {
    let mut command = Command::new("timeout");
    command.arg(LIMIT).arg(server.dir().join("bin/walt")).args(arguments);
    let mut command = server.as_user(command, ANN);
    command.env("HOME", home).env_remove("XDG_RUNTIME_DIR").env_remove("REGISTRY_AUTH_FILE");
    let ran = command.envs(env.iter().copied()).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (ran.status.code(), text(&ran.stdout), text(&ran.stderr))
}

/// Runs a foreign program that must succeed.
#[track_caller]
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let ran = Command::new("timeout")
        .arg(LIMIT)
        .arg(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{program} {arguments:?}: {said}");
    String::from_utf8_lossy(&ran.stdout).into_owned()
}

pub(crate) fn is_installed(program: &str) -> bool {
    let there = Path::new("/usr/bin").join(program).exists();
    if !there {
        eprintln!("skipped in part: {program} is not installed");
    }
    there
}

pub(crate) fn id_of(server: &TestServer, full: &str) -> String {
    let list: Value =
        serde_json::from_str(&server.walt(User::Root, &["image", "show", "--all", "--json"]).ok()).unwrap();
    let images = list["images"].as_array().unwrap();
    let image =
        images.iter().find(|i| i["fullname"] == full).unwrap_or_else(|| panic!("no {full}: {list:#}"));
    image["id"].as_str().unwrap().to_owned()
}

pub(crate) fn clean(server: &TestServer) {
    let ran = server.server_command(&["check-store", "--json"]).output().unwrap();
    let report: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(report["clean"], true, "{report:#}");
}

/// A port of loopback where nobody listens, and what answers no HTTP at another.
fn mad_registry() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            // Whoever comes may have gone already.
            let _ = stream.unwrap().write_all(b"220 mail.example ESMTP\r\n");
        }
    });
    port
}

#[test]
fn an_image_goes_out_and_comes_back() {
    if !DockerRegistry::is_installed() {
        return;
    }
    let room = tempfile::tempdir_in("/var/tmp").unwrap();
    let registry = DockerRegistry::start(&room.path().join("lab"), false);
    let mut config = line("lab", registry.port, "none");
    // Nobody listens at port 1.
    config += &line("down", 1, "none");
    config += &line("mad", mad_registry(), "none");
    let server = server_with(&config, &[("DOCKER_HOST", "unix:///nonexistent")]);
    server.walt(ANN, &["image", "duplicate", "pc-x86-64", "mine:v1"]).ok();
    let id = id_of(&server, "ann/mine:v1");

    let several = server.walt(ANN, &["image", "publish", "mine:v1"]);
    assert!(several.err.contains("specify `--registry`") && several.err.contains("down"), "{several:?}");
    several.fails(1, "Registry");
    server
        .walt(ANN, &["image", "publish", "--registry", "nowhere", "mine:v1"])
        .fails(1, "unknown registry 'nowhere'");
    for away in ["down", "mad"] {
        let says = format!("Failed to communicate with {away} registry. Aborted.");
        server.walt(ANN, &["image", "publish", "--registry", away, "mine:v1"]).fails(1, &says);
    }
    let published = server.walt(ANN, &["image", "publish", "--registry", "lab", "mine:v1"]);
    let said = published.err.clone();
    assert_eq!(published.ok(), "OK, image was published at:\nlab:ann/mine:v1\n");

    // Under another name, the registry is asked to take its layers from the first one.
    server.walt(ANN, &["image", "duplicate", "mine:v1", "other"]).ok();
    server.walt(ANN, &["image", "publish", "--registry", "lab", "other"]).ok();
    assert!(registry.log().contains("uploads/?mount=sha256"), "{}", registry.log());
    server.walt(ANN, &["image", "remove", "other"]).ok();
    server.walt(BOB, &["image", "clone", "lab:ann/other"]).ok();
    server.walt(BOB, &["image", "remove", "other"]).ok();

    // Others read it: its digest is what was said, its layer has its files, and its id is the one here.
    let source = format!("docker://{}/ann/mine:v1", registry.host());
    if is_installed("skopeo") && is_installed("umoci") {
        let inspected: Value =
            serde_json::from_str(&run("skopeo", &["inspect", "--tls-verify=false", &source])).unwrap();
        assert!(said.contains(&format!("Digest: {}", inspected["Digest"].as_str().unwrap())), "{said}");
        let layout = room.path().join("oci").display().to_string();
        run("skopeo", &["copy", "-q", "--src-tls-verify=false", &source, &format!("oci:{layout}:x")]);
        let bundle = room.path().join("bundle");
        run("umoci", &["unpack", "--image", &format!("{layout}:x"), bundle.to_str().unwrap()]);
        assert_eq!(fs::read(bundle.join("rootfs/boot/pc-x86-64/large")).unwrap(), images::large());
        // A newer default image, for below.
        run("umoci", &["config", "--image", &format!("{layout}:x"), "--created", "2099-01-01T00:00:00Z"]);
        let default = format!("docker://{}/waltplatform/{}:latest", registry.host(), images::TINY);
        run("skopeo", &["copy", "-q", "--dest-tls-verify=false", &format!("oci:{layout}:x"), &default]);
    }
    if is_installed("podman") {
        let storage =
            [room.path().join("podman"), room.path().join("podman-run")].map(|p| p.display().to_string());
        let podman = ["--root", &storage[0], "--runroot", &storage[1], "--storage-driver", "vfs"];
        let name = source.trim_start_matches("docker://");
        let pulled = run("podman", &[&podman[..], &["pull", "-q", "--tls-verify=false", name]].concat());
        assert_eq!(format!("sha256:{}", pulled.trim()), id);
    }

    // Locally it is gone; it is found, and comes back as the same image.
    server.walt(ANN, &["image", "remove", "mine:v1"]).ok();
    let found = server.walt(ANN, &["image", "search", "mine"]);
    for away in ["down", "mad"] {
        let says = format!("Ignoring {away} registry because of a communication failure.");
        assert!(found.err.contains(&says), "{found:?}");
    }
    let table = found.ok();
    let row = table.lines().find(|l| l.contains("lab:ann/mine:v1")).unwrap_or_else(|| panic!("{table}"));
    assert!(row.starts_with("ann ") && row.contains("custom registry  pc-x86-64"), "{table}");
    let found: Value =
        serde_json::from_str(&server.walt(BOB, &["image", "search", "--json", "mine"]).ok()).unwrap();
    assert_eq!(found["images"][0]["clonable_link"], "lab:ann/mine:v1", "{found:#}");
    // The store has the layer still, for the default image. Another server has nothing, and dies twice on the way. (Its
    // own tiny image could be the same one: tars count whole seconds.)
    let mut other = empty_server_with(&config, &[]);
    for point in ["pull-layer", "pull-config"] {
        other.kill();
        other.launch_with(&[("WALT_FAIL_STORE", point)]).unwrap_or_else(|e| panic!("{e:?}"));
        let cut = other.walt(BOB, &["image", "clone", "lab:ann/mine:v1"]);
        assert!(cut.status == Some(1) && cut.err.contains("Issue occured"), "{point}: {cut:?}");
        other.wait_for_end();
        other.launch().unwrap_or_else(|e| panic!("{e:?}"));
        let names = other.walt(BOB, &["image", "show", "--names-only"]).ok();
        assert!(!names.contains("mine"), "{point}: {names}");
        clean(&other);
    }
    for server in [&server, &other] {
        let cloned = server.walt(BOB, &["image", "clone", "lab:ann/mine:v1"]).ok();
        assert!(
            cloned.contains("Image \"mine:v1\" was cloned successfully (cf. walt image show)."),
            "{cloned}"
        );
        assert_eq!(id_of(server, "bob/mine:v1"), id);
        let again = server.walt(BOB, &["image", "clone", "lab:ann/mine:v1"]);
        assert!(again.err.contains("walt image clone --force lab:ann/mine:v1 mine:v1"), "{again:?}");
        again.fails(1, "This operation would overwrite it.");
        server.walt(BOB, &["image", "clone", "--force", "lab:ann/mine:v1"]).ok();
        clean(server);
    }
    for (link, says) in [
        ("lab:ann/none", "No such remote image. Use walt image search <keyword>."),
        ("lab:ann/mine", "No such remote image."),
        ("down:ann/mine:v1", "Failed to communicate with down registry. Aborted."),
        ("mad:ann/mine:v1", "Failed to communicate with mad registry. Aborted."),
        ("nowhere:ann/mine", "unknown registry 'nowhere'"),
        ("lab:ann/../mine", "is not a clonable link"),
        ("docker:ann/mine", "no docker or podman daemon is running"),
    ] {
        server.walt(ANN, &["image", "clone", link, "xx"]).fails(1, says);
    }

    // Default images: found without any registry, updated from one; clones stay as they are.
    let found = server.walt(ANN, &["image", "search", "walt:waltplatform"]).ok();
    assert!(found.contains("walt:waltplatform/pc-x86-64-default"), "{found}");
    let nothing = server.walt(ANN, &["image", "search", "no-such-word"]);
    assert!(
        nothing.err.contains("Sorry, no image could match your request.") && nothing.out.is_empty(),
        "{nothing:?}"
    );
    if is_installed("umoci") && is_installed("skopeo") {
        let default = format!("waltplatform/{}:latest", images::TINY);
        let (before, clone) = (id_of(&server, &default), id_of(&server, "ann/pc-x86-64:latest"));
        let said = server.walt(ANN, &["advanced", "update-default-images"]).ok();
        assert!(said.contains(&format!("Updating {default} using a newer version from lab...")), "{said}");
        assert_ne!(id_of(&server, &default), before);
        assert_eq!(id_of(&server, "ann/pc-x86-64:latest"), clone);
        let said = server.walt(ANN, &["advanced", "update-default-images"]);
        for away in ["down", "mad"] {
            let says = format!("Ignoring {away} registry because of a communication failure.");
            assert_eq!(said.err.matches(&says).count(), 1, "{said:?}");
        }
        let said = said.ok();
        assert!(said.contains("No updates available."), "{said}");
    }
}

#[test]
fn a_registry_that_asks_who_is_there() {
    if !DockerRegistry::is_installed() {
        return;
    }
    let room = tempfile::tempdir_in("/var/tmp").unwrap();
    let registry = DockerRegistry::start(&room.path().join("reg"), true);
    let server = server_with(&line("safe", registry.port, "basic"), &[]);
    server
        .walt(ANN, &["advanced", "update-hub-meta"])
        .fails(1, "the docker hub is not among the registries of this server.");
    let home = room.path().join("home");
    fs::create_dir(&home).unwrap();
    server.walt(ANN, &["image", "duplicate", "pc-x86-64", "mine"]).ok();
    let publish = ["image", "publish", "mine"];
    let missing = "credentials for safe registry are missing or invalid.";
    let (status, _, said) = walt_at(&server, &home, &[], &publish);
    assert!(
        status == Some(1) && said.contains(missing) && said.contains("walt help show registries"),
        "{said}"
    );
    let (status, _, said) = walt_at(&server, &home, &[], &["image", "search"]);
    assert!(
        status == Some(0) && said.contains("Ignoring safe registry because it needs credentials"),
        "{said}"
    );

    // From a file of podman, by its host; a wrong one is not asked about without a terminal.
    let file = room.path().join("auth.json");
    let auth = |text: &str| {
        fs::write(&file, format!(r#"{{"auths":{{"{}":{{"auth":"{text}"}}}}}}"#, registry.host())).unwrap();
    };
    let env = [("REGISTRY_AUTH_FILE", file.to_str().unwrap())];
    auth("YW5uOndyb25n"); // ann:wrong
    let (status, _, said) = walt_at(&server, &home, &env, &publish);
    assert!(status == Some(1) && said.contains(missing), "{said}");
    auth("YW5uOnNlY3JldA=="); // ann:secret
    let (status, out, said) = walt_at(&server, &home, &env, &publish);
    assert_eq!((status, out.as_str()), (Some(0), "OK, image was published at:\nsafe:ann/mine\n"), "{said}");
    // By a program that a file names.
    let helper = room.path().join("docker-credential-test");
    let answer = r#"{"ServerURL":"x","Username":"ann","Secret":"secret"}"#;
    fs::write(
        &helper,
        format!("#!/bin/sh\n[ \"$1 $(cat)\" = \"get {}\" ] && echo '{answer}'\n", registry.host()),
    )
    .unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(&file, format!(r#"{{"credHelpers":{{"{}":"test"}}}}"#, registry.host())).unwrap();
    let path = format!("{}:{}", room.path().display(), std::env::var("PATH").unwrap());
    let (status, out, said) =
        walt_at(&server, &home, &[env[0], ("PATH", &path)], &["image", "search", "safe:"]);
    assert!(status == Some(0) && out.contains("safe:ann/mine"), "{out}{said}");

    // Asked for on a terminal, until they are right; kept, and used from then on.
    let mut command = server.walt_command(ANN, &["image", "clone", "safe:ann/mine", "back"]);
    command.env("HOME", &home).env_remove("REGISTRY_AUTH_FILE").env_remove("XDG_RUNTIME_DIR");
    let mut terminal = walt_testkit::Terminal::spawn(command);
    for (password, next) in [("wrong", "registry login FAILED"), ("secret", "Configuration was updated in")] {
        terminal.expect("username: ", SOON);
        terminal.line("ann");
        terminal.expect("token): ", SOON);
        terminal.line(password);
        let said = terminal.expect(next, SOON);
        assert!(!said.contains(password), "the password is not shown: {said}");
    }
    let (status, said) = terminal.end(SOON);
    assert!(status.success() && said.contains("was cloned successfully"), "{said}");
    let kept = home.join(".walt/config");
    assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!fs::read_to_string(&kept).unwrap().contains("secret"));
    let (status, _, said) = walt_at(&server, &home, &[], &publish);
    assert_eq!(status, Some(0), "{said}");

    // The server keeps nothing of it.
    assert!(!server.log().contains("secret") && !server.log().contains("YW5uOnNlY3JldA"));
    for file in ["walt.sqlite", "walt.sqlite-wal"].map(|name| server.state_dir().join(name)) {
        let bytes = fs::read(&file).unwrap_or_default();
        assert!(!bytes.windows(6).any(|w| w == b"secret"), "{}", file.display());
    }
}

/// A hub: the registry behind it, and a search.
fn hub_of(registry: &DockerRegistry) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, behind) = (listener.local_addr().unwrap().port(), registry.port);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            thread::spawn(move || {
                // Whoever comes may have gone already.
                let _ = hub(stream, behind);
            });
        }
    });
    port
}

fn reply(mut stream: &TcpStream, status: &str, json: &str) -> std::io::Result<()> {
    let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", json.len());
    stream.write_all(format!("{head}{json}").as_bytes())
}

fn hub(stream: TcpStream, behind: u16) -> std::io::Result<()> {
    let mut input = BufReader::new(stream.try_clone()?);
    let mut first = String::new();
    input.read_line(&mut first)?;
    if first.starts_with("GET /v1/search?q=walt_metadata&") {
        let found =
            r#"{"num_results":2,"results":[{"name":"ann/walt_metadata"},{"name":"eve/walt_metadata"}]}"#;
        return reply(&stream, "200 OK", found);
    }
    // The hub's own lists; `one` is not there any more.
    if let Some(path) = first.strip_prefix("GET /v2/repositories/") {
        let path = path.split(' ').next().unwrap_or_default();
        let (status, list) = match path {
            "ann/?page_size=100" => {
                let next = "https://elsewhere.example/v2/repositories/ann/?page=2&page_size=100";
                let names = r#"[{"name":"two"},{"name":"walt_metadata"},{"name":"Bad/name"}]"#;
                ("200 OK", format!(r#"{{"count":4,"next":"{next}","results":{names}}}"#))
            }
            "ann/?page=2&page_size=100" => {
                ("200 OK", r#"{"next":null,"results":[{"name":"three"},{"name":"gone"}]}"#.to_owned())
            }
            path if path.starts_with("ann/") => {
                ("200 OK", r#"{"next":null,"results":[{"name":"latest"}]}"#.to_owned())
            }
            _ => ("404 Not Found", r#"{"message":"object not found"}"#.to_owned()),
        };
        return reply(&stream, status, &list);
    }
    let mut registry = TcpStream::connect(("127.0.0.1", behind))?;
    registry.write_all(first.as_bytes())?;
    let (mut back, mut out) = (registry.try_clone()?, stream.try_clone()?);
    thread::spawn(move || {
        let _ = std::io::copy(&mut back, &mut out);
        let _ = out.shutdown(std::net::Shutdown::Both);
    });
    let mut bytes = [0; 65536];
    loop {
        match input.read(&mut bytes)? {
            0 => return registry.shutdown(std::net::Shutdown::Write),
            n => registry.write_all(&bytes[..n])?,
        }
    }
}

#[test]
fn the_hub_finds_what_its_publishers_say() {
    if !DockerRegistry::is_installed() {
        return;
    }
    let room = tempfile::tempdir_in("/var/tmp").unwrap();
    let registry = DockerRegistry::start(&room.path().join("hub"), false);
    let port = hub_of(&registry);
    let hub = format!("- {{label: hub, api: docker-hub, host: 127.0.0.1, port: {port}, protocol: http}}\n");
    let server = server_with(&hub, &[]);
    let home = room.path().join("home");
    fs::create_dir_all(home.join(".docker")).unwrap();
    // ann of this server is another name there.
    let auth =
        format!(r#"{{"auths":{{"http://127.0.0.1:{port}/v1/":{{"username":"ann","password":"secret"}}}}}}"#);
    fs::write(home.join(".docker/config.json"), auth).unwrap();
    for name in ["one", "two"] {
        server.walt(ANN, &["image", "duplicate", "pc-x86-64", name]).ok();
        let (status, out, said) = walt_at(&server, &home, &[], &["image", "publish", name]);
        assert_eq!(
            (status, out),
            (Some(0), format!("OK, image was published at:\nhub:ann/{name}\n")),
            "{said}"
        );
    }
    // Without credentials.
    let found = server.walt(BOB, &["image", "search", "hub:"]);
    assert!(!found.err.contains("Ignoring"), "{found:?}");
    let table = found.ok();
    for name in ["one", "two"] {
        assert!(table.contains(&format!("docker hub  pc-x86-64      hub:ann/{name}")), "{table}");
    }
    server.walt(BOB, &["image", "clone", "hub:ann/two", "mine"]).ok();
    assert_eq!(id_of(&server, "bob/mine:latest"), id_of(&server, "ann/two:latest"));

    // What was pushed without walt is found once it was looked for, and what is gone is not.
    if !is_installed("skopeo") {
        return;
    }
    let to = |name: &str| format!("docker://{}/ann/{name}:latest", registry.host());
    let tls = ["--src-tls-verify=false", "--dest-tls-verify=false"];
    run("skopeo", &[&["copy", "-q"][..], &tls, &[&to("two"), &to("three")]].concat());
    let found = || server.walt(BOB, &["image", "search", "hub:"]).ok();
    let all = found();
    assert!(all.contains("hub:ann/one") && !all.contains("hub:ann/three"), "{all}");
    let (status, out, said) = walt_at(&server, &home, &[], &["advanced", "update-hub-meta"]);
    assert_eq!(
        (status, out.as_str()),
        (Some(0), "hub:ann/three:latest\nhub:ann/two:latest\nOK, searches find 2 image(s) of ann.\n"),
        "{said}"
    );
    assert!(said.contains("Skipping ann/gone:latest"), "{said}");
    let all = found();
    assert!(!all.contains("hub:ann/one") && all.contains("hub:ann/two"), "{all}");
    assert!(all.contains("docker hub  pc-x86-64      hub:ann/three"), "{all}");
    let platform = ["advanced", "rescan-hub-account", "--waltplatform-user"];
    let (status, out, said) = walt_at(&server, &home, &[], &platform);
    assert!(status == Some(0) && out.contains("find 0 image(s) of waltplatform"), "{out}{said}");
}

struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn images_of_others_are_judged_by_their_labels() {
    if !DockerRegistry::is_installed() || !is_installed("buildah") || !is_installed("podman") {
        return;
    }
    let room = tempfile::tempdir_in("/var/tmp").unwrap();
    let registry = DockerRegistry::start(&room.path().join("lab"), false);
    let storage = [room.path().join("storage"), room.path().join("run")].map(|p| p.display().to_string());
    let store = ["--root", &storage[0], "--runroot", &storage[1], "--storage-driver", "vfs"];
    let buildah = |arguments: &[&str]| run("buildah", &[&store[..], arguments].concat()).trim().to_owned();
    let file: PathBuf = room.path().join("hello");
    fs::write(&file, "hello from buildah").unwrap();
    let container = buildah(&["from", "scratch"]);
    buildah(&["copy", &container, file.to_str().unwrap(), "/etc/hello"]);
    let push = |name: &str, format: &str| {
        buildah(&["commit", "-q", "--format", format, &container, &format!("ann/{name}")]);
        let to = format!("docker://{}/ann/{name}", registry.host());
        buildah(&["push", "-q", "--tls-verify=false", &format!("localhost/ann/{name}"), &to]);
    };
    push("plain", "oci");
    buildah(&["config", "--label", "walt.node.models=pc-x86-64", &container]);
    push("made", "oci");
    push("docker-made", "docker");
    buildah(&["config", "--label", "walt.server.minversion=11", &container]);
    push("future", "oci");

    let socket = room.path().join("podman.sock");
    let address = format!("unix://{}", socket.display());
    let mut service = Command::new("podman");
    service.args(store).args(["system", "service", "--time", "0", &address]);
    let log = fs::File::create(room.path().join("podman.log")).unwrap();
    let _service = Service(service.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap());
    until("podman to listen", SOON, || socket.exists().then_some(()));
    let server = server_with(&line("lab", registry.port, "none"), &[("DOCKER_HOST", &address)]);

    let found = server.walt(ANN, &["image", "search", "ann/"]).ok();
    for link in
        ["lab:ann/made", "lab:ann/docker-made", "docker:ann/made", "[Need server upgrade, version>=11]"]
    {
        assert!(found.contains(link), "{link}: {found}");
    }
    assert!(!found.contains("plain") && !found.contains("lab:ann/future"), "{found}");
    server
        .walt(ANN, &["image", "clone", "lab:ann/plain"])
        .fails(1, "does not indicate compatible node models");
    server
        .walt(ANN, &["image", "clone", "docker:ann/plain"])
        .fails(1, "does not indicate compatible node models");
    server.walt(ANN, &["image", "clone", "lab:ann/future"]).fails(1, "[Need server upgrade, version>=11]");
    for link in ["lab:ann/made", "lab:ann/docker-made"] {
        server.walt(ANN, &["image", "clone", link]).ok();
    }
    server.walt(ANN, &["image", "clone", "docker:ann/made", "by-daemon"]).ok();
    assert_eq!(id_of(&server, "ann/by-daemon:latest"), id_of(&server, "ann/made:latest"));
    // What came from elsewhere goes on as it was: its blobs are known, and not made again.
    server.walt(ANN, &["image", "rename", "made", "again"]).ok();
    server.walt(ANN, &["image", "publish", "again"]).ok();
    let digests = |name: &str| {
        let source = format!("docker://{}/ann/{name}", registry.host());
        let manifest: Value =
            serde_json::from_str(&run("skopeo", &["inspect", "--raw", "--tls-verify=false", &source]))
                .unwrap();
        manifest["layers"].as_array().unwrap().iter().map(|l| l["digest"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(digests("again"), digests("made"));
    // A node's models forbid another image; a name in use is not overwritten without having been asked to.
    server.walt(ANN, &["node", "create", "vn1"]).ok();
    // It has no boot files, and is associated all the same.
    let booted = server.walt(ANN, &["node", "boot", "vn1", "again"]);
    assert!(booted.out.contains("Node vn1 will now boot again."), "{booted:?}");
    buildah(&[
        "config",
        "--label",
        "walt.node.models=rpi-b",
        "--label",
        "walt.server.minversion=4",
        &container,
    ]);
    push("berry", "oci");
    let arguments = ["image", "clone", "--force", "lab:ann/berry", "again"];
    server.walt(ANN, &arguments).fails(1, "not compatible with node model(s) pc-x86-64 of node vn1");
    clean(&server);
}
