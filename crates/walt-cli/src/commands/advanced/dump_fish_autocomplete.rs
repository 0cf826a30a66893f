//! `walt advanced dump-fish-autocomplete`: works without a server.

use crate::{error::Failure, ui};
use clap::Args;

/// The script. It asks this program for everything else.
const SCRIPT: &str = include_str!("../../../shells/walt.fish");

/// `walt advanced dump-fish-autocomplete`
#[derive(Debug, Args)]
#[command(after_help = "See 'walt help show shell-completion' for more info.")]
pub struct DumpFishAutocomplete {}

impl DumpFishAutocomplete {
    /// Runs it.
    pub fn run(self) -> Result<(), Failure> {
        Ok(ui::out_text(SCRIPT)?)
    }
}
