//! Receives the input of a build: one stream of bytes with the Dockerfile, the secrets, and the context as a tar.

use crate::{
    actions::app::App,
    base::{
        failure::{Outcome, bad_request, refused},
        terminal::{FromClient, Input},
    },
};
use anyhow::Context;
use std::{collections::BTreeMap, io::Read, sync::Arc};
use tokio::sync::mpsc;
use walt_api::{
    build::{MAX_DOCKERFILE, MAX_SECRET, MAX_SECRETS, OpenImageBuild},
    term::ClientMessage,
};
use walt_images::Unpacked;

/// Messages that may wait to be unpacked before the client waits.
const QUEUE: usize = 16;

/// The input of a build.
pub struct Received {
    /// The Dockerfile.
    pub dockerfile: Vec<u8>,
    /// Contents by id.
    pub secrets: BTreeMap<String, Vec<u8>>,
    /// The context, not in the store yet.
    pub context: Unpacked,
}

/// Bytes from the client, to be read in a thread that may block.
struct Incoming {
    queue: mpsc::Receiver<Vec<u8>>,
    current: std::io::Cursor<Vec<u8>>,
}

impl Read for Incoming {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        loop {
            match self.current.read(out)? {
                0 if out.is_empty() => return Ok(0),
                0 => match self.queue.blocking_recv() {
                    Some(bytes) => self.current = std::io::Cursor::new(bytes),
                    None => return Ok(0),
                },
                n => return Ok(n),
            }
        }
    }
}

/// Receives everything.
pub async fn all(app: &Arc<App>, open: &OpenImageBuild, from: &mut FromClient) -> Outcome<Received> {
    if open.dockerfile_size > MAX_DOCKERFILE {
        return Err(bad_request(format!("the Dockerfile is larger than {MAX_DOCKERFILE} bytes")));
    }
    if open.secrets.len() > MAX_SECRETS || open.secrets.iter().any(|s| s.size > MAX_SECRET) {
        return Err(bad_request(format!(
            "a build can have at most {MAX_SECRETS} secrets of at most {MAX_SECRET} bytes each"
        )));
    }
    let (send, queue) = mpsc::channel(QUEUE);
    let worker = Arc::clone(app);
    let sizes = (open.dockerfile_size, open.secrets.clone());
    let unpacking = tokio::task::spawn_blocking(move || {
        let mut input = Incoming { queue, current: std::io::Cursor::new(Vec::new()) };
        let mut take = |size: u64| -> anyhow::Result<Vec<u8>> {
            let mut bytes = vec![0; size as usize];
            input.read_exact(&mut bytes).context("the client disconnected before it had sent everything")?;
            Ok(bytes)
        };
        let dockerfile = take(sizes.0)?;
        let mut secrets = BTreeMap::new();
        for secret in &sizes.1 {
            secrets.insert(secret.id.clone(), take(secret.size)?);
        }
        let context = worker.store().unpack_tar(input)?;
        anyhow::Ok((dockerfile, secrets, context))
    });
    let mut whole = false;
    loop {
        match from.next().await {
            // If unpacking has failed, the rest is read and dropped, so that the client receives the reason.
            Some(Input::Bytes(bytes)) => drop(send.send(bytes).await),
            Some(Input::Message(ClientMessage::Eof)) => {
                whole = true;
                break;
            }
            Some(Input::Message(_)) => {}
            None => break,
        }
    }
    drop(send);
    let unpacked = unpacking.await.context("the task that unpacks the context ended abnormally")?;
    if !whole {
        return Err(refused("the client disconnected before it had sent everything"));
    }
    let (dockerfile, secrets, context) = unpacked.map_err(|e| match e.downcast::<walt_images::Error>() {
        Ok(e @ walt_images::Error::Layer(_)) => {
            refused(format!("cannot use the content of the directory: {e}"))
        }
        Ok(e) => anyhow::Error::new(e).into(),
        Err(e) => e.into(),
    })?;
    Ok(Received { dockerfile, secrets, context })
}
