//! `walt registry …`: the server's own registry.

use super::Context;
use crate::error::Failure;
use crate::ui::{self, Interrupt};
use clap::{Args, Subcommand};
use std::net::{Ipv4Addr, SocketAddrV4};
use tokio::net::TcpListener;
use walt_client::{credentials::login, tunnel};

/// Port that is used if none is given.
const PORT: u16 = 5050;

/// Commands of the category, in the order of the help.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// open a port of this machine for docker, podman and other WalT servers
    Serve(Serve),
    /// let docker and podman of this account in there, for some hours
    Login(Login),
}

impl Command {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        match self {
            Self::Serve(command) => command.run(context).await,
            Self::Login(command) => command.run(context).await,
        }
    }
}

/// `walt registry serve`
#[derive(Debug, Args)]
pub struct Serve {
    /// port of 127.0.0.1; 0 takes a free one
    #[arg(long, value_name = "PORT:int", default_value_t = PORT)]
    port: u16,
}

impl Serve {
    async fn run(self, context: &mut Context) -> Result<(), Failure> {
        // A server that is not there is told now, not to the first client.
        context.ui.watch(context.client.info()).await?;
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.port);
        let listener = TcpListener::bind(address).await.map_err(|e| {
            Failure::with_hint(
                format!("port {} cannot be opened: {e}.", self.port),
                "--port PORT takes another one.",
            )
        })?;
        let address = listener.local_addr()?;
        ui::out(&format!("The images of the server can be read at {address}, until ctrl-C."))?;
        let port = match address.port() {
            PORT => String::new(),
            other => format!(" --port {other}"),
        };
        ui::note(&format!(
            "Tip: 'walt registry login{port}', then: podman pull --tls-verify=false {address}/<user>/<name>"
        ));
        let target = context.client.target().clone();
        tokio::select! {
            ended = tunnel::serve(listener, target) => Ok(ended?),
            interrupt = context.ui.signals.next() => match interrupt {
                // The way in which it ends.
                Interrupt::Interrupted => Ok(()),
                other => Err(other.failure()),
            },
        }
    }
}

/// `walt registry login`
#[derive(Debug, Args)]
pub struct Login {
    /// port of 'walt registry serve'
    #[arg(long, value_name = "PORT:int", default_value_t = PORT)]
    port: u16,
}

impl Login {
    async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let token = context.ui.watch(context.client.registry_token()).await?;
        let hosts = ["127.0.0.1", "localhost"].map(|host| format!("{host}:{}", self.port));
        let path = login::keep(&hosts, &token.credentials)
            .map_err(|e| Failure::new(format!("the token could not be written: {e}.")))?;
        ui::out(&format!(
            "Login for {} was written to {}; it counts for {} hours.",
            hosts.join(" and "),
            path.display(),
            token.seconds / 3600
        ))?;
        Ok(())
    }
}
