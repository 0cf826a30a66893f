//! `walt node console`: output comes from qemu's log file, input goes through its socket.

use crate::{
    actions::app::App,
    base::{
        db::{NodeRow, blocking},
        failure::{Outcome, refused},
        terminal::{FromClient, Input, ToClient},
    },
    services::nodes::vnode,
};
use std::time::Duration;
use walt_api::term::{STDOUT, ServerMessage};
use walt_vnode::console::Keyboard;

/// Bytes of earlier output that are shown first: about a screen.
const HISTORY: u64 = 4 << 10;
/// Largest piece sent at once, in bytes.
const CHUNK: u64 = 16 << 10;
/// How often the log is polled.
const POLL: Duration = Duration::from_millis(50);

/// Serves one client until it goes. Any number may watch.
pub async fn serve(app: &App, node: &NodeRow, to: &ToClient, from: &mut FromClient) -> Outcome<i32> {
    if !node.facts.is_virtual {
        return Err(refused("Error: console is only available on virtual nodes."));
    }
    let failed = |e: walt_vnode::Error| anyhow::Error::new(e).context("cannot read the console");
    let log = vnode::log_of(app.nodes(), node.mac);
    let mut follower = blocking(|| log.follow(HISTORY)).map_err(failed)?;
    to.message(&ServerMessage::Started { session: None, os: false }).await;
    let mut keyboard: Option<Keyboard> = None;
    let mut poll = tokio::time::interval(POLL);
    loop {
        tokio::select! {
            _ = poll.tick() => loop {
                let bytes = blocking(|| follower.read(CHUNK)).map_err(failed)?;
                if bytes.is_empty() {
                    break;
                }
                if !to.output(STDOUT, &bytes).await {
                    return Ok(0);
                }
            },
            input = from.next() => match input {
                None => return Ok(0),
                Some(Input::Bytes(bytes)) => {
                    let socket = app.nodes().node_dir(node.mac).join("console.sock");
                    let typed = blocking(|| {
                        if keyboard.is_none() {
                            keyboard = Some(Keyboard::new(socket)?);
                        }
                        keyboard.as_ref().map_or(Ok(()), |k| k.type_bytes(&bytes))
                    });
                    if let Err(e) = typed {
                        // The machine restarts: this input is lost, the next key opens the new socket.
                        tracing::debug!(node = %node.facts.name, "console: {e}");
                        keyboard = None;
                    }
                }
                Some(Input::Message(_)) => {}
            },
        }
    }
}
