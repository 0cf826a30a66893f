//! What the server knows. One on this machine is asked; one that ssh reaches takes longer than a shell waits, so that its
//! answers come from a cache, which a process in the background renews.
//!
//! ```text
//! socket   ─▶ ask
//! ssh://…  ─▶ cache ─▶ answer, unless it is older than USED
//!               └ older than FRESH: walt advanced complete refresh …, in the background, without questions
//! ```

use serde::de::DeserializeOwned;
use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    os::unix::{fs::OpenOptionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};
use walt_api::route;
use walt_client::{Client, ENV_SERVER, ENV_USERNAME, Target, config};

/// Age from which on an answer in the cache is renewed.
const FRESH: Duration = Duration::from_secs(5);
/// Age up to which an answer in the cache is used.
const USED: Duration = Duration::from_secs(3600);
/// How long a process that renews the cache may take.
const REFRESH_MAX: Duration = Duration::from_secs(20);
/// What is put into the cache together, over one connection.
const COMMON: [&str; 5] = [route::INFO, route::NODES, route::DEVICES, route::IMAGES, route::SETTINGS];

/// The server, for questions.
pub struct Server {
    client: Client,
    /// The cache of its answers; none for one on this machine.
    cache: Option<Cache>,
    stale: Vec<String>,
}

impl Server {
    /// The server of these variables, else of the environment, else of the configuration.
    pub fn new(server: Option<&str>, user: Option<&str>) -> Option<Self> {
        let target = match server {
            Some(text) => Target::parse(text).ok()?,
            None => Target::chosen(&config::look()).ok()??,
        };
        let client = match user {
            Some(user) => Client::new(target.clone(), Some(user)),
            None => Client::of(target.clone()),
        };
        let cache = match target {
            Target::Unix(_) => None,
            Target::Ssh { .. } => Some(Cache::of(&target, user)?),
        };
        Some(Self { client: client.ok()?.silent(), cache, stale: Vec::new() })
    }

    /// The answer to a question.
    pub async fn ask<T: DeserializeOwned>(&mut self, path: &str) -> Option<T> {
        let Some(cache) = &self.cache else {
            return serde_json::from_slice(&self.client.document(path).await.ok()?).ok();
        };
        let (age, body) = cache.get(path).unzip();
        if age.is_none_or(|age| age > FRESH) {
            self.stale.push(path.to_owned());
        }
        serde_json::from_slice(&body?).ok()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(cache) = &self.cache
            && !self.stale.is_empty()
        {
            cache.renew(self.client.target(), &self.stale);
        }
    }
}

/// Answers of one server to one user, a file each: the question on the first line, then the answer.
#[derive(Debug)]
struct Cache {
    dir: PathBuf,
    /// Who is asked by whom.
    key: String,
    user: Option<String>,
}

impl Cache {
    fn of(target: &Target, user: Option<&str>) -> Option<Self> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let base = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))?;
        let user = user.map(str::to_owned).or_else(|| std::env::var(ENV_USERNAME).ok());
        let key = format!("{target} {}", user.as_deref().unwrap_or_default());
        Some(Self { dir: base.join("walt/complete"), key, user })
    }

    fn file(&self, path: &str) -> PathBuf {
        let mut hasher = DefaultHasher::new();
        (&self.key, path).hash(&mut hasher);
        self.dir.join(format!("{:016x}", hasher.finish()))
    }

    /// The age of an answer, and its text.
    fn get(&self, path: &str) -> Option<(Duration, Vec<u8>)> {
        let file = self.file(path);
        let age = age(&file)?;
        let text = fs::read(file).ok()?;
        let body = text.strip_prefix(format!("{} {path}\n", self.key).as_bytes())?;
        (age < USED).then(|| (age, body.to_vec()))
    }

    fn put(&self, path: &str, body: &[u8]) -> std::io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let file = self.file(path);
        let new = file.with_extension(std::process::id().to_string());
        let text = [format!("{} {path}\n", self.key).as_bytes(), body].concat();
        // Names of nodes and files are nobody else's business.
        let mut options = fs::File::options();
        let mut out = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        std::io::Write::write_all(&mut out, &text)?;
        fs::rename(new, file)
    }

    /// Starts a process that renews answers. The process of this completion does not wait for it.
    fn renew(&self, target: &Target, paths: &[String]) {
        // One at a time is enough: a key is pressed faster than ssh connects.
        let lock = self.file("lock");
        let is_running = age(&lock).is_some_and(|age| age < Duration::from_secs(2));
        if is_running || fs::create_dir_all(&self.dir).is_err() || fs::write(&lock, "").is_err() {
            return;
        }
        let Ok(program) = std::env::current_exe() else { return };
        let mut command = Command::new(program);
        command.args(super::COMMAND).arg("refresh").args(paths).env(ENV_SERVER, target.to_string());
        if let Some(user) = &self.user {
            command.env(ENV_USERNAME, user);
        }
        // ctrl-C is not for it.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let _next_time = command.spawn();
    }

    /// Removes answers that are not used any more.
    fn sweep(&self) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            if age(&entry.path()).is_some_and(|age| age > USED) {
                let _gone = fs::remove_file(entry.path());
            }
        }
    }
}

fn age(file: &Path) -> Option<Duration> {
    let modified = fs::metadata(file).ok()?.modified().ok()?;
    // A clock that was set back makes it new.
    Some(SystemTime::now().duration_since(modified).unwrap_or_default())
}

/// Puts the answers to these questions, and those that are asked most, into the cache.
pub async fn refresh(paths: &[String]) {
    let work = async {
        let mut server = Server::new(None, None)?;
        let cache = server.cache.take()?;
        let common = COMMON.iter().map(|path| (*path).to_owned()).filter(|path| !paths.contains(path));
        for path in paths.iter().cloned().chain(common) {
            match server.client.document(&path).await {
                Ok(body) => cache.put(&path, &body).ok()?,
                // That question was refused: the others may be answered.
                Err(walt_client::Error::Api(_)) => {}
                Err(_) => break,
            }
        }
        cache.sweep();
        Some(())
    };
    let _as_far_as_it_went = tokio::time::timeout(REFRESH_MAX, work).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_kept_by_server_user_and_question() {
        let dir = tempfile::tempdir().unwrap();
        let cache = |key: &str| Cache { dir: dir.path().join("c"), key: key.into(), user: None };
        let ann = cache("ssh://lab ann");
        assert!(ann.get("/x").is_none());
        ann.put("/x", b"[1]").unwrap();
        assert_eq!(ann.get("/x").map(|(_, body)| body), Some(b"[1]".to_vec()));
        assert!(ann.get("/y").is_none() && cache("ssh://lab bob").get("/x").is_none());
        let old = SystemTime::now() - USED - FRESH;
        fs::File::options().write(true).open(ann.file("/x")).unwrap().set_modified(old).unwrap();
        assert!(ann.get("/x").is_none());
        ann.sweep();
        assert!(!ann.file("/x").exists());
    }
}
