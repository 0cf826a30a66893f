//! Compiles the program for nodes, for each CPU it exists for. Its source needs nothing but the compiler: no C library,
//! no headers. clang and lld make programs for all CPUs; a gcc would be needed for each of them.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// Names of CPUs as in OCI images, and what the compiler calls them. 32-bit ARM is that of the first Raspberry Pis.
const TARGETS: [(&str, &[&str]); 3] = [
    ("amd64", &["--target=x86_64-linux-gnu"]),
    ("arm64", &["--target=aarch64-linux-gnu"]),
    ("arm", &["--target=armv6-linux-gnueabihf", "-marm", "-mfloat-abi=hard"]),
];
const FLAGS: [&str; 15] = [
    "-Os",
    "-std=c11",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-ffreestanding",
    "-fno-stack-protector",
    "-fno-pic",
    "-fno-unwind-tables",
    "-fno-asynchronous-unwind-tables",
    "-nostdinc",
    "-nostdlib",
    "-static",
    "-fuse-ld=lld",
    "-Wl,--build-id=none,-s",
];

fn main() {
    println!("cargo::rerun-if-changed=c");
    println!("cargo::rerun-if-env-changed=WALT_CLANG");
    let directory =
        |name: &str| PathBuf::from(env::var_os(name).unwrap_or_else(|| panic!("cargo sets {name}")));
    let (out, source) = (directory("OUT_DIR"), directory("CARGO_MANIFEST_DIR").join("c/main.c"));
    let clang = env::var("WALT_CLANG").unwrap_or_else(|_| "clang".into());
    for (cpu, target) in TARGETS {
        compile(&clang, target, &source, &out.join(cpu));
    }
}

fn compile(clang: &str, target: &[&str], source: &Path, to: &Path) {
    let needs = "the programs for nodes are compiled by clang and lld (Debian: apt-get install clang lld; WALT_CLANG \
                 names another clang)";
    let ran = Command::new(clang).args(target).args(FLAGS).arg(source).arg("-o").arg(to).output();
    let ran = ran.unwrap_or_else(|e| panic!("cannot run {clang}: {e}; {needs}"));
    let errors = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{clang} {}: {}: {errors}\n{needs}", target.join(" "), ran.status);
}
