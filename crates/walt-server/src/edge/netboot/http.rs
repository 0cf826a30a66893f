//! HTTP on walt-net: `/boot/<path>` is a boot file of the requesting machine, identified by its address ([`files`]);
//! `/node/<path>` is what a node needs to copy its image to its disk ([`copies`]).
//!
//! `GET` and `HEAD`, one byte range (RFC 9110 §14), and persistent connections are supported. Files are read in
//! chunks of [`CHUNK`] bytes as fast as the machine receives them, so the number of connections bounds the memory.
//!
//! Connections, their limits and all other paths of port 80 are in [`crate::edge::web`].

use crate::{
    actions::app::App,
    edge::netboot::{
        boot_file::BootFile,
        copies,
        files::{self, FileError},
    },
    services::nodes::boots::Sending,
};
use axum::http::request::Parts;
use futures_util::stream;
use http_body_util::{Either, Full, StreamBody};
use hyper::{
    Method, Response, StatusCode,
    body::{Bytes, Frame},
    header::{self, HeaderValue},
};
use percent_encoding::percent_decode;
use std::{io, net::Ipv4Addr, ops::Range, pin::Pin, sync::Arc};
use tokio::task::spawn_blocking;

/// The path of boot files.
pub const ROOT: &str = "/boot/";
/// Bytes that are read and sent at once.
const CHUNK: u64 = 256 * 1024;

/// Chunks of a body.
pub type Chunks = Pin<Box<dyn futures_util::Stream<Item = io::Result<Frame<Bytes>>> + Send>>;
/// A body that is there as a whole, or comes in chunks.
pub type Body = Either<Full<Bytes>, StreamBody<Chunks>>;

fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::new(text.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

/// What a machine on walt-net gets for a path below [`ROOT`] or [`copies::ROOT`], by `GET` or `HEAD`.
pub async fn answer(app: &Arc<App>, peer: Ipv4Addr, request: &Parts) -> Response<Body> {
    let missing = || text(StatusCode::NOT_FOUND, "No such file.");
    if let Some(path) = request.uri.path().strip_prefix(copies::ROOT) {
        return copy_of_image(app, peer, path.to_owned(), request).await;
    }
    let Some(path) = request.uri.path().strip_prefix(ROOT) else { return missing() };
    let path: Vec<u8> = percent_decode(path.as_bytes()).collect();
    let for_log = String::from_utf8_lossy(&path).into_owned();
    let at = app.clone();
    let (opened, path) = match spawn_blocking(move || (files::open(&at, peer, &path), path)).await {
        Ok((opened, path)) => (Ok(opened), path),
        Err(e) => (Err(e), Vec::new()),
    };
    let failed = |reason: String| {
        tracing::warn!(%peer, path = ?for_log, "cannot serve a boot file: {reason}");
        text(StatusCode::SERVICE_UNAVAILABLE, "The file cannot be served: see the log of the server.")
    };
    let file = match opened {
        Ok(Ok(file)) => file,
        Ok(Err(FileError::NotFound)) => {
            tracing::debug!(%peer, path = ?for_log, "no such boot file");
            return missing();
        }
        Ok(Err(e)) => return failed(e.to_string()),
        Err(e) => return failed(e.to_string()),
    };
    tracing::debug!(%peer, path = ?for_log, bytes = file.len(), "boot file");
    // Its part in the record of the boot.
    let is_get = request.method == Method::GET;
    let sending = is_get.then(|| Sending::begin(app.nodes(), peer, &path)).flatten();
    content(request, file.len(), |range| chunks(file, range, sending))
}

/// What a node needs to copy its image.
async fn copy_of_image(app: &Arc<App>, peer: Ipv4Addr, path: String, request: &Parts) -> Response<Body> {
    let (at, for_log) = (app.clone(), path.clone());
    // Within the runtime, in which the answer may start a task.
    let found = spawn_blocking(move || copies::answer(&at, peer, &path)).await;
    let failed = |reason: String| {
        tracing::warn!(%peer, path = ?for_log, "cannot serve a copy of an image: {reason}");
        text(StatusCode::INTERNAL_SERVER_ERROR, "The server failed: see its log.")
    };
    let tar = match found {
        Ok(Ok(copies::Answer::Tar(tar))) => tar,
        Ok(Ok(copies::Answer::Text(body))) => return text(StatusCode::OK, body),
        Ok(Ok(copies::Answer::Later(body))) => return text(StatusCode::SERVICE_UNAVAILABLE, body),
        Ok(Ok(copies::Answer::Missing)) => return text(StatusCode::NOT_FOUND, "No such file."),
        Ok(Err(e)) => return failed(format!("{e:#}")),
        Err(e) => return failed(e.to_string()),
    };
    let app = app.clone();
    content(request, tar.bytes, |range| {
        let left = range.end - range.start;
        let pieces = stream::try_unfold((None, left), move |(reader, left)| {
            let (app, start) = (app.clone(), range.start);
            async move {
                if left == 0 {
                    return Ok(None);
                }
                let read = move || -> anyhow::Result<_> {
                    let mut reader = match reader {
                        Some(reader) => reader,
                        None => copies::open(&app, &tar, start)?,
                    };
                    let bytes = reader.read(CHUNK.min(left) as usize)?;
                    anyhow::ensure!(!bytes.is_empty(), "the tar is shorter than when it was made");
                    Ok((bytes, reader))
                };
                let read = spawn_blocking(read).await.map_err(io::Error::other)?;
                let (bytes, reader) = read.map_err(|e| {
                    tracing::warn!(%peer, layer = %tar.key, "cannot send a layer: {e:#}");
                    io::Error::other(e)
                })?;
                let left = left - bytes.len() as u64;
                Ok(Some((Frame::data(Bytes::from(bytes)), (Some(reader), left))))
            }
        });
        StreamBody::new(Box::pin(pieces) as Chunks)
    })
}

/// The response with `length` bytes, or a part of them, which `body` gives.
fn content(
    request: &Parts,
    length: u64,
    body: impl FnOnce(Range<u64>) -> StreamBody<Chunks>,
) -> Response<Body> {
    let wanted = request.headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    let part = match wanted.map_or(Part::All, |value| part(value, length)) {
        Part::All => None,
        Part::Some(range) => Some(range),
        Part::Outside => {
            let mut response = text(StatusCode::RANGE_NOT_SATISFIABLE, "The file is shorter.");
            set(&mut response, header::CONTENT_RANGE, format!("bytes */{length}"));
            return response;
        }
    };
    let range = part.clone().unwrap_or(0..length);
    let size = range.end - range.start;
    let is_head = request.method == Method::HEAD;
    let mut response =
        Response::new(if is_head { Either::Left(Full::default()) } else { Either::Right(body(range)) });
    set(&mut response, header::CONTENT_LENGTH, size.to_string());
    set(&mut response, header::CONTENT_TYPE, "application/octet-stream".into());
    set(&mut response, header::ACCEPT_RANGES, "bytes".into());
    if let Some(Range { start, end }) = part {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        set(&mut response, header::CONTENT_RANGE, format!("bytes {start}-{}/{length}", end - 1));
    }
    response
}

fn set(response: &mut Response<Body>, name: header::HeaderName, value: String) {
    // Invariant: all values consist of digits and fixed words.
    let value = HeaderValue::from_str(&value).expect("a valid header");
    response.headers_mut().insert(name, value);
}

fn chunks(file: BootFile, range: Range<u64>, sending: Option<Sending>) -> StreamBody<Chunks> {
    let file = Arc::new(file);
    let pieces = stream::try_unfold((range, sending), move |(left, mut sending)| {
        let file = file.clone();
        async move {
            let size = CHUNK.min(left.end - left.start);
            if size == 0 {
                return Ok(None);
            }
            if let Some(sending) = &mut sending {
                sending.sent(size);
            }
            let at = left.start;
            let read = move || {
                let mut bytes = vec![0; size as usize];
                file.read_at(&mut bytes, at).map(|_| Bytes::from(bytes))
            };
            let bytes = spawn_blocking(read).await.map_err(io::Error::other)??;
            Ok(Some((Frame::data(bytes), (at + size..left.end, sending))))
        }
    });
    StreamBody::new(Box::pin(pieces))
}

/// The part of a file that a `Range` header requests.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    /// Everything: also for a header that is not understood, as RFC 9110 §14.2 allows.
    All,
    Some(Range<u64>),
    Outside,
}

fn part(value: &str, length: u64) -> Part {
    let Some((first, last)) = value.strip_prefix("bytes=").and_then(|v| v.split_once('-')) else {
        return Part::All;
    };
    let range = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => first..last.saturating_add(1).min(length),
        (Ok(first), Err(_)) if last.is_empty() => first..length,
        (Err(_), Ok(count)) if first.is_empty() => length.saturating_sub(count)..length,
        _ => return Part::All,
    };
    if range.start < range.end { Part::Some(range) } else { Part::Outside }
}

#[cfg(test)]
mod tests {
    use super::{super::files::tests::*, *};
    use crate::edge::web::{Door, LIMITS, Limits, serve};
    use std::{
        io::{BufRead, BufReader, Read, Write},
        net::{SocketAddr, TcpStream},
        time::Duration,
    };
    use tokio::net::TcpListener;

    /// For what a server does at once.
    const SOON: Duration = Duration::from_secs(60);
    /// Short limits, so that a test sees them.
    const SHORT: Limits = Limits {
        connections: 256,
        connections_of_one: 4,
        request: Duration::from_secs(1),
        stall: Duration::from_secs(1),
    };

    /// Serves `app` on a port of the loopback network.
    fn start(app: Arc<App>, limits: Limits) -> (tokio::runtime::Runtime, SocketAddr) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let at = listener.local_addr().unwrap();
        runtime.spawn(serve(app, listener, Door::WaltNet, limits));
        (runtime, at)
    }

    /// A connection of the machine at `from`.
    fn connect(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(from.into(), 0).into()).unwrap();
        socket.connect(&to.into()).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        socket.into()
    }

    /// One request; status, head, body.
    fn ask(stream: &mut BufReader<TcpStream>, request: &str) -> (u16, String, String) {
        write!(stream.get_mut(), "{request}\r\n\r\n").unwrap();
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(stream.read_line(&mut head).unwrap(), 0, "closed after {head:?}");
        }
        let length = |line: &str| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok();
        let mut body = vec![0; head.lines().find_map(length).unwrap_or(0)];
        if !request.starts_with("HEAD") {
            stream.read_exact(&mut body).unwrap();
        }
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head, String::from_utf8(body).unwrap())
    }

    #[test]
    fn a_machine_gets_its_files() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let (_runtime, at) = start(server(dir.path()), LIMITS);
        let mut node = BufReader::new(connect(NODE, at));
        let mut get = |path: &str| ask(&mut node, &format!("GET {path} HTTP/1.1\r\nHost: server"));
        // All on one connection.
        assert_eq!(get("/boot/start.ipxe").2, "#!ipxe\n");
        assert_eq!(get("/boot/%73tart.ipxe").2, "#!ipxe\n");
        assert_eq!(get("/boot//var/lib/walt/nodes/vn1/tftp/kernel?node_ip=127.0.0.3").2, "kernel");
        for path in ["/boot/../kernel", "/boot/%2e%2e/vmlinuz-1", "/boot/", "/boot/%00"] {
            let (status, _, body) = get(path);
            assert_eq!((status, body.as_str()), (404, "No such file."), "{path}");
        }
        let (status, head, body) = ask(&mut node, "HEAD /boot/kernel HTTP/1.1\r\nHost: server");
        assert!(status == 200 && head.to_lowercase().contains("content-length: 6\r\n"), "{head}");
        assert_eq!(body.len(), 6);
        let (status, head, body) =
            ask(&mut node, "GET /boot/kernel HTTP/1.1\r\nHost: server\r\nRange: bytes=2-3");
        assert!(head.to_lowercase().contains("content-range: bytes 2-3/6\r\n"), "{head}");
        assert_eq!((status, body.as_str()), (206, "rn"));
        let (status, ..) = ask(&mut node, "GET /boot/kernel HTTP/1.1\r\nHost: server\r\nRange: bytes=6-");
        assert_eq!(status, 416);
        let (status, ..) = ask(&mut node, "POST /boot/kernel HTTP/1.1\r\nHost: server\r\nContent-Length: 0");
        assert_eq!(status, 405);
        // Another machine, by its address.
        let mut other = BufReader::new(connect(Ipv4Addr::new(127, 0, 0, 9), at));
        let request = "GET /boot//var/lib/walt/nodes/vn1/tftp/kernel HTTP/1.1\r\nHost: server";
        assert_eq!(ask(&mut other, request).0, 404);
        let mut broken = BufReader::new(connect(OTHER, at));
        assert_eq!(ask(&mut broken, "GET /boot/kernel HTTP/1.1\r\nHost: server").0, 503);
    }

    #[test]
    fn large_files_arrive_whole() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let (_runtime, at) = start(server(dir.path()), LIMITS);
        let mut node = BufReader::new(connect(NODE, at));
        let (status, _, body) = ask(&mut node, "GET /boot/large HTTP/1.0");
        assert_eq!(status, 200);
        assert!(body == large(), "{} bytes differ from {}", body.len(), large().len());
    }

    #[test]
    fn silent_and_greedy_machines_are_cut_off() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let (_runtime, at) = start(server(dir.path()), SHORT);
        let ends = |mut stream: TcpStream| match stream.read(&mut [0; 1]) {
            Ok(count) => count == 0,
            Err(e) => e.kind() == io::ErrorKind::ConnectionReset,
        };
        // Says nothing; says half of something; is silent after an answer.
        let silent = connect(NODE, at);
        let mut half = connect(NODE, at);
        half.write_all(b"GET /boot/kernel HTTP/1.1\r\n").unwrap();
        let mut idle = BufReader::new(connect(NODE, at));
        assert_eq!(ask(&mut idle, "GET /boot/kernel HTTP/1.1\r\nHost: server").2, "kernel");
        assert!(ends(silent) && ends(half) && ends(idle.into_inner()));
        // As many as it may have, and one more.
        let kept: Vec<TcpStream> = (0..SHORT.connections_of_one).map(|_| connect(NODE, at)).collect();
        assert!(ends(connect(NODE, at)));
        drop(kept);
    }

    #[test]
    fn a_machine_that_takes_nothing_is_cut_off() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let limits = Limits { connections_of_one: 1, ..SHORT };
        let (_runtime, at) = start(server(dir.path()), limits);
        let mut stuck = connect(NODE, at);
        stuck.write_all(b"GET /boot/large HTTP/1.1\r\nHost: server\r\n\r\n").unwrap();
        // Once the server has given it up, the machine may come again.
        let end = std::time::Instant::now() + SOON;
        loop {
            let mut again = connect(NODE, at);
            let _ = again.write_all(b"GET /boot/kernel HTTP/1.0\r\n\r\n");
            if again.read(&mut [0; 1]).is_ok_and(|count| count == 1) {
                break;
            }
            assert!(std::time::Instant::now() < end, "the connection is held for {SOON:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    #[test]
    fn ranges() {
        assert_eq!(part("bytes=0-0", 10), Part::Some(0..1));
        assert_eq!(part("bytes=5-", 10), Part::Some(5..10));
        assert_eq!(part("bytes=-3", 10), Part::Some(7..10));
        assert_eq!(part("bytes=-30", 10), Part::Some(0..10));
        assert_eq!(part("bytes=9-18446744073709551615", 10), Part::Some(9..10));
        for outside in ["bytes=10-", "bytes=10-12", "bytes=-0"] {
            assert_eq!(part(outside, 10), Part::Outside, "{outside}");
        }
        for all in ["", "bytes=", "bytes=3-2", "bytes=0-1,3-4", "lines=0-1", "bytes=a-b", "bytes=-"] {
            assert_eq!(part(all, 10), Part::All, "{all}");
        }
    }
}
