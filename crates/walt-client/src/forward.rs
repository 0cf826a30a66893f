//! `walt node expose`: a port of this machine, whose connections the server forwards to a device.
//!
//! Each connection is a WebSocket on a connection of its own. Its directions end by themselves: a program that has sent
//! everything still gets the answer.

use crate::{Client, Error, Output, Result, TerminalInput, TerminalOutput};
use futures_util::{StreamExt, stream::FuturesUnordered};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use walt_api::term::{ClientMessage, NodeTerminal, OpenNodeTerminal, ServerMessage};

/// Connections that are forwarded at the same time; more wait in the kernel's queue.
pub const MAX_CONNECTIONS: usize = 128;
/// Bytes read from a program at once.
const CHUNK: usize = 16 << 10;
/// Pause after the kernel refused to accept a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// What happened to a connection.
#[derive(Debug)]
pub enum Event {
    /// The device has accepted it.
    Forwarded,
    /// It did not get there, or broke.
    Failed(Error),
}

/// Accepts connections and forwards them to a port of a device, without end. `report` hears of each.
pub async fn serve(
    client: &Client,
    listener: &TcpListener,
    device: &str,
    port: u16,
    report: impl Fn(Event),
) -> ! {
    let mut running = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if running.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => running.push(connection(client, stream, device, port, &report)),
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            Some(ended) = running.next() => {
                if let Err(error) = ended {
                    report(Event::Failed(error));
                }
            }
        }
    }
}

async fn connection(
    client: &Client,
    stream: TcpStream,
    device: &str,
    port: u16,
    report: &impl Fn(Event),
) -> Result<()> {
    let what = NodeTerminal::Connect { port };
    let open = OpenNodeTerminal { node: device.to_owned(), what, tty: None, confirm: None };
    let (input, mut output) = client.node_terminal(&open).await?;
    match output.next().await? {
        Some(Output::Message(ServerMessage::Started { .. })) => report(Event::Forwarded),
        Some(Output::Message(ServerMessage::Error { error })) => return Err(error.into()),
        _ => return Err(Error::ended_early()),
    }
    // Where that fails, the connection is only slower.
    let _ = stream.set_nodelay(true);
    let (reader, writer) = stream.into_split();
    let up = async {
        // Kept open: the other direction says when all is over.
        let _input = upwards(reader, input).await?;
        std::future::pending().await
    };
    tokio::select! {
        ended = up => ended,
        ended = downwards(output, writer) => ended,
    }
}

fn local(error: io::Error) -> Error {
    Error::broken("the program that was connected is gone", error)
}

async fn upwards(mut reader: OwnedReadHalf, mut input: TerminalInput) -> Result<TerminalInput> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match reader.read(&mut buffer).await.map_err(local)? {
            0 => break,
            n => input.bytes(&buffer[..n]).await?,
        }
    }
    input.message(&ClientMessage::Eof).await?;
    Ok(input)
}

async fn downwards(mut output: TerminalOutput, mut writer: OwnedWriteHalf) -> Result<()> {
    loop {
        match output.next().await? {
            Some(Output::Stdout(bytes)) => writer.write_all(&bytes).await.map_err(local)?,
            Some(Output::Message(ServerMessage::Eof)) => writer.shutdown().await.map_err(local)?,
            Some(Output::Message(ServerMessage::Exited { .. })) => return Ok(()),
            Some(Output::Message(ServerMessage::Error { error })) => return Err(error.into()),
            Some(
                Output::Stderr(_) | Output::NodeStdout(..) | Output::NodeStderr(..) | Output::Message(_),
            ) => {}
            None => return Err(Error::ended_early()),
        }
    }
}
