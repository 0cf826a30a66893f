//! Keys and output of `walt node console`.

/// ctrl-A, the prefix of the command keys.
const CTRL_A: u8 = 1;

/// Command keys: `ctrl-a d` leaves; `ctrl-a a` and `ctrl-a ctrl-a` send ctrl-a; other keys after ctrl-a are dropped.
#[derive(Debug, Default)]
pub struct Keys {
    after_prefix: bool,
}

impl Keys {
    /// Removes the command keys from `bytes`; true if the user wants to leave (the rest is dropped).
    pub fn read(&mut self, bytes: &mut Vec<u8>) -> bool {
        let mut passed = Vec::with_capacity(bytes.len());
        let mut leave = false;
        for &byte in bytes.iter() {
            if !self.after_prefix {
                self.after_prefix = byte == CTRL_A;
                if !self.after_prefix {
                    passed.push(byte);
                }
                continue;
            }
            self.after_prefix = false;
            match byte {
                b'd' => {
                    leave = true;
                    break;
                }
                b'a' | CTRL_A => passed.push(CTRL_A),
                _ => {}
            }
        }
        *bytes = passed;
        leave
    }
}

/// Sequences that would erase what the user wants to read: full reset, clear screen, clear history.
const CLEARING: [&[u8]; 3] = [b"\x1bc", b"\x1b[2J", b"\x1b[3J"];

/// Filters [`CLEARING`] out of a stream, also if a sequence spans two chunks.
#[derive(Debug, Default)]
pub struct ClearFilter {
    /// The start of a sequence that may continue in the next chunk.
    pending: Vec<u8>,
}

impl ClearFilter {
    /// The chunk without clearing sequences.
    pub fn filter(&mut self, chunk: &[u8]) -> Vec<u8> {
        let mut passed = Vec::with_capacity(chunk.len());
        for &byte in chunk {
            self.pending.push(byte);
            if CLEARING.contains(&self.pending.as_slice()) {
                self.pending.clear();
            } else if !CLEARING.iter().any(|w| w.starts_with(&self.pending)) {
                // Not one of them; but this byte may begin the next one.
                let last = if byte == 0x1b { self.pending.pop() } else { None };
                passed.append(&mut self.pending);
                self.pending.extend(last);
            }
        }
        passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        let read = |keys: &mut Keys, text: &[u8]| {
            let mut bytes = text.to_vec();
            let leave = keys.read(&mut bytes);
            (bytes, leave)
        };
        let mut keys = Keys::default();
        assert_eq!(read(&mut keys, b"ls\r"), (b"ls\r".to_vec(), false));
        assert_eq!(read(&mut keys, b"\x01a\x01\x01\x01xd"), (b"\x01\x01d".to_vec(), false));
        assert_eq!(read(&mut keys, b"a\x01"), (b"a".to_vec(), false));
        assert_eq!(read(&mut keys, b"dls"), (b"".to_vec(), true));
    }

    #[test]
    fn wiping_sequences_are_dropped_however_they_are_cut() {
        let text = b"a\x1bcb\x1b[2J\x1b[31mc\x1b[3J\x1b\x1bcd\x1b[H\x1b[2Ke";
        let want = b"ab\x1b[31mc\x1bd\x1b[H\x1b[2Ke";
        for cut in 0..text.len() {
            let mut clear_filter = ClearFilter::default();
            let mut got = clear_filter.filter(&text[..cut]);
            got.extend(clear_filter.filter(&text[cut..]));
            assert_eq!(got, want, "cut at {cut}");
        }
    }
}
