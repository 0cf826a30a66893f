//! The server as a whole: its services, and nothing else.

use crate::{
    base::{
        config::Config,
        db::Db,
        failure::{Failure, Outcome},
        state::Base,
        state_lock::StateLock,
    },
    services::{
        devices::Devices, images::Images, live::Live, logs::Logs, nodes::Nodes, outside::Outside,
        process::Process, registries::Registries, sessions::Sessions,
    },
};
use anyhow::Result;
use std::sync::Arc;
use walt_images::Store;
use walt_types::UserName;

/// The services of one server. A service takes the services it needs, never this.
pub struct App {
    base: Arc<Base>,
    devices: Devices,
    images: Arc<Images>,
    live: Arc<Live>,
    logs: Arc<Logs>,
    nodes: Arc<Nodes>,
    outside: Outside,
    sessions: Arc<Sessions>,
    registries: Arc<Registries>,
    process: Process,
}

impl App {
    /// Opens the state of a server whose lock is held.
    ///
    /// # Errors
    /// Part of it cannot be used; the error says which and why.
    pub fn open(config: Config, held: &StateLock) -> Result<Self> {
        let base = Arc::new(Base::open(config, held)?);
        let images = Arc::new(Images::open(base.clone())?);
        Ok(Self {
            devices: Devices::new(base.clone()),
            logs: Arc::new(Logs::open(base.clone())?),
            nodes: Arc::new(Nodes::new(base.clone(), images.clone())),
            outside: Outside::new(base.clone()),
            sessions: Arc::new(Sessions::new(base.clone(), images.clone())),
            registries: Arc::new(Registries::new(base.clone())),
            process: Process::start(),
            live: Live::new(base.db().changes().clone()),
            images,
            base,
        })
    }

    /// The state below the services.
    pub fn base(&self) -> &Base {
        &self.base
    }

    /// Configuration.
    pub fn config(&self) -> &Config {
        self.base.config()
    }

    /// Database.
    pub fn db(&self) -> &Db {
        self.base.db()
    }

    /// Image store.
    pub fn store(&self) -> &Store {
        self.images.store()
    }

    /// Images.
    pub fn images(&self) -> &Arc<Images> {
        &self.images
    }

    /// The state as its listeners see it.
    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// Log lines.
    pub fn logs(&self) -> &Arc<Logs> {
        &self.logs
    }

    /// Devices that show up by DHCP.
    pub fn devices(&self) -> &Devices {
        &self.devices
    }

    /// Nodes.
    pub fn nodes(&self) -> &Arc<Nodes> {
        &self.nodes
    }

    /// What leads out of walt-net and into it.
    pub fn outside(&self) -> &Outside {
        &self.outside
    }

    /// Image shells, and containers of builds.
    pub fn sessions(&self) -> &Arc<Sessions> {
        &self.sessions
    }

    /// Registries.
    pub fn registries(&self) -> &Arc<Registries> {
        &self.registries
    }

    /// This process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Checks the consent of the user: if there are warnings, the token must be that of this operation in this state.
    ///
    /// # Errors
    /// The question, with the token that answers it.
    pub fn confirmed(
        &self,
        caller: &UserName,
        operation: &str,
        facts: &str,
        given: Option<&str>,
        warnings: Vec<String>,
    ) -> Outcome<()> {
        let facts = format!("{facts}\n{}", warnings.join("\n"));
        let token = self.base.confirmation(caller, operation, &facts);
        if warnings.is_empty() || given == Some(token.as_str()) {
            return Ok(());
        }
        Err(Failure::Question { warnings, token })
    }
}

#[cfg(test)]
#[allow(missing_docs)] // for the tests of the floors above
pub mod tests {
    use super::*;

    /// A server on the directories of a test. Its lock is released, since nobody else uses them.
    pub fn open(config: Config) -> Result<App> {
        let lock = StateLock::take(&config.state_dir)?;
        App::open(config, &lock)
    }
}
