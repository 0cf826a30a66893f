//! Ethernet addresses.

use crate::ParseError;
use std::{fmt, str::FromStr};

/// A 48-bit Ethernet address; the identity of a node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The form of iPXE's `${mac:hexhyp}` and of `BOOTIF=`: `52-54-00-aa-bb-cc`.
    pub fn dashed(&self) -> String {
        self.to_string().replace(':', "-")
    }

    /// The last six hexadecimal digits, used in automatic device names.
    pub fn tail(&self) -> String {
        let [.., a, b, c] = self.0;
        format!("{a:02x}{b:02x}{c:02x}")
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = ParseError;
    /// Accepts six pairs of hexadecimal digits separated by `:` or by `-`.
    fn from_str(s: &str) -> Result<Self, ParseError> {
        let bad = || ParseError(format!("'{s}' is not an Ethernet address (like 52:54:00:12:34:56)"));
        let separator = if s.contains('-') { '-' } else { ':' };
        let mut out = [0; 6];
        let mut pairs = s.split(separator);
        for byte in &mut out {
            let pair = pairs.next().ok_or_else(bad)?;
            if pair.len() != 2 || !pair.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(bad());
            }
            *byte = u8::from_str_radix(pair, 16).map_err(|_| bad())?;
        }
        if pairs.next().is_some() {
            return Err(bad());
        }
        Ok(Self(out))
    }
}

crate::serde_by_text!(Mac);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_separators_are_read() {
        let mac: Mac = "52-54-00-AA-0b-1c".parse().unwrap();
        assert_eq!(mac.to_string(), "52:54:00:aa:0b:1c");
        assert_eq!(mac.dashed(), "52-54-00-aa-0b-1c");
        assert_eq!(format!("{mac:?}"), "52:54:00:aa:0b:1c", "what a log shows");
        assert_eq!(mac.tail(), "aa0b1c");
        for bad in ["", "52:54:00:aa:0b", "52:54:00:aa:0b:1c:00", "52:54-00:aa:0b:1c", "+1:54:00:aa:0b:1c"] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }
}
