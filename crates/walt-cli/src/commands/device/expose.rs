//! `walt device expose`

use crate::{
    commands::{
        node::expose::{Local, expose},
        options::Confirmed,
    },
    context::Context,
    error::Failure,
};
use clap::Args;
use walt_api::term::NodeTerminal;

/// `walt device expose`
#[derive(Debug, Args)]
pub struct Expose {
    device_name: String,
    /// TCP port of the device
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    device_port: u16,
    #[command(flatten)]
    local: Local,
    #[command(flatten)]
    confirmed: Confirmed,
}

impl Expose {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let (name, port) = (&self.device_name, self.device_port);
        expose(context, name, NodeTerminal::ReachDevice, port, &self.local, self.confirmed.yes).await
    }
}
