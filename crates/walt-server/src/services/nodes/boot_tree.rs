//! The boot files of a view.

use std::{
    fs::File,
    io::{self, Read},
    sync::Arc,
};
use walt_images::{Kind, View};
use walt_netboot::ipxe::Files;
use walt_types::Model;

/// `/boot/<model>` of a view.
pub struct BootTree {
    view: Arc<View>,
    dir: String,
}

impl BootTree {
    /// The boot files for this model in a view.
    pub fn new(view: Arc<View>, model: &Model) -> Self {
        Self { view, dir: format!("boot/{model}") }
    }

    /// Opens a regular file by its path relative to the directory, symbolic links followed inside the view.
    ///
    /// # Errors
    /// `NotFound`: it is not there, or is not a regular file.
    pub fn open(&self, path: &[u8]) -> io::Result<File> {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let full = [self.dir.as_bytes(), b"/", path].concat();
        let number = self.view.resolve(&full).ok_or_else(missing)?;
        match self.view.entry(number) {
            Some(entry) if entry.kind == Kind::File => self.view.open(number),
            _ => Err(missing()),
        }
    }
}

impl Files for BootTree {
    fn read(&self, path: &str, limit: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open(path.as_bytes())?.take(limit + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
    fn exists(&self, path: &str) -> bool {
        self.open(path.as_bytes()).is_ok()
    }
}
