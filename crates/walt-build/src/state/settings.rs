//! Values of settings: ports, signals, durations, health checks.

use crate::dockerfile::{Command, Flag};
use serde_json::{Value, json};

/// Widest range of ports that `EXPOSE` takes.
const MAX_PORTS: u32 = 65_536;

/// `80`, `80/udp`, `80-82/tcp` as the entries of a configuration. Addresses and ports of a host before it, as in
/// `127.0.0.1:8080:80`, mean nothing in an image.
pub(super) fn port_range(text: &str) -> std::result::Result<Vec<String>, String> {
    let why = || format!("'{text}' is not a port: use 80, 80/udp or 80-82/tcp");
    let (host, inside) = match text.rsplit_once(':') {
        Some((host, inside)) => (Some(host), inside),
        None => (None, text),
    };
    let (ports, protocol) = inside.split_once('/').unwrap_or((inside, ""));
    let protocol = match protocol.to_ascii_lowercase() {
        none if none.is_empty() => "tcp".to_owned(),
        known if matches!(known.as_str(), "tcp" | "udp" | "sctp") => known,
        _ => return Err(why()),
    };
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let number = |text: &str| text.parse::<u32>().ok().filter(|n| *n < MAX_PORTS);
        Some((number(first)?, number(last)?)).filter(|(first, last)| first <= last)
    };
    let (first, last) = range(ports).ok_or_else(why)?;
    if let Some(host) = host {
        let (address, ports) = host.rsplit_once(':').unwrap_or(("", host));
        let address = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
        let known = address.is_empty() || address.parse::<std::net::IpAddr>().is_ok();
        let fits = ports.is_empty()
            || range(ports).is_some_and(|(from, to)| to - from == last - first || first == last);
        if !known || !fits {
            return Err(why());
        }
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
    if text == "0" {
        return Some(0);
    }
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
    // Longer than ten years is a mistake.
    (!text.is_empty() && total < 3.2e17).then_some(total as u64)
}

pub(super) fn healthcheck(flags: &[Flag], test: Option<&Command>) -> std::result::Result<Value, String> {
    let Some(test) = test else {
        // Options are ignored then.
        return Ok(json!({"Test": ["NONE"]}));
    };
    let words = match test {
        Command::Shell(text) => vec!["CMD-SHELL".to_owned(), text.clone()],
        Command::Exec(words) => std::iter::once("CMD".to_owned()).chain(words.iter().cloned()).collect(),
    };
    let mut value = json!({"Test": words});
    for flag in flags {
        let text = flag.value.as_deref().ok_or_else(|| format!("--{} needs a value", flag.name))?;
        let key = match flag.name.as_str() {
            "interval" => "Interval",
            "timeout" => "Timeout",
            "start-period" => "StartPeriod",
            "start-interval" => "StartInterval",
            "retries" if text.is_empty() => continue,
            "retries" => {
                let count: u32 = text.parse().map_err(|_| format!("--retries={text} is not a number"))?;
                value["Retries"] = json!(count);
                continue;
            }
            other => return Err(format!("HEALTHCHECK has no option '--{other}'")),
        };
        if text.is_empty() {
            continue;
        }
        let nanoseconds = duration(text)
            .ok_or_else(|| format!("--{}={text} is not a duration such as 1m30s", flag.name))?;
        if nanoseconds > 0 {
            value[key] = json!(nanoseconds);
        }
    }
    Ok(value)
}
