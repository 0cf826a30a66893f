//! What is particular to the firmware of Raspberry Pis: who they are, and which files they ask for.
//!
//! The ROM of the 2 B, 3 B and 3 B+ and the EEPROM of the 4 B and later speak DHCP like a PXE ROM of a PC with a BIOS,
//! and fetch all files by TFTP. The ROM uses the address that it was *offered*, and never asks for it. The EEPROM says in
//! its machine identifier what board it is on: `RPi4` or `RPi5`, the revision code, the end of the MAC, the serial number,
//! each with the low byte first
//! (<https://www.raspberrypi.com/documentation/computers/raspberry-pi.html>, DHCP_OPTION97, TFTP_PREFIX, revision codes).

use walt_types::{Mac, Model};

/// Prefixes of the Ethernet addresses of Raspberry Pi boards.
const OUIS: [[u8; 3]; 7] = [
    [0x28, 0xcd, 0xc1],
    [0xb8, 0x27, 0xeb],
    [0xd8, 0x3a, 0xdd],
    [0xdc, 0xa6, 0x32],
    [0xe4, 0x5f, 0x01],
    [0x2c, 0xcf, 0x67],
    [0x88, 0xa2, 0x9e],
];
/// What the machine identifier of an EEPROM starts with, after its type (0).
const EEPROMS: [&[u8; 4]; 2] = [b"RPi4", b"RPi5"];
/// Boards by the type in their revision code (bits 4 to 11). Compute modules boot what the board with the same chip does.
const TYPES: [(u32, &str); 11] = [
    (0x04, "rpi-2-b"),
    (0x08, "rpi-3-b"),
    (0x0d, "rpi-3-b-plus"),
    (0x11, "rpi-4-b"),
    (0x14, "rpi-4-b"),
    (0x15, "rpi-4-b"),
    (0x13, "rpi-400"),
    (0x17, "rpi-5-b"),
    (0x18, "rpi-5-b"),
    (0x19, "rpi-5-b"),
    (0x1a, "rpi-5-b"),
];
/// Bit of revision codes that have a type; older ones number the boards.
const NEW_STYLE: u32 = 1 << 23;
/// First files of boards that do not say what they are, and the model that asks for them. The 5 B has all its firmware in
/// the EEPROM.
const FIRST_FILES: [(&[u8], &str); 3] =
    [(b"bootcode.bin", "rpi-3-b-plus"), (b"start4.elf", "rpi-4-b"), (b"config.txt", "rpi-5-b")];
/// Hex digits of the serial number in paths.
const SERIAL_DIGITS: usize = 8;

/// A Raspberry Pi's firmware, and what it says about its board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Board {
    /// The board's model, if the firmware tells.
    pub model: Option<Model>,
}

impl Board {
    /// The board of a boot ROM with this address and machine identifier (option 97); none for other machines.
    pub fn of(mac: Mac, machine_id: Option<&[u8]>) -> Option<Self> {
        let told = machine_id.and_then(|id| match id {
            [0, magic @ .., _, _, _, _, _, _, _, _] if magic.len() == 8 => {
                let (magic, revision) = magic.split_first_chunk::<4>()?;
                let revision = u32::from_le_bytes(revision.try_into().ok()?);
                EEPROMS.contains(&magic).then(|| model_of(revision))
            }
            _ => None,
        });
        match told {
            Some(model) => Some(Self { model }),
            None => OUIS.iter().any(|oui| mac.0.starts_with(oui)).then_some(Self { model: None }),
        }
    }
}

/// The model of a board by its revision code.
pub fn model_of(revision: u32) -> Option<Model> {
    let kind = revision >> 4 & 0xff;
    let found = TYPES.iter().find(|(number, _)| revision & NEW_STYLE != 0 && *number == kind)?;
    found.1.parse().ok()
}

/// All models that a revision code may name.
pub fn models() -> Vec<Model> {
    let mut names: Vec<&str> = TYPES.iter().map(|(_, name)| *name).collect();
    names.dedup();
    // Invariant: all of them are valid.
    names.into_iter().filter_map(|name| name.parse().ok()).collect()
}

/// The model whose firmware asks for this file first, if only one does.
pub fn model_asking_for(file: &[u8]) -> Option<Model> {
    let (_, model) = FIRST_FILES.iter().find(|(name, _)| *name == file)?;
    model.parse().ok()
}

/// The path without the directory that firmware puts in front, to have the files of each board apart: the serial number
/// (eight hex digits), or the MAC with dashes, as TFTP_PREFIX says.
pub fn without_prefix(path: &[u8]) -> &[u8] {
    let Some(at) = path.iter().position(|b| *b == b'/') else { return path };
    let (dir, file) = (&path[..at], &path[at + 1..]);
    let is_serial = dir.len() == SERIAL_DIGITS && dir.iter().all(u8::is_ascii_hexdigit);
    let is_mac = dir.len() == 17
        && dir.iter().enumerate().all(|(n, b)| if n % 3 == 2 { *b == b'-' } else { b.is_ascii_hexdigit() });
    if (is_serial || is_mac) && !file.is_empty() { file } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ELSEWHERE: Mac = Mac([0x02, 0, 0, 1, 2, 3]);

    /// An identifier as EEPROMs make it.
    fn id(magic: &[u8; 4], revision: u32) -> Vec<u8> {
        let mut id = vec![0];
        id.extend_from_slice(magic);
        id.extend_from_slice(&revision.to_le_bytes());
        id.extend_from_slice(&[0x32, 1, 0x36, 0xc2, 0xef, 0xfd, 0xfe, 0x9e]);
        id
    }

    fn model(board: Option<Board>) -> Option<String> {
        board.and_then(|b| b.model).map(|m| m.to_string())
    }

    #[test]
    fn boards_by_revision() {
        for (revision, expected) in [
            (0x00a0_1041, Some("rpi-2-b")),
            (0x00a0_2082, Some("rpi-3-b")),
            (0x00a0_20d3, Some("rpi-3-b-plus")),
            (0x00c0_3111, Some("rpi-4-b")),
            (0x00b0_3115, Some("rpi-4-b")),
            (0x00c0_3130, Some("rpi-400")),
            (0x00c0_3141, Some("rpi-4-b")),
            (0x00b0_3150, Some("rpi-4-b")),
            (0x00d0_4170, Some("rpi-5-b")),
            (0x00c0_4180, Some("rpi-5-b")),
            (0x00d0_4190, Some("rpi-5-b")),
            (0x00d0_41a0, Some("rpi-5-b")),
            // Overvoltage and warranty bits do not matter.
            (0x82c0_3111, Some("rpi-4-b")),
            (0x0090_2120, None),
            // Old style: a number.
            (0x0000_0111, None),
            (0x0000_0010, None),
        ] {
            assert_eq!(model_of(revision).map(|m| m.to_string()).as_deref(), expected, "{revision:08x}");
        }
    }

    #[test]
    fn boards_are_known_by_identifier_or_address() {
        let of = |mac, id: &[u8]| Board::of(mac, Some(id));
        assert_eq!(model(of(ELSEWHERE, &id(b"RPi4", 0x00c0_3111))).as_deref(), Some("rpi-4-b"));
        assert_eq!(model(of(ELSEWHERE, &id(b"RPi5", 0x00d0_4170))).as_deref(), Some("rpi-5-b"));
        // A board that is newer than this table.
        assert_eq!(of(ELSEWHERE, &id(b"RPi5", 0x00d0_4ff0)), Some(Board { model: None }));
        for other in [id(b"RPi6", 0x00c0_3111), id(b"4iPR", 0x00c0_3111), b"\0RPi4".to_vec(), vec![]] {
            assert_eq!(of(ELSEWHERE, &other), None, "{other:?}");
        }
        let mut typed = id(b"RPi4", 0x00c0_3111);
        typed[0] = 1;
        assert_eq!(of(ELSEWHERE, &typed), None, "another kind of identifier");
        let mut long = id(b"RPi4", 0x00c0_3111);
        long.push(0);
        assert_eq!(of(ELSEWHERE, &long), None);
        for oui in OUIS {
            let mac = Mac([oui[0], oui[1], oui[2], 1, 2, 3]);
            assert_eq!(Board::of(mac, None), Some(Board { model: None }));
            // The serial number four times, as the 3 B+ and early EEPROMs have it.
            assert_eq!(
                of(mac, &[&[0][..], &[0x7d, 0x24, 0x64, 0x55].repeat(4)].concat()),
                Some(Board { model: None })
            );
        }
        assert_eq!(Board::of(ELSEWHERE, None), None);
    }

    #[test]
    fn all_models() {
        let all: Vec<String> = models().iter().map(Model::to_string).collect();
        assert_eq!(all, ["rpi-2-b", "rpi-3-b", "rpi-3-b-plus", "rpi-4-b", "rpi-400", "rpi-5-b"]);
    }

    #[test]
    fn files_that_tell_the_model() {
        let asks = |file: &[u8]| model_asking_for(file).map(|m| m.to_string());
        assert_eq!(asks(b"bootcode.bin").as_deref(), Some("rpi-3-b-plus"));
        assert_eq!(asks(b"start4.elf").as_deref(), Some("rpi-4-b"));
        assert_eq!(asks(b"config.txt").as_deref(), Some("rpi-5-b"));
        for file in [&b"start.elf"[..], b"kernel", b"", b"bootcode.bin2"] {
            assert_eq!(asks(file), None);
        }
    }

    #[test]
    fn prefixes_of_boards() {
        for (path, file) in [
            (&b"9ffefdef/start4.elf"[..], &b"start4.elf"[..]),
            (b"9FFEFDEF/overlays/x.dtbo", b"overlays/x.dtbo"),
            (b"dc-a6-32-01-36-c2/config.txt", b"config.txt"),
            (b"start4.elf", b"start4.elf"),
            (b"overlays/x.dtbo", b"overlays/x.dtbo"),
            (b"9ffefde/start4.elf", b"9ffefde/start4.elf"),
            (b"9ffefdef0/start4.elf", b"9ffefdef0/start4.elf"),
            (b"9ffefdeg/start4.elf", b"9ffefdeg/start4.elf"),
            (b"dc-a6-32-01-36-c2a/x", b"dc-a6-32-01-36-c2a/x"),
            (b"dc:a6:32:01:36:c2/x", b"dc:a6:32:01:36:c2/x"),
            (b"dca-6-32-01-36-c2/x", b"dca-6-32-01-36-c2/x"),
            (b"9ffefdef/", b"9ffefdef/"),
            (b"9ffefdef", b"9ffefdef"),
            (b"/start4.elf", b"/start4.elf"),
            // One prefix, not two.
            (b"9ffefdef/9ffefdef/x", b"9ffefdef/x"),
        ] {
            assert_eq!(without_prefix(path), file, "{}", String::from_utf8_lossy(path));
        }
    }
}
