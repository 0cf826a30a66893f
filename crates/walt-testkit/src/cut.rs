//! Clients that disconnect while the server works for them, and checks that nothing is left over.

use crate::{TestServer, User, until};
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::Duration;

/// How long an operation may take to reach the point where it is cut off, and a client to handle a signal.
const LIMIT: Duration = Duration::from_secs(120);
/// How long the server may take to clean up.
const CLEAR: Duration = Duration::from_secs(60);

/// How a client ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// ctrl-C.
    Interrupted,
    /// `kill -9`.
    Killed,
}

impl How {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Interrupted, Self::Killed];
}

/// Runs the client until `begun` returns true for its output, and ends it then.
///
/// # Panics
/// If it ends before, or does not end then.
#[track_caller]
pub fn cut(server: &TestServer, user: User, words: &[&str], how: How, mut begun: impl FnMut(&str) -> bool) {
    let said = server.dir().join("cut");
    let file = File::create(&said).expect("the slot can be written");
    let mut command = server.walt_command(user, words);
    command.stdin(Stdio::null()).stdout(file.try_clone().expect("a descriptor can be copied")).stderr(file);
    let mut child = command.spawn().expect("walt can be started");
    let text = || fs::read_to_string(&said).unwrap_or_default();
    until(&format!("`walt {}` to begin", words.join(" ")), LIMIT, || {
        let ended = child.try_wait().expect("a child can be waited for");
        assert!(
            ended.is_none(),
            "`walt {}` ended ({ended:?}) before it was cut off: {}",
            words.join(" "),
            text()
        );
        begun(&text()).then_some(())
    });
    let signal = if how == How::Killed { 9 } else { 2 };
    let process = walt_sys::process::ProcessId::of(child.id() as i32).expect("it is not reaped yet");
    process.signal(signal).expect("a child can be sent a signal");
    let status = until("the client to end", LIMIT, || child.try_wait().expect("a child can be waited for"));
    match how {
        How::Killed => assert_eq!(status.signal(), Some(9), "{status}: {}", text()),
        How::Interrupted => {
            assert!(status.code() == Some(1) && text().contains("Aborted."), "{status}: {}", text());
        }
    }
    fs::remove_file(&said).expect("the slot can be written");
}

/// Waits until the server has removed all files and processes of the operation.
///
/// # Panics
/// If it has.
#[track_caller]
pub fn cleared(server: &TestServer) {
    let names = |dir: &str| -> Vec<String> {
        let list = fs::read_dir(server.state_dir().join(dir)).expect("the state can be read");
        list.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect()
    };
    let start = std::time::Instant::now();
    loop {
        let mut left = server.children();
        left.retain(|line| !line.contains("qemu-system"));
        left.extend(names("images/tmp"));
        left.extend(names("sessions").into_iter().filter(|n| n.starts_with("build-")));
        if left.is_empty() {
            return;
        }
        assert!(start.elapsed() < CLEAR, "after {} s there is still {left:?}", CLEAR.as_secs());
        std::thread::sleep(crate::POLL);
    }
}
