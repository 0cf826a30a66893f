//! The table of settings for the help page `device-config`.

use super::{Effect, Holders, SETTINGS, Setting};
use std::fmt::Write;

impl Holders {
    /// Who that is, for the help page.
    fn words(self) -> &'static str {
        match self {
            Self::Devices => "devices of walt-net except the server",
            Self::Nodes => "nodes",
            Self::VirtualNodes => "virtual nodes",
            Self::Pcs => "physical nodes of model pc-x86-64",
        }
    }
}

impl Effect {
    /// When that is, for the help page.
    fn words(self) -> &'static str {
        match self {
            Self::AtOnce => "at once",
            Self::Boot => "when the node boots",
            Self::Start => "when the virtual machine starts",
        }
    }
}

/// The part of the help page that describes each setting.
pub fn page() -> String {
    let mut text = String::from("| setting | of | default | takes effect |\n|---|---|---|---|\n");
    let row = |s: &Setting| {
        format!("| `{}` | {} | `{}` | {} |\n", s.key, s.holders.words(), s.default, s.effect.words())
    };
    SETTINGS.iter().for_each(|s| text += &row(s));
    for s in SETTINGS {
        // Writing to a String cannot fail.
        let _ = write!(text, "\n**{}**: {}.\n{}\n", s.key, s.grammar, s.help);
    }
    text
}
