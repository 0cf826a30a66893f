//! Signs of life for the service manager: while the server starts, and while it serves.
//!
//! ```text
//! watchdog ──question──▶ checker ──▶ main task: the one that accepts connections of the API
//!  (thread) ◀──answer───  (thread) ──▶ a task of its own: the workers of the runtime run it
//!                                  ──▶ a read of the database
//! ```
//! The server is alive if all three answer. Only then the manager gets `WATCHDOG=1`, twice in its time. A server that is
//! stuck gets no sign; the log says at which step, and the manager restarts it. Nodes and shells outlive that.
//!
//! The API's socket is not part of the question: all its connections may be in use by users who do nothing wrong, and a
//! restart would not help.
//!
//! While it starts, each step may take [`STEP_MAX`]; up to then, the manager is asked for more time. This needs threads of
//! the system: tasks of the runtime would be stuck with it.

use crate::{
    actions::app::App,
    base::{
        db::NodeRow,
        notify::{MORE_TIME, Notify},
    },
};
use anyhow::{Context, Result};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot};

/// Longest step of a start: checking and adopting what thousands of nodes left takes minutes on a slow disk.
const STEP_MAX: Duration = Duration::from_secs(15 * 60);
/// How often the state is looked at if nobody wants signs of life.
const CALM: Duration = Duration::from_secs(30);
/// The steps of a question.
const STEPS: [&str; 3] =
    ["the main task does not answer", "the workers do not run tasks", "the database cannot be read"];

/// A start under way.
pub struct Starting {
    notify: Arc<Notify>,
    step: Sender<String>,
}

impl Starting {
    /// Begins. A thread asks the manager for more time, step by step.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn begin(notify: Arc<Notify>) -> Result<Self> {
        let (step, steps) = channel::<String>();
        let speaker = notify.clone();
        std::thread::Builder::new()
            .name("start".into())
            .spawn(move || ask_for_time(&speaker, &steps))
            .context("cannot start a thread")?;
        Ok(Self { notify, step })
    }

    /// The next step, for `systemctl status`.
    pub fn step(&self, what: &str) {
        self.notify.status(what);
        // The thread listens as long as this exists.
        let _ = self.step.send(what.to_owned());
    }

    /// The server serves. Returns the manager for what follows.
    pub fn ready(self) -> Arc<Notify> {
        self.notify.ready();
        self.notify
    }
}

/// Asks for more time as long as the steps follow each other; ends with the start.
fn ask_for_time(notify: &Notify, steps: &Receiver<String>) {
    let (mut step, mut since) = (String::from("starting"), Instant::now());
    while notify.is_there() {
        match steps.recv_timeout(MORE_TIME / 3) {
            Ok(next) => (step, since) = (next, Instant::now()),
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) if since.elapsed() > STEP_MAX => {
                tracing::error!("the start takes too long: '{step}' since {} s", since.elapsed().as_secs());
                return;
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        notify.more_time();
    }
}

/// A question to the main task. It answers by dropping or by sending.
pub type Question = oneshot::Sender<()>;

/// Answers questions whether the main task runs; part of what it waits for.
pub async fn answer(mut questions: mpsc::Receiver<Question>) {
    while let Some(question) = questions.recv().await {
        // Who asked may have gone.
        let _ = question.send(());
    }
    std::future::pending().await
}

/// What one round of questions found: the number of nodes, or that the server ends.
type Found = Result<Option<usize>>;

/// Starts the threads that look whether the server is alive, if anybody wants to know it. The main task must poll
/// [`answer`] with the receiver that this returns. They end with the process.
///
/// # Errors
/// A thread cannot be started.
pub fn watch(
    notify: Arc<Notify>,
    app: Arc<App>,
    runtime: tokio::runtime::Handle,
) -> Result<mpsc::Receiver<Question>> {
    let (main, questions) = mpsc::channel(1);
    if !notify.is_there() {
        return Ok(questions);
    }
    let step = Arc::new(AtomicUsize::new(0));
    let (ask, asked) = channel::<()>();
    let (reply, replies) = channel();
    let at = step.clone();
    let checker = move || {
        while asked.recv().is_ok() {
            let found = check(&at, &main, &runtime, &app);
            if reply.send(found).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("checker".into()).spawn(checker).context("cannot start a thread")?;
    std::thread::Builder::new()
        .name("watchdog".into())
        .spawn(move || tell(&notify, &ask, &replies, &step))
        .context("cannot start a thread")?;
    Ok(questions)
}

/// Asks all three, one after the other.
fn check(
    step: &AtomicUsize,
    main: &mpsc::Sender<Question>,
    runtime: &tokio::runtime::Handle,
    app: &App,
) -> Found {
    step.store(0, Ordering::Relaxed);
    let (question, answer) = oneshot::channel();
    if main.blocking_send(question).is_err() || answer.blocking_recv().is_err() {
        return Ok(None);
    }
    step.store(1, Ordering::Relaxed);
    let (question, answer) = oneshot::channel();
    runtime.spawn(async move {
        let _ = question.send(());
    });
    if answer.blocking_recv().is_err() {
        return Ok(None);
    }
    step.store(2, Ordering::Relaxed);
    app.db().with(NodeRow::count).map(Some)
}

/// Tells the manager what the rounds found; ends when the server does.
fn tell(notify: &Notify, ask: &Sender<()>, replies: &Receiver<Found>, step: &AtomicUsize) {
    let pause = notify.watchdog().map_or(CALM, |time| time / 2);
    loop {
        let began = Instant::now();
        if ask.send(()).is_err() {
            return;
        }
        let mut was_stuck = false;
        let found = loop {
            match replies.recv_timeout(pause) {
                Ok(found) => break found,
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) if was_stuck => {}
                Err(RecvTimeoutError::Timeout) => {
                    was_stuck = true;
                    let why = STEPS[step.load(Ordering::Relaxed)];
                    notify.status(&format!("stuck: {why}"));
                    tracing::error!(
                        "the server is stuck: {why} since {} s; systemd gets no sign of life meanwhile",
                        began.elapsed().as_secs()
                    );
                }
            }
        };
        match found {
            Ok(None) => return,
            Ok(Some(nodes)) => {
                notify.alive();
                notify.status(&format!("serving {nodes} node{}", if nodes == 1 { "" } else { "s" }));
                if was_stuck {
                    tracing::warn!("the server was stuck for {} s", began.elapsed().as_secs());
                }
            }
            Err(e) => {
                notify.status(&format!("stuck: {}", STEPS[step.load(Ordering::Relaxed)]));
                tracing::error!("systemd gets no sign of life: {e:#}");
            }
        }
        std::thread::sleep(pause.saturating_sub(began.elapsed()));
    }
}
