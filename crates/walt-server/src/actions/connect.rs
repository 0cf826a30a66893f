//! `walt node expose`, `walt device expose`: one TCP connection of a client to a device, through the server.

use crate::{
    actions::{app::App, device_actions::named, device_list::AnyDevice},
    base::{
        failure::{Outcome, refused},
        terminal::{FromClient, Input, ToClient},
    },
    services::outside::proxy,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Notify,
};
use walt_api::term::{ClientMessage, STDOUT, ServerMessage};
use walt_types::node_set::Candidate;

/// Bytes read from a device at once.
const CHUNK: usize = 16 << 10;
/// Why the server's ports cannot be reached in this way.
pub const NOT_THE_SERVER: &str = "the ports of the server cannot be exposed: they are there already.";

/// Forwards a connection until both directions have ended, or the client is gone.
///
/// # Errors
/// The device cannot be reached.
pub async fn serve(app: &App, name: &str, port: u16, to: &ToClient, from: &mut FromClient) -> Outcome<i32> {
    let device = named(app, name)?;
    if let AnyDevice::Server(_) = device {
        return Err(refused(NOT_THE_SERVER));
    }
    let ip = device.ip().ok_or_else(|| {
        refused(format!("{} has no address now: another device has got it.", device.name()))
    })?;
    let stream = proxy::connect(ip, port).await.map_err(|e| {
        tracing::debug!(%name, "expose: cannot connect to {ip}:{port}: {e}");
        refused(format!("Could not connect to {ip}:{port}!"))
    })?;
    to.message(&ServerMessage::Started { session: None, os: false }).await;
    let (mut reader, mut writer) = stream.into_split();
    let up_ended = Notify::new();
    // Until the client is gone, which ends the connection.
    let up = async {
        let mut is_open = true;
        while let Some(input) = from.next().await {
            match input {
                Input::Bytes(bytes) if is_open => writer.write_all(&bytes).await?,
                Input::Message(ClientMessage::Eof) if is_open => {
                    is_open = false;
                    writer.shutdown().await?;
                    up_ended.notify_one();
                }
                Input::Bytes(_) | Input::Message(_) => {}
            }
        }
        Ok(1)
    };
    let down = async {
        let mut buffer = vec![0; CHUNK];
        while let n @ 1.. = reader.read(&mut buffer).await? {
            if !to.output(STDOUT, &buffer[..n]).await {
                return Ok(1);
            }
        }
        to.message(&ServerMessage::Eof).await;
        up_ended.notified().await;
        Ok(0)
    };
    tokio::select! {
        status = up => status,
        status = down => status,
    }
}
