//! References to images: `<user>/<name>:<tag>`.

use crate::{ParseError, UserName};
use std::{fmt, str::FromStr};

/// The tag of a name without one; outputs omit it.
pub const DEFAULT_TAG: &str = "latest";
/// The user who owns the default images; not an account.
pub const PLATFORM_USER: &str = "waltplatform";
/// Longest name and longest tag (OCI distribution specification).
const PART_MAX: usize = 128;

/// An image's name as a user types it: `<name>` or `<name>:<tag>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageName {
    name: String,
    tag: String,
}

fn part_ok(s: &str) -> bool {
    (1..=PART_MAX).contains(&s.len())
        && !s.starts_with('-')
        && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

impl ImageName {
    /// The part before the colon.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// The part after the colon, `latest` if none was written.
    pub fn tag(&self) -> &str {
        &self.tag
    }
}

impl FromStr for ImageName {
    type Err = ParseError;
    fn from_str(s: &str) -> Result<Self, ParseError> {
        let (name, tag) = s.split_once(':').unwrap_or((s, DEFAULT_TAG));
        if !part_ok(name) || !part_ok(tag) {
            return Err(ParseError(format!(
                "'{s}' is not a valid image name: use <name> or <name>:<tag>, each of a-z, 0-9 and '-', \
                 not starting with '-'"
            )));
        }
        if name == "default" {
            return Err(ParseError("'default' is reserved for the default image of a node".into()));
        }
        Ok(Self { name: name.into(), tag: tag.into() })
    }
}

impl fmt::Display for ImageName {
    /// The default tag is not shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.tag == DEFAULT_TAG {
            f.pad(&self.name)
        } else {
            f.pad(&format!("{}:{}", self.name, self.tag))
        }
    }
}

crate::serde_by_text!(ImageName);

/// A full reference: owner, name and tag.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageRef {
    user: String,
    image: ImageName,
}

impl ImageRef {
    /// The reference of a person's image.
    pub fn of(user: &UserName, image: ImageName) -> Self {
        Self { user: user.as_str().to_owned(), image }
    }
    /// The reference of a platform (default) image.
    pub fn platform(image: ImageName) -> Self {
        Self { user: PLATFORM_USER.to_owned(), image }
    }
    /// The owner: a user name or [`PLATFORM_USER`].
    pub fn user(&self) -> &str {
        &self.user
    }
    /// Name and tag without the owner.
    pub fn image(&self) -> &ImageName {
        &self.image
    }
    /// Whether the platform itself owns it; a node that boots such an image is free.
    pub fn is_platform(&self) -> bool {
        self.user == PLATFORM_USER
    }
    /// `<user>/<name>:<tag>` with the tag always written; the key in the database.
    pub fn full(&self) -> String {
        format!("{}/{}:{}", self.user, self.image.name, self.image.tag)
    }
}

impl FromStr for ImageRef {
    type Err = ParseError;
    fn from_str(s: &str) -> Result<Self, ParseError> {
        let (user, image) = s.split_once('/').ok_or_else(|| {
            ParseError(format!("'{s}' is not an image reference: use <user>/<name>[:<tag>]"))
        })?;
        if user != PLATFORM_USER {
            user.parse::<UserName>()?;
        }
        Ok(Self { user: user.into(), image: image.parse()? })
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.user, self.image))
    }
}

crate::serde_by_text!(ImageRef);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_references() {
        let name: ImageName = "my-image".parse().unwrap();
        assert_eq!((name.name(), name.tag()), ("my-image", "latest"));
        assert_eq!("a:b".parse::<ImageName>().unwrap().to_string(), "a:b");
        for bad in ["", ":x", "x:", "-a", "a:-b", "A", "a:b:c", "default", "a/b", "a b"] {
            assert!(bad.parse::<ImageName>().is_err(), "{bad}");
        }
        let full: ImageRef = "waltplatform/pc-x86-64-default".parse().unwrap();
        assert!(full.is_platform());
        assert_eq!(full.full(), "waltplatform/pc-x86-64-default:latest");
        assert!("walt/x".parse::<ImageRef>().is_err());
        let own: ImageRef = "ann/pc:v2".parse().unwrap();
        assert_eq!(
            (own.user(), own.image().to_string().as_str(), own.is_platform()),
            ("ann", "pc:v2", false)
        );
        // The default tag is hidden from people, and written in the database.
        assert_eq!(
            (full.to_string().as_str(), own.to_string().as_str()),
            ("waltplatform/pc-x86-64-default", "ann/pc:v2")
        );
        assert_eq!(ImageRef::of(&"ann".parse().unwrap(), "pc:v2".parse().unwrap()), own);
    }
}
