//! `nft`, the program: rulesets are applied as text, in one transaction each; the answers are JSON.
//!
//! The text of our own tables is made by `walt_core::firewall`. Here it is applied, and here other people's firewalls
//! are looked at: an accept in our table is not final, so a base chain elsewhere that drops what it does not know
//! (docker's FORWARD) must be given a rule. Such rules carry a comment by which they are found and removed.

use super::{NetError, Result, io_error};
use serde_json::Value;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long one run of `nft` may take. It needs milliseconds; a hanging one holds the lock of nobody else.
pub const NFT_TIMEOUT: Duration = Duration::from_secs(20);

/// How much of nft's complaint goes into an error, in characters.
const MESSAGE_MAX: usize = 600;

/// Hooks whose foreign chains can stop our traffic.
const HOOKS: [&str; 2] = ["input", "forward"];

/// The chain that docker keeps for rules of others.
const DOCKER_USER: &str = "DOCKER-USER";

/// A foreign base chain that drops unknown traffic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForeignChain {
    /// Address family of its table (`ip`, `inet`).
    pub family: String,
    /// Its table.
    pub table: String,
    /// The base chain itself.
    pub chain: String,
    /// Where it sits: `input` or `forward`.
    pub hook: String,
    /// The chain in which a rule of ours belongs: docker's own for it if there is one, else the base chain.
    pub insert_into: String,
}

impl std::fmt::Display for ForeignChain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.family, self.table, self.chain)
    }
}

/// Applies a ruleset, all of it or nothing.
///
/// # Errors
/// [`NetError::Nft`] with what nft printed, or when it cannot be run (the package `nftables` is missing).
pub fn apply(ruleset: &str) -> Result<()> {
    run(&["-f", "-"], ruleset, "apply a ruleset").map(drop)
}

/// Removes a table, such as (`inet`, `walt-walt-net`); its absence is success.
///
/// # Errors
/// As [`apply`].
pub fn remove_table(family: &str, table: &str) -> Result<()> {
    // Adding an existing table changes nothing, so the pair removes it whether it was there or not.
    apply(&format!("add table {family} {table}\ndelete table {family} {table}\n"))
}

/// The chains of others that would drop our traffic.
///
/// # Errors
/// As [`apply`].
pub fn foreign_chains() -> Result<Vec<ForeignChain>> {
    Ok(find_foreign(&list_ruleset()?))
}

/// What is done about a foreign chain that drops unknown traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Help {
    /// A marked rule in it accepts our traffic.
    Accepted,
    /// [`accept_in_foreign_chains`] will add one.
    Pending,
    /// It is at a place where an accept does not help, or where we add no rules.
    None,
}

/// The chains of others that would drop our traffic, and what is done about each, sorted. `mark` is that of
/// [`accept_in_foreign_chains`].
///
/// # Errors
/// As [`apply`].
pub fn foreign_rules(mark: &str) -> Result<Vec<(String, Help)>> {
    Ok(classify_foreign(&list_ruleset()?, mark))
}

fn classify_foreign(ruleset: &Value, mark: &str) -> Vec<(String, Help)> {
    let present = marked_rules(ruleset, mark);
    let rate = |chain: ForeignChain| {
        let of = |r: &MarkedRule| {
            r.family == chain.family && r.table == chain.table && r.chain == chain.insert_into
        };
        let help = if present.iter().any(of) { Help::Accepted } else { Help::Pending };
        (chain.to_string(), help)
    };
    let mut rated: Vec<_> = find_foreign(ruleset).into_iter().map(rate).collect();
    // Where bridged frames and packets of the server pass, besides the chains that get a rule.
    let elsewhere = items(ruleset, "chain")
        .filter(|chain| !text(chain, "hook").is_empty() && !text(chain, "table").starts_with("walt-"))
        .filter(|chain| match text(chain, "family") {
            "ip" | "inet" => !HOOKS.contains(&text(chain, "hook")),
            "bridge" | "arp" | "netdev" => true,
            _ => false,
        })
        .filter(|chain| text(chain, "policy") == "drop" || ends_in_drop(ruleset, chain))
        .map(|c| (format!("{} {} {}", text(c, "family"), text(c, "table"), text(c, "name")), Help::None));
    rated.extend(elsewhere);
    rated.sort();
    rated
}

/// Whether rules of the old `iptables` exist, which nft neither shows nor can change.
pub fn legacy_iptables() -> bool {
    std::fs::read_to_string("/proc/thread-self/net/ip_tables_names")
        .is_ok_and(|names| !names.trim().is_empty())
}

/// Gives each foreign chain that drops our traffic a rule that accepts it, once. `interfaces` are names, or prefixes
/// that end in `*`. Returns the chains that now let it pass.
///
/// Our own table still sees every packet, and its drops are final.
///
/// # Errors
/// As [`apply`].
pub fn accept_in_foreign_chains(mark: &str, interfaces: &[&str]) -> Result<Vec<ForeignChain>> {
    let ruleset = list_ruleset()?;
    let chains = find_foreign(&ruleset);
    let present = marked_rules(&ruleset, mark);
    let mut text = String::new();
    for chain in &chains {
        let done = present
            .iter()
            .any(|r| r.family == chain.family && r.table == chain.table && r.chain == chain.insert_into);
        if !done {
            text.push_str(&accept_rules(chain, mark, interfaces));
        }
    }
    if !text.is_empty() {
        apply(&text)?;
    }
    Ok(chains)
}

/// Removes every rule that carries the mark, wherever it is.
///
/// # Errors
/// As [`apply`].
pub fn remove_marked(mark: &str) -> Result<()> {
    let text: String = marked_rules(&list_ruleset()?, mark)
        .iter()
        .map(|r| format!("delete rule {} {} {} handle {}\n", r.family, r.table, r.chain, r.handle))
        .collect();
    if text.is_empty() { Ok(()) } else { apply(&text) }
}

fn accept_rules(chain: &ForeignChain, mark: &str, interfaces: &[&str]) -> String {
    let mut text = String::new();
    let directions: &[&str] = if chain.hook == "input" { &["iifname"] } else { &["iifname", "oifname"] };
    for interface in interfaces {
        for direction in directions {
            text.push_str(&format!(
                "insert rule {} {} {} {direction} \"{interface}\" counter accept comment \"{mark}\"\n",
                chain.family, chain.table, chain.insert_into
            ));
        }
    }
    text
}

fn list_ruleset() -> Result<Value> {
    let text = run(&["-j", "-a", "list", "ruleset"], "", "list the rulesets")?;
    serde_json::from_str(&text).map_err(|e| io_error("read the answer of 'nft -j list ruleset'", e.into()))
}

struct MarkedRule {
    family: String,
    table: String,
    chain: String,
    handle: u64,
}

fn items<'a>(ruleset: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    ruleset["nftables"].as_array().into_iter().flatten().filter_map(move |item| item.get(kind))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn marked_rules(ruleset: &Value, mark: &str) -> Vec<MarkedRule> {
    let marked = items(ruleset, "rule").filter(|rule| text(rule, "comment") == mark);
    marked
        .filter_map(|rule| {
            Some(MarkedRule {
                family: text(rule, "family").to_owned(),
                table: text(rule, "table").to_owned(),
                chain: text(rule, "chain").to_owned(),
                handle: rule["handle"].as_u64()?,
            })
        })
        .collect()
}

/// Base chains with policy drop, or whose last rule drops or rejects everything, outside our own tables.
fn find_foreign(ruleset: &Value) -> Vec<ForeignChain> {
    let mut found: Vec<ForeignChain> = items(ruleset, "chain")
        .filter(|chain| matches!(text(chain, "family"), "ip" | "inet"))
        .filter(|chain| HOOKS.contains(&text(chain, "hook")))
        .filter(|chain| !text(chain, "table").starts_with("walt-"))
        .filter(|chain| text(chain, "policy") == "drop" || ends_in_drop(ruleset, chain))
        .map(|chain| {
            let (family, table, name) = (text(chain, "family"), text(chain, "table"), text(chain, "name"));
            let docker = text(chain, "hook") == "forward"
                && items(ruleset, "chain").any(|c| {
                    text(c, "family") == family && text(c, "table") == table && text(c, "name") == DOCKER_USER
                });
            ForeignChain {
                family: family.to_owned(),
                table: table.to_owned(),
                chain: name.to_owned(),
                hook: text(chain, "hook").to_owned(),
                insert_into: if docker { DOCKER_USER } else { name }.to_owned(),
            }
        })
        .collect();
    found.sort();
    found
}

fn ends_in_drop(ruleset: &Value, chain: &Value) -> bool {
    let last = items(ruleset, "rule")
        .filter(|rule| {
            ["family", "table"].iter().all(|key| rule[key] == chain[key]) && rule["chain"] == chain["name"]
        })
        .last();
    let Some(expressions) = last.and_then(|rule| rule["expr"].as_array()) else { return false };
    let plain = |e: &Value| ["counter", "log", "drop", "reject"].iter().any(|key| e.get(key).is_some());
    let drops = |e: &Value| e.get("drop").is_some() || e.get("reject").is_some();
    expressions.iter().all(plain) && expressions.iter().any(drops)
}

fn run(arguments: &[&str], input: &str, what: &str) -> Result<String> {
    let program = |e| io_error("run nft (package nftables)", e);
    let mut child = Command::new("nft")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(program)?;
    let stdin = child.stdin.take();
    let id = rustix::process::Pid::from_child(&child);
    // Opened while the child is certainly ours to wait for: the descriptor never means another process.
    let pidfd = rustix::process::pidfd_open(id, rustix::process::PidfdFlags::empty())
        .map_err(|e| program(e.into()))?;
    std::thread::scope(|scope| {
        let (done, expired) = std::sync::mpsc::channel::<()>();
        scope.spawn(move || {
            if expired.recv_timeout(NFT_TIMEOUT) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                // It may have ended this moment, which is as good.
                let _ = rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL);
            }
        });
        scope.spawn(move || {
            if let Some(mut stdin) = stdin {
                // A write that fails shows as the complaint of nft, which says more.
                let _ = stdin.write_all(input.as_bytes());
            }
        });
        let output = child.wait_with_output().map_err(program);
        drop(done);
        let output = output?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let message: String =
            String::from_utf8_lossy(&output.stderr).trim().chars().take(MESSAGE_MAX).collect();
        let message = if message.is_empty() { format!("it ended with {}", output.status) } else { message };
        Err(NetError::Nft { what: what.to_owned(), message })
    })
}
