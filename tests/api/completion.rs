//! Completion in real shells, on terminals: bash, zsh, fish.

use crate::run::Room;
use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use walt_testkit::{Terminal, TestServer, User, until};

const ANN: User = User::RootFor("ann");
const BOB: User = User::RootFor("bob");
const SOON: Duration = Duration::from_secs(30);
/// What a user must not wait longer for.
const BOUND: Duration = Duration::from_millis(150);
/// How often the time is taken.
const TIMES: usize = 10;
/// How often a key is pressed before it counts as without effect: it waits for the server for a limited time.
const TRIES: usize = 5;

/// A shell without files of its user, and how its script is loaded.
struct Shell {
    name: &'static str,
    arguments: &'static [&'static str],
    load: &'static str,
}

const SHELLS: [Shell; 3] = [
    Shell {
        name: "bash",
        arguments: &["--norc", "--noprofile", "-i"],
        load: "source <(walt advanced dump-bash-autocomplete)",
    },
    Shell {
        name: "zsh",
        arguments: &["-f", "-i"],
        load: "bindkey -e; source <(walt advanced dump-zsh-autocomplete)",
    },
    Shell {
        name: "fish",
        arguments: &["--no-config", "-i"],
        load: "walt advanced dump-fish-autocomplete | source",
    },
];

fn is_installed(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output().unwrap();
    if !found.status.success() {
        eprintln!("skipped: {program} is not installed");
    }
    found.status.success()
}

/// The directory of a test's user.
fn home(server: &TestServer) -> std::path::PathBuf {
    let home = server.dir().join("home");
    fs::create_dir_all(home.join("my dir")).unwrap();
    fs::write(home.join("my file"), "").unwrap();
    home
}

/// A program in the user's directory, which finds `walt`.
fn program(server: &TestServer, program: &str, home: &Path) -> Command {
    let mut command = server.as_user(Command::new(program), ANN);
    let path = format!("{}:{}", server.dir().join("bin").display(), std::env::var("PATH").unwrap());
    command
        .env("PATH", path)
        .env("HOME", home)
        .env("XDG_CONFIG_HOME", home.join(".config"))
        .current_dir(home);
    command
}

fn shell(server: &TestServer, shell: &Shell, home: &Path) -> Terminal {
    let mut command = program(server, shell.name, home);
    command.args(shell.arguments).env("PS1", "$ ").env("SHELL", shell.name);
    let mut terminal = Terminal::spawn(command);
    terminal.line(shell.load);
    terminal.line("echo lo''aded");
    terminal.expect("loaded", SOON);
    terminal
}

/// The words that a line has become by the tab key: the shell itself prints them.
fn completed(terminal: &mut Terminal, line: &str) -> String {
    // ctrl-A goes to the beginning of the line, which becomes one of another command.
    terminal.send(&format!("{line}\t\x01printf '<%s>' BE''GIN \r"));
    terminal.expect("<BEGIN>", SOON);
    terminal.line("echo EN''D");
    let text = terminal.expect("END", SOON);
    // Behind the words there is a prompt.
    let mut end = 0;
    while text[end..].starts_with('<')
        && let Some(length) = text[end..].find('>')
    {
        end += length + 1;
    }
    text[..end].to_owned()
}

/// The words for which fish, bash and zsh ask.
fn ask(server: &TestServer, home: &Path, line: &str) -> Output {
    let mut command = program(server, "walt", home);
    command.args(["advanced", "complete", "fish", line]).stdin(Stdio::null());
    command.output().unwrap()
}

fn proposed(server: &TestServer, home: &Path, line: &str) -> Vec<String> {
    let output = ask(server, home, line);
    assert!(output.status.success() && output.stderr.is_empty(), "{line}: {output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect()
}

/// A server with images of ann and bob, ann's nodes vn1 and vn2, and the node n11, which nobody owns.
fn room() -> Room {
    let room = Room::new(&[11]);
    for node in ["vn1", "vn2"] {
        room.server.walt(ANN, &["node", "create", node]).ok();
    }
    room.server.walt(BOB, &["image", "show"]).ok();
    room.server.walt(ANN, &["log", "add-checkpoint", "begin"]).ok();
    room
}

#[test]
fn shells_complete_what_is_typed() {
    let room = room();
    let (server, home) = (&room.server, home(&room.server));
    // The first look at a node may take longer than a key.
    until("the files of n11", SOON, || {
        (proposed(server, &home, "walt node cp n11:/etc/hostn") == ["n11:/etc/hostname"]).then_some(())
    });
    for this in SHELLS.iter().filter(|s| is_installed(s.name)) {
        let mut terminal = shell(server, this, &home);
        let start = Instant::now();
        let cases = [
            ("walt no", "<walt><node>"),
            ("walt node sho", "<walt><node><show>"),
            ("walt node show --wat", "<walt><node><show><--watch>"),
            ("walt node shell vn", "<walt><node><shell><vn>"),
            ("walt node boot vn1,vn", "<walt><node><boot><vn1,vn2>"),
            ("walt node boot vn1 def", "<walt><node><boot><vn1><default>"),
            ("walt node boot vn1 pc-x", "<walt><node><boot><vn1><pc-x86-64>"),
            ("walt node config vn1 ra", "<walt><node><config><vn1><ram=>"),
            ("walt node config vn1 ram=4", "<walt><node><config><vn1><ram=4G>"),
            ("walt node link vn1 walt", "<walt><node><link><vn1><walt-net>"),
            ("walt node create vn3 --image=pc", "<walt><node><create><vn3><--image=pc-x86-64>"),
            ("walt image clone walt:bo", "<walt><image><clone><walt:bob/pc-x86-64>"),
            ("walt image cp pc-x86-64:/bo", "<walt><image><cp><pc-x86-64:/boot/>"),
            (
                "walt image cp pc-x86-64:/boot/pc-x86-64/st",
                "<walt><image><cp><pc-x86-64:/boot/pc-x86-64/start.ipxe>",
            ),
            ("walt node cp n11:/etc/hostn", "<walt><node><cp><n11:/etc/hostname>"),
            ("walt node cp n11:x boo", "<walt><node><cp><n11:x><booted-image>"),
            ("walt node cp my\\ f", "<walt><node><cp><my file>"),
            ("walt node cp ./my\\ d", "<walt><node><cp><./my dir/>"),
            ("walt log remove-checkpoint be", "<walt><log><remove-checkpoint><begin>"),
            ("walt log show --nodes my-", "<walt><log><show><--nodes><my-nodes>"),
            ("walt help show tuto", "<walt><help><show><tutorial>"),
            ("walt node run vn1 ls vn", "<walt><node><run><vn1><ls><vn>"),
        ];
        for (line, expected) in cases {
            // A busy machine may need longer than completion waits.
            let mut seen = Vec::new();
            let found = (0..TRIES).any(|_| {
                seen.push(completed(&mut terminal, line));
                seen.last().is_some_and(|last| last == expected)
            });
            assert!(found, "{}: {line}: {seen:?}", this.name);
        }
        let average = start.elapsed() / u32::try_from(cases.len()).unwrap();
        eprintln!("{}: {} lines, {average:?} each", this.name, cases.len());
    }
}

#[test]
fn what_a_server_knows_is_proposed() {
    let room = room();
    let (server, home) = (&room.server, home(&room.server));
    // A list that is empty, or has keywords only, may be one that came too late.
    let proposed = |line: &str| {
        let tries: Vec<Vec<String>> = (0..TRIES).map(|_| proposed(server, &home, line)).collect();
        tries.into_iter().max_by_key(Vec::len).unwrap()
    };
    assert_eq!(proposed("walt node shell "), ["n11", "vn1", "vn2"]);
    assert_eq!(proposed("walt node remove "), ["vn1", "vn2"], "virtual ones");
    assert_eq!(proposed("walt node forget "), ["n11"], "physical ones");
    assert_eq!(proposed("walt node wait VN1,n"), ["VN1,n11", "VN1,n11,"]);
    assert_eq!(proposed("walt node boot "), ["my-nodes", "free-nodes", "all-nodes", "n11", "vn1", "vn2"]);
    assert!(proposed("walt device rename ").contains(&"walt-server".to_owned()));
    // Settings that all of them have, and have not been given yet.
    let keys = proposed("walt node config my-nodes ram=1G ");
    assert!(keys.contains(&"disks=".to_owned()) && !keys.contains(&"ram=".to_owned()), "{keys:?}");
    let shared = proposed("walt node config all-nodes ");
    assert!(shared.contains(&"netsetup=".to_owned()) && !shared.contains(&"ram=".to_owned()), "{shared:?}");
    assert_eq!(proposed("walt node config n11 netsetup="), ["netsetup=LAN", "netsetup=NAT"]);
    let links = proposed("walt image clone walt:");
    assert!(
        links.contains(&"walt:bob/pc-x86-64".to_owned()) && !links.iter().any(|l| l.contains("ann")),
        "{links:?}"
    );
    assert_eq!(proposed("walt image diff pc-x86-64@"), ["pc-x86-64@1"]);
    assert_eq!(proposed("walt log show --history beg"), ["begin:"]);
    assert_eq!(proposed("walt log show --history -1h:beg"), ["-1h:begin"]);
    assert_eq!(proposed("walt advanced fix-image-owner "), ["bob"]);
    assert_eq!(proposed("walt image publish --registry "), ["auto", "hub"]);
    // What is not there has no names.
    assert_eq!(proposed("walt image cp pc-x86-64:/boot/../boo"), ["pc-x86-64:/boot/../boot/"]);
    assert!(proposed("walt image cp pc-x86-64:/none/").is_empty());
    // Another user's node is not looked at: it would take a confirmation.
    assert!(proposed("walt node cp my file n11:/etc/hostn").is_empty(), "too many words");
    server.walt(BOB, &["node", "acquire", "n11"]).ok();
    assert!(proposed("walt node cp n11:/etc/hosts").is_empty());
    // The variable on the line counts.
    let nowhere = format!("WALT_SERVER=unix:{}/none walt node shell ", home.display());
    assert!(proposed(&nowhere).is_empty());

    let times = times(server, &home, "walt node shell ");
    eprintln!("with a server: fastest {:?}, median {:?} of {TIMES}", times[0], times[TIMES / 2]);
    assert!(times[0] < BOUND, "{times:?}");
}

/// Sorted.
fn times(server: &TestServer, home: &Path, line: &str) -> Vec<Duration> {
    let mut times: Vec<Duration> = (0..TIMES)
        .map(|_| {
            let start = Instant::now();
            assert!(ask(server, home, line).status.success());
            start.elapsed()
        })
        .collect();
    times.sort();
    times
}

#[test]
fn nothing_is_said_on_the_prompt_without_a_server() {
    let server = TestServer::prepare(walt_testkit::Options::default());
    let home = home(&server);
    // It accepts, and never answers.
    let silent = home.join("silent.sock");
    let _listener = UnixListener::bind(&silent).unwrap();
    for this in SHELLS.iter().filter(|s| is_installed(s.name)) {
        for (target, load) in
            [("unix:/nonexistent", true), ("unix:silent.sock", true), ("nonsense", true), ("", false)]
        {
            let mut command = program(&server, this.name, &home);
            command.args(this.arguments).env("PS1", "$ ").env("WALT_SERVER", target);
            let mut terminal = Terminal::spawn(command);
            if load {
                terminal.line(this.load);
            } else {
                // The program is gone since the script was loaded.
                terminal.line(this.load);
                terminal.line("PATH=/nonexistent");
                if this.name == "fish" {
                    terminal.line("set PATH /nonexistent");
                }
            }
            terminal.line("echo lo''aded");
            terminal.expect("loaded", SOON);
            terminal.send("walt node shell v\twalt node boot m\t");
            terminal.send("\x01echo EN''D ");
            terminal.line("");
            let text = terminal.expect("END", SOON).to_lowercase();
            for word in ["error", "failed", "cannot", "no such", "not found", "panicked"] {
                assert!(!text.contains(word), "{} {target}: {text}", this.name);
            }
        }
    }
    // Without an answer, what needs none is proposed in time.
    let start = Instant::now();
    let output = program(&server, "walt", &home)
        .args(["advanced", "complete", "fish", "walt node boot "])
        .env("WALT_SERVER", format!("unix:{}", silent.display()))
        .output()
        .unwrap();
    let took = start.elapsed();
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("my-nodes\t"), "{output:?}");
    // Of several, since others use this machine.
    let fastest = (0..TIMES)
        .map(|_| {
            let start = Instant::now();
            let mut command = program(&server, "walt", &home);
            command.args(["advanced", "complete", "fish", "walt node boot "]);
            command.env("WALT_SERVER", format!("unix:{}", silent.display())).output().unwrap();
            start.elapsed()
        })
        .min()
        .unwrap();
    eprintln!("with a server that does not answer: {took:?}, fastest {fastest:?}");
    assert!(fastest < BOUND, "{fastest:?}");
    // Without a configuration and with a broken one.
    fs::create_dir_all(home.join(".walt")).unwrap();
    for config in ["", "a: b: c", "walt: {server: 'no server'}"] {
        fs::write(home.join(".walt/config"), config).unwrap();
        let mut command = program(&server, "walt", &home);
        command.args(["advanced", "complete", "zsh", "node", "boot", "my"]).env_remove("WALT_SERVER");
        let output = command.output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{config}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("my-nodes"), "{config}: {output:?}");
    }
}

#[test]
fn scripts_run_as_files_too() {
    let server = TestServer::prepare(walt_testkit::Options::default());
    let home = home(&server);
    for this in SHELLS.iter().filter(|s| is_installed(s.name)) {
        let mut command = program(&server, "walt", &home);
        command.args(["advanced", &format!("dump-{}-autocomplete", this.name)]).env_remove("WALT_SERVER");
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        let script = home.join(this.name);
        fs::write(&script, &output.stdout).unwrap();
        if this.name == "zsh" {
            assert!(output.stdout.starts_with(b"#compdef _walt walt\n"));
        }
        let ran = program(&server, this.name, &home).arg(&script).stdin(Stdio::null()).output().unwrap();
        let said = [ran.stdout.as_slice(), &ran.stderr].concat();
        assert!(ran.status.success() && said.is_empty(), "{}: {ran:?}", this.name);
        // A script leaves nothing in its user's directory.
        assert!(!home.join(".zcompdump").exists());
    }
    if is_installed("zsh") {
        // As a file of $fpath.
        fs::create_dir_all(home.join("functions")).unwrap();
        fs::copy(home.join("zsh"), home.join("functions/_walt")).unwrap();
        let mut command = program(&server, "zsh", &home);
        let mut terminal = Terminal::spawn({
            command.args(["-f", "-i"]).env("PS1", "$ ");
            command
        });
        terminal.line(
            "bindkey -e; fpath=(~/functions $fpath); autoload -Uz compinit; compinit -u; echo lo''aded",
        );
        terminal.expect("loaded", SOON);
        assert_eq!(completed(&mut terminal, "walt node sho"), "<walt><node><show>");
        assert_eq!(completed(&mut terminal, "walt help show tuto"), "<walt><help><show><tutorial>");
    }
}
