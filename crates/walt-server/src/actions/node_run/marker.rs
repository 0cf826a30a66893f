//! The command line that runs on a node, and how it is ended there: pure.
//!
//! The shell that runs the command first writes a line to its standard error, the *marker*: `walt-run <token> <process>
//! <process group>`. It tells the server that the command has begun, and which processes are to get a signal. The marker is
//! taken out of the output.

/// First word of the marker.
const WORD: &str = "walt-run";
/// Most bytes in front of the marker: what a login shell's start-up files say.
const BEFORE_MAX: usize = 64 << 10;

/// The shell that runs the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shell {
    /// Its number.
    pub pid: u32,
    /// Its process group, if the node has said it.
    pub group: Option<u32>,
}

/// Looks for the marker in the error output of a command.
#[derive(Debug)]
pub struct Marker {
    token: String,
    /// What came before it.
    before: Vec<u8>,
    is_over: bool,
    /// What it has told.
    pub shell: Option<Shell>,
}

impl Marker {
    /// A marker with a token that nobody can guess.
    pub fn new(token: u64) -> Self {
        Self { token: format!("{token:016x}"), before: Vec::new(), is_over: false, shell: None }
    }

    /// The command line that writes the marker and then runs a command.
    pub fn line(&self, command: &str) -> Vec<u8> {
        let token = &self.token;
        format!(
            "read -r _ _ _ _ _walt _ 2>/dev/null </proc/$$/stat; \
             printf '{WORD} {token} %s %s\\n' \"$$\" \"$_walt\" >&2\n{command}"
        )
        .into_bytes()
    }

    /// The next error output; what of it is for the user.
    pub fn read(&mut self, bytes: &[u8]) -> Vec<u8> {
        if self.is_over {
            return bytes.to_owned();
        }
        self.before.extend_from_slice(bytes);
        let start = format!("{WORD} {} ", self.token).into_bytes();
        let found = (0..self.before.len())
            .filter(|&at| at == 0 || self.before[at - 1] == b'\n')
            .find(|&at| self.before[at..].starts_with(&start));
        if let Some(at) = found {
            let rest = &self.before[at + start.len()..];
            let Some(end) = rest.iter().position(|b| *b == b'\n') else { return Vec::new() };
            self.shell = shell(&rest[..end]);
            self.is_over = true;
            let mut all = std::mem::take(&mut self.before);
            all.drain(at..at + start.len() + end + 1);
            return all;
        }
        if self.before.len() > BEFORE_MAX { self.rest() } else { Vec::new() }
    }

    /// What was kept back, when no marker will come any more.
    pub fn rest(&mut self) -> Vec<u8> {
        self.is_over = true;
        std::mem::take(&mut self.before)
    }
}

/// The two numbers behind the token.
fn shell(text: &[u8]) -> Option<Shell> {
    let mut words = std::str::from_utf8(text).ok()?.split_ascii_whitespace();
    let pid = words.next()?.parse().ok().filter(|pid| *pid > 1)?;
    Some(Shell { pid, group: words.next().and_then(|group| group.parse().ok()) })
}

/// The command line that sends a signal to all processes of a command: to the shell's process group, if it leads one.
/// (dropbear starts shells in its own group.) Otherwise to the shell and to what descends from it.
pub fn signal_line(shell: Shell, signal: &str) -> Vec<u8> {
    let pid = shell.pid;
    match shell.group {
        Some(group) if group == pid => format!("kill -s {signal} -- -{pid}"),
        // By what /proc says, since `ps` of busybox does not know parents everywhere, and without a program for each.
        _ => format!(
            "all=' {pid} ' more=1; while [ $more = 1 ]; do more=0; for stat in /proc/[0-9]*/stat; do \
             {{ read -r line <$stat; }} 2>/dev/null || continue; set -- ${{line%% *}} ${{line##*) }}; \
             case $all in *\" $1 \"*) ;; *\" $3 \"*) all=\"$all$1 \" more=1 ;; esac; done; done; kill -s {signal} $all"
        ),
    }
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::Read,
        process::{Command, Stdio},
    };

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    #[test]
    fn the_marker_is_taken_out() {
        let all = b"profile says\nwalt-run 0000000000000007 123 45\nerr";
        for cut in 0..all.len() {
            let mut marker = Marker::new(7);
            let mut out = marker.read(&all[..cut]);
            out.extend(marker.read(&all[cut..]));
            assert_eq!(text(&out), "profile says\nerr", "{cut}");
            assert_eq!(marker.shell, Some(Shell { pid: 123, group: Some(45) }));
            assert_eq!(
                text(&marker.read(b"walt-run 0000000000000007 1 1\n")),
                "walt-run 0000000000000007 1 1\n"
            );
        }
    }

    #[test]
    fn what_is_not_the_marker_stays() {
        for other in
            ["walt-run 8 1 1\n", " walt-run 0000000000000007 2 2\n", "walt-run 0000000000000007 2", ""]
        {
            let mut marker = Marker::new(7);
            assert_eq!(text(&marker.read(other.as_bytes())), "");
            assert_eq!((text(&marker.rest()).as_str(), marker.shell), (other, None));
            assert_eq!(text(&marker.read(b"more")), "more");
        }
        let mut marker = Marker::new(7);
        assert_eq!(marker.read(&[b'x'; BEFORE_MAX + 1]).len(), BEFORE_MAX + 1);
        assert_eq!(shell(b"1 1"), None, "never to init");
        assert_eq!(shell(b"12 "), Some(Shell { pid: 12, group: None }));
    }

    /// By the shells of this machine: the command is as it was, and gets the signal.
    #[test]
    fn shells_write_the_marker_and_are_ended() {
        use std::os::unix::process::CommandExt;
        for (name, leads) in
            [("dash", true), ("dash", false), ("bash", true), ("busybox", true), ("busybox", false)]
        {
            let marker = Marker::new(9);
            let line = marker.line("echo \"out $0\"; (sleep 60 & echo err >&2; wait; :); echo after");
            let mut command = Command::new(name);
            if name == "busybox" {
                command.arg("sh");
            }
            if leads {
                command.process_group(0);
            }
            command
                .arg("-c")
                .arg(text(&line))
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            let Ok(mut child) = command.spawn() else { continue };
            let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
            let (mut marker, mut seen, mut buffer) = (marker, Vec::new(), [0; 256]);
            while !text(&seen).contains("err") {
                let n = err.read(&mut buffer).unwrap();
                assert!(n > 0, "{name} ended");
                seen.extend(marker.read(&buffer[..n]));
            }
            let shell = marker.shell.expect("the marker");
            assert_eq!((shell.pid, text(&seen).as_str()), (child.id(), "err\n"));
            assert_eq!(shell.group == Some(shell.pid), leads, "{name}");
            for sender in ["dash", "bash"] {
                let line = text(&signal_line(shell, "TERM"));
                let sent = Command::new(sender).args(["-c", &line]).stderr(Stdio::null()).status();
                assert!(sent.is_ok(), "{sender}");
            }
            let mut rest = String::new();
            out.read_to_string(&mut rest).unwrap();
            assert!(rest.starts_with("out ") && !rest.contains("after"), "{name}: {rest}");
            assert!(!child.wait().unwrap().success());
        }
    }
}
