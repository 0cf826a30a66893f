//! The ssh command for a node: OpenSSH as root, with the platform's keys.

use crate::services::nodes::Nodes;
use std::{net::Ipv4Addr, process::Command};

/// Seconds to connect before a node counts as unreachable.
const CONNECT_TIMEOUT_S: u32 = 10;

/// The ssh command line for a node. `remote` is passed to the remote shell as one string; without it, ssh opens a
/// login shell. `tty` requests a terminal on the node.
pub fn command(nodes: &Nodes, ip: Ipv4Addr, remote: Option<&str>, tty: bool) -> Command {
    let mut ssh = Command::new("ssh");
    // No configuration files: a node shell must not depend on root's ~/.ssh.
    ssh.args(["-F", "none"]);
    for option in [
        format!("IdentityFile={}", nodes.base().keys().client_key.display()),
        "IdentitiesOnly=yes".into(),
        format!("UserKnownHostsFile={}", nodes.base().keys().known_hosts.display()),
        "GlobalKnownHostsFile=/dev/null".into(),
        "HostKeyAlias=walt.node".into(),
        "StrictHostKeyChecking=yes".into(),
        "PasswordAuthentication=no".into(),
        "BatchMode=yes".into(),
        format!("ConnectTimeout={CONNECT_TIMEOUT_S}"),
        "ServerAliveInterval=15".into(),
        "ServerAliveCountMax=4".into(),
        "EscapeChar=none".into(),
    ] {
        ssh.arg("-o").arg(option);
    }
    ssh.arg(if tty { "-tt" } else { "-T" });
    ssh.arg(format!("root@{ip}"));
    if let Some(remote) = remote {
        ssh.arg("--").arg(remote);
    }
    ssh
}
