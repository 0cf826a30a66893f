//! The consoles of virtual nodes as streams: their bytes as they are, in pieces.
//!
//! What has been stored is remembered with the lines themselves ([`Mark`]): a new server goes on where the last one
//! stopped. The log of a console starts again at zero when it has become too long; the stream goes on.

use crate::{
    base::{db::blocking, time},
    services::{
        logs::{Logs, source_id},
        nodes::{Nodes, vnode},
    },
};
use std::{collections::HashMap, sync::Arc, time::Duration};
use walt_logs::{Mark, Mode};
use walt_types::Mac;
use walt_vnode::console::Follower;

/// Name of the stream.
pub const STREAM: &str = "virtualconsole";
/// How often consoles are read.
const INTERVAL: Duration = Duration::from_millis(500);
/// Longest piece, in bytes.
const PIECE: u64 = 32 * 1024;
/// Most pieces of one console each time: a guest that floods its console loses the rest when its log is cut.
const PIECES: usize = 16;

/// Follows all consoles, for ever.
pub async fn run(logs: Arc<Logs>, nodes: Arc<Nodes>) {
    let mut followers: HashMap<Mac, Follower> = HashMap::new();
    loop {
        tokio::time::sleep(INTERVAL).await;
        let known = nodes.supervisors().supervised();
        followers.retain(|mac, _| known.contains(mac));
        for mac in known {
            let follower = followers.entry(mac).or_insert_with(|| {
                let stored = logs.store().position(source(mac)).unwrap_or(0);
                vnode::log_of(&nodes, mac).follow_from(stored)
            });
            copy(&logs, mac, follower).await;
        }
    }
}

async fn copy(logs: &Logs, mac: Mac, follower: &mut Follower) {
    for _ in 0..PIECES {
        let bytes = match blocking(|| follower.read(PIECE)) {
            Ok(bytes) if !bytes.is_empty() => bytes,
            Ok(_) => return,
            Err(e) => {
                tracing::debug!(%mac, "the console is not read: {e}");
                return;
            }
        };
        let stored = async {
            let mut stream = logs.stream(mac, STREAM, Mode::Chunk)?;
            stream.push_always(time::now_micros(), &bytes);
            let mark = Mark { source: source(mac), position: follower.offset() };
            logs.begin_append(stream.take(), Some(mark)).await
        };
        if let Err(e) = stored.await {
            tracing::debug!(%mac, "a piece of the console is not stored: {e}");
            return;
        }
    }
}

/// What the position of a console is stored under.
fn source(mac: Mac) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"console").update(&mac.0);
    source_id(&hasher)
}
