//! Log lines that are forwarded: to rsyslog, and to what speaks Loki's protocol.

use crate::has;
use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use walt_testkit::{Options, Registered, TestServer, until};

const SOON: Duration = Duration::from_secs(60);

/// A port of loopback that is free now.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn server(forward: &str) -> (TestServer, Registered) {
    let options = Options { config: format!("logs: {{forward: {{{forward}}}}}\n"), ..Options::default() };
    let server = TestServer::start_with(options).unwrap_or_else(|e| panic!("{e:?}"));
    server.import(walt_testkit::images::TINY, &walt_testkit::images::tiny(server.dir()));
    let node = Registered::plug(&server, "n1", 100);
    (server, node)
}

/// Logs lines on a node, and waits until the server has them.
fn log(node: &Registered, lines: std::ops::Range<u32>) {
    let text: String = lines.map(|i| format!("line {i}.\n")).collect();
    node.send_log("app", "NO_TIMESTAMPS", format!("{text}CLOSE\n").as_bytes());
}

/// rsyslog, which is killed when it is dropped.
struct Rsyslog(Child);

impl Rsyslog {
    fn start(dir: &Path, port: u16) -> Self {
        let config = format!(
            "module(load=\"imtcp\")\ninput(type=\"imtcp\" port=\"{port}\" address=\"127.0.0.1\")\n\
             template(name=\"all\" type=\"string\" string=\"%hostname% %app-name% %syslogseverity-text% %msg%\\n\")\n\
             *.* action(type=\"omfile\" file=\"{}\" template=\"all\")\n",
            dir.join("out").display()
        );
        std::fs::write(dir.join("rsyslog.conf"), config).unwrap();
        let mut command = Command::new("rsyslogd");
        command.arg("-n").arg("-f").arg(dir.join("rsyslog.conf")).arg("-i").arg(dir.join("pid"));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        until("rsyslog", SOON, || TcpStream::connect(("127.0.0.1", port)).ok());
        Self(child)
    }
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn every_line_reaches_rsyslog_at_least_once() {
    if !has("rsyslogd", "rsyslog") {
        return;
    }
    let port = free_port();
    let (mut server, node) = server(&format!("syslog: '127.0.0.1:{port}'"));
    let dir = server.dir().join("syslog");
    std::fs::create_dir_all(&dir).unwrap();
    let arrived = |upto: u32| {
        let text = std::fs::read_to_string(dir.join("out")).unwrap_or_default();
        let have: HashSet<&str> = text.lines().filter_map(|l| l.strip_prefix("n1 app info ")).collect();
        (0..upto)
            .all(|i| {
                have.contains(format!("line {i}.").trim()) || have.contains(format!(" line {i}.").as_str())
            })
            .then_some(text)
    };
    // It is not there yet: nothing is lost.
    log(&node, 0..100);
    let rsyslog = Rsyslog::start(&dir, port);
    until("the first lines", SOON, || arrived(100));
    // It dies, and so does the server, which goes on where it was.
    drop(rsyslog);
    log(&node, 100..200);
    std::thread::sleep(Duration::from_secs(1));
    server.kill();
    server.launch().unwrap_or_else(|e| panic!("{e:?}"));
    let _rsyslog = Rsyslog::start(&dir, port);
    log(&node, 200..300);
    let text = until("all lines", SOON, || arrived(300));
    assert!(text.contains("walt-server platform.devices info "), "{text}");
    assert!(
        text.contains("walt-server daemon.warning warning ")
            || text.contains("walt-server daemon.info info ")
    );
}

/// Answers requests with these statuses in turn, the last one for ever; says what was posted.
fn loki(statuses: &'static [u16]) -> (u16, mpsc::Receiver<serde_json::Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (posted, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut count = 0;
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            loop {
                let (mut first, mut length) = (String::new(), 0);
                if reader.read_line(&mut first).unwrap_or(0) == 0 {
                    break;
                }
                assert_eq!(first, "POST /loki/api/v1/push HTTP/1.1\r\n");
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).unwrap();
                    let line = line.trim().to_ascii_lowercase();
                    if line.is_empty() {
                        break;
                    }
                    if let Some(value) = line.strip_prefix("content-length: ") {
                        length = value.parse().unwrap();
                    }
                    assert!(!line.starts_with("content-type") || line == "content-type: application/json");
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                let status = statuses[count.min(statuses.len() - 1)];
                count += 1;
                if status == 204 && posted.send(serde_json::from_slice(&body).unwrap()).is_err() {
                    return;
                }
                let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n");
                stream.write_all(answer.as_bytes()).unwrap();
            }
        }
    });
    (port, receiver)
}

/// The exchange is that of Loki's documentation: Loki itself is not in Debian.
#[test]
fn every_line_reaches_loki_although_it_fails_at_first() {
    let (port, posted) = loki(&[503, 429, 204]);
    let (server, node) = server(&format!("loki: 'http://127.0.0.1:{port}'"));
    log(&node, 0..300);
    let mut missing: HashSet<String> = (0..300).map(|i| format!("line {i}.")).collect();
    while !missing.is_empty() {
        let body = posted.recv_timeout(SOON).unwrap_or_else(|e| panic!("{e}: {} are missing", missing.len()));
        for stream in body["streams"].as_array().unwrap() {
            if stream["stream"] != serde_json::json!({"job": "walt", "issuer": "n1", "stream": "app"}) {
                continue;
            }
            for value in stream["values"].as_array().unwrap() {
                let at: u64 = value[0].as_str().unwrap().parse().unwrap();
                assert!(at > 1_700_000_000_000_000_000, "nanoseconds: {at}");
                missing.remove(value[1].as_str().unwrap());
            }
        }
    }
    assert!(
        server.log().contains("loki: log lines are not forwarded: Loki at 127.0.0.1"),
        "{}",
        server.log()
    );
}
