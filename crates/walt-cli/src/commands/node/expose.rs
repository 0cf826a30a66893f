//! `walt node expose`

use super::access;
use crate::{
    context::Context,
    error::Failure,
    terminal::{End, Mode},
    ui::{self, Interrupt},
};
use clap::Args;
use std::net::{IpAddr, Ipv4Addr};
use tokio::net::TcpListener;
use walt_api::term::NodeTerminal;
use walt_client::{
    Client, Error,
    forward::{self, Event},
};

/// `walt node expose`
#[derive(Debug, Args)]
pub struct Expose {
    node_name: String,
    /// TCP port of the node
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    node_port: u16,
    #[command(flatten)]
    local: Local,
}

/// Where the port is exposed.
#[derive(Debug, Args)]
pub struct Local {
    /// TCP port of this machine; 0 selects a free one
    local_port: u16,
    /// address of this machine to listen on, such as 0.0.0.0 for all; only programs of this machine reach the default
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    listen: IpAddr,
}

impl Expose {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        expose(context, &self.node_name, NodeTerminal::Reach, self.node_port, &self.local, false).await
    }
}

/// Exposes a port of a node or of another device, once `reach` says that it is there, until ctrl-C.
pub async fn expose(
    context: &mut Context,
    name: &str,
    reach: NodeTerminal,
    port: u16,
    local: &Local,
    yes: bool,
) -> Result<(), Failure> {
    match access::open(context, name, reach, None, Mode::NoInput, yes).await? {
        End::Exited(0) => {}
        end => return access::result(end),
    }
    let wanted = local.local_port;
    let listener = TcpListener::bind((local.listen, wanted))
        .await
        .map_err(|e| Failure::new(format!("Could not open TCP port {wanted}: {e}")))?;
    let open = listener.local_addr()?.port();
    ui::out(&format!("Listening on TCP port {open} and redirecting connections to {name}:{port}."))?;
    let client: &Client = &context.client;
    tokio::select! {
        never = forward::serve(client, &listener, name, port, report) => never,
        interrupt = context.ui.signals.next() => match interrupt {
            // The normal end of this command.
            Interrupt::Interrupted => Ok(()),
            other => Err(other.failure()),
        },
    }
}

fn report(event: Event) {
    match event {
        // Connections go on when standard output is closed.
        Event::Forwarded => drop(ui::out("New connection forwarded to node.")),
        Event::Failed(Error::Api(error)) => ui::note(&error.message),
        Event::Failed(error) => ui::note(&format!("A connection ended: {error}.")),
    }
}
