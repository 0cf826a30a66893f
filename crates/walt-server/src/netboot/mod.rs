//! Network boot: what nodes are served on walt-net before their root is mounted.
//!
//! ```text
//!  DHCP ──▶ loader (TFTP) ──▶ bootstrap.ipxe ──▶ start.ipxe … ──▶ kernel, initrd (HTTP)
//!                                  └──────────── all of them by files::open ────────────┘
//! ```
//! A port that another program holds is reported and done without: virtual nodes that are started directly
//! need none of this.
//!
//! Limits: see each module.

pub mod bootstrap;
pub mod files;
pub mod http;

use crate::{App, config::Config, run::listen};
use anyhow::Result;
use std::sync::Arc;
use tokio::task::JoinHandle;

/// The sockets that could be had.
pub struct Sockets {
    http: Option<std::net::TcpListener>,
}

impl Sockets {
    /// Binds them on the bridge; what cannot be had is a warning.
    pub fn bind(config: &Config) -> Self {
        let http = listen(config, http::PORT, "HTTP boot")
            .inspect_err(|e| tracing::warn!("{e:#}; nodes cannot load kernels over the network"))
            .ok();
        Self { http }
    }

    /// Serves on them, each in a task.
    ///
    /// # Errors
    /// The kernel refuses a socket.
    pub fn serve(self, app: &Arc<App>) -> Result<Vec<JoinHandle<()>>> {
        let mut tasks = Vec::new();
        if let Some(listener) = self.http {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tasks.push(tokio::spawn(http::serve(app.clone(), listener, http::LIMITS)));
        }
        Ok(tasks)
    }
}
