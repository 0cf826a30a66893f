//! `walt-server default-image build NAME`: runs an embedded recipe, and imports what it made.
//!
//! The recipe runs in the command that was typed, as root; the import goes through a running server,
//! else it is done here under the state's lock.

use super::LABEL_MODELS;
use crate::{
    App,
    config::Config,
    db::{By, RefRow},
    fail,
};
use anyhow::{Context, Result, bail};
use include_dir::{Dir, include_dir};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    fs::File,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};
use walt_images::{History, ImageConfig, RunConfig};
use walt_types::{ImageId, ImageName, ImageRef, PLATFORM_USER};

/// Begins the comment in an image's history that names the recipe it was made by, by its digest.
const RECIPE_COMMENT: &str = "recipe ";

/// All recipes, as `images/` of the source tree.
static RECIPES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../images");

/// What a recipe says about the image it made: `config.json`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
pub struct RecipeConfig {
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Environment, `NAME=value` each.
    pub env: Vec<String>,
}

/// Names of the images there are recipes for.
pub fn names() -> Vec<String> {
    let mut names: Vec<String> = RECIPES
        .dirs()
        .filter(|d| RECIPES.get_file(d.path().join("recipe.sh")).is_some())
        .map(|d| d.path().display().to_string())
        .collect();
    names.sort();
    names
}

/// A digest of all that recipes are made of: a cached image is as good as a new one while it is the same.
pub fn recipes_digest() -> String {
    let mut hasher = blake3::Hasher::new();
    hash_dir(&RECIPES, &mut hasher);
    hasher.finalize().to_hex()[..16].to_owned()
}

/// A digest of what one recipe is made of: its own files, and the common ones.
fn recipe_digest(name: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    for dir in [name, "common"].iter().filter_map(|d| RECIPES.get_dir(d)) {
        hash_dir(dir, &mut hasher);
    }
    hasher.finalize().to_hex()[..16].to_owned()
}

fn hash_dir(dir: &Dir<'_>, hasher: &mut blake3::Hasher) {
    for file in dir.files() {
        hasher.update(file.path().as_os_str().as_encoded_bytes());
        hasher.update(&(file.contents().len() as u64).to_le_bytes());
        hasher.update(file.contents());
    }
    dir.dirs().for_each(|d| hash_dir(d, hasher));
}

/// Runs the recipe of an image; the directory holds `rootfs.tar` and `config.json` when it returns.
///
/// # Errors
/// No such recipe, or the recipe failed (it has said why on standard error).
pub fn run_recipe(config: &Config, name: &str) -> Result<tempfile::TempDir> {
    let known = names();
    if !known.iter().any(|k| k == name) {
        bail!("there is no recipe for '{name}'; there are: {}", known.join(", "));
    }
    // Not below the state directory: it is 0700, and package scripts of a recipe run as other users.
    let base = Path::new("/var/tmp");
    let out = tempfile::Builder::new()
        .prefix("walt-recipe-")
        .tempdir_in(base)
        .context("cannot make a directory")?;
    let recipes = out.path().join("recipes");
    unpack(&RECIPES, &recipes)?;
    let result = out.path().join("out");
    std::fs::create_dir(&result)?;
    let cache = config.state_dir.join("cache/recipes");
    std::fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    let status = Command::new("sh")
        .arg(recipes.join(name).join("recipe.sh"))
        .arg(&result)
        .env("WALT_IMAGES_DIR", &recipes)
        .env("WALT_CACHE", &cache)
        .stdout(std::io::stderr())
        .status()
        .context("cannot run sh")?;
    if !status.success() {
        bail!("the recipe of '{name}' failed ({status}); its messages are above");
    }
    for file in ["rootfs.tar", "config.json"] {
        if !result.join(file).exists() {
            bail!("the recipe of '{name}' made no {file}");
        }
    }
    Ok(out)
}

/// Where the results are in a recipe's directory.
pub fn results(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("out")
}

fn unpack(dir: &Dir<'_>, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for file in dir.files() {
        let name = file.path().file_name().context("an embedded file without name")?;
        let path = to.join(name);
        std::fs::write(&path, file.contents()).with_context(|| format!("cannot write {}", path.display()))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    }
    for sub in dir.dirs() {
        let name = sub.path().file_name().context("an embedded directory without name")?;
        unpack(sub, &to.join(name))?;
    }
    Ok(())
}

/// Whether a default image was made here by an older recipe than this program's.
///
/// # Errors
/// The store cannot be read.
pub fn recipe_is_newer(app: &App, row: &RefRow) -> Result<bool> {
    if !names().contains(&row.reference.image().name().to_owned()) {
        return Ok(false);
    }
    let history = app.store.config(&row.image_id)?.history.unwrap_or_default();
    let made_by =
        history.iter().filter_map(|h| h.comment.as_deref()?.strip_prefix(RECIPE_COMMENT)).next_back();
    Ok(made_by.is_some_and(|digest| digest != recipe_digest(row.reference.image().name())))
}

/// Imports what a recipe made as `waltplatform/<name>:latest`.
///
/// # Errors
/// The files are missing or wrong, or the store failed; nothing is changed then.
pub fn import(app: &App, name: &str, dir: &Path) -> Result<ImageId> {
    let name: ImageName = name.parse()?;
    let text = std::fs::read_to_string(dir.join("config.json"))
        .with_context(|| format!("cannot read config.json in {}", dir.display()))?;
    let recipe: RecipeConfig = serde_json::from_str(&text).context("config.json is wrong")?;
    if !recipe.labels.contains_key(LABEL_MODELS) {
        bail!("config.json has no label {LABEL_MODELS}: it would not be an image for nodes");
    }
    let tar = File::open(dir.join("rootfs.tar")).context("cannot open rootfs.tar")?;
    let layer = app.store.import_tar(tar).context("cannot import rootfs.tar")?;
    fail::point("import-layer");
    let created = crate::now() as i64;
    let mut config = ImageConfig {
        created: Some(crate::rfc3339(created)),
        architecture: "amd64".into(),
        os: "linux".into(),
        config: Some(RunConfig {
            env: Some(recipe.env),
            labels: Some(recipe.labels),
            ..RunConfig::default()
        }),
        ..ImageConfig::default()
    };
    let history = History {
        created: config.created.clone(),
        created_by: Some(format!("walt-server default-image build {name}")),
        comment: Some(format!("{RECIPE_COMMENT}{}", recipe_digest(name.name()))),
        ..History::default()
    };
    config.push_layer(&layer.diff_id, history);
    let image_id = app.store.put_config(&config)?;
    fail::point("import-config");
    let row = RefRow { reference: ImageRef::platform(name), image_id, created };
    let by = By::new(PLATFORM_USER, format!("walt-server default-image build {}", row.reference.image()));
    app.db.transaction(|tx| row.put(tx, &by))?;
    Ok(image_id)
}
