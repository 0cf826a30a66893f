//! What the builder of `walt-images` needs of this server: references, the cache, containers' links, the network.

use crate::services::{images::writers::Writing, sessions::slots::Slot};
use crate::{
    actions::app::App,
    base::db::SessionRow,
    services::{images::emulation, network, sessions},
};
use crate::{
    actions::build::{
        Asker, Say, Workplace,
        base::{error_text, joined},
    },
    services::images::build_cache,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};
use walt_build::{Host, step::StepSpec};
use walt_images::{ImageConfig, View};
use walt_registry::Platform;
use walt_types::{DiffId, ImageId, UserName};

/// The server, as one build sees it.
pub struct Server<'a> {
    pub app: &'a Arc<App>,
    pub user: &'a UserName,
    pub say: &'a Say,
    pub place: &'a Workplace,
    /// The address of this build's containers, once one has a network.
    pub slot: Option<Slot<'a>>,
    /// Whether the user was told that the image is for another CPU.
    pub noted: bool,
    /// Whether registries are asked anew.
    pub pull: bool,
    pub asker: &'a Asker<'a>,
    /// What names after `FROM` meant in this build, by what they were wanted for.
    pub bases: BTreeMap<(String, String), ImageId>,
}

impl Server<'_> {
    fn dir_name(&self) -> String {
        self.place.dir.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

impl Host for Server<'_> {
    type Writing<'g>
        = Writing<'g>
    where
        Self: 'g;

    async fn line(&self, text: String) {
        self.say.line(text).await;
    }

    async fn output(&self, bytes: &[u8]) {
        self.say.bytes(bytes).await;
    }

    async fn writing(&self) -> Writing<'_> {
        self.app.images().writing().await
    }

    fn pin(&self, layer: DiffId, _writing: &Writing<'_>) {
        self.place.pinned().layer(layer);
    }

    async fn base(&mut self, name: &str, platforms: &[Platform]) -> Result<ImageId, String> {
        let key = (name.to_owned(), joined(platforms));
        // A name has one meaning in a build.
        if let Some(image) = self.bases.get(&key) {
            return Ok(*image);
        }
        let image = self.find_base(name, platforms).await?;
        self.bases.insert(key, image);
        Ok(image)
    }

    fn cached(&self, key: &str, writing: &Writing<'_>) -> Result<Option<Option<DiffId>>, String> {
        build_cache::find(self.app.images(), &self.user_key(key), writing).map_err(error_text)
    }

    fn remember(&self, key: &str, found: Option<&DiffId>) {
        if let Err(e) = build_cache::put(self.app.images(), &self.user_key(key), found) {
            tracing::warn!("the result of a build's step is not kept: {e:#}");
        }
    }

    fn cache_dir(&self, id: &str) -> Result<PathBuf, String> {
        build_cache::mount_dir(self.app.images(), self.user, id).map_err(error_text)
    }

    async fn container(
        &mut self,
        number: usize,
        network: bool,
        image: &ImageConfig,
        trees: &[Arc<View>],
    ) -> Result<StepSpec, String> {
        let app = self.app;
        if let Some(note) = emulation::ready(app.images(), image).map_err(error_text)?
            && !std::mem::replace(&mut self.noted, true)
        {
            self.say.line(note).await;
        }
        let id = format!("{}-{number}", self.dir_name());
        // The number of the link is also that of the range of users.
        let slot = self.slot()?;
        let network = match network {
            true => Some(network::container_network(app.config(), slot).map_err(error_text)?),
            false => None,
        };
        Ok(StepSpec {
            cgroup: format!("{}/{id}", app.base().cgroup_root()),
            container_id: id,
            lowers: Vec::new(),
            runtime: app.config().containers.runtime.clone().into(),
            runtime_root: app.config().run_dir.join("runc"),
            argv: Vec::new(),
            script: None,
            env: Vec::new(),
            workdir: "/".into(),
            user: (0, 0, Vec::new()),
            users: sessions::users::for_trees(app.sessions(), slot, trees.iter().map(AsRef::as_ref)),
            network,
            memory_max: Some(sessions::memory_max()),
            mounts: Vec::new(),
            no_new_privileges: false,
            file_max: None,
        })
    }
}

impl Server<'_> {
    /// Results of one user are not shown to another.
    fn user_key(&self, key: &str) -> String {
        format!("{} {key}", self.user)
    }

    /// The number of this build's containers, one at a time.
    fn slot(&mut self) -> Result<u32, String> {
        if let Some(slot) = &self.slot {
            return Ok(slot.number);
        }
        let config = self.app.config();
        let rows = self.app.db().with(SessionRow::all).map_err(error_text)?;
        let taken: BTreeSet<u32> = rows.iter().map(|s| s.slot).collect();
        // The network's own address and the gateway are no stations of containers.
        let count =
            config.containers.network.stations().filter(|ip| *ip != config.container_gateway()).count();
        let slot = self.app.sessions().build_slots().take(count as u32, &taken);
        let slot = slot.ok_or("no address is left for containers: see containers.network")?;
        Ok(self.slot.insert(slot).number)
    }
}
