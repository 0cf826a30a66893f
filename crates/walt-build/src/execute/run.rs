//! `RUN`: a container in a process of its own, and the layer of its changes.

use super::{Executor, Host, Key, at, blocking, is_cancelled, shown};
use crate::{
    Error, Result,
    accounts::Accounts,
    dockerfile::Step,
    mounts::{Mount, MountKind, Sharing},
    state::Run,
    step::{self, MountSource, Outcome, Secrets, StepMount, StepSpec},
};
use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
};
use walt_images::{EMPTIED, ImageConfig, LeftOut, Prepared, SaveRules, View};
use walt_sys::userns;
use walt_types::DiffId;

/// Bytes of a command's output that are passed on at a time.
const CHUNK: usize = 16 << 10;
/// The error of a step whose process left no result.
const NO_ANSWER: &str = "the process of this step ended without a result: see the server's log";

impl<H: Host> Executor<'_, H> {
    pub(super) fn new_dir(&mut self, what: &str) -> Result<PathBuf> {
        self.number += 1;
        let dir = self.order.dir.join(format!("{what}-{}", self.number));
        std::fs::create_dir(&dir).map_err(|e| Error::io("make", &dir, e))?;
        Ok(dir)
    }

    fn lowers(&self, layers: &[DiffId]) -> Vec<PathBuf> {
        layers.iter().rev().map(|layer| self.store.layer_fs(layer)).collect()
    }

    /// Prepares a mount of a command, and adds it to the key of the step.
    async fn mount(
        &mut self,
        stage: usize,
        line: usize,
        mount: &Mount,
        secrets: &mut Secrets,
        key: &mut Key,
        trees: &mut Vec<Arc<View>>,
    ) -> Result<Option<StepMount>> {
        key.part(format!("{mount:?}").as_bytes());
        let what = match &mount.kind {
            MountKind::Bind { from, source } => {
                let view = self.source(line, stage, from.as_deref()).await?;
                view.layers().iter().for_each(|layer| key.part(layer.to_string().as_bytes()));
                let lowers = self.lowers(view.layers());
                trees.push(view);
                MountSource::Tree { lowers, source: source.clone() }
            }
            MountKind::Cache { id, from, source, sharing, mode, uid, gid } => {
                let dir = self.host.cache_dir(id).map_err(at(line))?;
                if from.is_some() || source != "/" {
                    let why = "a cache that starts with files of a stage is not supported: copy them in the command";
                    return Err(Error::Dockerfile { line, why: why.into() });
                }
                let prepare = || -> std::io::Result<()> {
                    use std::os::unix::fs::PermissionsExt;
                    if std::fs::read_dir(&dir)?.next().is_none() {
                        std::os::unix::fs::chown(&dir, Some(*uid), Some(*gid))?;
                        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(*mode))?;
                    }
                    Ok(())
                };
                prepare().map_err(|e| Error::io("prepare", &dir, e))?;
                // A private cache is locked, too: only one build at a time uses it.
                MountSource::Cache { dir, locked: *sharing != Sharing::Shared }
            }
            MountKind::Tmpfs { size } => MountSource::Tmpfs(*size),
            MountKind::Ssh => {
                self.host
                    .line(
                        "Note: the mount of type ssh is left out: the server does not have your keys.".into(),
                    )
                    .await;
                return Ok(None);
            }
            MountKind::Secret { id, env, file, required, mode, uid, gid } => {
                let Some(bytes) = self.order.secrets.get(id) else {
                    if *required {
                        let why =
                            format!("the secret '{id}' is required: pass it with --secret id={id},src=FILE");
                        return Err(Error::Dockerfile { line, why });
                    }
                    return Ok(None);
                };
                if let Some(name) = env {
                    let text = std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0'));
                    let Some(text) = text else {
                        let why = format!(
                            "the secret '{id}' is not text, as a variable must be: mount it as a file"
                        );
                        return Err(Error::Dockerfile { line, why });
                    };
                    secrets.env.push(format!("{name}={text}"));
                }
                if !file {
                    return Ok(None);
                }
                secrets.files.insert(id.clone(), bytes.clone());
                MountSource::Secret { id: id.clone(), mode: *mode, uid: *uid, gid: *gid }
            }
        };
        Ok(Some(StepMount { target: mount.target.clone(), read_only: mount.read_only, what }))
    }

    pub(super) async fn run(
        &mut self,
        stage: usize,
        step: &Step,
        image: &ImageConfig,
        run: &Run,
    ) -> Result<Option<DiffId>> {
        let layers = &image.layers()?;
        let facts = (&run.argv, &run.script, &run.env, &run.workdir, &run.user, run.network);
        let mut key = Key::of(layers, &format!("{facts:?}"));
        let mut secrets = Secrets::default();
        let (mut mounts, mut trees) = (Vec::new(), Vec::new());
        for mount in &run.mounts {
            mounts.extend(self.mount(stage, step.line, mount, &mut secrets, &mut key, &mut trees).await?);
        }
        let key = key.text();
        if let Some(found) = self.known(&key).await? {
            return Ok(found);
        }
        let view = self.view(layers).await?;
        let account = Accounts::of(&view).find(&run.user).map_err(at(step.line))?;
        let dir = self.new_dir("step")?;
        blocking(&self.cancelled, || self.store.prepare_upper(&dir.join("layer"), &view))?;
        trees.push(view.clone());
        let container = self.host.container(self.number, run.network, image, &trees);
        let mut spec = container.await.map_err(at(step.line))?;
        if [account.uid, account.gid].iter().chain(&account.groups).any(|id| *id >= userns::END) {
            // The user namespace does not map that number.
            spec.users = None;
        }
        spec.lowers = self.lowers(layers);
        spec.argv = run.argv.clone();
        spec.script = run.script.clone();
        spec.env = run.env.iter().chain(&run.proxies).cloned().collect();
        spec.workdir = run.workdir.clone();
        spec.user = (account.uid, account.gid, account.groups);
        spec.mounts = mounts;
        match self.in_container(&dir, &spec, &secrets).await? {
            Outcome::Status(0) => {}
            Outcome::Status(status) => {
                return Err(Error::Command { line: step.line, text: shown(&step.text), status });
            }
            Outcome::Error(why) => return Err(at(step.line)(why)),
            Outcome::Cancelled => return Err(Error::Cancelled),
        }
        let layer = self.kept(&dir, &view).await?;
        self.host.remember(&key, layer.as_ref());
        Ok(layer)
    }

    /// Makes a layer of the changes that a container made on top of `view`, if there are any.
    pub(super) async fn kept(&mut self, dir: &Path, view: &Arc<View>) -> Result<Option<DiffId>> {
        let layer_dir = dir.join("layer");
        let prepared =
            blocking(&self.cancelled, || self.store.prepare_commit(&layer_dir, view, &SaveRules::exact()))?;
        let layer = match prepared {
            Prepared::Unchanged { .. } => None,
            Prepared::Layer { info, left_out } => {
                for LeftOut { path, reason } in left_out.iter().filter(|l| l.reason == EMPTIED) {
                    let path = String::from_utf8_lossy(path);
                    self.host.line(format!("Note: /{path} is {reason}.")).await;
                }
                let writing = self.host.writing().await;
                // A cancelled layer must not be stored.
                if *self.cancelled.borrow() {
                    return Err(Error::Cancelled);
                }
                blocking(&self.cancelled, || self.store.adopt_layer(&layer_dir, &info.diff_id))?;
                self.host.pin(info.diff_id, &writing);
                drop(writing);
                Some(info.diff_id)
            }
        };
        // The rest (mounted trees, empty directories) is removed now, or else at the end of the build.
        let _ = blocking(&self.cancelled, || std::fs::remove_dir_all(dir));
        Ok(layer)
    }

    /// Starts the process of the step, which runs the container.
    pub(super) async fn in_container(
        &mut self,
        dir: &Path,
        spec: &StepSpec,
        secrets: &Secrets,
    ) -> Result<Outcome> {
        let path = dir.join(step::SPEC);
        let bytes = serde_json::to_vec(spec).map_err(|e| Error::io("encode", &path, e.into()))?;
        std::fs::write(&path, bytes).map_err(|e| Error::io("write", &path, e))?;
        let failed = |e| Error::io("start", self.order.program, e);
        let (reader, writer) = std::io::pipe().map_err(failed)?;
        let mut command = Command::new(self.order.program);
        command
            .arg("build-step")
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(writer.try_clone().map_err(failed)?)
            .stderr(writer);
        let mut child = command.spawn().map_err(failed)?;
        // It has the writing end of the pipe.
        drop(command);
        let mut stdin = child.stdin.take();
        let mut line = serde_json::to_vec(secrets).map_err(|e| Error::io("encode", &path, e.into()))?;
        line.push(b'\n');
        if let Some(stdin) = &mut stdin {
            // A process that ended before it read the secrets reports why in its result.
            let _ = stdin.write_all(&line).await;
        }
        let mut output = tokio::net::unix::pipe::Receiver::from_owned_fd(reader.into()).map_err(failed)?;
        let mut buffer = vec![0; CHUNK];
        let mut cancelled = self.cancelled.clone();
        loop {
            tokio::select! {
                read = output.read(&mut buffer) => match read {
                    Ok(n) if n > 0 => self.host.output(&buffer[..n]).await,
                    _ => break,
                },
                () = is_cancelled(&mut cancelled), if stdin.is_some() => stdin = None,
            }
        }
        child.wait().await.map_err(failed)?;
        drop(stdin);
        let path = dir.join(step::RESULT);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| Error::io("parse", &path, e.into())),
            Err(_) => Ok(Outcome::Error(NO_ANSWER.into())),
        }
    }
}
