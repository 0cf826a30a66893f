//! Options that several commands have.

use clap::Args;

/// The switch of commands that may ask for a confirmation.
#[derive(Debug, Args)]
pub struct Confirmed {
    /// answer yes to all confirmations
    #[arg(short, long)]
    pub yes: bool,
}
