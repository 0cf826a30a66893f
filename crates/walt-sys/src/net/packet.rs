//! Packet sockets (packet(7)): receive packets of a protocol for which the interface has no address, and send packets
//! to an Ethernet address.

use super::{Result, io_error, link};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use tokio::io::unix::AsyncFd;

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// Ethernet address of all stations.
pub const BROADCAST: [u8; 6] = [0xff; 6];
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;

/// A socket for one protocol on one interface. The kernel takes care of the Ethernet header.
pub struct PacketSocket {
    fd: AsyncFd<OwnedFd>,
    protocol: u16,
    index: i32,
}

impl PacketSocket {
    /// Opens one; needs a running tokio runtime with I/O enabled.
    ///
    /// # Errors
    /// There is no such interface, or the kernel refuses (root is needed).
    pub fn open(ifname: &str, protocol: u16) -> Result<Self> {
        let what = || format!("open a packet socket on '{ifname}'");
        let found = link::get(ifname)?.ok_or_else(|| super::NetError::NoLink(ifname.to_owned()))?;
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // Protocol 0 hears nothing: packets of other interfaces must not come before bind(2).
        // SAFETY: socket(2) takes numbers only.
        let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        if fd < 0 {
            return Err(io_error(what(), io::Error::last_os_error()));
        }
        // SAFETY: the descriptor was just made, and nothing else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let index = i32::try_from(found.index).map_err(|e| io_error(what(), io::Error::other(e)))?;
        let at = address(protocol, index, None);
        // SAFETY: `at` is a sockaddr_ll, and the length is its own.
        let bound = unsafe { libc::bind(fd.as_raw_fd(), (&raw const at).cast(), LENGTH) };
        if bound < 0 {
            return Err(io_error(what(), io::Error::last_os_error()));
        }
        let fd = crate::async_fd(fd).map_err(|e| io_error(what(), e))?;
        Ok(Self { fd, protocol, index })
    }

    /// The next packet from another station: its length in `buffer`, cut to that, and the sender's address.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, [u8; 6])> {
        loop {
            let mut ready = self.fd.readable().await?;
            let received = ready.try_io(|fd| {
                let mut from = address(0, 0, None);
                let mut length = LENGTH;
                // SAFETY: `buffer` is writable for its length, `from` for that of a sockaddr_ll.
                let count = unsafe {
                    libc::recvfrom(
                        fd.as_raw_fd(),
                        buffer.as_mut_ptr().cast(),
                        buffer.len(),
                        0,
                        (&raw mut from).cast(),
                        &raw mut length,
                    )
                };
                let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
                Ok((count, from))
            });
            match received {
                Ok(Ok((count, from))) => {
                    let [a, b, c, d, e, f, ..] = from.sll_addr;
                    if from.sll_pkttype != libc::PACKET_OUTGOING && from.sll_halen == 6 {
                        return Ok((count, [a, b, c, d, e, f]));
                    }
                }
                Ok(Err(e)) => return Err(e),
                // Not ready after all.
                Err(_) => {}
            }
        }
    }

    /// Sends a packet to a station; it is lost if the queue is full.
    ///
    /// # Errors
    /// The kernel's.
    pub fn send(&self, packet: &[u8], to: [u8; 6]) -> io::Result<()> {
        let to = address(self.protocol, self.index, Some(to));
        // SAFETY: `packet` is readable for its length, `to` is a sockaddr_ll, and the length is its own.
        let sent = unsafe {
            libc::sendto(
                self.fd.get_ref().as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                0,
                (&raw const to).cast(),
                LENGTH,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// Length of a sockaddr_ll.
const LENGTH: libc::socklen_t = size_of::<libc::sockaddr_ll>() as libc::socklen_t;

fn address(protocol: u16, index: i32, mac: Option<[u8; 6]>) -> libc::sockaddr_ll {
    let mut sll_addr = [0; 8];
    if let Some(mac) = mac {
        sll_addr[..6].copy_from_slice(&mac);
    }
    libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: protocol.to_be(),
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: if mac.is_some() { 6 } else { 0 },
        sll_addr,
    }
}
