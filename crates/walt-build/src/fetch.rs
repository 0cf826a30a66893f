//! `walt-server build-fetch`: fetches one [`Remote`], in a container.
//!
//! The container has no image. It sees the server's directories of programs, read-only. Its network is that of every
//! command of a build, so that a URL reaches the same hosts as a `RUN`. It has no capabilities, and its user owns
//! only the directory [`PLACE`], which gets the result:
//!
//! ```text
//! content    the file, mode 0600, with the time that the server said; or the tree
//! identity   sha256:… of the file; the commit of the tree
//! error      otherwise: a sentence
//! ```
//! Limits: files of [`MAX_FILE`] bytes; [`LIMIT`] for all; redirections and pauses as for registries
//! ([`walt_registry::Limits`]).

use super::remote::{Remote, identity};
use std::{
    fs::{FileTimes, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    process::{Output, Stdio},
    time::{Duration, UNIX_EPOCH},
};
use walt_registry::download;

/// Directory for the result, below the root of the container.
pub(crate) const PLACE: &str = "fetched";
/// Names in [`PLACE`].
pub(crate) const CONTENT: &str = "content";
pub(crate) const IDENTITY: &str = "identity";
pub(crate) const ERROR: &str = "error";
/// Variable with the source to fetch. It is not an argument, since everybody can read those and URLs can have
/// passwords.
pub(crate) const JOB: &str = "WALT_FETCH";
/// Path of this program in the container.
pub(crate) const PROGRAM: &str = "/walt-server";
/// Files of the server that are mounted in the container if they exist: programs, their libraries, and trusted
/// certificates.
pub(crate) const TOOLS: [&str; 13] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/ld.so.cache",
    "/etc/nsswitch.conf",
    "/etc/pki",
    "/etc/ssl",
];
/// User and group in the container: nobody.
pub(crate) const USER: u32 = 65_534;
/// Largest file, in bytes; also of those that git writes.
pub(crate) const MAX_FILE: u64 = 16 << 30;
/// Longest time for one source.
const LIMIT: Duration = Duration::from_secs(3600);
/// Mode of a file that was downloaded (Dockerfile reference, "ADD").
const MODE: u32 = 0o600;
/// Protocols that git may use, also for submodules.
const GIT_PROTOCOLS: &str = "http:https:git";

/// Result of fetching; an error is a sentence.
type Fetched<T> = Result<T, String>;

/// Runs the process. Returns its exit status: 0 if the source was fetched.
pub fn run() -> i32 {
    let place = Path::new("/").join(PLACE);
    let (name, text, status) = match fetch(&place) {
        Ok(identity) => (IDENTITY, identity, 0),
        Err(why) => (ERROR, why, 1),
    };
    match std::fs::write(place.join(name), text) {
        Ok(()) => status,
        Err(e) => {
            let _ = writeln!(std::io::stderr(), "cannot write to /{PLACE}: {e}");
            1
        }
    }
}

fn fetch(place: &Path) -> Fetched<String> {
    let job = std::env::var(JOB).map_err(|_| format!("{JOB} is not set"))?;
    let remote: Remote = serde_json::from_str(&job).map_err(|e| format!("{JOB}: {e}"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| format!("no event loop: {e}"))?;
    let content = place.join(CONTENT);
    runtime.block_on(async {
        let work = async {
            match &remote {
                Remote::File { url } => file(url, &content).await,
                Remote::Git { url, reference, keep_git_dir, .. } => {
                    git(url, reference.as_deref(), *keep_git_dir, &content).await
                }
            }
        };
        let late = || Err(format!("it took more than {} s", LIMIT.as_secs()));
        tokio::time::timeout(LIMIT, work).await.unwrap_or_else(|_| late())
    })
}

async fn file(url: &str, to: &Path) -> Fetched<String> {
    let local = |e: std::io::Error| format!("cannot store it: {e}");
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(to).map_err(local)?;
    let got = download(url, &mut file, MAX_FILE).await?;
    // Without a time from the server, the file gets the epoch (as with BuildKit).
    let time = got.modified.unwrap_or(UNIX_EPOCH);
    file.set_times(FileTimes::new().set_modified(time).set_accessed(time)).map_err(local)?;
    Ok(identity(&got.sha256))
}

/// Runs git and captures its output and errors.
async fn call(dir: &Path, arguments: &[&str]) -> Fetched<Output> {
    let mut command = tokio::process::Command::new("git");
    command
        .args(arguments)
        .current_dir(dir)
        .env_clear()
        .env("PATH", super::state::PATH)
        .env("HOME", "/")
        .env("LC_ALL", "C.UTF-8")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_ALLOW_PROTOCOL", GIT_PROTOCOLS)
        // A reflog needs a name.
        .envs(
            ["GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL", "GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL"]
                .map(|n| (n, "walt")),
        )
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = command.output().await;
    output.map_err(|e| format!("cannot run git on the server: {e} (install the package 'git')"))
}

/// Like [`call`], for a command that must succeed. Returns its output.
async fn must(dir: &Path, arguments: &[&str]) -> Fetched<String> {
    let output = call(dir, arguments).await?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let last = text.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("it failed without a message");
    Err(format!("git: {}", last.trim()))
}

async fn git(url: &str, reference: Option<&str>, keep: bool, to: &Path) -> Fetched<String> {
    std::fs::create_dir(to).map_err(|e| format!("cannot store it: {e}"))?;
    must(to, &["-c", "init.defaultBranch=main", "init", "--quiet"]).await?;
    must(to, &["remote", "add", "origin", url]).await?;
    let wanted = reference.unwrap_or("HEAD");
    let shallow = call(to, &["fetch", "--quiet", "--depth", "1", "--no-tags", "origin", wanted]).await?;
    let found = match shallow.status.success() {
        true => "FETCH_HEAD".to_owned(),
        // Some servers only offer complete histories, or commits only by their branch.
        false => whole(to, reference).await?,
    };
    must(to, &["-c", "advice.detachedHead=false", "checkout", "--quiet", "--detach", &found]).await?;
    let modules = ["submodule", "--quiet", "update", "--init", "--recursive"];
    if !call(to, &[&modules[..], &["--depth", "1"]].concat()).await?.status.success() {
        must(to, &modules).await?;
    }
    let commit = must(to, &["rev-parse", "--verify", "HEAD"]).await?;
    if !keep {
        without_git(to).map_err(|e| format!("cannot remove .git: {e}"))?;
    }
    Ok(commit)
}

/// Fetches all branches and tags, and resolves `reference` among them.
async fn whole(dir: &Path, reference: Option<&str>) -> Fetched<String> {
    must(dir, &["fetch", "--quiet", "--tags", "origin", "+refs/heads/*:refs/remotes/origin/*"]).await?;
    let Some(name) = reference else {
        must(dir, &["fetch", "--quiet", "origin", "HEAD"]).await?;
        return Ok("FETCH_HEAD".into());
    };
    for full in [format!("refs/remotes/origin/{name}"), format!("refs/tags/{name}"), name.to_owned()] {
        let full = format!("{full}^{{commit}}");
        let found = call(dir, &["rev-parse", "--verify", "--quiet", "--end-of-options", &full]).await?;
        if found.status.success() {
            return Ok(String::from_utf8_lossy(&found.stdout).trim().to_owned());
        }
    }
    Err(format!("the repository has no branch, tag or commit '{name}'"))
}

/// Removes `.git`, also of submodules. A tree cannot contain that name.
fn without_git(dir: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let (entry, path) = entry.map(|e| (e.file_type(), e.path()))?;
        let is_dir = entry?.is_dir();
        match (path.ends_with(".git"), is_dir) {
            (true, true) => std::fs::remove_dir_all(&path)?,
            (true, false) => std::fs::remove_file(&path)?,
            (false, true) => without_git(&path)?,
            (false, false) => {}
        }
    }
    Ok(())
}
