//! Opens sessions, attaches to them, and relays bytes between their holders and clients.

use crate::{
    actions::app::App,
    base::{
        db::{SessionRow, blocking},
        fail_points,
        failure::{Failure, Outcome, refused, refused_hint},
        files::{new_dir, remove_tree},
        random::random_uuid,
        terminal::{FromClient, Input, ToClient},
        time,
    },
    services::{
        images::{self, platform},
        network,
        sessions::{self, dir_of, drop_session, of_image, users},
    },
};
use anyhow::Context;
use std::{collections::BTreeSet, fs::File, io::Write, sync::Arc};
use tokio::sync::mpsc;
use walt_api::term::{ClientMessage, MAX_SCRIPT, OpenImageShell, STDERR, STDOUT, ServerMessage, Tty};
use walt_container::{
    bundle,
    hold::{
        self, Client,
        client::Incoming,
        protocol::{Event, Request},
    },
    session::{self, HoldSpec, Mode, SPEC_VERSION, SessionDir},
};
use walt_images::{Kind, View};
use walt_types::{ImageRef, UserName};

/// File in a session's directory that keeps a script from standard input.
const STDIN_SPOOL: &str = "stdin";
/// Chunks of output that may wait for a slow client before the shell blocks.
const OUTPUT_QUEUE: usize = 16;

/// Serves one client of an image shell; the exit status of the shell. The session stays when the client disconnects.
pub async fn shell(
    app: &Arc<App>,
    user: &UserName,
    open: OpenImageShell,
    to: ToClient,
    mut from: FromClient,
) -> Outcome<i32> {
    let image = images::own_reference(user, &open.image)?;
    let row = if open.resume {
        let row = of_image(app.sessions(), &image)?;
        if row.committing.is_some() {
            return Err(refused("this session is being saved; see 'walt image show' for its state"));
        }
        row
    } else {
        let row = record_session(app, user, &image, &to).await?;
        if let Err(failure) = start(app, &row, &open, &mut from).await {
            drop_session(app.sessions(), &row).await?;
            return Err(failure);
        }
        row
    };
    app.db().with(|c| SessionRow::touch(c, &row.id, time::now() as i64))?;
    let status = attach(app, &row, open.tty.as_ref(), &to, &mut from).await;
    app.db().with(|c| SessionRow::touch(c, &row.id, time::now() as i64))?;
    status
}

/// Records a new session on an image.
async fn record_session(
    app: &Arc<App>,
    user: &UserName,
    image: &ImageRef,
    to: &ToClient,
) -> Outcome<SessionRow> {
    let decision = app.base().decide().await;
    for text in app.images().first_images(user, &decision)? {
        to.message(&ServerMessage::Note { text }).await;
    }
    let found = app.images().find(image)?;
    if app.db().with(|c| SessionRow::of_image(c, image))?.is_some() {
        let name = image.image();
        return Err(refused_hint(
            format!("Cannot open image {name} because a shell session is already running."),
            images::error::session_hint(name),
        ));
    }
    let config = app.store().config(&found.image_id)?;
    if let Some(text) = images::foreign_cpu::ensure_runnable(app.images(), &config)? {
        to.message(&ServerMessage::Note { text }).await;
    }
    let platform = platform::of(app.images(), &found.image_id).await?;
    let taken: BTreeSet<u32> = app.db().with(SessionRow::all)?.iter().map(|s| s.slot).collect();
    // Invariant: the set is finite.
    let slot = (0..).find(|slot| !taken.contains(slot)).expect("a free slot");
    let now = time::now() as i64;
    let row = SessionRow {
        id: random_uuid(),
        user: user.clone(),
        image: image.clone(),
        image_id: found.image_id,
        platform: platform.diff_id,
        slot,
        opened: now,
        used: now,
        committing: None,
    };
    app.db().with(|c| row.insert(c))?;
    fail_points::point("shell-recorded");
    Ok(row)
}

/// Whether the image has the hooks to start and stop its operating system.
fn has_hooks(view: &View) -> bool {
    [bundle::OS_START, bundle::OS_SHUTDOWN].iter().all(|hook| {
        view.resolve(hook.trim_start_matches('/').as_bytes())
            .and_then(|n| view.entry(n))
            .is_some_and(|e| e.kind == Kind::File && e.mode & 0o111 != 0)
    })
}

/// Makes the session's directory and starts its holder, after a script was received completely.
async fn start(
    app: &Arc<App>,
    row: &SessionRow,
    open: &OpenImageShell,
    from: &mut FromClient,
) -> Outcome<()> {
    let dir = dir_of(app.sessions(), &row.id);
    new_dir(&dir, 0o700)?;
    let view = view_of(app, row)?;
    blocking(|| app.store().prepare_upper(&dir.join("layer"), &view))?;
    fail_points::point("shell-prepared");
    let script = match &open.tty {
        Some(_) => None,
        None => {
            let path = dir.join(STDIN_SPOOL);
            let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
            receive_script(file, from).await?;
            Some(path)
        }
    };
    let spec = spec(app, row, open.tty.as_ref(), script)?;
    hold_session(app, row, &spec).await
}

async fn hold_session(app: &App, row: &SessionRow, spec: &HoldSpec) -> Outcome<()> {
    let exe = std::env::current_exe().context("cannot find the path of this program")?;
    hold::start(spec, &dir_of(app.sessions(), &row.id), &exe)
        .await
        .map_err(|e| refused(format!("cannot start the shell: {e}")))
}

async fn receive_script(mut file: File, from: &mut FromClient) -> Outcome<()> {
    let mut size = 0;
    loop {
        match from.next().await {
            Some(Input::Bytes(bytes)) => {
                size += bytes.len();
                if size > MAX_SCRIPT {
                    return Err(refused(format!(
                        "the script on standard input is larger than {MAX_SCRIPT} bytes"
                    )));
                }
                file.write_all(&bytes).context("cannot store the script")?;
            }
            Some(Input::Message(ClientMessage::Eof)) => return Ok(()),
            Some(Input::Message(_)) => {}
            None => return Err(refused("the client disconnected before it had sent its script")),
        }
    }
}

/// The specification for the holder.
fn spec(
    app: &App,
    row: &SessionRow,
    tty: Option<&Tty>,
    script: Option<std::path::PathBuf>,
) -> Result<HoldSpec, Failure> {
    let config = app.store().config(&row.image_id)?;
    let layers = config.layers()?;
    let emulated = images::foreign_cpu::ensure_runnable(app.images(), &config)?.is_some();
    let view = view_of(app, row)?;
    let lowers = std::iter::once(&row.platform)
        .chain(layers.iter().rev())
        .map(|layer| app.store().layer_fs(layer))
        .collect();
    let env = config.config.and_then(|c| c.env).unwrap_or_default();
    Ok(HoldSpec {
        version: SPEC_VERSION,
        container_id: row.id.clone(),
        lowers,
        runtime: app.config().containers.runtime.clone().into(),
        runtime_root: app.config().run_dir.join("runc"),
        cgroup: format!("{}/shell-{}", app.base().cgroup_root(), row.id),
        mode: if has_hooks(&view) { Mode::Os } else { Mode::Simple },
        tty: tty.map(|t| session::Tty { term: t.term.clone(), rows: t.rows, cols: t.cols }),
        command: None,
        stdin: script,
        env,
        network: Some(network::container_network(app.config(), row.slot)?),
        memory_max: Some(sessions::memory_max()),
        users: users::of(app.sessions(), &SessionDir(dir_of(app.sessions(), &row.id)), row.slot, &view),
        emulated,
    })
}

/// Attaches the client to the session until the shell ends or the client disconnects.
async fn attach(
    app: &Arc<App>,
    row: &SessionRow,
    tty: Option<&Tty>,
    to: &ToClient,
    from: &mut FromClient,
) -> Outcome<i32> {
    let client = match crate::services::sessions::holder(app.sessions(), row).await? {
        // A shell that has ended still has its last output and its status. A script may have ended already.
        Some(client)
            if client.state.phase < session::Phase::Stopped || client.state.shell_status.is_some() =>
        {
            client
        }
        found => {
            // The container is gone (its holder died, or the server was taken down): a new one continues on the same
            // files. A script is not run again.
            let spec = spec(app, row, tty, None)?;
            match found {
                Some(mut client) => {
                    SessionDir(dir_of(app.sessions(), &row.id)).write_spec(&spec)?;
                    client.restart().await.map_err(|e| refused(format!("cannot start the shell: {e}")))?;
                }
                None => {
                    repair_upper(app, row)?;
                    // A holder that an earlier server started may be running already.
                    if let Err(failure) = hold_session(app, row, &spec).await
                        && !hold::is_held(&dir_of(app.sessions(), &row.id))
                    {
                        return Err(failure);
                    }
                }
            }
            crate::services::sessions::holder(app.sessions(), row)
                .await?
                .context("the session's holder has ended")?
        }
    };
    let view = view_of(app, row)?;
    let os = has_hooks(&view);
    relay(client, row, os, tty, to, from).await
}

/// A server that was killed while it opened a session may have left an incomplete upper directory. If no holder was
/// started yet, nothing was written to it, and it is made again.
fn repair_upper(app: &App, row: &SessionRow) -> Outcome<()> {
    let dir = dir_of(app.sessions(), &row.id);
    if SessionDir(dir.clone()).has_spec() {
        return Ok(());
    }
    let layer = dir.join("layer");
    let view = view_of(app, row)?;
    blocking(|| -> anyhow::Result<()> {
        remove_tree(&layer)?;
        app.store().prepare_upper(&layer, &view)?;
        Ok(())
    })?;
    Ok(())
}

/// The tree that a session is based on.
pub fn view_of(app: &App, row: &SessionRow) -> Result<Arc<View>, Failure> {
    let config = app.store().config(&row.image_id)?;
    let layers = config.layers()?;
    Ok(app.store().view(&layers, Some(&row.platform))?)
}

async fn relay(
    client: Client,
    row: &SessionRow,
    os: bool,
    tty: Option<&Tty>,
    to: &ToClient,
    from: &mut FromClient,
) -> Outcome<i32> {
    let (mut reader, mut writer) = client.split();
    // Reading a frame is not cancel-safe, so it has a task of its own.
    let (queue, mut incoming) = mpsc::channel(OUTPUT_QUEUE);
    let reading = tokio::spawn(async move {
        while let Ok(Some(item)) = reader.next().await {
            if queue.send(item).await.is_err() {
                return;
            }
        }
    });
    let size = tty.map(|t| (t.rows, t.cols));
    writer.request(&Request::Attach { size }).await?;
    let outcome = loop {
        tokio::select! {
            item = incoming.recv() => match forward(item, row, os, to).await {
                Ok(Some(status)) => break Ok(status),
                Ok(None) => {}
                Err(failure) => break Err(failure),
            },
            message = from.next() => {
                let sent = match message {
                    None => break Ok(1),
                    Some(Input::Bytes(bytes)) => writer.input(&bytes).await,
                    Some(Input::Message(ClientMessage::Resize { rows, cols })) => {
                        writer.request(&Request::Resize { rows, cols }).await
                    }
                    Some(Input::Message(ClientMessage::Eof)) => writer.request(&Request::Eof).await,
                    // For other terminals.
                    Some(Input::Message(
                        ClientMessage::Proceed | ClientMessage::Interrupt | ClientMessage::Credentials { .. },
                    )) => Ok(()),
                };
                if sent.is_err() {
                    break Err(holder_died());
                }
            }
        }
    };
    reading.abort();
    outcome
}

fn holder_died() -> Failure {
    refused_hint(
        "the session's holder has ended",
        "the changes are kept: 'walt image shell --resume' continues the session",
    )
}

/// Forwards output and events of the holder to the client; the exit status once the shell has ended.
async fn forward(item: Option<Incoming>, row: &SessionRow, os: bool, to: &ToClient) -> Outcome<Option<i32>> {
    let listens = match item {
        None => return Err(holder_died()),
        Some(Incoming::Stdout(bytes)) => to.output(STDOUT, &bytes).await,
        Some(Incoming::Stderr(bytes)) => to.output(STDERR, &bytes).await,
        Some(Incoming::Event(event)) => match event {
            Event::Started { notes } => {
                for text in notes {
                    to.message(&ServerMessage::Note { text }).await;
                }
                to.message(&ServerMessage::Started { session: Some(row.id.clone()), os }).await
            }
            Event::Exited { status } => return Ok(Some(status)),
            Event::Failed { error } => return Err(refused(format!("cannot start the shell: {error}"))),
            Event::Replaced => {
                return Err(refused("the session was resumed by another client"));
            }
            _ => true,
        },
    };
    // The client has disconnected; the session stays.
    Ok(if listens { None } else { Some(1) })
}
