//! A registry in memory that does what a test tells it to do wrong.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};
use walt_registry::manifest::digest_of;

/// A request.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// With its query.
    pub path: String,
    pub authorization: Option<String>,
    pub range: Option<String>,
    /// How many of this method and path, without the query, came before.
    pub count: usize,
}

/// An answer, to be changed.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<String>,
    pub body: Vec<u8>,
    /// `Range` is honoured.
    pub ranges: bool,
    /// The connection is cut after these bytes of the body.
    pub cut: Option<usize>,
    /// Nothing more comes after these bytes; with 0, not even the head.
    pub stall: Option<usize>,
}

impl Answer {
    pub fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), ranges: true, cut: None, stall: None }
    }
    pub fn ok(body: &[u8]) -> Self {
        Self { body: body.to_vec(), ..Self::status(200) }
    }
}

type Change = Arc<dyn Fn(&Request, &mut Answer) + Send + Sync>;

#[derive(Default)]
struct Shared {
    blobs: BTreeMap<String, Vec<u8>>,
    manifests: BTreeMap<String, Vec<u8>>,
    requests: Vec<Request>,
    change: Option<Change>,
}

/// The registry; it ends when it is dropped.
pub struct Fake {
    pub port: u16,
    shared: Arc<Mutex<Shared>>,
    stop: Arc<AtomicBool>,
}

impl Fake {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (shared, stop) = (Arc::<Mutex<Shared>>::default(), Arc::<AtomicBool>::default());
        let fake = Self { port, shared: shared.clone(), stop: stop.clone() };
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let (shared, stop) = (shared.clone(), stop.clone());
                thread::spawn(move || {
                    // A client that has seen enough closes.
                    let _ = serve(&stream.unwrap(), port, &shared, &stop);
                });
            }
        });
        fake
    }

    /// From now on, answers are changed like this.
    pub fn set(&self, change: impl Fn(&Request, &mut Answer) + Send + Sync + 'static) {
        let mut shared = self.shared.lock().unwrap();
        shared.change = Some(Arc::new(change));
        shared.requests.clear();
    }

    pub fn seen(&self, what: impl Fn(&Request) -> bool) -> bool {
        self.shared.lock().unwrap().requests.iter().any(what)
    }

    pub fn forget_requests(&self) {
        self.shared.lock().unwrap().requests.clear();
    }

    /// The manifest of `ann/x:latest`.
    pub fn manifest(&self) -> String {
        let bytes = self.shared.lock().unwrap().manifests["latest"].clone();
        String::from_utf8(bytes).unwrap()
    }

    /// Has all that another one has.
    pub fn take_from(&self, other: &Self) {
        let blobs = other.shared.lock().unwrap().blobs.clone();
        self.shared.lock().unwrap().blobs = blobs;
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn serve(stream: &TcpStream, port: u16, shared: &Mutex<Shared>, stop: &AtomicBool) -> std::io::Result<()> {
    let mut input = BufReader::new(stream);
    loop {
        let (mut lines, mut line) = (Vec::new(), String::new());
        while input.read_line(&mut line)? > 0 && line != "\r\n" {
            lines.push(std::mem::take(&mut line).trim_end().to_owned());
        }
        let Some(first) = lines.first() else { return Ok(()) };
        let mut words = first.split(' ').map(str::to_owned);
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let header = |name: &str| {
            let mut found = lines.iter().filter_map(|l| l.split_once(": "));
            found.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.to_owned())
        };
        let mut body = vec![0; header("content-length").map_or(0, |n| n.parse().unwrap())];
        input.read_exact(&mut body)?;
        let (request, answer) = {
            let mut shared = shared.lock().unwrap();
            let plain = |path: &str| path.split('?').next().unwrap().to_owned();
            let before = |r: &&Request| r.method == method && plain(&r.path) == plain(&path);
            let count = shared.requests.iter().filter(before).count();
            let request = Request {
                authorization: header("authorization"),
                range: header("range"),
                count,
                method,
                path,
            };
            shared.requests.push(request.clone());
            let mut answer = reading(&shared, &request);
            if let Some(change) = shared.change.clone() {
                change(&request, &mut answer);
            }
            if answer.status < 300 {
                writing(&mut shared, &request, body, port, &mut answer);
            }
            (request, answer)
        };
        if !write_answer(stream, &request, answer, stop)? {
            return Ok(());
        }
    }
}

fn last(path: &str) -> &str {
    path.split('?').next().unwrap().rsplit('/').next().unwrap()
}

/// What a right registry answers to a request that reads.
fn reading(shared: &Shared, request: &Request) -> Answer {
    let found = |bytes: Option<&Vec<u8>>| bytes.map_or(Answer::status(404), |b| Answer::ok(b));
    match request.method.as_str() {
        "GET" | "HEAD" if request.path == "/v2/" => Answer::ok(b"{}"),
        "GET" | "HEAD" if request.path.contains("/manifests/") => {
            found(shared.manifests.get(last(&request.path)))
        }
        "GET" | "HEAD" => found(shared.blobs.get(last(&request.path))),
        _ => Answer::status(201),
    }
}

/// Does what a request that writes wants.
fn writing(shared: &mut Shared, request: &Request, body: Vec<u8>, port: u16, answer: &mut Answer) {
    match request.method.as_str() {
        "POST" => {
            answer.status = 202;
            answer
                .headers
                .push(format!("Location: http://127.0.0.1:{port}/v2/ann/x/blobs/uploads/1?state=x"));
        }
        "PUT" if request.path.contains("/manifests/") => {
            shared.manifests.insert(format!("sha256:{}", digest_of(&body)), body.clone());
            shared.manifests.insert(last(&request.path).to_owned(), body);
        }
        "PUT" => {
            let digest = format!("sha256:{}", digest_of(&body));
            let named = format!("digest={}", digest.replace(':', "%3A"));
            assert!(request.path.contains("state=x") && request.path.ends_with(&named), "{request:?}");
            shared.blobs.insert(digest, body);
        }
        _ => {}
    }
}

/// Writes it; false if the connection is to end.
fn write_answer(
    mut out: &TcpStream,
    request: &Request,
    mut answer: Answer,
    stop: &AtomicBool,
) -> std::io::Result<bool> {
    let offset = request.range.as_ref().filter(|_| answer.ranges && answer.status == 200).map(|range| {
        let start: usize = range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap();
        answer.headers.push(format!(
            "Content-Range: bytes {start}-{}/{}",
            answer.body.len() - 1,
            answer.body.len()
        ));
        answer.status = 206;
        start
    });
    let body = &answer.body[offset.unwrap_or(0)..];
    let wait = || {
        // Nothing comes until the client has gone.
        while !stop.load(Ordering::SeqCst) && out.peek(&mut [0]).is_ok_and(|n| n > 0) {
            thread::yield_now();
        }
    };
    if answer.stall == Some(0) {
        wait();
        return Ok(false);
    }
    let mut head = format!("HTTP/1.1 {} X\r\nContent-Length: {}\r\n", answer.status, body.len());
    answer.headers.iter().for_each(|h| head.push_str(&format!("{h}\r\n")));
    out.write_all(format!("{head}\r\n").as_bytes())?;
    if request.method == "HEAD" {
        return Ok(true);
    }
    match answer.cut.or(answer.stall).filter(|n| *n < body.len()) {
        None => out.write_all(body)?,
        Some(some) => {
            out.write_all(&body[..some])?;
            if answer.stall.is_some() {
                wait();
            }
            return Ok(false);
        }
    }
    Ok(true)
}
