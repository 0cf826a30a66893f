//! A newer server, which puts other scripts on nodes, takes over while a node writes on `/persist`, an image shell, a
//! console and commands that wait are open; then it restarts some more times. Nobody sees an error. In the end, the state is
//! restored as another server's, and the node boots there.

use super::{BOOT, BOOT_SECONDS, MINI, SOON, USER, booted, on, restore, wait};
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use walt_testkit::{Options, Terminal, TestServer, programs, until};

/// What the newer server calls a script of the nodes: a name of the same length, so that it can be written into the
/// program, and one that sorts before all others.
const NAME: (&[u8], &[u8]) = (b"/bin/walt-log-tee ", b"/bin/aalt-log-tee ");
/// A change in the text of another script.
const TEXT: (&[u8], &[u8]) = (b"# The node link: one TCP connection", b"# The NODE LINK: one TCP connection");
/// Runs the newer program (`$0`) once it is there, else the one that was built.
const WRAPPER: &str = r#"if [ -x "$0" ]; then shift; exec "$0" "$@"; fi; exec "$@""#;
/// All that the node reads of its image and of what the server has added, not from the node's own memory.
const SUMS: &str =
    "echo 3 >/proc/sys/vm/drop_caches; cd / && find bin sbin usr etc -type f | sort | xargs md5sum";

/// What a shell prints over all restarts: each line once, and in this order.
const LINES: usize = 100;
/// How often the server restarts; every second time it is killed.
const RESTARTS: usize = 3;
/// The same with `WALT_TEST_LONG=1`.
const RESTARTS_LONG: usize = 30;
/// What runs on the node: each file is written, moved and read again. It says what failed in a file that no server is
/// needed for.
const WRITER: &str = "i=0; while [ ! -e /persist/end ]; do i=$((i+1)); \
    { echo $i >/persist/new && mv /persist/new /persist/last && read -r n </persist/last && [ $n = $i ] \
    && echo $i >>/persist/all; } || echo failed at $i; echo $i >/tmp/count; done >>/tmp/failures 2>&1";

/// The newer program; removed at the end.
struct Newer(PathBuf);

impl Drop for Newer {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

impl Newer {
    /// As if it had been built from changed sources: the scripts of nodes are embedded as they are.
    fn build(&self) {
        let mut program = fs::read(programs().join("walt-server")).unwrap();
        for (old, new) in [NAME, TEXT] {
            assert_eq!(old.len(), new.len());
            let places: Vec<usize> =
                program.windows(old.len()).enumerate().filter(|(_, w)| *w == old).map(|(at, _)| at).collect();
            assert!(
                !places.is_empty(),
                "'{}' is in no script of node/ any more",
                String::from_utf8_lossy(old)
            );
            places.iter().for_each(|at| program[*at..at + new.len()].copy_from_slice(new));
        }
        // Under another name first: it counts once it is whole.
        let part = self.0.with_extension("part");
        fs::write(&part, program).unwrap();
        fs::set_permissions(&part, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(part, &self.0).unwrap();
    }
}

/// Ends as an upgrade of the package ends it.
fn end(server: &mut TestServer) {
    let pid = rustix::process::Pid::from_raw(server.pid().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    server.wait_for_end();
}

/// Who works while the server restarts.
struct Bystanders {
    shell: Terminal,
    console: Terminal,
    script: Child,
    watch: Child,
    dir: PathBuf,
}

impl Bystanders {
    /// A shell with a variable is at its prompt; node `vn1` runs.
    fn begin(server: &TestServer, mut shell: Terminal) -> Self {
        let detached = format!("setsid sh -c '{WRITER}' </dev/null >/dev/null 2>&1 & echo started");
        on(server, "vn1", &detached);
        shell.line(&format!("for i in $(seq {LINES}); do echo line-$i; sleep 0.1; done; echo all-$kept"));
        shell.expect("line-1\n", SOON);
        let mut console = server.terminal(USER, &["node", "console", "vn1"]);
        console.expect("Press <enter> to connect", SOON);
        console.line("");
        on(server, "vn1", "echo mark-0 >/dev/console");
        console.expect("mark-0\n", SOON);
        server.walt(USER, &["node", "create", "vn2", "--image", MINI]).ok();
        let dir = server.dir().join("bystanders");
        fs::create_dir(&dir).unwrap();
        let spawn = |name: &str, script: String| {
            let out = File::create(dir.join(name)).unwrap();
            let mut command = server.as_user(Command::new("sh"), USER);
            command.arg("-ec").arg(script).stdin(Stdio::null());
            command.stdout(out.try_clone().unwrap()).stderr(out).spawn().unwrap()
        };
        let walt = server.dir().join("bin/walt").display().to_string();
        // Each command may begin while the server is away.
        let script = format!(
            "for n in 1 2 3; do {walt} node wait --timeout {BOOT_SECONDS} vn1; sleep 1; done; {walt} node show; \
             {walt} node wait --timeout {BOOT_SECONDS} vn2; echo the script has ended"
        );
        let script = spawn("script", script);
        let watch = spawn("watch", format!("exec {walt} node show --watch --all"));
        Self { shell, console, script, watch, dir }
    }

    fn said(&self, name: &str) -> String {
        fs::read_to_string(self.dir.join(name)).unwrap()
    }

    /// After a restart, all of them go on.
    fn go_on(&mut self, server: &TestServer, restart: usize) {
        until("the node's link to the server", BOOT, || (booted(server, "vn1") == "yes").then_some(()));
        on(server, "vn1", &format!("echo mark-{restart} >/dev/console"));
        let seen = self.console.expect(&format!("mark-{restart}\n"), SOON);
        assert_eq!(seen.matches("mark-").count(), 1, "the console shows what was there again: {seen}");
        let count = on(server, "vn1", "cat /tmp/count");
        let more = until("the node to write", SOON, || {
            Some(on(server, "vn1", "cat /tmp/count")).filter(|now| *now != count)
        });
        assert!(more.trim().parse::<u64>().is_ok(), "{more}");
    }

    /// None of them has seen an error. The shell is at its prompt again.
    fn finish(mut self, server: &TestServer) -> Terminal {
        let status = until("the script to end", BOOT, || self.script.try_wait().unwrap());
        let said = self.said("script");
        assert!(status.success() && said.ends_with("the script has ended\n"), "{status}: {said}");
        assert!(!said.contains("Error") && !said.contains("Issue"), "{said}");
        assert!(self.watch.try_wait().unwrap().is_none(), "{}", self.said("watch"));
        let watched = self.said("watch");
        assert!(watched.contains("vn1") && !watched.contains("Error"), "{watched}");
        self.watch.kill().unwrap();
        self.watch.wait().unwrap();

        let lines = self.shell.expect("all-here\n", SOON);
        let numbers: Vec<usize> =
            lines.lines().filter_map(|l| l.strip_prefix("line-")?.parse().ok()).collect();
        assert_eq!(
            numbers,
            (2..=LINES).collect::<Vec<_>>(),
            "lines of the shell are lost or there twice: {lines}"
        );
        let typed = self.shell.expect("typed-while-away\n", SOON);
        assert!(!typed.contains("server"), "the user was told of it: {typed}");
        self.console.send("\x01d");
        let (status, unread) = self.console.end(SOON);
        assert!(status.success() && unread.contains("Disconnected from console."), "{status}: {unread}");

        on(server, "vn1", "touch /persist/end");
        let failures = on(server, "vn1", "sleep 1; cat /tmp/failures");
        assert_eq!(failures, "", "the node saw errors on /persist");
        let all = on(server, "vn1", "cat /persist/all");
        let numbers: Vec<u64> = all.lines().map(|l| l.parse().unwrap()).collect();
        let last = numbers.len() as u64;
        assert!(last > 10, "it hardly wrote: {last}");
        assert_eq!(numbers, (1..=last).collect::<Vec<_>>(), "what was written is lost or there twice");
        self.shell
    }
}

#[test]
fn a_newer_server_disturbs_nobody() {
    let newer = Newer(format!("/var/tmp/walt-test-newer-{}", std::process::id()).into());
    let wrapper = ["sh", "-c", WRAPPER, newer.0.to_str().unwrap()].map(str::to_owned).to_vec();
    let built = walt_testkit::images::built(MINI);
    let mut server =
        TestServer::start_with(Options { wrapper, ..Options::default() }).unwrap_or_else(|e| panic!("{e:?}"));
    server.import(MINI, &built);
    server.walt(USER, &["image", "clone", &format!("walt:waltplatform/{MINI}")]).ok();
    server.walt(USER, &["node", "create", "vn1", "--image", MINI]).ok();
    wait(&server, "vn1");
    let boot_id = on(&server, "vn1", "cat /proc/sys/kernel/random/boot_id");
    let sums = on(&server, "vn1", SUMS);
    assert!(sums.contains("bin/walt-log-tee\n") && sums.lines().count() > 20, "{sums}");
    let mut shell = server.terminal(USER, &["image", "shell", MINI]);
    shell.expect("# ", SOON);
    shell.must("kept=here", SOON);

    let mut bystanders = Bystanders::begin(&server, shell);
    let restarts = if std::env::var_os("WALT_TEST_LONG").is_some() { RESTARTS_LONG } else { RESTARTS };
    for restart in 1..=restarts {
        match restart % 2 {
            0 => server.kill(),
            _ => end(&mut server),
        }
        if restart == 1 {
            bystanders.shell.line("echo typed-while-$(echo away)");
            newer.build();
        }
        server.launch().unwrap_or_else(|e| panic!("{e:?}"));
        bystanders.go_on(&server, restart);
    }
    let mut shell = bystanders.finish(&server);
    assert_eq!(on(&server, "vn1", "cat /proc/sys/kernel/random/boot_id"), boot_id, "the node was rebooted");
    assert_eq!(shell.must("echo $kept", SOON), "here\n");
    shell.line("exit");
    shell.expect("New image name: ", SOON);
    shell.send("\x03");
    shell.end(SOON);
    // A shell that is opened now makes the newer view, beside the one that the node goes on reading.
    let ran = server.walt_with_input(USER, &["image", "shell", MINI], "ls /bin/aalt-log-tee\n");
    assert_eq!(ran.out, "/bin/aalt-log-tee\n", "{ran:?}");
    assert_eq!(on(&server, "vn1", SUMS), sums, "the node reads other bytes than before");

    server.walt(USER, &["node", "reboot", "vn1"]).ok();
    wait(&server, "vn1");
    let now = on(&server, "vn1", SUMS);
    assert!(now.contains("bin/aalt-log-tee\n") && !now.contains("bin/walt-log-tee\n"), "{now}");
    let link = |sums: &str| sums.lines().find(|l| l.ends_with("/walt-node-link")).map(str::to_owned).unwrap();
    assert_ne!(link(&now), link(&sums), "the next boot has the newer script");
    restore::boots_elsewhere(server);
}
