//! An image shell from another host, through ssh.

use super::SOON;
use crate::mini::MINI;
use walt_testkit::{Elsewhere, Terminal, TestServer, elsewhere};

#[test]
fn an_image_shell_through_ssh() {
    if !elsewhere::available() {
        return;
    }
    let server = TestServer::start_with_images(&[MINI]);
    let host = Elsewhere::new(&server);
    host.ok(&["image", "clone", "walt:waltplatform/pc-x86-64-mini"]);
    let mut command = host.walt(&["image", "shell", MINI]);
    command.env("WALT_SERVER", host.url());
    let mut shell = Terminal::spawn(command);
    shell.expect("# ", SOON);
    assert_eq!(shell.must("echo elsewhere >/root/from; hostname", SOON), "image-shell\n");
    shell.resize(21, 87);
    assert_eq!(shell.must("stty size", SOON), "21 87\n");
    shell.line("exit");
    shell.expect("New image name: ", SOON);
    shell.line("mine");
    let (status, rest) = shell.end(SOON);
    assert!(status.success() && rest.contains("New image mine saved."), "{rest}");
    host.ok(&["image", "cp", "mine:/root/from", "from"]);
    assert_eq!(std::fs::read_to_string(host.home().join("from")).unwrap(), "elsewhere\n");
}
