//! Programs of other CPU families: which of them this machine runs itself, and how it emulates the others.
//!
//! The kernel runs a foreign program by a handler of binfmt_misc, here qemu-user. With the flag `F`, the handler's
//! program is opened when it is registered, so it works in containers, which do not contain it. A handler that the
//! distribution's package has registered is used. If the program is only installed (packages do not register handlers
//! in a container, nor without systemd or binfmt-support), the server registers a handler:
//!
//! ```text
//! <owner>-<qemu's name>   flags POF, as Debian has them: argv[0] is kept (P), the program is opened for qemu (O),
//!                         the handler works in containers (F); no credentials (C): set-user-id programs keep
//!                         the caller's, since qemu takes orders from its caller's environment
//! ```
//!
//! A handler acts on the whole machine. Ours is removed when it is not needed any more: since Linux 6.7 by the
//! kernel, once no [`Emulation`] exists (and the machine has no mount of binfmt_misc), before that by [`remove`].
//!
//! Limits: little-endian and big-endian Linux of the families in the table of [`Cpu`]; what qemu-user cannot do
//! (ptrace, some system calls) cannot be done.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use walt_sys::binfmt::Binfmt;

/// Debian's package with the emulators.
pub const PACKAGE: &str = "qemu-user-static";
/// Prefix of the names of our handlers.
const OURS: &str = "walt-";
/// Where emulators are looked for.
const PROGRAM_DIRS: [&str; 2] = ["/usr/local/bin", "/usr/bin"];
/// Length of the part of an ELF header that identifies the CPU, in bytes (elf(5)): up to `e_machine`.
const HEADER: usize = 20;
/// Bytes of an ELF file that are read to see whether it needs a loader: they contain its program headers.
const ELF_START: u64 = 4096;

/// A family of CPUs. The table has those of OCI images for which qemu-user exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cpu {
    /// Name in images' configurations (Go's).
    pub name: &'static str,
    /// Name in the names of qemu's programs.
    qemu: &'static str,
    /// ELF: 32 or 64 bits.
    bits: u8,
    /// ELF: whether the highest byte of a number comes first.
    big_endian: bool,
    /// ELF: `e_machine`.
    machine: u16,
}

const fn cpu(name: &'static str, qemu: &'static str, bits: u8, big_endian: bool, machine: u16) -> Cpu {
    Cpu { name, qemu, bits, big_endian, machine }
}

const CPUS: [Cpu; 9] = [
    cpu("amd64", "x86_64", 64, false, 62),
    cpu("386", "i386", 32, false, 3),
    cpu("arm64", "aarch64", 64, false, 183),
    cpu("arm", "arm", 32, false, 40),
    cpu("riscv64", "riscv64", 64, false, 243),
    cpu("ppc64le", "ppc64le", 64, false, 21),
    cpu("s390x", "s390x", 64, true, 22),
    cpu("mips64le", "mips64el", 64, false, 8),
    cpu("loong64", "loongarch64", 64, false, 258),
];

/// Why programs of a CPU cannot be run here.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This machine does not run the CPU, and no emulator for it is known.
    #[error("this server cannot run programs for the CPU '{0}', and no emulator for it is known")]
    Unknown(String),
    /// No emulator.
    #[error("this server has no emulator for the CPU '{0}': install the package '{PACKAGE}' on it")]
    NoEmulator(&'static str),
    /// An administrator has switched binfmt_misc off.
    #[error("emulation is disabled on this server: enable it with 'echo 1 >/proc/sys/fs/binfmt_misc/status'")]
    Off,
    /// The kernel's answer.
    #[error("cannot set up emulation of the CPU '{cpu}': {source}")]
    Kernel {
        /// The CPU.
        cpu: &'static str,
        /// What failed.
        source: walt_sys::Error,
    },
    /// The kernel accepted the handler, but does not list it as expected.
    #[error("the binfmt_misc handler {0} is registered but does not work: check it")]
    Handler(String),
}

/// Programs of the CPU can be run while this exists.
#[derive(Debug)]
pub struct Emulation {
    _binfmt: Binfmt,
}

impl Emulation {
    /// Keeps the existing handlers, for a process that may outlive the one that registered them.
    pub fn keep() -> walt_sys::Result<Self> {
        Ok(Self { _binfmt: Binfmt::open()? })
    }
}

/// The CPU that an image's configuration names; `None`: this machine runs it.
///
/// # Errors
/// [`Error::Unknown`].
pub fn foreign(architecture: &str) -> Result<Option<&'static Cpu>, Error> {
    // Without an architecture, it was made by a tool that knew only one.
    if architecture.is_empty() {
        return Ok(None);
    }
    let cpu = CPUS.iter().find(|c| c.name == architecture);
    let cpu = cpu.ok_or_else(|| Error::Unknown(architecture.to_owned()))?;
    let runs_32_bit = || walt_sys::process::runs_32_bit();
    Ok((!is_native(cpu, std::env::consts::ARCH, runs_32_bit)).then_some(cpu))
}

/// Whether a machine (by Rust's name) runs the CPU's programs itself.
fn is_native(cpu: &Cpu, machine: &str, runs_32_bit: impl Fn() -> bool) -> bool {
    match (machine, cpu.name) {
        ("x86_64", "amd64" | "386") | ("aarch64", "arm64") => true,
        // Many, not all, have the old instructions too.
        ("aarch64", "arm") => runs_32_bit(),
        _ => false,
    }
}

/// Makes sure that programs of a CPU can be run, in containers too. `owner` names the server (`walt-…`), for
/// [`remove`].
///
/// # Errors
/// No emulator is installed, or the kernel does not want it.
pub fn ensure(cpu: &'static Cpu, owner: &str) -> Result<Emulation, Error> {
    let failed = |source| Error::Kernel { cpu: cpu.name, source };
    let binfmt = Binfmt::open().map_err(failed)?;
    if !binfmt.is_enabled().map_err(failed)? {
        return Err(Error::Off);
    }
    let name = format!("{owner}-{}", cpu.qemu);
    let runs = |binfmt: &Binfmt| {
        binfmt.handlers().map_err(failed).map(|all| all.iter().any(|(n, text)| serves(cpu, n, text, &name)))
    };
    if runs(&binfmt)? {
        return Ok(Emulation { _binfmt: binfmt });
    }
    let program = find_program(cpu).ok_or(Error::NoEmulator(cpu.name))?;
    // A handler of ours that does not work would be in the way.
    binfmt.remove(&name).map_err(failed)?;
    let added = binfmt.register(&cpu.handler(&name, &program));
    match (runs(&binfmt)?, added) {
        // Another task has registered it meanwhile.
        (true, _) => Ok(Emulation { _binfmt: binfmt }),
        (false, Err(e)) => Err(failed(e)),
        (false, Ok(())) => Err(Error::Handler(name)),
    }
}

/// Removes the handlers that `owner` has registered.
///
/// # Errors
/// The kernel's. On a kernel without binfmt_misc there is nothing to remove.
pub fn remove(owner: &str) -> walt_sys::Result<()> {
    let Ok(binfmt) = Binfmt::open() else { return Ok(()) };
    let prefix = format!("{owner}-");
    for (name, _) in binfmt.handlers()?.iter().filter(|(name, _)| name.starts_with(&prefix)) {
        binfmt.remove(name)?;
    }
    Ok(())
}

/// Removes the handlers of owners named after processes, `<prefix><number>`, that have ended without removing them.
///
/// # Errors
/// As [`remove`].
pub fn remove_of_ended(prefix: &str) -> walt_sys::Result<()> {
    let Ok(binfmt) = Binfmt::open() else { return Ok(()) };
    for (name, _) in binfmt.handlers()? {
        if process_of(&name, prefix).is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            binfmt.remove(&name)?;
        }
    }
    Ok(())
}

/// The process in the name of a handler.
fn process_of(name: &str, prefix: &str) -> Option<u32> {
    name.strip_prefix(prefix)?.split_once('-')?.0.parse().ok()
}

/// Whether a handler can be relied on: it works in containers, and does not disappear with another server or a
/// recipe.
fn serves(cpu: &Cpu, name: &str, text: &str, own: &str) -> bool {
    (name == own || !name.starts_with(OURS))
        && Handler::parse(text).is_some_and(|h| h.enabled && h.fixed && h.takes(cpu))
}

/// A handler that matches the first bytes of files.
#[derive(Debug, PartialEq, Eq)]
struct Handler {
    enabled: bool,
    /// Flag `F`.
    fixed: bool,
    offset: usize,
    magic: Vec<u8>,
    /// As long as the magic bytes; missing ones count in full.
    mask: Vec<u8>,
}

impl Handler {
    /// Parses the kernel's description of a handler; `None` if it matches file names, or is not understood.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let mut handler = Self {
            enabled: lines.next()? == "enabled",
            fixed: false,
            offset: 0,
            magic: Vec::new(),
            mask: Vec::new(),
        };
        for line in lines {
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            match key {
                "flags:" => handler.fixed = value.contains('F'),
                "offset" => handler.offset = value.parse().ok()?,
                "magic" => handler.magic = unhex(value)?,
                "mask" => handler.mask = unhex(value)?,
                _ => {}
            }
        }
        handler.mask.resize(handler.magic.len(), 0xff);
        (!handler.magic.is_empty()).then_some(handler)
    }

    /// Whether it runs the CPU's programs, those at fixed addresses and those anywhere.
    fn takes(&self, cpu: &Cpu) -> bool {
        [ET_EXEC, ET_DYN].iter().all(|kind| {
            let header = cpu.header(*kind);
            let found = header.get(self.offset..self.offset.saturating_add(self.magic.len()));
            found.is_some_and(|bytes| {
                bytes.iter().zip(&self.magic).zip(&self.mask).all(|((b, m), mask)| b & mask == m & mask)
            })
        })
    }
}

/// ELF: `e_type` of a program at a fixed address, and of one that can be anywhere.
const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
/// ELF: type of the program header that names a loader.
const PT_INTERP: u32 = 3;

impl Cpu {
    fn half(&self, number: u16) -> [u8; 2] {
        if self.big_endian { number.to_be_bytes() } else { number.to_le_bytes() }
    }

    /// How a program of this CPU begins (elf(5)).
    fn header(&self, kind: u16) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        let class = if self.bits == 64 { 2 } else { 1 };
        let data = if self.big_endian { 2 } else { 1 };
        header[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, data, 1]);
        header[16..18].copy_from_slice(&self.half(kind));
        header[18..].copy_from_slice(&self.half(self.machine));
        header
    }

    /// What registers a handler: both kinds of programs, whatever operating-system ABI they name.
    fn handler(&self, name: &str, program: &Path) -> String {
        let mut mask = [0xff; HEADER];
        mask[7] = 0;
        mask[16..18].copy_from_slice(&self.half(0xfffe));
        let escaped = |bytes: [u8; HEADER]| bytes.map(|b| format!("\\x{b:02x}")).concat();
        let (magic, mask) = (escaped(self.header(ET_EXEC)), escaped(mask));
        format!(":{name}:M:0:{magic}:{mask}:{}:POF", program.display())
    }
}

/// The installed emulator. It must be static, since containers have only libraries of their own CPU.
fn find_program(cpu: &Cpu) -> Option<PathBuf> {
    let names = [format!("qemu-{}-static", cpu.qemu), format!("qemu-{}", cpu.qemu)];
    let paths = names.iter().flat_map(|n| PROGRAM_DIRS.iter().map(move |dir| Path::new(dir).join(n)));
    paths.into_iter().find(|path| {
        let mut start = Vec::new();
        File::open(path).is_ok_and(|file| file.take(ELF_START).read_to_end(&mut start).is_ok())
            && needs_no_loader(&start)
    })
}

/// Whether the first bytes of a file are those of a static 64-bit little-endian program.
fn needs_no_loader(start: &[u8]) -> bool {
    let number = |at: usize, len: usize| {
        let bytes = start.get(at..at.checked_add(len)?)?;
        Some(bytes.iter().rev().fold(0_u64, |n, b| n << 8 | u64::from(*b)))
    };
    let headers = || {
        let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
        (0..count)
            .map(|n| number(usize::try_from(table.checked_add(n * size)?).ok()?, 4))
            .collect::<Option<Vec<u64>>>()
    };
    start.starts_with(&[0x7f, b'E', b'L', b'F', 2, 1])
        && headers().is_some_and(|types| !types.contains(&u64::from(PT_INTERP)))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Debian 12 registers it.
    const DEBIAN: &str = "enabled\ninterpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P\nflags: POF\noffset 0\n\
        magic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n";

    fn by_name(name: &str) -> &'static Cpu {
        CPUS.iter().find(|c| c.name == name).unwrap()
    }

    #[test]
    fn debians_handler_serves() {
        assert!(serves(by_name("arm64"), "qemu-aarch64", DEBIAN, "walt-1-aarch64"));
        for other in CPUS.iter().filter(|c| c.name != "arm64") {
            assert!(!serves(other, "qemu-aarch64", DEBIAN, "walt-1-x"), "{}", other.name);
        }
    }

    #[test]
    fn handlers_that_cannot_be_relied_on() {
        let arm64 = by_name("arm64");
        let own = "walt-1-aarch64";
        assert!(serves(arm64, own, DEBIAN, own));
        for (name, text) in [
            // of another server, or of a recipe: it may go at any time
            ("walt-2-aarch64", DEBIAN.to_owned()),
            ("q", DEBIAN.replace("enabled", "disabled")),
            // looked up in the container, where it is not
            ("q", DEBIAN.replace("POF", "PO")),
            // only of programs at fixed addresses
            ("q", DEBIAN.replace("feffffff", "ffffffff")),
            ("q", DEBIAN.replace("offset 0", "offset 4000000000")),
            ("q", DEBIAN.replace("offset 0", "offset -")),
            ("q", DEBIAN.replace("magic 7f", "magic zz")),
            ("q", "enabled\ninterpreter /usr/bin/wine\nflags: F\nextension .exe\n".into()),
            ("q", String::new()),
        ] {
            assert!(!serves(arm64, name, &text, own), "{name} {text}");
        }
    }

    #[test]
    fn who_has_registered_a_handler() {
        assert_eq!(process_of("walt-recipe-17-aarch64", "walt-recipe-"), Some(17));
        for other in ["walt-recipe-17", "walt-recipe--arm", "walt-0a1b2c3d-arm", "qemu-arm"] {
            assert_eq!(process_of(other, "walt-recipe-"), None, "{other}");
        }
    }

    #[test]
    fn a_handler_without_mask_compares_all() {
        let text = "enabled\ninterpreter /x\nflags: F\noffset 18\nmagic b700\n";
        assert!(serves(by_name("arm64"), "x", text, "walt-1-aarch64"));
        assert!(!serves(by_name("arm"), "x", text, "walt-1-arm"));
    }

    #[test]
    fn what_is_registered() {
        let text = by_name("arm64").handler("walt-1-aarch64", Path::new("/usr/bin/qemu-aarch64-static"));
        assert_eq!(
            text,
            ":walt-1-aarch64:M:0:\
             \\x7f\\x45\\x4c\\x46\\x02\\x01\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02\\x00\\xb7\\x00:\
             \\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x00\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xfe\\xff\\xff\\xff:\
             /usr/bin/qemu-aarch64-static:POF"
        );
        let s390x = by_name("s390x").handler("n", Path::new("/q"));
        assert!(s390x.contains("\\x00\\x02\\x00\\x16:"), "the higher byte comes first: {s390x}");
        assert!(s390x.contains("\\xff\\xfe\\xff\\xff:"), "{s390x}");
        // The kernel takes a line of at most 1920 bytes, and names of programs of at most 127.
        assert!(text.len() < 400);
    }

    #[test]
    fn what_is_native() {
        for (machine, name, bits_32, native) in [
            ("x86_64", "amd64", true, true),
            ("x86_64", "386", true, true),
            ("x86_64", "arm64", true, false),
            ("x86_64", "arm", true, false),
            ("aarch64", "arm64", false, true),
            ("aarch64", "arm", true, true),
            ("aarch64", "arm", false, false),
            ("aarch64", "amd64", true, false),
            ("riscv64", "amd64", true, false),
        ] {
            assert_eq!(is_native(by_name(name), machine, || bits_32), native, "{name} on {machine}");
        }
        assert_eq!(foreign("").unwrap(), None);
        let unknown = foreign("pdp11").unwrap_err().to_string();
        assert_eq!(
            unknown,
            "this server cannot run programs for the CPU 'pdp11', and no emulator for it is known"
        );
    }

    #[test]
    fn programs_with_a_loader_are_no_emulators() {
        // This test itself has one.
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(own.starts_with(b"\x7fELF"));
        assert!(!needs_no_loader(&own[..4096]));
        // A header table of one entry, of type PT_LOAD, then PT_INTERP.
        let mut file = vec![0_u8; 200];
        file[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1]);
        file[32] = 64;
        file[54] = 56;
        file[56] = 2;
        file[64] = 1;
        assert!(needs_no_loader(&file));
        file[64 + 56] = 3;
        assert!(!needs_no_loader(&file));
        assert!(!needs_no_loader(&file[..100]), "cut off");
        assert!(!needs_no_loader(b""));
        file[32..40].fill(0xff);
        assert!(!needs_no_loader(&file), "beyond the end");
    }
}
