//! `walt device ping`

use crate::{commands::node::ping::ping, context::Context, error::Failure};
use clap::Args;
use walt_api::term::NodeTerminal;

/// `walt device ping`
#[derive(Debug, Args)]
pub struct Ping {
    device_name: String,
}

impl Ping {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        ping(context, &self.device_name, NodeTerminal::PingDevice).await
    }
}
