//! Getting one part within its limits: programs, files, and work of our own on a thread.

use anyhow::{Context, Result, bail};
use parking_lot::Mutex;
use std::{
    fs::File,
    io::Read,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        mpsc::{Receiver, channel},
    },
    time::{Duration, Instant},
};

/// How often it is looked whether a program has ended.
const POLL: Duration = Duration::from_millis(20);

/// How long the last bytes of a program that has ended may take.
const LAST_BYTES: Duration = Duration::from_secs(1);

/// Text that was cut ends with this.
pub const CUT: &str = "\n(cut here: this part has a limit)\n";

/// Runs work on a thread of its own. If it takes longer than `limit`, it is left behind: the process ends soon.
pub fn within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let (sender, receiver) = channel();
    std::thread::Builder::new().name("part".into()).spawn(move || sender.send(work()).ok())?;
    match receiver.recv_timeout(limit) {
        Ok(outcome) => outcome,
        Err(_) => bail!("it took more than {} s, or failed badly", limit.as_secs()),
    }
}

/// What comes from a stream, as far as it has come: a descendant of a program may keep the stream open after its end.
struct Gathered {
    bytes: Arc<Mutex<Vec<u8>>>,
    ended: Receiver<()>,
}

impl Gathered {
    /// Gathers up to `max` bytes and one more, on a thread. The rest is read too, so that the program can end.
    fn from(mut stream: impl Read + Send + 'static, max: usize) -> Self {
        let (bytes, (sender, ended)) = (Arc::new(Mutex::new(Vec::new())), channel());
        let gathered = bytes.clone();
        std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while let Ok(n @ 1..) = stream.read(&mut buffer) {
                let mut bytes = gathered.lock();
                let room = (max + 1).saturating_sub(bytes.len());
                bytes.extend_from_slice(&buffer[..n.min(room)]);
            }
            // Nobody may wait for it any more.
            let _ = sender.send(());
        });
        Self { bytes, ended }
    }

    /// As text of at most `max` bytes.
    fn text(self, max: usize) -> String {
        let _ = self.ended.recv_timeout(LAST_BYTES);
        text_of(std::mem::take(&mut *self.bytes.lock()), max)
    }
}

/// What a program prints, and how it ended if that was not well. It is killed at the limit, with its descendants.
pub fn output(command: &mut Command, max: usize, limit: Duration) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).env("LC_ALL", "C.UTF-8");
    let mut child = command.process_group(0).spawn().with_context(|| format!("cannot start {name}"))?;
    let out = child.stdout.take().map(|stream| Gathered::from(stream, max));
    let err = child.stderr.take().map(|stream| Gathered::from(stream, max));
    let start = Instant::now();
    let status = loop {
        match child.try_wait()? {
            Some(status) => break Some(status),
            None if start.elapsed() > limit => {
                if let Some(group) = rustix::process::Pid::from_raw(child.id() as i32) {
                    // It may have ended by itself meanwhile.
                    let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
                }
                let _ = child.wait();
                break None;
            }
            None => std::thread::sleep(POLL),
        }
    };
    let mut text = out.map(|gathered| gathered.text(max)).unwrap_or_default();
    let errors = err.map(|gathered| gathered.text(max / 8)).unwrap_or_default();
    match status {
        Some(status) if status.success() => {}
        Some(status) => text += &format!("({name} ended: {status})\n"),
        None => text += &format!("({name} was stopped after {} s)\n", limit.as_secs()),
    }
    if !errors.is_empty() {
        text += &format!("(it said: {})\n", errors.trim_end());
    }
    Ok(text)
}

/// A file, cut at `max` bytes.
pub fn file(path: impl AsRef<Path>, max: usize) -> Result<String> {
    let path = path.as_ref();
    let mut bytes = Vec::new();
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    file.take(max as u64 + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text_of(bytes, max))
}

/// Bytes as text of at most `max` bytes.
pub fn text_of(bytes: Vec<u8>, max: usize) -> String {
    cut(String::from_utf8_lossy(&bytes).into_owned(), max)
}

/// Text of at most `max` bytes, and a note if it was longer.
pub fn cut(mut text: String, max: usize) -> String {
    if text.len() > max {
        text.truncate(text.floor_char_boundary(max));
        text.push_str(CUT);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_have_limits() {
        let sh = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        };
        let second = Duration::from_secs(1);
        assert_eq!(output(&mut sh("echo a"), 10, second).unwrap(), "a\n");
        let failed = output(&mut sh("echo a; echo why >&2; exit 3"), 100, second).unwrap();
        assert_eq!(failed, "a\n(sh ended: exit status: 3)\n(it said: why)\n");
        let long = output(&mut sh("yes | head -c 1000000"), 10, second * 20).unwrap();
        assert_eq!(long, format!("y\ny\ny\ny\ny\n{CUT}"));
        let start = Instant::now();
        let slow = output(&mut sh("echo a; sleep 60"), 100, second / 5).unwrap();
        assert!(slow.starts_with("a\n(sh was stopped after 0 s)"), "{slow}");
        assert!(start.elapsed() < second * 10);
        assert!(output(&mut Command::new("/no/such"), 10, second).is_err());
    }

    #[test]
    fn work_has_limits() {
        assert_eq!(within(Duration::from_secs(5), || Ok(1)).unwrap(), 1);
        let late = within(Duration::from_millis(10), || {
            std::thread::sleep(Duration::from_secs(5));
            Ok(())
        });
        assert!(late.unwrap_err().to_string().contains("it took more than"));
        assert!(file("/no/such", 10).is_err());
    }
}
