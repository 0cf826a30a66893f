//! The vocabulary of WalT: names, addresses, references and digests, each with its grammar.
//!
//! A value of these types is valid by construction: it is parsed once, at the edge, and not checked again. The error of
//! every parser is one sentence that can be shown to users.
//!
//! Limits: node names 2 to 63 characters (a DNS label, RFC 1035), user names 1 to 32 (`useradd(8)`),
//! image names and tags 1 to 128 (OCI distribution specification), tags of clients 1 to 64,
//! names of checkpoints 2 to 64.

mod checkpoint;
mod client_tag;
mod device;
mod digest;
mod disks;
mod expose;
mod image_ref;
mod mac;
mod names;
mod net_setup;
pub mod networks;
pub mod node_set;
pub mod patterns;
pub mod shell;
mod span;

pub use checkpoint::CheckpointName;
pub use client_tag::ClientTag;
pub use device::DeviceType;
pub use digest::{DiffId, Hash256, ImageId, ViewId};
pub use disks::{DISKS_MAX, Disk, Disks, GIGABYTES_MAX, GIGABYTES_MAX_TEMPLATE, Template};
pub use expose::{EXPOSES_MAX, Expose, Exposes};
pub use image_ref::{DEFAULT_TAG, ImageName, ImageRef, PLATFORM_USER};
pub use mac::Mac;
pub use names::{Model, NodeName, UserName};
pub use net_setup::NetSetup;
pub use networks::{NetworkName, Networks, Shape};
pub use span::{LeaseChange, Span};

/// Why a text could not be parsed. `Display` is a full sentence without a final stop.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(pub String);

/// Implements `FromStr`, `Display`, serde (as a string) and ordering helpers for a validated string type.
macro_rules! string_type {
    ($name:ident, $check:path) => {
        impl std::str::FromStr for $name {
            type Err = crate::ParseError;
            fn from_str(s: &str) -> Result<Self, Self::Err> {
                $check(s)?;
                Ok(Self(s.to_owned()))
            }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(&self.0)
            }
        }
        impl $name {
            /// The value as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        crate::serde_by_text!($name);
    };
}
pub(crate) use string_type;

/// Serialises by `Display` and deserialises by `FromStr`.
macro_rules! serde_by_text {
    ($name:ident) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = String::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use serde_by_text;
