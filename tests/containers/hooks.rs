//! The help page `image-from-scratch`, followed: an image with systemd and without hooks gets them.

use super::{SOON, USER};
use std::fs;
use std::time::{Duration, Instant};
use walt_testkit::{OS_STARTED, TestServer, repository};

/// For the start, and for the end, of the OS in a container.
const OS: Duration = Duration::from_secs(120);
/// For the end of a shell that leaves a stubborn process: below the 90 s that systemd would wait for it.
const STUBBORN: Duration = Duration::from_secs(60);

/// The first block of code of the page that writes the hooks.
fn lesson() -> String {
    let page = fs::read_to_string(repository().join("docs/help/image-from-scratch.md")).unwrap();
    let block = page.split("```\n").find(|b| b.contains("> /bin/walt-image-shell-start"));
    block.expect("the page shows how to write the hooks").to_owned()
}

#[test]
fn the_lesson_works() {
    let server = TestServer::start_with_images(&["pc-x86-64-default"]);
    server.walt(USER, &["image", "show"]).ok();
    let shell = |image: &str, options: &[&str], script: &str| {
        server.walt_with_input(USER, &[&["image", "shell", image], options].concat(), script)
    };
    let ran = shell(
        "pc-x86-64-default",
        &["--save=bare"],
        "rm /bin/walt-image-shell-start /bin/walt-image-shell-shutdown\n",
    );
    ran.ok();
    let ran = shell("bare", &["--save"], &lesson());
    assert!(ran.err.contains("Note: this is a limited virtual environment"), "{ran:?}");
    assert!(ran.ok().contains("Image bare updated."));
    let mut terminal = server.terminal(USER, &["image", "shell", "bare"]);
    terminal.expect("Note: the OS was started in a virtual environment.\n", OS);
    terminal.expect("root@image-shell:~# ", OS);
    terminal.must(OS_STARTED, OS);
    assert_eq!(terminal.must("cat /proc/1/comm; systemctl is-active cron", SOON), "systemd\nactive\n");
    assert_eq!(terminal.must("systemctl --no-pager --failed --no-legend | wc -l", SOON), "0\n");
    assert!(terminal.must("ip route", SOON).starts_with("default via "), "the container has a network");
    // What the user leaves running, and does not end when asked, delays the end by seconds, not by minutes.
    terminal.must("{ trap '' TERM HUP; exec sleep 9999; } & true", SOON);
    let left = Instant::now();
    terminal.line("exit");
    terminal.expect("New image name: ", OS);
    assert!(left.elapsed() < STUBBORN, "the end of the shell took {:?}", left.elapsed());
    terminal.send("\x03");
    assert_eq!(terminal.end(OS).0.code(), Some(1));
}
