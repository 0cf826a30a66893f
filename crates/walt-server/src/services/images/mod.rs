//! Images as users see them: the store, references to its images, and the first images of a user.

pub mod build_cache;
pub mod default_image;
pub mod error;
pub mod foreign_cpu;
pub mod garbage;
pub mod labels;
pub mod live;
pub mod node_tars;
pub mod pins;
pub mod platform;
pub mod recipe;
pub mod writers;

pub use crate::services::images::labels::{LABEL_MODELS, LABEL_PREFERRED_NAME};

use crate::{
    base::{
        config::Config,
        db::{By, Db, NodeRow, RefRow, SessionRow},
        keys::Keys,
        state::{Base, Decision},
        time::rfc3339,
    },
    services::images::{
        error::{Error, Result},
        pins::Pins,
        writers::{Exclusive, Writers, Writing},
    },
};
use anyhow::Context;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tokio::sync::{Mutex, Notify};
use walt_core::default_image_of;
use walt_images::{History, ImageConfig, MAX_LAYERS, Store, View};
use walt_types::{ImageId, ImageName, ImageRef, Model, UserName};

/// The model whose default image every new user gets, even without such a node.
pub const MODEL_ALWAYS: &str = "pc-x86-64";

/// Command in the history of a clone that the server made on its own.
const FIRST_CLONE: &str = "(first use of the default image)";

/// The images of this server: their store, and the locks around it.
pub struct Images {
    base: Arc<Base>,
    store: Store,
    writers: Writers,
    pins: Pins,
    housekeeping: Notify,
    emulation: foreign_cpu::Kept,
    node_tars: node_tars::NodeTars,
    default_images_update: Mutex<()>,
}

/// Requests housekeeping when dropped. Held by operations that write to the store, since a failure leaves unused
/// objects.
pub struct HousekeepingOnDrop<'a>(&'a Images);

impl Drop for HousekeepingOnDrop<'_> {
    fn drop(&mut self) {
        self.0.request_housekeeping();
    }
}

impl AsRef<Store> for Images {
    fn as_ref(&self) -> &Store {
        &self.store
    }
}

impl Images {
    /// Opens the store of a server.
    ///
    /// # Errors
    /// The store cannot be used; the error says why.
    pub fn open(base: Arc<Base>) -> anyhow::Result<Self> {
        let store = Store::open(&base.config().state_dir).context("cannot use the image store")?;
        Ok(Self {
            base,
            store,
            writers: Writers::default(),
            pins: Pins::default(),
            housekeeping: Notify::new(),
            emulation: foreign_cpu::Kept::default(),
            node_tars: node_tars::NodeTars::default(),
            default_images_update: Mutex::default(),
        })
    }

    /// Database.
    pub fn db(&self) -> &Db {
        self.base.db()
    }

    /// Configuration.
    pub fn config(&self) -> &Config {
        self.base.config()
    }

    /// Keys of the platform.
    pub fn keys(&self) -> &Keys {
        self.base.keys()
    }

    /// Image store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Pins of operations under way.
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// Emulation of other CPUs that the server has set up.
    pub fn emulation(&self) -> &foreign_cpu::Kept {
        &self.emulation
    }

    /// Layers that are being prepared for the disks of nodes.
    pub fn node_tars(&self) -> &node_tars::NodeTars {
        &self.node_tars
    }

    /// Held while default images are updated.
    pub fn default_images_update(&self) -> &Mutex<()> {
        &self.default_images_update
    }

    /// See [`Writers::writing`].
    pub async fn writing(&self) -> Writing<'_> {
        self.writers.writing().await
    }

    /// See [`Writers::writing_now`].
    pub async fn writing_now(&self) -> Writing<'_> {
        self.writers.writing_now().await
    }

    /// See [`Writers::writing_now_blocking`].
    pub fn writing_now_blocking(&self) -> Writing<'_> {
        self.writers.writing_now_blocking()
    }

    /// See [`Writers::exclusive`].
    pub async fn exclusive(&self) -> Exclusive<'_> {
        self.writers.exclusive(&self.base).await
    }

    /// Requests housekeeping when the result is dropped.
    pub fn housekeeping_on_drop(&self) -> HousekeepingOnDrop<'_> {
        HousekeepingOnDrop(self)
    }

    /// Requests housekeeping.
    pub fn request_housekeeping(&self) {
        self.housekeeping.notify_one();
    }

    /// Resolves when housekeeping is requested.
    pub async fn housekeeping_requested(&self) {
        self.housekeeping.notified().await;
    }

    /// The tree that a node boots now: its image with the platform layer. Mounts, boot files and virtual nodes all
    /// use this.
    ///
    /// Blocks: it may have to read the disk.
    ///
    /// # Errors
    /// The image is missing, or the store fails.
    pub fn view_for(&self, node: &NodeRow, writing: &Writing<'_>) -> Result<Arc<View>> {
        self.view_of(&node.facts.image, writing)
    }

    /// The tree that a node with this image would boot. Blocks as [`Self::view_for`].
    ///
    /// # Errors
    /// As [`Self::view_for`].
    pub fn view_of(&self, reference: &ImageRef, writing: &Writing<'_>) -> Result<Arc<View>> {
        let image = self.find(reference)?;
        Ok(platform::make(self, &image.image_id, writing)?.view)
    }

    /// The tree of an image itself, without the platform layer. Blocks: it may have to read the disk.
    ///
    /// # Errors
    /// The image is missing, or the store fails.
    pub fn own_view(&self, image: &ImageId) -> walt_images::Result<Arc<View>> {
        let layers = self.store.config(image)?.layers()?;
        self.store.view(&layers, None)
    }

    /// The image that a reference points to.
    pub fn find(&self, reference: &ImageRef) -> Result<RefRow> {
        if let Some(row) = self.db().with(|c| RefRow::get(c, reference))? {
            return Ok(row);
        }
        Err(if reference.is_platform() {
            Error::NoDefaultImage {
                reference: reference.clone(),
                recipe: default_image::recipe_of(reference.image()),
            }
        } else {
            Error::NoSuchImage { name: reference.image().clone() }
        })
    }

    /// Nodes that use a reference.
    ///
    /// # Errors
    /// The database failed.
    pub fn nodes_using(&self, reference: &ImageRef) -> Result<Vec<NodeRow>> {
        let rows = self.db().with(NodeRow::all)?;
        Ok(rows.into_iter().filter(|n| n.facts.image == *reference).collect())
    }

    /// Refuses a name that exists.
    pub fn must_be_free(&self, reference: &ImageRef, _decision: &Decision<'_>) -> Result<()> {
        match self.db().with(|c| RefRow::get(c, reference))? {
            None => Ok(()),
            Some(_) => Err(Error::Exists { name: reference.image().clone() }),
        }
    }

    fn label(&self, image: &ImageId, key: &str) -> Result<Option<String>> {
        let config = self.store().config(image)?;
        Ok(config.label(key).map(str::to_owned))
    }

    /// Models that an image is compatible with, from its label.
    pub fn models(&self, reference: &ImageRef) -> Result<Vec<Model>> {
        let row = self.find(reference)?;
        self.models_of(&row.image_id)
    }

    /// As [`models`], by image id.
    pub fn models_of(&self, image: &ImageId) -> Result<Vec<Model>> {
        Ok(labels::models_of(&self.store().config(image)?))
    }

    /// The name of a user's clone of a default image.
    fn preferred_name(&self, default: &RefRow) -> Result<ImageName> {
        let preferred = self.label(&default.image_id, LABEL_PREFERRED_NAME)?;
        Ok(preferred.and_then(|name| name.parse().ok()).unwrap_or_else(|| default.reference.image().clone()))
    }

    /// Clones the default images for the models of all nodes for a user who has no image; one sentence for each
    /// clone. Missing default images are skipped: operations that need one report it.
    pub fn first_images(&self, user: &UserName, _decision: &Decision<'_>) -> Result<Vec<String>> {
        let (refs, nodes) = self.db().with(|c| Ok((RefRow::all(c)?, NodeRow::all(c)?)))?;
        if refs.iter().any(|r| r.reference.user() == user.as_str()) {
            return Ok(Vec::new());
        }
        let mut wanted: BTreeSet<Model> = nodes.into_iter().map(|n| n.facts.model).collect();
        // Invariant: the constant is a valid model name.
        wanted.insert(MODEL_ALWAYS.parse().expect("a valid model"));
        let mut made: BTreeMap<ImageName, Vec<Model>> = BTreeMap::new();
        for model in wanted {
            let Some(default) = self.db().with(|c| RefRow::get(c, &default_image_of(&model)))? else {
                continue;
            };
            let name = self.preferred_name(&default)?;
            let reference = ImageRef::of(user, name.clone());
            let row = RefRow { reference, ..default };
            self.db().transaction(|tx| row.put(tx, &By::new(user, FIRST_CLONE)))?;
            made.entry(name).or_default().push(model);
        }
        Ok(made
            .into_iter()
            .map(|(name, models)| {
                let models: Vec<&str> = models.iter().map(Model::as_str).collect();
                format!("Cloned {name}, a default image for {}.", models.join(", "))
            })
            .collect())
    }

    /// The caller's clone of the default image of a model, created if missing.
    pub fn own_default(
        &self,
        caller: &UserName,
        model: &Model,
        _decision: &Decision<'_>,
    ) -> Result<ImageRef> {
        let default = self.find(&default_image_of(model))?;
        let own = ImageRef::of(caller, self.preferred_name(&default)?);
        if self.db().with(|c| RefRow::get(c, &own))?.is_none() {
            let row = RefRow { reference: own.clone(), ..default };
            self.db().transaction(|tx| row.put(tx, &By::new(caller, FIRST_CLONE)))?;
        }
        Ok(own)
    }

    /// Refuses a reference with an open session.
    pub fn no_session(&self, reference: &ImageRef) -> Result<()> {
        match self.db().with(|c| SessionRow::of_image(c, reference))? {
            None => Ok(()),
            Some(_) => Err(Error::SessionOpen { name: reference.image().clone() }),
        }
    }
}

/// The caller's image of that name.
pub fn own_reference(caller: &UserName, name: &str) -> Result<ImageRef> {
    let name: ImageName = name.parse().map_err(Error::Name)?;
    Ok(ImageRef::of(caller, name))
}

/// The entry in an image's history for a layer that this command made.
pub fn history_entry(by: &By, created: i64) -> History {
    History {
        created: Some(rfc3339(created)),
        created_by: Some(by.command.clone()),
        author: Some(by.user.clone()),
        ..History::default()
    }
}

/// When an image was made, by its configuration, in seconds since the epoch.
pub fn created(config: &ImageConfig) -> Option<i64> {
    let time: jiff::Timestamp = config.created.as_deref()?.parse().ok()?;
    Some(time.as_second())
}

/// The note after a change whose image had the maximum number of layers.
pub fn squashed_note() -> String {
    format!(
        "Note: the image already had the maximum of {MAX_LAYERS} layers: those below the change were \
         squashed into one."
    )
}
