//! Taps: the cable between a virtual machine and the bridge.
//!
//! A tap is not persistent: it lives as long as a descriptor of it is open. The server opens it, hands the descriptor
//! to qemu and closes its own; so a tap disappears exactly when its machine ends, for whatever reason.

use super::link;
use super::{Result, check_ifname, io_error, netlink, sysctl};
use std::fs::OpenOptions;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

/// Opens a new tap of this name, attaches it to the bridge and brings it up.
///
/// The descriptor has a header for checksum and segmentation offload (`vnet_hdr=on` in qemu's terms) and is closed on
/// exec unless it is passed on purpose.
///
/// # Errors
/// "Device or resource busy" if a tap of this name has an open descriptor, for example in the qemu of an earlier run
/// that should have been adopted; [`super::NetError::NoLink`] if there is no such bridge.
pub fn open(ifname: &str, bridge: &str, alias: &str) -> Result<OwnedFd> {
    attached(ifname, bridge, alias, libc::IFF_VNET_HDR, None)
}

/// The same for a program that handles single frames: what it reads is as on a cable, with checksums and no longer than
/// the MTU, since the kernel splits and completes it. Up to `queue` frames wait to be read.
///
/// # Errors
/// As [`open`].
pub fn open_plain(ifname: &str, bridge: &str, alias: &str, queue: u32) -> Result<OwnedFd> {
    attached(ifname, bridge, alias, 0, Some(queue))
}

fn attached(
    ifname: &str,
    bridge: &str,
    alias: &str,
    flags: libc::c_int,
    queue: Option<u32>,
) -> Result<OwnedFd> {
    check_ifname(ifname)?;
    let fd = create(ifname, flags)?;
    // The bridge is IPv4 only for the server; the port itself must have no address of its own at all.
    sysctl::set_interface("ipv6", ifname, "disable_ipv6", "1")?;
    netlink(&format!("attach '{ifname}' to the bridge '{bridge}'"), |handle| async move {
        let controller = link::need(&handle, bridge).await?;
        let tap = link::need(&handle, ifname).await?;
        let mut message =
            link::change(tap.index).alias(alias).mtu(controller.mtu).controller(controller.index).up();
        if let Some(queue) = queue {
            message = message.txqueuelen(queue);
        }
        link::set(&handle, message.build(), format!("attach '{ifname}' to the bridge '{bridge}'")).await
    })?;
    Ok(fd)
}

#[allow(unsafe_code)]
fn create(ifname: &str, flags: libc::c_int) -> Result<OwnedFd> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK)
        .open("/dev/net/tun")
        .map_err(|e| io_error("open /dev/net/tun", e))?;
    // SAFETY: ifreq is plain data for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // check_ifname bounded the name to 15 bytes, so the last of the 16 stays NUL.
    for (to, from) in request.ifr_name.iter_mut().zip(ifname.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | flags) as libc::c_short;
    // SAFETY: the descriptor is open, and the request is an initialised ifreq that outlives the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &mut request) };
    if result < 0 {
        return Err(io_error(format!("make the tap '{ifname}'"), std::io::Error::last_os_error()));
    }
    Ok(file.into())
}
