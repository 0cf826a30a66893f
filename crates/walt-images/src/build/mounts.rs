//! `RUN --mount=…`: what is shown to one command beside the image.

use super::state::absolute;

/// Where caches, binds and the rest are asked for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Mount {
    /// An absolute path.
    pub target: String,
    pub kind: MountKind,
    pub read_only: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum MountKind {
    /// Files of a stage, an image, or the context. What is written to it is lost.
    Bind { from: Option<String>, source: String },
    /// A directory that later builds of the same user find again.
    Cache {
        id: String,
        from: Option<String>,
        source: String,
        sharing: Sharing,
        mode: u32,
        uid: u32,
        gid: u32,
    },
    /// Memory.
    Tmpfs { size: Option<u64> },
    /// A file that the user gave with the build, not part of any image.
    Secret { id: String, env: Option<String>, file: bool, required: bool, mode: u32, uid: u32, gid: u32 },
}

/// Who may use a cache at the same time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Sharing {
    Shared,
    Private,
    Locked,
}

/// Options of one mount, as they were given.
#[derive(Default)]
struct Options<'a>(Vec<(&'a str, Option<&'a str>)>);

impl<'a> Options<'a> {
    fn take(&mut self, names: &[&str]) -> Option<Option<&'a str>> {
        let at = self.0.iter().position(|(name, _)| names.contains(name))?;
        Some(self.0.remove(at).1)
    }
    fn text(&mut self, names: &[&str]) -> Result<Option<&'a str>, String> {
        match self.take(names) {
            None => Ok(None),
            Some(Some(value)) => Ok(Some(value)),
            Some(None) => Err(format!("'{}' of a mount needs a value", names[0])),
        }
    }
    fn switch(&mut self, names: &[&str]) -> Result<Option<bool>, String> {
        match self.take(names) {
            None => Ok(None),
            Some(None | Some("true" | "1")) => Ok(Some(true)),
            Some(Some("false" | "0")) => Ok(Some(false)),
            Some(Some(other)) => Err(format!("{}={other}: use true or false", names[0])),
        }
    }
    fn number(&mut self, name: &str, radix: u32, default: u32) -> Result<u32, String> {
        match self.text(&[name])? {
            None => Ok(default),
            Some(text) => u32::from_str_radix(text, radix).map_err(|_| format!("{name}={text} is no number")),
        }
    }
}

/// Reads the value of one `--mount`, its variables replaced.
pub(crate) fn parse(text: &str, workdir: &str) -> Result<Mount, String> {
    let mut options = Options::default();
    for field in text.split(',') {
        options.0.push(match field.split_once('=') {
            Some((name, value)) => (name.trim(), Some(value)),
            None => (field.trim(), None),
        });
    }
    let kind = options.text(&["type"])?.unwrap_or("bind").to_owned();
    let target = options.text(&["target", "dst", "destination"])?.map(|t| absolute(workdir, t));
    let needed = || target.clone().ok_or_else(|| format!("a mount of type {kind} needs a target"));
    let read_only = match (options.switch(&["readonly", "ro"])?, options.switch(&["readwrite", "rw"])?) {
        (Some(read_only), None) => Some(read_only),
        (None, Some(write)) => Some(!write),
        (None, None) => None,
        _ => return Err("a mount is either ro or rw".into()),
    };
    let owned = |text: Option<&str>| text.map(str::to_owned);
    let mount = match kind.as_str() {
        "bind" => Mount {
            target: needed()?,
            read_only: read_only.unwrap_or(true),
            kind: MountKind::Bind {
                from: owned(options.text(&["from"])?),
                source: options.text(&["source", "src"])?.unwrap_or("/").to_owned(),
            },
        },
        "cache" => {
            let target = needed()?;
            let id = options.text(&["id"])?.unwrap_or(&target).to_owned();
            let sharing = match options.text(&["sharing"])?.unwrap_or("shared") {
                "shared" => Sharing::Shared,
                "private" => Sharing::Private,
                "locked" => Sharing::Locked,
                other => return Err(format!("sharing={other}: use shared, private or locked")),
            };
            let kind = MountKind::Cache {
                id,
                sharing,
                from: owned(options.text(&["from"])?),
                source: options.text(&["source", "src"])?.unwrap_or("/").to_owned(),
                mode: options.number("mode", 8, 0o755)?,
                uid: options.number("uid", 10, 0)?,
                gid: options.number("gid", 10, 0)?,
            };
            Mount { target, kind, read_only: read_only.unwrap_or(false) }
        }
        "tmpfs" => {
            let size = match options.text(&["size"])? {
                None => None,
                Some(text) => Some(bytes(text).ok_or_else(|| format!("size={text} is no size"))?),
            };
            Mount { target: needed()?, kind: MountKind::Tmpfs { size }, read_only: false }
        }
        "secret" => {
            let id = options.text(&["id"])?.map(str::to_owned);
            let source = options.text(&["source", "src"])?.map(str::to_owned);
            let env = owned(options.text(&["env"])?);
            let id = id.or(source).or_else(|| {
                target
                    .as_deref()
                    .and_then(|t| t.rsplit('/').next())
                    .filter(|n| !n.is_empty())
                    .map(str::to_owned)
            });
            let id = id.ok_or("a mount of type secret needs an id")?;
            let file = target.is_some() || env.is_none();
            let target = target.clone().unwrap_or_else(|| format!("/run/secrets/{id}"));
            let kind = MountKind::Secret {
                env,
                file,
                required: options.switch(&["required"])?.unwrap_or(false),
                mode: options.number("mode", 8, 0o400)?,
                uid: options.number("uid", 10, 0)?,
                gid: options.number("gid", 10, 0)?,
                id,
            };
            Mount { target, kind, read_only: true }
        }
        "ssh" => {
            return Err("mounts of type ssh are not offered: use a secret, or copy with the context".into());
        }
        other => {
            return Err(format!("type={other} of a mount is not known: use bind, cache, tmpfs or secret"));
        }
    };
    if let Some((name, _)) = options.0.first() {
        return Err(format!("a mount of type {kind} has no option '{name}'"));
    }
    if mount.target == "/" {
        return Err("a mount cannot cover the root directory".into());
    }
    Ok(mount)
}

/// `64m` and the like, in bytes.
fn bytes(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &lower[digits.len()..] {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_types() {
        let bind = parse("target=a,source=b,from=c,rw", "/w").unwrap();
        assert_eq!((bind.target.as_str(), bind.read_only), ("/w/a", false));
        assert_eq!(bind.kind, MountKind::Bind { from: Some("c".into()), source: "b".into() });
        let cache = parse("type=cache,dst=/c,sharing=locked,uid=7,mode=0700", "/").unwrap();
        let expected = MountKind::Cache {
            id: "/c".into(),
            from: None,
            source: "/".into(),
            sharing: Sharing::Locked,
            mode: 0o700,
            uid: 7,
            gid: 0,
        };
        assert_eq!((cache.kind, cache.read_only), (expected, false));
        assert_eq!(
            parse("type=tmpfs,target=/t,size=2m", "/").unwrap().kind,
            MountKind::Tmpfs { size: Some(2 << 20) }
        );
        let secret = parse("type=secret,id=s", "/").unwrap();
        assert_eq!(secret.target, "/run/secrets/s");
        let secret = parse("type=secret,id=s,env=TOKEN,required", "/").unwrap();
        assert!(matches!(
            secret.kind,
            MountKind::Secret { env: Some(e), file: false, required: true, mode: 0o400, .. } if e == "TOKEN"
        ));
    }

    #[test]
    fn wrong_mounts() {
        for (text, part) in [
            ("type=cache", "target"),
            ("type=nothing,target=/a", "nothing"),
            ("target=/", "root"),
            ("target=/a,ro,rw", "either"),
            ("target=/a,size=3", "size"),
            ("type=cache,target=/a,sharing=x", "sharing"),
            ("type=secret", "id"),
            ("type=tmpfs,target=/a,size=x", "size"),
            ("target", "value"),
        ] {
            let error = parse(text, "/").unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
