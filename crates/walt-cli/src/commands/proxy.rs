//! `walt proxy`: the far end of `WALT_SERVER=ssh://…`.

use crate::{
    error::Failure,
    stdio::{Input, Output},
};
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use walt_client::{Connection, Target};

/// Bytes copied at once to standard output.
const COPY_SIZE: usize = 16 << 10;

/// Copies standard input and output from and to the server's socket.
#[derive(Debug, clap::Args)]
pub struct Proxy {}

impl Proxy {
    /// Runs until the server closes.
    pub async fn run(self) -> Result<(), Failure> {
        let stream = Connection::open(&Target::from_env()?).await?;
        let (mut from_server, mut to_server) = tokio::io::split(stream);
        let mut input = Input::new();
        let output = Output::new(&io::stdout())?;
        let up = async {
            loop {
                let bytes = input.bytes().await?;
                if bytes.is_empty() {
                    return to_server.shutdown().await;
                }
                to_server.write_all(&bytes).await?;
            }
        };
        let down = async {
            let mut buffer = vec![0; COPY_SIZE];
            loop {
                let count = from_server.read(&mut buffer).await?;
                if count == 0 {
                    return io::Result::Ok(());
                }
                output.write(&buffer[..count]).await?;
            }
        };
        // Only the server ends the connection: it may still be answering after the end of our input.
        tokio::select! {
            done = down => Ok(done?),
            Err(error) = up => Err(error.into()),
        }
    }
}
