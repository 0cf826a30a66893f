//! Values under `/proc/sys/net`, changed with the previous value handed back so that it can be restored.
//!
//! `/proc/sys/net` shows the network namespace of the thread that opens it.

use super::{Result, check_ifname, io_error};
use std::fs;

/// A value as it was before [`set`] changed it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Previous {
    /// Path below `/proc/sys`, such as `net/ipv4/ip_forward`.
    pub key: String,
    /// The value before.
    pub value: String,
}

fn path(key: &str) -> String {
    format!("/proc/sys/{key}")
}

/// Reads a value; `None` if this kernel (or this interface) does not have it.
///
/// # Errors
/// When the file is there and cannot be read.
pub fn get(key: &str) -> Result<Option<String>> {
    match fs::read_to_string(path(key)) {
        Ok(text) => Ok(Some(text.trim_end().to_owned())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(io_error(format!("read {}", path(key)), e)),
    }
}

/// Sets a value. Returns what was there before, or `None` if it already was so.
///
/// # Errors
/// When this kernel does not have the value, or refuses the change.
pub fn set(key: &str, value: &str) -> Result<Option<Previous>> {
    let before = get(key)?;
    if before.as_deref() == Some(value) {
        return Ok(None);
    }
    fs::write(path(key), value).map_err(|e| io_error(format!("write {value} to {}", path(key)), e))?;
    Ok(before.map(|value| Previous { key: key.to_owned(), value }))
}

/// Puts a value back.
///
/// # Errors
/// When the kernel refuses. A value that has gone with its interface is success.
pub fn restore(previous: &Previous) -> Result<()> {
    if get(&previous.key)?.is_none() {
        return Ok(());
    }
    set(&previous.key, &previous.value).map(drop)
}

/// Enables forwarding of packets between interfaces (`net.ipv4.ip_forward`).
///
/// # Errors
/// When the kernel refuses.
pub fn enable_forwarding() -> Result<Option<Previous>> {
    set("net/ipv4/ip_forward", "1")
}

/// Sets a value of one interface, such as (`ipv4`, `arp_ignore`). A value that the kernel lacks is skipped: a kernel
/// without IPv6 has nothing to disable.
///
/// # Errors
/// When the kernel refuses.
pub fn set_interface(family: &str, ifname: &str, key: &str, value: &str) -> Result<()> {
    check_ifname(ifname)?;
    let key = format!("net/{family}/conf/{ifname}/{key}");
    if get(&key)?.is_none() {
        return Ok(());
    }
    set(&key, value).map(drop)
}
