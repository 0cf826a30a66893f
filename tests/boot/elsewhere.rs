//! A node that boots, used from another host through ssh.

use super::{BOOT, BOOT_SECONDS, MINI};
use walt_testkit::{Elsewhere, Terminal, TestServer, elsewhere};

/// The long form only: what it has besides the tests of `tests/api/elsewhere.rs` is the node.
#[test]
fn from_nothing_to_the_shell_of_a_node_through_ssh() {
    if std::env::var_os("WALT_TEST_LONG").is_none() {
        eprintln!("skipped: another boot of a node; WALT_TEST_LONG=1 asks for it");
        return;
    }
    if !elsewhere::available() {
        return;
    }
    let server = TestServer::start_with_images(&[MINI]);
    let host = Elsewhere::new(&server);
    host.ok(&["image", "clone", "walt:waltplatform/pc-x86-64-mini"]);
    host.ok(&["node", "create", "vn1", "--image", MINI]);
    host.ok(&["node", "config", "vn1", "boot.timeout=none"]);
    assert!(host.ok(&["node", "wait", "--timeout", BOOT_SECONDS, "vn1"]).contains("Node vn1: booted in "));
    let mut command = host.walt(&["node", "shell", "vn1"]);
    command.env("WALT_SERVER", host.url());
    let mut shell = Terminal::spawn(command);
    shell.expect("# ", BOOT);
    assert_eq!(shell.must("echo on $(hostname) >/root/file; hostname", BOOT), "vn1\n");
    shell.line("exit");
    assert!(shell.end(BOOT).1.contains("closed."));
    host.ok(&["node", "cp", "vn1:file", "back"]);
    assert_eq!(std::fs::read_to_string(host.home().join("back")).unwrap(), "on vn1\n");
    // Its directories are listed for completion, if not for the first key.
    let list = || {
        host.walt(&["advanced", "complete", "fish", "walt node cp vn1:fi"])
            .env("WALT_SERVER", host.url())
            .output()
    };
    walt_testkit::until("the files of the node", BOOT, || {
        list().unwrap().stdout.starts_with(b"vn1:file\t").then_some(())
    });
}
