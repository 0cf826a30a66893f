//! Images for other CPUs. Call [`ensure_runnable`] before you run programs of an image.
//!
//! The server registers qemu-user with the kernel if the distribution has not. The name has the hash of the run
//! directory, so that servers on one machine do not remove each other's handlers; `walt-server down` removes it.
//! Containers that outlive the server hold it themselves ([`walt_container::session::HoldSpec::emulated`]).

use crate::{
    base::config::Config,
    services::images::{Images, error::Error},
};
use parking_lot::Mutex;
use walt_container::emulation::{self, Emulation};
use walt_images::ImageConfig;

/// The emulation that this server has set up, kept while it runs.
#[derive(Debug, Default)]
pub struct Kept(Mutex<Option<Emulation>>);

impl Kept {
    fn keep(&self, emulation: Emulation) {
        *self.0.lock() = Some(emulation);
    }
}

/// Prefix of the names of our handlers in the kernel.
pub fn owner(config: &Config) -> String {
    format!("walt-{}", config.run_dir_hash())
}

/// Sets up emulation if the programs of an image need it. If so, the result is a note for the user.
///
/// # Errors
/// There is no emulator for its CPU; the message names the package to install.
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
    format!("Note: this image is for another CPU ({cpu}); emulation makes it slower.")
}
