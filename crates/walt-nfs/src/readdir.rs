//! READDIR and READDIRPLUS: as many names as the client has room for.

use crate::{
    Attr, Context, DirEntry, Object, Status, Vfs, dispatch::Dispatcher, types::put_attr, xdr::Write,
};

/// Largest reply, whatever the client asks for, in bytes.
const MAX_REPLY: u32 = crate::nfs3::MAX_TRANSFER;

/// Bytes of the result besides its entries, after the status: attributes, verifier, end of list, eof.
const FIXED: usize = 4 + Attr::LEN + 8 + 4 + 4;

/// Cookies stay good for as long as the directory exists, so the verifier says nothing.
const VERIFIER: u64 = 0;

/// READDIR. `count` bounds the whole result.
pub(crate) fn plain<V: Vfs>(
    d: &Dispatcher<V>,
    ctx: &Context,
    dir: &Object,
    cookie: u64,
    count: u32,
    out: &mut Vec<u8>,
) -> Result<(), Status> {
    list(d, ctx, dir, cookie, Limits { whole: count, names: None }, out)
}

/// READDIRPLUS. `dircount` bounds numbers, names and cookies; `maxcount` the whole result.
pub(crate) fn plus<V: Vfs>(
    d: &Dispatcher<V>,
    ctx: &Context,
    dir: &Object,
    cookie: u64,
    dircount: u32,
    maxcount: u32,
    out: &mut Vec<u8>,
) -> Result<(), Status> {
    list(d, ctx, dir, cookie, Limits { whole: maxcount, names: Some(dircount) }, out)
}

struct Limits {
    whole: u32,
    /// `None` for READDIR.
    names: Option<u32>,
}

fn list<V: Vfs>(
    d: &Dispatcher<V>,
    ctx: &Context,
    dir: &Object,
    cookie: u64,
    limits: Limits,
    out: &mut Vec<u8>,
) -> Result<(), Status> {
    let with_attributes = limits.names.is_some();
    let whole = limits.whole.min(MAX_REPLY) as usize;
    let names = limits.names.map_or(usize::MAX, |n| n.min(MAX_REPLY) as usize);
    let mut entries = Vec::with_capacity(whole.min(crate::nfs3::PREFERRED_DIRECTORY as usize));
    let (mut used_names, mut some, mut refused) = (0, false, false);
    let listed = d.vfs.readdir(ctx, dir, cookie, with_attributes, &mut |e: &DirEntry<'_>| {
        let before = entries.len();
        entries.put_bool(true);
        entries.put_u64(e.fileid);
        entries.put_opaque(e.name);
        entries.put_u64(e.cookie);
        let name_bytes = entries.len() - before;
        if with_attributes {
            put_attr(&mut entries, e.plus.as_ref().map(|(_, attr)| attr));
            entries.put_bool(e.plus.is_some());
            if let Some((object, _)) = &e.plus {
                entries.put_opaque(d.key.seal(object).as_slice());
            }
        }
        // A name is never held back because of dircount alone when it would be the first: the client
        // could not go on. maxcount is what it has memory for.
        if FIXED + entries.len() > whole || (some && used_names + name_bytes > names) {
            entries.truncate(before);
            refused = true;
            return false;
        }
        used_names += name_bytes;
        some = true;
        true
    })?;
    if refused && !some {
        return Err(Status::TooSmall);
    }
    out.put_u32(0);
    put_attr(out, listed.dir.as_ref());
    out.put_u64(VERIFIER);
    out.extend_from_slice(&entries);
    out.put_bool(false);
    out.put_bool(listed.end && !refused);
    Ok(())
}
