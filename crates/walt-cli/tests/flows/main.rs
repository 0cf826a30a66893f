//! The program `walt` against a server with canned answers.

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used)]

mod server;

use server::Server;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use walt_api::term::INPUT_WINDOW;

struct Ran {
    status: i32,
    out: String,
    err: String,
}

fn walt(socket: &Path, arguments: &[&str], input: &str) -> Ran {
    let mut child = Command::new(env!("CARGO_BIN_EXE_walt"))
        .args(arguments)
        .env("WALT_SERVER", format!("unix:{}", socket.display()))
        .env_remove("WALT_USERNAME")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that asks nothing may end before it has read this.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let done = child.wait_with_output().unwrap();
    Ran {
        status: done.status.code().unwrap_or(-1),
        out: String::from_utf8(done.stdout).unwrap(),
        err: String::from_utf8(done.stderr).unwrap(),
    }
}

/// Longest wait for the program to say something.
const PATIENCE: Duration = Duration::from_secs(30);

/// The same with a terminal, by script(1): waits for the first text of each step, in order, then types
/// the second. Output of both kinds comes in `out`, as a user sees it, and after it what stty says.
fn walt_on_terminal(socket: &Path, command: &str, steps: &[(&str, &str)]) -> Ran {
    let line = format!(
        "trap : INT; stty cols 100 rows 30; {} {command}; s=$?; stty -a; exit $s",
        env!("CARGO_BIN_EXE_walt")
    );
    let mut child = Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .env("WALT_SERVER", format!("unix:{}", socket.display()))
        .env("TERM", "vt100")
        .env("SHELL", "/bin/sh")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut keyboard, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let (sender, arrived) = mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = screen.read(&mut buffer) {
            let _ = sender.send(buffer[..count].to_vec());
        }
    });
    let (mut all, mut read) = (String::new(), 0);
    for (wanted, typed) in steps {
        while !all[read..].contains(wanted) {
            let bytes = arrived.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no '{wanted}' in: {all}"));
            all += &String::from_utf8_lossy(&bytes);
        }
        read += all[read..].find(wanted).unwrap() + wanted.len();
        keyboard.write_all(typed.as_bytes()).unwrap();
        keyboard.flush().unwrap();
    }
    while let Ok(bytes) = arrived.recv_timeout(PATIENCE) {
        all += &String::from_utf8_lossy(&bytes);
    }
    let status = child.wait().unwrap().code().unwrap_or(-1);
    assert!(all.contains(" icanon") && all.contains(" echo "), "the terminal was not restored: {all}");
    Ran { status, out: all, err: String::new() }
}

#[test]
fn lists() {
    let server = Server::start();
    let ran = walt(&server.socket(), &["node", "show", "--names-only"], "");
    assert_eq!((ran.status, ran.out.as_str()), (0, "vn000\nvn001\n"));
    let ran = walt(&server.socket(), &["node", "show", "--json", "--all"], "");
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(json["num_nodes"], 200);
    assert_eq!(json["nodes"][0]["virtual"], true);
    let ran = walt(&server.socket(), &["node", "show"], "");
    assert!(ran.out.contains("vn001  virtual  pc-x86-64  x "), "{}", ran.out);
    assert!(!ran.out.contains('\x1b'));
    assert!(ran.err.contains("--all"));
}

#[test]
fn a_confirmation_is_asked_again_when_its_token_is_stale() {
    let server = Server::start();
    let ran = walt(&server.socket(), &["node", "boot", "vn1", "x"], "what\ny\ny\n");
    assert_eq!(ran.status, 0, "{}", ran.err);
    assert_eq!(ran.out, "boot ok.\n");
    assert_eq!(ran.err.matches("Are you sure? (y/n): ").count(), 3, "{}", ran.err);
    assert_eq!(ran.err.matches("This would reboot 1 node.\n").count(), 2);
    assert!(
        ran.err.contains("Invalid response.\n")
            && ran.err.contains("OK.\n\n")
            && ran.err.contains("a note\n")
    );
    let seen = server.seen();
    assert!(seen.len() == 3 && seen[2].contains("\"t2\""), "{seen:?}");
}

#[test]
fn no_and_the_end_of_input_abort() {
    let server = Server::start();
    for input in ["n\n", ""] {
        let ran = walt(&server.socket(), &["node", "boot", "vn1", "x"], input);
        assert_eq!(ran.status, 1);
        assert!(ran.out.is_empty() && ran.err.ends_with("Aborted.\n"), "{}", ran.err);
    }
    assert_eq!(server.seen().len(), 2);
    let ran = walt(&server.socket(), &["node", "boot", "vn1", "x", "-y"], "");
    assert_eq!((ran.status, ran.out.as_str()), (0, "boot ok.\n"));
}

#[test]
fn refusals_and_unfulfilled_requests() {
    let server = Server::start();
    let ran = walt(&server.socket(), &["node", "create", "bad name"], "");
    assert_eq!((ran.status, ran.err.as_str()), (1, "Error: invalid name\nNames are lower-case.\n"));
    let ran = walt(Path::new("/nonexistent/walt.sock"), &["node", "show"], "");
    assert_eq!(ran.status, 1);
    assert!(ran.err.starts_with("Network connection to WalT server failed!\n"), "{}", ran.err);
    assert!(ran.err.contains("/nonexistent/walt.sock"));
}

#[test]
fn waiting_goes_on_over_a_broken_connection() {
    let server = Server::start();
    let ran = walt(&server.socket(), &["node", "wait", "my-nodes"], "");
    assert_eq!((ran.status, ran.out.as_str()), (0, "Node vn1: booted in 1.5 s.\n"));
    assert_eq!(ran.err, "The connection to the server broke: connecting again.\n");
    assert_eq!(server.seen(), ["events kinds=node&nodes=my-nodes"; 2]);
    let late = walt(&Server::start().socket(), &["node", "wait", "--timeout", "0", "slow"], "");
    assert_eq!((late.status, late.out.as_str(), late.err.as_str()), (1, "", "Timeout was reached.\n"));
}

#[test]
fn a_watch_has_a_screen_of_its_own_until_ctrl_c() {
    let server = Server::start();
    let ran = walt_on_terminal(&server.socket(), "node show --watch", &[("vn1   ", "\x03")]);
    assert_eq!(ran.status, 0, "{}", ran.out);
    let (screen, after) = ran.out.split_once("\x1b[?1049l").expect("the end of the other screen");
    assert!(screen.contains("\x1b[?1049h") && screen.contains("Nodes you own:"), "{screen}");
    assert!(!after.contains("Aborted"), "{after}");
    let ran = walt(&server.socket(), &["node", "show", "--watch", "--json"], "");
    assert!(ran.status == 2 && ran.err.contains("cannot be used with"), "{}", ran.err);
}

#[test]
fn node_run_is_the_remote_program() {
    let server = Server::start();
    let ran = walt(&server.socket(), &["node", "run", "vn1", "sh", "-c", "exit 7"], "input\0\u{1}");
    assert_eq!((ran.status, ran.out.as_str(), ran.err.as_str()), (7, "input\0\u{1}", "err 0\n"));
    assert!(server.seen()[0].contains(r#""command":"sh -c 'exit 7'""#), "{:?}", server.seen());
    // One argument is a command line.
    let ran = walt(&server.socket(), &["node", "run", "vn1", "a b; exit 7"], "");
    assert_eq!((ran.status, ran.err.as_str()), (7, "err 0\n"));
    assert!(server.seen()[1].contains(r#""command":"a b; exit 7""#), "{:?}", server.seen());
    let ran = walt(&server.socket(), &["node", "run", "vn1", "ls", "|", "wc"], "");
    assert!(ran.err.starts_with("Note: '|' is an ordinary word here. "), "{}", ran.err);
    assert!(ran.err.contains("walt node run vn1 'ls | wc'\n"), "{}", ran.err);
    // The server resolves the set.
    let ran = walt(&server.socket(), &["node", "run", "vn000,nope", "true"], "");
    assert_eq!((ran.status, ran.err.as_str()), (1, "Error: No device with name 'nope' found.\n"));
    let ran = walt(&server.socket(), &["node", "run", "other", "true"], "y\nrest");
    assert_eq!((ran.status, ran.out.as_str()), (0, "rest"));
    // Much input, more than the server holds, does not block.
    let much = "x".repeat(3 << 20);
    assert_eq!(walt(&server.socket(), &["node", "run", "vn1", "cat"], &much).out.len(), much.len());
}

#[test]
fn lines_of_several_nodes_have_their_names() {
    let server = Server::start();
    let ran = walt(&server.socket(), &["node", "run", "a,long,gone", "exit 3"], "in\nput");
    assert_eq!(ran.status, 255);
    let mut out: Vec<&str> = ran.out.lines().collect();
    out.sort_unstable();
    assert_eq!(
        out,
        ["a    | in", "a    | put", "gone | half", "gone | out 2", "long | half", "long | out 1"],
        "{}",
        ran.out
    );
    assert_eq!(ran.err, "a    | err 0\nlong | err 1\ngone | err 2\nError: gone: it does not answer.\n");
    let ran = walt(&server.socket(), &["node", "run", "--json", "a,gone", "exit 3"], "in");
    assert_eq!((ran.status, ran.err.as_str()), (255, ""));
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    let expected = serde_json::json!({"status": 255, "nodes": [
        {"node": "a", "status": 3, "error": null, "stdout": "in", "stderr": "err 0\n", "stdout_bytes": 2, "stderr_bytes": 6},
        {"node": "gone", "status": null, "error": "it does not answer.", "stdout": "out 1\nhalf", "stderr": "err 1\n",
            "stdout_bytes": 10, "stderr_bytes": 6}]});
    assert_eq!(json, expected);
}

#[test]
fn ctrl_c_ends_the_command_on_the_nodes() {
    let server = Server::start();
    // Also behind input that nobody reads.
    let ran = walt_on_terminal(&server.socket(), "node run a,b wait </dev/zero", &[("a | waiting", "\x03")]);
    assert_eq!(ran.status, 1, "{}", ran.out);
    assert!(ran.out.contains("Aborted."), "{}", ran.out);
    let seen = server.seen();
    let told = seen.iter().find_map(|line| line.strip_prefix("interrupt after ")).expect("an interrupt");
    let input: usize = told.parse().unwrap();
    assert!((INPUT_WINDOW..2 * INPUT_WINDOW).contains(&input), "{input}");
}

#[test]
fn node_shell_warns_and_asks() {
    let server = Server::start();
    let ran = walt(&server.socket(), &["node", "shell", "other"], "y\nexit 3\n");
    assert_eq!((ran.status, ran.out.as_str()), (3, "exit 3\n"));
    assert!(
        ran.err.starts_with(
            "Caution: changes outside /persist will be lost on next node reboot.\n\
             Run 'walt help show shells' for more info.\n\
             Warning: other seems to be used by another user.\nAre you sure? (y/n): OK.\n\n"
        ),
        "{}",
        ran.err
    );
    let ran = walt(&server.socket(), &["node", "shell", "vn1"], "lost");
    assert_eq!(ran.status, 1);
    assert!(ran.err.contains("Issue occured while communicating with WalT server!"), "{}", ran.err);
}

#[test]
fn image_shell_in_scripts() {
    let server = Server::start();
    let socket = server.socket();
    let ran = walt(&socket, &["image", "shell", "x", "--save=y"], "make\n");
    assert_eq!((ran.status, ran.out.as_str()), (0, "make\nsave ok.\n"), "{}", ran.err);
    assert!(ran.err.contains("Note: this is a limited virtual environment (with just the shell process).\nRun 'walt help show shells' for more info.\n\n"));
    assert!(
        server.seen().last().unwrap().contains(r#""name":"y","session":"s1","yes":true"#),
        "{:?}",
        server.seen()
    );
    let ran = walt(&socket, &["image", "shell", "os", "--save"], "exit 4\n");
    assert_eq!(ran.status, 4);
    assert!(ran.err.contains("Note: the OS was started in a virtual environment.\n"));
    assert!(ran.err.contains("status 4: its changes were dropped."), "{}", ran.err);
    assert!(server.seen().last().unwrap().contains("discard"));
    for (script, status) in [("true\n", 0), ("exit 5\n", 5)] {
        let ran = walt(&socket, &["image", "shell", "x"], script);
        assert_eq!((ran.status, ran.out.as_str()), (status, script));
        assert!(ran.err.contains("Note: the changes were dropped"), "{}", ran.err);
        assert!(server.seen().last().unwrap().contains("discard"));
    }
    let ran = walt(&socket, &["image", "shell", "x", "--save"], "lost\n");
    assert_eq!(ran.status, 1);
    assert!(ran.err.contains("walt image shell --resume x"), "{}", ran.err);
    let ran = walt(&socket, &["image", "shell", "--discard", "x"], "");
    assert_eq!(ran.status, 0);
    assert!(server.seen().last().unwrap().contains("discard-image"));
}

#[test]
fn image_shell_on_a_terminal() {
    let server = Server::start();
    // A carriage return ends the shell of this server.
    let ran = walt_on_terminal(
        &server.socket(),
        "image shell x",
        &[
            ("Run 'walt help show shells' for more info.", "ls\x03\r"),
            ("New image name: ", "\n"),
            ("Are you sure? (y/n): ", "n\n"),
            ("New image name: ", "\n"),
            ("Are you sure? (y/n): ", "y\n"),
            ("Are you sure? (y/n): ", "y\n"),
            ("save ok.", ""),
        ],
    );
    assert_eq!(ran.status, 0, "{}", ran.out);
    let seen = server.seen();
    assert!(seen[0].contains(r#""tty":{"cols":100,"rows":30,"term":"vt100"}"#), "{seen:?}");
    assert!(seen[1].contains("resize") && seen[1].contains("30"), "{seen:?}");
    assert!(seen.last().unwrap().contains("\"t2\""), "{seen:?}");
    assert!(!ran.out.contains("Aborted"), "{}", ran.out);
}

#[test]
fn ctrl_c_and_ctrl_d_at_the_prompt_drop_the_changes() {
    for key in ["\x03", "\x04"] {
        let server = Server::start();
        let steps = [("more info.", "ls\r"), ("New image name: ", key), ("were dropped.", "")];
        let ran = walt_on_terminal(&server.socket(), "image shell os", &steps);
        assert_eq!(ran.status, 1, "{}", ran.out);
        assert!(ran.out.contains("Aborted."), "{}", ran.out);
        assert!(server.seen().last().unwrap().contains("discard"), "{:?}", server.seen());
    }
}

#[test]
fn console_on_a_terminal() {
    let server = Server::start();
    let ran = walt_on_terminal(
        &server.socket(),
        "node console vn1",
        &[("abort: ", "\r"), ("\x1b[2J", "\x01d"), ("Disconnected from console.", "")],
    );
    assert_eq!(ran.status, 0, "{}", ran.out);
    let ran =
        walt_on_terminal(&server.socket(), "node console vn1", &[("abort: ", "\x03"), ("Aborted.", "")]);
    assert_eq!(ran.status, 1, "{}", ran.out);
}

#[test]
fn the_far_end_of_ssh() {
    use std::io::{Read, Write};
    let server = Server::start();
    let mut proxy = std::process::Command::new(env!("CARGO_BIN_EXE_walt"))
        .arg("proxy")
        .env("WALT_SERVER", format!("unix:{}", server.socket().display()))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // The input stays open until the answer is there: its end would say that the client has gone.
    let mut input = proxy.stdin.take().unwrap();
    input.write_all(b"GET /api/v1/info HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut out = String::new();
    proxy.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert!(out.starts_with("HTTP/1.1 200") && out.contains("\"ann\""), "{out}");
    assert!(proxy.wait().unwrap().success());
}

#[test]
fn help_works_without_server() {
    let none = Path::new("/nonexistent");
    let ran = walt(none, &["help", "list"], "");
    assert!(ran.status == 0 && ran.out.starts_with("The following help topics are available:\n"));
    let ran = walt(none, &["help", "show", "shells"], "");
    assert!(ran.status == 0 && ran.out.starts_with("# "));
    let ran = walt(none, &["help", "show", "nope"], "");
    assert_eq!(
        (ran.status, ran.err.as_str()),
        (1, "Error: no such help topic\n(tip: use \"walt help list\")\n")
    );
    assert_eq!(walt(none, &[], "").status, 1);
    let ran = walt(none, &["node", "show", "--bad"], "");
    assert_eq!(ran.status, 2);
    assert!(
        ran.out.is_empty() && ran.err.starts_with("Error: unknown option '--bad'\n------\n"),
        "{}",
        ran.err
    );
    // Arguments that only the command itself can judge come with its help too.
    let ran = walt(none, &["node", "cp", "here", "there"], "");
    assert_eq!(ran.status, 2);
    assert!(
        ran.err.contains("a path of this machine, not both\n------\n")
            && ran.err.contains("walt node cp <local-path> <node>:<path>"),
        "{}",
        ran.err
    );
}
