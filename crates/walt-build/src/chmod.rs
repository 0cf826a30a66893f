//! The modes of `COPY --chmod` and `ADD --chmod`: octal, or symbolic as in chmod(1). Without `u`, `g` or `o` a change
//! applies to all, whatever the umask (Dockerfile reference, "COPY --chmod").

/// Longest text of a mode, in bytes.
const MAX_TEXT: usize = 256;
const SET_ID: u32 = 0o6000;

/// A change of modes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Chmod {
    /// Everything gets these bits.
    Octal(u32),
    /// One change after the other.
    Symbolic(Vec<Change>),
}

/// `go+rX`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Change {
    /// The bits of the named classes.
    whose: u32,
    sign: u8,
    what: Bits,
}

#[derive(Debug, Clone, PartialEq)]
enum Bits {
    /// Permission bits, and whether the bit to execute is added to directories and executable files (`X`).
    Bits(u32, bool),
    /// Bits another one may: its three bits are that far up.
    Copy(u32),
}

impl Chmod {
    /// Parses a mode; `None` if it is not valid.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_TEXT {
            return None;
        }
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            return u32::from_str_radix(text, 8).ok().filter(|m| *m <= 0o7777).map(Self::Octal);
        }
        let mut changes = Vec::new();
        for clause in text.split(',') {
            let sign = clause.find(['+', '-', '='])?;
            let mut whose = 0;
            for who in clause[..sign].bytes() {
                whose |= match who {
                    b'u' => 0o4700,
                    b'g' => 0o2070,
                    b'o' => 0o1007,
                    b'a' => 0o7777,
                    _ => return None,
                };
            }
            if whose == 0 {
                whose = 0o7777;
            }
            let mut rest = &clause.as_bytes()[sign..];
            while let [sign, after @ ..] = rest {
                let end = after.iter().position(|b| b"+-=".contains(b)).unwrap_or(after.len());
                changes.push(Change { whose, sign: *sign, what: Bits::parse(&after[..end])? });
                rest = &after[end..];
            }
        }
        Some(Self::Symbolic(changes))
    }

    /// The new mode of a file or directory with `mode`.
    pub fn of(&self, mode: u32, directory: bool) -> u32 {
        match self {
            Self::Octal(mode) => *mode,
            Self::Symbolic(changes) => changes.iter().fold(mode, |mode, change| change.of(mode, directory)),
        }
    }
}

impl Bits {
    fn parse(text: &[u8]) -> Option<Self> {
        if let [who @ (b'u' | b'g' | b'o')] = text {
            return Some(Self::Copy(match who {
                b'u' => 6,
                b'g' => 3,
                _ => 0,
            }));
        }
        let (mut bits, mut if_any) = (0, false);
        for what in text {
            match what {
                b'r' => bits |= 0o444,
                b'w' => bits |= 0o222,
                b'x' => bits |= 0o111,
                b'X' => if_any = true,
                b's' => bits |= SET_ID,
                b't' => bits |= 0o1000,
                _ => return None,
            }
        }
        Some(Self::Bits(bits, if_any))
    }
}

impl Change {
    fn of(&self, mode: u32, directory: bool) -> u32 {
        let bits = match self.what {
            Bits::Bits(bits, if_any) if if_any && (directory || mode & 0o111 != 0) => bits | 0o111,
            Bits::Bits(bits, _) => bits,
            Bits::Copy(up) => ((mode >> up) & 7) * 0o111,
        };
        let bits = bits & self.whose;
        match self.sign {
            b'+' => mode | bits,
            b'-' => mode & !bits,
            _ => {
                // A directory keeps the set-id bits that are not named, as in chmod(1).
                let kept = if directory { SET_ID & !bits } else { 0 };
                mode & (!self.whose | kept) | bits
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs::{self, Permissions},
        os::unix::fs::PermissionsExt,
        process::Command,
    };

    #[test]
    fn modes_are_those_of_chmod() {
        let room = tempfile::tempdir().unwrap();
        let (file, dir) = (room.path().join("file"), room.path().join("dir"));
        fs::write(&file, "").unwrap();
        fs::create_dir(&dir).unwrap();
        for text in [
            "640",
            "0",
            "4755",
            "u=rwX,go=rX",
            "a+x",
            "+x",
            "go-w",
            "-w",
            "=",
            "a=",
            "u=",
            "o=t",
            "+t",
            "u+s,g+s",
            "ug-s",
            "a=rwx",
            "u=rw,g=u,o=g",
            "g+u-x",
            "o=rwxXst",
            "go=u-w",
            "a-x+X",
            "+X",
            "u+st",
            "=rs",
            "g=s",
        ] {
            let chmod = Chmod::parse(text).unwrap_or_else(|| panic!("{text}"));
            for (path, directory) in [(&file, false), (&dir, true)] {
                for mode in [0, 0o644, 0o600, 0o755, 0o110, 0o4711, 0o2755, 0o1777, 0o7777] {
                    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
                    // Octal modes of directories: chmod(1) keeps set-user-id, and --chmod means what it says.
                    let expected = match &chmod {
                        Chmod::Octal(mode) => *mode,
                        Chmod::Symbolic(_) => {
                            let script = "umask 0; exec chmod -- \"$1\" \"$2\"";
                            let ran = Command::new("sh").args(["-c", script, "sh", text]).arg(path).status();
                            assert!(ran.unwrap().success(), "{text}");
                            fs::metadata(path).unwrap().permissions().mode() & 0o7777
                        }
                    };
                    let got = chmod.of(mode, directory);
                    assert_eq!(
                        format!("{got:o}"),
                        format!("{expected:o}"),
                        "{text} of {mode:o}, {directory}"
                    );
                }
            }
        }
        for text in
            ["", "9", "77777", "rwx", "u", "u=rwx,", "u=z", "z+r", "u=rg", "0x1", "+-,", "-1", "u=r w"]
        {
            assert_eq!(Chmod::parse(text), None, "{text}");
        }
        assert_eq!(Chmod::parse(&"+x".repeat(MAX_TEXT)), None);
    }
}
