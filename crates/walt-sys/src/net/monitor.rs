//! Changes of interfaces, as the kernel reports them (rtnetlink(7), group `RTNLGRP_LINK`).

use super::{Result, io_error};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use tokio::io::unix::AsyncFd;

/// The group for links, as a bit of the address (`RTMGRP_LINK`).
const LINKS: u32 = 1;
/// Bytes that are read at once; a longer report is cut, which does not matter.
const BUFFER: usize = 8192;

/// Hears of changes of interfaces in the network namespace in which it was opened.
pub struct Monitor(AsyncFd<OwnedFd>);

impl Monitor {
    /// Opens one; needs a running tokio runtime with I/O enabled.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn open() -> Result<Self> {
        let error = |e: io::Error| io_error("open a socket for changes of interfaces", e);
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)
            .map_err(|e| error(e.into()))?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, LINKS)).map_err(|e| error(e.into()))?;
        Ok(Self(crate::async_fd(fd).map_err(error)?))
    }

    /// Waits until some interface has changed, appeared or vanished. Several changes may be reported as one; when the
    /// kernel has lost reports, that counts as a change.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn changed(&self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            let mut any = false;
            let drained = ready.try_io(|fd| {
                let mut buffer = [0; BUFFER];
                loop {
                    match recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                        Ok(_) | Err(nix::errno::Errno::ENOBUFS) => any = true,
                        Err(e) => return Err::<(), _>(e.into()),
                    }
                }
            });
            match drained {
                Ok(Err(e)) if !any => return Err(e),
                _ if any => return Ok(()),
                _ => {}
            }
        }
    }
}
