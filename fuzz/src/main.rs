//! The engine: libFuzzer over one of [`walt_fuzz::TARGETS`], named by the environment variable `WALT_FUZZ_TARGET`.

#![no_main]

use std::sync::OnceLock;
use walt_fuzz::{ENV_TARGET, TARGETS, Target};

static CHOSEN: OnceLock<Target> = OnceLock::new();

fn chosen() -> Target {
    let name = std::env::var(ENV_TARGET).unwrap_or_default();
    let found = TARGETS.iter().find(|(n, _)| *n == name);
    let Some((_, target)) = found else {
        let names: Vec<&str> = TARGETS.iter().map(|(n, _)| *n).collect();
        eprintln!("{ENV_TARGET} must be one of {}", names.join(" "));
        std::process::exit(2);
    };
    *target
}

libfuzzer_sys::fuzz_target!(init: { CHOSEN.get_or_init(chosen); }, |bytes: &[u8]| {
    CHOSEN.get_or_init(chosen)(bytes);
});
