//! Arguments of the whole file: those before the first `FROM`, those that were given, and the platform.

use super::{BuildArgs, PREDEFINED, at, wrong};
use crate::{
    Result,
    dockerfile::Dockerfile,
    expand::{self, Variables},
};
use std::collections::BTreeSet;
use walt_registry::Platform;

/// Arguments of the whole file: those before the first `FROM`, and the platform.
#[derive(Debug)]
pub(crate) struct Globals<'a> {
    values: Vec<(String, String)>,
    given: &'a BuildArgs,
    used: BTreeSet<String>,
}

impl<'a> Globals<'a> {
    /// `architecture` is that of this machine, in Go's names; `target` is the platform of the result.
    pub fn new(
        file: &Dockerfile,
        given: &'a BuildArgs,
        architecture: &str,
        target: &Platform,
    ) -> Result<Self> {
        let mut all = Self { values: Vec::new(), given, used: BTreeSet::new() };
        for (side, platform) in [("TARGET", target), ("BUILD", &Platform::new(architecture, ""))] {
            all.set(&format!("{side}PLATFORM"), platform.to_string());
            all.set(&format!("{side}OS"), "linux".into());
            all.set(&format!("{side}ARCH"), platform.architecture.clone());
            all.set(&format!("{side}VARIANT"), platform.variant.clone());
        }
        for (line, pairs) in &file.globals {
            for (name, default) in pairs {
                let value = match (all.given(name), default) {
                    (Some(given), _) => Some(given),
                    (None, Some(text)) => {
                        Some(at(*line, expand::word(text, file.escape, all.values.as_slice()))?)
                    }
                    (None, None) => None,
                };
                if let Some(value) = value {
                    all.set(name, value);
                }
            }
        }
        Ok(all)
    }

    fn set(&mut self, name: &str, value: String) {
        self.values.push((name.to_owned(), value));
    }

    pub(super) fn given(&mut self, name: &str) -> Option<String> {
        let value = self.given.get(name)?;
        self.used.insert(name.to_owned());
        Some(value.clone())
    }

    /// The value of an `ARG` before the first `FROM`.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.values.as_slice().value(name)
    }

    /// Expands an option of `FROM`.
    pub fn expand_option(&self, line: usize, text: &str, escape: char) -> Result<String> {
        at(line, expand::word(text, escape, self.values.as_slice()))
    }

    /// Expands what follows `FROM`.
    pub fn expand(&self, line: usize, text: &str, escape: char) -> Result<String> {
        let found = self.expand_option(line, text, escape)?;
        match found.is_empty() {
            true => Err(wrong(
                line,
                format!("'{text}' does not name an image: does an ARG before FROM lack a value?"),
            )),
            false => Ok(found),
        }
    }

    /// Given names without an `ARG`.
    pub fn unused(&self) -> Vec<&str> {
        let known = |name: &&String| self.used.contains(*name) || PREDEFINED.contains(&name.as_str());
        self.given.keys().filter(|n| !known(n)).map(String::as_str).collect()
    }
}
