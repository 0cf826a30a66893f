//! Terminals: WebSockets between clients and programs.

use crate::{
    actions::{
        self,
        app::App,
        connect, console, device_actions,
        device_list::AnyDevice,
        device_shell, node_run,
        ownership::{one_node, owned_node},
        ping,
        reboot::{WaitingClient, wait_booted_or_skip},
    },
    base::{
        db::NodeRow,
        failure::{Outcome, refused},
        programs::{cannot_start, exit_status, on_pty},
        terminal::{FromClient, Input, ToClient},
    },
    edge::api::{
        answer::into_api,
        identity::Caller,
        reply::request_id,
        websocket::{opening, write_all},
    },
    services::nodes::ssh::{self, Session},
};
use axum::{
    Extension,
    extract::{State, ws::WebSocketUpgrade},
    response::Response,
};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use std::{future::Future, process::Stdio, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    process::{Child, Command},
};
use walt_api::build::OpenImageBuild;
use walt_api::term::{
    ClientMessage, MAX_MESSAGE, NodeTerminal, OpenImageShell, OpenNodeRun, OpenNodeTerminal, STDERR, STDOUT,
    ServerMessage, Tty,
};
use walt_api::words::Words;
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
        let _operation = app.base().operations().begin(caller.user.as_str(), open.words());
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
    let confirm = open.confirm.as_deref();
    let started = ServerMessage::Started { session: None, os: false };
    let row = match &open.what {
        NodeTerminal::PingDevice => {
            let device = device_actions::named(app, &open.node)?;
            let ip = device.ip().ok_or_else(|| device_shell::no_address(&device))?;
            to.message(&started).await;
            return ping::serve(app, device.name(), ip, &to, &mut from).await;
        }
        NodeTerminal::Connect { port } => {
            return connect::serve(app, &open.node, *port, &to, &mut from).await;
        }
        NodeTerminal::Reach => {
            let row = one_node(app, &caller.user, &open.node)?;
            return Ok(i32::from(!wait_for_boot(app, row.mac, &to, &mut from).await?));
        }
        NodeTerminal::ReachDevice => {
            match device_actions::named(app, &open.node)? {
                AnyDevice::Node(_) => {}
                AnyDevice::Server(_) => return Err(refused(connect::NOT_THE_SERVER)),
                AnyDevice::Other(_) => return Ok(0),
            }
            let row = owned_node(app, &caller.user, &open.node, Demand::OwnedOrFree, "terminal", confirm)?;
            return Ok(i32::from(!wait_for_boot(app, row.mac, &to, &mut from).await?));
        }
        NodeTerminal::Ping => {
            let row = one_node(app, &caller.user, &open.node)?;
            to.message(&started).await;
            return ping::serve(app, row.facts.name.as_str(), row.ip, &to, &mut from).await;
        }
        NodeTerminal::DeviceShell { user } => {
            let shell = device_shell::command(app, &open.node, user, open.tty.is_some())?;
            return program(shell, open.tty, |_| None, &to, &mut from).await;
        }
        NodeTerminal::Shell | NodeTerminal::Console => {
            owned_node(app, &caller.user, &open.node, Demand::OwnedOrFree, "terminal", confirm)?
        }
    };
    if let NodeTerminal::Console = open.what {
        return console::serve(app, &row, &to, &mut from).await;
    }
    on_node(app, &row, None, open.tty, &to, &mut from).await
}

/// A command on a set of nodes.
pub async fn node_run(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    upgrade: WebSocketUpgrade,
) -> Response {
    terminal(upgrade, move |open: OpenNodeRun, to, mut from| async move {
        let nodes = node_run::nodes(&app, &caller.user, &open)?;
        let names = nodes.iter().map(|node| node.facts.name.to_string()).collect();
        let _operation = app.base().operations().begin(caller.user.as_str(), open.words());
        to.message(&ServerMessage::Nodes { names }).await;
        match (nodes.as_slice(), &open.tty) {
            ([row], Some(_)) => on_node(&app, row, Some(&open.command), open.tty, &to, &mut from).await,
            _ => node_run::serve(&app, nodes, open, to, from).await,
        }
    })
}

/// A program on a node by ssh, a login shell if there is no command, once the node is booted.
async fn on_node(
    app: &Arc<App>,
    row: &NodeRow,
    command: Option<&str>,
    tty: Option<Tty>,
    to: &ToClient,
    from: &mut FromClient,
) -> Outcome<i32> {
    if !wait_for_boot(app, row.mac, to, from).await? {
        return Ok(1);
    }
    let remote = command.map(str::as_bytes);
    let Session { command, lease } =
        ssh::open(app.base(), app.nodes().masters(), row.mac, remote, tty.is_some()).await?;
    program(command, tty, |status| ssh::farewell(row.ip, lease.is_some(), status), to, from).await
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

/// Runs a program on the server for a client, on a pseudo-terminal or with pipes, until the program ends or the
/// client disconnects. On a terminal, `farewell(status)` is the last that the client reads.
async fn program(
    mut command: std::process::Command,
    tty: Option<Tty>,
    farewell: impl Fn(i32) -> Option<String>,
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
    let (mut child, master) = on_pty(command, &tty)?;
    to.message(&ServerMessage::Started { session: None, os: false }).await;
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
                    let _ = master.set_size(rows, cols);
                }
                Some(Input::Message(_)) => {}
            },
        }
    }
    let status = exit_status(child.wait().await?);
    if let Some(farewell) = farewell(status) {
        to.output(STDOUT, farewell.as_bytes()).await;
    }
    Ok(status)
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
