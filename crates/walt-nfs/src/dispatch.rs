//! Programs, versions and who may call them.

use crate::{
    HandleKey, Vfs, mount, nfs3, nfsacl, portmap,
    rpc::{self, Call, Refusal},
    vfs::{CallKey, Context},
};
use siphasher::sip::SipHasher13;
use std::hash::Hasher;
use std::net::Ipv4Addr;

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its address, from the socket: never from the call.
    pub address: Ipv4Addr,
    /// What it says about users can be believed: with the usual setting, its port is below 1024, which
    /// only the root user of a node can take. Others get only the NULL procedures and the port mapper.
    pub trusted: bool,
}

/// Answers calls. One for the whole server; it has no state of its own.
pub struct Dispatcher<V> {
    pub(crate) vfs: V,
    pub(crate) key: HandleKey,
    pub(crate) mappings: Vec<portmap::Mapping>,
}

impl<V: Vfs> Dispatcher<V> {
    /// `mappings` is what the port mapper answers.
    pub fn new(vfs: V, key: HandleKey, mappings: Vec<portmap::Mapping>) -> Self {
        Self { vfs, key, mappings }
    }

    /// The back end.
    pub fn vfs(&self) -> &V {
        &self.vfs
    }

    /// Runs a call and appends the whole reply to `out`.
    pub fn reply(&self, call: &Call<'_>, peer: Peer, out: &mut Vec<u8>) {
        let start = out.len();
        rpc::accepted(out, call.xid);
        if let Err(why) = self.run(call, peer, out) {
            out.truncate(start);
            rpc::refused(out, call.xid, why);
        }
    }

    fn run(&self, call: &Call<'_>, peer: Peer, out: &mut Vec<u8>) -> Result<(), Refusal> {
        if call.credential == Err(Refusal::RpcMismatch) {
            return Err(Refusal::RpcMismatch);
        }
        let want = match call.program {
            nfs3::PROGRAM => nfs3::VERSION,
            mount::PROGRAM => mount::VERSION,
            nfsacl::PROGRAM => nfsacl::VERSION,
            portmap::PROGRAM => portmap::VERSION,
            _ => return Err(Refusal::ProgramUnavailable),
        };
        if call.version != want {
            return Err(Refusal::VersionMismatch { low: want, high: want });
        }
        if call.procedure == 0 {
            return Ok(()); // NULL of every program: no credential, no argument, no result
        }
        let credential = call.credential?;
        let ctx = Context {
            peer: peer.address,
            uid: credential.uid,
            gid: credential.gid,
            groups: credential.groups,
            key: call_key(call),
        };
        match call.program {
            portmap::PROGRAM => portmap::run(&self.mappings, call, out),
            mount::PROGRAM => mount::run(self, &ctx, peer, call, out),
            nfsacl::PROGRAM => nfsacl::run(self, &ctx, peer, call, out),
            _ => nfs3::run(self, &ctx, peer, call, out),
        }
    }
}

/// The identity of a call, for those that must not run twice.
pub fn call_key(call: &Call<'_>) -> CallKey {
    let checksum = match nfs3::Proc::new(call.procedure) {
        Some(p) if call.program == nfs3::PROGRAM && p.must_not_repeat() => {
            let mut h = SipHasher13::new_with_keys(0, 0);
            h.write(call.args);
            h.finish()
        }
        _ => 0,
    };
    CallKey { xid: call.xid, procedure: call.procedure, checksum }
}
