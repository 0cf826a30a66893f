//! Remote sources of `ADD`: each one is fetched in a container of its own, see [`crate::fetch`].

use super::{Executor, Host, at, blocking};
use crate::{
    Error, Result,
    copy::Fetched,
    fetch::{CONTENT, ERROR, IDENTITY, JOB, MAX_FILE, PLACE, PROGRAM, TOOLS, USER},
    remote::Remote,
    step::{MountSource, Outcome, Secrets, StepMount},
};
use rustix::fs::{Mode as FileMode, OFlags};
use std::{
    io::Read,
    path::{Path, PathBuf},
};
use walt_images::{ImageConfig, View};

/// Longest identity, and longest sentence about a failure, in bytes.
const MAX_TEXT: u64 = 4096;

/// A fetched source.
#[derive(Debug, Clone)]
pub(super) struct Identified {
    /// Its identity: the digest of a file, the commit of a tree.
    pub identity: String,
    pub content: Fetched,
}

impl<H: Host> Executor<'_, H> {
    /// Fetches a source, unless this build has done so already.
    pub(super) async fn fetched(&mut self, line: usize, remote: &Remote) -> Result<Identified> {
        if let Some(found) = self.fetched.get(remote) {
            return Ok(found.clone());
        }
        let found = self.fetch(line, remote).await?;
        self.fetched.insert(remote.clone(), found.clone());
        Ok(found)
    }

    async fn fetch(&mut self, line: usize, remote: &Remote) -> Result<Identified> {
        let failed = |why: String| at(line)(format!("{}: {why}", remote.url()));
        let nothing = self.view(&[]).await?;
        let dir = self.new_dir("fetch")?;
        let place =
            blocking(&self.cancelled, || self.store.prepare_upper(&dir.join("layer"), &nothing))?.join(PLACE);
        std::fs::create_dir(&place).map_err(|e| Error::io("make", &place, e))?;
        std::os::unix::fs::chown(&place, Some(USER), Some(USER)).map_err(|e| Error::io("give", &place, e))?;
        // It runs programs of this machine.
        let ours = ImageConfig { architecture: self.order.architecture.to_owned(), ..ImageConfig::default() };
        let mut spec = self.host.container(self.number, true, &ours, &[]).await.map_err(at(line))?;
        spec.argv = vec![PROGRAM.into(), "build-fetch".into()];
        spec.env = vec![format!("{JOB}={}", job(remote)?)];
        spec.user = (USER, USER, Vec::new());
        spec.no_new_privileges = true;
        spec.file_max = Some(MAX_FILE);
        let shown = |path: &Path, target: &str| StepMount {
            target: target.to_owned(),
            read_only: true,
            what: MountSource::Ours(path.to_owned()),
        };
        spec.mounts = TOOLS
            .map(Path::new)
            .iter()
            .filter(|p| p.exists())
            .map(|p| shown(p, &p.to_string_lossy()))
            .collect();
        spec.mounts.push(shown(self.order.program, PROGRAM));
        match self.in_container(&dir, &spec, &Secrets::default()).await? {
            Outcome::Status(0) => {}
            Outcome::Status(_) => {
                let why = open(&place.join(ERROR)).and_then(text);
                return Err(failed(why.unwrap_or_else(|| "it was not fetched".into())));
            }
            Outcome::Error(why) => return Err(failed(why)),
            Outcome::Cancelled => return Err(Error::Cancelled),
        }
        let layer = self.kept(&dir, &nothing).await?;
        let view = self.view(layer.as_slice()).await?;
        let identity = identity(&view).ok_or_else(|| failed("it was not fetched".into()))?;
        let path = match remote {
            Remote::File { .. } => format!("{PLACE}/{CONTENT}").into_bytes(),
            Remote::Git { subdir, .. } => format!("{PLACE}/{CONTENT}/{subdir}").into_bytes(),
        };
        Ok(Identified { identity, content: Fetched { view, path } })
    }
}

fn job(remote: &Remote) -> Result<String> {
    serde_json::to_string(remote).map_err(|e| Error::io("encode", &PathBuf::from(remote.url()), e.into()))
}

/// Opens a regular file without following a link and without blocking on a fifo.
fn open(path: &Path) -> Option<std::fs::File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Some(rustix::fs::open(path, flags, FileMode::empty()).ok()?.into())
}

fn text(file: std::fs::File) -> Option<String> {
    let mut text = String::new();
    file.take(MAX_TEXT).read_to_string(&mut text).ok()?;
    Some(text).filter(|t| !t.is_empty())
}

fn identity(view: &View) -> Option<String> {
    let number = view.resolve(format!("{PLACE}/{IDENTITY}").as_bytes())?;
    text(view.open(number).ok()?)
}
