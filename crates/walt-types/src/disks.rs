//! Disks of virtual nodes: the value of the setting `disks`.

use crate::ParseError;
use std::{fmt, str::FromStr};

/// Most disks of a node.
pub const DISKS_MAX: usize = 16;
/// Largest disk, in gigabytes: ext4, where the server's state usually lies, has files of up to 16 TiB.
pub const GIGABYTES_MAX: u32 = 16_000;
/// Largest disk with a template, in gigabytes: the sizes in an MBR have 32 bits, which is 2 TiB.
pub const GIGABYTES_MAX_TEMPLATE: u32 = 2_000;
/// Bytes of a gigabyte, as manufacturers of disks count.
const GIGABYTE: u64 = 1_000_000_000;
/// Gigabytes of a terabyte.
const TERABYTE: u32 = 1_000;

/// What is on a new disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Template {
    /// Nothing.
    None,
    /// One partition with an empty ext4.
    Ext4,
    /// One partition with an empty FAT.
    Fat32,
    /// One ext4 partition for hybrid boots that forget the changes of a node.
    HybridVolatile,
    /// One ext4 partition for hybrid boots that keep them.
    HybridPersistent,
}

impl Template {
    /// All of them, in the order in which messages list them.
    pub const ALL: [Self; 5] =
        [Self::None, Self::Ext4, Self::Fat32, Self::HybridVolatile, Self::HybridPersistent];

    /// Its name in the setting.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Ext4 => "ext4",
            Self::Fat32 => "fat32",
            Self::HybridVolatile => "hybrid-boot-v",
            Self::HybridPersistent => "hybrid-boot-p",
        }
    }
}

impl FromStr for Template {
    type Err = ParseError;
    fn from_str(s: &str) -> Result<Self, ParseError> {
        Self::ALL.into_iter().find(|t| t.name() == s).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.map(Self::name).into();
            ParseError(format!("there is no template '{s}'; there are: {}", known.join(", ")))
        })
    }
}

/// One disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Disk {
    gigabytes: u32,
    template: Template,
}

impl Disk {
    /// Its size in bytes; a multiple of a sector.
    pub fn bytes(&self) -> u64 {
        u64::from(self.gigabytes) * GIGABYTE
    }

    /// What is on it when it is new.
    pub fn template(&self) -> Template {
        self.template
    }
}

impl FromStr for Disk {
    type Err = ParseError;
    /// `8G`, `1T`, or one of them followed by `[template=ext4]`.
    fn from_str(s: &str) -> Result<Self, ParseError> {
        let bad = || {
            ParseError(format!(
                "'{s}' is not a disk; a disk is a number followed by G or T, such as 8G or 1T[template=ext4]"
            ))
        };
        let (size, template) = match s.split_once('[') {
            None => (s, Template::None),
            Some((size, option)) => {
                let option = option.strip_suffix(']').ok_or_else(bad)?;
                (size, option.strip_prefix("template=").ok_or_else(bad)?.parse()?)
            }
        };
        let number = |digits: &str| {
            // What does not fit is too large, and not bad.
            let all = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            all.then(|| digits.parse().unwrap_or(u32::MAX))
        };
        let gigabytes = match (size.strip_suffix('G'), size.strip_suffix('T')) {
            (Some(digits), _) => number(digits),
            (_, Some(digits)) => number(digits).map(|n| n.saturating_mul(TERABYTE)),
            _ => None,
        }
        .ok_or_else(bad)?;
        let most = match template {
            Template::None => GIGABYTES_MAX,
            _ => GIGABYTES_MAX_TEMPLATE,
        };
        if gigabytes == 0 {
            return Err(ParseError(format!("the disk '{s}' is too small; a disk has at least 1G")));
        }
        if gigabytes > most {
            let kind = if template == Template::None { "a disk" } else { "a disk with a template" };
            let most = most / TERABYTE;
            return Err(ParseError(format!("the disk '{s}' is too large; {kind} has at most {most}T")));
        }
        Ok(Self { gigabytes, template })
    }
}

impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.gigabytes / TERABYTE, self.gigabytes % TERABYTE) {
            (terabytes, 0) => write!(f, "{terabytes}T")?,
            _ => write!(f, "{}G", self.gigabytes)?,
        }
        match self.template {
            Template::None => Ok(()),
            template => write!(f, "[template={}]", template.name()),
        }
    }
}

/// The disks of a node, in order: the first one is `sda`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Disks(Vec<Disk>);

impl Disks {
    /// The disks with their names on the node.
    pub fn iter(&self) -> impl Iterator<Item = (String, &Disk)> {
        // Invariant: DISKS_MAX is at most the number of letters.
        self.0.iter().zip('a'..='z').map(|(disk, letter)| (format!("sd{letter}"), disk))
    }
}

impl FromStr for Disks {
    type Err = ParseError;
    /// `none`, or disks separated by commas.
    fn from_str(s: &str) -> Result<Self, ParseError> {
        if s == "none" {
            return Ok(Self::default());
        }
        let disks: Vec<Disk> = s.split(',').map(str::parse).collect::<Result<_, _>>()?;
        if disks.len() > DISKS_MAX {
            let count = disks.len();
            return Err(ParseError(format!("{count} disks are too many; a node has at most {DISKS_MAX}")));
        }
        Ok(Self(disks))
    }
}

impl fmt::Display for Disks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (number, disk) in self.0.iter().enumerate() {
            if number > 0 {
                f.write_str(",")?;
            }
            disk.fmt(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        text.parse::<Disks>().map_or_else(|e| e.to_string(), |disks| disks.to_string())
    }

    #[test]
    fn values() {
        for same in [
            "none",
            "8G",
            "1T",
            "8G,1T[template=ext4]",
            "1G[template=fat32],2T[template=hybrid-boot-v],999G[template=hybrid-boot-p]",
            "16T",
            "1001G",
        ] {
            assert_eq!(shown(same), same);
        }
        assert_eq!(shown("1000G,08G[template=none]"), "1T,8G");
        let disks: Disks = "8G,1T[template=ext4]".parse().unwrap();
        let all: Vec<_> = disks.iter().map(|(name, disk)| (name, disk.bytes(), disk.template())).collect();
        assert_eq!(
            all,
            [
                ("sda".to_owned(), 8_000_000_000, Template::None),
                ("sdb".to_owned(), 1_000_000_000_000, Template::Ext4)
            ]
        );
        assert_eq!("none".parse::<Disks>().unwrap().iter().count(), 0);
    }

    #[test]
    fn bad_values() {
        for bad in
            ["", "8", "G", "T", "8M", "8g", "-8G", "+8G", " 8G", "8G ", "8G[]", "8G[template]", "8G[size=1]"]
        {
            let why = format!("'{bad}' is not a disk; a disk is a number followed by G or T");
            assert!(shown(bad).starts_with(&why), "{bad}: {}", shown(bad));
        }
        for bad in ["8G[template=ext4", "8G[template=ext4]]", "8G[template=ext4]x", "8G,", ",8G", "none,8G"] {
            assert!(bad.parse::<Disks>().is_err(), "{bad}");
        }
        assert_eq!(
            shown("8G[template=xfs]"),
            "there is no template 'xfs'; there are: none, ext4, fat32, hybrid-boot-v, hybrid-boot-p"
        );
        assert_eq!(shown("0G"), "the disk '0G' is too small; a disk has at least 1G");
        for large in ["16001G", "17T", "99999999T", "99999999999999999999G", "4294967296G"] {
            assert_eq!(shown(large), format!("the disk '{large}' is too large; a disk has at most 16T"));
        }
        assert_eq!(
            shown("2001G[template=ext4]"),
            "the disk '2001G[template=ext4]' is too large; a disk with a template has at most 2T"
        );
        let many = |count| vec!["1G"; count].join(",");
        assert_eq!(shown(&many(DISKS_MAX)), many(DISKS_MAX));
        assert_eq!(shown(&many(DISKS_MAX + 1)), "17 disks are too many; a node has at most 16");
    }
}
