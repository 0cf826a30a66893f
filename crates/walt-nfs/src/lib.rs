//! NFS version 3 (RFC 1813) with its MOUNT protocol (appendix I) and the port mapper version 2
//! (RFC 1833), as pure functions: the bytes of one RPC record in, the bytes of the reply out.
//!
//! ```text
//!  TCP bytes ─ record::Assembler ─► record ─ rpc::Call::parse ─► Call
//!                                                                │  Dispatcher::reply
//!            ┌──────────────┬──────────────┬─────────────────────┘
//!        portmap          mount           nfs3 ── handle: MAC checked ──► Vfs (trait)
//!                                                                          │ back ends live in
//!  TCP bytes ◄─ record::frame ◄── reply bytes ◄────────────────────────────┘ walt-server
//! ```
//!
//! There are no sockets, no clock and no disk here. What a file is, who may see it and how a change
//! becomes durable is decided behind [`Vfs`]; this crate decides what is a well-formed call, whether
//! a file handle is one that we gave out, and how an answer is encoded.
//!
//! **Handles** ([`handle`]) carry what they name and a keyed MAC over it. A handle with a wrong MAC is
//! answered `NFS3ERR_BADHANDLE` before the [`Vfs`] is asked anything: on ext4 a guessed handle would
//! otherwise open any file of the server (file handles of the kernel are not secrets).
//!
//! **Retries.** The calls that must not run twice (see [`Proc::must_not_repeat`]) are offered to
//! [`Vfs::replay`] before they run and to [`Vfs::completed`] after.
//!
//! Limits: records of at most [`record::MAX_RECORD`] bytes, refused before memory is spent; READ and
//! WRITE of at most [`nfs3::MAX_TRANSFER`] bytes; names of 255 bytes; credentials AUTH_SYS or AUTH_NONE
//! (the latter is nobody); NFS over TCP only; no NLM (clients mount with `nolock`: an export has one
//! client) and no xattrs (NFSv3 has none).

pub mod handle;
pub mod mount;
pub mod nfs3;
pub mod nfsacl;
pub mod portmap;
pub mod record;
pub mod rpc;
pub mod types;
pub mod vfs;
pub mod xdr;

mod dispatch;
mod readdir;

pub use dispatch::{Dispatcher, Peer, call_key};
pub use handle::{HandleKey, KernelHandle, Object};
pub use nfs3::Proc;
pub use rpc::Call;
pub use types::*;
pub use vfs::{CallKey, Context, Created, DirEntry, Found, Listed, Vfs, Written};
