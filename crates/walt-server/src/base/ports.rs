//! Finds the process that holds a port, by /proc/net and /proc/<pid>/fd (proc(5)).

use parking_lot::Mutex;
use std::{fs, net::SocketAddr};
use walt_api::MissingPort;

/// Port of NFS and of its MOUNT protocol.
pub const NFS_PORT: u16 = 2049;
/// Port of the port mapper (RFC 1833).
pub const PORTMAP_PORT: u16 = 111;

/// Ports that the server could not bind, for its status.
#[derive(Default)]
pub struct Missing(Mutex<Vec<MissingPort>>);

impl Missing {
    /// Records and logs that a port could not be bound. `protocol` is `tcp` or `udp`; `effect` is a sentence without
    /// its full stop.
    pub fn add(&self, service: &str, protocol: &str, port: u16, effect: &str) {
        let at = SocketAddr::from(([0, 0, 0, 0], port));
        tracing::warn!("{service} runs without {protocol}: {}; {effect}", holder_text(at, protocol));
        self.0.lock().push(MissingPort {
            port,
            protocol: protocol.into(),
            service: service.into(),
            holder: None,
            pid: None,
            effect: effect.into(),
        });
    }

    /// All missing ports, with the processes that hold them now.
    pub fn list(&self) -> Vec<MissingPort> {
        let mut list = self.0.lock().clone();
        for missing in &mut list {
            if let Some((pid, name)) = holder(missing.port, &missing.protocol) {
                (missing.pid, missing.holder) = (Some(pid), Some(name));
            }
        }
        list
    }
}

/// The process that holds a port, for an error message.
pub fn holder_text(at: SocketAddr, protocol: &str) -> String {
    match holder(at.port(), protocol) {
        Some((pid, name)) => format!("port {} is held by {name}, process {pid}: stop it first", at.port()),
        None => format!("cannot bind port {}", at.port()),
    }
}

/// The process that holds a port: its number and name.
pub fn holder(port: u16, protocol: &str) -> Option<(u32, String)> {
    let inodes: Vec<String> = ["", "6"]
        .iter()
        .filter_map(|family| fs::read_to_string(format!("/proc/net/{protocol}{family}")).ok())
        .flat_map(|table| inodes_of(&table, port, protocol == "tcp"))
        .collect();
    if inodes.is_empty() {
        return None;
    }
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        let Ok(fds) = fs::read_dir(process.path().join("fd")) else { continue };
        let holds = fds.flatten().filter_map(|fd| fs::read_link(fd.path()).ok()).any(|target| {
            let target = target.to_string_lossy().into_owned();
            inodes.iter().any(|inode| target == format!("socket:[{inode}]"))
        });
        if holds {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some((pid, name.trim().to_owned()));
        }
    }
    None
}

/// Inodes of the sockets bound to a port; for TCP, of listening sockets only (state 0A).
fn inodes_of(table: &str, port: u16, listening: bool) -> Vec<String> {
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let local = words.get(1)?.rsplit(':').next()?;
            let right_port = u16::from_str_radix(local, 16).ok()? == port;
            let right_state = !listening || *words.get(3)? == "0A";
            (right_port && right_state).then(|| words.get(9).map(|w| (*w).to_owned())).flatten()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_of_ours_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        assert!(holder_text(at, "tcp").contains(&format!("process {}", std::process::id())));
    }
}
