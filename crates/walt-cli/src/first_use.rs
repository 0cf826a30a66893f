//! The server to talk to, and the questions of a first use: only if nothing says which server, and somebody can answer.
//!
//! ```text
//! WALT_SERVER, ~/.walt/config, the socket here ─▶ known
//! nothing of these ─▶ no terminal: an error that says what to set
//!                  └▶ ask ─▶ test: info ─▶ save ─▶ known
//!                       ▲────────┘ no answer
//! ```

use crate::{
    error::Failure,
    ui::{Ui, prompt::Dialog},
};
use walt_client::{
    Client, Error, Target,
    config::{self, Config},
};

/// The server of this command.
///
/// # Errors
/// Nothing says which one, or what says it cannot be understood.
pub async fn server(ui: &mut Ui, config: &Config) -> Result<Target, Failure> {
    match Target::chosen(config)? {
        Some(target) => Ok(target),
        None if ui.interactive => ask(ui).await,
        None => Err(Error::NoServer.into()),
    }
}

/// Asks for a server until one answers, and saves it.
async fn ask(ui: &mut Ui) -> Result<Target, Failure> {
    ui.note("No WalT server runs on this machine, and no other one is configured yet: this is asked once.");
    ui.note("Another machine is reached by ssh, with your account there: HOST or USER@HOST.");
    loop {
        let answer = ui.ask("IP or hostname of WalT server: ").await?.line()?;
        let answer = answer.trim();
        if answer.is_empty() {
            continue;
        }
        let target = match Target::configured(answer) {
            Ok(target) => target,
            Err(error) => {
                ui.note(&Failure::from(error).text());
                continue;
            }
        };
        ui.note("Testing provided configuration...");
        let mut client = Client::of(target.clone())?;
        match ui.watch(client.info()).await {
            Ok(info) => ui.note(&format!("OK. You are '{}' there.", info.user)),
            Err(failure @ Failure::Client(Error::Connect { .. } | Error::Broken(_))) => {
                ui.note(&failure.text());
                continue;
            }
            Err(other) => return Err(other),
        }
        match config::keep_server(answer) {
            Ok(path) => ui.note(&format!("Configuration was updated in {}.", path.display())),
            Err(e) => ui.note(&format!("Note: cannot save the configuration: {e}.")),
        }
        return Ok(target);
    }
}
