//! `walt registry login`

use super::serve::PORT;
use crate::{context::Context, error::Failure, ui};
use clap::Args;
use walt_client::credentials::login;

/// `walt registry login`
#[derive(Debug, Args)]
pub struct Login {
    /// port of 'walt registry serve'
    #[arg(long, value_name = "PORT:int", default_value_t = PORT)]
    port: u16,
}

impl Login {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let token = context.ui.watch(context.client.registry_token()).await?;
        let hosts = ["127.0.0.1", "localhost"].map(|host| format!("{host}:{}", self.port));
        let path = login::keep(&hosts, &token.credentials)
            .map_err(|e| Failure::new(format!("cannot write the token: {e}.")))?;
        ui::out(&format!(
            "Login for {} was written to {}; it is valid for {} hours.",
            hosts.join(" and "),
            path.display(),
            token.seconds / 3600
        ))?;
        Ok(())
    }
}
