//! Which CPU an image is for, and which of several images fits a CPU best.
//!
//! Source: OCI image specification 1.1, "image index"; `--platform` of the Dockerfile reference; for programs of
//! other CPUs that a CPU runs, containerd, as docker and BuildKit do.

use super::manifest::{IndexEntry, architectures};
use std::fmt;
use walt_images::ImageConfig;

/// Key of the variant in an image's configuration.
const VARIANT: &str = "variant";

/// A CPU as images name it; its operating system is Linux.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// The family, in Go's names.
    pub architecture: String,
    /// Its variant (`v7`); empty if there is only one, or none is specified.
    pub variant: String,
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "linux/{}", self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

impl Platform {
    /// A platform from any usual names of its CPU.
    pub fn new(architecture: &str, variant: &str) -> Self {
        let architecture = architecture.to_ascii_lowercase();
        let variant = variant.to_ascii_lowercase();
        let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
            ("x86_64" | "x86-64" | "amd64", "" | "v1") => ("amd64", ""),
            ("x86_64" | "x86-64", level) => ("amd64", level),
            ("i386" | "i686" | "386", _) => ("386", ""),
            ("aarch64" | "arm64", "" | "8" | "v8") => ("arm64", ""),
            ("aarch64", other) => ("arm64", other),
            ("armhf" | "armv7l", _) | ("arm", "" | "7") => ("arm", "v7"),
            ("armel", _) | ("arm", "6") => ("arm", "v6"),
            ("arm", "5") => ("arm", "v5"),
            (architecture, variant) => (architecture, variant),
        };
        Self { architecture: architecture.into(), variant: variant.into() }
    }

    /// Parses a platform as in `--platform`: `os/architecture/variant`, or the beginning of it; the rest is taken
    /// from `usual`.
    ///
    /// # Errors
    /// A sentence: it is not a platform, or not one of Linux.
    pub fn parse(text: &str, usual: &Self) -> Result<Self, String> {
        let bad = || {
            format!(
                "'{text}' is not a platform: it is written linux/amd64, linux/arm/v7, or just the CPU, arm64"
            )
        };
        let parts: Vec<&str> = text.split('/').collect();
        let word =
            |s: &&str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
        if parts.len() > 3 || !parts.iter().all(word) {
            return Err(bad());
        }
        let (os, rest) = match parts.as_slice() {
            [one] if !one.eq_ignore_ascii_case("linux") => ("linux", parts.as_slice()),
            _ => (parts[0], &parts[1..]),
        };
        if !os.eq_ignore_ascii_case("linux") {
            return Err(format!("'{text}': only images for Linux can be built"));
        }
        Ok(match rest {
            [] => usual.clone(),
            [architecture, rest @ ..] => Self::new(architecture, rest.first().copied().unwrap_or_default()),
        })
    }

    /// The platform in an image's configuration; `None` if it has none.
    pub fn of(config: &ImageConfig) -> Option<Self> {
        let variant = config.other.get(VARIANT).and_then(|v| v.as_str()).unwrap_or_default();
        (!config.architecture.is_empty()).then(|| Self::new(&config.architecture, variant))
    }

    /// Sets the platform in an image's configuration.
    pub fn put_into(&self, config: &mut ImageConfig) {
        config.architecture.clone_from(&self.architecture);
        if !self.variant.is_empty() {
            config.other.insert(VARIANT.into(), self.variant.clone().into());
        }
    }

    /// Whether an image satisfies a request for this platform. Variants are ignored: not all builders set them.
    pub fn accepts(&self, image: &Self) -> bool {
        self.architecture == image.architecture || self.preference(image).is_some()
    }

    /// Rank of another platform's programs on this CPU: 0 is best, `None` if it does not run them.
    pub fn preference(&self, other: &Self) -> Option<u32> {
        let level = |p: &Self| p.variant.strip_prefix('v').and_then(|v| v.parse::<u32>().ok());
        match (self.architecture.as_str(), other.architecture.as_str()) {
            ("arm", "arm") => level(self)?.checked_sub(level(other)?),
            ("amd64", "amd64") => level(self).unwrap_or(1).checked_sub(level(other).unwrap_or(1)),
            ("arm64", "arm64") if other.variant.is_empty() || other.variant == self.variant => Some(0),
            // Most of them run older programs too, and prefer their own.
            ("arm64", "arm") => Some(10 + 8u32.checked_sub(level(other)?)?),
            ("amd64", "386") => Some(10),
            (ours, theirs) => (ours == theirs && self.variant == other.variant).then_some(0),
        }
    }
}

/// The platforms of images that all these models of nodes boot, best first. It is empty if no platform suits them all.
pub fn of_models(models: &[String]) -> Vec<Platform> {
    let of = |model: &String| -> Vec<Platform> {
        // Boards before the second have the CPU ARM1176.
        let old = !["rpi-2", "rpi-3", "rpi-4", "rpi-5"].iter().any(|new| model.starts_with(new));
        let variant = |a: &str| if a == "arm" && old { "v6" } else { "" };
        architectures(model).iter().map(|a| Platform::new(a, variant(a))).collect()
    };
    let Some((first, rest)) = models.split_first() else { return Vec::new() };
    let mut common = of(first);
    for model in rest {
        let theirs = of(model);
        common = common
            .iter()
            .filter_map(|p| {
                let same = theirs.iter().find(|t| t.architecture == p.architecture)?;
                // The older one of both runs on both.
                Some(if p.preference(same).is_some() { same.clone() } else { p.clone() })
            })
            .collect();
    }
    common
}

/// What to choose from an index.
#[derive(Debug, Clone, Copy)]
pub enum Wanted<'a> {
    /// The best fit for these node models, whatever it is.
    Models(&'a [String]),
    /// Only images that these platforms run, best first.
    Platforms(&'a [Platform]),
}

impl Wanted<'_> {
    /// The entries to consider, best first.
    pub fn order<'e>(&self, entries: &'e [IndexEntry]) -> Vec<&'e IndexEntry> {
        let platforms = match self {
            Self::Models(models) => return super::manifest::candidates(entries, models),
            Self::Platforms(platforms) => platforms,
        };
        let rank = |entry: &IndexEntry| -> Option<(usize, u32)> {
            if entry.architecture.is_empty() {
                return Some((platforms.len(), 0));
            }
            let theirs = Platform::new(&entry.architecture, &entry.variant);
            platforms.iter().enumerate().find_map(|(n, p)| Some((n, p.preference(&theirs)?)))
        };
        let mut ranked: Vec<_> =
            entries.iter().filter(|e| e.may_run()).filter_map(|e| Some((rank(e)?, e))).collect();
        ranked.sort_by_key(|(rank, _)| *rank);
        ranked.into_iter().map(|(_, entry)| entry).collect()
    }

    /// Explains why an index has no suitable image.
    pub fn missing(&self, entries: &[IndexEntry]) -> String {
        let Self::Platforms(platforms) = self else { return "it has no image for Linux".into() };
        let mut there: Vec<String> = entries
            .iter()
            .filter(|e| e.may_run() && !e.architecture.is_empty())
            .map(|e| Platform::new(&e.architecture, &e.variant).to_string())
            .collect();
        there.dedup();
        let wanted: Vec<String> = platforms.iter().map(ToString::to_string).collect();
        let there = if there.is_empty() { "nothing for Linux".into() } else { there.join(", ") };
        format!("it has no image for {}, it has {there}", wanted.join(" or "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Descriptor;
    use walt_types::Hash256;

    fn parsed(text: &str) -> String {
        Platform::parse(text, &Platform::new("amd64", "")).map_or_else(|e| e, |p| p.to_string())
    }

    #[test]
    fn platforms_are_read() {
        for (text, is) in [
            ("linux/amd64", "linux/amd64"),
            ("Linux/x86_64", "linux/amd64"),
            ("linux", "linux/amd64"),
            ("arm64", "linux/arm64"),
            ("aarch64", "linux/arm64"),
            ("armv7l", "linux/arm/v7"),
            ("linux/i686", "linux/386"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/v6", "linux/arm/v6"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/amd64/v2", "linux/amd64/v2"),
            ("linux/riscv64", "linux/riscv64"),
        ] {
            assert_eq!(parsed(text), is, "{text}");
        }
        let (old, new) = (Platform::new("arm", "v6"), Platform::new("arm", ""));
        assert!(
            old.preference(&new).is_none() && old.accepts(&new) && !old.accepts(&Platform::new("arm64", ""))
        );
        for (text, part) in [
            ("windows/amd64", "only images for Linux"),
            ("", "not a platform"),
            ("linux/", "not a platform"),
            ("linux/a/b/c", "not a platform"),
            ("linux/a b", "not a platform"),
        ] {
            assert!(parsed(text).contains(part), "{text}: {}", parsed(text));
        }
    }

    #[test]
    fn an_index_has_one_image_for_a_cpu() {
        let entry = |text: &str| {
            let parts: Vec<&str> = text.split('/').collect();
            IndexEntry {
                manifest: Descriptor { media_type: String::new(), digest: Hash256([0; 32]), size: 1 },
                os: parts[0].into(),
                architecture: parts[1].into(),
                variant: parts.get(2).copied().unwrap_or_default().into(),
            }
        };
        // As that of debian.
        let all =
            ["linux/386", "linux/amd64", "linux/arm/v5", "linux/arm/v7", "linux/arm64/v8", "unknown/unknown"]
                .map(entry);
        let first = |platforms: &[Platform]| {
            let order = Wanted::Platforms(platforms).order(&all);
            order.first().map(|e| format!("{}/{}", e.architecture, e.variant)).unwrap_or_default()
        };
        for (wanted, is) in [
            ("linux/amd64", "amd64/"),
            ("linux/amd64/v3", "amd64/"),
            ("linux/arm64", "arm64/v8"),
            ("linux/arm", "arm/v7"),
            ("linux/arm/v6", "arm/v5"),
            ("linux/386", "386/"),
            ("linux/riscv64", ""),
        ] {
            let wanted = Platform::parse(wanted, &Platform::new("amd64", "")).unwrap();
            assert_eq!(first(std::slice::from_ref(&wanted)), is, "{wanted}");
        }
        let models = |models: &[&str]| of_models(&models.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(first(&models(&["rpi-4-b", "rpi-3-b-plus"])), "arm64/v8");
        assert_eq!(first(&models(&["rpi-4-b", "rpi-2-b"])), "arm/v7");
        assert_eq!(first(&models(&["rpi-3-b", "rpi-b-plus"])), "arm/v5");
        assert_eq!(first(&models(&["pc-x86-64"])), "amd64/");
        assert!(models(&["pc-x86-64", "rpi-4-b"]).is_empty());
        let riscv = [Platform::new("riscv64", "")];
        let why = Wanted::Platforms(&riscv).missing(&all);
        assert!(why.contains("linux/riscv64") && why.ends_with("linux/arm/v7, linux/arm64"), "{why}");
    }
}
