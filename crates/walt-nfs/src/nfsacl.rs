//! NFSACL version 3: the side protocol by which Linux asks for POSIX ACLs on NFSv3 (no RFC; its definition is
//! the kernel's `fs/nfs/nfs3xdr.c` and `fs/nfs_common/nfsacl.c`).
//!
//! There are no ACLs here, and it takes this program to say so: with it absent, a Linux client's file system
//! still claims to have ACLs and answers "not supported" for each file, and an overlay on top hands that to
//! every program that another user than root starts. The mount option `noacl` does the same harm.

use crate::{
    Context, Status, Vfs,
    dispatch::{Dispatcher, Peer},
    handle::MAX_HANDLE,
    rpc::{Call, Refusal},
    types::put_attr,
    xdr::{Reader, Write},
};

/// Program number.
pub const PROGRAM: u32 = 100_227;
/// Version that is served.
pub const VERSION: u32 = 3;

/// All that a client can ask for: both lists, and the numbers of their entries.
const MASK_ALL: u32 = 0xf;

pub(crate) fn run<V: Vfs>(
    d: &Dispatcher<V>,
    ctx: &Context,
    peer: Peer,
    call: &Call<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    if !matches!(call.procedure, 1 | 2) {
        return Err(Refusal::ProcedureUnavailable);
    }
    let mut r = Reader::new(call.args);
    let handle = r.opaque(MAX_HANDLE)?;
    let mask = r.u32()?;
    let object = if peer.trusted { d.key.open(handle).ok_or(Status::BadHandle) } else { Err(Status::Perm) };
    let attr = match object.and_then(|o| d.vfs.getattr(ctx, &o)) {
        Ok(attr) => attr,
        Err(status) => {
            out.put_u32(status as u32);
            put_attr(out, None);
            return Ok(());
        }
    };
    if call.procedure == 2 {
        // SETACL
        out.put_u32(Status::NotSupp as u32);
        put_attr(out, Some(&attr));
    } else if mask & !MASK_ALL != 0 {
        out.put_u32(Status::Inval as u32);
        put_attr(out, Some(&attr));
    } else {
        // GETACL: both lists are empty; each is its number of entries and an array.
        out.put_u32(0);
        put_attr(out, Some(&attr));
        out.put_u32(mask);
        for _ in 0..4 {
            out.put_u32(0);
        }
    }
    Ok(())
}
