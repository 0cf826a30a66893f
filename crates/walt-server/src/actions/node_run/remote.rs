//! The command on one node.

use super::{
    Feed, INTERRUPTED, Run, Wish,
    marker::{Marker, Shell, signal_line},
};
use crate::{
    base::{
        db::NodeRow,
        failure::{Outcome, refused},
        programs::{Pty, SSH_FAILED, cannot_start, exit_status, on_pty},
        random::random,
        terminal::ToClient,
    },
    services::nodes::ssh::{self, Session, one_line},
};
use std::{
    process::Stdio,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStdin, Command},
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::Instant,
};
use walt_api::term::{NODE_STDERR, NODE_STDOUT, ServerMessage, Tty};

/// Bytes read from a program at once.
const CHUNK: usize = 16 << 10;
/// How long to wait for output after the end of a program, if a background job keeps its pipe open.
const LAST_OUTPUT: Duration = Duration::from_millis(500);
/// How long a command may take to end after each signal.
const SIGNAL_PAUSE: Duration = Duration::from_secs(3);
/// The signals after ctrl-C, and when the client has gone.
const SIGNALS: [&str; 3] = ["INT", "TERM", "KILL"];
const SIGNALS_HANGUP: [&str; 3] = ["HUP", "TERM", "KILL"];
/// What ctrl-C is on a terminal.
const CTRL_C: &[u8] = b"\x03";

/// Runs the command of `run` on a node; its status.
///
/// # Errors
/// It did not begin.
pub(super) async fn run(run: &Run, number: usize, node: &NodeRow, input: Option<Feed>) -> Outcome<i32> {
    match &run.tty {
        None => piped(run, number, node, input).await,
        Some(tty) => on_terminal(run, number, node, input, tty).await,
    }
}

/// A task that is aborted when this is dropped.
struct Task<T>(JoinHandle<T>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A shared connection may end before the command has begun, as when the ssh server of the node fails: then the command
/// gets a connection of its own.
async fn piped(run: &Run, number: usize, node: &NodeRow, mut input: Option<Feed>) -> Outcome<i32> {
    for may_share in [true, false] {
        match attempt(run, number, node, &mut input, may_share).await? {
            Attempt::Ended(status) => return Ok(status),
            Attempt::NotBegun { words, again: true } => {
                tracing::info!(node = %node.facts.name, words, "a shared connection failed: connecting again");
            }
            Attempt::NotBegun { words, again: false } => {
                let words = if words.is_empty() { String::new() } else { format!(" ({words})") };
                return Err(refused(format!("Could not reach this node. Try again later.{words}")));
            }
        }
    }
    // Invariant: what does not share a connection is not tried again.
    unreachable!("the last attempt has its own connection")
}

enum Attempt {
    Ended(i32),
    /// ssh failed before it; its words, and whether another connection may help.
    NotBegun {
        words: String,
        again: bool,
    },
}

async fn attempt(
    run: &Run,
    number: usize,
    node: &NodeRow,
    input: &mut Option<Feed>,
    may_share: bool,
) -> Outcome<Attempt> {
    let marker = Marker::new(u64::from_ne_bytes(random()));
    let line = marker.line(&run.command);
    let Session { mut command, lease } = match may_share {
        true => ssh::open(run.app.base(), run.app.nodes().masters(), node.mac, Some(&line), false).await?,
        false => Session { command: ssh::open_alone(run.app.base(), node.mac, &line)?, lease: None },
    };
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Command::from(command).kill_on_drop(true).spawn().map_err(|e| cannot_start("ssh", &e))?;
    let (known, shell) = watch::channel(None);
    // Invariant: both were piped at the start.
    let (stdout, stderr) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    let mut out = Task(tokio::spawn(copy_out(stdout, run.to.clone(), number)));
    let mut err = Task(tokio::spawn(copy_err(stderr, run.to.clone(), number, marker, known)));
    let fed = AtomicUsize::new(0);
    let feeding = input.as_mut().zip(child.stdin.take()).map(|(input, stdin)| feed(run, input, stdin, &fed));
    let ending = until_end(run, node, &mut child, shell);
    let status = match feeding {
        None => ending.await?,
        Some(feeding) => tokio::select! {
            status = ending => status?,
            never = feeding => match never {},
        },
    };
    let _late = tokio::time::timeout(LAST_OUTPUT, &mut out.0).await;
    let marker = tokio::time::timeout(LAST_OUTPUT, &mut err.0).await;
    let is_wanted = *run.wish.borrow() == Wish::Run;
    // No marker: what came is of ssh, or of a shell that does not know what we wrote.
    if let Ok(Ok(mut marker)) = marker
        && marker.shell.is_none()
    {
        let words = marker.rest();
        if status == SSH_FAILED && is_wanted {
            // Input that was taken is lost.
            let again = lease.is_some() && fed.load(Ordering::Relaxed) == 0;
            return Ok(Attempt::NotBegun { words: one_line(&words), again });
        }
        run.to.node_output(NODE_STDERR, number, &words).await;
    }
    Ok(Attempt::Ended(if status == SSH_FAILED && !is_wanted { INTERRUPTED } else { status }))
}

async fn copy_out(mut from: impl AsyncRead + Unpin, to: ToClient, number: usize) {
    let mut buffer = vec![0; CHUNK];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        // Read on without a client, so that the program sees the signals, not a full pipe.
        to.node_output(NODE_STDOUT, number, &buffer[..n]).await;
    }
}

/// The same without the marker, which is returned at the end; `known` gets what it tells.
async fn copy_err(
    mut from: impl AsyncRead + Unpin,
    to: ToClient,
    number: usize,
    mut marker: Marker,
    known: watch::Sender<Option<Shell>>,
) -> Marker {
    let mut buffer = vec![0; CHUNK];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        let bytes = marker.read(&buffer[..n]);
        if marker.shell.is_some() && known.borrow().is_none() {
            known.send_replace(marker.shell);
        }
        if !bytes.is_empty() {
            to.node_output(NODE_STDERR, number, &bytes).await;
        }
    }
    marker
}

/// Gives input to the program, counts it in `fed`, and says how much it has taken; waits for ever after the end of the
/// input.
async fn feed(run: &Run, input: &mut Feed, stdin: ChildStdin, fed: &AtomicUsize) -> std::convert::Infallible {
    let mut stdin = Some(stdin);
    while let Some(bytes) = input.recv().await {
        fed.fetch_add(bytes.len(), Ordering::Relaxed);
        let Some(pipe) = &mut stdin else { continue };
        if pipe.write_all(&bytes).await.is_err() {
            stdin = None;
            continue;
        }
        consumed(run, bytes.len()).await;
    }
    drop(stdin);
    std::future::pending().await
}

async fn consumed(run: &Run, bytes: usize) {
    run.unread.fetch_sub(bytes, Ordering::Relaxed);
    run.to.message(&ServerMessage::Consumed { bytes }).await;
}

/// Waits for the end of the program. When the client wants no more of it, its processes on the node get signals, each one
/// harder than the one before.
async fn until_end(
    run: &Run,
    node: &NodeRow,
    child: &mut Child,
    mut shell: watch::Receiver<Option<Shell>>,
) -> Outcome<i32> {
    let mut wish = run.wish.clone();
    let mut senders = JoinSet::new();
    // The next signal, and when it is due; none as long as the command may run.
    let mut due: Option<Instant> = None;
    let mut next = 0;
    loop {
        if due.is_none() && *wish.borrow_and_update() != Wish::Run {
            due = Some(Instant::now());
        }
        tokio::select! {
            status = child.wait() => {
                // The shell may end before the others have their signal.
                let sent = async { while senders.join_next().await.is_some() {} };
                let _late = tokio::time::timeout(SIGNAL_PAUSE, sent).await;
                return Ok(exit_status(status?));
            }
            Ok(()) = wish.changed(), if due.is_none() => {}
            // It has only just begun.
            Ok(()) = shell.changed(), if due.is_some() => (next, due) = (0, Some(Instant::now())),
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                let signals = if *wish.borrow() == Wish::Hangup { SIGNALS_HANGUP } else { SIGNALS };
                let Some(signal) = signals.get(next) else {
                    tracing::warn!(node = %node.facts.name, "a command does not end: leaving it alone");
                    return Ok(INTERRUPTED);
                };
                if let Some(shell) = *shell.borrow_and_update() {
                    let (app, mac, line) = (run.app.clone(), node.mac, signal_line(shell, signal));
                    senders.spawn(async move {
                        let session = ssh::open(app.base(), app.nodes().masters(), mac, Some(&line), false).await;
                        let Ok(Session { mut command, lease: _lease }) = session else { return };
                        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                        let _may_have_ended = Command::from(command).kill_on_drop(true).status().await;
                    });
                }
                (next, due) = (next + 1, Some(Instant::now() + SIGNAL_PAUSE));
            }
        }
    }
}

async fn on_terminal(
    run: &Run,
    number: usize,
    node: &NodeRow,
    mut input: Option<Feed>,
    tty: &Tty,
) -> Outcome<i32> {
    let line = run.command.as_bytes();
    let Session { command, lease: _lease } =
        ssh::open(run.app.base(), run.app.nodes().masters(), node.mac, Some(line), true).await?;
    let (mut child, pty) = on_pty(command, tty)?;
    let mut wish = run.wish.clone();
    let mut killed_at: Option<Instant> = None;
    let mut buffer = vec![0; CHUNK];
    loop {
        let next_input = async {
            match &mut input {
                Some(input) => input.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            read = pty.read(&mut buffer) => match read {
                Ok(0) | Err(_) => break,
                Ok(n) => drop(run.to.node_output(NODE_STDOUT, number, &buffer[..n]).await),
            },
            bytes = next_input => match bytes {
                Some(bytes) => {
                    let _may_have_ended = pty.write_all(&bytes).await;
                    consumed(run, bytes.len()).await;
                }
                None => input = None,
            },
            Ok(()) = wish.changed() => {
                let wish = *wish.borrow_and_update();
                killed_at = Some(end_terminal(&pty, wish).await);
            }
            () = tokio::time::sleep_until(killed_at.unwrap_or_else(Instant::now)), if killed_at.is_some() => {
                // The terminal on the node is closed then: what runs there gets SIGHUP.
                let _may_have_ended = child.start_kill();
                break;
            }
        }
    }
    let status = exit_status(child.wait().await?);
    Ok(if *run.wish.borrow() == Wish::Run { status } else { INTERRUPTED })
}

/// Ends what runs on a terminal: by its ctrl-C, or, when the client has gone, by closing it; when to do the latter.
async fn end_terminal(pty: &Pty, wish: Wish) -> Instant {
    if wish == Wish::Hangup {
        return Instant::now();
    }
    let _may_have_ended = pty.write_all(CTRL_C).await;
    Instant::now() + SIGNAL_PAUSE
}
