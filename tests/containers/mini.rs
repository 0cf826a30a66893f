//! The mini image, which does not start its OS: all that can be done with a session.

use super::{SOON, USER};
use walt_testkit::{Machine, Terminal, TestServer, machine};

pub const MINI: &str = "pc-x86-64-mini";

fn start() -> TestServer {
    let server = TestServer::start_with_images(&[MINI]);
    server.walt(USER, &["image", "clone", "walt:waltplatform/pc-x86-64-mini"]).ok();
    server
}

fn open(server: &TestServer, image: &str) -> Terminal {
    let mut shell = server.terminal(USER, &["image", "shell", image]);
    shell.expect("Note: this is a limited virtual environment (with just the shell process).\n", SOON);
    shell.expect("Run 'walt help show shells' for more info.\n\n", SOON);
    shell.expect("# ", SOON);
    shell
}

fn names(server: &TestServer) -> String {
    server.walt(USER, &["image", "show", "--names-only"]).ok()
}

#[test]
fn the_shell_is_alone_on_its_terminal() {
    let server = start();
    let mut shell = open(&server, MINI);
    assert_eq!(shell.must("echo $$; pwd; echo $HOME; hostname", SOON), "1\n/root\n/root\nimage-shell\n");
    // Whoever waits for the prompt at the end of a line, as scripts do, gets it.
    assert!(!shell.was_asked_for_cursor());
    assert_eq!(shell.must("test -t 0 && tty | grep -c /dev/", SOON), "1\n");
    shell.resize(21, 87);
    assert_eq!(shell.must("stty size", SOON), "21 87\n");
    // ctrl-C ends what runs in the foreground, not the shell.
    shell.line("sh -c 'echo started; exec sleep 1000'");
    shell.expect("\nstarted\n", SOON);
    shell.send("\x03");
    assert_eq!(shell.must("echo alive", SOON), "alive\n");
    // Job control.
    shell.must("sleep 1000 & kill %1", SOON);
    // The line discipline of the user's terminal is left alone: full-screen programs get every key.
    shell.must("stty raw -echo; stty sane", SOON);
    shell.line("exit");
    shell.expect("New image name: ", SOON);
    shell.line("");
    shell.expect("Selected: pc-x86-64-mini", SOON);
    let rest = answer_yes(shell);
    assert!(rest.contains("othing changed"), "a shell in which nothing was changed saves nothing: {rest}");
    assert_eq!(names(&server), "pc-x86-64-mini\n");
    no_mounts(&server);
}

/// Says yes if it is asked, and returns all that is said to the end.
fn answer_yes(mut shell: Terminal) -> String {
    shell.send("y\r");
    let (status, rest) = shell.end(SOON);
    assert!(status.success(), "{status}: {rest}");
    rest
}

fn no_mounts(server: &TestServer) {
    let dir = server.dir().display().to_string();
    let mounts: Vec<String> = machine::mounts().into_iter().filter(|m| m.starts_with(&dir)).collect();
    assert!(mounts.is_empty(), "{mounts:?}");
}

#[test]
fn changes_are_saved_as_images() {
    let server = start();
    let mut shell = open(&server, MINI);
    shell.must("echo one >/root/one; rm /etc/profile; mkdir -p /srv/d; ln -s one /root/link", SOON);
    shell.line("exit");
    shell.expect("New image name: ", SOON);
    shell.line("Bad Name");
    shell.expect("Error: ", SOON);
    shell.expect("New image name: ", SOON);
    shell.line("mine");
    let (status, rest) = shell.end(SOON);
    assert!(status.success() && rest.contains("New image mine saved."), "{status}: {rest}");
    assert_eq!(names(&server), "mine\npc-x86-64-mini\n");

    let look = "cat /root/link; ls /etc/profile 2>/dev/null; ls -d /srv/d; exit 0\n";
    let ran = server.walt_with_input(USER, &["image", "shell", "mine"], look);
    assert_eq!(ran.out, "one\n/srv/d\n", "{ran:?}");
    assert!(ran.err.contains("--save"), "what becomes of the changes is said: {ran:?}");
    let ran =
        server.walt_with_input(USER, &["image", "shell", MINI], "ls /root/one /etc/profile 2>/dev/null\n");
    assert_eq!(ran.out, "/etc/profile\n", "the original is as it was: {ran:?}");

    // A third image is never overwritten.
    let mut shell = open(&server, "mine");
    shell.must("touch /root/two", SOON);
    shell.line("exit");
    shell.expect("New image name: ", SOON);
    shell.line(MINI);
    shell.expect("already exists", SOON);
    shell.expect("New image name: ", SOON);
    shell.line("");
    shell.expect("Are you sure? (y/n): ", SOON);
    shell.line("y");
    let (status, rest) = shell.end(SOON);
    assert!(status.success() && rest.contains("Image mine updated."), "{status}: {rest}");
    let ran = server.walt_with_input(USER, &["image", "shell", "mine"], "ls /root/two\n");
    assert_eq!(ran.out, "/root/two\n");
}

#[test]
fn scripts() {
    let server = start();
    let run = |arguments: &[&str], script: &str| {
        server.walt_with_input(USER, &[&["image", "shell", MINI], arguments].concat(), script)
    };
    let ran = run(&["--save=a"], "echo a >/root/a\n");
    assert!(ran.ok().contains("New image a saved."));
    let ran = run(&["--save=b"], "echo b >/root/b\nfalse\n");
    assert_eq!(ran.status, Some(1), "{ran:?}");
    assert!(ran.err.contains("dropped"), "{ran:?}");
    assert_eq!(names(&server), "a\npc-x86-64-mini\n");
    let ran = run(&[], "echo out; echo err >&2; exit 9\n");
    assert_eq!((ran.status, ran.out.as_str()), (Some(9), "out\n"), "{ran:?}");
    assert!(ran.err.contains("err\n"), "{ran:?}");
    let ran = run(&["--save"], "");
    assert!(ran.ok().contains("othing changed"));
    let ran = run(&["--save=x y"], "touch /root/x\n");
    assert_eq!(ran.status, Some(1), "{ran:?}");
}

#[test]
fn a_lost_client_leaves_the_shell() {
    let mut server = start();
    let mut shell = open(&server, MINI);
    shell.must("kept=here; (sleep 1000 &) ; echo file >/root/file", SOON);
    shell.kill();
    for (command, says) in [
        (["image", "shell", MINI].as_slice(), ["--resume pc-x86-64-mini", "--discard pc-x86-64-mini"]),
        (&["image", "remove", MINI], ["--resume pc-x86-64-mini", "--discard pc-x86-64-mini"]),
    ] {
        let refused = server.walt(USER, command);
        assert_eq!(refused.status, Some(1), "{refused:?}");
        says.iter().for_each(|s| assert!(refused.err.contains(s), "{s}: {refused:?}"));
    }
    // Nor does a killed server end it.
    server.kill();
    server.launch().unwrap_or_else(|e| panic!("{e:?}"));
    let mut shell = server.terminal(USER, &["image", "shell", "--resume", MINI]);
    shell.send("\r");
    shell.expect("# ", SOON);
    assert_eq!(
        shell.must("echo $kept; cat /root/file; ps | grep -c '[s]leep 1000'", SOON),
        "here\nfile\n1\n"
    );
    shell.line("exit 0");
    shell.expect("New image name: ", SOON);
    // A client that vanishes at the prompt leaves the session, too.
    shell.kill();
    let mut shell = server.terminal(USER, &["image", "shell", "--resume", MINI]);
    shell.expect("New image name: ", SOON);
    shell.line("resumed");
    let (status, rest) = shell.end(SOON);
    assert!(status.success() && rest.contains("New image resumed saved."), "{status}: {rest}");
    let ran = server.walt_with_input(USER, &["image", "shell", "resumed"], "cat /root/file\n");
    assert_eq!(ran.out, "file\n", "{ran:?}");
}

#[test]
fn changes_are_dropped_when_the_user_says_so() {
    let server = start();
    for last in ["\x03", "\x04"] {
        let mut shell = open(&server, MINI);
        shell.must("touch /root/dropped", SOON);
        shell.line("exit");
        shell.expect("New image name: ", SOON);
        shell.send(last);
        let (status, rest) = shell.end(SOON);
        assert_eq!(status.code(), Some(1), "{rest}");
        assert!(rest.contains("Aborted.") && rest.contains("dropped"), "{rest}");
    }
    let shell = open(&server, MINI);
    shell.kill();
    server.walt(USER, &["image", "shell", "--discard", MINI]).ok();
    let nothing = server.walt(USER, &["image", "shell", "--resume", MINI]);
    assert_eq!(nothing.status, Some(1), "{nothing:?}");
    let ran =
        server.walt_with_input(USER, &["image", "shell", MINI], "ls /root/dropped 2>/dev/null || echo no\n");
    assert_eq!(ran.out, "no\n");
    no_mounts(&server);
}

#[test]
fn down_ends_sessions_and_keeps_their_files() {
    let mut server = start();
    let before = Machine::now();
    let mut shell = open(&server, MINI);
    shell.must("echo file >/root/file", SOON);
    shell.kill();
    server.down();
    let mark = server.dir().display().to_string();
    let left: Vec<String> = Machine::now()
        .changes_since(&before)
        .lines()
        .filter(|l| l.contains(&mark))
        .map(str::to_owned)
        .collect();
    assert!(left.is_empty(), "{left:?}");
    server.launch().unwrap_or_else(|e| panic!("{e:?}"));
    let mut shell = server.terminal(USER, &["image", "shell", "--resume", MINI]);
    shell.send("\r");
    shell.expect("# ", SOON);
    assert_eq!(shell.must("cat /root/file", SOON), "file\n");
}
