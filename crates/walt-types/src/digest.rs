//! SHA-256 digests, and the identities of layers, images and views.

use crate::ParseError;
use std::{fmt, str::FromStr};

/// A SHA-256 value, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash256(pub [u8; 32]);

impl fmt::Display for Hash256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Hash256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Hash256 {
    type Err = ParseError;
    /// Accepts 64 hexadecimal digits, with or without the OCI prefix `sha256:`.
    fn from_str(s: &str) -> Result<Self, ParseError> {
        let hex = s.strip_prefix("sha256:").unwrap_or(s);
        let bad = || ParseError(format!("'{s}' is not a SHA-256 digest of 64 hexadecimal digits"));
        if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(bad());
        }
        let mut out = [0; 32];
        for (byte, pair) in out.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let digits = std::str::from_utf8(pair).map_err(|_| bad())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| bad())?;
        }
        Ok(Self(out))
    }
}

crate::serde_by_text!(Hash256);

macro_rules! digest_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub Hash256);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
        impl FromStr for $name {
            type Err = ParseError;
            fn from_str(s: &str) -> Result<Self, ParseError> {
                s.parse().map(Self)
            }
        }
        impl $name {
            /// The digest with its OCI prefix: `sha256:<hex>`.
            pub fn oci(&self) -> String {
                format!("sha256:{}", self.0)
            }
        }
        crate::serde_by_text!($name);
    };
}

digest_type!(
    /// SHA-256 of a layer's uncompressed tar (OCI image specification, "layer DiffID").
    DiffId
);
digest_type!(
    /// SHA-256 of an image's configuration (OCI image specification, "ImageID").
    ImageId
);
digest_type!(
    /// Names one immutable merged tree: hash of its layers, its platform layer and the index version.
    ViewId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_round_trip_and_refuse_garbage() {
        let hex = "00ff".repeat(16);
        let id: DiffId = format!("sha256:{hex}").parse().unwrap();
        assert_eq!(id.to_string(), hex);
        assert_eq!(id.oci(), format!("sha256:{hex}"));
        // What a log shows.
        assert_eq!(format!("{:?}", id.0), hex);
        for bad in ["", "00", &"g0".repeat(32), &"é0".repeat(32)] {
            assert!(bad.parse::<DiffId>().is_err(), "{bad}");
        }
    }
}
