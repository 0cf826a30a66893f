//! What keys send.

/// A key, as far as the pager knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// A character that is typed.
    Char(char),
    /// Return.
    Enter,
    /// Tab.
    Tab,
    /// Shift-tab.
    BackTab,
    /// Backspace.
    Backspace,
    /// Arrow up, or a turn of the wheel.
    Up,
    /// Arrow down, or a turn of the wheel.
    Down,
    /// Arrow left.
    Left,
    /// Arrow right.
    Right,
    /// A page up.
    PageUp,
    /// A page down.
    PageDown,
    /// The beginning.
    Home,
    /// The end.
    End,
    /// Escape by itself.
    Escape,
    /// ctrl-C.
    Interrupt,
}

/// Sequences behind an escape (xterm, VT220, Linux console).
const SEQUENCES: [(&str, Key); 19] = [
    ("[A", Key::Up),
    ("[B", Key::Down),
    ("[C", Key::Right),
    ("[D", Key::Left),
    ("OA", Key::Up),
    ("OB", Key::Down),
    ("OC", Key::Right),
    ("OD", Key::Left),
    ("[5~", Key::PageUp),
    ("[6~", Key::PageDown),
    ("[H", Key::Home),
    ("[F", Key::End),
    ("OH", Key::Home),
    ("OF", Key::End),
    ("[1~", Key::Home),
    ("[4~", Key::End),
    ("[7~", Key::Home),
    ("[8~", Key::End),
    ("[Z", Key::BackTab),
];

/// The keys of some input. A sequence comes in one piece: a person does not type as fast as that. Unknown ones are dropped.
pub fn of(bytes: &[u8]) -> Vec<Key> {
    let text = String::from_utf8_lossy(bytes);
    let mut rest = &*text;
    let mut keys = Vec::new();
    while let Some(first) = rest.chars().next() {
        rest = &rest[first.len_utf8()..];
        match first {
            '\x1b' => {
                if let Some((sequence, key)) =
                    SEQUENCES.iter().find(|(sequence, _)| rest.starts_with(sequence))
                {
                    rest = &rest[sequence.len()..];
                    keys.push(*key);
                } else if let Some(unknown) = rest.strip_prefix(['[', 'O']) {
                    // ECMA-48: parameters, then one byte from '@' to '~'.
                    let end = unknown.find(|c| ('@'..='~').contains(&c)).map_or(unknown.len(), |at| at + 1);
                    rest = &unknown[end..];
                } else {
                    keys.push(Key::Escape);
                }
            }
            '\r' | '\n' => keys.push(Key::Enter),
            '\t' => keys.push(Key::Tab),
            '\x7f' | '\x08' => keys.push(Key::Backspace),
            '\x03' => keys.push(Key::Interrupt),
            '\x02' => keys.push(Key::PageUp),
            '\x06' => keys.push(Key::PageDown),
            control if control.is_control() => {}
            other => keys.push(Key::Char(other)),
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_keys() {
        assert_eq!(
            of(b"q\r\t\x7f\x03"),
            [Key::Char('q'), Key::Enter, Key::Tab, Key::Backspace, Key::Interrupt]
        );
        assert_eq!(of(b"\x1b[A\x1b[5~\x1bOB\x1b[Z"), [Key::Up, Key::PageUp, Key::Down, Key::BackTab]);
        assert_eq!(of(b"\x1b[1;5Ax\x1b"), [Key::Char('x'), Key::Escape]);
        assert_eq!(of("é".as_bytes()), [Key::Char('é')]);
    }
}
