//! Runs the recipes of default images.
//!
//! ```text
//! walt-server default-image build|make   as root, on a terminal, which shows the output
//! the server                             in process and mount namespaces that end with their command and with the
//!                                        server; the output is logged
//! ```
//! A run writes `rootfs.tar`, `config.json` and the digest of the recipe to a directory, which is removed with it.
//!
//! Limits: a server runs one recipe at a time, for at most [`LIMIT`].

use crate::{
    base::{config::Config, db::blocking, events::Events},
    services::images::{
        Images,
        default_image::{RECIPES, recipe_config, recipe_digest},
        error::Error,
        foreign_cpu::ensure_runnable,
    },
};
use anyhow::{Context, Result, bail};
use include_dir::Dir;
use std::{
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};
use tokio::sync::{mpsc, oneshot};
use walt_container::emulation::{self, Emulation};
use walt_images::ImageConfig;
use walt_sys::process::KillOnDrop;

/// Prefix of the names of emulators for recipes; the rest is the process id.
const OWNER: &str = "walt-recipe-";
/// The results of a recipe.
const RESULTS: [&str; 2] = ["rootfs.tar", "config.json"];
/// File with the digest of the recipe, next to the results.
pub const DIGEST: &str = "recipe";
/// Where recipes work: not below the state directory, which is 0700, since package scripts of a recipe run as other
/// users.
const WORK: &str = "/var/tmp";
/// Limit of a recipe's run in the server; Debian for an emulated CPU takes half an hour.
const LIMIT: Duration = Duration::from_secs(3 * 3600);
/// Lines of a recipe that may wait to be shown.
const QUEUE: usize = 64;
/// Longest line of a recipe that is shown and logged, in bytes.
const MAX_LINE: usize = 200;

/// Emulates the recipe's CPU until dropped.
struct Emulator {
    owner: String,
    _kept: Emulation,
}

impl Emulator {
    /// None if this machine runs the programs itself.
    fn of(name: &str, architecture: &str) -> Result<Option<Self>> {
        let Some(cpu) = emulation::foreign(architecture)? else { return Ok(None) };
        // Removes what a killed recipe left, such as one that ended by ctrl-C.
        emulation::remove_of_ended(OWNER)?;
        let owner = format!("{OWNER}{}", std::process::id());
        let kept = emulation::ensure(cpu, &owner)
            .with_context(|| format!("'{name}' is for another CPU than this machine's"))?;
        Ok(Some(Self { owner, _kept: kept }))
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        if let Err(e) = emulation::remove(&self.owner) {
            eprintln!("Note: {e}");
        }
    }
}

/// A directory with a recipe, and after the run with its results. Removed when dropped.
#[derive(Debug)]
pub struct RecipeRun(tempfile::TempDir);

impl RecipeRun {
    fn prepare(prefix: &str, cache: &Path) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix(prefix).tempdir_in(WORK);
        let run = Self(dir.context("cannot make a work directory in /var/tmp")?);
        std::fs::set_permissions(run.0.path(), std::fs::Permissions::from_mode(0o755))?;
        unpack(&RECIPES, &run.recipes())?;
        for dir in [run.results(), run.0.path().join("work")] {
            std::fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        std::fs::create_dir_all(cache).with_context(|| format!("cannot make {}", cache.display()))?;
        Ok(run)
    }

    fn recipes(&self) -> PathBuf {
        self.0.path().join("recipes")
    }

    /// Where `rootfs.tar` and `config.json` are.
    pub fn results(&self) -> PathBuf {
        self.0.path().join("out")
    }

    /// The command that runs a recipe; `words` start its shell.
    fn command(&self, words: &[&str], name: &str, cache: &Path) -> Command {
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .arg(self.recipes().join(name).join("recipe.sh"))
            .arg(self.results())
            .env("WALT_IMAGES_DIR", self.recipes())
            .env("WALT_CACHE", cache)
            .env("TMPDIR", self.0.path().join("work"));
        command
    }

    /// Checks that all results exist, and adds the digest.
    fn check(&self, name: &str) -> Result<()> {
        if let Some(file) = RESULTS.iter().find(|file| !self.results().join(file).exists()) {
            bail!("the recipe of '{name}' did not write {file}");
        }
        std::fs::write(self.results().join(DIGEST), recipe_digest(name))
            .context("cannot write the digest of the recipe")
    }
}

/// Default directory for downloads of recipes.
pub fn cache_of(config: &Config) -> PathBuf {
    config.state_dir.join("cache/recipes")
}

/// Runs the recipe of an image.
///
/// # Errors
/// No such recipe, no emulator for its CPU, or the recipe failed; its messages are on standard error.
pub fn run(config: &Config, name: &str) -> Result<RecipeRun> {
    run_with(&cache_of(config), name)
}

/// As [`run`], with another directory for downloads.
fn run_with(cache: &Path, name: &str) -> Result<RecipeRun> {
    let _emulator = Emulator::of(name, &recipe_config(name)?.architecture)?;
    let run = RecipeRun::prepare("walt-recipe-", cache)?;
    let mut command = run.command(&["sh"], name, cache);
    let status = command.stdout(std::io::stderr()).status().context("cannot run sh")?;
    if !status.success() {
        bail!("the recipe of '{name}' failed ({status}); its messages are above");
    }
    run.check(name)?;
    Ok(run)
}

/// Runs a recipe and copies its results to a directory; `cache` keeps downloads.
///
/// # Errors
/// As [`run`], or the results cannot be copied.
pub fn make(name: &str, to: &Path, cache: &Path) -> Result<()> {
    let run = run_with(cache, name)?;
    for file in RESULTS.iter().chain([&DIGEST]) {
        let (from, to) = (run.results().join(file), to.join(file));
        std::fs::copy(&from, &to)
            .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    }
    Ok(())
}

/// Prefix of the directories of a server's recipes.
fn prefix_of(config: &Config) -> String {
    format!("walt-recipe-of-{}-", config.run_dir_hash())
}

/// Removes the directories of recipes of a killed server.
pub fn sweep(config: &Config) {
    let prefix = prefix_of(config);
    for entry in std::fs::read_dir(WORK).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix)
            && let Err(e) = std::fs::remove_dir_all(entry.path())
        {
            tracing::warn!("cannot remove {}: {e}", entry.path().display());
        }
    }
}

/// Starts a shell in its own process and mount namespaces: all its processes end with it, and it ends with the thread
/// that started it (setpriv(1), unshare(1)).
const ISOLATED_SHELL: [&str; 9] =
    ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount-proc", "--pid", "--fork", "--kill-child", "sh"];

/// Runs a recipe to its end in this thread; the last line if it failed. Dropping what is sent to `started` kills the
/// recipe; if nobody receives it, the recipe is killed at once.
fn watch(
    mut command: Command,
    started: oneshot::Sender<KillOnDrop>,
    output_lines: &mpsc::Sender<String>,
) -> Result<Result<(), String>> {
    let (output, input) = std::io::pipe().context("cannot make a pipe")?;
    command.stdin(Stdio::null()).stdout(input.try_clone().context("cannot make a pipe")?).stderr(input);
    let mut child = command.spawn().context("cannot run setpriv (Debian package util-linux)")?;
    // Closes this process' writing end of the pipe, so that reading ends.
    drop(command);
    let kill_on_drop = KillOnDrop::of(&child)
        .inspect_err(|_| drop(child.kill()))
        .context("cannot get a pidfd of the recipe")?;
    let _nobody = started.send(kill_on_drop);
    let mut last = String::new();
    lines(output, |line| {
        tracing::info!("recipe: {line}");
        // The client may be slow or gone.
        let _ = output_lines.try_send(line.clone());
        last = line;
    });
    let status = child.wait().context("cannot wait for the recipe")?;
    Ok(if status.success() { Ok(()) } else { Err(format!("{status}: {last}")) })
}

/// Calls `each` with every non-empty line, until the end or a failure to read.
fn lines(mut from: impl Read, mut each: impl FnMut(String)) {
    let (mut piece, mut line) = ([0; 4096], Vec::new());
    let mut flush = |line: &mut Vec<u8>| {
        let text: String =
            String::from_utf8_lossy(line).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        line.clear();
        if !text.trim().is_empty() {
            each(text.trim().to_owned());
        }
    };
    while let Ok(n @ 1..) = from.read(&mut piece) {
        for byte in &piece[..n] {
            match byte {
                // Programs that show progress return to the start of the line.
                b'\n' | b'\r' => flush(&mut line),
                byte if line.len() < MAX_LINE => line.push(*byte),
                _ => {}
            }
        }
    }
    flush(&mut line);
}

/// Runs a recipe in the server, and shows its lines to the user.
///
/// # Errors
/// As [`run`]; the message has the recipe's last line.
pub async fn run_isolated(
    images: &Images,
    name: &str,
    events: &Events,
) -> std::result::Result<RecipeRun, Error> {
    let architecture = recipe_config(name)?.architecture;
    if let Some(note) = ensure_runnable(images, &ImageConfig { architecture, ..ImageConfig::default() })? {
        events.note(note).await;
    }
    let cache = cache_of(images.config());
    let run = blocking(|| RecipeRun::prepare(&prefix_of(images.config()), &cache))?;
    let command = run.command(&ISOLATED_SHELL, name, &cache);
    let (output_lines, mut lines) = mpsc::channel(QUEUE);
    let (started, _kill_on_drop) = oneshot::channel();
    // The thread owns the directory until the processes are gone, even if this future is dropped.
    let mut work = tokio::task::spawn_blocking(move || (watch(command, started, &output_lines), run));
    let late = tokio::time::sleep(LIMIT);
    let mut late = std::pin::pin!(late);
    let (done, run) = loop {
        tokio::select! {
            ended = &mut work => break ended.map_err(anyhow::Error::new)?,
            Some(line) = lines.recv() => events.busy(format!("Building {name}: {line}")).await,
            () = &mut late => {
                return Err(Error::RecipeTooLong { limit: LIMIT });
            }
        }
    };
    done?.map_err(|why| Error::RecipeFailed { why })?;
    run.check(name)?;
    Ok(run)
}

fn unpack(dir: &Dir<'_>, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for file in dir.files() {
        let name = file.path().file_name().context("an embedded file without name")?;
        let path = to.join(name);
        std::fs::write(&path, file.contents()).with_context(|| format!("cannot write {}", path.display()))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    }
    for sub in dir.dirs() {
        let name = sub.path().file_name().context("an embedded directory without name")?;
        unpack(sub, &to.join(name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_recipe() {
        let mut told = Vec::new();
        let long = "x".repeat(2 * MAX_LINE);
        let text = format!("one\r\n\n 10%\r 20%\rtw\x1b[0mo\n{long}\nlast");
        lines(text.as_bytes(), |line| told.push(line));
        assert_eq!(told, ["one", "10%", "20%", "tw [0mo", &long[..MAX_LINE], "last"]);
    }
}
