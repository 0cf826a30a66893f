//! `COPY` and `ADD`: what is copied, where to, and how.

use super::{Scope, State, absolute, at, wrong};
use crate::{
    Result,
    chmod::Chmod,
    dockerfile::{Flag, Source},
    expand,
    remote::Remote,
};

/// The error about a URL without a file name and a destination directory.
pub(crate) const NAMELESS: &str =
    "the URL does not say what the file is called: name it in the destination, as /directory/name";

/// Files to copy.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Copy {
    pub add: bool,
    /// The stage or image they come from; none: the context.
    pub from: Option<String>,
    pub sources: Vec<Origin>,
    /// An absolute path; a slash at its end means a directory.
    pub dest: String,
    pub chown: Option<String>,
    pub chmod: Option<Chmod>,
    pub link: bool,
    pub parents: bool,
    pub exclude: Vec<String>,
    /// Whether archives are unpacked; `None`: the default of `ADD` and `COPY`.
    pub unpack: Option<bool>,
    /// Checksum of the only remote source.
    pub checksum: Option<String>,
}

/// A source.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Origin {
    /// A path with wildcards.
    Path(String),
    /// A here-document: name and content.
    Inline(String, String),
    /// A remote source.
    Remote(Remote),
}

impl State {
    pub(super) fn copy(
        &self,
        line: usize,
        add: bool,
        flags: &[Flag],
        sources: &[Source],
        dest: &str,
    ) -> Result<Copy> {
        let what = if add { "ADD" } else { "COPY" };
        let dest = self.word(line, dest)?;
        let mut copy = Copy {
            add,
            from: None,
            sources: Vec::new(),
            dest: destination(self.workdir(), &dest),
            chown: None,
            chmod: None,
            link: false,
            parents: false,
            exclude: Vec::new(),
            unpack: None,
            checksum: None,
        };
        let mut keep_git_dir = false;
        for flag in flags {
            let value = match &flag.value {
                Some(value) => Some(self.word(line, value)?),
                None => None,
            };
            // An empty value is as if the option was not given.
            let needed = || match &value {
                Some(value) => Ok(Some(value.clone()).filter(|v| !v.is_empty())),
                None => Err(wrong(line, format!("--{} needs a value", flag.name))),
            };
            let switch = || match value.as_ref().map(|v| v.to_ascii_lowercase()).as_deref() {
                None | Some("true") => Ok(true),
                Some("false") => Ok(false),
                Some(other) => Err(wrong(line, format!("--{}={other}: use true or false", flag.name))),
            };
            match flag.name.as_str() {
                "from" if !add => copy.from = needed()?,
                "chown" => copy.chown = needed()?,
                "chmod" => {
                    let Some(text) = needed()? else { continue };
                    let why = format!(
                        "--chmod={text}: use an octal number up to 7777, or changes as chmod has them: u=rwX,go=rX"
                    );
                    copy.chmod = Some(Chmod::parse(&text).ok_or_else(|| wrong(line, why))?);
                }
                "link" => copy.link = switch()?,
                "parents" if !add => copy.parents = switch()?,
                "exclude" => copy.exclude.extend(needed()?),
                "checksum" if add => copy.checksum = needed()?,
                "keep-git-dir" if add => keep_git_dir = switch()?,
                "unpack" if add => copy.unpack = Some(switch()?),
                other => return Err(wrong(line, format!("{what} has no option '--{other}'"))),
            }
        }
        for source in sources {
            copy.sources.push(match source {
                Source::Inline(here) => {
                    let content = here.content();
                    let content = match here.expand {
                        true => at(line, expand::here_document(&content, &Scope(&self.env, &self.args)))?,
                        false => content,
                    };
                    Origin::Inline(here.name.clone(), content)
                }
                Source::Path(path) => {
                    origin(add, keep_git_dir, self.word(line, path)?).map_err(|why| wrong(line, why))?
                }
            });
        }
        let directory = dest.is_empty() || dest.ends_with('/') || dest == "." || dest.ends_with("/.");
        if let Some(checksum) = &copy.checksum {
            match copy.sources.as_slice() {
                [Origin::Remote(remote)] => at(line, remote.check(checksum))?,
                _ => return Err(wrong(line, "--checksum is for one URL or git repository")),
            }
        }
        let nameless =
            |s: &Origin| matches!(s, Origin::Remote(r @ Remote::File { .. }) if r.name().is_empty());
        if directory && copy.sources.iter().any(nameless) {
            return Err(wrong(line, NAMELESS));
        }
        if copy.sources.len() > 1 && !directory {
            return Err(wrong(
                line,
                format!("with several sources, the destination of {what} must end with /"),
            ));
        }
        Ok(copy)
    }
}

fn origin(add: bool, keep_git_dir: bool, text: String) -> std::result::Result<Origin, String> {
    match Remote::parse(&text, keep_git_dir) {
        // Like git@…, which COPY does not support either.
        Ok(Some(_)) | Err(_) if !add => Err(format!(
            "'{text}' is not a path: COPY takes files of the directory, of a stage or of an image"
        )),
        Ok(Some(remote)) => Ok(Origin::Remote(remote)),
        Ok(None) if text.is_empty() => Err("a source is empty".into()),
        Ok(None) => Ok(Origin::Path(text)),
        Err(why) => Err(why),
    }
}

/// Like [`absolute`], for the destination of a copy: a directory keeps its final slash.
pub(super) fn destination(workdir: &str, dest: &str) -> String {
    let directory = dest.is_empty() || dest.ends_with('/') || dest == "." || dest.ends_with("/.");
    let mut path = absolute(workdir, dest);
    if directory && !path.ends_with('/') {
        path.push('/');
    }
    path
}
