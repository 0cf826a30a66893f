//! A session on disk: its specification, its state, and the names of its files.
//!
//! ```text
//! <state>/sessions/<id>/layer/fs     upper directory: the changes
//! <state>/sessions/<id>/work         work directory of the overlay
//! <state>/sessions/<id>/spec.json    HoldSpec: written by the server
//! <state>/sessions/<id>/state.json   State: written by the holder
//! <state>/sessions/<id>/hold.sock    the holder's socket
//! <state>/sessions/<id>/hold.log     the holder's standard error
//! ```
//! The rest (`l`, `root`, `run`, `config.json`, …) belongs to the holder and to the runtime.

use crate::{
    Error, Result,
    setup::{UPPER, WORK},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::path::{Path, PathBuf};
use walt_sys::net::container::ContainerNetwork;
use walt_sys::process::ProcessId;

/// Version of [`HoldSpec`] and [`State`] on the disk; a holder refuses another one.
pub const SPEC_VERSION: u32 = 1;

/// Whether the image's operating system is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// `/bin/walt-image-shell-start` is process 1, and the shell is started in the container.
    Os,
    /// The shell is process 1.
    Simple,
}

/// The terminal that the shell gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tty {
    /// Height of the window in character cells.
    pub rows: u16,
    /// Width of the window in character cells.
    pub cols: u16,
    /// Value of `TERM`.
    pub term: String,
}

/// The specification of a session, which the server gives to a holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldSpec {
    /// [`SPEC_VERSION`].
    pub version: u32,
    /// Name of the container, unique among those of `runtime_root`: letters, digits, `-`, `_`.
    pub container_id: String,
    /// `fs` directories of the layers, the top one (the platform layer) first; absolute paths.
    pub lowers: Vec<PathBuf>,
    /// Name or path of the OCI runtime: `runc`.
    pub runtime: PathBuf,
    /// Where the runtime keeps its state, on a tmpfs: `<run-dir>/runc`.
    pub runtime_root: PathBuf,
    /// Control group of the container, in all hierarchies: `/walt/<run hash>/shell-<id>`.
    pub cgroup: String,
    /// Whether the OS is started.
    pub mode: Mode,
    /// The shell's terminal; `None`: pipes, with separate output and error.
    pub tty: Option<Tty>,
    /// What to run instead of the interactive shell (`/bin/bash` if executable, else `/bin/sh`).
    pub command: Option<Vec<String>>,
    /// Without a terminal: the file, read completely from the client, that is the standard input.
    /// `None`: input comes from the attached client.
    pub stdin: Option<PathBuf>,
    /// Environment of the image's configuration, `NAME=value`.
    pub env: Vec<String>,
    /// The link to the server; `None`: only the loopback interface.
    pub network: Option<ContainerNetwork>,
    /// Most memory, in bytes; `None`: no limit.
    pub memory_max: Option<u64>,
    /// The container's user namespace. `None`, as in files of older servers: it has the server's users.
    #[serde(default)]
    pub users: Option<Users>,
    /// Programs of the image are emulated ([`crate::emulation`]; the server has set it up): the holder keeps the
    /// handlers and scales its time limits.
    #[serde(default)]
    pub emulated: bool,
}

/// The user namespace of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Users {
    /// Number of the container's root on the server; the others are as in [`walt_sys::userns::map`].
    pub first: u32,
    /// Where the tree is mounted, in the holder's mount namespace: an empty directory that `first` can reach, which
    /// the session's own is not. All holders may have the same one.
    pub root: PathBuf,
}

/// Phase of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// The container is being made, or its OS starts.
    Starting,
    /// The shell runs.
    Running,
    /// The shell has ended; with [`Mode::Os`] the OS goes on.
    Exited,
    /// The container is gone; the changes are whole.
    Stopped,
    /// The overlay is unmounted: the upper directory is the change. The holder has ended.
    Sealed,
    /// The changes are discarded; only the session's directory is left. The holder has ended.
    Discarded,
}

/// State of a session, in `state.json` and over the holder's socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// [`SPEC_VERSION`].
    pub version: u32,
    /// The holder's process.
    pub holder: ProcessId,
    /// Phase of the session.
    pub phase: Phase,
    /// How the shell ended: its status, or 128 and the number of the signal.
    pub shell_status: Option<i32>,
    /// Why the shell could not be started.
    pub error: Option<String>,
}

/// The names in a session's directory.
#[derive(Debug, Clone)]
pub struct SessionDir(pub PathBuf);

impl SessionDir {
    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }
    /// A file of the session.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
    /// Where the merged tree is mounted, in the holder's mount namespace, unless [`HoldSpec::users`] says otherwise.
    pub fn root(&self) -> PathBuf {
        self.file("root")
    }
    /// Makes the directories that the overlay and the holder need, unless they exist.
    pub fn prepare(&self) -> Result<()> {
        for name in [UPPER, WORK, "root", "run"] {
            let path = self.file(name);
            std::fs::create_dir_all(&path).map_err(|e| Error::io("make the directory", &path, e))?;
        }
        Ok(())
    }
    /// Whether a holder was ever started for this session.
    pub fn has_spec(&self) -> bool {
        self.file("spec.json").exists()
    }
    /// Reads `spec.json`.
    pub fn spec(&self) -> Result<HoldSpec> {
        let spec: HoldSpec = self.read("spec.json")?;
        if spec.version == SPEC_VERSION {
            Ok(spec)
        } else {
            Err(Error::Version { what: "spec.json", found: spec.version, known: SPEC_VERSION })
        }
    }
    /// Writes `spec.json`.
    pub fn write_spec(&self, spec: &HoldSpec) -> Result<()> {
        self.write("spec.json", spec)
    }
    /// Reads `state.json`; `None` if no holder was ever started.
    pub fn state(&self) -> Result<Option<State>> {
        match self.read("state.json") {
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
            state => state.map(Some),
        }
    }
    pub(crate) fn write_state(&self, state: &State) -> Result<()> {
        self.write("state.json", state)
    }
    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        let path = self.file(name);
        let bytes = std::fs::read(&path).map_err(|e| Error::io("read", &path, e))?;
        serde_json::from_slice(&bytes).map_err(|e| Error::io("parse", &path, e.into()))
    }
    /// Replaces a file as a whole: a reader sees the old or the new one.
    pub(crate) fn write(&self, name: &str, value: &impl Serialize) -> Result<()> {
        let path = self.file(name);
        let bytes = serde_json::to_vec(value).map_err(|e| Error::io("write", &path, e.into()))?;
        walt_sys::file::replace(&path, &bytes).map_err(|e| Error::io("write", &path, e))
    }
}
