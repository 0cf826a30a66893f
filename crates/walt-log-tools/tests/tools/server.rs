//! A server that takes log streams as walt-server does, and dies, stalls and refuses when it is told to.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// A line as it came.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    pub stream: String,
    pub bytes: Vec<u8>,
    /// As the sender gave it.
    pub time: Option<f64>,
    /// Of lines that the sender dropped.
    pub dropped: Option<u64>,
}

/// What the server does wrong.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// Each connection dies after so many frames: by turns with its lines stored and not acknowledged, and not stored.
    pub dies_after: Option<usize>,
    /// Says OK, and reads nothing more.
    pub stalls: bool,
    /// Says ERROR when lines come.
    pub troubled: bool,
    /// Says this instead of OK.
    pub refuses: Option<&'static str>,
}

#[derive(Default)]
struct State {
    lines: Vec<Line>,
    positions: HashMap<String, u64>,
    open: Vec<TcpStream>,
    faults: Faults,
    connections: usize,
    deaths: usize,
    up: bool,
}

/// It is away when it is dropped.
pub struct Server {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

pub fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

impl Server {
    /// A server that is not there yet; its port is.
    pub fn away() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self { address: listener.local_addr().unwrap(), state: Arc::default() }
    }

    pub fn new(faults: Faults) -> Self {
        let server = Self::away();
        server.lock().faults = faults;
        server.come();
        server
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn faults(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    /// Listens, with what it has stored before.
    pub fn come(&self) {
        let listener = TcpListener::bind(self.address).unwrap();
        listener.set_nonblocking(true).unwrap();
        self.lock().up = true;
        let state = self.state.clone();
        std::thread::spawn(move || {
            while state.lock().unwrap().up {
                let Ok((connection, _)) = listener.accept() else {
                    std::thread::sleep(Duration::from_millis(5));
                    continue;
                };
                connection.set_nonblocking(false).unwrap();
                let mut locked = state.lock().unwrap();
                locked.connections += 1;
                locked.open.push(connection.try_clone().unwrap());
                drop(locked);
                let state = state.clone();
                std::thread::spawn(move || serve(connection, &state));
            }
        });
    }

    /// Is killed.
    pub fn go(&self) {
        let mut state = self.lock();
        state.up = false;
        state.open.drain(..).for_each(|c| drop(c.shutdown(Shutdown::Both)));
        drop(state);
        // for the listener to be closed
        let gone = Instant::now();
        while TcpStream::connect(self.address).is_ok() {
            assert!(gone.elapsed() < Duration::from_secs(5));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn lines(&self) -> Vec<Line> {
        self.lock().lines.clone()
    }

    pub fn deaths(&self) -> usize {
        self.lock().deaths
    }

    pub fn connections(&self) -> usize {
        self.lock().connections
    }

    /// The lines, once there are so many.
    pub fn wait(&self, lines: usize) -> Vec<Line> {
        let start = Instant::now();
        while self.lock().lines.len() < lines {
            let have = self.lock().lines.len();
            assert!(start.elapsed() < Duration::from_secs(30), "{have} of {lines} lines");
            std::thread::sleep(Duration::from_millis(10));
        }
        self.lines()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.lock().up = false;
    }
}

fn text_line(reader: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    (reader.read_line(&mut line).ok()? > 0).then(|| line.trim_end_matches('\n').to_owned())
}

/// One frame; none at END or where the connection ends.
fn frame(reader: &mut impl BufRead, stream: &str) -> Option<Result<Line, ()>> {
    let head = text_line(reader)?;
    if head == "END" {
        return Some(Err(()));
    }
    let words: Vec<&str> = head.split(' ').collect();
    let [kind, number, time] = words[..] else { panic!("a frame begins with '{head}'") };
    let time = (time != "-").then(|| time.parse().unwrap_or_else(|e| panic!("{head}: {e}")));
    let mut line = Line { stream: stream.to_owned(), bytes: Vec::new(), time, dropped: None };
    let number: u64 = number.parse().unwrap_or_else(|e| panic!("{head}: {e}"));
    match kind {
        "L" => {
            assert!(number <= 1 << 20, "{head}");
            line.bytes.resize(number as usize, 0);
            reader.read_exact(&mut line.bytes).ok()?;
            let mut end = [0];
            reader.read_exact(&mut end).ok()?;
            assert_eq!(end, *b"\n", "behind {head}");
        }
        "D" => line.dropped = Some(number),
        _ => panic!("a frame begins with '{head}'"),
    }
    Some(Ok(line))
}

fn serve(connection: TcpStream, state: &Mutex<State>) -> Option<()> {
    let mut answers = connection.try_clone().unwrap();
    let mut reader = BufReader::new(connection);
    let faults = state.lock().unwrap().faults;
    assert_eq!(text_line(&mut reader)?, "REQ_LOG_STREAM 1");
    let stream = text_line(&mut reader)?.strip_prefix("stream ").unwrap().to_owned();
    let source = text_line(&mut reader)?.strip_prefix("source ").unwrap().to_owned();
    assert!(source.len() == 16 && source.bytes().all(|b| b.is_ascii_hexdigit()), "{source}");
    assert_eq!(text_line(&mut reader)?, "");
    if let Some(words) = faults.refuses {
        let _ = writeln!(answers, "ERROR {words}");
        let _ = answers.shutdown(Shutdown::Both);
        return None;
    }
    let position = state.lock().unwrap().positions.get(&source).copied().unwrap_or(0);
    writeln!(answers, "OK {position}").ok()?;
    if faults.stalls {
        std::thread::sleep(Duration::from_secs(60));
        return None;
    }
    if faults.troubled {
        let _ = frame(&mut reader, &stream)?;
        let _ = writeln!(answers, "ERROR no space left on device");
        let _ = answers.shutdown(Shutdown::Both);
        return None;
    }
    // what is not durable yet
    let mut waiting = Vec::new();
    for number in 1.. {
        let frame = frame(&mut reader, &stream)?;
        let end = frame.is_err();
        waiting.extend(frame.ok());
        let dies = faults.dies_after.is_some_and(|n| number >= n);
        if dies || end || reader.buffer().is_empty() {
            let mut locked = state.lock().unwrap();
            if dies {
                locked.deaths += 1;
                if locked.deaths.is_multiple_of(2) {
                    let _ = answers.shutdown(Shutdown::Both);
                    return None;
                }
            }
            let durable = locked.positions.entry(source.clone()).or_insert(0);
            *durable += waiting.len() as u64;
            let durable = *durable;
            locked.lines.append(&mut waiting);
            drop(locked);
            if dies {
                let _ = answers.shutdown(Shutdown::Both);
                return None;
            }
            writeln!(answers, "{} {durable}", if end { "BYE" } else { "ACK" }).ok()?;
            if end {
                return None;
            }
        }
    }
    None
}
