//! `RUN --mount=…`: files that are mounted for one command.
//!
//! Source: Dockerfile reference, "RUN --mount"; where it is silent, what BuildKit does. Fields are those of a line of
//! CSV; variables are replaced in each field separately, so that a value cannot become two. Names and kinds are in
//! any case; of a field that is given twice, the last one counts; an empty value is as if it was not given; fields
//! that a type does not have are ignored, unless ignoring them would be harmful.

use super::state::absolute;

/// A mount of a command.
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
    /// The user's ssh agent, which is not available on the server: nothing is mounted.
    Ssh,
    /// A file that the user sent with the build; it is not part of an image.
    Secret { id: String, env: Option<String>, file: bool, required: bool, mode: u32, uid: u32, gid: u32 },
}

/// Who may use a cache at the same time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Sharing {
    Shared,
    Private,
    Locked,
}

/// Fields that a mount may have; other names for some of them.
const FIELDS: [&str; 14] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "readwrite",
    "required",
    "size",
    "id",
    "sharing",
    "mode",
    "uid",
    "gid",
    "env",
];
const OTHER_NAMES: [(&str, &str); 5] = [
    ("src", "source"),
    ("dst", "target"),
    ("destination", "target"),
    ("ro", "readonly"),
    ("rw", "readwrite"),
];
/// Fields that are switches: they need no value.
const SWITCHES: [&str; 3] = ["readonly", "readwrite", "required"];
/// Fields that are refused for other types than these, instead of being ignored.
const BOUND: [(&str, &[&str]); 6] = [
    ("required", &["secret", "ssh"]),
    ("size", &["tmpfs"]),
    ("sharing", &["cache"]),
    ("mode", &["cache", "secret", "ssh"]),
    ("uid", &["cache", "secret", "ssh"]),
    ("gid", &["cache", "secret", "ssh"]),
];

/// The fields of one mount, in their order, by their common names, with variables replaced.
struct Fields(Vec<(&'static str, Option<String>)>);

impl Fields {
    fn read(text: &str, expand: Expand<'_>) -> Result<Self, String> {
        let mut all = Vec::new();
        for field in csv(text) {
            let (name, value) = match field.split_once('=') {
                Some((name, value)) => (name, Some(expand(value)?)),
                None => (field.as_str(), None),
            };
            let lower = name.trim().to_ascii_lowercase();
            let common =
                OTHER_NAMES.iter().find(|(other, _)| *other == lower).map_or(&*lower, |(_, name)| name);
            let known = FIELDS.iter().find(|known| **known == common);
            let known = known.ok_or_else(|| format!("a mount has no option '{name}'"))?;
            if value.is_none() && !SWITCHES.contains(known) {
                return Err(format!("'{name}' of a mount needs a value"));
            }
            all.push((*known, value));
        }
        Ok(Self(all))
    }

    fn last(&self, name: &str) -> Option<&Option<String>> {
        self.0.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    fn text(&self, name: &str) -> Option<String> {
        self.last(name)?.clone().filter(|value| !value.is_empty())
    }

    fn switch(name: &str, value: Option<&str>) -> Result<bool, String> {
        match value {
            None | Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
            Some(other) => Err(format!("{name}={other}: use true or false")),
        }
    }

    /// Whether it is read-only, if specified: the last field counts.
    fn read_only(&self) -> Result<Option<bool>, String> {
        let mut found = None;
        for (name, value) in &self.0 {
            match *name {
                "readonly" => found = Some(Self::switch(name, value.as_deref())?),
                "readwrite" => found = Some(!Self::switch(name, value.as_deref())?),
                _ => {}
            }
        }
        Ok(found)
    }

    fn required(&self) -> Result<bool, String> {
        self.last("required").map_or(Ok(false), |value| Self::switch("required", value.as_deref()))
    }

    fn number(&self, name: &str, radix: u32, default: u32) -> Result<u32, String> {
        match self.text(name) {
            None => Ok(default),
            Some(text) => {
                u32::from_str_radix(&text, radix).map_err(|_| format!("{name}={text} is not a number"))
            }
        }
    }
}

/// The fields of a line: between commas that are not in quotes; two quotes in quotes are one.
fn csv(text: &str) -> Vec<String> {
    let (mut all, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.next_if_eq(&'"').is_some() => field.push('"'),
            '"' if quoted || field.is_empty() => quoted = !quoted,
            ',' if !quoted => all.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    all.push(field);
    all.retain(|field| !field.is_empty());
    all
}

/// Replaces variables.
type Expand<'a> = &'a dyn Fn(&str) -> Result<String, String>;

/// Reads the value of one `--mount`.
pub(crate) fn parse(text: &str, workdir: &str, expand: Expand<'_>) -> Result<Mount, String> {
    let fields = Fields::read(text, expand)?;
    if fields.0.is_empty() {
        return Err("--mount needs a value, as type=cache,target=/directory".into());
    }
    let kind = fields.text("type").map_or("bind".to_owned(), |kind| kind.to_ascii_lowercase());
    if let Some((name, _)) =
        BOUND.iter().find(|(name, kinds)| fields.last(name).is_some() && !kinds.contains(&kind.as_str()))
    {
        return Err(format!("a mount of type {kind} has no option '{name}'"));
    }
    let given = fields.text("target");
    // The default target is the working directory.
    let target = absolute(workdir, given.as_deref().unwrap_or("."));
    let read_only = fields.read_only()?;
    let source = || fields.text("source").unwrap_or_else(|| "/".into());
    let mount = match kind.as_str() {
        "bind" => Mount {
            target,
            read_only: read_only.unwrap_or(true),
            kind: MountKind::Bind { from: fields.text("from"), source: source() },
        },
        "cache" => {
            let sharing = match fields.text("sharing").map(|s| s.to_ascii_lowercase()).as_deref() {
                None | Some("shared") => Sharing::Shared,
                Some("private") => Sharing::Private,
                Some("locked") => Sharing::Locked,
                Some(other) => return Err(format!("sharing={other}: use shared, private or locked")),
            };
            let kind = MountKind::Cache {
                id: fields.text("id").unwrap_or_else(|| target.clone()),
                sharing,
                from: fields.text("from"),
                source: absolute("/", &source()),
                mode: fields.number("mode", 8, 0o755)?,
                uid: fields.number("uid", 10, 0)?,
                gid: fields.number("gid", 10, 0)?,
            };
            Mount { target, kind, read_only: read_only.unwrap_or(false) }
        }
        "tmpfs" => {
            let size = match fields.text("size") {
                None => None,
                Some(text) => Some(bytes(&text).ok_or_else(|| format!("size={text} is not a size"))?),
            };
            Mount { target, kind: MountKind::Tmpfs { size }, read_only: false }
        }
        "secret" => {
            let last = |path: &String| path.rsplit('/').find(|n| !n.is_empty()).map(str::to_owned);
            let id = fields.text("id").or_else(|| fields.text("source"));
            let id =
                id.or_else(|| given.as_ref().and_then(last)).ok_or("a mount of type secret needs an id")?;
            // The default name is that of the secret.
            let env = match fields.last("env") {
                Some(Some(name)) if !name.is_empty() => Some(name.clone()),
                Some(_) => Some(id.clone()),
                None => None,
            };
            let file = given.is_some() || env.is_none();
            let target = match given {
                Some(_) => target,
                None => format!("/run/secrets/{}", last(&id).ok_or("a mount of type secret needs an id")?),
            };
            let kind = MountKind::Secret {
                env,
                file,
                required: fields.required()?,
                mode: fields.number("mode", 8, 0o400)?,
                uid: fields.number("uid", 10, 0)?,
                gid: fields.number("gid", 10, 0)?,
                id,
            };
            Mount { target, kind, read_only: true }
        }
        // As for a build without keys of the user.
        "ssh" if !fields.required()? => Mount { target, kind: MountKind::Ssh, read_only: true },
        "ssh" => {
            return Err("mounts of type ssh are not supported: use a secret, or copy with the context".into());
        }
        other => {
            return Err(format!("unknown mount type '{other}': use bind, cache, tmpfs or secret"));
        }
    };
    if mount.target == "/" && mount.kind != MountKind::Ssh {
        let why = "a mount cannot cover the root directory";
        return Err(match given_target(&fields) {
            true => why.into(),
            false => format!("{why}, in which commands run here: give it a target"),
        });
    }
    Ok(mount)
}

fn given_target(fields: &Fields) -> bool {
    fields.text("target").is_some()
}

/// `64m` and the like, in bytes.
fn bytes(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: u64 = match &lower[digits.len()..] {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return None,
    };
    let digits = digits.trim_end();
    match digits.split_once('.') {
        None => digits.parse::<u64>().ok()?.checked_mul(factor),
        Some(_) => {
            let number: f64 = digits.parse().ok()?;
            // A larger number is not a size of memory, and a float would not be exact.
            Some(number * factor as f64).filter(|n| (0.0..9e15).contains(n)).map(|n| n as u64)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, workdir: &str) -> Result<Mount, String> {
        super::parse(text, workdir, &|value| Ok(value.replace("$x", "a,b")))
    }

    fn bind(text: &str) -> (String, Option<String>, String, bool) {
        let mount = parse(text, "/w").unwrap_or_else(|e| panic!("{text}: {e}"));
        let MountKind::Bind { from, source } = mount.kind else { panic!("{text}: {:?}", mount.kind) };
        (mount.target, from, source, mount.read_only)
    }

    #[test]
    fn forms_that_are_taken() {
        for (text, target, source, read_only) in [
            ("type=bind", "/w", "/", true),
            ("source=.", "/w", ".", true),
            ("target=.,rw", "/w", "/", false),
            ("target=,src=b,from=", "/w", "b", true),
            ("TYPE=Bind,Target=/x,SRC=B", "/x", "B", true),
            ("dst=/a,destination=/x", "/x", "/", true),
            ("target=/x,ro=0", "/x", "/", false),
            ("target=/x,ro,rw=T", "/x", "/", false),
            ("target=/x,rw,readonly=true", "/x", "/", true),
            ("target=/x,source=$x", "/x", "a,b", true),
            ("target=/x,\"source=c,\"\"d\"", "/x", "c,\"d", true),
            ("target=../x/,source=a=b,id=any,env=any,", "/x", "a=b", true),
        ] {
            assert_eq!(bind(text), (target.into(), None, source.into(), read_only), "{text}");
        }
        let kind = |text: &str| parse(text, "/w").unwrap_or_else(|e| panic!("{text}: {e}")).kind;
        assert!(
            matches!(kind("type=cache"), MountKind::Cache { id, source, .. } if id == "/w" && source == "/")
        );
        assert!(matches!(
            kind("type=cache,sharing=LOCKED,source=./"),
            MountKind::Cache { sharing: Sharing::Locked, source, .. } if source == "/"
        ));
        for (size, bytes) in [("1.5G", 3 << 29), ("64 mb", 64 << 20), ("7", 7), ("1tib", 1 << 40)] {
            let text = format!("type=tmpfs,ro,from=x,size={size}");
            assert_eq!(kind(&text), MountKind::Tmpfs { size: Some(bytes) }, "{text}");
        }
        assert_eq!(parse("type=secret,id=a/b", "/").unwrap().target, "/run/secrets/b");
        assert!(matches!(
            kind("type=secret,id=a,env="),
            MountKind::Secret { env: Some(e), file: false, .. } if e == "a"
        ));
        assert!(matches!(
            kind("type=secret,target=x/y,required=f"),
            MountKind::Secret { id, file: true, required: false, .. } if id == "y"
        ));
        assert_eq!(parse("type=ssh,id=x,mode=0600", "/").unwrap().kind, MountKind::Ssh);
    }

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
            ("type=cache", "give it a target"),
            ("type=bind", "give it a target"),
            ("type=nothing,target=/a", "nothing"),
            ("target=/", "root"),
            ("target=/a,ro=maybe", "true or false"),
            ("target=/a,mode=700", "mode"),
            ("target=/a,odd=1", "odd"),
            ("type=ssh,required", "ssh"),
            ("", "value"),
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
