//! Port mapper version 2 (RFC 1833, section 3): answers where the other two programs are.
//!
//! SET, UNSET and CALLIT are refused: nobody registers here, and forwarding calls would let a node
//! speak with the server's address.

use crate::{
    rpc::{Call, Refusal},
    xdr::{Reader, Write},
};

/// Program number.
pub const PROGRAM: u32 = 100_000;
/// Version that is served.
pub const VERSION: u32 = 2;

/// Protocol numbers of a mapping.
pub const TCP: u32 = 6;
/// UDP.
pub const UDP: u32 = 17;

/// A program and its port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapping {
    /// Program number.
    pub program: u32,
    /// Version.
    pub version: u32,
    /// [`TCP`] or [`UDP`].
    pub protocol: u32,
    /// Port.
    pub port: u16,
}

/// NFS and MOUNT on one TCP port: what WalT serves.
pub fn one_port(port: u16) -> Vec<Mapping> {
    [crate::nfs3::PROGRAM, crate::mount::PROGRAM, crate::nfsacl::PROGRAM]
        .map(|program| Mapping { program, version: 3, protocol: TCP, port })
        .to_vec()
}

pub(crate) fn run(mappings: &[Mapping], call: &Call<'_>, out: &mut Vec<u8>) -> Result<(), Refusal> {
    match call.procedure {
        // SET, UNSET: false
        1 | 2 => out.put_bool(false),
        // GETPORT: 0 if there is none
        3 => {
            let mut r = Reader::new(call.args);
            let (program, version, protocol) = (r.u32()?, r.u32()?, r.u32()?);
            let _port = r.u32()?;
            let found = mappings
                .iter()
                .find(|m| (m.program, m.version, m.protocol) == (program, version, protocol))
                // A client that asks for a version we lack gets the port, and there the versions we have.
                .or_else(|| mappings.iter().find(|m| (m.program, m.protocol) == (program, protocol)));
            out.put_u32(found.map_or(0, |m| m.port.into()));
        }
        // DUMP
        4 => {
            for m in mappings {
                for v in [1, m.program, m.version, m.protocol, m.port.into()] {
                    out.put_u32(v);
                }
            }
            out.put_bool(false);
        }
        _ => return Err(Refusal::ProcedureUnavailable),
    }
    Ok(())
}
