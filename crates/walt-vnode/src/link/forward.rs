//! The process of a link: reads frames, asks the model, writes frames. One thread forwards, another one listens to
//! questions.

use super::{
    LinkSpec, PROCESS, Port, READY, Report, Request, SOCKET, SPEC, TAP_QUEUE,
    control::{self, Asked},
    model::{Counters, Direction},
    read, timespec, write,
};
use crate::{Error, Result, failed};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd};
use rustix::io::Errno;
use std::io::Write;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{
    Arc,
    mpsc::{Receiver, channel},
};
use std::time::{Duration, Instant};
use walt_sys::net::tap;
use walt_sys::process::ProcessId;
use walt_types::Shape;

/// Largest frame, in bytes: the largest MTU of a tap, and a header with a tag.
const FRAME_MAX: usize = 65_536 + 18;
/// Frames read from one tap before the other one has its turn.
const BATCH: usize = 64;
/// Priority (nice(2)) where the kernel refuses a better one: frames must leave on time while nodes are emulated on the same
/// processors.
const PRIORITY: i32 = -15;
/// How late a timer may be, in nanoseconds; by default the kernel takes 50 us (prctl(2), `PR_SET_TIMERSLACK`).
const TIMER_SLACK: u64 = 1;

/// The whole life of the process: `walt-server link <directory>`. Returns its exit status.
///
/// It says [`READY`] on standard output once it forwards, and closes it. Messages go to standard error.
pub fn run(directory: &Path) -> i32 {
    let result = Forwarder::open(directory).and_then(|mut forwarder| {
        ready()?;
        forwarder.forward()
    });
    let Err(error) = result else { return 0 };
    // Standard output may be closed, and the disk of the log full: there is nobody else to say it to.
    let _ = writeln!(std::io::stdout(), "{error}");
    let _ = writeln!(std::io::stderr(), "{error}");
    1
}

fn ready() -> Result<()> {
    let what = || "report that the link forwards";
    let mut out = std::io::stdout();
    out.write_all(READY.as_bytes()).and_then(|()| out.flush()).map_err(failed(what()))?;
    let null = std::fs::File::options().write(true).open("/dev/null").map_err(failed("open /dev/null"))?;
    rustix::stdio::dup2_stdout(&null).map_err(|e| failed(what())(e.into()))
}

/// The link, as its process has it.
struct Forwarder {
    node: OwnedFd,
    network: OwnedFd,
    spec: LinkSpec,
    shape: Shape,
    down: Direction,
    up: Direction,
    asked: Receiver<Asked>,
    wake: Arc<OwnedFd>,
    start: Instant,
    buffer: Vec<u8>,
}

impl Forwarder {
    fn open(directory: &Path) -> Result<Self> {
        let spec: LinkSpec = read(directory, SPEC)?.ok_or_else(|| {
            Error::Protocol(
                directory.join(SPEC).display().to_string(),
                "not the description of a link".into(),
            )
        })?;
        let open = |port: &Port| tap::open_plain(&port.ifname, &port.bridge, &port.alias, TAP_QUEUE);
        let network_error = |e: walt_sys::net::NetError| Error::NotStarted(e.to_string());
        // Its taps are there once: so is this process.
        let node = open(&spec.node).map_err(network_error)?;
        let network = open(&spec.network).map_err(network_error)?;
        write(directory, PROCESS, &ProcessId::of_self().map_err(failed("find out the own start time"))?)?;
        let (asked, wake) = listen(directory)?;
        // Without them, frames are late on a busy machine, and everything else works.
        if walt_sys::process::be_prompt().is_err() {
            let _ = rustix::process::setpriority_process(None, PRIORITY);
        }
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(TIMER_SLACK));
        let shape = spec.shape;
        let seed = shape.seed.map_or_else(random_seed, Ok)?;
        Ok(Self {
            node,
            network,
            spec,
            shape,
            down: Direction::new(shape.down, shape.is_cut, towards_node(seed)),
            up: Direction::new(shape.up, shape.is_cut, from_node(seed)),
            asked,
            wake,
            start: Instant::now(),
            buffer: vec![0; FRAME_MAX],
        })
    }

    fn forward(&mut self) -> Result<()> {
        loop {
            self.wait()?;
            receive(&self.node, &mut self.up, self.start, &mut self.buffer, &self.spec.node.ifname)?;
            receive(&self.network, &mut self.down, self.start, &mut self.buffer, &self.spec.network.ifname)?;
            send(&mut self.up, &self.network, self.start);
            send(&mut self.down, &self.node, self.start);
            while let Ok((request, reply)) = self.asked.try_recv() {
                // Who asked may have left.
                let _ = reply.send(self.answer(request));
            }
        }
    }

    /// Waits for a frame, for the moment at which one is due, or for a question.
    fn wait(&self) -> Result<()> {
        let due = [self.down.next_due(), self.up.next_due()].into_iter().flatten().min();
        let left = due.map(|due| timespec(Duration::from_nanos(due.saturating_sub(nanoseconds(self.start)))));
        let mut fds = [
            PollFd::new(&self.node, PollFlags::IN),
            PollFd::new(&self.network, PollFlags::IN),
            PollFd::new(&*self.wake, PollFlags::IN),
        ];
        match rustix::event::poll(&mut fds, left.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(failed("wait for frames")(e.into())),
        }
        if fds[2].revents().contains(PollFlags::IN) {
            // It is not empty, since it was readable.
            let _ = rustix::io::read(&*self.wake, &mut [0; 8]);
        }
        Ok(())
    }

    fn answer(&mut self, request: Request) -> Report {
        if let Request::Set { shape } = request
            && shape != self.shape
        {
            // Without a seed, the random decisions go on.
            let seed = shape.seed;
            self.down.change(shape.down, shape.is_cut, seed.map(towards_node));
            self.up.change(shape.up, shape.is_cut, seed.map(from_node));
            self.shape = shape;
        }
        let dropped = tap_drops();
        let with = |counters: Counters, port: &Port| Counters {
            kernel: counters.kernel + dropped(&port.ifname),
            ..counters
        };
        Report {
            shape: self.shape,
            down: with(self.down.counters(), &self.spec.network),
            up: with(self.up.counters(), &self.spec.node),
        }
    }
}

/// The directions have sequences of their own.
fn towards_node(seed: u64) -> u64 {
    seed.wrapping_mul(2)
}

fn from_node(seed: u64) -> u64 {
    seed.wrapping_mul(2).wrapping_add(1)
}

fn random_seed() -> Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)
        .map_err(|e| failed("get random bytes")(std::io::Error::other(e.to_string())))?;
    Ok(u64::from_ne_bytes(bytes))
}

/// Listens to questions on a thread of its own; the descriptor becomes readable with each one.
fn listen(directory: &Path) -> Result<(Receiver<Asked>, Arc<OwnedFd>)> {
    let what = || format!("listen in {}", directory.display());
    // The address of a socket has at most 108 bytes: a name in the own directory is short.
    std::env::set_current_dir(directory).map_err(failed(what()))?;
    match std::fs::remove_file(SOCKET) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed(what())(e)),
        _ => {}
    }
    let listener = UnixListener::bind(SOCKET).map_err(failed(what()))?;
    let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
    let wake = Arc::new(wake.map_err(|e| failed("make an event descriptor")(e.into()))?);
    let (to, asked) = channel();
    let theirs = wake.clone();
    let serve = move || {
        control::serve(&listener, &to, || {
            // It fails only if 2^64 - 2 questions wait.
            let _ = rustix::io::write(&*theirs, &1_u64.to_ne_bytes());
        });
    };
    std::thread::Builder::new().name("control".into()).spawn(serve).map_err(failed("start a thread"))?;
    Ok((asked, wake))
}

fn nanoseconds(start: Instant) -> u64 {
    // 584 years.
    start.elapsed().as_nanos() as u64
}

/// Reads what has come to a tap, up to [`BATCH`] frames.
fn receive(
    tap: &OwnedFd,
    direction: &mut Direction,
    start: Instant,
    buffer: &mut [u8],
    ifname: &str,
) -> Result<()> {
    for _ in 0..BATCH {
        match rustix::io::read(tap, &mut *buffer) {
            Ok(length) => direction.offer(nanoseconds(start), buffer[..length].to_vec()),
            Err(Errno::AGAIN) => return Ok(()),
            Err(Errno::INTR) => {}
            // Somebody has removed the tap: the server starts another process.
            Err(e) => return Err(failed(format!("read frames of the tap '{ifname}'"))(e.into())),
        }
    }
    Ok(())
}

/// Writes what is due.
fn send(direction: &mut Direction, tap: &OwnedFd, start: Instant) {
    while let Some(frame) = direction.take(nanoseconds(start)) {
        let is_taken = loop {
            match rustix::io::write(tap, &frame) {
                Err(Errno::INTR) => {}
                result => break result.is_ok(),
            }
        };
        direction.delivered(frame.len(), is_taken);
    }
}

/// Frames that the kernel dropped since nobody read them in time, by name of the tap.
fn tap_drops() -> impl Fn(&str) -> u64 {
    // A counter is worth no failure.
    let table = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
    move |ifname| transmit_drops(&table, ifname)
}

/// The twelfth number of an interface in the text of `/proc/net/dev`.
fn transmit_drops(table: &str, ifname: &str) -> u64 {
    let of = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        (name.trim() == ifname).then(|| numbers.split_whitespace().nth(11)?.parse().ok())?
    };
    table.lines().find_map(of).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_of_a_tap() {
        let table = "Inter-|   Receive                                                |  Transmit\n \
            face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
            lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n  wa1:1 2 3 4 5 6 7 8 9 10 11 77 13 14 15 16\n";
        assert_eq!(transmit_drops(table, "wa1"), 77);
        assert_eq!(transmit_drops(table, "wa"), 0);
    }

    #[test]
    fn directions_differ() {
        assert_ne!(towards_node(1), from_node(1));
        assert_ne!(from_node(1), towards_node(2));
    }
}
