//! A newer server, which puts other scripts on nodes, takes over while a node runs and a shell is open.

use super::{BOOT, MINI, SOON, USER, booted, on, wait};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use walt_testkit::{Options, TestServer, programs, until};

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

    server.kill();
    assert!(!shell.end(SOON).0.success(), "the client has lost its server");
    newer.build();
    server.launch().unwrap_or_else(|e| panic!("{e:?}"));

    until("the node's link to the newer server", BOOT, || (booted(&server, "vn1") == "yes").then_some(()));
    assert_eq!(on(&server, "vn1", "cat /proc/sys/kernel/random/boot_id"), boot_id, "the node was rebooted");
    let mut shell = server.terminal(USER, &["image", "shell", "--resume", MINI]);
    shell.send("\r");
    shell.expect("# ", SOON);
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
}
