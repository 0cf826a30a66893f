//! The client on another host: through ssh, with its configuration there. Image shells: `tests/containers/elsewhere.rs`;
//! a node that boots: `tests/boot/elsewhere.rs`.

use crate::run::Room;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::Duration;
use walt_testkit::{
    Elsewhere, Terminal,
    elsewhere::{self, GATE, LOGIN},
    until,
};

const SOON: Duration = Duration::from_secs(30);

/// Status, standard output and standard error of a client there, without a terminal.
fn run(host: &Elsewhere, server: Option<&str>, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = host.walt(arguments);
    command.stdin(Stdio::null());
    server.map(|url| command.env("WALT_SERVER", url));
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_same_commands_through_ssh() {
    if !elsewhere::available() {
        return;
    }
    let room = Room::new(&[11]);
    let host = Elsewhere::new(&room.server);
    assert!(host.ok(&["node", "create", "vn1"]).contains("vn1"));
    let nodes: serde_json::Value = serde_json::from_str(&host.ok(&["node", "show", "--json"])).unwrap();
    assert_eq!((&nodes["nodes"][0]["name"], &nodes["nodes"][0]["owner"]), (&"vn1".into(), &LOGIN.into()));
    assert_eq!(host.ok(&["node", "run", "n11", "printf", "%s", "a b"]), "a b");
    // Files in both directions, of nodes and of images.
    fs::write(host.home().join("file"), "from elsewhere").unwrap();
    let there = room.server.dir().join("there");
    fs::create_dir(&there).unwrap();
    host.ok(&["node", "cp", "file", &format!("n11:{}/copy", there.display())]);
    assert_eq!(fs::read_to_string(there.join("copy")).unwrap(), "from elsewhere");
    host.ok(&["node", "cp", &format!("n11:{}/copy", there.display()), "back"]);
    assert_eq!(fs::read_to_string(host.home().join("back")).unwrap(), "from elsewhere");
    host.ok(&["image", "cp", "-y", "file", "pc-x86-64:/boot/file"]);
    host.ok(&["image", "cp", "pc-x86-64:/boot/file", "again"]);
    assert_eq!(fs::read_to_string(host.home().join("again")).unwrap(), "from elsewhere");
    // A shell on a terminal.
    let mut command = host.walt(&["node", "shell", "n11"]);
    command.env("WALT_SERVER", host.url());
    let mut terminal = Terminal::spawn(command);
    terminal.expect("Caution: changes outside /persist will be lost", SOON);
    drop(terminal);

    // Why it fails.
    let url = host.url();
    let (status, _, said) = run(&host, Some(&format!("ssh://nobody@{GATE}")), &["node", "show"]);
    assert_eq!(status, Some(1), "{said}");
    assert!(
        said.contains("Network connection to WalT server failed!\nNo server answers at ssh://nobody@"),
        "{said}"
    );
    assert!(said.contains(&format!("Try 'ssh nobody@{GATE}' by hand.")), "{said}");
    host.install(false);
    let (_, _, said) = run(&host, Some(&url), &["node", "show"]);
    assert!(said.contains(&format!("Install the package 'walt' on {GATE}")), "{said}");
    let (_, _, said) = run(&host, Some(&url), &["node", "run", "n11", "true"]);
    assert!(said.contains(&format!("Install the package 'walt' on {GATE}")), "terminals too: {said}");
    host.install(true);
    let (_, _, said) = run(&host, Some(&format!("ssh://{LOGIN}@{GATE}/run/no.sock")), &["node", "show"]);
    assert!(
        said.contains("'walt proxy' failed there (status 1)") && said.contains("Is walt-server running on"),
        "{said}"
    );
    assert_eq!(host.ok(&["node", "show", "--names-only"]), "vn1\n");

    // Completion never waits for ssh: the first key gets what needs no server, later ones what came meanwhile.
    let complete = || {
        let (status, out, said) =
            run(&host, Some(&url), &["advanced", "complete", "fish", "walt node boot v"]);
        assert_eq!((status, said.as_str()), (Some(0), ""));
        out
    };
    assert_eq!(complete(), "");
    until("the names of nodes", SOON, || complete().starts_with("vn1\t").then_some(()));
    for entry in fs::read_dir(host.home().join(".cache/walt/complete")).unwrap().flatten() {
        let is_answer = entry.metadata().unwrap().len() > 0;
        assert!(!is_answer || entry.metadata().unwrap().permissions().mode() & 0o777 == 0o600, "{entry:?}");
    }
}

#[test]
fn the_configuration_names_the_server() {
    if !elsewhere::available() {
        return;
    }
    let room = Room::new(&[]);
    let host = Elsewhere::new(&room.server);
    let config = host.home().join(".walt/config");
    // Nothing says which server, and nobody can be asked.
    let (status, out, said) = run(&host, None, &["node", "show"]);
    assert_eq!((status, out.as_str()), (Some(1), ""), "{said}");
    assert!(said.starts_with("Network connection to WalT server failed!\n"), "{said}");
    assert!(said.contains("WALT_SERVER=ssh://") && said.contains("~/.walt/config"), "{said}");
    // What needs no server asks nothing.
    assert!(run(&host, None, &["help", "list"]).1.contains("tutorial") && !config.exists());

    // On a terminal, the user is asked until a server answers.
    let mut terminal = Terminal::spawn(host.walt(&["node", "show"]));
    let question = "IP or hostname of WalT server: ";
    terminal.expect(question, SOON);
    terminal.line("");
    terminal.expect(question, SOON);
    terminal.line("no server");
    terminal.expect("'no server' does not name a server", SOON);
    terminal.expect(question, SOON);
    terminal.line("localhost");
    terminal.expect("Network connection to WalT server failed!", SOON);
    terminal.expect(question, SOON);
    terminal.line(&host.url());
    terminal.expect(&format!("OK. You are '{LOGIN}' there."), SOON);
    terminal.expect("Configuration was updated in /root/.walt/config.", SOON);
    assert!(terminal.end(SOON).0.success());
    assert_eq!(fs::metadata(&config).unwrap().permissions().mode() & 0o777, 0o600);
    let (status, _, said) = run(&host, None, &["node", "show"]);
    assert!(status == Some(0) && !said.contains("IP or hostname"), "{said}");
    // The environment counts more.
    let (status, _, said) = run(&host, Some("unix:/nonexistent"), &["node", "show"]);
    assert!(status == Some(1) && said.contains("No server answers at /nonexistent"), "{said}");

    // What an older version has left is converted; its name is explained once, to people.
    fs::remove_file(&config).unwrap();
    let old = format!("server: {}\nusername: ann\npassword: '2124'\n# fast-load: 00\n", host.url());
    fs::write(host.home().join(".waltrc"), old).unwrap();
    let (status, _, said) = run(&host, None, &["node", "show", "--json"]);
    assert!(status == Some(0) && said.contains("Configuration was moved from /root/.waltrc to"), "{said}");
    let text = fs::read_to_string(&config).unwrap();
    assert!(
        text.contains("registries:") && !text.contains("fast-load") && !host.home().join(".waltrc").exists(),
        "{text}"
    );
    assert!(run(&host, None, &["node", "show"]).2.lines().all(|line| !line.contains("username")));
    let mut texts = Vec::new();
    for _ in 0..2 {
        let terminal = Terminal::spawn(host.walt(&["node", "show"]));
        texts.push(terminal.end(SOON).1);
    }
    let explained = format!(
        "says 'username: ann', which has no effect: your name on this server is that of your account there, '{LOGIN}'"
    );
    assert!(texts[0].contains(&explained) && !texts[1].contains("username"), "{texts:?}");

    // One that cannot be understood is ignored, with a warning, and left as it is.
    fs::write(&config, "a: b: c").unwrap();
    let (status, _, said) = run(&host, Some(&host.url()), &["node", "show"]);
    assert!(status == Some(0) && said.contains("Warning: ignoring /root/.walt/config: "), "{said}");
    assert_eq!(fs::read_to_string(&config).unwrap(), "a: b: c");
}
