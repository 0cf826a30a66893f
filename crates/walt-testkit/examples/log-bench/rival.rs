//! PostgreSQL with one table of lines and one index, in a directory of its own, reached by a unix socket.

use crate::lines::Lines;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use walt_testkit::until;

/// Rows of a COPY, which is a transaction.
const BATCH: usize = 512;
/// Clients that load at once: more were not faster on two cores.
pub const CLIENTS: usize = 4;
const START_LIMIT: Duration = Duration::from_secs(60);
/// What is not its default: memory for what is read often, and checkpoints that do not come during a round.
const SETTINGS: [&str; 4] =
    ["listen_addresses=", "shared_buffers=1GB", "max_wal_size=8GB", "checkpoint_timeout=30min"];

/// The server; dropping it ends it.
pub struct Postgres {
    process: Child,
    programs: PathBuf,
    dir: PathBuf,
}

impl Postgres {
    /// A new cluster in a directory that every account may enter.
    pub fn start(parent: &Path) -> Self {
        let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
            .expect("the package postgresql")
            .flatten()
            .map(|e| e.path())
            .collect();
        versions.sort();
        let programs = versions.pop().expect("a version of PostgreSQL").join("bin");
        let dir = parent.join("postgres");
        std::fs::create_dir(&dir).unwrap();
        run(Command::new("chmod").arg("755").arg(parent));
        run(Command::new("chown").arg("postgres:").arg(&dir));
        let data = dir.join("data");
        run(user(&programs.join("initdb"))
            .args(["--auth", "trust", "--no-instructions", "-E", "UTF8", "--locale", "C", "-D"])
            .arg(&data));
        let mut command = user(&programs.join("postgres"));
        command.arg("-D").arg(&data).arg("-k").arg(&dir);
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        let log = std::fs::File::create(parent.join("postgres.log")).unwrap();
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let rival = Self { process, programs, dir };
        until("PostgreSQL", START_LIMIT, || {
            rival.query("SELECT 1").stderr(Stdio::null()).output().unwrap().status.success().then_some(())
        });
        run(&mut rival.query(
            "CREATE TABLE logs (stream integer NOT NULL, timestamp bigint NOT NULL, line text NOT NULL); \
             CREATE INDEX ON logs (timestamp)",
        ));
        rival
    }

    /// `psql` with a command.
    pub fn query(&self, sql: &str) -> Command {
        let mut command = self.psql();
        command.args(["-A", "-t", "-c", sql]);
        command
    }

    fn psql(&self) -> Command {
        let mut command = Command::new(self.programs.join("psql"));
        command
            .args(["-q", "-X", "-U", "postgres", "-d", "postgres", "-v", "ON_ERROR_STOP=1", "-h"])
            .arg(&self.dir);
        command
    }

    /// Writes what `psql` loads; not measured.
    pub fn prepare(&self, lines: &Lines, range: Range<usize>, dir: &Path) -> Vec<PathBuf> {
        let path = |client: usize| dir.join(format!("load{client}.sql"));
        let mut files: Vec<_> =
            (0..CLIENTS).map(|client| BufWriter::new(std::fs::File::create(path(client)).unwrap())).collect();
        for (number, from) in range.clone().step_by(BATCH).enumerate() {
            let file = &mut files[number % CLIENTS];
            file.write_all(b"COPY logs FROM STDIN;\n").unwrap();
            for i in from..(from + BATCH).min(range.end) {
                writeln!(file, "{}\t{}\t{}", Lines::stream(i), lines.at(i), Lines::text(i)).unwrap();
            }
            file.write_all(b"\\.\n").unwrap();
        }
        files.iter_mut().for_each(|file| file.flush().unwrap());
        (0..CLIENTS).map(path).collect()
    }

    /// Loads what was prepared; seconds.
    pub fn load(&self, files: &[PathBuf]) -> f64 {
        let start = Instant::now();
        let children: Vec<Child> = files
            .iter()
            .map(|file| self.psql().arg("-f").arg(file).stdin(Stdio::null()).spawn().unwrap())
            .collect();
        for mut child in children {
            assert!(child.wait().unwrap().success(), "psql failed");
        }
        start.elapsed().as_secs_f64()
    }

    /// Bytes of the table and its index.
    pub fn bytes(&self) -> u64 {
        run(&mut self.query("VACUUM ANALYZE logs"));
        let output = self.query("SELECT pg_total_relation_size('logs')").output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let mut command = user(&self.programs.join("pg_ctl"));
        let _ = command.arg("stop").args(["-m", "immediate", "-D"]).arg(self.dir.join("data")).output();
        let _ = self.process.wait();
    }
}

/// A program as the account of the package: PostgreSQL refuses root.
fn user(program: &Path) -> Command {
    let mut command = Command::new("runuser");
    command.args(["-u", "postgres", "--"]).arg(program).current_dir("/");
    command
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
