//! Images of other CPUs: whatever runs programs of an image asks [`ensure_runnable`] first.
//!
//! The server registers qemu-user with the kernel where the distribution has not, under a name with the hash of its
//! run directory, so that servers on one machine do not take it away from each other; `walt-server down` removes it.
//! Containers that outlive the server keep it themselves ([`walt_container::session::HoldSpec::emulated`]).

use crate::services::images::error::Error;
use crate::{base::config::Config, services::images::Images};
use parking_lot::Mutex;
use walt_container::emulation::{self, Emulation};
use walt_images::ImageConfig;

/// What this server has set up, for as long as it runs.
#[derive(Debug, Default)]
pub struct Kept(Mutex<Option<Emulation>>);

impl Kept {
    fn keep(&self, emulation: Emulation) {
        *self.0.lock() = Some(emulation);
    }
}

/// How names of our handlers in the kernel begin.
pub fn owner(config: &Config) -> String {
    format!("walt-{}", config.run_dir_hash())
}

/// Makes the programs of an image run in containers. `Some`: they are emulated, and this is what the user is to be told
/// about it, a note.
///
/// # Errors
/// There is no emulator for its CPU; the sentence names the package.
pub fn ensure_runnable(images: &Images, config: &ImageConfig) -> Result<Option<String>, Error> {
    let set_up = || -> Result<_, emulation::Error> {
        let Some(cpu) = emulation::foreign(&config.architecture)? else { return Ok(None) };
        Ok(Some((cpu, emulation::ensure(cpu, &owner(images.config()))?)))
    };
    match set_up() {
        Ok(None) => Ok(None),
        Ok(Some((cpu, emulation))) => {
            images.emulation().keep(emulation);
            Ok(Some(note(cpu.name)))
        }
        Err(e) => Err(e.into()),
    }
}

fn note(cpu: &str) -> String {
    format!("Note: this image is for another CPU ({cpu}), emulation makes it slower.")
}
