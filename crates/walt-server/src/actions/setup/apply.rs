//! Carries out a [`Plan`]: groups and accounts, the file, the service, the images. What was done stays done if a later
//! step fails: running the command again goes on there.

use crate::{
    actions::{
        admin,
        setup::{
            gather::server_status,
            plan::{FileChange, Plan},
            service,
        },
    },
    base::{config::Config, files::make_dir, programs::find_program},
    services::nodes::vnode,
};
use anyhow::{Context, Result, bail};
use std::{
    ffi::OsString,
    fs,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// How long the server may take to answer after its start.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// How often it is asked.
const POLL: Duration = Duration::from_millis(200);
/// The shell of accounts that nobody logs in to.
const NO_SHELL: &str = "/usr/sbin/nologin";

/// Carries the plan out; `say` is called before each step.
///
/// # Errors
/// A step failed; the error says which.
pub fn run(plan: &Plan, config: &Config, say: &dyn Fn(&str)) -> Result<()> {
    if let Some(group) = &plan.group {
        say(&format!("Making the group {group}"));
        run_program("groupadd", &["--system", group])?;
    }
    if plan.account {
        say(&format!("Making the account {}", vnode::ACCOUNT));
        let words = [
            "--system",
            "--user-group",
            "--no-create-home",
            "--home-dir",
            "/nonexistent",
            "--shell",
            NO_SHELL,
        ];
        run_program("useradd", &[&words[..], &[vnode::ACCOUNT]].concat())?;
    }
    if let Some(file) = &plan.file {
        say(&format!("Writing {}", file.path.display()));
        write(file)?;
    }
    for word in &plan.service {
        say(&format!("systemctl {word} {}", service::UNIT));
        service::act(word)?;
    }
    if !plan.service.is_empty() {
        wait_for_server(config)?;
    }
    if !plan.images.is_empty() {
        // Recipes keep their downloads below it, before a server has made it.
        make_dir(&config.state_dir, 0o700)?;
    }
    for image in &plan.images {
        let name = &image.recipe;
        if image.build {
            say(&format!("Building {name}"));
            admin::build_default_image(config.clone(), name).with_context(|| {
                format!(
                    "the image {name} was not built; 'walt-server default-image build {name}' tries again"
                )
            })?;
        }
        if image.make_default {
            admin::use_default_image(config.clone(), name)?;
        }
    }
    Ok(())
}

fn run_program(name: &str, words: &[&str]) -> Result<()> {
    // sudo and su leave these directories out on some machines.
    let path = find_program(name).unwrap_or_else(|| Path::new("/usr/sbin").join(name));
    let output = Command::new(path).args(words).output();
    let output = output.with_context(|| format!("cannot run {name} (Debian package passwd)"))?;
    if !output.status.success() {
        bail!("'{name} {}' failed: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// The path of what was there before.
fn old_path(path: &Path) -> PathBuf {
    let mut old = OsString::from(path);
    old.push(".old");
    old.into()
}

fn write(change: &FileChange) -> Result<()> {
    let path = &change.path;
    let writing = || format!("cannot write {}", path.display());
    if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(dir).with_context(writing)?;
    }
    // A link stays a link.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.clone());
    let mode = fs::metadata(&target).map_or(0o644, |m| m.permissions().mode() & 0o7777);
    if change.old.is_some() {
        fs::copy(&target, old_path(path))
            .with_context(|| format!("cannot keep a copy of {}", path.display()))?;
    }
    walt_sys::file::replace(&target, change.new.as_bytes()).with_context(writing)?;
    fs::set_permissions(&target, fs::Permissions::from_mode(mode)).with_context(writing)?;
    Config::load(Some(path)).map(drop)
}

/// Waits until the server answers.
fn wait_for_server(config: &Config) -> Result<()> {
    let start = Instant::now();
    while server_status(config).is_none() {
        if start.elapsed() > ANSWER_LIMIT {
            let (seconds, socket) = (ANSWER_LIMIT.as_secs(), config.socket());
            bail!("the server did not answer at {} within {seconds} s{}", socket.display(), service::log());
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_before_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/server.conf");
        let mut change =
            FileChange { path: path.clone(), old: None, new: "state-dir: /a\n".into(), kept: true };
        write(&change).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o644);
        assert!(!old_path(&path).exists());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        change = FileChange { old: Some(change.new), new: "state-dir: /b\n".into(), ..change };
        write(&change).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
        assert_eq!(fs::read_to_string(old_path(&path)).unwrap(), "state-dir: /a\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "state-dir: /b\n");
    }
}
