//! Values of settings: ports, signals, durations, health checks.

use crate::build::dockerfile::{Command, Flag};
use serde_json::{Value, json};

/// Widest range of ports that `EXPOSE` takes.
const MAX_PORTS: u32 = 65_536;

/// `80`, `80/udp`, `80-82/tcp` as the entries of a configuration.
pub(super) fn port_range(text: &str) -> std::result::Result<Vec<String>, String> {
    let why = || format!("'{text}' is no port: use 80, 80/udp or 80-82/tcp");
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(why());
    }
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let number = |text: &str| text.parse::<u32>().ok().filter(|n| *n < MAX_PORTS).ok_or_else(why);
    let (first, last) = (number(first)?, number(last)?);
    if first > last {
        return Err(why());
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

pub(super) fn is_signal(text: &str) -> bool {
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    match text.parse::<u32>() {
        Ok(number) => (1..=64).contains(&number),
        Err(_) => {
            const NAMES: [&str; 33] = [
                "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT",
                "KILL", "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM",
                "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU",
            ];
            let real_time = name.strip_prefix("RTM").is_some_and(|rest| {
                let digits = rest.trim_start_matches("IN+").trim_start_matches("AX-");
                matches!(rest, "IN" | "AX") || digits.parse::<u8>().is_ok_and(|n| n <= 15)
            });
            NAMES.contains(&name) || name == "XFSZ" || real_time
        }
    }
}

/// A duration as Go writes it, in nanoseconds: `1m30s`, `500ms`.
fn duration(text: &str) -> Option<u64> {
    let mut total = 0f64;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1e0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        rest = &rest[end..];
        total += number * unit;
    }
    // Ten years: what is longer is a slip.
    (!text.is_empty() && total < 3.2e17).then_some(total as u64)
}

pub(super) fn healthcheck(flags: &[Flag], test: Option<&Command>) -> std::result::Result<Value, String> {
    let Some(test) = test else {
        return match flags.is_empty() {
            true => Ok(json!({"Test": ["NONE"]})),
            false => Err("HEALTHCHECK NONE takes no option".into()),
        };
    };
    let words = match test {
        Command::Shell(text) => vec!["CMD-SHELL".to_owned(), text.clone()],
        Command::Exec(words) => std::iter::once("CMD".to_owned()).chain(words.iter().cloned()).collect(),
    };
    let mut value = json!({"Test": words});
    for flag in flags {
        let text = flag.value.as_deref().unwrap_or_default();
        let key = match flag.name.as_str() {
            "interval" => "Interval",
            "timeout" => "Timeout",
            "start-period" => "StartPeriod",
            "start-interval" => "StartInterval",
            "retries" => {
                let count: u32 = text.parse().map_err(|_| format!("--retries={text} is no number"))?;
                value["Retries"] = json!(count);
                continue;
            }
            other => return Err(format!("HEALTHCHECK has no option '--{other}'")),
        };
        let nanoseconds =
            duration(text).ok_or_else(|| format!("--{}={text} is no duration as 1m30s", flag.name))?;
        value[key] = json!(nanoseconds);
    }
    Ok(value)
}
