//! The host of the builder (`walt-build`): base images, the cache, containers and their network.

use crate::{
    actions::{
        app::App,
        build::{
            BuildOutput, CredentialSource,
            base::{error_text, platforms_key},
            build_dir::BuildDir,
        },
    },
    base::db::SessionRow,
    services::{
        images::{build_cache, foreign_cpu, writers::Writing},
        network,
        sessions::{self, slots::Slot},
    },
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
pub struct BuildHost<'a> {
    pub app: &'a Arc<App>,
    pub user: &'a UserName,
    pub output: &'a BuildOutput,
    pub dir: &'a BuildDir,
    /// The slot of this build's containers, once one was started.
    pub slot: Option<Slot<'a>>,
    /// Whether the user was notified that the image is for another CPU.
    pub noted: bool,
    /// Whether to ask the registries even for known images.
    pub pull: bool,
    pub credentials: &'a CredentialSource<'a>,
    /// Base images of this build by name and platforms.
    pub bases: BTreeMap<(String, String), ImageId>,
}

impl BuildHost<'_> {
    fn dir_name(&self) -> String {
        self.dir.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

impl Host for BuildHost<'_> {
    type Writing<'g>
        = Writing<'g>
    where
        Self: 'g;

    async fn line(&self, text: String) {
        self.output.line(text).await;
    }

    async fn output(&self, bytes: &[u8]) {
        self.output.bytes(bytes).await;
    }

    async fn writing(&self) -> Writing<'_> {
        self.app.images().writing().await
    }

    fn pin(&self, layer: DiffId, _writing: &Writing<'_>) {
        self.dir.pinned().layer(layer);
    }

    async fn base(&mut self, name: &str, platforms: &[Platform]) -> Result<ImageId, String> {
        let key = (name.to_owned(), platforms_key(platforms));
        // A name stands for the same image in the whole build.
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
            tracing::warn!("cannot cache the result of a build step: {e:#}");
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
        if let Some(note) = foreign_cpu::ensure_runnable(app.images(), image).map_err(error_text)?
            && !std::mem::replace(&mut self.noted, true)
        {
            self.output.line(note).await;
        }
        let id = format!("{}-{number}", self.dir_name());
        // The slot selects both the network link and the range of user ids.
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

impl BuildHost<'_> {
    /// Results are cached per user.
    fn user_key(&self, key: &str) -> String {
        format!("{} {key}", self.user)
    }

    /// The slot of this build's containers, which run one at a time.
    fn slot(&mut self) -> Result<u32, String> {
        if let Some(slot) = &self.slot {
            return Ok(slot.number);
        }
        let config = self.app.config();
        let rows = self.app.db().with(SessionRow::all).map_err(error_text)?;
        let taken: BTreeSet<u32> = rows.iter().map(|s| s.slot).collect();
        // The network's own address and the gateway are not available to containers.
        let count =
            config.containers.network.stations().filter(|ip| *ip != config.container_gateway()).count();
        let slot = self.app.sessions().build_slots().take(count as u32, &taken);
        let slot = slot.ok_or("no free address for containers: see containers.network")?;
        Ok(self.slot.insert(slot).number)
    }
}
