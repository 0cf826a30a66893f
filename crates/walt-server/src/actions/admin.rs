//! What root does on the server: default images, and taking everything down.

use crate::{
    actions::app::App,
    base::{
        config::Config,
        events::Events,
        failure::{Outcome, unusable},
        state_lock::StateLock,
    },
    services::{
        images::{default_image, emulation, recipe},
        network, nodes, sessions,
    },
};
use anyhow::{Context, Result, bail};
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use walt_api::{AdminAction, Event};
use walt_client::{Client, Reply, Target};

/// How long `down` waits for a running server to leave.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(30);

/// Carries out an action of root.
pub async fn act(app: &Arc<App>, action: AdminAction, events: &Events) -> Outcome<bool> {
    match action {
        AdminAction::ImportDefaultImage { name, dir } => {
            events.busy(format!("Importing {name}")).await;
            let _housekeeping = app.images().housekeeping_on_drop();
            let _writing = app.images().writing().await;
            let imported =
                crate::base::db::blocking(|| default_image::import(app.images(), &name, Path::new(&dir)));
            let id = imported.map_err(unusable)?;
            events.out(format!("Default image {name} is ready ({}).", &id.to_string()[..12])).await;
            Ok(true)
        }
        AdminAction::Down => {
            app.process().take_down();
            Ok(true)
        }
    }
}

/// A runtime for one command.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// Asks the server of this configuration; false if none runs.
async fn ask_server(config: &Config, action: &AdminAction) -> Result<bool> {
    let socket = config.socket();
    if std::os::unix::net::UnixStream::connect(&socket).is_err() {
        return Ok(false);
    }
    let mut client = Client::new(Target::Unix(socket), None)?;
    match client.admin_action(action, None).await? {
        Reply::Confirm(_) => bail!("the server asked for a confirmation that this command does not know"),
        Reply::Events(mut events) => {
            while let Some(event) = events.next().await? {
                match event {
                    Event::Out { text } => println!("{text}"),
                    Event::Note { text } => eprintln!("{text}"),
                    Event::Error { error } => bail!("{error}"),
                    Event::Busy { .. }
                    | Event::Progress { .. }
                    | Event::Found { .. }
                    | Event::Done { .. } => {}
                }
            }
        }
    }
    Ok(true)
}

/// `walt-server default-image build NAME`: through a running server, else under the state's lock.
///
/// # Errors
/// The recipe or the import failed; nothing is changed then.
pub fn build_default_image(config: Config, name: &str) -> Result<()> {
    let made = recipe::run(&config, name)?;
    let dir = made.results();
    let action = AdminAction::ImportDefaultImage { name: name.into(), dir: dir.display().to_string() };
    if runtime()?.block_on(ask_server(&config, &action))? {
        return Ok(());
    }
    let lock = StateLock::take(&config.state_dir)?;
    let app = App::open(config, &lock)?;
    let id = default_image::import(app.images(), name, &dir)?;
    println!("Default image {name} is ready ({}).", &id.to_string()[..12]);
    Ok(())
}

/// `walt-server down`: a running server leaves, then nodes and sessions are stopped and all that was set
/// up on the machine is removed. Sessions can be resumed when a server runs again.
///
/// # Errors
/// What could not be stopped or removed.
pub fn down(config: Config) -> Result<()> {
    if !config.state_dir.exists() {
        println!("Nothing to do: there is no state in {}.", config.state_dir.display());
        return Ok(());
    }
    // A server that leaves closes the connection in the middle of the answer.
    let _ = runtime()?.block_on(ask_server(&config, &AdminAction::Down));
    let start = Instant::now();
    let lock = loop {
        match StateLock::take(&config.state_dir) {
            Ok(lock) => break lock,
            Err(e) if start.elapsed() > LEAVE_TIMEOUT => return Err(e).context("the server did not leave"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    let app = App::open(config, &lock)?;
    let stopped = nodes::vnode::stop_all(app.nodes())?;
    let closed = runtime()?.block_on(sessions::stop_all(app.sessions()))?;
    network::down(app.config())?;
    walt_container::emulation::remove(&emulation::owner(app.config()))?;
    walt_sys::process::Cgroup::new(format!("{}/x", app.base().cgroup_root().trim_start_matches('/')))
        .remove_empty_parents()?;
    println!("Stopped {stopped} node(s) and {closed} shell session(s); the network is as it was.");
    Ok(())
}
