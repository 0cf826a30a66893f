//! `walt-server setup`: from an installed package to a server that serves, and later changes of it.
//!
//! ```text
//! file ─▶ current values ─▶ options ─▶ questions ─▶ new text of the file
//!                                                     │ facts about the machine ─▶ findings     (--check ends here)
//!                                                     ▼
//!                                                    plan ─▶ shown, asked ─▶ carried out
//! ```
//! | file | |
//! |---|---|
//! | [`choices`], [`proposal`], [`document`] | what is wanted, free ranges of addresses, the text of the file: pure |
//! | [`facts`], [`findings`] | what the checks look at, and what they say: pure |
//! | [`plan`], [`report`] | what will be done, and all as text |
//! | [`ask`] | the questions, on any input and output |
//! | [`gather`], [`used`], [`try_container`], [`service`], [`apply`] | this machine |
//!
//! Nothing is changed before the plan was shown. Running it again changes only what differs.

pub mod apply;
pub mod ask;
pub mod choices;
pub mod document;
pub mod facts;
pub mod findings;
pub mod gather;
pub mod plan;
pub mod proposal;
pub mod report;
pub mod service;
pub mod try_container;
pub mod used;

use crate::{
    actions::setup::{
        ask::{Asker, Background, Offer},
        choices::{Choices, DEFAULT_IMAGE, Wishes},
        findings::{Finding, Intent},
        plan::{FileChange, Plan},
        proposal::Used,
        service::{Service, UNIT},
    },
    base::config::{Config, DEFAULT_PATH},
    services::{
        cable,
        images::{
            LABEL_MODELS, MODEL_ALWAYS,
            default_image::{self, DefaultState},
        },
    },
};
use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use serde_norway::Value;
use std::{
    fs,
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
};
use walt_sys::net::{link, member};

/// `walt-server setup`
#[derive(Debug, Args)]
pub struct Setup {
    /// Only check this machine, and the configuration that would be written; exit status 1 if something prevents
    /// serving
    #[arg(long, conflicts_with_all = ["yes", "force", "no_start"])]
    check: bool,
    /// With --check: print JSON
    #[arg(long, requires = "check")]
    json: bool,
    /// Ask nothing: what no option says stays as it is, or is proposed
    #[arg(long, short)]
    yes: bool,
    /// Go on although a check has found a problem
    #[arg(long)]
    force: bool,
    /// Leave the service of systemd alone
    #[arg(long)]
    no_start: bool,
    #[command(flatten)]
    wishes: Wishes,
}

/// Runs the command on the configuration at `path`, or on the default one; false if something prevents serving.
///
/// # Errors
/// It cannot be carried out, or the administrator has ended it.
pub fn run(path: Option<&Path>, setup: &Setup) -> Result<bool> {
    let on_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    if !setup.check && !setup.yes && !on_terminal {
        bail!(
            "there is no terminal to ask on: with --yes, nothing is asked, and what no option says stays as it is or is \
             proposed ('walt-server setup --help' lists the options; --check only checks)"
        );
    }
    if !rustix::process::geteuid().is_root() {
        bail!("'walt-server setup' is for root: sudo walt-server setup");
    }
    let state = Before::read(path, setup)?;
    let mut choices = state.choices(setup)?;
    choices.wish(&setup.wishes, &state.used)?;
    let width = report::width();
    let mut asker = Asker::new(std::io::stdin().lock(), std::io::stdout(), width);
    if !setup.check && !setup.yes {
        let background = state.background()?;
        asker.all(&mut choices, &background)?;
        println!();
    }
    let (new, kept) = state.text(&choices)?;
    let config = Config::parse(&new).context("the configuration would be invalid; nothing was changed")?;
    let images: Vec<_> = choices
        .images
        .iter()
        .map(|recipe| plan::image_step(&config.state_dir, recipe))
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .flatten()
        .collect();
    let intent = Intent {
        build: images.iter().filter(|i| i.build).map(|i| i.recipe.clone()).next(),
        makes_accounts: !setup.check,
    };
    let service = service::find(state.path == Path::new(DEFAULT_PATH));
    let facts = gather::facts(&config, intent.build.as_deref(), service, &|text| progress(setup, text))?;
    let findings = findings::of(&config, &facts, &intent);
    if setup.check {
        show_findings(&findings, setup.json, width)?;
        return Ok(!findings::prevents(&findings));
    }
    show_findings(&findings, false, width)?;
    let is_bad = findings::prevents(&findings);
    if is_bad && setup.yes && !setup.force {
        bail!("a check has found a problem; nothing was changed (--force goes on all the same)");
    }
    let differs = state.text.as_deref() != Some(new.as_str());
    let steps = if setup.no_start { Vec::new() } else { plan::service_steps(service, differs) };
    let old = state.text.clone();
    let plan = Plan {
        group: facts.group_missing.clone(),
        account: !facts.account,
        file: differs.then(|| FileChange { path: state.path.clone(), old, new, kept }),
        service: steps,
        images,
    };
    if plan.is_empty() {
        println!("\nNothing has to be changed.");
    } else {
        println!("\nThis will be done:\n{}", plan.text(width).trim_end());
        if !setup.yes && !asker.yes("\nGo on", !is_bad)? {
            bail!("nothing was changed");
        }
        apply::run(&plan, &config, &|text| println!("{text}..."))?;
    }
    let restart = facts.server && plan.file.is_some() && plan.service.is_empty();
    println!("\n{}", report::wrap(&farewell(&config, &state.path, service, restart), width, 0));
    later_findings(&config, width);
    Ok(true)
}

/// What takes seconds, on standard error of a terminal.
fn progress(setup: &Setup, text: &str) {
    if !setup.json && std::io::stderr().is_terminal() {
        let _ = writeln!(std::io::stderr(), "{text}...");
    }
}

/// The findings as JSON.
#[derive(Serialize)]
struct Checked<'a> {
    ready: bool,
    findings: &'a [Finding],
}

fn show_findings(all: &[Finding], json: bool, width: usize) -> Result<()> {
    if json {
        let checked = Checked { ready: !findings::prevents(all), findings: all };
        println!("{}", serde_json::to_string_pretty(&checked)?);
        return Ok(());
    }
    print!("{}", report::findings(all, width));
    println!("{}", report::wrap(&report::summary(all), width, 0));
    Ok(())
}

/// What was there before.
struct Before {
    path: PathBuf,
    /// The text of the file; none if it does not exist.
    text: Option<String>,
    config: Config,
    used: Vec<Used>,
}

impl Before {
    fn read(path: Option<&Path>, setup: &Setup) -> Result<Self> {
        let path = path.unwrap_or(Path::new(DEFAULT_PATH));
        // Relative to where the command was started.
        let path = std::path::absolute(path)?;
        let text = match fs::read_to_string(&path) {
            Ok(text) => Some(text),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
        };
        let config = Config::parse(text.as_deref().unwrap_or("")).with_context(|| {
            format!("the configuration {} is invalid: correct it, or put it aside", path.display())
        })?;
        let mut own = config.clone();
        own.state_dir = setup.wishes.state_dir.clone().unwrap_or(own.state_dir);
        let used = used::list(&own)?;
        Ok(Self { path, text, config, used })
    }

    /// The current values, and for a new server the proposals.
    fn choices(&self, setup: &Setup) -> Result<Choices> {
        let value: Value = serde_norway::from_str(self.text.as_deref().unwrap_or("")).unwrap_or_default();
        let state_dir = setup.wishes.state_dir.as_ref().unwrap_or(&self.config.state_dir);
        // A server that has run has done so with the default values.
        let has_run = state_dir.join("walt.sqlite").exists() || (setup.check && self.text.is_some());
        let is_chosen = |path: &[&str]| {
            has_run || path.iter().try_fold(&value, |v, key| v.get(*key)).is_some_and(|v| !v.is_null())
        };
        Choices::current(&self.config, &self.used, is_chosen, current_images(state_dir)?)
    }

    /// The new text of the file, and whether its lines were kept.
    fn text(&self, choices: &Choices) -> Result<(String, bool)> {
        let edits = choices.edits(&self.config, self.text.is_none());
        let text = self.text.as_deref().unwrap_or(document::HEADER);
        if edits.is_empty() {
            return Ok((text.to_owned(), true));
        }
        let edited = document::edited(text, &edits)
            .with_context(|| format!("cannot change {}", self.path.display()))?;
        Ok((edited.text, edited.kept))
    }

    fn background(&self) -> Result<Background> {
        let mut recipes = Vec::new();
        for name in default_image::names() {
            let models = default_image::recipe_config(&name)?.labels.remove(LABEL_MODELS).unwrap_or_default();
            // Those of boards are wished for by --default-image: virtual nodes do not boot them.
            if models.split(',').any(|m| m.trim() == MODEL_ALWAYS) {
                let about = default_image::about(&name);
                recipes.push((name, about.to_owned()));
            }
        }
        Ok(Background {
            interfaces: offers(self.config.bridge())?,
            used: self.used.clone(),
            registries: self.config.registries.clone(),
            recipes,
        })
    }
}

/// What virtual nodes boot if nobody says otherwise.
fn default_state(state_dir: &Path) -> Result<DefaultState> {
    // Invariant: the constant is a valid model name.
    let model = MODEL_ALWAYS.parse().expect("a valid model");
    default_image::state_of(state_dir, &walt_core::default_image_of(&model))
}

/// The recipes of the default images that a server has; of a new one, the default.
fn current_images(state_dir: &Path) -> Result<Vec<String>> {
    Ok(match default_state(state_dir)? {
        DefaultState::Missing => vec![DEFAULT_IMAGE.to_owned()],
        DefaultState::Recipe(made_by) if default_image::recipe_config(&made_by.recipe).is_ok() => {
            vec![made_by.recipe]
        }
        DefaultState::Recipe(_) | DefaultState::Foreign => Vec::new(),
    })
}

/// The interfaces that can be chosen, with what is known about them.
fn offers(bridge: &str) -> Result<Vec<Offer>> {
    let mut all = Vec::new();
    for link in link::list()? {
        // Ports of containers and virtual machines, and what servers make.
        let is_virtual = matches!(link.kind.as_str(), "bridge" | "tun" | "dummy" | "ifb" | "wireguard");
        if link.is_loopback || is_virtual || !link.alias.is_empty() {
            continue;
        }
        let Some(found) = member::inspect(&link.name)? else { continue };
        let is_ours = found.controller.as_ref().is_some_and(|(name, _)| name == bridge);
        if link.kind == "veth" && found.controller.is_some() && !is_ours {
            // The end of a container's cable, in a bridge of docker.
            continue;
        }
        let refused = match gather::is_wireless(&link.name) {
            true => Some("is wireless, and cannot be in a bridge".into()),
            false => cable::use_of(&found, bridge).filter(|_| !is_ours),
        };
        let speed = member::speed(&link.name)?.map_or_else(String::new, |s| format!(", {s} Mbit/s"));
        let about = match (link.up, link.carrier) {
            (true, true) => format!("connected{speed}"),
            (true, false) => "unplugged, or its other end is off".into(),
            (false, _) => "not in use (down)".into(),
        };
        all.push(Offer { name: link.name, about, refused });
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

/// How to go on.
fn farewell(config: &Config, path: &Path, service: Service, restart: bool) -> String {
    let default = Config::default();
    let mut run = "walt-server run".to_owned();
    if path != Path::new(DEFAULT_PATH) {
        run.push_str(&format!(" --config {}", path.display()));
    }
    let is_running = gather::server_status(config).is_some();
    let mut text = match (is_running, service) {
        (true, _) if restart => {
            format!(
                "A server runs, with the configuration from before: end it, and start it again ({run}). Nodes and open shells go on."
            )
        }
        (true, _) => "The server runs.".to_owned(),
        (false, Service::Unit { .. }) => format!("The server does not run: systemctl start {UNIT}"),
        (false, Service::NoUnit) => {
            format!("The server does not run. systemd has no {UNIT} (the package brings it). By hand: {run}")
        }
        (false, Service::NoSystemd) => {
            format!("The server does not run, and this machine has no systemd to start it. By hand: {run}")
        }
        (false, Service::OtherFile) => {
            format!("The server does not run; {UNIT} is for {DEFAULT_PATH}. To start it: {run}")
        }
    };
    if default_state(&config.state_dir).is_ok_and(|s| s == DefaultState::Missing) {
        text.push_str(&format!(
            "\nThere is no default image yet: walt-server default-image build {DEFAULT_IMAGE}"
        ));
    }
    text.push_str("\nThen, as any user of this machine:");
    if config.run_dir != default.run_dir {
        text.push_str(&format!("\n  export WALT_SERVER=unix:{}", config.socket().display()));
    }
    text.push_str("\n  walt node create n1\n  walt node shell n1");
    text
}

/// What the server has found since its start: another DHCP server is searched for in some seconds.
fn later_findings(config: &Config, width: usize) {
    let Some(status) = gather::server_status(config) else { return };
    for server in status.dhcp_servers {
        let text = format!(
            "warning  Another DHCP server is on walt-net, at {} ({}): see 'walt-server status'.",
            server.ip, server.mac
        );
        println!("{}", report::wrap(&text, width, 9));
    }
}
