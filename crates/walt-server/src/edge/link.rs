//! The node link: the connection each node opens to the server and keeps (TCP [`PORT`]).
//!
//! Lines of text, at most [`LINE_MAX`] bytes. `→` is the node, `←` the server.
//! ```text
//! → REQ_NODE_LINK
//! → HELLO 1 view=<id or -> boot_id=<uuid> uptime=<seconds> mode=<boot mode>
//! ← WELCOME 1 beat=<seconds> time=<seconds since the epoch> report=kernel   or   ← GONE (its view is not known any more,
//!                                                                                and it reads that from us)
//! → KERNEL <part>                 the command line of its kernel, in parts that belong together as they are
//! ↔ BEAT                          each <beat> seconds; three missed end the link
//! → BOOTED                        once the image's sshd answers on the node itself
//! ← CMD <id> PING|REBOOT|REBOOT firmware|BLINK 0|BLINK 1
//! → ACK <id> OK                   or   → ACK <id> KO <reason>
//! → REBOOT FORCED <reason>        the image's hook did not reboot the node: the node reboots by force
//! → REBOOT FAILED <reason>        that failed too: the node keeps running
//! ```
//! Before it has a link, a node that copies its image to its disk reports that, in a connection for each report:
//! ```text
//! → REQ_BOOT_PROGRESS
//! → PROGRESS boot_id=<uuid> mode=<boot mode> percent=<0 to 100>
//! ```
//! `REBOOT firmware` reboots without the image's hook, which may start a kernel by kexec: the setting `kexec.allow`.
//! The acknowledgement of `REBOOT` means that the reboot has begun. It is complete when the node sends `HELLO` with
//! another boot id; a failure of either step is reported by the node once.
//!
//! A node is identified by its address; packet filter and permanent neighbours tie addresses to nodes.

use crate::{
    actions::app::App,
    base::{db::NodeRow, time},
    edge::{log_intake, peers::LimitedListener},
    services::nodes::{
        boots,
        hub::{LinkCommand, update_life},
        ssh,
    },
};
use anyhow::{Context, Result, bail};
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf},
    time::timeout,
};
use walt_core::{
    boots::{TEXT_MAX, clean},
    life::BootMode,
};
use walt_types::{Mac, ViewId};

/// Port of the node link, and of log upload.
pub const PORT: u16 = 12347;
/// Longest line, in bytes.
pub const LINE_MAX: u64 = 256;
/// Interval of heartbeats.
const BEAT: Duration = Duration::from_secs(10);
/// Silence after which a link counts as broken.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Timeout of the first two lines.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections served at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 4096;
/// Connections of one node: its link, a link that replaces it, and streams of log lines. More are closed.
const CONNECTIONS_PER_NODE: usize = 128;
/// Version of the protocol.
const VERSION: &str = "1";

/// Serves links for ever.
pub async fn serve(app: Arc<App>, listener: TcpListener) {
    let connections = LimitedListener::new(listener, "node link", CONNECTIONS_MAX, CONNECTIONS_PER_NODE);
    let serve = |(stream, _), peer| {
        let app = app.clone();
        async move { connection(&app, stream, peer).await }
    };
    connections.serve(serve).await;
}

/// The lines of a connection.
pub struct Lines<R>(R);

impl<R: AsyncBufRead + Unpin> Lines<R> {
    /// Lines from this reader.
    pub fn new(reader: R) -> Self {
        Self(reader)
    }

    /// The next line without its end; none at the end of the stream.
    ///
    /// # Errors
    /// A line of more than [`LINE_MAX`] bytes, or one without an end.
    pub async fn next(&mut self) -> Result<Option<String>> {
        let mut line = Vec::new();
        (&mut self.0).take(LINE_MAX).read_until(b'\n', &mut line).await?;
        match line.pop() {
            None => Ok(None),
            Some(b'\n') => Ok(Some(String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned())),
            Some(_) => bail!("a line is longer than {LINE_MAX} bytes or was cut"),
        }
    }
}

/// The first message of a node.
#[derive(Debug)]
pub struct Hello {
    /// The view that it runs; none if the image does not know it.
    pub view: Option<ViewId>,
    /// The boot id of its kernel (random(4)): another one after each boot.
    pub boot_id: String,
    /// Seconds since the node's boot, if reported.
    pub uptime: Option<f64>,
    /// Where it has its root file system, if reported.
    pub mode: Option<BootMode>,
}

/// A report of a node that copies its image.
#[derive(Debug, PartialEq, Eq)]
pub struct Progress {
    /// The boot id of its kernel.
    pub boot_id: String,
    /// The mode that it will have.
    pub mode: BootMode,
    /// How much it has.
    pub percent: u8,
}

/// A later message of a node.
#[derive(Debug, PartialEq, Eq)]
pub enum NodeLine<'a> {
    /// Heartbeat.
    Beat,
    /// Its sshd answers.
    Booted,
    /// A part of the command line of its kernel.
    Kernel(&'a str),
    /// The result of a command: its number, and the reason of a failure.
    Ack(u64, std::result::Result<(), &'a str>),
    /// The hook of the image did not carry out an acknowledged reboot; and why.
    Reboot(Reboot, &'a str),
}

/// The consequence for the reboot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reboot {
    /// The node is rebooting by force.
    Forced,
    /// The node still runs.
    Failed,
}

/// Parses a `HELLO` line.
///
/// # Errors
/// The version is another one, or the boot id is missing or invalid.
pub fn parse_hello(line: &str) -> Result<Hello> {
    let mut words = line.split_ascii_whitespace();
    if (words.next(), words.next()) != (Some("HELLO"), Some(VERSION)) {
        bail!("expected HELLO {VERSION}, got '{line}'");
    }
    let fields: HashMap<&str, &str> = words.filter_map(|w| w.split_once('=')).collect();
    let boot_id = boot_id(&fields)?;
    let uptime =
        fields.get("uptime").and_then(|s| s.parse().ok()).filter(|s: &f64| s.is_finite() && *s >= 0.0);
    Ok(Hello { view: fields.get("view").and_then(|v| v.parse().ok()), boot_id, uptime, mode: mode(&fields) })
}

fn boot_id(fields: &HashMap<&str, &str>) -> Result<String> {
    let boot_id = *fields.get("boot_id").context("no boot_id")?;
    if boot_id.len() != 36 || !boot_id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') {
        bail!("'{boot_id}' is not a boot id");
    }
    Ok(boot_id.to_owned())
}

fn mode(fields: &HashMap<&str, &str>) -> Option<BootMode> {
    fields.get("mode").and_then(|name| BootMode::from_name(name))
}

/// Parses a `PROGRESS` line.
///
/// # Errors
/// A field is missing or invalid.
pub fn parse_progress(line: &str) -> Result<Progress> {
    let words = line.strip_prefix("PROGRESS ").context("expected PROGRESS")?;
    let fields: HashMap<&str, &str> =
        words.split_ascii_whitespace().filter_map(|w| w.split_once('=')).collect();
    let mode = mode(&fields).context("PROGRESS without mode")?;
    let percent = fields.get("percent").and_then(|p| p.parse().ok()).filter(|p: &u8| *p <= 100);
    Ok(Progress { boot_id: boot_id(&fields)?, mode, percent: percent.context("PROGRESS without percent")? })
}

async fn progress<R: AsyncBufRead + Unpin>(app: &App, ip: Ipv4Addr, lines: &mut Lines<R>) -> Result<()> {
    let line = timeout(HELLO_TIMEOUT, lines.next()).await.context("no PROGRESS")??.context("closed")?;
    let Progress { boot_id, mode, percent } = parse_progress(&line)?;
    let node = app.db().with(|c| NodeRow::by_ip(c, ip))?.with_context(|| format!("{ip} is not a node"))?;
    let is_first = node.life.copied.is_none();
    let counts =
        update_life(app.nodes(), node.mac, |life| life.copies(&boot_id, mode, percent, time::now()))?;
    if counts && is_first {
        tracing::info!(node = %node.facts.name, mode = mode.name(), "the node copies its image to its disk");
    }
    Ok(())
}

async fn connection(app: &Arc<App>, stream: TcpStream, peer: IpAddr) -> Result<()> {
    let ip = ipv4(peer)?;
    stream.set_nodelay(true)?;
    let (reader, mut writer) = stream.into_split();
    let mut lines = Lines::new(BufReader::new(reader));
    let first = timeout(HELLO_TIMEOUT, lines.next()).await.context("no request line")??.context("closed")?;
    match first.as_str() {
        "REQ_NODE_LINK" => {}
        "REQ_BOOT_PROGRESS" => return progress(app, ip, &mut lines).await,
        "REQ_NEW_INCOMING_LOGS" | "0" => return log_intake::receive(app, ip, &mut lines.0).await,
        "REQ_LOG_STREAM 1" => return log_intake::receive_framed(app, ip, &mut lines.0, &mut writer).await,
        other => bail!("unknown request '{other}'"),
    }
    let line = timeout(HELLO_TIMEOUT, lines.next()).await.context("no HELLO")??.context("closed")?;
    let hello = parse_hello(&line)?;
    let node = app.db().with(|c| NodeRow::by_ip(c, ip))?.with_context(|| format!("{ip} is not a node"))?;
    let mac = node.mac;
    // For no other error: the node reboots when it reads this.
    if let Some(view) = &hello.view
        && !hello.mode.is_some_and(BootMode::is_hybrid)
        && let Err(walt_images::Error::Missing { .. }) = app.store().view_by_id(view)
    {
        tracing::warn!(node = %node.facts.name, %view, "the node runs a view that was removed: it will reboot");
        writer.write_all(b"GONE\n").await?;
        return Ok(());
    }
    let current = update_life(app.nodes(), mac, |life| {
        let current = life.hello(&hello.boot_id, time::now());
        if current {
            life.mode = hello.mode;
        }
        current
    })?;
    if current && let Some(view) = &hello.view {
        // It tells what it reads; which view a mount was for is known only of its last mount.
        boots::note(app.nodes(), mac, |record| {
            let view = Some(view.to_string());
            std::mem::replace(&mut record.view, view.clone()) != view
        });
        app.db().with(|c| NodeRow::keep_grant(c, mac, view))?;
        app.nodes().grants().forget(ip);
    }
    if current && let Some(uptime) = hello.uptime {
        crate::services::nodes::sweep::after_boot(app.nodes(), mac, &hello.boot_id, uptime);
    }
    let welcome =
        format!("WELCOME {VERSION} beat={} time={} report=kernel\n", BEAT.as_secs(), time::now() as u64);
    writer.write_all(welcome.as_bytes()).await?;
    if current {
        ssh::end_others(app.base(), mac, Some(&hello.boot_id));
    }
    let mut link = app.nodes().hub().register(mac, &hello.boot_id);
    let ended = conversation(app, mac, &hello.boot_id, &mut lines, &mut writer, &mut link.commands).await;
    if app.nodes().hub().unregister(mac, link.serial) {
        update_life(app.nodes(), mac, |life| {
            life.lost(&hello.boot_id, time::now());
            true
        })?;
    }
    ended
}

async fn conversation(
    app: &Arc<App>,
    mac: Mac,
    boot_id: &str,
    lines: &mut Lines<BufReader<OwnedReadHalf>>,
    writer: &mut (impl AsyncWriteExt + Unpin),
    commands: &mut tokio::sync::mpsc::Receiver<LinkCommand>,
) -> Result<()> {
    let mut beat = tokio::time::interval(BEAT);
    let mut heard = tokio::time::Instant::now();
    let mut waiting: HashMap<u64, LinkCommand> = HashMap::new();
    let mut next_id = 1_u64;
    let mut kernel_line = String::new();
    // Reading a line is not cancel-safe, so one read continues across iterations.
    let mut reading = Box::pin(lines.next());
    loop {
        tokio::select! {
            line = &mut reading => {
                drop(reading);
                let Some(line) = line? else { return Ok(()) };
                heard = tokio::time::Instant::now();
                handle_line(app, mac, boot_id, &line, &mut waiting, &mut kernel_line)?;
                reading = Box::pin(lines.next());
            }
            command = commands.recv() => {
                // None: a newer link of this node has replaced this one.
                let Some(command) = command else { return Ok(()) };
                writer.write_all(format!("CMD {next_id} {}\n", command.words).as_bytes()).await?;
                waiting.retain(|_, c| !c.answer.is_closed());
                waiting.insert(next_id, command);
                next_id += 1;
            }
            _ = beat.tick() => {
                if heard.elapsed() > SILENCE_MAX {
                    bail!("silent for {} s", SILENCE_MAX.as_secs());
                }
                writer.write_all(b"BEAT\n").await?;
            }
        }
    }
}

fn handle_line(
    app: &App,
    mac: Mac,
    boot_id: &str,
    line: &str,
    waiting: &mut HashMap<u64, LinkCommand>,
    kernel_line: &mut String,
) -> Result<()> {
    match parse_line(line)? {
        NodeLine::Beat => {}
        NodeLine::Kernel(part) => {
            if kernel_line.len() < TEXT_MAX {
                kernel_line.push_str(part);
            }
            let known = Some(clean(kernel_line));
            boots::note(app.nodes(), mac, |record| {
                std::mem::replace(&mut record.kernel_line, known.clone()) != known
            });
        }
        NodeLine::Booted => {
            if update_life(app.nodes(), mac, |life| life.report_booted(boot_id, time::now()))? {
                let node = app.db().with(|c| NodeRow::by_mac(c, mac))?;
                let nfs_calls = node.zip(app.nodes().nfs()).map(|(node, nfs)| nfs.calls(node.ip));
                // `nfs_calls` counts from the creation of the node or the start of this server.
                tracing::info!(%mac, nfs_calls, "node is booted");
            }
        }
        NodeLine::Reboot(what, reason) => {
            let node = app.db().with(|c| NodeRow::by_mac(c, mac))?;
            let node = node.map_or_else(|| mac.to_string(), |node| node.facts.name.to_string());
            // The text comes from the node and may be printed on a terminal.
            let reason = reason.escape_debug();
            match what {
                Reboot::Forced => {
                    tracing::warn!(node, "the node reboots by force: {reason}");
                    app.nodes().hub().leaves(mac);
                }
                Reboot::Failed => tracing::warn!(node, "the node failed to reboot: {reason}"),
            }
        }
        NodeLine::Ack(id, verdict) => {
            if let Some(command) = waiting.remove(&id) {
                let _gone = command.answer.send(verdict.map_err(str::to_owned));
            }
        }
    }
    Ok(())
}

/// Parses a line after `HELLO`.
///
/// # Errors
/// The line is not part of the protocol.
pub fn parse_line(line: &str) -> Result<NodeLine<'_>> {
    let mut words = line.splitn(4, ' ');
    match words.next() {
        Some("BEAT") => Ok(NodeLine::Beat),
        Some("BOOTED") => Ok(NodeLine::Booted),
        // With its spaces.
        Some("KERNEL") => Ok(NodeLine::Kernel(line.split_once(' ').context("KERNEL without text")?.1)),
        Some("REBOOT") => {
            let what = match words.next() {
                Some("FORCED") => Reboot::Forced,
                Some("FAILED") => Reboot::Failed,
                _ => bail!("unknown line '{line}'"),
            };
            let reason = line.splitn(3, ' ').nth(2).context("REBOOT without reason")?;
            Ok(NodeLine::Reboot(what, reason))
        }
        Some("ACK") => {
            let id = words.next().and_then(|w| w.parse().ok()).context("ACK without number")?;
            Ok(NodeLine::Ack(
                id,
                match (words.next(), words.next()) {
                    (Some("OK"), _) => Ok(()),
                    (_, reason) => Err(reason.unwrap_or("no reason given")),
                },
            ))
        }
        _ => bail!("unknown line '{line}'"),
    }
}

fn ipv4(addr: IpAddr) -> Result<Ipv4Addr> {
    match addr {
        IpAddr::V4(ip) => Ok(ip),
        IpAddr::V6(ip) => bail!("{ip} is not an IPv4 address"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_node() {
        assert_eq!(parse_line("BEAT").unwrap(), NodeLine::Beat);
        assert_eq!(parse_line("KERNEL a=b  c ").unwrap(), NodeLine::Kernel("a=b  c "));
        assert!(parse_line("KERNEL").is_err());
        assert_eq!(parse_line("ACK 7 OK").unwrap(), NodeLine::Ack(7, Ok(())));
        assert_eq!(parse_line("ACK 7 KO it is no use").unwrap(), NodeLine::Ack(7, Err("it is no use")));
        let why = "/bin/walt-reboot failed (status 1)";
        let line = |word: &str| format!("REBOOT {word} {why}");
        assert_eq!(parse_line(&line("FORCED")).unwrap(), NodeLine::Reboot(Reboot::Forced, why));
        assert_eq!(parse_line(&line("FAILED")).unwrap(), NodeLine::Reboot(Reboot::Failed, why));
        for bad in ["REBOOT", "REBOOT FORCED", "REBOOT NOW please", "ACK x OK", "CMD 1 PING", ""] {
            assert!(parse_line(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn progress_lines() {
        let id = "01234567-89ab-cdef-0123-456789abcdef";
        let progress = parse_progress(&format!("PROGRESS boot_id={id} mode=hybrid-persistent percent=7"));
        let expected = Progress { boot_id: id.to_owned(), mode: BootMode::HybridPersistent, percent: 7 };
        assert_eq!(progress.unwrap(), expected);
        for bad in ["mode=network percent=101", "mode=x percent=1", "percent=1", "mode=network"] {
            assert!(parse_progress(&format!("PROGRESS boot_id={id} {bad}")).is_err(), "{bad}");
        }
        assert!(parse_progress("PROGRESS mode=network percent=1").is_err());
        assert!(parse_progress("BEAT").is_err());
    }

    #[test]
    fn hello_lines() {
        let id = "01234567-89ab-cdef-0123-456789abcdef";
        let hello = parse_hello(&format!("HELLO 1 view=- boot_id={id} uptime=3.5")).unwrap();
        assert_eq!((hello.view, hello.boot_id.as_str(), hello.uptime), (None, id, Some(3.5)));
        for odd in ["inf", "-1", "x"] {
            assert_eq!(parse_hello(&format!("HELLO 1 boot_id={id} uptime={odd}")).unwrap().uptime, None);
        }
        let mode = |text: &str| parse_hello(&format!("HELLO 1 boot_id={id} mode={text}")).unwrap().mode;
        assert_eq!((mode("hybrid-volatile"), mode("x")), (Some(BootMode::HybridVolatile), None));
        let view = "ab".repeat(32);
        assert!(parse_hello(&format!("HELLO 1 view={view} boot_id={id}")).unwrap().view.is_some());
        for bad in ["HELLO 2", "HELLO 1", "HELLO 1 boot_id=x", ""] {
            assert!(parse_hello(bad).is_err(), "{bad}");
        }
    }
}
