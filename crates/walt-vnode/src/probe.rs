//! Finds out whether KVM works here for a kernel. The existence of `/dev/kvm` is not enough: on some hosts (nested
//! ones, for example) an ordinary kernel hangs. So the kernel is booted once, without initrd and root: if KVM works,
//! it panics with "unable to mount root" within a second or two, and qemu ends.
//!
//! The verdict holds for one kernel and one qemu: [`key`] names the pair, and the caller keeps the verdict under it.

use crate::{
    Result, failed,
    launch::{Account, BootFiles, Launch, launch, may_use_kvm},
    qemu::{Acceleration, BootMethod, MANUFACTURER, PRODUCT, VmSpec},
};
use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a kernel may take to panic. Under KVM it needs a second or two.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(10);
/// Memory of the machine that is tried, in MiB.
const PROBE_MEMORY: u32 = 256;
/// How often the console is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// How much of the console is looked at, in bytes.
const CONSOLE_TAIL: u64 = 64 * 1024;
/// Prints the first messages early, and ends by itself.
const COMMAND_LINE: &str = "console=ttyS0 earlyprintk=serial,ttyS0 panic=-1";
/// Messages of a kernel that got as far as it can.
const ARRIVED: [&str; 2] = ["Kernel panic - not syncing", "Unable to mount root fs"];

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Verdict {
    /// What to run machines with.
    pub acceleration: Acceleration,
    /// Why, for the log and the status.
    pub reason: String,
}

/// Names the pair of kernel and qemu that a verdict holds for.
///
/// # Errors
/// When the kernel cannot be read.
pub fn key(kernel: &mut File, qemu_version: &str) -> Result<String> {
    let reading = || "read a kernel";
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 64 * 1024];
    kernel.rewind().map_err(failed(reading()))?;
    loop {
        match kernel.read(&mut buffer).map_err(failed(reading()))? {
            0 => break,
            n => drop(hasher.update(&buffer[..n])),
        }
    }
    kernel.rewind().map_err(failed(reading()))?;
    Ok(format!("{} {qemu_version}", hasher.finalize().to_hex()))
}

/// Tries KVM with this kernel, in a directory that is removed afterwards. Takes [`PROBE_TIMEOUT`] where it hangs.
///
/// # Errors
/// When the trial itself cannot be set up. That KVM does not work is a verdict, not an error.
pub fn run(kernel: &File, directory: &Path, account: Account, program: &str) -> Result<Verdict> {
    let tcg = |reason: String| Ok(Verdict { acceleration: Acceleration::Tcg, reason });
    if let Err(reason) = may_use_kvm(account) {
        return tcg(reason);
    }
    let spec = VmSpec {
        name: "probe".into(),
        uuid: crate::new_uuid()?,
        memory_mib: PROBE_MEMORY,
        cores: 1,
        manufacturer: MANUFACTURER.into(),
        product: PRODUCT.into(),
        boot: BootMethod::Direct { command_line: COMMAND_LINE.into() },
        acceleration: Acceleration::Kvm,
    };
    // Remove the console of an earlier trial.
    match std::fs::remove_dir_all(directory) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(failed(format!("remove {}", directory.display()))(e));
        }
        _ => {}
    }
    let kernel = kernel.try_clone().map_err(failed("open a kernel"))?;
    let files = Some(BootFiles { kernel, initrds: Vec::new() });
    let started = launch(Launch {
        spec: &spec,
        directory,
        files,
        cards: Vec::new(),
        disks: Vec::new(),
        account,
        cgroup: None,
        program,
    });
    let verdict = match started {
        Err(error) => tcg(error.to_string()),
        Ok(vm) => {
            let deadline = Instant::now() + PROBE_TIMEOUT;
            let verdict = loop {
                let ended = vm.wait(POLL_INTERVAL);
                let tail = vm.console().tail(CONSOLE_TAIL)?;
                let text = crate::console::plain_text(&tail);
                if ARRIVED.iter().any(|sign| text.contains(sign)) {
                    let reason = "a kernel started under KVM".to_owned();
                    break Ok(Verdict { acceleration: Acceleration::Kvm, reason });
                }
                let last = crate::console::last_line(&tail).unwrap_or_else(|| "nothing".into());
                if ended {
                    break tcg(format!("under KVM qemu ended early; last on the console: {last}"));
                }
                if Instant::now() > deadline {
                    let seconds = PROBE_TIMEOUT.as_secs();
                    break tcg(format!(
                        "under KVM a kernel hung for {seconds} s; last on the console: {last}"
                    ));
                }
            };
            vm.stop()?;
            verdict
        }
    };
    // A directory in the runtime directory; what stays is overwritten by the next probe.
    let _ = std::fs::remove_dir_all(directory);
    verdict
}
