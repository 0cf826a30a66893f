//! Links to images in other places: `<location>:<user>/<name>[:<tag>]`.

use walt_types::{DEFAULT_TAG, ImageName, ParseError};

/// Longest part of a link.
const PART_MAX: usize = 255;

/// An image in another place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// `walt`, `docker`, or the label of a registry.
    pub location: String,
    /// Everything before the last slash: a user, or a path in a registry. Empty for some images of daemons.
    pub user: String,
    /// The name.
    pub name: String,
    /// The tag.
    pub tag: String,
}

impl Link {
    /// Parses a link; refuses anything with another meaning in a URL (distribution specification, "Pulling
    /// manifests").
    ///
    /// # Errors
    /// The text is not a link.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let bad = || not_a_link(text);
        let (location, rest) = text.split_once(':').ok_or_else(bad)?;
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, tag),
            _ => (rest, DEFAULT_TAG),
        };
        let label = |s: &str| {
            !s.is_empty() && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        if !label(location) || !path.split('/').all(path_part) || !tag_ok(tag) || rest.len() > PART_MAX {
            return Err(bad());
        }
        // Images of this server always have an owner.
        let (user, name) = match path.rsplit_once('/') {
            Some((user, name)) => (user, name),
            None if location != "walt" => ("", path),
            None => return Err(bad()),
        };
        Ok(Self { location: location.into(), user: user.into(), name: name.into(), tag: tag.into() })
    }

    /// The repository in its registry.
    pub fn repository(&self) -> String {
        if self.user.is_empty() { self.name.clone() } else { format!("{}/{}", self.user, self.name) }
    }

    /// `<user>/<name>[:<tag>]`, without the default tag.
    pub fn path(&self) -> String {
        let tag = if self.tag == DEFAULT_TAG { String::new() } else { format!(":{}", self.tag) };
        format!("{}{tag}", self.repository())
    }

    /// The link.
    pub fn text(&self) -> String {
        format!("{}:{}", self.location, self.path())
    }

    /// The default name of a clone: characters that our names cannot have become dashes.
    pub fn own_name(&self) -> Result<ImageName, ParseError> {
        let plain = |text: &str| {
            let mut out = String::new();
            for sign in text.to_lowercase().chars() {
                if sign.is_ascii_lowercase() || sign.is_ascii_digit() {
                    out.push(sign);
                } else if !out.ends_with('-') && !out.is_empty() {
                    out.push('-');
                }
            }
            out.trim_end_matches('-').to_owned()
        };
        format!("{}:{}", plain(&self.name), plain(&self.tag)).parse()
    }
}

/// The error for a text that is not a link.
pub fn not_a_link(text: &str) -> ParseError {
    ParseError(format!(
        "'{text}' is not a clonable link: use <location>:<user>/<name>[:<tag>], as 'walt image search' lists them"
    ))
}

/// Whether a text is a valid part of a repository's name.
pub fn path_part(s: &str) -> bool {
    !s.is_empty()
        && s.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
}

/// Whether a text is a valid tag.
pub fn tag_ok(s: &str) -> bool {
    (1..=128).contains(&s.len())
        && !s.starts_with(['.', '-'])
        && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links() {
        let link = Link::parse("lab:a/b/my_Image.v2".to_lowercase().as_str()).unwrap();
        assert_eq!(
            (link.user.as_str(), link.name.as_str(), link.tag.as_str()),
            ("a/b", "my_image.v2", "latest")
        );
        assert_eq!(link.own_name().unwrap().to_string(), "my-image-v2");
        let link = Link::parse("hub:ann/x:V1.0_b").unwrap();
        assert_eq!(
            (link.text(), link.own_name().unwrap().to_string()),
            ("hub:ann/x:V1.0_b".into(), "x:v1-0-b".into())
        );
        assert_eq!(Link::parse("docker:localhost/x").unwrap().repository(), "localhost/x");
        assert_eq!(Link::parse("docker:x:1").unwrap().repository(), "x");
        for bad in [
            "",
            "x",
            "hub:",
            "hub:/x",
            "hub:a/",
            "hub:a//b",
            "walt:x",
            "hub:a/../b",
            "hub:a/b:",
            "hub:a/b:x/y",
            "hub:a/b?c",
            "hub:a/b#c",
            "hub:a/b:c d",
            "Hub:a/b",
            "hub:A/b",
            "hub:a/b:-x",
            "hub:a/b%2e",
            "hub:a/b\n",
        ] {
            assert!(Link::parse(bad).is_err(), "{bad}");
        }
    }
}
