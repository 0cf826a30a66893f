//! `walt advanced dump-bash-autocomplete`: works without a server.

use crate::{error::Failure, ui};
use clap::Args;

/// The script. It asks this program for everything else.
const SCRIPT: &str = include_str!("../../../shells/walt.bash");

/// `walt advanced dump-bash-autocomplete`
#[derive(Debug, Args)]
#[command(after_help = "See 'walt help show shell-completion' for more info.")]
pub struct DumpBashAutocomplete {}

impl DumpBashAutocomplete {
    /// Runs it.
    pub fn run(self) -> Result<(), Failure> {
        Ok(ui::out_text(SCRIPT)?)
    }
}
