//! Start of the server: state, recovery, adoption, services, and its end.

use crate::{
    actions::{self, app::App},
    base::{
        config::Config,
        db::blocking,
        journal,
        ports::{NFS_PORT, PORTMAP_PORT},
        programs::find_program,
        recent_log,
        sockets::{bound, listen},
        state_lock::StateLock,
    },
    edge::{api, dhcp_client, dns, exports, link, netboot, netconsole, web},
    services::{cable, images, logs, network, nodes, sessions},
};
use anyhow::{Context, Result};
use socket2::Type;
use std::{io::IsTerminal, net::TcpListener, sync::Arc, time::Duration};
use tokio::signal::unix::{SignalKind, signal};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{Layer as _, layer::SubscriberExt, util::SubscriberInitExt};
use walt_sys::net::monitor::Monitor;

/// How often rules of other programs are looked at.
const FIREWALL_INTERVAL: Duration = Duration::from_secs(60);
/// How often interfaces are looked at when the kernel reports no change.
const CABLE_INTERVAL: Duration = Duration::from_secs(10);
/// How long reports of changes are gathered: an adapter that appears changes several times.
const CABLE_SETTLE: Duration = Duration::from_millis(200);
/// How long requests that run may go on after the order to end.
const LAST_REQUESTS: Duration = Duration::from_secs(2);

/// Serves in the foreground until SIGTERM, SIGINT or `walt-server down`.
///
/// # Errors
/// Why it cannot start.
pub fn run(config: Config) -> Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_env("WALT_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal();
    let said =
        tracing_subscriber::fmt::layer().with_ansi(colours).with_writer(std::io::stderr).with_filter(filter);
    tracing_subscriber::registry()
        .with(said)
        .with(recent_log::Layer.with_filter(LevelFilter::WARN))
        .with(journal::Layer.with_filter(LevelFilter::INFO))
        .init();
    let lock = StateLock::take(&config.state_dir)?;
    let _set_once = crate::edge::api::answer::STATE_DIR.set(config.state_dir.clone());
    raise_open_files();
    check_programs(&config)?;
    let app = Arc::new(App::open(config, &lock)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(serve(app));
    // Whatever still blocks must not keep the process: all that matters is on the disk.
    runtime.shutdown_timeout(LAST_REQUESTS);
    outcome
}

/// Lets this process have as many files open as its hard limit allows (getrlimit(2)): 512 files of views,
/// 256 of `/persist`, and a socket for each node and client. Where it cannot, fewer are kept open.
fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(e) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!("the limit of open files stays: {e}");
    }
}

/// Refuses to start without the programs that are always needed.
fn check_programs(config: &Config) -> Result<()> {
    for (program, package) in
        [(config.containers.runtime.as_str(), "runc"), ("nft", "nftables"), ("ssh", "openssh-client")]
    {
        find_program(program).with_context(|| {
            format!("the program '{program}' is missing: install it (Debian package {package})")
        })?;
    }
    Ok(())
}

async fn serve(app: Arc<App>) -> Result<()> {
    blocking(|| sessions::users::probe(app.sessions()));
    let container_dns = dns::Sockets::bind_containers(&app);
    network::up(app.base())?;
    let nfs_listener = listen(app.config(), NFS_PORT, "NFS")?;
    let link_listener = listen(app.config(), link::PORT, "the node link")?;
    actions::session_save::recover(&app).await.context("recovery of sessions")?;
    actions::build::sweep(&app).await;
    blocking(|| nodes::trash::recover(app.nodes())).context("recovery of the trash")?;
    blocking(|| images::recipe::sweep(app.config()));
    app.nodes().queue().recover(app.db()).context("recovery of leases and of the queue for nodes")?;
    nodes::boots::load(app.nodes()).context("records of boots")?;
    nodes::tries::resume(app.nodes())?;
    let portmap = Portmap::bind(&app);
    let netboot = netboot::Sockets::bind(&app);
    let web = web::Sockets::bind(&app);
    exports::serve(&app, nfs_listener, portmap.tcp, portmap.udp)?;
    link_listener.set_nonblocking(true)?;
    let link_listener = tokio::net::TcpListener::from_std(link_listener)?;
    let mut services = vec![
        tokio::spawn(link::serve(app.clone(), link_listener)),
        tokio::spawn(logs::run(app.logs().clone())),
        tokio::spawn(logs::consoles::run(app.logs().clone(), app.nodes().clone())),
        tokio::spawn(actions::housekeeping::run(app.clone())),
        tokio::spawn(actions::live::run(app.clone())),
        tokio::spawn(actions::node_leases::watch(app.clone())),
        tokio::spawn(nodes::boots::run(app.nodes().clone())),
        tokio::spawn(nodes::tries::run(app.nodes().clone())),
        tokio::spawn(watch_firewalls(app.clone())),
        tokio::spawn(nodes::links::watch(app.nodes().links().clone())),
        tokio::spawn(watch_cable(app.clone())),
    ];
    services.extend(logs::forward::start(app.logs())?.into_iter().map(tokio::spawn));
    services.extend(netconsole::serve(&app).map(tokio::spawn));
    services.extend(dhcp_client::start(&app));
    services.extend(container_dns.map(|dns| tokio::spawn(dns.serve(app.clone()))));
    services.extend(netboot.serve(&app)?);
    services.extend(web.serve(&app)?);
    blocking(|| app.outside().follow(Vec::new()))?;
    nodes::vnode::start_all(app.nodes())?;
    let ending = app.clone();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tracing::info!(socket = %app.config().socket().display(), bridge = app.config().bridge(), "serving");
    let api = api::serve(app.clone(), std::future::pending());
    let outcome = tokio::select! {
        outcome = api => outcome,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        () = ending.process().down_wanted() => Ok(()),
    };
    tracing::info!("leaving: nodes and open shells go on");
    services.iter().for_each(tokio::task::JoinHandle::abort);
    if let Err(e) = nodes::boots::flush(app.nodes()) {
        tracing::warn!("{e:#}");
    }
    logs::flush(app.logs());
    let _ = std::fs::remove_file(app.config().socket());
    outcome
}

async fn watch_firewalls(app: Arc<App>) {
    loop {
        tokio::time::sleep(FIREWALL_INTERVAL).await;
        if let Err(e) = blocking(|| network::beside_foreign_firewalls(app.config())) {
            tracing::warn!("{e:#}");
        }
        // A port that another program held may be free now.
        if let Err(e) = blocking(|| app.outside().follow(Vec::new())) {
            tracing::warn!("{e:#}");
        }
    }
}

/// Follows the interfaces of the configuration: cables that are pulled, adapters that vanish and come back.
async fn watch_cable(app: Arc<App>) {
    if app.config().network.walt_net.raw_device.is_none() && app.config().network.others.is_empty() {
        return;
    }
    let monitor =
        Monitor::open().inspect_err(|e| tracing::warn!("{e}: changes of interfaces are noticed late")).ok();
    loop {
        if let Err(e) = blocking(|| cable::follow(app.base())) {
            tracing::warn!("{e:#}");
        }
        let change = async {
            match &monitor {
                Some(monitor) => monitor.changed().await,
                None => std::future::pending().await,
            }
        };
        let news = async {
            tokio::select! {
                changed = change => changed,
                () = app.base().wire().addressed() => Ok(()),
            }
        };
        match tokio::time::timeout(CABLE_INTERVAL, news).await {
            Ok(Err(e)) => {
                tracing::debug!("changes of interfaces: {e}");
                tokio::time::sleep(CABLE_INTERVAL).await;
            }
            Ok(Ok(())) => tokio::time::sleep(CABLE_SETTLE).await,
            Err(_) => {}
        }
    }
}

/// The port mapper: needed by foreign images only, since ours name their ports; a port that is held by
/// another program is reported and done without.
struct Portmap {
    tcp: Option<TcpListener>,
    udp: Option<std::net::UdpSocket>,
}

impl Portmap {
    fn bind(app: &App) -> Self {
        let missing = |protocol| {
            let effect = "nodes whose images do not name the NFS port cannot boot";
            app.base().ports_missing().add("the port mapper", protocol, PORTMAP_PORT, effect);
        };
        let tcp = listen(app.config(), PORTMAP_PORT, "the port mapper").inspect_err(|_| missing("tcp")).ok();
        let udp = bound(app.config(), Type::DGRAM, PORTMAP_PORT).inspect_err(|_| missing("udp")).ok();
        Self { tcp, udp: udp.map(Into::into) }
    }
}
