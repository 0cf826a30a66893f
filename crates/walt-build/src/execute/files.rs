//! `COPY`, `ADD` and `WORKDIR`: layers made by the composer.

use super::{Executor, Host, Key, at, blocking};
use crate::{
    Result,
    accounts::Accounts,
    copy::Copier,
    dockerfile::Step,
    state::{Copy, Origin},
};
use std::{cell::RefCell, collections::BTreeMap};
use walt_images::{Composed, Composer, Last, Meta, Time};
use walt_tar::paths::split;
use walt_types::DiffId;

/// Mode of a directory that `WORKDIR` makes.
const DIR_MODE: u32 = 0o755;

impl<H: Host> Executor<'_, H> {
    pub(super) async fn mkdir(
        &mut self,
        step: &Step,
        layers: &[DiffId],
        path: &str,
        user: &str,
    ) -> Result<Option<DiffId>> {
        let view = self.view(layers).await?;
        let exists = view.resolve(path.trim_start_matches('/').as_bytes());
        if exists.and_then(|n| view.entry(n)).is_some_and(|e| e.kind == walt_images::Kind::Dir) {
            return Ok(None);
        }
        let account = Accounts::of(&view).find(user).map_err(at(step.line))?;
        let key = Key::of(layers, &format!("mkdir {path} {} {}", account.uid, account.gid)).text();
        if let Some(found) = self.known(&key).await? {
            return Ok(found);
        }
        let meta = Meta {
            mode: DIR_MODE,
            uid: account.uid,
            gid: account.gid,
            mtime: Time { sec: self.order.now.0, nsec: 0 },
            xattrs: Vec::new(),
        };
        let mut composer = self.store.compose(&view)?;
        let real = composer.resolve(path.as_bytes(), Last::Follow)?;
        composer.make_dirs(split(&real).0, &meta)?;
        composer.make_dirs(&real, &meta)?;
        self.keep(&key, composer).await
    }

    /// Puts the layer into the store and caches the result.
    async fn keep(&mut self, key: &str, composer: Composer<'_>) -> Result<Option<DiffId>> {
        let writing = self.host.writing().await;
        let layer = match blocking(&self.cancelled, || composer.finish())? {
            Composed::Unchanged => None,
            Composed::Layer(info) => Some(info.diff_id),
        };
        if let Some(layer) = layer {
            self.host.pin(layer, &writing);
        }
        self.host.remember(key, layer.as_ref());
        drop(writing);
        Ok(layer)
    }

    pub(super) async fn copy(
        &mut self,
        stage: usize,
        step: &Step,
        layers: &[DiffId],
        copy: &Copy,
    ) -> Result<Option<DiffId>> {
        let mut identities = BTreeMap::new();
        for origin in &copy.sources {
            let Origin::Remote(remote) = origin else { continue };
            let identity = match remote.promised(copy.checksum.as_deref()) {
                Some(identity) => identity,
                None => self.fetched(step.line, remote).await?.identity,
            };
            identities.insert(remote.clone(), identity);
        }
        let needs_source = copy.sources.iter().any(|s| matches!(s, Origin::Path(_)));
        let source = match needs_source {
            true => Some(self.source(step.line, stage, copy.from.as_deref()).await?),
            false => None,
        };
        let view = self.view(layers).await?;
        let (now, notes) = (self.order.now.0, RefCell::default());
        let mut copier = Copier { line: step.line, copy, source, fetched: BTreeMap::new(), now, notes };
        let owner = copier.owner(&view)?;
        let digest = blocking(&self.cancelled, || copier.digest(owner, &identities))?;
        let mut key = Key::of(layers, &format!("{copy:?}"));
        key.part(digest.as_bytes());
        let key = key.text();
        if let Some(found) = self.known(&key).await? {
            return Ok(found);
        }
        for remote in identities.into_keys() {
            let found = self.fetched(step.line, &remote).await?;
            if let Some(checksum) = copy.checksum.as_deref().filter(|c| !remote.matches(&found.identity, c)) {
                let why = format!("{} is {}, and not {checksum}", remote.url(), found.identity);
                return Err(at(step.line)(why));
            }
            copier.fetched.insert(remote, found.content);
        }
        let mut composer = self.store.compose(&view)?;
        blocking(&self.cancelled, || copier.apply(&mut composer))?;
        for note in copier.notes.into_inner() {
            self.host.line(format!("Note: {note}.")).await;
        }
        if let Some(note) = composer.skipped().note() {
            self.host.line(format!("Note: {note}")).await;
        }
        self.keep(&key, composer).await
    }
}
