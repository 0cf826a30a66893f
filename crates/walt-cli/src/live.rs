//! The state of the platform, followed over restarts of the server.

use crate::{context::Context, error::Failure, ui};
use std::time::{Duration, Instant};
use walt_client::{Client, Error, LiveStream, News, State};

/// Pause before an attempt to connect again.
const RETRY: Duration = Duration::from_millis(300);
/// A connection that lasted for longer was there, so that its end is a new one.
const WAS_THERE: Duration = Duration::from_secs(2);
/// How long a server that was there is awaited.
const RETRY_LIMIT: Duration = Duration::from_secs(600);

/// What is asked for: kinds with commas between them, and a set of nodes.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Kinds.
    pub kinds: &'static str,
    /// A set of nodes; all of them without it.
    pub nodes: Option<String>,
}

/// When to stop to wait.
pub type Until = tokio::time::Instant;

/// How waiting has ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn {
    /// The state has changed.
    News(News),
    /// The time is over.
    Over,
}

/// The state, and the stream that keeps it up to date.
#[derive(Debug)]
pub struct Follower {
    wanted: Wanted,
    stream: Option<LiveStream>,
    opened: Instant,
    cut_off: Instant,
    /// Whether the user knows that the connection broke.
    is_said: bool,
    /// The state as it was last heard of.
    pub state: State,
}

impl Follower {
    /// Connects, and waits for the first snapshot.
    ///
    /// # Errors
    /// There is no server, or it refuses.
    pub async fn open(context: &mut Context, wanted: Wanted) -> Result<Self, Failure> {
        let stream = context.ui.watch(context.client.live(wanted.kinds, wanted.nodes.as_deref())).await?;
        let state = State::default();
        let mut follower = Self {
            wanted,
            stream: Some(stream),
            opened: Instant::now(),
            cut_off: Instant::now(),
            is_said: false,
            state,
        };
        while follower.turn(context, None).await? != Turn::News(News::All) {}
        Ok(follower)
    }

    /// Waits for news, with the busy indicator; a signal ends it. When the connection breaks, this says so and connects
    /// again; what follows is a new snapshot.
    ///
    /// # Errors
    /// A signal came, the server refuses, or it does not come back in [`RETRY_LIMIT`].
    pub async fn turn(&mut self, context: &mut Context, until: Option<Until>) -> Result<Turn, Failure> {
        let until = async {
            match until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        let mut until = std::pin::pin!(until);
        let Context { client, ui } = context;
        loop {
            tokio::select! {
                biased;
                interrupt = ui.signals.next() => return Err(ui.interrupted(interrupt)),
                () = &mut until => return Ok(Turn::Over),
                news = self.next(client) => match news? {
                    Some(News::None) => {}
                    Some(news) => return Ok(Turn::News(news)),
                    None => {
                        ui.busy.clear();
                        ui::note("The connection to the server broke: connecting again.");
                    }
                },
                () = ui.busy.tick() => {}
            }
        }
    }

    /// The next message; none if the connection broke, which the user does not know yet. May be dropped while it waits.
    async fn next(&mut self, client: &mut Client) -> Result<Option<News>, Failure> {
        loop {
            let stream = match &mut self.stream {
                Some(stream) => stream,
                missing => {
                    let stream = reconnect(client, &self.wanted, self.cut_off).await?;
                    self.opened = Instant::now();
                    missing.insert(stream)
                }
            };
            match stream.next().await.and_then(|message| self.state.apply(message)) {
                Ok(news) => return Ok(Some(news)),
                Err(Error::Broken(_)) => self.stream = None,
                Err(other) => return Err(other.into()),
            }
            if self.opened.elapsed() > WAS_THERE {
                (self.cut_off, self.is_said) = (Instant::now(), false);
            }
            if !std::mem::replace(&mut self.is_said, true) {
                return Ok(None);
            }
        }
    }

    /// Whether the state is up to date, as far as is known.
    pub fn is_connected(&self) -> bool {
        self.stream.is_some()
    }
}

async fn reconnect(client: &mut Client, wanted: &Wanted, cut_off: Instant) -> Result<LiveStream, Failure> {
    loop {
        tokio::time::sleep(RETRY).await;
        match client.live(wanted.kinds, wanted.nodes.as_deref()).await {
            Err(Error::Broken(_) | Error::Connect { .. }) if cut_off.elapsed() < RETRY_LIMIT => {}
            done => return Ok(done?),
        }
    }
}
