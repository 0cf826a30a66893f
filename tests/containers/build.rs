//! `walt image build`, with buildah as its oracle.
//!
//! Each file of `dockerfiles/` is built by both from the same directory and the same base; trees and configurations must
//! be the same. Lines that start with `#:` are for this driver:
//!
//! ```text
//! #: options …     for both; @secret is a file with "hidden\n"
//! #: ignore PATTERN a line of .dockerignore
//! #: fails TEXT    ours fails and says so; buildah fails, too
//! #: differs WHY   buildah is not asked: it lacks or departs from the Dockerfile reference; what must be there:
//! #: expect PATH KIND MODE UID:GID [CONTENT, with \n]
//! #: absent PATH
//! #: label NAME=VALUE …
//! #: exposed PORT …
//! #: config KEY JSON
//! ```

use super::{
    SOON, USER,
    mini::MINI,
    trees::{Tree, differences, digest, mounted, ours},
};
use serde_json::{Map, Value, json};
use std::{
    ffi::OsStr,
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use walt_images::Store;
use walt_testkit::{Machine, TestServer, until};
use walt_types::ImageId;

/// What nodes the images are for: without it no image is made.
pub(super) const LABEL: &str = "LABEL walt.node.models=pc-x86-64";
/// How long work may go on that nobody wants any more; a second, and what a busy machine needs to say so.
const AT_ONCE: Duration = Duration::from_secs(4);
/// Fewest Dockerfiles that are tried.
const FEWEST: usize = 80;
/// Keys of a configuration that are compared.
const KEYS: [&str; 12] = [
    "User",
    "ExposedPorts",
    "Env",
    "Entrypoint",
    "Cmd",
    "Volumes",
    "WorkingDir",
    "Labels",
    "StopSignal",
    "OnBuild",
    "Healthcheck",
    "Shell",
];
/// One Dockerfile and what is known about it.
#[derive(Default)]
struct Case {
    name: String,
    text: String,
    options: Vec<String>,
    ignore: String,
    fails: Option<String>,
    differs: Option<String>,
    expected: Vec<String>,
}

fn cases() -> Vec<Case> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/containers/dockerfiles");
    let mut paths: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| case(path)).collect()
}

fn case(path: &Path) -> Case {
    let mut case = Case { name: path.file_stem().unwrap().to_str().unwrap().to_owned(), ..Case::default() };
    let text = fs::read_to_string(path).unwrap();
    for line in text.split_inclusive('\n') {
        let Some(note) = line.strip_prefix("#: ") else {
            case.text.push_str(line);
            if line.to_ascii_uppercase().starts_with("FROM ") {
                case.text.push_str(&format!("{LABEL}\n"));
            }
            continue;
        };
        let (word, rest) = note.trim_end().split_once(' ').unwrap_or_else(|| panic!("{}: {note}", case.name));
        match word {
            "options" => case.options.extend(rest.split(' ').map(str::to_owned)),
            "ignore" => case.ignore.push_str(&format!("{rest}\n")),
            "fails" => case.fails = Some(rest.to_owned()),
            "differs" => case.differs = Some(rest.to_owned()),
            "expect" | "absent" | "label" | "exposed" | "config" => {
                case.expected.push(note.trim_end().to_owned())
            }
            other => panic!("{}: '#: {other}' means nothing", case.name),
        }
    }
    assert!(
        case.differs.is_some() || case.expected.is_empty(),
        "{}: buildah says what is expected",
        case.name
    );
    let checked = case.differs.is_none() || case.fails.is_some() || !case.expected.is_empty();
    assert!(checked, "{}: nothing is expected", case.name);
    case
}

pub(super) fn run(program: &str, arguments: &[&str], dir: &Path) {
    let output = Command::new(program).args(arguments).current_dir(dir).output();
    let output = output.unwrap_or_else(|e| panic!("cannot run {program}: {e}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The directory that all are built in.
fn context(dir: &Path) {
    let put = |name: &str, text: &str, mode: u32| {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    put("file", "content\n", 0o644);
    put("other", "another\n", 0o600);
    put("tree/one", "one", 0o600);
    put("tree/sub/script", "#!/bin/sh\n", 0o755);
    put("tree/sub/.hidden", "", 0o644);
    put("tree/sub/deep/x", "x", 0o644);
    fs::create_dir(dir.join("tree/empty")).unwrap();
    fs::set_permissions(dir.join("tree/empty"), fs::Permissions::from_mode(0o700)).unwrap();
    put("name with blanks", "blanks", 0o644);
    put("ünï", "unicode", 0o644);
    fs::create_dir(dir.join("latin")).unwrap();
    for (name, text) in [(&b"G\xe4rten"[..], "e4"), (b"G\xf6rten", "f6"), (b"G\xfcrten", "fc")] {
        fs::write(dir.join("latin").join(OsStr::from_bytes(name)), text).unwrap();
    }
    put("links/a", "linked", 0o644);
    fs::hard_link(dir.join("links/a"), dir.join("links/b")).unwrap();
    put("modes/suid", "s", 0o4755);
    put("modes/read-only", "r", 0o400);
    put("modes/sticky/x", "x", 0o644);
    fs::set_permissions(dir.join("modes/sticky"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::create_dir(dir.join("symlinks")).unwrap();
    for (name, target) in [
        ("symlinks/absolute", "/etc/passwd"),
        ("symlinks/dangling", "nowhere"),
        ("symlinks/up", "../tree"),
        ("link-to-file", "file"),
        ("link-to-tree", "tree"),
    ] {
        symlink(target, dir.join(name)).unwrap();
    }
    put("broken.gz", "\u{1f}no archive", 0o644);
    // An archive with owners, a link and a hard link.
    let inner = dir.join("inner");
    fs::create_dir_all(inner.join("in")).unwrap();
    fs::write(inner.join("in/one"), "one").unwrap();
    fs::hard_link(inner.join("in/one"), inner.join("in/two")).unwrap();
    symlink("one", inner.join("in/link")).unwrap();
    run("chmod", &["-R", "u=rwX,go=rX", "inner"], dir);
    run("touch", &["-h", "-d", "@1500000000", "inner/in/one", "inner/in/link", "inner/in"], dir);
    run("tar", &["-C", "inner", "--sort=name", "--owner=0", "--group=0", "-cf", "archive.tar", "in"], dir);
    for (program, suffix) in [("gzip", "gz"), ("bzip2", "bz2"), ("xz", "xz"), ("zstd", "zst")] {
        let script = format!("{program} -c archive.tar >archive.tar.{suffix}");
        run("sh", &["-c", &script], dir);
    }
    fs::remove_dir_all(inner).unwrap();
    run("sh", &["-c", "find . -exec touch -h -d @1600000000 {} +"], dir);
    run("chown", &["-R", "nobody", "."], dir);
}

/// The part of a configuration that is compared.
fn essence(config: &Value) -> Value {
    let mut all = Map::new();
    for key in KEYS {
        let mut value = config.get(key).cloned().unwrap_or_default();
        if let Value::Object(map) = &mut value {
            map.remove("io.buildah.version");
        }
        if let (Value::Array(list), "Env") = (&mut value, key) {
            // A variable that is set again keeps its place with us, as with BuildKit.
            list.sort_by_key(ToString::to_string);
        }
        let empty = match &value {
            Value::Null => true,
            Value::String(text) => text.is_empty() || (key == "WorkingDir" && text == "/"),
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        };
        if !empty {
            all.insert(key.to_owned(), value);
        }
    }
    Value::Object(all)
}

/// buildah with a store of its own.
struct Buildah {
    dir: PathBuf,
}

impl Buildah {
    fn try_run(&self, arguments: &[&str], dir: &Path) -> Result<String, String> {
        let (root, run_root) = (self.dir.join("root"), self.dir.join("run"));
        let mut command = Command::new("buildah");
        command.arg("--root").arg(root).arg("--runroot").arg(run_root).args(arguments).current_dir(dir);
        let output = command.output().unwrap();
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }
    fn run(&self, arguments: &[&str], dir: &Path) -> String {
        self.try_run(arguments, dir).unwrap_or_else(|e| panic!("buildah {arguments:?}: {e}"))
    }
    fn build(&self, case: &Case, options: &[String], dir: &Path) -> Result<(Tree, Value, Value), String> {
        let mut arguments = vec!["bud", "--layers=false", "--format", "docker", "-f", "Dockerfile"];
        // A container in earnest; the limits are those that a machine may have set for us.
        arguments.extend(["--isolation", "oci", "--runtime", "runc"]);
        arguments.extend(["--ulimit", "nofile=1024:4096", "--ulimit", "nproc=1024:4096"]);
        arguments.extend(options.iter().map(String::as_str));
        arguments.extend(["-t", &case.name, "."]);
        self.try_run(&arguments, dir)?;
        let container = self.try_run(&["from", &case.name], dir)?;
        let root = self.try_run(&["mount", &container], dir)?;
        let tree = mounted(Path::new(&root));
        let text = self.run(&["inspect", "--type", "image", &case.name], dir);
        let value: Value = serde_json::from_str(&text).unwrap();
        self.run(&["rm", &container], dir);
        Ok((tree, essence(&value["Docker"]["config"]), value["Docker"]["author"].clone()))
    }
}

impl Drop for Buildah {
    fn drop(&mut self) {
        let _ = self.try_run(&["rm", "--all"], Path::new("/"));
        let overlay = self.dir.join("root/overlay");
        let _ = Command::new("umount").arg(overlay).output();
    }
}

pub(super) fn image_id(server: &TestServer, name: &str) -> ImageId {
    let text = server.walt(USER, &["image", "show", "--json"]).ok();
    let list: Value = serde_json::from_str(&text).unwrap();
    let full = format!("nobody/{name}:latest");
    let image = list["images"].as_array().unwrap().iter().find(|i| i["fullname"] == full);
    let id = image.unwrap_or_else(|| panic!("no image {name}: {text}"))["id"].as_str().unwrap();
    id.strip_prefix("sha256:").unwrap().parse().unwrap()
}

fn expectation(line: &str, tree: &Tree, config: &Value) -> Result<(), String> {
    let words: Vec<&str> = line.splitn(6, ' ').collect();
    match words[..] {
        ["absent", path] => match tree.get(path) {
            Some(found) => Err(format!("{path} is there: {}", found.facts)),
            None => Ok(()),
        },
        ["expect", path, kind, mode, owner, ref content @ ..] => {
            let found = &tree.get(path).ok_or_else(|| format!("{path} is absent"))?.facts;
            let mut wanted = format!("{mode} {owner} {kind}");
            if let Some(content) = content.first() {
                wanted.push_str(&format!(" {}", digest(content.replace("\\n", "\n").as_bytes())));
            }
            if found.starts_with(&wanted) { Ok(()) } else { Err(format!("{path}: {found}, not {wanted}")) }
        }
        ["label", ..] => line.split(' ').skip(1).try_for_each(|pair| {
            let (name, value) = pair.split_once('=').unwrap();
            let found = config["Labels"][name].as_str();
            if found == Some(value) { Ok(()) } else { Err(format!("label {name}: {found:?}, not {value:?}")) }
        }),
        ["exposed", ..] => {
            let wanted: Map<String, Value> =
                line.split(' ').skip(1).map(|p| (p.to_owned(), json!({}))).collect();
            let found = &config["ExposedPorts"];
            if *found == Value::Object(wanted) { Ok(()) } else { Err(format!("exposed: {found}")) }
        }
        ["config", key, ..] => {
            let wanted = line.splitn(3, ' ').nth(2).unwrap_or_default();
            let wanted: Value = serde_json::from_str(wanted).map_err(|e| format!("{line}: {e}"))?;
            let found = &config[key];
            if *found == wanted { Ok(()) } else { Err(format!("{key}: {found}, not {wanted}")) }
        }
        _ => Err(format!("'{line}' is not understood")),
    }
}

#[test]
fn dockerfiles_are_built_as_buildah_builds_them() {
    let cases = cases();
    assert!(cases.len() >= FEWEST, "{} Dockerfiles", cases.len());
    let chosen = std::env::var("WALT_TEST_DOCKERFILE").ok();
    let server = TestServer::start_with_images(&[MINI]);
    server.walt(USER, &["image", "clone", "walt:waltplatform/pc-x86-64-mini"]).ok();
    // buildah takes names of directories in lower case only.
    let place = server.dir().join("oracle");
    let dir = place.join("context");
    fs::create_dir_all(&dir).unwrap();
    context(&dir);
    let secret = place.join("secret");
    fs::write(&secret, "hidden\n").unwrap();
    let store = Store::open_to_read(&server.state_dir());
    let buildah = Buildah { dir: place.join("buildah") };
    let layout = place.join("layout");
    store.export_oci_layout(&image_id(&server, MINI), MINI, &layout).unwrap();
    let pulled = buildah.run(&["pull", &format!("oci:{}:{MINI}", layout.display())], &dir);
    buildah.run(&["tag", pulled.lines().last().unwrap(), &format!("localhost/{MINI}:latest")], &dir);
    let mut wrong = Vec::new();
    // A step that an earlier file had, too, is not carried out again: its times are those of the first.
    let start = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    for case in cases.iter().filter(|c| chosen.as_ref().is_none_or(|name| c.name.contains(name.as_str()))) {
        fs::write(dir.join("Dockerfile"), &case.text).unwrap();
        match case.ignore.is_empty() {
            true => drop(fs::remove_file(dir.join(".dockerignore"))),
            false => fs::write(dir.join(".dockerignore"), &case.ignore).unwrap(),
        }
        let options: Vec<String> =
            case.options.iter().map(|o| o.replace("@secret", secret.to_str().unwrap())).collect();
        let mut words = vec!["image", "build", "--yes", "--from-dir", dir.to_str().unwrap()];
        words.extend(options.iter().map(String::as_str));
        words.push("built");
        let ran = server.walt(USER, &words);
        let mut say = |text: String| wrong.push(format!("{}: {text}", case.name));
        if let Some(text) = &case.fails {
            if ran.status != Some(1)
                || !ran.err.contains("Sorry, image build FAILED.")
                || !ran.err.contains(text)
            {
                say(format!("it should have failed with '{text}': {ran:?}"));
            }
            if case.differs.is_none() && buildah.build(case, &options, &dir).is_ok() {
                say("buildah does not fail".into());
            }
            continue;
        }
        if ran.status != Some(0) {
            say(format!("{ran:?}"));
            continue;
        }
        let image = image_id(&server, "built");
        let found = store.config(&image).unwrap();
        let tree = ours(&store.view(&found.layers().unwrap(), None).unwrap());
        let raw: Value = serde_json::from_slice(&store.config_bytes(&image).unwrap()).unwrap();
        let config = essence(&raw["config"]);
        if case.differs.is_some() {
            for line in &case.expected {
                if let Err(e) = expectation(line, &tree, &config) {
                    say(e);
                }
            }
            continue;
        }
        match buildah.build(case, &options, &dir) {
            Err(e) => say(format!("buildah fails: {e}")),
            Ok((theirs, their_config, author)) => {
                differences(&tree, &theirs, start).into_iter().for_each(&mut say);
                if config != their_config {
                    say(format!("configuration {config} / buildah: {their_config}"));
                }
                if raw.get("author").and_then(Value::as_str).unwrap_or_default()
                    != author.as_str().unwrap_or_default()
                {
                    say(format!("author {:?} / buildah: {author}", raw.get("author")));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn the_command_and_what_it_says() {
    let mut server = TestServer::start_with_images(&[MINI]);
    server.walt(USER, &["image", "clone", "walt:waltplatform/pc-x86-64-mini"]).ok();
    let before = Machine::now();
    let place = tempfile::Builder::new().prefix("walt-build-").tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let dir = place.path().join("d");
    fs::create_dir(&dir).unwrap();
    let from_dir = ["image", "build", "--from-dir", dir.to_str().unwrap()];
    let build = |server: &TestServer, more: &[&str]| server.walt(USER, &[&from_dir[..], more].concat());
    let file = |text: &str| fs::write(dir.join("Dockerfile"), text).unwrap();

    // Wrong options.
    for words in [
        &["image", "build", "x"][..],
        &["image", "build", "--from-dir", "d", "--from-url", "u", "x"],
        &["image", "build", "--from-dir", "d", "--sub-dir", "s", "x"],
    ] {
        assert_eq!(server.walt(USER, words).status, Some(2), "{words:?}");
    }
    let ran = build(&server, &["x"]);
    assert!(ran.status == Some(1) && ran.err.contains("no Dockerfile"), "{ran:?}");

    // What is said, the second time from the cache, and what a name has meant.
    file(&format!("FROM {MINI}\nRUN echo from the command; echo 1 >/root/made\n"));
    let said = build(&server, &["made"]).ok();
    let order = [
        "** Receiving the client directory content\n",
        "** Verifying the repository\n",
        "** Building the image\n",
        "\nfrom the command\n",
        "** Verifying the image\n",
        "OK\n",
        "New image made saved.\n",
    ];
    let places: Vec<usize> =
        order.iter().map(|s| said.find(s).unwrap_or_else(|| panic!("{s}: {said}"))).collect();
    assert!(places.is_sorted(), "{said}");
    let again = server.walt_with_input(USER, &[&from_dir[..], &["made"]].concat(), "y\n");
    assert!(again.err.contains("would overwrite it"), "{again:?}");
    let again = again.ok();
    let same = "Nothing changed: image made is left as it was.\n";
    assert!(again.contains(same) && !again.contains("\nfrom the command\n"), "{again}");
    let versions = server.walt(USER, &["image", "history", "made"]).ok().lines().count();
    let anew = build(&server, &["--no-cache", "-y", "made"]).ok();
    assert!(anew.contains("\nfrom the command\n") && anew.contains("Image made updated.\n"), "{anew}");
    assert_eq!(server.walt(USER, &["image", "history", "made"]).ok().lines().count(), versions + 1);
    // Cloning what a name means already is nothing, either.
    let ran = server.walt(USER, &["image", "clone", "--force", "walt:waltplatform/pc-x86-64-mini"]).ok();
    assert!(ran.contains(&format!("Nothing changed: image {MINI} is left as it was.\n")), "{ran}");
    let declined = server.walt_with_input(USER, &[&from_dir[..], &["made"]].concat(), "n\n");
    assert_eq!(declined.status, Some(1), "{declined:?}");
    assert!(server.walt(USER, &["image", "history", "made"]).ok().contains("walt image build --from-dir"));

    // No label, no image; what the name meant stays.
    file("FROM scratch\nCOPY Dockerfile /x\n");
    let ran = build(&server, &["-y", "made"]);
    assert!(ran.status == Some(1) && ran.err.contains("Sorry, image build FAILED."), "{ran:?}");
    assert!(ran.err.contains("walt.node.models"), "{ran:?}");
    // Nor one that is made for a newer server.
    file(&format!("FROM {MINI}\nLABEL walt.server.minversion=99\n"));
    let ran = build(&server, &["-y", "made"]);
    assert!(ran.status == Some(1) && ran.err.contains("[Need server upgrade, version>=99]"), "{ran:?}");
    let look = server.walt_with_input(USER, &["image", "shell", "made"], "cat /root/made\n");
    assert_eq!(look.out, "1\n", "{look:?}");

    // From a git repository, in a directory of it.
    let repository = place.path().join("repository");
    fs::create_dir_all(repository.join("sub")).unwrap();
    fs::write(repository.join("sub/Containerfile"), format!("FROM {MINI}\nCOPY x /root/x\n")).unwrap();
    fs::write(repository.join("sub/x"), "from git\n").unwrap();
    run("git", &["init", "-q"], &repository);
    run("git", &["add", "-A"], &repository);
    run("git", &["-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "-qm", "x"], &repository);
    run("chown", &["-R", "nobody", "."], &repository);
    let url = format!("file://{}", repository.display());
    let ran = server.walt(USER, &["image", "build", "--from-url", &url, "--sub-dir", "/sub/", "git"]);
    assert!(
        ran.ok()
            .starts_with(&format!("** Cloning the git repository at {url}\n** Verifying the repository\n"))
    );
    let look = server.walt_with_input(USER, &["image", "shell", "git"], "cat /root/x\n");
    assert_eq!(look.out, "from git\n", "{look:?}");
    let ran = server.walt(USER, &["image", "build", "--from-url", &url, "--sub-dir", "none", "git"]);
    assert!(ran.status == Some(1) && ran.err.contains("no directory 'none'"), "{ran:?}");
    let ran = server.walt(USER, &["image", "build", "--from-url", "file:///nowhere", "git"]);
    assert!(ran.status == Some(1) && ran.err.contains("could not clone"), "{ran:?}");
    assert!(ran.err.contains("\nSorry, image build FAILED.\n"), "{ran:?}");

    // ctrl-C ends the command on the server, too, and so does the server's death.
    file(&format!("FROM {MINI}\nRUN echo started; exec sleep 987654\n"));
    let sleeping = || {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let lines = processes.filter_map(|p| fs::read(p.path().join("cmdline")).ok());
        lines.filter(|line| line.starts_with(b"sleep\0987654\0")).count()
    };
    for how in ["ctrl-C", "kill -9"] {
        let mut client = server.terminal(USER, &[&from_dir[..], &["slow"]].concat());
        client.expect("\nstarted", SOON);
        until("the command of the build to run", SOON, || (sleeping() > 0).then_some(()));
        if how == "ctrl-C" {
            client.send("\x03");
            let (status, rest) = client.end(SOON);
            assert!(!status.success(), "{rest}");
        } else {
            server.kill();
        }
        until("the command of the build to end", SOON, || (sleeping() == 0).then_some(()));
    }
    server.launch().unwrap_or_else(|e| panic!("{e:?}"));
    let sessions = server.state_dir().join("sessions");
    until("the rest of the build to be removed", SOON, || {
        fs::read_dir(&sessions).unwrap().next().is_none().then_some(())
    });
    holes(&server, &from_dir, &file);
    let check = server.server_command(&["check-store"]).output().unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
    assert!(!server.walt(USER, &["image", "show", "--names-only"]).ok().contains("slow"));
    let mark = server.dir().display().to_string();
    let left: Vec<String> = Machine::now()
        .changes_since(&before)
        .lines()
        .filter(|l| l.contains(&mark) && l.contains("sessions"))
        .map(str::to_owned)
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Files that seem to be large: what is in them counts; and ctrl-C while a step's files are hashed ends that at once.
fn holes(server: &TestServer, from_dir: &[&str], file: &dyn Fn(&str)) {
    file(&format!(
        "FROM {MINI}\nRUN mkdir -p /var/log && truncate -s 278G /var/log/lastlog /big && echo end >>/big\n\
         RUN test -e /var/log/lastlog && ! test -s /var/log/lastlog && tail -c 4 /big\n"
    ));
    let start = Instant::now();
    let said = server.walt(USER, &[from_dir, &["large"]].concat()).ok();
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    assert!(
        said.contains("\nend\n") && said.contains("Note: /var/log/lastlog is a large login log"),
        "{said}"
    );
    server.walt(USER, &["image", "remove", "large"]).ok();

    // Each below what a tar has as a sparse file: minutes of hashing.
    file(&format!("FROM {MINI}\nRUN for n in $(seq 150); do truncate -s 1000M /f$n; done; echo m''ade\n"));
    let layers = || fs::read_dir(server.state_dir().join("images/layers")).unwrap().count();
    let before = layers();
    let mut client = server.terminal(USER, &[from_dir, &["slow"]].concat());
    client.expect("made", SOON);
    std::thread::sleep(Duration::from_millis(500));
    client.send("\x03");
    let (status, rest) = client.end(SOON);
    assert!(!status.success(), "{rest}");
    let sessions = server.state_dir().join("sessions");
    until("the hashing to end", AT_ONCE, || fs::read_dir(&sessions).unwrap().next().is_none().then_some(()));
    until("the layer of the context to go", SOON, || (layers() <= before).then_some(()));
}
