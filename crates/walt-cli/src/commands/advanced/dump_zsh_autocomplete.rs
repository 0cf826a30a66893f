//! `walt advanced dump-zsh-autocomplete`: works without a server.

use crate::{error::Failure, ui};
use clap::Args;

/// The script. It asks this program for everything else.
const SCRIPT: &str = include_str!("../../../shells/walt.zsh");

/// `walt advanced dump-zsh-autocomplete`
#[derive(Debug, Args)]
#[command(after_help = "See 'walt help show shell-completion' for more info.")]
pub struct DumpZshAutocomplete {}

impl DumpZshAutocomplete {
    /// Runs it.
    pub fn run(self) -> Result<(), Failure> {
        Ok(ui::out_text(SCRIPT)?)
    }
}
