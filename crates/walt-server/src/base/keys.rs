//! Keys of the platform: the server's own for ssh to nodes, and the host key that all nodes share.
//!
//! Nodes boot changing images, so all nodes share one host key, which spares users host-key warnings. The same ECDSA
//! key is provided in the formats of OpenSSH and dropbear.

use crate::base::files::make_dir;
use anyhow::{Context, Result, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use std::{
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Command,
};

/// A host key type that both OpenSSH and dropbear support.
const HOST_KEY_TYPE: &str = "ecdsa-sha2-nistp256";

/// Keys in `<state-dir>/keys`, created once.
pub struct Keys {
    /// Private key with which the server logs in to nodes.
    pub client_key: PathBuf,
    /// Its public half, one line.
    pub client_public: String,
    /// The nodes' host key, in OpenSSH's private format.
    pub host_private: Vec<u8>,
    /// Its public half, one line.
    pub host_public: String,
    /// The same key in dropbear's format.
    pub host_dropbear: Vec<u8>,
    /// `known_hosts` with the one line for `walt.node`.
    pub known_hosts: PathBuf,
}

impl Keys {
    /// Reads the keys, and creates missing ones with ssh-keygen(1).
    ///
    /// # Errors
    /// ssh-keygen is missing or fails, or a key file is damaged.
    pub fn open(state_dir: &Path) -> Result<Self> {
        let dir = state_dir.join("keys");
        make_dir(&dir, 0o700)?;
        let client_key = dir.join("id_ecdsa");
        let host_key = dir.join("ssh_host_ecdsa_key");
        generate(&client_key, "walt-server")?;
        generate(&host_key, "walt.node")?;
        let read = |path: PathBuf| {
            fs::read_to_string(&path).with_context(|| format!("cannot read the key {}", path.display()))
        };
        let host_private = read(host_key.clone())?;
        let host_public = read(host_key.with_extension("pub"))?;
        let host_dropbear = to_dropbear(&host_private).with_context(|| {
            format!("the key {} is damaged: remove it to get a new one", host_key.display())
        })?;
        let known_hosts = dir.join("known_hosts.nodes");
        let mut words = host_public.split_ascii_whitespace();
        let (kind, key) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        write_private(&known_hosts, format!("walt.node {kind} {key}\n").as_bytes())?;
        Ok(Self {
            client_public: read(client_key.with_extension("pub"))?,
            client_key,
            host_private: host_private.into_bytes(),
            host_public,
            host_dropbear,
            known_hosts,
        })
    }
}

fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = fs::OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(file.write_all(bytes)?)
}

fn generate(path: &Path, comment: &str) -> Result<()> {
    if path.exists() && path.with_extension("pub").exists() {
        return Ok(());
    }
    let _ = fs::remove_file(path);
    let out = Command::new("ssh-keygen")
        .args(["-q", "-t", "ecdsa", "-b", "256", "-N", "", "-C", comment, "-f"])
        .arg(path)
        .output()
        .context("cannot run ssh-keygen: install the Debian package openssh-client")?;
    if !out.status.success() {
        bail!(
            "ssh-keygen failed to create {}: {}",
            path.display(),
            String::from_utf8_lossy(&out.stderr).trim()
        );
    }
    Ok(())
}

/// Splits the next length-prefixed string off (RFC 4251 §5).
fn string<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8]> {
    let (length, rest) = bytes.split_at_checked(4).context("cut")?;
    let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize;
    let (value, rest) = rest.split_at_checked(length).context("cut")?;
    *bytes = rest;
    Ok(value)
}

/// Converts an unencrypted OpenSSH ECDSA key to dropbear's format: key type, curve and point as in the public key
/// (RFC 5656 §3.1), then the private number (dropbear's `buf_put_ecdsa_priv_key`; OpenSSH's PROTOCOL.key).
fn to_dropbear(openssh: &str) -> Result<Vec<u8>> {
    let text: String = openssh.lines().filter(|l| !l.starts_with('-')).collect();
    let blob = STANDARD.decode(text).context("not base64")?;
    let mut rest = blob.strip_prefix(b"openssh-key-v1\0").context("not an OpenSSH key")?;
    let (cipher, _kdf, _options) = (string(&mut rest)?, string(&mut rest)?, string(&mut rest)?);
    if cipher != b"none" {
        bail!("the key is encrypted");
    }
    let mut rest = rest.get(4..).context("cut")?; // skips the number of keys, always one
    let public = string(&mut rest)?;
    let mut private = string(&mut rest)?.get(8..).context("cut")?; // skips two check numbers
    let (kind, _curve, _point) = (string(&mut private)?, string(&mut private)?, string(&mut private)?);
    if kind != HOST_KEY_TYPE.as_bytes() {
        bail!("not a key of type {HOST_KEY_TYPE}");
    }
    let number = string(&mut private)?;
    let mut out = public.to_vec();
    out.extend((number.len() as u32).to_be_bytes());
    out.extend(number);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_made_once_and_converted() {
        let dir = tempfile::tempdir().unwrap();
        let first = Keys::open(dir.path()).unwrap();
        let second = Keys::open(dir.path()).unwrap();
        assert_eq!(first.host_private, second.host_private);
        assert!(first.host_dropbear.windows(HOST_KEY_TYPE.len()).any(|w| w == HOST_KEY_TYPE.as_bytes()));
        for cut in 0..first.host_private.len() {
            let text = String::from_utf8_lossy(&first.host_private[..cut]).into_owned();
            let _must_not_panic = to_dropbear(&text);
        }
    }
}
