//! `walt registry serve`

use crate::{
    context::Context,
    error::Failure,
    ui::{self, Interrupt},
};
use clap::Args;
use std::net::{Ipv4Addr, SocketAddrV4};
use tokio::net::TcpListener;
use walt_client::tunnel;

/// The default port.
pub const PORT: u16 = 5050;

/// `walt registry serve`
#[derive(Debug, Args)]
pub struct Serve {
    /// port on 127.0.0.1; 0 selects a free one
    #[arg(long, value_name = "PORT:int", default_value_t = PORT)]
    port: u16,
}

impl Serve {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        // Report a missing server now, not to the first client.
        context.ui.watch(context.client.info()).await?;
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.port);
        let listener = TcpListener::bind(address).await.map_err(|e| {
            Failure::with_hint(
                format!("cannot open port {}: {e}.", self.port),
                "Use --port PORT to select another one.",
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
                // The normal end of this command.
                Interrupt::Interrupted => Ok(()),
                other => Err(other.failure()),
            },
        }
    }
}
