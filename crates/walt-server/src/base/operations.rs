//! What the server is busy with: actions under way, who asked for them, and how far they are.

use crate::base::{
    changes::{Changes, Parts},
    time::now,
};
use parking_lot::Mutex;
use std::{collections::BTreeMap, sync::Arc};

/// Operations that are listed at once. More are carried out, and not listed.
pub const OPERATIONS_MAX: usize = 256;
/// Longest label that is listed, in characters.
const LABEL_MAX: usize = 200;

/// Operations under way.
#[derive(Debug)]
pub struct Operations {
    inner: Mutex<Inner>,
    changes: Arc<Changes>,
}

#[derive(Debug, Default)]
struct Inner {
    last: u64,
    all: BTreeMap<u64, Listed>,
}

/// One of them, as it is listed.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// Its number.
    pub id: u64,
    /// Who asked for it.
    pub user: String,
    /// The command.
    pub what: String,
    /// Since when, in seconds since the epoch.
    pub since: f64,
    /// What it is doing.
    pub label: Option<String>,
    /// Bytes so far and in all.
    pub progress: Option<(u64, u64)>,
}

/// One of them; it is over when this is dropped.
#[derive(Debug)]
pub struct Operation {
    of: Arc<Operations>,
    id: u64,
}

impl Operations {
    /// None yet; `changes` learns of them.
    pub fn new(changes: Arc<Changes>) -> Self {
        Self { inner: Mutex::default(), changes }
    }

    /// One begins.
    pub fn begin(self: &Arc<Self>, user: &str, what: String) -> Operation {
        let id = {
            let mut inner = self.inner.lock();
            inner.last += 1;
            let id = inner.last;
            if inner.all.len() < OPERATIONS_MAX {
                let user = user.to_owned();
                inner.all.insert(id, Listed { id, user, what, since: now(), label: None, progress: None });
            }
            id
        };
        self.changes.mark(Parts::OPERATIONS);
        Operation { of: self.clone(), id }
    }

    /// Those that are under way, the first one first.
    pub fn list(&self) -> Vec<Listed> {
        self.inner.lock().all.values().cloned().collect()
    }
}

impl Operation {
    /// What it is doing now; with bytes so far and in all if it counts them.
    pub fn says(&self, label: &str, progress: Option<(u64, u64)>) {
        let label = Some(label.chars().take(LABEL_MAX).collect());
        if let Some(listed) = self.of.inner.lock().all.get_mut(&self.id) {
            (listed.label, listed.progress) = (label, progress);
        }
        self.of.changes.mark(Parts::OPERATIONS);
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        self.of.inner.lock().all.remove(&self.id);
        self.of.changes.mark(Parts::OPERATIONS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_listed_while_they_run() {
        let changes = Arc::new(Changes::default());
        let operations = Arc::new(Operations::new(changes.clone()));
        let first = operations.begin("ann", "node boot a i".into());
        assert_eq!(changes.take(), Parts::OPERATIONS);
        first.says("Copying", Some((1, 2)));
        let listed = operations.list();
        assert_eq!(
            (listed.len(), listed[0].user.as_str(), listed[0].what.as_str()),
            (1, "ann", "node boot a i")
        );
        assert_eq!((listed[0].label.as_deref(), listed[0].progress), (Some("Copying"), Some((1, 2))));
        let more: Vec<_> = (0..OPERATIONS_MAX).map(|n| operations.begin("bob", n.to_string())).collect();
        assert_eq!(operations.list().len(), OPERATIONS_MAX, "bounded");
        // One that is not listed says and ends as the others do.
        more[OPERATIONS_MAX - 1].says("x", None);
        drop(more);
        changes.take();
        drop(first);
        assert!(operations.list().is_empty() && changes.take() == Parts::OPERATIONS);
    }
}
