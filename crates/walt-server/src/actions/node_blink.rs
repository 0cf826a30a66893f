//! `walt node blink`: a program of the image makes the node's lights blink, so that a person finds it.
//!
//! The node is told to stop in all cases: at the end of the time, and when the client is gone. If this server dies, the node
//! stops by itself, since its link is lost (`node/walt-node-link`).

use crate::{
    actions::{app::App, node_actions::Request, ownership::one_node, reboot::wait_booted},
    base::failure::{Outcome, bad_request, refused},
};
use std::{sync::Arc, time::Duration};
use walt_types::Mac;

/// Longest time to blink, in seconds: a day.
const SECONDS_MAX: u64 = 86_400;
/// The command of the node link.
const BLINK: &str = "BLINK 1";
const STOP: &str = "BLINK 0";

/// Tells the node to stop when it is dropped before [`Blinking::stop`].
struct Blinking {
    app: Arc<App>,
    mac: Mac,
    is_stopped: bool,
}

impl Blinking {
    async fn stop(mut self) -> Result<(), String> {
        self.app.nodes().hub().command(self.mac, None, STOP).await.inspect(|()| self.is_stopped = true)
    }
}

impl Drop for Blinking {
    fn drop(&mut self) {
        if self.is_stopped {
            return;
        }
        let (app, mac) = (self.app.clone(), self.mac);
        tokio::spawn(async move {
            if let Err(reason) = app.nodes().hub().command(mac, None, STOP).await {
                tracing::debug!(%mac, "cannot stop blinking: {reason}");
            }
        });
    }
}

impl Request<'_> {
    pub(super) async fn blink(&self, node: &str, seconds: u64) -> Outcome<bool> {
        if !(1..=SECONDS_MAX).contains(&seconds) {
            return Err(bad_request(format!("the duration must be 1 to {SECONDS_MAX} seconds.")));
        }
        let node = one_node(self.app, self.caller, node)?;
        self.events.busy("Node bootup notification pending").await;
        wait_booted(self.app, &[node.mac], None).await?;
        let failed = |reason| refused(format!("Blink request to {} failed: {reason}.", node.facts.name));
        let blinking = Blinking { app: self.app.clone(), mac: node.mac, is_stopped: false };
        self.app.nodes().hub().command(node.mac, None, BLINK).await.map_err(failed)?;
        self.events.out(format!("blinking for {seconds}s...")).await;
        self.events.busy("Blinking").await;
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        blinking.stop().await.map_err(failed)?;
        self.events.out("done.").await;
        Ok(true)
    }
}
