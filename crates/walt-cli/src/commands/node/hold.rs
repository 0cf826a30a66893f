//! Nodes that are held by heartbeat as long as this client runs: `--hold` of `walt node acquire` and `lease`.

use crate::{
    confirm::Attempt,
    context::Context,
    error::Failure,
    ui::{self, Interrupt},
};
use clap::Args;
use std::ops::ControlFlow;
use std::process::ExitStatus;
use std::time::{Duration, Instant, SystemTime};
use tokio::process::{Child, Command};
use walt_api::{Event, HOLD_SILENCE, Hold, NodeAction};
use walt_types::{ClientTag, Span};

/// Heartbeats within the time for which the server tolerates silence: one may be lost, and the next one late.
const BEATS: u32 = 3;
/// Pause before the next attempt when the server cannot be reached.
const RETRY: Duration = Duration::from_millis(500);

/// The options of a command that can hold nodes.
#[derive(Debug, Args)]
pub struct HoldOptions {
    /// keep the lease as long as this command runs; ctrl-C ends both
    #[arg(long)]
    hold: bool,
    /// with --hold: how long the lease outlives this command if it is killed (default: 60s)
    #[arg(long, value_name = "SPAN", requires = "hold", default_value_t = HOLD_SILENCE, hide_default_value = true)]
    grace: Span,
}

impl HoldOptions {
    /// What to ask the server for.
    pub fn request(&self) -> Option<Hold> {
        self.hold.then(|| Hold { name: tag(), silence: self.grace })
    }
}

/// A name that no other client of this user has: by process and time.
pub fn tag() -> ClientTag {
    let nanoseconds = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |now| now.as_nanos());
    let text = format!("walt-{}-{nanoseconds:x}", std::process::id());
    // Invariant: letters, digits and dashes, 5 + 10 + 1 + 32 of them at most.
    text.parse().expect("a tag")
}

/// Keeps nodes until a signal or the end of `command`, whose exit status it has then.
pub async fn keep(context: &mut Context, hold: &Hold, command: Vec<String>) -> Result<(), Failure> {
    let mut child = start(command)?;
    let has_command = child.is_some();
    if !has_command {
        ui::note("ctrl-C ends the lease.");
    }
    let ended = tokio::select! {
        ended = wait(&mut child) => Ended::Command(ended?),
        ended = beats(context, hold, has_command) => ended?,
    };
    match ended {
        Ended::Command(status) => {
            end(context, hold).await?;
            match status.code().unwrap_or_else(|| signal_status(status)) {
                0 => Ok(()),
                other => Err(Failure::Status(other)),
            }
        }
        Ended::Signal(interrupt) => {
            end(context, hold).await?;
            match interrupt {
                // The normal end of this command.
                Interrupt::Interrupted => Ok(()),
                other => Err(other.failure()),
            }
        }
    }
}

/// Why nodes are not held any more.
enum Ended {
    Command(ExitStatus),
    Signal(Interrupt),
}

fn signal_status(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    128 + status.signal().unwrap_or(0)
}

fn start(command: Vec<String>) -> Result<Option<Child>, Failure> {
    let Some((program, arguments)) = command.split_first() else { return Ok(None) };
    let child = Command::new(program).args(arguments).kill_on_drop(true).spawn();
    child.map(Some).map_err(|e| Failure::new(format!("cannot start {program}: {e}.")))
}

async fn wait(child: &mut Option<Child>) -> std::io::Result<ExitStatus> {
    match child {
        Some(child) => child.wait().await,
        None => std::future::pending().await,
    }
}

/// Sends heartbeats until a signal. ctrl-C reaches a command too, and is its own business.
async fn beats(context: &mut Context, hold: &Hold, has_command: bool) -> Result<Ended, Failure> {
    let silence = Duration::from_secs(hold.silence.0);
    let mut heard = Instant::now();
    let mut names: Vec<String> = Vec::new();
    let mut pause = silence / BEATS;
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            interrupt = context.ui.signals.next() => match interrupt {
                Interrupt::Interrupted if has_command => {}
                other => return Ok(Ended::Signal(other)),
            },
        }
        match beat(context, hold).await {
            Ok(held) => {
                for lost in names.iter().filter(|name| !held.contains(name)) {
                    ui::note(&format!("Node {lost} is not held any more."));
                }
                (names, heard, pause) = (held, Instant::now(), silence / BEATS);
            }
            // After a restart, the server tolerates the whole silence again.
            Err(Failure::Client(error)) if heard.elapsed() < 2 * silence => {
                if pause != RETRY {
                    ui::note(&format!("Cannot reach the server ({error}): trying again, to keep the lease."));
                }
                pause = RETRY;
            }
            Err(failure) => return Err(failure),
        }
    }
}

/// One heartbeat; the names of the nodes that are held.
async fn beat(context: &mut Context, hold: &Hold) -> Result<Vec<String>, Failure> {
    let action = NodeAction::Beat { hold: hold.name.clone() };
    let Attempt::Done(mut events) = context.attempt(&action.into(), None).await? else {
        return Err(Failure::new("the server asks for a confirmation of a heartbeat."));
    };
    let mut names = Vec::new();
    while let Some(event) = events.next().await? {
        match event {
            Event::Out { text } => names.push(text),
            other => {
                if let ControlFlow::Break(()) = crate::events::show(&mut context.ui, other)? {
                    break;
                }
            }
        }
    }
    Ok(names)
}

async fn end(context: &mut Context, hold: &Hold) -> Result<(), Failure> {
    context.action(NodeAction::EndHold { hold: hold.name.clone() }, false).await
}
