//! The holder's socket: for each connection, one task that reads requests and one that writes events.

use super::console::Input;
use super::holder::Holder;
use super::life;
use super::protocol::{Event, Kind, Request, VERSION, parse, read_frame, write_frame, write_message};
use crate::{
    Error, Result,
    session::{Mode, Phase},
};
use std::rc::Rc;
use tokio::io::BufReader;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

/// Most answers that wait for a client to read; beyond that, its requests wait.
const ANSWERS: usize = 16;

/// Instructions for the writing task.
#[derive(Debug)]
enum Reply {
    Event(Event),
    /// Become the attached connection.
    Attach,
    /// The holder ends after this one.
    Last(Event),
}

/// Serves connections until the holder ends.
pub async fn accept(holder: &Rc<Holder>, listener: &UnixListener) {
    let mut number = 0;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                number += 1;
                tokio::task::spawn_local(connection(Rc::clone(holder), stream, number));
            }
            Err(e) => {
                // Most likely out of descriptors: existing connections continue.
                super::log(format_args!("cannot accept a client: {e}"));
                tokio::task::yield_now().await;
            }
        }
    }
}

async fn connection(holder: Rc<Holder>, stream: UnixStream, number: u64) {
    let (from, to) = stream.into_split();
    let (replies, queue) = mpsc::channel(ANSWERS);
    let speaking = tokio::task::spawn_local(write_events(Rc::clone(&holder), to, queue, number));
    if let Err(e) = read_requests(&holder, from, &replies, number).await {
        // The client is informed; it may be gone.
        let _ = replies.send(Reply::Event(Event::Refused { error: e.to_string() })).await;
    }
    if holder.attached.get() == number {
        holder.attached.set(0);
        holder.output.borrow_mut().detach();
        holder.notify();
    }
    drop(replies);
    // It may be blocked by a client that does not read: then it ends with the holder.
    let _ = speaking.await;
}

async fn read_requests(
    holder: &Rc<Holder>,
    from: OwnedReadHalf,
    replies: &mpsc::Sender<Reply>,
    number: u64,
) -> Result<()> {
    let mut from = BufReader::new(from);
    while let Some((kind, body)) = read_frame(&mut from).await? {
        match kind {
            Kind::Stdin => input(holder, Input::Data(body)).await,
            Kind::Message => request(holder, parse(&body)?, replies, number).await?,
            Kind::Stdout | Kind::Stderr => return Err(Error::Protocol("output from a client".into())),
        }
    }
    Ok(())
}

async fn input(holder: &Rc<Holder>, item: Input) {
    let to = holder.console.borrow().as_ref().map(|c| c.input.clone());
    if let Some(to) = to {
        // An error means that the shell reads no more.
        let _ = to.send(item).await;
    }
}

fn resize(holder: &Holder, rows: u16, cols: u16) {
    if let Some(master) = holder.console.borrow().as_ref().and_then(|c| c.master.as_ref()) {
        // A terminal that is gone has no size.
        let _ = walt_sys::pty::set_size(master.get_ref(), rows, cols);
    }
    if let Some(tty) = &mut holder.spec.borrow_mut().tty {
        (tty.rows, tty.cols) = (rows, cols);
    }
}

async fn request(
    holder: &Rc<Holder>,
    request: Request,
    replies: &mpsc::Sender<Reply>,
    number: u64,
) -> Result<()> {
    let answer = match request {
        Request::Attach { size } => {
            if let Some((rows, cols)) = size {
                resize(holder, rows, cols);
            }
            holder.attached.set(number);
            let _ = replies.send(Reply::Attach).await;
            holder.notify();
            return Ok(());
        }
        Request::Eof => {
            input(holder, Input::Eof).await;
            return Ok(());
        }
        Request::Resize { rows, cols } => {
            resize(holder, rows, cols);
            return Ok(());
        }
        Request::Status => Reply::Event(Event::Status { state: holder.state.borrow().clone() }),
        Request::Stop | Request::Seal | Request::Discard | Request::Restart => {
            // It continues to its end even if the client disconnects meanwhile.
            let (holder, replies) = (Rc::clone(holder), replies.clone());
            tokio::task::spawn_local(async move {
                let answer = operate(&holder, &request).await;
                let last = matches!(answer, Reply::Last(_));
                if replies.send(answer).await.is_err() && last {
                    holder.finished.notify_one();
                }
            });
            return Ok(());
        }
    };
    let _ = replies.send(answer).await;
    Ok(())
}

async fn operate(holder: &Rc<Holder>, request: &Request) -> Reply {
    let result = match request {
        Request::Discard => life::discard(holder).await.map(|()| Reply::Last(Event::Discarded)),
        Request::Seal => life::seal(holder).await.map(|notes| Reply::Last(Event::Sealed { notes })),
        Request::Restart => life::restart(holder).await.map(|notes| Reply::Event(Event::Started { notes })),
        _ => life::stop(holder).await.map(|notes| Reply::Event(Event::Stopped { notes })),
    };
    result.unwrap_or_else(|e| Reply::Event(Event::Refused { error: e.to_string() }))
}

/// What has been reported to an attached client about the present shell.
#[derive(Debug, Default)]
struct Reported {
    started: bool,
    ended: bool,
}

async fn write_events(
    holder: Rc<Holder>,
    mut to: OwnedWriteHalf,
    mut queue: mpsc::Receiver<Reply>,
    number: u64,
) {
    let hello = Event::Hello { version: VERSION, state: holder.state.borrow().clone() };
    let mut broken = write_message(&mut to, &hello).await.is_err();
    let mut changed = holder.changed.subscribe();
    let mut reported: Option<Reported> = None;
    loop {
        changed.borrow_and_update();
        if reported.is_some() && holder.attached.get() != number {
            reported = None;
            broken |= write_message(&mut to, &Event::Replaced).await.is_err();
        }
        if let Some(reported) = &mut reported
            && !broken
        {
            match next_for_attached(&holder, reported) {
                Some(Next::Event(event)) => {
                    broken = write_message(&mut to, &event).await.is_err();
                    continue;
                }
                Some(Next::Piece(piece)) => {
                    broken = write_frame(&mut to, piece.kind, &piece.bytes).await.is_err();
                    // Readers of the shell may wait for space.
                    holder.notify();
                    continue;
                }
                None => {}
            }
        }
        tokio::select! {
            biased;
            reply = queue.recv() => match reply {
                None => return,
                Some(Reply::Attach) => {
                    let truncated = holder.output.borrow_mut().attach();
                    reported = Some(Reported::default());
                    broken |= write_message(&mut to, &Event::Attached { truncated }).await.is_err();
                }
                Some(Reply::Event(event)) => {
                    if matches!(event, Event::Started { .. }) && reported.is_some() {
                        reported = Some(Reported { started: true, ended: false });
                    }
                    broken |= write_message(&mut to, &event).await.is_err();
                }
                Some(Reply::Last(event)) => {
                    let _ = write_message(&mut to, &event).await;
                    holder.finished.notify_one();
                }
            },
            _ = changed.changed() => {}
        }
    }
}

#[derive(Debug)]
enum Next {
    Event(Event),
    Piece(Rc<super::output::Piece>),
}

/// The next event, in this order: the shell runs, its output, it has ended.
fn next_for_attached(holder: &Holder, reported: &mut Reported) -> Option<Next> {
    let state = holder.state.borrow();
    if reported.ended {
        // After a restart, everything is reported again.
        if matches!(state.phase, Phase::Starting | Phase::Running) && state.error.is_none() {
            *reported = Reported::default();
        } else {
            return None;
        }
    }
    if let Some(error) = &state.error {
        reported.ended = true;
        return Some(Next::Event(Event::Failed { error: error.clone() }));
    }
    if state.phase > Phase::Starting && !reported.started {
        reported.started = true;
        return Some(Next::Event(Event::Started { notes: holder.start_notes.borrow().clone() }));
    }
    let mut output = holder.output.borrow_mut();
    if let Some(piece) = output.next() {
        return Some(Next::Piece(piece));
    }
    let status = state.shell_status.filter(|_| output.drained())?;
    reported.ended = true;
    Some(Next::Event(Event::Exited { status }))
}

/// Whether the container runs only a shell, without an OS.
pub fn is_simple(holder: &Holder) -> bool {
    holder.spec.borrow().mode == Mode::Simple
}
