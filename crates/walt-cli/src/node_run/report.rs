//! What `walt node run --json` prints.

use serde::Serialize;

/// Most bytes that are kept of each stream of each node; the rest is dropped, and counted.
pub const CAPTURE_MAX: usize = 1 << 20;

/// The result on all nodes.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The highest status: that of `walt`.
    pub status: i32,
    /// One for each node, by name.
    pub nodes: Vec<NodeReport>,
}

/// The result on one node.
#[derive(Debug, Serialize)]
pub struct NodeReport {
    /// Its name.
    pub node: String,
    /// Exit status of the command; null if it did not run.
    pub status: Option<i32>,
    /// Why it did not run.
    pub error: Option<String>,
    /// Standard output. Bytes that are not UTF-8 are replaced.
    pub stdout: Stream,
    /// Standard error.
    pub stderr: Stream,
    /// Bytes of standard output, also of what is not shown.
    pub stdout_bytes: u64,
    /// Bytes of standard error.
    pub stderr_bytes: u64,
}

/// The beginning of a stream.
#[derive(Debug, Default)]
pub struct Stream(Vec<u8>);

impl Stream {
    /// Appends what there is room for.
    pub fn push(&mut self, bytes: &[u8]) {
        let room = CAPTURE_MAX - self.0.len();
        self.0.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

impl Serialize for Stream {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&String::from_utf8_lossy(&self.0))
    }
}

impl NodeReport {
    /// Of a node on which nothing has happened.
    pub fn new(node: String) -> Self {
        Self {
            node,
            status: None,
            error: None,
            stdout: Stream::default(),
            stderr: Stream::default(),
            stdout_bytes: 0,
            stderr_bytes: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scripts read these names.
    #[test]
    fn names_of_fields() {
        let mut node = NodeReport::new("vn1".into());
        node.status = Some(3);
        node.stdout.push(b"a\xff\n");
        let report = Report { status: 3, nodes: vec![node] };
        assert_eq!(
            serde_json::to_string(&report).unwrap(),
            "{\"status\":3,\"nodes\":[{\"node\":\"vn1\",\"status\":3,\"error\":null,\"stdout\":\"a\u{fffd}\\n\",\
             \"stderr\":\"\",\"stdout_bytes\":0,\"stderr_bytes\":0}]}"
        );
    }

    #[test]
    fn a_stream_is_cut() {
        let mut stream = Stream::default();
        stream.push(&vec![b'a'; CAPTURE_MAX - 1]);
        stream.push(b"bc");
        stream.push(b"d");
        assert!(stream.0.len() == CAPTURE_MAX && stream.0.ends_with(b"ab"));
    }
}
