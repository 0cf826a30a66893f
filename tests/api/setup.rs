//! `walt-server setup`, on a configuration of its own in a network namespace, so that no service of the machine is
//! touched: files, checks, questions. And what it sets: `api.group`, the default image.

use crate::registries::id_of;
use crate::room::{CABLE, SWITCH, Wiring, room};
use serde_json::Value;
use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;
use walt_testkit::{Netns, Options, Terminal, TestServer, User, images, programs};

/// How long a question may take to appear: the checks start a container before the last one.
const SOON: Duration = Duration::from_secs(60);
const DEFAULT: &str = "waltplatform/pc-x86-64-default:latest";
const MINI: &str = "waltplatform/pc-x86-64-mini:latest";
/// What a setup on these paths says in any case.
const QUIET: [&str; 2] = ["--default-image", "none"];

/// A machine without a server: a namespace, and paths for its files.
struct NewMachine {
    netns: Netns,
    dir: tempfile::TempDir,
}

impl NewMachine {
    fn new() -> Self {
        let netns = Netns::new();
        netns.run(&["ip", "link", "set", "lo", "up"]);
        Self { netns, dir: tempfile::tempdir_in("/var/tmp").unwrap() }
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("etc/server.conf")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.config()).unwrap_or_default()
    }

    /// `walt-server setup` with the paths of this machine.
    fn command(&self, words: &[&str]) -> Command {
        let wrapper = self.netns.wrapper();
        let mut command = Command::new(&wrapper[0]);
        command.args(&wrapper[1..]).arg(programs().join("walt-server")).arg("setup").args(words);
        let dirs = [("--state-dir", "state"), ("--run-dir", "run")];
        for (flag, dir) in dirs.iter().filter(|(flag, _)| !words.contains(flag)) {
            command.arg(flag).arg(self.dir.path().join(dir));
        }
        command.arg("--config").arg(self.config()).stdin(Stdio::null());
        command
    }

    /// Its status and all that it says.
    fn setup(&self, words: &[&str]) -> (Option<i32>, String) {
        let output = self.command(words).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    }

    #[track_caller]
    fn ok(&self, words: &[&str]) -> String {
        let (status, said) = self.setup(words);
        assert_eq!(status, Some(0), "{said}");
        said
    }

    /// The findings of `--check --json` that are worse than a note, and whether the machine is ready.
    #[track_caller]
    fn check(&self, words: &[&str]) -> (bool, Vec<Value>) {
        let output = self.command(&[&["--check", "--json"], words].concat()).output().unwrap();
        let json: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
        let ready = json["ready"] == true;
        assert_eq!(output.status.code(), Some(i32::from(!ready)), "{output:?}");
        (ready, json["findings"].as_array().unwrap().clone())
    }
}

/// The messages of one check, and their levels.
fn of(findings: &[Value], check: &str) -> Vec<(String, String)> {
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    findings
        .iter()
        .filter(|f| f["check"] == check)
        .map(|f| (text(&f["level"]), text(&f["message"])))
        .collect()
}

#[test]
fn a_new_machine_and_again_and_a_change() {
    let machine = NewMachine::new();
    let said = machine.ok(&[&["--yes"], &QUIET[..]].concat());
    let start = format!("To start it: walt-server run --config {}", machine.config().display());
    for says in ["This will be done:", "+ network:", "Nothing prevents serving", "walt node create n1"] {
        assert!(said.contains(says), "{says}: {said}");
    }
    assert!(said.replace('\n', " ").contains(&start), "{said}");
    let text = machine.text();
    assert!(text.contains("\n  walt-net: {ip: 192.168.183.1/24}\n") && text.starts_with("# "), "{text}");
    let checked = machine.netns.run(&[
        programs().join("walt-server").to_str().unwrap(),
        "check-config",
        "--config",
        machine.config().to_str().unwrap(),
    ]);
    assert!(checked.contains("valid"), "{checked}");

    let said = machine.ok(&[&["--yes"], &QUIET[..]].concat());
    assert!(said.contains("Nothing has to be changed."), "{said}");
    assert_eq!(machine.text(), text);

    // What the administrator wrote stays.
    fs::write(machine.config(), format!("{text}# ours\nlimits: {{session-keep: 3d}} # short\n")).unwrap();
    fs::set_permissions(machine.config(), fs::Permissions::from_mode(0o640)).unwrap();
    let words = ["--yes", "--address", "10.77.0.1/24", "--group", "daemon", "--registry", "none"];
    let said = machine.ok(&[&words, &QUIET[..]].concat());
    assert!(said.contains("-   walt-net: {ip: 192.168.183.1/24}"), "{said}");
    assert!(said.contains("+   walt-net: {ip: 10.77.0.1/24}"), "{said}");
    let new = machine.text();
    let expected = text.replace("192.168.183.1", "10.77.0.1");
    assert!(new.starts_with(&expected), "{new}");
    assert!(new.contains("# ours\nlimits: {session-keep: 3d} # short\n"), "{new}");
    assert!(new.ends_with("api: {group: daemon}\nregistries: []\n"), "{new}");
    let mode = fs::metadata(machine.config()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    let old = fs::read_to_string(machine.dir.path().join("etc/server.conf.old")).unwrap();
    assert!(old.contains("192.168.183.1"), "{old}");

    let (status, said) = machine.setup(&["--yes", "--vlan", "7"]);
    assert!(status == Some(1) && said.contains("--interface NAME"), "{said}");
    let (status, said) = machine.setup(&[]);
    assert!(status == Some(1) && said.contains("no terminal") && said.contains("--yes"), "{said}");
    fs::write(machine.config(), "run-dir: /x\nstat-dir: /x\n").unwrap();
    let (status, said) = machine.setup(&["--yes"]);
    assert!(status == Some(1) && said.contains("stat-dir") && said.contains("line 2"), "{said}");
}

#[test]
fn an_address_that_is_in_use_is_not_proposed() {
    let machine = NewMachine::new();
    machine.netns.run(&["ip", "link", "add", "lab0", "type", "bridge"]);
    machine.netns.run(&["ip", "addr", "add", "192.168.183.200/25", "dev", "lab0"]);
    machine.netns.run(&["ip", "link", "set", "lab0", "up"]);
    machine.netns.run(&["ip", "route", "add", "10.188.0.0/16", "dev", "lab0", "table", "77"]);
    let (status, said) = machine.setup(&[&["--yes", "--address", "192.168.183.1/24"], &QUIET[..]].concat());
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(status, Some(1), "{said}");
    assert!(
        said.contains("192.168.183.0/24 overlaps 192.168.183.128/25, which is used by a route of lab0"),
        "{said}"
    );
    assert!(said.contains("nothing was changed") && !machine.config().exists(), "{said}");
    machine.ok(&[&["--yes"], &QUIET[..]].concat());
    let text = machine.text();
    assert!(
        text.contains("ip: 192.168.184.1/24") && text.contains("containers: {network: 10.189.0.0/24}"),
        "{text}"
    );
    // A configuration that has collided since.
    machine.netns.run(&["ip", "addr", "add", "192.168.184.5/32", "dev", "lab0"]);
    let (ready, findings) = machine.check(&[]);
    assert!(!ready && of(&findings, "addresses")[0].1.contains("192.168.184.5/32"), "{findings:?}");
    machine.ok(&[&["--yes", "--address", "auto"], &QUIET[..]].concat());
    assert!(machine.text().contains("ip: 192.168.185.1/24"), "{}", machine.text());
}

#[test]
fn checks_name_what_prevents_serving() {
    let machine = NewMachine::new();
    let (ready, findings) = machine.check(&QUIET);
    assert!(ready, "{findings:?}");
    for check in
        ["programs", "containers", "addresses", "ports", "firewalls", "disk", "kvm", "cgroups", "clock"]
    {
        assert!(!of(&findings, check).is_empty(), "{check}: {findings:?}");
    }
    assert_eq!(of(&findings, "containers")[0].0, "ok", "{findings:?}");
    assert!(!machine.config().exists(), "a check changes nothing");

    let _held = machine.netns.inside(|| {
        (
            TcpListener::bind("0.0.0.0:2049").unwrap(),
            ["0.0.0.0:67", "0.0.0.0:111"].map(|at| UdpSocket::bind(at).unwrap()),
        )
    });
    machine.netns.run(&[
        "nft",
        "add table ip lab; add chain ip lab in { type filter hook input priority 0; policy drop; }",
    ]);
    let (ready, findings) = machine.check(&QUIET);
    assert!(!ready);
    let ports = of(&findings, "ports");
    let own = format!("process {}", std::process::id());
    let levels: Vec<&str> = ports.iter().map(|(level, _)| level.as_str()).collect();
    assert_eq!(levels, ["problem", "warning", "warning"], "{ports:?}");
    assert!(ports.iter().all(|(_, message)| message.contains(&own)), "{ports:?}");
    let firewalls = of(&findings, "firewalls");
    assert!(firewalls[0].0 == "note" && firewalls[0].1.contains("ip lab in"), "{firewalls:?}");
    let (ready, findings) = machine.check(&["--interface", "eth7", "--state-dir", "/dev/shm/walt"]);
    let interfaces = of(&findings, "interfaces");
    assert!(!ready && interfaces[0].1.contains("'eth7'") && interfaces[0].0 == "warning", "{interfaces:?}");
    assert!(of(&findings, "disk")[0].1.contains("in memory"), "{findings:?}");
}

#[test]
fn another_dhcp_server_is_heard_before_a_server_runs() {
    let first = room(Wiring::Cable, |_| ());
    let machine = NewMachine::new();
    machine.netns.cable(first.switch.as_ref().unwrap(), CABLE, "second");
    first.switch.as_ref().unwrap().run(&["ip", "link", "set", "second", "master", SWITCH]);
    // As many systems leave an unused interface.
    machine.netns.run(&["ip", "link", "set", CABLE, "down"]);
    let (_, findings) = machine.check(&[&["--interface", CABLE], &QUIET[..]].concat());
    let dhcp = of(&findings, "dhcp");
    assert_eq!(dhcp.len(), 1, "{findings:?}");
    let names = format!("at {} (", first.server.address());
    assert!(dhcp[0].0 == "warning" && dhcp[0].1.contains(&names), "{dhcp:?}");
    assert_eq!(of(&findings, "interfaces")[0].0, "ok", "{findings:?}");
    let link = machine.netns.run(&["ip", "link", "show", CABLE]);
    assert!(link.contains("state DOWN"), "it is as it was: {link}");
}

#[test]
fn questions_on_a_terminal() {
    let machine = NewMachine::new();
    machine.netns.run(&["ip", "link", "add", "spare0", "type", "veth", "peer", "name", "spare1"]);
    let mut terminal = Terminal::spawn(on_terminal(&machine));
    terminal.expect("Interface of walt-net [1]: ", SOON);
    terminal.send("\x03");
    let (status, _) = terminal.end(SOON);
    assert!(!status.success() && !machine.config().exists(), "ctrl-C ends it before anything is changed");

    let mut terminal = Terminal::spawn(on_terminal(&machine));
    let shown = terminal.expect("Interface of walt-net [1]: ", SOON);
    assert!(shown.contains("virtual nodes only") && shown.contains("spare0"), "{shown}");
    terminal.line("spare0");
    terminal.expect("VLAN on it (none: no tag) [none]: ", SOON);
    terminal.line("12");
    terminal.expect("Address [192.168.183.1/24]: ", SOON);
    terminal.line("192.168.77.1");
    terminal.expect("such as 192.168.183.1/24.", SOON);
    terminal.line("192.168.77.1/24");
    terminal.expect("Use the network walt-adm [n]: ", SOON);
    terminal.line("");
    terminal.expect("Group (none: all accounts) [none]: ", SOON);
    terminal.line("daemon");
    terminal.expect("Registries [1]: ", SOON);
    terminal.line("4");
    terminal.expect("Default image [", SOON);
    terminal.line("none");
    terminal.expect("Directory [", SOON);
    terminal.line("");
    let shown = terminal.expect("Go on [y]: ", SOON);
    assert!(shown.contains("+   walt-net: {raw-device: spare0, vlan: 12, ip: 192.168.77.1/24}"), "{shown}");
    assert!(!machine.config().exists(), "nothing is changed before the answer");
    terminal.line("y");
    let (status, said) = terminal.end(SOON);
    assert!(status.success(), "{said}");
    let text = machine.text();
    assert!(text.contains("api: {group: daemon}") && text.contains("registries: []"), "{text}");

    // Again: the current values are proposed, and Enter keeps them.
    let mut terminal = Terminal::spawn(on_terminal(&machine));
    for question in [
        "Interface of walt-net [2]: ",
        "VLAN on it (none: no tag) [12]: ",
        "Address [192.168.77.1/24]: ",
        "Use the network walt-adm [n]: ",
        "Group (none: all accounts) [daemon]: ",
        "Registries [1]: ",
    ] {
        terminal.expect(question, SOON);
        terminal.line("");
    }
    terminal.expect("Default image [", SOON);
    terminal.line("none");
    terminal.expect("Directory [", SOON);
    terminal.line("");
    terminal.expect("Nothing has to be changed.", SOON);
    assert!(terminal.end(SOON).0.success());
    assert_eq!(machine.text(), text);
}

/// The interactive form, without a standard input of its own.
fn on_terminal(machine: &NewMachine) -> Command {
    let form = machine.command(&[]);
    let mut command = Command::new(form.get_program());
    command.args(form.get_args());
    command
}

/// Members of the group of `api.group`, and root, may use the server.
#[test]
fn a_group_may_use_the_server() {
    let options =
        |group: &str| Options { config: format!("api: {{group: {group}}}\n"), ..Options::default() };
    let server = TestServer::start_with(options("daemon")).unwrap_or_else(|e| panic!("{e:?}"));
    server.walt(User::Account("daemon"), &["node", "show"]).ok();
    server.walt(User::Root, &["node", "show"]).ok();
    server.walt(User::Account("nobody"), &["node", "show"]).fails(1, "Permission denied");
    let mode = fs::metadata(server.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    drop(server);
    let ended = TestServer::start_with(options("no-such-group")).map(drop).unwrap_err();
    assert!(ended.log.contains("api.group: unknown group 'no-such-group'"), "{ended:?}");
}

#[test]
fn the_default_image_is_the_one_that_is_chosen() {
    const ANN: User = User::RootFor("ann");
    let mut server = TestServer::start();
    let run = |server: &TestServer, words: &[&str]| {
        let output = server.server_command(words).output().unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code(), said)
    };
    let (status, said) = run(&server, &["default-image", "use", "pc-x86-64-mini"]);
    assert!(status == Some(1) && said.contains("default-image build pc-x86-64-mini"), "{said}");

    let dir = images::tiny(server.dir());
    fs::write(dir.join("recipe"), "0123456789abcdef\n").unwrap();
    server.import("pc-x86-64-mini", &dir);
    server.walt(ANN, &["node", "create", "vn1"]).fails(1, "pc-x86-64-default");
    let (status, said) = run(&server, &["default-image", "use", "pc-x86-64-mini"]);
    assert!(
        status == Some(0) && said.contains(&format!("{DEFAULT} now points to pc-x86-64-mini.")),
        "{said}"
    );
    assert_eq!(id_of(&server, DEFAULT), id_of(&server, MINI));
    server.walt(ANN, &["node", "create", "vn1"]).ok();
    let (_, said) = run(&server, &["default-image", "use", "pc-x86-64-mini"]);
    assert!(said.contains("is the default image already"), "{said}");

    // It follows its recipe, and the recipe of its name does not replace it.
    fs::write(dir.join("recipe"), "fedcba9876543210\n").unwrap();
    server.import("pc-x86-64-mini", &dir);
    assert_eq!(id_of(&server, DEFAULT), id_of(&server, MINI));
    // Until the image of that name is made, or chosen again; also without a server.
    server.import("pc-x86-64-default", &dir);
    let full = id_of(&server, DEFAULT);
    assert_ne!(full, id_of(&server, MINI));
    run(&server, &["default-image", "use", "pc-x86-64-mini"]);
    assert_eq!(id_of(&server, DEFAULT), id_of(&server, MINI));
    server.kill();
    let (status, said) = run(&server, &["default-image", "use", "pc-x86-64-default"]);
    assert_eq!(status, Some(0), "{said}");
    server.launch().unwrap_or_else(|e| panic!("{e:?}"));
    assert_eq!(id_of(&server, DEFAULT), full);
}
