//! `walt node run`: a command on a set of nodes, on many of them at once.
//!
//! ```text
//! client ──▶ one task per node:  wait for its boot ─▶ wait for a place ─▶ ssh ─▶ NodeExited, NodeFailed
//!    │ input (window)  ──▶ first node          ▲ Proceed
//!    └ Interrupt, or it is gone ──▶ all tasks: the processes on the nodes get signals (`remote`)
//! ```
//! A node that fails stops none of the others. The result is the highest status.

mod marker;
mod remote;

use crate::{
    actions::{
        app::App,
        ownership::{check_ownership, nodes_of},
        reboot::wait_booted,
    },
    base::{
        db::NodeRow,
        failure::{Failure, Outcome, bad_request},
        programs::SSH_FAILED,
        terminal::{FromClient, Input, ToClient},
    },
};
use parking_lot::Mutex;
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
};
use walt_api::term::{ClientMessage, INPUT_WINDOW, MAX_MESSAGE, OpenNodeRun, ServerMessage, Tty};
use walt_core::{ownership::Demand, sentences};
use walt_types::UserName;

/// Nodes on which one command runs at once; the others wait.
const NODES_AT_ONCE: usize = 32;
/// Longest command line, in bytes: the kernel of a node takes no more than 128 KiB as one argument.
const COMMAND_MAX: usize = 100 << 10;
/// How long nodes are waited for before the client shows it: most are booted.
const SILENT_WAIT: Duration = Duration::from_millis(20);

/// What the client wants of the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    /// Let it run.
    Run,
    /// ctrl-C was pressed.
    Interrupt,
    /// The client has gone.
    Hangup,
}

/// The nodes that the caller named, and may use.
///
/// # Errors
/// The set cannot be resolved, or the caller must confirm; or the command is too long.
pub fn nodes(app: &App, caller: &UserName, open: &OpenNodeRun) -> Outcome<Vec<NodeRow>> {
    if open.command.len() > COMMAND_MAX {
        let most = COMMAND_MAX >> 10;
        return Err(bad_request(format!(
            "the command is longer than {most} KiB: copy a script to the nodes."
        )));
    }
    let nodes = nodes_of(app, caller, &open.nodes)?;
    let rows: Vec<&NodeRow> = nodes.iter().collect();
    check_ownership(app, caller, Demand::OwnedOrFree, &rows, "run", open.confirm.as_deref())?;
    Ok(nodes)
}

/// Exit status of what ctrl-C ended before it began: 128 + SIGINT.
const INTERRUPTED: i32 = 130;

/// Input for the first node; no more of it waits than the client may send.
type Feed = mpsc::UnboundedReceiver<Vec<u8>>;

/// What all tasks of one command share.
struct Run {
    app: Arc<App>,
    to: ToClient,
    command: String,
    tty: Option<Tty>,
    places: Semaphore,
    wish: watch::Receiver<Wish>,
    proceeds: watch::Receiver<bool>,
    /// Bytes of input that no program has read yet.
    unread: AtomicUsize,
    /// Names of the nodes that are waited for.
    booting: Mutex<BTreeSet<String>>,
    booting_changed: watch::Sender<()>,
}

/// Runs the command on all nodes until it has ended everywhere; the highest status.
///
/// # Errors
/// A task ended abnormally.
pub async fn serve(
    app: &Arc<App>,
    nodes: Vec<NodeRow>,
    open: OpenNodeRun,
    to: ToClient,
    from: FromClient,
) -> Outcome<i32> {
    let (wish, wishes) = watch::channel(Wish::Run);
    let (proceed, proceeds) = watch::channel(false);
    let run = Arc::new(Run {
        app: app.clone(),
        to,
        command: open.command,
        tty: open.tty,
        places: Semaphore::new(NODES_AT_ONCE),
        wish: wishes,
        proceeds,
        unread: AtomicUsize::new(0),
        booting: Mutex::default(),
        booting_changed: watch::Sender::new(()),
    });
    let (feed, fed) = mpsc::unbounded_channel();
    let mut fed = Some(fed);
    let mut tasks = JoinSet::new();
    for (number, node) in nodes.into_iter().enumerate() {
        let (run, input) = (run.clone(), fed.take());
        tasks.spawn(async move { run.on_node(number, &node, input).await });
    }
    let mut labels = run.booting_changed.subscribe();
    let mut listener = Listener { run: run.clone(), from: Some(from), feed: Some(feed), wish, proceed };
    let mut worst = 0;
    loop {
        tokio::select! {
            ended = tasks.join_next() => match ended {
                None => return Ok(worst),
                Some(status) => worst = worst.max(status.map_err(Failure::of_task("a command on a node"))?),
            },
            () = listener.next() => {}
            Ok(()) = labels.changed() => run.show_booting(tasks.len()).await,
        }
    }
}

/// Reads what the client sends.
struct Listener {
    run: Arc<Run>,
    /// None once it has gone.
    from: Option<FromClient>,
    /// Where the input goes, until its end.
    feed: Option<mpsc::UnboundedSender<Vec<u8>>>,
    wish: watch::Sender<Wish>,
    proceed: watch::Sender<bool>,
}

impl Listener {
    /// Acts on the next message; waits for ever once the client has gone. The messages of a client are read also while
    /// nobody reads the input, so that ctrl-C behind it arrives: hence the window.
    async fn next(&mut self) {
        let Some(from) = &mut self.from else { return std::future::pending().await };
        match from.next().await {
            None => self.gone(),
            Some(Input::Bytes(bytes)) => {
                let unread = self.run.unread.fetch_add(bytes.len(), Ordering::Relaxed) + bytes.len();
                if unread > INPUT_WINDOW + MAX_MESSAGE {
                    tracing::debug!("a client sends more input than it may: {unread} bytes are unread");
                    return self.gone();
                }
                // A program that reads no more leaves the window as it is.
                let _unread = self.feed.as_ref().map(|feed| feed.send(bytes));
            }
            Some(Input::Message(ClientMessage::Eof)) => self.feed = None,
            Some(Input::Message(ClientMessage::Proceed)) => drop(self.proceed.send_replace(true)),
            Some(Input::Message(ClientMessage::Interrupt)) => drop(self.wish.send_replace(Wish::Interrupt)),
            Some(Input::Message(ClientMessage::Resize { .. } | ClientMessage::Credentials { .. })) => {}
        }
    }

    fn gone(&mut self) {
        (self.from, self.feed) = (None, None);
        self.wish.send_replace(Wish::Hangup);
    }
}

impl Run {
    /// The whole work on one node; its status.
    async fn on_node(&self, number: usize, node: &NodeRow, input: Option<Feed>) -> i32 {
        let outcome = self.attempt(number, node, input).await;
        let (status, message) = match outcome {
            Ok(status) => (status, ServerMessage::NodeExited { node: number, status }),
            Err((status, failure)) => {
                if let Failure::Internal(error) = &failure {
                    tracing::error!(node = %node.facts.name, "walt node run: {error:#}");
                }
                let reason = failure.to_string();
                (status, ServerMessage::NodeFailed { node: number, status, reason })
            }
        };
        self.to.message(&message).await;
        status
    }

    async fn attempt(
        &self,
        number: usize,
        node: &NodeRow,
        input: Option<Feed>,
    ) -> Result<i32, (i32, Failure)> {
        let mut wish = self.wish.clone();
        let ready = async {
            self.booted(node).await?;
            // Invariant: nobody closes it.
            Ok(self.places.acquire().await.expect("an open semaphore"))
        };
        let _place = tokio::select! {
            place = ready => place.map_err(|e| (1, e))?,
            _ = wish.wait_for(|wish| *wish != Wish::Run) => return Ok(INTERRUPTED),
        };
        remote::run(self, number, node, input).await.map_err(|e| (SSH_FAILED, e))
    }

    /// Waits until the node is booted, or the client does not want to wait.
    async fn booted(&self, node: &NodeRow) -> Outcome<()> {
        let macs = [node.mac];
        let mut waiting = std::pin::pin!(wait_booted(&self.app, &macs, None));
        if let Ok(done) = tokio::time::timeout(SILENT_WAIT, &mut waiting).await {
            return done.map(drop);
        }
        let _shown = Booting::show(self, node.facts.name.to_string());
        let mut proceeds = self.proceeds.clone();
        tokio::select! {
            done = &mut waiting => done.map(drop),
            _ = proceeds.wait_for(|proceeds| *proceeds) => Ok(()),
        }
    }

    /// Tells the client which nodes are waited for.
    async fn show_booting(&self, nodes: usize) {
        let names: Vec<String> = self.booting.lock().iter().cloned().collect();
        let label = match (names.as_slice(), nodes) {
            ([], _) => String::new(),
            (_, 1) => "Node bootup notification pending".to_owned(),
            (names, _) => format!("Waiting for bootup of {}", sentences::items("node", names)),
        };
        self.to.message(&ServerMessage::Busy { label }).await;
    }
}

/// A node is among those that are waited for, as long as this exists.
struct Booting<'a>(&'a Run, String);

impl<'a> Booting<'a> {
    fn show(run: &'a Run, name: String) -> Self {
        run.booting.lock().insert(name.clone());
        run.booting_changed.send_replace(());
        Self(run, name)
    }
}

impl Drop for Booting<'_> {
    fn drop(&mut self) {
        self.0.booting.lock().remove(&self.1);
        self.0.booting_changed.send_replace(());
    }
}
