//! The sockets of port 80 and of `web.listen`.

use crate::{
    actions::app::App,
    base::{
        ports,
        sockets::{listen_anywhere, listen_at},
    },
    edge::web::{Door, LIMITS, PORT, serve},
};
use anyhow::Result;
use std::{net::TcpListener, sync::Arc};
use tokio::task::JoinHandle;

/// The listeners that could be bound.
pub struct Sockets {
    walt_net: Option<TcpListener>,
    listen: Option<TcpListener>,
}

impl Sockets {
    /// Binds the listeners; a failure is a warning.
    pub fn bind(app: &App) -> Self {
        let config = app.config();
        // At its address only: `web.listen` may name another address of the machine and the same port.
        let walt_net = listen_at(config, config.server_ip(), PORT, "HTTP boot").inspect_err(|_| {
            let effect = "nodes cannot load kernels over the network";
            app.base().ports_missing().add("HTTP boot", "tcp", PORT, effect);
        });
        let listen = config.web.listen.and_then(|at| {
            let bound = listen_anywhere(at).inspect_err(|e| {
                tracing::warn!("web.listen: cannot listen on {at}: {e}; {}", ports::holder_text(at, "tcp"));
                let effect = "the web API and the help pages are not at web.listen";
                app.base().ports_missing().add("the web server", "tcp", at.port(), effect);
            });
            bound.ok()
        });
        Self { walt_net: walt_net.ok(), listen }
    }

    /// Serves on the listeners, each in a task.
    ///
    /// # Errors
    /// A socket cannot be used.
    pub fn serve(self, app: &Arc<App>) -> Result<Vec<JoinHandle<()>>> {
        let mut tasks = Vec::new();
        for (listener, door) in [(self.walt_net, Door::WaltNet), (self.listen, Door::Listen)] {
            let Some(listener) = listener else { continue };
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tasks.push(tokio::spawn(serve(app.clone(), listener, door, LIMITS)));
        }
        Ok(tasks)
    }
}
