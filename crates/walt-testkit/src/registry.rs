//! Registries on free ports of loopback: one of the distribution (package docker-registry), and a server's own.

use crate::{TestServer, User, until};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long it may take to listen.
const START_LIMIT: Duration = Duration::from_secs(60);
/// The user it may know, and his password.
pub const USER: (&str, &str) = ("ann", "secret");
/// The same for htpasswd(5).
const HTPASSWD: &str = "ann:$2y$05$CZ9pZ4fng9MAiJL/TUCPfexnamFHVtRCA5I.iYENt1PGTzhEyHUWK\n";

/// A registry; it ends when it is dropped.
#[derive(Debug)]
pub struct DockerRegistry {
    /// Its port on 127.0.0.1.
    pub port: u16,
    dir: PathBuf,
    child: Child,
}

impl DockerRegistry {
    /// Whether the program is here; if not, says that the test is skipped.
    pub fn is_installed() -> bool {
        let there = Path::new("/usr/bin/docker-registry").exists();
        if !there {
            eprintln!("skipped: docker-registry is not installed");
        }
        there
    }

    /// Starts one that keeps its files in the new directory `dir`; with `users`, only [`USER`] may use it.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(dir: &Path, users: bool) -> Self {
        Self::start_with(dir, users, None)
    }

    /// As [`DockerRegistry::start`], with TLS by a certificate and its key (PEM).
    ///
    /// # Panics
    /// If it does not start.
    pub fn start_with_tls(dir: &Path, users: bool, certificate: &Path, key: &Path) -> Self {
        Self::start_with(dir, users, Some((certificate, key)))
    }

    fn start_with(dir: &Path, users: bool, tls: Option<(&Path, &Path)>) -> Self {
        fs::create_dir(dir).expect("the directory can be made");
        let mut config = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: '127.0.0.1:0', secret: x{}}}\n",
            dir.join("data").display(),
            tls.map(|(certificate, key)| {
                format!(", tls: {{certificate: {}, key: {}}}", certificate.display(), key.display())
            })
            .unwrap_or_default()
        );
        if users {
            let path = dir.join("htpasswd");
            fs::write(&path, HTPASSWD).expect("the directory can be written");
            config += &format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", path.display());
        }
        fs::write(dir.join("config.yml"), config).expect("the directory can be written");
        let log = File::create(dir.join("log")).expect("the directory can be written");
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(dir.join("config.yml"))
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor can be copied"))
            .stderr(log)
            .spawn()
            .expect("docker-registry can be started");
        let port = until("docker-registry to listen", START_LIMIT, || {
            let said = fs::read_to_string(dir.join("log")).unwrap_or_default();
            let ended = child.try_wait().expect("a child can be waited for");
            assert!(ended.is_none(), "docker-registry ended: {said}");
            let port = said.split_once("listening on 127.0.0.1:")?.1;
            let digits: String = port.chars().take_while(char::is_ascii_digit).collect();
            // A line that is half written has half a number.
            (digits.len() < port.len()).then(|| digits.parse().expect("a port"))
        });
        Self { port, dir: dir.to_owned(), child }
    }

    /// Host and port.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What was asked of it.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `walt registry serve`. It outlives its server, and ends when it is dropped.
#[derive(Debug)]
pub struct OwnRegistry {
    /// Its port on 127.0.0.1.
    pub port: u16,
    child: Child,
}

impl OwnRegistry {
    /// Opens one for a user.
    ///
    /// # Panics
    /// If the command fails.
    pub fn serve(server: &TestServer, user: User) -> Self {
        let mut command = server.walt_command(user, &["registry", "serve", "--port", "0"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("walt can be started");
        let mut said = String::new();
        let out = child.stdout.take().expect("it is piped");
        // Ends with the program at the latest.
        BufReader::new(out).read_line(&mut said).expect("a pipe can be read");
        let port = said.split_once("127.0.0.1:").and_then(|(_, rest)| rest.split(',').next()?.parse().ok());
        let opened = Self { port: port.unwrap_or_default(), child };
        assert_ne!(opened.port, 0, "walt registry serve said: {said}");
        opened
    }

    /// Writes a user's login to a file, for `REGISTRY_AUTH_FILE` and `--authfile`.
    ///
    /// # Panics
    /// If the command fails.
    pub fn login(&self, server: &TestServer, user: User, auth: &Path) {
        let words = ["registry", "login", "--port", &self.port.to_string()];
        let ran = server.walt_command(user, &words).env("REGISTRY_AUTH_FILE", auth).output();
        let ran = ran.expect("walt can be started");
        assert!(ran.status.success(), "{ran:?}");
    }
}

impl Drop for OwnRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
