//! `walt device shell`: ssh from the server to a device that is not a node. It asks the user for a password, since the
//! server's own keys are not the user's.

use crate::{
    actions::{app::App, device_actions, device_list::AnyDevice},
    base::failure::{Failure, Outcome, bad_request, refused, refused_hint},
};
use std::process::Command;
use walt_types::node_set::Candidate;

/// Longest name of an account.
const USER_MAX: usize = 64;
/// Seconds to connect before a device counts as unreachable.
const CONNECT_TIMEOUT_S: u32 = 10;

/// The ssh command for a session on a device.
///
/// # Errors
/// The device is unknown, a node, the server, or has no address; or the account's name cannot be one.
pub fn command(app: &App, name: &str, user: &str, tty: bool) -> Outcome<Command> {
    let device = device_actions::named(app, name)?;
    match &device {
        AnyDevice::Node(_) => return Err(refused_hint("this device is a node.", "use 'walt node shell'")),
        AnyDevice::Server(_) => {
            return Err(refused(format!(
                "{} is the server itself: log in to it by ssh as to any machine.",
                device.name()
            )));
        }
        AnyDevice::Other(_) => {}
    }
    let ip = device.ip().ok_or_else(|| no_address(&device))?;
    if !is_user(user) {
        return Err(bad_request(format!("'{}' is not a user name.", user.escape_debug())));
    }
    let mut ssh = Command::new("ssh");
    ssh.args(["-F", "none"]);
    for option in [
        // Devices are replaced and reset: their keys mean nothing here. Nor do the server's own there.
        "UserKnownHostsFile=/dev/null".to_owned(),
        "GlobalKnownHostsFile=/dev/null".into(),
        "StrictHostKeyChecking=no".into(),
        "PubkeyAuthentication=no".into(),
        "PreferredAuthentications=keyboard-interactive,password".into(),
        "IdentityAgent=none".into(),
        "ForwardAgent=no".into(),
        // Never by another network, should the device have gone.
        format!("BindInterface={}", app.config().bridge()),
        format!("ConnectTimeout={CONNECT_TIMEOUT_S}"),
        "EscapeChar=none".into(),
        // Without the warning that a key was added.
        "LogLevel=ERROR".into(),
    ] {
        ssh.arg("-o").arg(option);
    }
    // Without a terminal, nobody can be asked.
    ssh.args(if tty { ["-tt", "-oBatchMode=no"] } else { ["-T", "-oBatchMode=yes"] });
    ssh.args(["-l", user, "--"]).arg(ip.to_string());
    Ok(ssh)
}

/// The failure for a device whose address went to another one.
pub fn no_address(device: &AnyDevice) -> Failure {
    refused(format!("{} has no address now: another device has got it.", device.name()))
}

/// Whether a text may be the name of an account on a device: not an option, nor anything that ssh would expand.
fn is_user(text: &str) -> bool {
    let is_part = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    (1..=USER_MAX).contains(&text.len()) && !text.starts_with('-') && text.bytes().all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users() {
        for (text, expected) in [
            ("root", true),
            ("Admin.2_x-y", true),
            ("", false),
            ("-oX", false),
            ("a b", false),
            ("a%h", false),
        ] {
            assert_eq!(is_user(text), expected, "{text}");
        }
        assert!(is_user(&"a".repeat(USER_MAX)) && !is_user(&"a".repeat(USER_MAX + 1)));
    }
}
