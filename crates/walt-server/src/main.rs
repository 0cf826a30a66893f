//! `walt-server`: reads the command line and calls the library.

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::{
    ffi::OsString,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::ExitCode,
};
use walt_api::AdminAction;
use walt_server::{
    actions::{admin, build, check_logs, check_store, status},
    base::{config::Config, failure},
    run,
    services::{
        images::{LABEL_MODELS, default_image, recipe},
        nodes, sessions,
    },
};
use walt_types::Mac;

/// Another name of this program.
const DHCP_EVENT: &str = "walt-dhcp-event";
/// Widths of columns: names of recipes, and of CPUs.
const NAME_WIDTH: usize = 17;
const CPU_WIDTH: usize = 5;

#[derive(Parser)]
#[command(
    name = "walt-server",
    version,
    about = "The server of a WalT testbed",
    disable_help_subcommand = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Configuration file (default: /etc/walt/server.conf, if it exists)
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve, in the foreground
    Run,
    /// Stop the server, nodes and sessions, and remove bridge and rules; the state is kept
    Down,
    /// Check the configuration
    CheckConfig,
    /// Show the status of the server: nodes, sessions, images, disk, ports, firewalls, last errors; exit status 1 if
    /// none is running
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Check the image store: references, layers, digests, and leftovers; exit status 1 if there is a problem
    CheckStore {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Check the store of log lines: everything in it is read; exit status 1 if there is a problem
    CheckLogs {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Build default images from their recipes
    #[command(subcommand)]
    DefaultImage(DefaultImage),
    /// Register a device as an event of a DHCP server would (also: this program by the name walt-dhcp-event)
    #[command(subcommand, hide = true)]
    DhcpEvent(DhcpEvent),
    /// Hold one session of an image shell (started by the server)
    #[command(hide = true)]
    Hold { session: PathBuf },
    /// Forward the frames of a shaped link of a virtual node (started by the server)
    #[command(hide = true)]
    Link { dir: PathBuf },
    /// Run one command of an image build (started by the server)
    #[command(hide = true)]
    BuildStep { dir: PathBuf },
    /// Fetch a source for an image build (started in a container)
    #[command(hide = true)]
    BuildFetch,
}

#[derive(Subcommand)]
enum DefaultImage {
    /// Build an image and store it as waltplatform/NAME:latest
    Build { name: String },
    /// List the images that have recipes, with CPU and models
    List,
    /// Print the digest of a recipe, or of all; a built image is up to date while it stays the same
    Digest { name: Option<String> },
    /// Run a recipe and write its results to a directory; WALT_CACHE names a directory for downloads
    #[command(hide = true)]
    Make { name: String, dir: PathBuf },
}

/// Arguments as tools of existing installations give them, by position.
#[derive(Subcommand)]
enum DhcpEvent {
    /// A device got an address
    Commit {
        /// Make NAME the device's name, as it is
        #[arg(long)]
        force_name: bool,
        /// Vendor class
        vci: String,
        /// User class
        uci: String,
        /// Address
        ip: Ipv4Addr,
        /// Ethernet address
        mac: Mac,
        /// Host name; may be empty
        name: String,
        /// Whether the caller knows the device: 0 or 1; the server finds out by itself
        #[arg(value_parser = clap::value_parser!(u8).range(0..=1))]
        known: u8,
        /// Type that the caller knows; the server finds out by itself
        r#type: String,
    },
}

/// The command line; called as walt-dhcp-event, this program has that subcommand only.
fn arguments() -> Arguments {
    let words: Vec<OsString> = std::env::args_os().collect();
    let name = words.first().map(Path::new).and_then(Path::file_name);
    if name.is_some_and(|name| name == DHCP_EVENT) {
        let rest = words.into_iter().skip(1);
        return Arguments::parse_from(["walt-server".into(), "dhcp-event".into()].into_iter().chain(rest));
    }
    Arguments::parse_from(words)
}

fn main() -> ExitCode {
    let arguments = arguments();
    if let Command::Hold { session } = &arguments.command {
        // Before any thread exists, since the holder changes its mount namespace.
        return ExitCode::from(u8::try_from(sessions::hold(session)).unwrap_or(1));
    }
    if let Command::BuildStep { dir } = &arguments.command {
        return ExitCode::from(u8::try_from(build::step(dir)).unwrap_or(1));
    }
    if let Command::BuildFetch = &arguments.command {
        return ExitCode::from(u8::try_from(build::fetch()).unwrap_or(1));
    }
    if let Command::Link { dir } = &arguments.command {
        return ExitCode::from(u8::try_from(nodes::links::forward(dir)).unwrap_or(1));
    }
    match dispatch(arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("Error: {}", failure::reasons(&e));
            ExitCode::FAILURE
        }
    }
}

/// Carries out a command; false for exit status 1.
fn dispatch(arguments: Arguments) -> Result<bool> {
    let config = Config::load(arguments.config.as_deref())?;
    match arguments.command {
        Command::CheckStore { json } => check_store::run(&config, json),
        Command::CheckLogs { json } => check_logs::run(&config, json),
        Command::Status { json } => status::run(&config, json),
        other => change(other, config).map(|()| true),
    }
}

fn change(command: Command, config: Config) -> Result<()> {
    match command {
        Command::Run => run(config),
        Command::Down => admin::down(config),
        Command::CheckConfig => admin::check_config(&config),
        Command::DefaultImage(DefaultImage::Build { name }) => admin::build_default_image(config, &name),
        Command::DhcpEvent(DhcpEvent::Commit { force_name, vci, uci, ip, mac, name, .. }) => {
            let action = AdminAction::DhcpCommit {
                vendor_class: vci,
                user_class: uci,
                ip,
                mac,
                host_name: name,
                force_name,
            };
            admin::dhcp_commit(&config, &action)
        }
        Command::DefaultImage(DefaultImage::List) => {
            for name in default_image::names() {
                let recipe = default_image::recipe_config(&name)?;
                let models = recipe.labels.get(LABEL_MODELS).map_or("", String::as_str);
                println!("{name:NAME_WIDTH$}  {:CPU_WIDTH$}  {models}", recipe.architecture);
            }
            Ok(())
        }
        Command::DefaultImage(DefaultImage::Digest { name }) => {
            println!("{}", default_image::recipes_digest(name.as_deref())?);
            Ok(())
        }
        Command::DefaultImage(DefaultImage::Make { name, dir }) => {
            let cache = std::env::var_os("WALT_CACHE").map(PathBuf::from);
            recipe::make(&name, &dir, &cache.unwrap_or_else(|| recipe::cache_of(&config)))
        }
        // The callers handle these.
        Command::Hold { .. }
        | Command::Link { .. }
        | Command::BuildStep { .. }
        | Command::BuildFetch
        | Command::CheckStore { .. }
        | Command::CheckLogs { .. }
        | Command::Status { .. } => Ok(()),
    }
}
