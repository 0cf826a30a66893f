//! MOUNT version 3 (RFC 1813, appendix I).

use crate::{
    Context, MountStatus, Vfs,
    dispatch::{Dispatcher, Peer},
    rpc::{Call, Refusal},
    xdr::{Reader, Write},
};

/// Program number.
pub const PROGRAM: u32 = 100_005;
/// Version that is served.
pub const VERSION: u32 = 3;
/// Longest path of a MNT call (RFC 1813, `MNTPATHLEN`).
pub const MAX_PATH: usize = 1024;

const AUTH_SYS: u32 = 1;

pub(crate) fn run<V: Vfs>(
    d: &Dispatcher<V>,
    ctx: &Context,
    peer: Peer,
    call: &Call<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let mut r = Reader::new(call.args);
    match call.procedure {
        // MNT
        1 => {
            let path = r.opaque(MAX_PATH)?;
            let mounted = if peer.trusted { d.vfs.mount(ctx, path) } else { Err(MountStatus::Access) };
            match mounted {
                Ok(root) => {
                    out.put_u32(0);
                    out.put_opaque(d.key.seal(&root).as_slice());
                    out.put_u32(1);
                    out.put_u32(AUTH_SYS);
                }
                Err(status) => out.put_u32(status as u32),
            }
        }
        // DUMP: what the caller itself has mounted; other nodes are not its business
        2 => {
            for path in d.vfs.mounts(ctx) {
                out.put_bool(true);
                out.put_opaque(ctx.peer.to_string().as_bytes());
                out.put_opaque(&path);
            }
            out.put_bool(false);
        }
        // UMNT
        3 => {
            let path = r.opaque(MAX_PATH)?;
            if peer.trusted {
                d.vfs.unmount(ctx, Some(path));
            }
        }
        // UMNTALL
        4 => {
            if peer.trusted {
                d.vfs.unmount(ctx, None);
            }
        }
        // EXPORT: each with an empty list of groups
        5 => {
            for path in d.vfs.exports(ctx) {
                out.put_bool(true);
                out.put_opaque(&path);
                out.put_bool(false);
            }
            out.put_bool(false);
        }
        _ => return Err(Refusal::ProcedureUnavailable),
    }
    Ok(())
}
