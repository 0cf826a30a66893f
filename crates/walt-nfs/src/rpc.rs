//! ONC RPC version 2 (RFC 5531): call headers, credentials and the kinds of reply.

use crate::xdr::{Malformed, Reader, Result, Write};

/// Longest credential or verifier body (RFC 5531, section 8.2).
const MAX_AUTH: usize = 400;
/// Longest machine name in AUTH_SYS (RFC 5531, appendix A).
const MAX_MACHINE_NAME: usize = 255;
/// Most supplementary groups in AUTH_SYS (RFC 5531, appendix A).
pub const MAX_GROUPS: usize = 16;
/// The user and group of callers without a credential, as in Linux (`nobody`, overflow id).
pub const NOBODY: u32 = 65534;

/// A reply that says why a call was not run (RFC 5531, sections 9 and 9.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The program is not served here.
    ProgramUnavailable,
    /// The program is served in these versions only.
    VersionMismatch {
        /// Lowest and highest version.
        low: u32,
        /// Highest version.
        high: u32,
    },
    /// The program has no such procedure.
    ProcedureUnavailable,
    /// The arguments could not be decoded.
    GarbageArguments,
    /// RPC version other than 2.
    RpcMismatch,
    /// The credential has an unknown flavour or is malformed (`AUTH_BADCRED`).
    BadCredential,
}

impl From<Malformed> for Refusal {
    fn from(_: Malformed) -> Self {
        Refusal::GarbageArguments
    }
}

/// Supplementary groups of a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Groups {
    len: u8,
    ids: [u32; MAX_GROUPS],
}

impl Groups {
    /// The first [`MAX_GROUPS`] of `ids`.
    pub fn new(ids: &[u32]) -> Self {
        let mut g = Self::default();
        for (slot, id) in g.ids.iter_mut().zip(ids) {
            *slot = *id;
            g.len += 1;
        }
        g
    }
    /// The groups as a slice.
    pub fn as_slice(&self) -> &[u32] {
        &self.ids[..self.len.into()]
    }
}

/// The caller by its own claim (AUTH_SYS), or nobody (AUTH_NONE).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credential {
    /// User id.
    pub uid: u32,
    /// Main group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Groups,
}

/// The header of a call and, not decoded yet, its arguments.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// Transaction id, chosen by the client; a retransmission has the same.
    pub xid: u32,
    /// Program number.
    pub program: u32,
    /// Program version.
    pub version: u32,
    /// Procedure number.
    pub procedure: u32,
    /// The caller, or why the call has to be refused.
    pub credential: std::result::Result<Credential, Refusal>,
    /// The arguments.
    pub args: &'a [u8],
}

impl<'a> Call<'a> {
    /// Decodes the header of one record.
    ///
    /// # Errors
    /// It is not a call at all: there is nothing to answer and the connection should be closed.
    pub fn parse(record: &'a [u8]) -> Result<Self> {
        let mut r = Reader::new(record);
        let xid = r.u32()?;
        if r.u32()? != 0 {
            return Err(Malformed); // a reply
        }
        let rpc_version = r.u32()?;
        if rpc_version != 2 {
            let credential = Err(Refusal::RpcMismatch);
            return Ok(Self { xid, program: 0, version: 0, procedure: 0, credential, args: &[] });
        }
        let (program, version, procedure) = (r.u32()?, r.u32()?, r.u32()?);
        let flavour = r.u32()?;
        let body = r.opaque(MAX_AUTH)?;
        let _verifier = (r.u32()?, r.opaque(MAX_AUTH)?);
        let credential = match flavour {
            0 => Ok(Credential { uid: NOBODY, gid: NOBODY, groups: Groups::default() }),
            1 => auth_sys(body).map_err(|_| Refusal::BadCredential),
            _ => Err(Refusal::BadCredential),
        };
        Ok(Self { xid, program, version, procedure, credential, args: r.rest() })
    }
}

fn auth_sys(body: &[u8]) -> Result<Credential> {
    let mut r = Reader::new(body);
    let _stamp = r.u32()?;
    let _machine = r.opaque(MAX_MACHINE_NAME)?;
    let (uid, gid) = (r.u32()?, r.u32()?);
    let count = r.u32()? as usize;
    if count > MAX_GROUPS {
        return Err(Malformed);
    }
    let mut groups = Groups { len: count as u8, ids: [0; MAX_GROUPS] };
    for slot in &mut groups.ids[..count] {
        *slot = r.u32()?;
    }
    Ok(Credential { uid, gid, groups })
}

/// Starts a reply to a call that was run; its results follow.
pub fn accepted(out: &mut Vec<u8>, xid: u32) {
    for v in [xid, 1, 0, 0, 0, 0] {
        out.put_u32(v);
    }
}

/// A whole reply that refuses the call.
pub fn refused(out: &mut Vec<u8>, xid: u32, why: Refusal) {
    let words: &[u32] = match why {
        Refusal::ProgramUnavailable => &[0, 0, 0, 1],
        Refusal::VersionMismatch { low, high } => &[0, 0, 0, 2, low, high],
        Refusal::ProcedureUnavailable => &[0, 0, 0, 3],
        Refusal::GarbageArguments => &[0, 0, 0, 4],
        Refusal::RpcMismatch => &[1, 0, 2, 2],
        Refusal::BadCredential => &[1, 1, 1],
    };
    out.put_u32(xid);
    out.put_u32(1);
    for w in words {
        out.put_u32(*w);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn credentials() {
        let mut rec = Vec::new();
        for v in [7, 0, 2, 100_003, 3, 1, 1] {
            rec.put_u32(v);
        }
        let mut body = Vec::new();
        body.put_u32(0);
        body.put_opaque(b"node1");
        for v in [1000, 100, 2, 4, 27] {
            body.put_u32(v);
        }
        rec.put_opaque(&body);
        rec.extend([0; 8]);
        rec.extend(b"args");
        let call = Call::parse(&rec).expect("a call");
        assert_eq!((call.xid, call.program, call.version, call.procedure), (7, 100_003, 3, 1));
        let cred = call.credential.expect("AUTH_SYS");
        assert_eq!((cred.uid, cred.gid, cred.groups.as_slice()), (1000, 100, &[4, 27][..]));
        assert_eq!(call.args, b"args");
        // 17 groups, an unknown flavour, RPC version 3.
        let mut many = body[..24].to_vec();
        many.put_u32(17);
        many.extend([0; 68]);
        assert!(auth_sys(&many).is_err());
        rec[27] = 6;
        assert_eq!(Call::parse(&rec).expect("a call").credential, Err(Refusal::BadCredential));
        rec[11] = 3;
        assert_eq!(Call::parse(&rec).expect("a call").credential, Err(Refusal::RpcMismatch));
    }

    proptest! {
        #[test]
        fn any_bytes(record in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Call::parse(&record);
            let _ = auth_sys(&record);
        }
    }
}
