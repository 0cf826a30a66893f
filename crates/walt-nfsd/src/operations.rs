//! How often nodes call which procedure, and how long the server takes for it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use walt_nfs::{Call, nfs3};

/// Upper bounds of the times, in seconds.
pub const OPERATION_BOUNDS: [f64; 9] = [0.00001, 0.0001, 0.0005, 0.001, 0.005, 0.01, 0.1, 1.0, 10.0];
/// The procedures of RFC 1813, by number.
const NAMES: [&str; 22] = [
    "null",
    "getattr",
    "setattr",
    "lookup",
    "access",
    "readlink",
    "read",
    "write",
    "create",
    "mkdir",
    "symlink",
    "mknod",
    "remove",
    "rmdir",
    "rename",
    "link",
    "readdir",
    "readdirplus",
    "fsstat",
    "fsinfo",
    "pathconf",
    "commit",
];

/// The calls of one procedure.
#[derive(Debug, Default)]
pub struct Times {
    /// How many took as long as each of [`OPERATION_BOUNDS`] at most, and longer than the one before; and all others.
    pub buckets: [AtomicU64; OPERATION_BOUNDS.len() + 1],
    /// Their time in all.
    pub nanoseconds: AtomicU64,
}

/// The calls of all procedures.
#[derive(Debug, Default)]
pub struct Operations {
    times: [Times; NAMES.len()],
    bytes: AtomicU64,
}

impl Operations {
    /// A call was answered with so many bytes.
    pub(crate) fn count(&self, call: &Call<'_>, took: Duration, bytes: usize) {
        if call.program != nfs3::PROGRAM {
            return;
        }
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        let Some(times) = self.times.get(call.procedure as usize) else { return };
        let seconds = took.as_secs_f64();
        let at = OPERATION_BOUNDS.iter().position(|bound| seconds <= *bound);
        times.buckets[at.unwrap_or(OPERATION_BOUNDS.len())].fetch_add(1, Ordering::Relaxed);
        times.nanoseconds.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
    }

    /// All of them, with their names.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, &Times)> {
        NAMES.into_iter().zip(&self.times)
    }

    /// Bytes of the answers.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use walt_nfs::Proc;

    #[test]
    fn calls_are_counted_by_procedure() {
        assert_eq!((NAMES[Proc::Read as usize], NAMES[Proc::Commit as usize]), ("read", "commit"));
        let operations = Operations::default();
        // RFC 5531: xid, CALL, version 2, program, version, procedure, two empty credentials.
        let call = |program: u32, procedure: u32| {
            let words = [1, 0, 2, program, 3, procedure, 0, 0, 0, 0];
            words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>()
        };
        for (program, procedure, micros) in
            [(nfs3::PROGRAM, 6, 50), (nfs3::PROGRAM, 6, 20_000_000), (nfs3::PROGRAM, 99, 1), (100_005, 6, 1)]
        {
            let bytes = call(program, procedure);
            operations.count(&Call::parse(&bytes).unwrap(), Duration::from_micros(micros), 100);
        }
        let (name, read) = operations.all().nth(6).unwrap();
        let buckets: Vec<u64> = read.buckets.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        assert_eq!((name, buckets), ("read", vec![0, 1, 0, 0, 0, 0, 0, 0, 0, 1]));
        assert_eq!(read.nanoseconds.load(Ordering::Relaxed), 20_000_050_000);
        let all: u64 =
            operations.all().flat_map(|(_, t)| &t.buckets).map(|c| c.load(Ordering::Relaxed)).sum();
        assert_eq!((all, operations.bytes()), (2, 300));
    }
}
