//! A client of NFSv3 that says what no kernel would say: calls by hand, one at a time (RFC 5531, RFC 1813).

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

const MOUNT: u32 = 100_005;
const NFS: u32 = 100_003;
const VERSION: u32 = 3;
/// Ports that only root may use, which the server asks for.
const RESERVED: std::ops::Range<u16> = 600..1024;
/// Largest reply that is read, in bytes.
const REPLY_MAX: usize = 1 << 20;

/// A connection.
pub struct Client {
    stream: TcpStream,
    xid: u32,
}

fn put(out: &mut Vec<u8>, words: &[u32]) {
    words.iter().for_each(|w| out.extend(w.to_be_bytes()));
}

fn put_opaque(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, &[u32::try_from(bytes.len()).unwrap()]);
    out.extend(bytes);
    out.resize(out.len().next_multiple_of(4), 0);
}

fn word(bytes: &[u8], position: usize) -> u32 {
    u32::from_be_bytes(bytes[position * 4..position * 4 + 4].try_into().unwrap())
}

impl Client {
    /// Connects to port 2049, from a port that only root may have.
    pub fn connect(server: Ipv4Addr, limit: Duration) -> Self {
        let target = SocketAddr::from((server, 2049));
        for port in RESERVED {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            if socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into()).is_err() {
                continue;
            }
            socket.connect_timeout(&target.into(), limit).unwrap_or_else(|e| panic!("{target}: {e}"));
            let stream = TcpStream::from(socket);
            stream.set_read_timeout(Some(limit)).unwrap();
            return Self { stream, xid: u32::from(port) << 16 };
        }
        panic!("no reserved port is free");
    }

    /// The results of a call that was accepted.
    fn call(&mut self, program: u32, procedure: u32, arguments: &[u8]) -> Vec<u8> {
        self.xid += 1;
        let mut record = vec![0; 4];
        put(&mut record, &[self.xid, 0, 2, program, VERSION, procedure]);
        // AUTH_SYS: stamp, machine, uid 0, gid 0, no more groups
        let mut credential = Vec::new();
        put(&mut credential, &[0]);
        put_opaque(&mut credential, b"x");
        put(&mut credential, &[0, 0, 0]);
        put(&mut record, &[1]);
        put_opaque(&mut record, &credential);
        put(&mut record, &[0, 0]);
        record.extend(arguments);
        let len = u32::try_from(record.len() - 4).unwrap() | 1 << 31;
        record[..4].copy_from_slice(&len.to_be_bytes());
        self.stream.write_all(&record).unwrap();
        let mut reply = Vec::new();
        loop {
            let mut mark = [0; 4];
            self.stream.read_exact(&mut mark).unwrap();
            let mark = u32::from_be_bytes(mark);
            let (len, start) = ((mark & !(1 << 31)) as usize, reply.len());
            assert!(start + len <= REPLY_MAX);
            reply.resize(start + len, 0);
            self.stream.read_exact(&mut reply[start..]).unwrap();
            if mark >> 31 == 1 {
                break;
            }
        }
        assert_eq!([word(&reply, 0), word(&reply, 1), word(&reply, 2)], [self.xid, 1, 0], "not accepted");
        let after = 5 + (word(&reply, 4) as usize).div_ceil(4);
        assert_eq!(word(&reply, after), 0, "the call was not executed");
        reply[(after + 1) * 4..].to_vec()
    }

    /// MNT: a file handle, or the status.
    pub fn mount(&mut self, path: &str) -> Result<Vec<u8>, u32> {
        let mut arguments = Vec::new();
        put_opaque(&mut arguments, path.as_bytes());
        let reply = self.call(MOUNT, 1, &arguments);
        match word(&reply, 0) {
            0 => Ok(reply[8..8 + word(&reply, 1) as usize].to_vec()),
            status => Err(status),
        }
    }

    /// EXPORT, as it is sent.
    pub fn exports(&mut self) -> String {
        String::from_utf8_lossy(&self.call(MOUNT, 5, &[])).into_owned()
    }

    fn status(&mut self, procedure: u32, handle: &[u8], rest: impl FnOnce(&mut Vec<u8>)) -> u32 {
        let mut arguments = Vec::new();
        put_opaque(&mut arguments, handle);
        rest(&mut arguments);
        word(&self.call(NFS, procedure, &arguments), 0)
    }

    /// Status of GETATTR.
    pub fn getattr(&mut self, handle: &[u8]) -> u32 {
        self.status(1, handle, |_| ())
    }

    /// Status of LOOKUP.
    pub fn lookup(&mut self, handle: &[u8], name: &str) -> u32 {
        self.status(3, handle, |out| put_opaque(out, name.as_bytes()))
    }

    /// Status of MKDIR, without attributes.
    pub fn mkdir(&mut self, handle: &[u8], name: &str) -> u32 {
        self.status(9, handle, |out| {
            put_opaque(out, name.as_bytes());
            put(out, &[0; 6]);
        })
    }

    /// The target of the symbolic link `name` in the directory.
    pub fn readlink(&mut self, directory: &[u8], name: &str) -> String {
        let mut arguments = Vec::new();
        put_opaque(&mut arguments, directory);
        put_opaque(&mut arguments, name.as_bytes());
        let reply = self.call(NFS, 3, &arguments);
        assert_eq!(word(&reply, 0), 0, "{name} is not there");
        let mut arguments = Vec::new();
        put_opaque(&mut arguments, &reply[8..8 + word(&reply, 1) as usize]);
        let reply = self.call(NFS, 5, &arguments);
        assert_eq!(word(&reply, 0), 0, "{name} is not a link");
        // A flag and 84 bytes of attributes come first.
        let target = &reply[8 + 84..];
        String::from_utf8_lossy(&target[4..4 + word(target, 0) as usize]).into_owned()
    }
}
