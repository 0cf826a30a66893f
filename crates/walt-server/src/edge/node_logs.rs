//! Log lines that nodes upload (`REQ_NEW_INCOMING_LOGS` on the port of the node link).
//!
//! They are written to the server's own log, with the name of the node and the stream.

use crate::{actions::app::App, base::db::NodeRow};
use anyhow::{Context, Result, bail};
use std::net::Ipv4Addr;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

/// Longest log line, in bytes; longer lines are split.
const LINE_MAX: u64 = 4096;

async fn line(reader: &mut (impl AsyncBufRead + Unpin)) -> Result<Option<String>> {
    let mut bytes = Vec::new();
    reader.take(LINE_MAX).read_until(b'\n', &mut bytes).await?;
    if bytes.is_empty() {
        return Ok(None);
    }
    Ok(Some(String::from_utf8_lossy(&bytes).trim_end_matches(['\n', '\r']).to_owned()))
}

/// Receives one stream: its name, its mode, lines, `CLOSE`.
pub async fn receive(app: &App, ip: Ipv4Addr, reader: &mut (impl AsyncBufRead + Unpin)) -> Result<()> {
    let node = app.db().with(|c| NodeRow::by_ip(c, ip))?.with_context(|| format!("{ip} is not a node"))?;
    let stream = line(reader).await?.context("no stream name")?;
    let timestamps = match line(reader).await?.as_deref() {
        Some("NO_TIMESTAMPS") => false,
        Some("TIMESTAMPS_INSIDE") => true,
        other => bail!("unknown mode {other:?}"),
    };
    while let Some(text) = line(reader).await? {
        if text == "CLOSE" {
            break;
        }
        let text = if timestamps { text.split_once(' ').map_or("", |(_, rest)| rest) } else { &text };
        tracing::info!(node = %node.facts.name, %stream, "{text}");
    }
    Ok(())
}
