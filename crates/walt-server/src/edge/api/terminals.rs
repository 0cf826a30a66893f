//! Terminals: WebSockets between clients and programs.

use crate::{
    actions::{
        self,
        app::App,
        connect, console, device_actions,
        device_list::AnyDevice,
        ownership::owned_node,
        ping,
        reboot::{WaitingClient, wait_booted_or_skip},
    },
    base::{
        failure::{Outcome, refused},
        programs::cannot_start,
        terminal::{FromClient, Input, ToClient},
    },
    edge::api::{
        Caller,
        answer::into_api,
        request_id,
        websocket::{opening, write_all},
    },
    services::nodes::ssh,
};
use axum::{
    Extension,
    extract::{State, ws::WebSocketUpgrade},
    response::Response,
};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use std::{
    future::Future,
    os::fd::OwnedFd,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, unix::AsyncFd},
    process::{Child, Command},
};
use walt_api::build::OpenImageBuild;
use walt_api::term::{
    ClientMessage, MAX_MESSAGE, NodeTerminal, OpenImageShell, OpenNodeTerminal, STDERR, STDOUT,
    ServerMessage, Tty,
};
use walt_core::ownership::Demand;
use walt_types::node_set::Candidate;

/// Bytes read from a program at once.
const CHUNK: usize = 16 << 10;
/// How long to wait for output after the end of a program, if a background job keeps its pipe open.
const LAST_OUTPUT: Duration = Duration::from_millis(500);

/// Reads the opening message, runs `serve`, and sends the result to the client.
fn terminal<O, F>(
    upgrade: WebSocketUpgrade,
    serve: impl FnOnce(O, ToClient, FromClient) -> F + Send + 'static,
) -> Response
where
    O: DeserializeOwned + Send,
    F: Future<Output = Outcome<i32>> + Send,
{
    upgrade.max_message_size(2 * MAX_MESSAGE).on_upgrade(async move |socket| {
        let (sink, mut stream) = socket.split();
        let (to, messages) = ToClient::channel();
        let writer = tokio::spawn(write_all(sink, messages));
        let outcome = match opening(&mut stream).await {
            Ok(open) => serve(open, to.clone(), FromClient::new(stream)).await,
            Err(failure) => Err(failure),
        };
        let last = match outcome {
            Ok(status) => ServerMessage::Exited { status },
            Err(failure) => ServerMessage::Error { error: into_api(failure, &request_id()) },
        };
        to.message(&last).await;
        drop(to);
        let _ = writer.await;
    })
}

/// `walt image shell`.
pub async fn image_shell(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    upgrade: WebSocketUpgrade,
) -> Response {
    terminal(upgrade, move |open: OpenImageShell, to, from| async move {
        actions::shell::shell(&app, &caller.user, open, to, from).await
    })
}

/// `walt image build`.
pub async fn image_build(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    upgrade: WebSocketUpgrade,
) -> Response {
    terminal(upgrade, move |open: OpenImageBuild, to, from| async move {
        actions::build::serve(&app, &caller.user, open, to, from).await
    })
}

/// Programs on or about a node.
pub async fn node_terminal(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    upgrade: WebSocketUpgrade,
) -> Response {
    terminal(upgrade, move |open: OpenNodeTerminal, to, from| async move {
        node(&app, &caller, open, to, from).await
    })
}

async fn node(
    app: &Arc<App>,
    caller: &Caller,
    open: OpenNodeTerminal,
    to: ToClient,
    mut from: FromClient,
) -> Outcome<i32> {
    if let NodeTerminal::PingDevice = open.what {
        let device = device_actions::named(app, &open.node)?;
        let ip = device.ip().ok_or_else(|| {
            refused(format!("{} has no address now: another device has got it.", device.name()))
        })?;
        to.message(&ServerMessage::Started { session: None, os: false }).await;
        return ping::serve(app, device.name(), ip, &to, &mut from).await;
    }
    if let NodeTerminal::Connect { port } = open.what {
        return connect::serve(app, &open.node, port, &to, &mut from).await;
    }
    if let NodeTerminal::ReachDevice = open.what {
        match device_actions::named(app, &open.node)? {
            AnyDevice::Node(_) => {}
            AnyDevice::Server(_) => return Err(refused(connect::NOT_THE_SERVER)),
            AnyDevice::Other(_) => return Ok(0),
        }
    }
    let demand = match open.what {
        NodeTerminal::Ping | NodeTerminal::Reach => Demand::Nothing,
        _ => Demand::OwnedOrFree,
    };
    let row = owned_node(app, &caller.user, &open.node, demand, "terminal", open.confirm.as_deref())?;
    let remote = match &open.what {
        NodeTerminal::Shell | NodeTerminal::PingDevice | NodeTerminal::Connect { .. } => None,
        NodeTerminal::Reach | NodeTerminal::ReachDevice => {
            return Ok(i32::from(!wait_for_boot(app, row.mac, &to, &mut from).await?));
        }
        NodeTerminal::Run { command } => Some(command.as_str()),
        NodeTerminal::Console => return console::serve(app, &row, &to, &mut from).await,
        NodeTerminal::Ping => {
            to.message(&ServerMessage::Started { session: None, os: false }).await;
            return ping::serve(app, row.facts.name.as_str(), row.ip, &to, &mut from).await;
        }
    };
    if !wait_for_boot(app, row.mac, &to, &mut from).await? {
        return Ok(1);
    }
    let command = ssh::command(app.nodes(), row.ip, remote, open.tty.is_some());
    program(command, open.tty, &to, &mut from).await
}

/// Waits until the node is booted, or the client wants to proceed; false if the client has disconnected.
async fn wait_for_boot(
    app: &Arc<App>,
    mac: walt_types::Mac,
    to: &ToClient,
    from: &mut FromClient,
) -> Outcome<bool> {
    struct Terminal<'a>(&'a ToClient, &'a mut FromClient);
    impl WaitingClient for Terminal<'_> {
        async fn busy(&mut self, label: &str) {
            self.0.message(&ServerMessage::Busy { label: label.to_owned() }).await;
        }
        async fn proceeds(&mut self) -> Option<bool> {
            let input = self.1.next().await?;
            Some(matches!(input, Input::Message(ClientMessage::Proceed)))
        }
    }
    wait_booted_or_skip(app, mac, &mut Terminal(to, from)).await
}

fn exit_status(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Runs a program on the server for a client, on a pseudo-terminal or with pipes, until the program ends or the
/// client disconnects.
async fn program(
    mut command: std::process::Command,
    tty: Option<Tty>,
    to: &ToClient,
    from: &mut FromClient,
) -> Outcome<i32> {
    let name = command.get_program().to_string_lossy().into_owned();
    let Some(tty) = tty else {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = Command::from(command).kill_on_drop(true).spawn().map_err(|e| cannot_start(&name, &e))?;
        to.message(&ServerMessage::Started { session: None, os: false }).await;
        return piped(child, to, from).await;
    };
    let pty = walt_sys::pty::open()?;
    let size = |rows, cols| walt_sys::pty::set_size(&pty.master, rows, cols);
    size(tty.rows, tty.cols)?;
    command.env("TERM", &tty.term);
    walt_sys::pty::attach(&mut command, pty.slave)?;
    let mut command = Command::from(command);
    let mut child = command.kill_on_drop(true).spawn().map_err(|e| cannot_start(&name, &e))?;
    // It holds the slave end: the output ends only when no process but the program does.
    drop(command);
    to.message(&ServerMessage::Started { session: None, os: false }).await;
    let master = Master::new(pty.master)?;
    let mut buffer = vec![0; CHUNK];
    loop {
        tokio::select! {
            read = master.read(&mut buffer) => match read {
                Ok(0) | Err(_) => break,
                Ok(n) => {
                    if !to.output(STDOUT, &buffer[..n]).await {
                        return Ok(1);
                    }
                }
            },
            input = from.next() => match input {
                None => return Ok(1),
                Some(Input::Bytes(bytes)) => {
                    if master.write_all(&bytes).await.is_err() {
                        break;
                    }
                }
                Some(Input::Message(ClientMessage::Resize { rows, cols })) => {
                    let _ = walt_sys::pty::set_size(&master.0, rows, cols);
                }
                Some(Input::Message(_)) => {}
            },
        }
    }
    let status = child.wait().await?;
    Ok(exit_status(status))
}

/// The master end of a pseudo-terminal, for async reads and writes.
struct Master(AsyncFd<OwnedFd>);

impl Master {
    fn new(fd: OwnedFd) -> Outcome<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Self(walt_sys::async_fd(fd)?))
    }
    async fn read(&self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            let mut ready = self.0.readable().await?;
            if let Ok(done) = ready.try_io(|fd| Ok(rustix::io::read(fd, &mut *buffer)?)) {
                return done;
            }
        }
    }
    async fn write_all(&self, mut bytes: &[u8]) -> std::io::Result<()> {
        while !bytes.is_empty() {
            let mut ready = self.0.writable().await?;
            if let Ok(done) = ready.try_io(|fd| Ok(rustix::io::write(fd, bytes)?)) {
                bytes = &bytes[done?..];
            }
        }
        Ok(())
    }
}

async fn piped(mut child: Child, to: &ToClient, from: &mut FromClient) -> Outcome<i32> {
    // Invariant: all three were piped at the start.
    let (stdin, stdout, stderr) = (
        child.stdin.take().expect("piped"),
        child.stdout.take().expect("piped"),
        child.stderr.take().expect("piped"),
    );
    let outputs = [
        tokio::spawn(copy_output(stdout, STDOUT, to.clone())),
        tokio::spawn(copy_output(stderr, STDERR, to.clone())),
    ];
    let mut input = InputPump { stdin: Some(Box::new(stdin)) };
    let status = loop {
        tokio::select! {
            status = child.wait() => break status?,
            message = from.next() => match message {
                None => return Ok(1),
                Some(Input::Bytes(bytes)) => input.write(&bytes).await,
                Some(Input::Message(ClientMessage::Eof)) => input.stdin = None,
                Some(Input::Message(_)) => {}
            },
        }
    };
    for output in outputs {
        let mut output = output;
        if tokio::time::timeout(LAST_OUTPUT, &mut output).await.is_err() {
            output.abort();
        }
    }
    Ok(exit_status(status))
}

struct InputPump {
    stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
}

impl InputPump {
    /// Input for a program that has closed its standard input is dropped.
    async fn write(&mut self, bytes: &[u8]) {
        if let Some(stdin) = &mut self.stdin
            && (stdin.write_all(bytes).await.is_err() || stdin.flush().await.is_err())
        {
            self.stdin = None;
        }
    }
}

async fn copy_output(mut from: impl AsyncRead + Unpin, channel: u8, to: ToClient) {
    let mut buffer = vec![0; CHUNK];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        if !to.output(channel, &buffer[..n]).await {
            return;
        }
    }
}
