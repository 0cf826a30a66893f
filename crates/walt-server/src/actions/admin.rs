//! Actions of root on the server: import default images, register devices, take everything down.

use crate::{
    actions::{
        app::App,
        dhcp::{self, Known},
    },
    base::{
        config::Config,
        db::blocking,
        events::Events,
        failure::{Outcome, bad_request, unusable},
        state_lock::StateLock,
    },
    services::{
        cable,
        images::{default_image, foreign_cpu, recipe},
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
use walt_netboot::dhcp::Request;
use walt_types::NodeName;

/// How long `down` waits for a running server to end.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(30);

/// Carries out an action of root.
pub async fn act(app: &Arc<App>, action: AdminAction, events: &Events) -> Outcome<bool> {
    match action {
        AdminAction::ImportDefaultImage { name, dir } => {
            events.busy(format!("Importing {name}")).await;
            let _housekeeping = app.images().housekeeping_on_drop();
            let _writing = app.images().writing().await;
            let imported = blocking(|| default_image::import(app.images(), &name, Path::new(&dir)));
            let id = imported.map_err(unusable)?;
            events.out(format!("Default image {name} is ready ({}).", &id.to_string()[..12])).await;
            Ok(true)
        }
        AdminAction::DhcpCommit { vendor_class, user_class, ip, mac, host_name, force_name } => {
            let name = match force_name {
                true => Some(host_name.parse::<NodeName>().map_err(|e| bad_request(format!("{e}.")))?),
                false => None,
            };
            let request = Request {
                vendor_class,
                user_class,
                host_name: Some(host_name).filter(|name| !name.is_empty()),
                ..Request::to_keep(mac, ip)
            };
            dhcp::commit(app, &request, &Known { name: name.as_ref() }).await
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

/// Sends an action to the server of this configuration; false if none is running.
async fn ask_server(config: &Config, action: &AdminAction) -> Result<bool> {
    let socket = config.socket();
    if std::os::unix::net::UnixStream::connect(&socket).is_err() {
        return Ok(false);
    }
    let mut client = Client::new(Target::Unix(socket), None)?;
    match client.admin_action(action, None).await? {
        Reply::Confirm(_) => bail!("the server asks for a confirmation, which this command does not support"),
        Reply::Events(mut events) => {
            while let Some(event) = events.next().await? {
                match event {
                    Event::Out { text } => println!("{text}"),
                    Event::Note { text } => eprintln!("{text}"),
                    Event::Error { error } => bail!("{error}"),
                    Event::Busy { .. }
                    | Event::Progress { .. }
                    | Event::Found { .. }
                    | Event::Item { .. }
                    | Event::Done { .. } => {}
                }
            }
        }
    }
    Ok(true)
}

/// `walt-dhcp-event commit`: registers a device as if it had just got an address by DHCP.
///
/// # Errors
/// No server runs, or the device cannot have the address.
pub fn dhcp_commit(config: &Config, action: &AdminAction) -> Result<()> {
    if runtime()?.block_on(ask_server(config, action))? {
        return Ok(());
    }
    bail!("no server runs at {}: start 'walt-server run'", config.socket().display())
}

/// `walt-server default-image build NAME`: imports through a running server, else under the lock of the state.
///
/// # Errors
/// The recipe or the import failed; then nothing has changed.
pub fn build_default_image(config: Config, name: &str) -> Result<()> {
    let run = recipe::run(&config, name)?;
    let dir = run.results();
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

/// `walt-server check-config`: the configuration was read; says what the interfaces of this machine lack for it.
///
/// # Errors
/// The kernel does not list its interfaces.
pub fn check_config(config: &Config) -> Result<()> {
    println!("The configuration is valid.");
    for problem in cable::check(config)? {
        println!("On this machine, now: {problem}.");
    }
    Ok(())
}

/// `walt-server down`: ends a running server, then stops nodes and sessions and removes what the server set up on the
/// machine. Sessions can be resumed once a server runs again.
///
/// # Errors
/// Something could not be stopped or removed.
pub fn down(config: Config) -> Result<()> {
    if !config.state_dir.exists() {
        println!("Nothing to do: {} has no state of a server.", config.state_dir.display());
        return Ok(());
    }
    // A server that ends closes the connection in the middle of the answer.
    let _ = runtime()?.block_on(ask_server(&config, &AdminAction::Down));
    let start = Instant::now();
    let lock = loop {
        match StateLock::take(&config.state_dir) {
            Ok(lock) => break lock,
            Err(e) if start.elapsed() > LEAVE_TIMEOUT => return Err(e).context("the server did not end"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    let app = App::open(config, &lock)?;
    nodes::ssh::end_all(app.base())?;
    let stopped = nodes::vnode::stop_all(app.nodes())?;
    let closed = runtime()?.block_on(sessions::stop_all(app.sessions()))?;
    network::down(app.config())?;
    walt_container::emulation::remove(&foreign_cpu::owner(app.config()))?;
    walt_sys::process::Cgroup::new(format!("{}/x", app.base().cgroup_root().trim_start_matches('/')))
        .remove_empty_parents()?;
    println!("Stopped {stopped} node(s) and {closed} shell session(s), and restored the network.");
    Ok(())
}
