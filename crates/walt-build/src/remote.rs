//! Remote sources of `ADD`: a file by its URL, the tree of a git repository. Pure.
//!
//! Source: Dockerfile reference, "ADD". A URL is that of a repository if its scheme is git's or its path ends with
//! `.git`; `#` is followed by a branch, tag or commit and, after `:`, a directory of the repository.

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};

/// Digits of a commit's name, SHA-1 and SHA-256.
const COMMIT_DIGITS: [usize; 2] = [40, 64];
/// Digits of a SHA-256.
const SHA256_DIGITS: usize = 64;
/// Fewest digits of a commit in `--checksum`.
const MIN_COMMIT: usize = 7;
/// Prefix of the identity of a file.
const SHA256: &str = "sha256:";

/// A source to fetch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Remote {
    /// A file.
    File { url: String },
    /// The tree of a commit.
    Git {
        url: String,
        /// Branch, tag or commit; `None`: the default branch.
        reference: Option<String>,
        /// Directory of the repository; empty: all of it.
        subdir: String,
        /// Whether `.git` is part of it.
        keep_git_dir: bool,
    },
}

impl Remote {
    /// Parses a source of `ADD`; `None` if it is a path. An error is a sentence.
    pub fn parse(source: &str, keep_git_dir: bool) -> Result<Option<Self>, String> {
        let lower = source.to_ascii_lowercase();
        let is = |scheme: &str| lower.starts_with(scheme);
        if is("ssh://") || is("git@") {
            return Err(format!(
                "'{source}': git over ssh would need your key: use https, or clone it next to the Dockerfile"
            ));
        }
        let http = is("http://") || is("https://");
        if !http && !is("git://") {
            return Ok(None);
        }
        let (url, fragment) = source.split_once('#').unwrap_or((source, ""));
        if http && !url.split('?').next().unwrap_or_default().ends_with(".git") {
            return Ok(Some(Self::File { url: url.to_owned() }));
        }
        let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
        if reference.starts_with('-') {
            return Err(format!("'{reference}' is not a branch, tag or commit"));
        }
        let subdir = subdir.trim_matches('/').to_owned();
        if keep_git_dir && !subdir.is_empty() {
            return Err("--keep-git-dir is for a whole repository, not for a directory of it".into());
        }
        let reference = Some(reference.to_owned()).filter(|r| !r.is_empty());
        Ok(Some(Self::Git { url: url.to_owned(), reference, subdir, keep_git_dir }))
    }

    /// Where it is, for messages.
    pub fn url(&self) -> &str {
        match self {
            Self::File { url } | Self::Git { url, .. } => url,
        }
    }

    /// Name of the file in a destination directory; empty for a tree, or if the URL has none.
    pub fn name(&self) -> Vec<u8> {
        let Self::File { url } = self else { return Vec::new() };
        let rest = url.split_once("://").map_or("", |(_, rest)| rest);
        let path = rest.split('?').next().and_then(|r| r.split_once('/')).map_or("", |(_, path)| path);
        let path: Vec<u8> = percent_decode_str(path).collect();
        let name = path.rsplit(|b| *b == b'/').find(|name| !name.is_empty()).unwrap_or_default();
        if matches!(name, b"." | b"..") || name.contains(&0) { Vec::new() } else { name.to_owned() }
    }

    /// Checks the form of a `--checksum`; an error is a sentence.
    pub fn check(&self, checksum: &str) -> Result<(), String> {
        let digits = |text: &str| text.chars().all(|c| c.is_ascii_hexdigit());
        match (self, checksum.strip_prefix(SHA256)) {
            (Self::File { .. }, Some(hash)) if hash.len() == SHA256_DIGITS && digits(hash) => Ok(()),
            (Self::File { .. }, _) => {
                Err(format!("--checksum={checksum}: use sha256: and {SHA256_DIGITS} hexadecimal digits"))
            }
            (Self::Git { .. }, None) if checksum.len() >= MIN_COMMIT && digits(checksum) => Ok(()),
            (Self::Git { .. }, _) => Err(format!(
                "--checksum={checksum}: use the hexadecimal digits of a commit, {MIN_COMMIT} at least"
            )),
        }
    }

    /// The identity that a checksum requires, if it is known before the source is fetched.
    pub fn promised(&self, checksum: Option<&str>) -> Option<String> {
        let commit =
            |text: &&str| COMMIT_DIGITS.contains(&text.len()) && text.chars().all(|c| c.is_ascii_hexdigit());
        let text = match self {
            Self::File { .. } => checksum,
            Self::Git { reference, .. } => {
                checksum.filter(commit).or_else(|| reference.as_deref().filter(commit))
            }
        };
        text.map(str::to_ascii_lowercase)
    }

    /// Whether this identity of a fetched source matches a checksum.
    pub fn matches(&self, identity: &str, checksum: &str) -> bool {
        let checksum = checksum.to_ascii_lowercase();
        match self {
            Self::File { .. } => identity == checksum,
            Self::Git { .. } => identity.starts_with(&checksum),
        }
    }
}

/// The identity of a file's content.
pub(crate) fn identity(sha256: &[u8]) -> String {
    let digits: String = sha256.iter().map(|b| format!("{b:02x}")).collect();
    format!("{SHA256}{digits}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn git(url: &str, reference: Option<&str>, subdir: &str) -> Remote {
        let (url, subdir) = (url.to_owned(), subdir.to_owned());
        Remote::Git { url, reference: reference.map(str::to_owned), subdir, keep_git_dir: false }
    }

    #[test]
    fn what_sources_are() {
        for (text, remote) in [
            ("a/b", None),
            ("http", None),
            ("github.com/x/y.git", None),
            ("HTTPS://h/x?y#z", Some(Remote::File { url: "HTTPS://h/x?y".into() })),
            ("https://h/x.git", Some(git("https://h/x.git", None, ""))),
            ("http://h/x.git#v1:/a/b/", Some(git("http://h/x.git", Some("v1"), "a/b"))),
            ("git://h/x#:d", Some(git("git://h/x", None, "d"))),
            ("https://h/x.git?a=b#c", Some(git("https://h/x.git?a=b", Some("c"), ""))),
        ] {
            assert_eq!(Remote::parse(text, false), Ok(remote), "{text}");
        }
        for text in ["git@h:x.git", "ssh://h/x", "git://h/x#-v", "git://h/x#v:d"] {
            assert!(Remote::parse(text, true).is_err(), "{text}");
        }
    }

    #[test]
    fn names_of_files() {
        for (url, name) in [
            ("http://h/a/b.txt", &b"b.txt"[..]),
            ("http://h/a%20b/?q=/c", b"a b"),
            ("http://h/a%2fb", b"b"),
            ("http://h/a%2f/", b"a"),
            ("http://h/G%E4rten", b"G\xe4rten"),
            ("http://h", b""),
            ("http://h/?x", b""),
            ("http://h/..", b""),
            ("http://h/a%00", b""),
        ] {
            assert_eq!(Remote::File { url: url.into() }.name(), name, "{url}");
        }
    }

    #[test]
    fn checksums() {
        let (file, tree) = (Remote::File { url: "http://h/x".into() }, git("git://h/x", Some("v1"), ""));
        let sha = format!("sha256:{}", "Ab".repeat(32));
        let commit = "0123456789".repeat(4);
        assert!(file.check(&sha).is_ok() && file.check(&commit).is_err() && file.check("sha256:ab").is_err());
        assert!(
            tree.check(&commit).is_ok() && tree.check("0123456").is_ok() && tree.check("012345").is_err()
        );
        assert!(tree.check(&sha).is_err());
        assert_eq!(file.promised(Some(&sha)), Some(sha.to_lowercase()));
        assert_eq!((file.promised(None), tree.promised(Some("0123456"))), (None, None));
        assert_eq!(tree.promised(Some(&commit)), Some(commit.clone()));
        assert_eq!(git("git://h/x", Some(&commit), "").promised(None), Some(commit.clone()));
        assert!(tree.matches(&commit, "01234567") && !tree.matches(&commit, "1234567"));
        assert!(file.matches(&identity(&[0xab; 32]), &sha) && !file.matches(&identity(&[0; 32]), &sha));
    }
}
