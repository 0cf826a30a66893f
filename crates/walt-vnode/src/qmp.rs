//! QMP, qemu's control protocol: one JSON object a line. qemu serves one connection at a time, so keep it short, or
//! keep the only one.

use crate::{Error, QMP_TIMEOUT, Result, failed};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Longest line that is read, in bytes.
const MAX_LINE: u64 = 1024 * 1024;
/// Most events that are kept until somebody asks; the oldest go first.
const MAX_EVENTS: usize = 64;

/// A connection.
#[derive(Debug)]
pub struct Qmp {
    name: String,
    reader: BufReader<UnixStream>,
    pending: Vec<u8>,
    events: VecDeque<Value>,
}

impl Qmp {
    /// Connects and negotiates.
    ///
    /// # Errors
    /// When nobody listens, the answer is not QMP, or it is late (another client may be connected).
    pub fn connect(path: &Path, timeout: Duration) -> Result<Qmp> {
        let name = path.display().to_string();
        let stream = UnixStream::connect(path).map_err(failed(format!("connect to {name}")))?;
        stream.set_write_timeout(Some(timeout)).map_err(failed("set a timeout on a socket"))?;
        let mut qmp =
            Qmp { name, reader: BufReader::new(stream), pending: Vec::new(), events: VecDeque::new() };
        let deadline = Instant::now() + timeout;
        let greeting = qmp.line(deadline)?.ok_or(Error::Timeout("greet by QMP"))?;
        if greeting.get("QMP").is_none() {
            return Err(Error::Protocol(qmp.name, greeting.to_string()));
        }
        qmp.execute("qmp_capabilities", Value::Null)?;
        Ok(qmp)
    }

    /// Runs a command and returns what it returned.
    ///
    /// # Errors
    /// [`Error::Refused`] with qemu's words; else when the connection is lost or the answer late.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let mut request = json!({ "execute": command });
        if !arguments.is_null() {
            request["arguments"] = arguments;
        }
        let text = request.to_string() + "\r\n";
        let stream = self.reader.get_mut();
        stream.write_all(text.as_bytes()).map_err(failed(format!("write to {}", self.name)))?;
        let deadline = Instant::now() + QMP_TIMEOUT;
        loop {
            let mut answer = self.line(deadline)?.ok_or(Error::Timeout("answer by QMP"))?;
            if answer.get("event").is_some() {
                self.keep(answer);
            } else if let Some(error) = answer.get("error") {
                let message = error["desc"].as_str().unwrap_or("no reason given").to_owned();
                return Err(Error::Refused { command: command.to_owned(), message });
            } else if answer.get("return").is_some() {
                return Ok(answer["return"].take());
            } else {
                return Err(Error::Protocol(self.name.clone(), answer.to_string()));
            }
        }
    }

    /// The identity of the machine.
    ///
    /// # Errors
    /// As [`Qmp::execute`].
    pub fn uuid(&mut self) -> Result<String> {
        let answer = self.execute("query-uuid", Value::Null)?;
        Ok(answer["UUID"].as_str().unwrap_or_default().to_owned())
    }

    /// What the machine does, in qemu's words: `running`, `paused`, `shutdown`, …
    ///
    /// # Errors
    /// As [`Qmp::execute`].
    pub fn status(&mut self) -> Result<String> {
        let answer = self.execute("query-status", Value::Null)?;
        Ok(answer["status"].as_str().unwrap_or_default().to_owned())
    }

    /// Ends qemu, and with it the connection.
    ///
    /// # Errors
    /// As [`Qmp::execute`]; qemu may also end before it has answered, which is success.
    pub fn quit(&mut self) -> Result<()> {
        match self.execute("quit", Value::Null) {
            Err(Error::Io { .. } | Error::Protocol(..)) | Ok(_) => Ok(()),
            Err(other) => Err(other),
        }
    }

    /// Presses the power button. The guest may ignore it.
    ///
    /// # Errors
    /// As [`Qmp::execute`].
    pub fn powerdown(&mut self) -> Result<()> {
        self.execute("system_powerdown", Value::Null).map(drop)
    }

    /// From now on, a guest's reboot ends qemu, as if it had been started with `-no-reboot`.
    ///
    /// # Errors
    /// As [`Qmp::execute`].
    pub fn end_at_reboot(&mut self) -> Result<()> {
        self.execute("set-action", serde_json::json!({"reboot": "shutdown"})).map(drop)
    }

    /// The name of the next event (`SHUTDOWN`, `RESET`, …) with its data; `None` when none came in time.
    ///
    /// # Errors
    /// When the connection is lost, as it is when qemu ends.
    pub fn event(&mut self, timeout: Duration) -> Result<Option<(String, Value)>> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(mut event) = self.events.pop_front() {
                let name = event["event"].as_str().unwrap_or_default().to_owned();
                return Ok(Some((name, event["data"].take())));
            }
            match self.line(deadline)? {
                None => return Ok(None),
                Some(message) => self.keep(message),
            }
        }
    }

    fn keep(&mut self, event: Value) {
        if self.events.len() >= MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// The next line; `None` if it is not complete at the deadline (the part that arrived is kept).
    fn line(&mut self, deadline: Instant) -> Result<Option<Value>> {
        let reading = || format!("read from {}", self.name);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.reader.get_ref().set_read_timeout(Some(left)).map_err(failed(reading()))?;
            let room = MAX_LINE.saturating_sub(self.pending.len() as u64);
            match (&mut self.reader).take(room).read_until(b'\n', &mut self.pending) {
                Ok(_) if self.pending.ends_with(b"\n") => {
                    let line = std::mem::take(&mut self.pending);
                    let parsed = serde_json::from_slice(&line);
                    let shown = || String::from_utf8_lossy(&line).chars().take(200).collect::<String>();
                    return parsed.map(Some).map_err(|_| Error::Protocol(self.name.clone(), shown()));
                }
                Ok(_) => return Err(Error::Protocol(self.name.clone(), "the connection ended".into())),
                Err(e)
                    if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) =>
                {
                    return Ok(None);
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(failed(reading())(e)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// A server that greets, and answers each line it gets by the next of these texts.
    fn fake(
        greeting: &'static str,
        answers: &'static [&'static str],
    ) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q");
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.write_all(greeting.as_bytes());
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            for answer in answers {
                if lines.next().is_none() {
                    return;
                }
                let _ = stream.write_all(answer.as_bytes());
            }
            let _ = lines.next();
        });
        (dir, path)
    }

    const SHORT: Duration = Duration::from_millis(200);
    const HELLO: &str = "{\"QMP\": {\"version\": {}}}\r\n";
    const OK: &str = "{\"return\": {}}\r\n";

    #[test]
    fn answers_events_and_refusals() {
        let (_dir, path) = fake(
            HELLO,
            &[
                OK,
                "{\"event\": \"RESET\", \"data\": {\"guest\": true}}\r\n{\"return\": {\"UUID\": \"u\"}}\r\n",
                "{\"error\": {\"class\": \"X\", \"desc\": \"no such thing\"}}\r\n",
            ],
        );
        let mut qmp = Qmp::connect(&path, SHORT).unwrap();
        assert_eq!(qmp.uuid().unwrap(), "u");
        assert_eq!(qmp.event(SHORT).unwrap(), Some(("RESET".into(), json!({"guest": true}))));
        assert_eq!(qmp.event(SHORT).unwrap(), None);
        let refused = qmp.execute("frob", Value::Null).unwrap_err().to_string();
        assert_eq!(refused, "qemu refused 'frob': no such thing");
        assert!(qmp.quit().is_ok(), "a lost connection after quit is success");
        assert!(qmp.event(SHORT).is_err());
    }

    #[test]
    fn what_is_no_qmp_is_refused() {
        let (_dir, path) = fake("SSH-2.0\n", &[]);
        assert!(matches!(Qmp::connect(&path, SHORT), Err(Error::Protocol(..))));
        let (_dir, path) = fake("{}\n", &[]);
        assert!(matches!(Qmp::connect(&path, SHORT), Err(Error::Protocol(..))));
        let (_dir, path) = fake("", &[OK]);
        assert!(matches!(Qmp::connect(&path, SHORT), Err(Error::Timeout(_))));
        assert!(matches!(Qmp::connect(Path::new("/no/such/socket"), SHORT), Err(Error::Io { .. })));
    }
}
