//! The program that `walt-log-cat`, `-tee`, `-echo` and `-monitor` are on nodes: small, static, in freestanding C (`c/`),
//! compiled by `build.rs`. Nodes of other CPUs have the scripts of `node/` instead.

/// Where nodes have the program; the scripts of `node/` run it if it is there.
pub const PATH: &str = "/bin/_walt_internal_/walt-log-program";

/// CPUs (names as in OCI images) and their programs.
pub const PROGRAMS: [(&str, &[u8]); 3] = [
    ("amd64", include_bytes!(concat!(env!("OUT_DIR"), "/amd64"))),
    ("arm64", include_bytes!(concat!(env!("OUT_DIR"), "/arm64"))),
    ("arm", include_bytes!(concat!(env!("OUT_DIR"), "/arm"))),
];

/// The program for images of a CPU, if it exists for this one.
pub fn program(architecture: &str) -> Option<&'static [u8]> {
    PROGRAMS.iter().find(|(cpu, _)| *cpu == architecture).map(|(_, program)| *program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cpu_has_its_program_which_needs_nothing_else() {
        for (cpu, class, machine) in [("amd64", 2, 62), ("arm64", 2, 183), ("arm", 1, 40)] {
            let program = program(cpu).expect("it is in PROGRAMS");
            assert!(program.starts_with(b"\x7fELF"), "{cpu}");
            // class, kind (an executable that is not relocated), machine
            assert_eq!((program[4], program[16], program[18]), (class, 2, machine), "{cpu}");
            assert!(!program.windows(8).any(|w| w == b"ld-linux"), "{cpu} asks for a loader");
            assert!(program.len() < 64 << 10, "{cpu}: {} bytes", program.len());
        }
        assert_eq!(program("riscv64"), None);
    }
}
