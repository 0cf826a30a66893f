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
    collections::{BTreeMap, BTreeSet},
    fs::File,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};
use walt_core::default_image_of;
use walt_images::{
    History, ImageConfig, RunConfig,
    emulation::{self, Emulation},
};
use walt_types::{ImageId, ImageName, ImageRef, Model, PLATFORM_USER};

/// Begins the comment in an image's history that names the recipe it was made by, by its digest.
const RECIPE_COMMENT: &str = "recipe ";

/// All recipes, as `images/` of the source tree.
static RECIPES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../images");

/// What a recipe says about the image it made: `config.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
pub struct RecipeConfig {
    /// CPU of the image's programs, in Go's names; `amd64` if it says nothing.
    pub architecture: String,
    /// Generation of that CPU (`v7` of `arm`).
    pub variant: Option<String>,
    /// Models whose default image it is, besides the one in its name (`<model>-default`): each gets a reference.
    /// Two recipes do not name the same model here, though both may be made for it.
    pub default_of: BTreeSet<Model>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Environment, `NAME=value` each.
    pub env: Vec<String>,
}

impl Default for RecipeConfig {
    fn default() -> Self {
        Self {
            architecture: "amd64".into(),
            variant: None,
            default_of: BTreeSet::new(),
            labels: BTreeMap::new(),
            env: Vec::new(),
        }
    }
}

impl RecipeConfig {
    fn parse(text: &[u8]) -> Result<Self> {
        let config: Self = serde_json::from_slice(text).context("config.json is wrong")?;
        let Some(models) = config.labels.get(LABEL_MODELS) else {
            bail!("config.json has no label {LABEL_MODELS}: it would not be an image for nodes");
        };
        let made_for = |model: &Model| models.split(',').any(|m| m.trim() == model.as_str());
        if let Some(other) = config.default_of.iter().find(|model| !made_for(model)) {
            bail!("config.json has {other} in DefaultOf, and not in the label {LABEL_MODELS}");
        }
        Ok(config)
    }
}

/// What the embedded recipe of an image says about it.
///
/// # Errors
/// No such recipe.
pub fn recipe_config(name: &str) -> Result<RecipeConfig> {
    let known = || names().join(", ");
    let found = RECIPES.get_file(Path::new(name).join("config.json"));
    let file = found.with_context(|| format!("there is no recipe for '{name}'; there are: {}", known()))?;
    RecipeConfig::parse(file.contents()).with_context(|| format!("the recipe of '{name}'"))
}

/// The recipe that makes the default image of this name; `None`: there is none.
pub fn recipe_of(image: &ImageName) -> Option<String> {
    let wanted = image.to_string();
    let names = names();
    let makes = |name: &String| {
        *name == wanted
            || recipe_config(name).is_ok_and(|config| {
                let named = |model: &Model| default_image_of(model).image().to_string() == wanted;
                config.default_of.iter().any(named)
            })
    };
    names.into_iter().find(makes)
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

/// Who registers emulators for recipes: this and the number of a process.
const RECIPE_OWNER: &str = "walt-recipe-";
/// What a recipe makes.
const RESULTS: [&str; 2] = ["rootfs.tar", "config.json"];
/// What all recipes share.
const COMMON: &str = "common";

/// A digest of all that a recipe is made of (of all recipes, without a name): a cached image is as good as a new one
/// while it is the same.
///
/// # Errors
/// No such recipe.
pub fn recipes_digest(name: Option<&str>) -> Result<String> {
    if let Some(name) = name {
        recipe_config(name)?;
        return Ok(recipe_digest(name));
    }
    let mut hasher = blake3::Hasher::new();
    hash_dir(&RECIPES, &mut hasher);
    Ok(hasher.finalize().to_hex()[..16].to_owned())
}

/// A digest of what one recipe is made of: its own files, and the common ones.
fn recipe_digest(name: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    for dir in [name, COMMON].iter().filter_map(|d| RECIPES.get_dir(d)) {
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

/// Makes programs of the recipe's CPU run, until it is dropped.
struct Emulator {
    owner: String,
    _kept: Emulation,
}

impl Emulator {
    /// `None`: this machine runs them itself.
    fn of(name: &str, architecture: &str) -> Result<Option<Self>> {
        let Some(cpu) = emulation::foreign(architecture)? else { return Ok(None) };
        // What a recipe that was killed has left: one that ended by ctrl-C, for example.
        emulation::remove_of_ended(RECIPE_OWNER)?;
        let owner = format!("{RECIPE_OWNER}{}", std::process::id());
        let kept = emulation::ensure(cpu, &owner)
            .with_context(|| format!("'{name}' is for another CPU than this machine's"))?;
        Ok(Some(Self { owner, _kept: kept }))
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        if let Err(e) = emulation::remove(&self.owner) {
            eprintln!("Note: {e}");
        }
    }
}

/// Runs the recipe of an image; the directory holds `rootfs.tar` and `config.json` when it returns.
///
/// # Errors
/// No such recipe, no emulator for its CPU, or the recipe failed (it has said why on standard error).
pub fn run_recipe(config: &Config, name: &str) -> Result<tempfile::TempDir> {
    let cache = config.state_dir.join("cache/recipes");
    run_recipe_with(&cache, name)
}

/// As [`run_recipe`], with a cache of downloads that is named.
fn run_recipe_with(cache: &Path, name: &str) -> Result<tempfile::TempDir> {
    let _emulator = Emulator::of(name, &recipe_config(name)?.architecture)?;
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
    std::fs::create_dir_all(cache).with_context(|| format!("cannot make {}", cache.display()))?;
    let status = Command::new("sh")
        .arg(recipes.join(name).join("recipe.sh"))
        .arg(&result)
        .env("WALT_IMAGES_DIR", &recipes)
        .env("WALT_CACHE", cache)
        .stdout(std::io::stderr())
        .status()
        .context("cannot run sh")?;
    if !status.success() {
        bail!("the recipe of '{name}' failed ({status}); its messages are above");
    }
    for file in RESULTS {
        if !result.join(file).exists() {
            bail!("the recipe of '{name}' made no {file}");
        }
    }
    Ok(out)
}

/// Runs a recipe and copies its results to a directory; `cache` keeps downloads.
///
/// # Errors
/// As [`run_recipe`], or the results cannot be copied.
pub fn make(name: &str, to: &Path, cache: &Path) -> Result<()> {
    let made = run_recipe_with(cache, name)?;
    for file in RESULTS {
        let (from, to) = (results(&made).join(file), to.join(file));
        std::fs::copy(&from, &to)
            .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    }
    Ok(())
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

/// Imports what a recipe made as `waltplatform/<name>:latest`, and as default image of the models that it names.
///
/// # Errors
/// The files are missing or wrong, or the store failed; nothing is changed then.
pub fn import(app: &App, name: &str, dir: &Path) -> Result<ImageId> {
    let name: ImageName = name.parse()?;
    let text = std::fs::read(dir.join("config.json"))
        .with_context(|| format!("cannot read config.json in {}", dir.display()))?;
    let recipe = RecipeConfig::parse(&text)?;
    let tar = File::open(dir.join("rootfs.tar")).context("cannot open rootfs.tar")?;
    let layer = app.store.import_tar(tar).context("cannot import rootfs.tar")?;
    fail::point("import-layer");
    let created = crate::now() as i64;
    let mut config = ImageConfig {
        created: Some(crate::rfc3339(created)),
        architecture: recipe.architecture,
        os: "linux".into(),
        config: Some(RunConfig {
            env: Some(recipe.env),
            labels: Some(recipe.labels),
            ..RunConfig::default()
        }),
        ..ImageConfig::default()
    };
    config.other.extend(recipe.variant.map(|v| ("variant".to_owned(), v.into())));
    let history = History {
        created: config.created.clone(),
        created_by: Some(format!("walt-server default-image build {name}")),
        comment: Some(format!("{RECIPE_COMMENT}{}", recipe_digest(name.name()))),
        ..History::default()
    };
    config.push_layer(&layer.diff_id, history);
    let image_id = app.store.put_config(&config)?;
    fail::point("import-config");
    let by = By::new(PLATFORM_USER, format!("walt-server default-image build {name}"));
    let own = ImageRef::platform(name);
    let mut references: BTreeSet<ImageRef> = recipe.default_of.iter().map(default_image_of).collect();
    references.insert(own);
    app.db.transaction(|tx| {
        let put = |reference| RefRow { reference, image_id, created }.put(tx, &by);
        references.into_iter().try_for_each(put)
    })?;
    Ok(image_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipes_are_whole() {
        let mut default: BTreeMap<String, String> = BTreeMap::new();
        for name in names() {
            let config = recipe_config(&name).unwrap();
            assert!(emulation::foreign(&config.architecture).is_ok(), "{name}: {}", config.architecture);
            assert!(config.labels.contains_key(super::super::LABEL_PREFERRED_NAME), "{name}");
            for model in &config.default_of {
                let other = default.insert(model.to_string(), name.clone());
                assert_eq!(other, None, "{model} has two default images: {name}");
            }
        }
        let made_by = |image: &str| recipe_of(&image.parse().unwrap());
        assert_eq!(made_by("rpi-4-b-default").as_deref(), Some("rpi64-default"));
        assert_eq!(made_by("rpi-2-b-default").as_deref(), Some("rpi32-default"));
        assert_eq!(made_by("pc-x86-64-default").as_deref(), Some("pc-x86-64-default"));
        assert_eq!(made_by("toaster-default"), None);
    }

    #[test]
    fn digests_are_of_one_recipe() {
        let digests: BTreeSet<String> = names().iter().map(|n| recipes_digest(Some(n)).unwrap()).collect();
        assert_eq!(digests.len(), names().len());
        assert!(recipes_digest(Some("common")).is_err(), "that is no recipe");
        assert!(recipes_digest(None).is_ok());
    }

    #[test]
    fn what_a_recipe_may_say() {
        let of = |text: &str| RecipeConfig::parse(text.as_bytes()).map_err(|e| format!("{e:#}"));
        let labels = r#""Labels": {"walt.node.models": "rpi-4-b, rpi-400"}"#;
        assert_eq!(of(&format!("{{{labels}}}")).unwrap().architecture, "amd64");
        let rpi = of(&format!(r#"{{{labels}, "Architecture": "arm64", "DefaultOf": ["rpi-400"]}}"#)).unwrap();
        assert_eq!((rpi.architecture.as_str(), rpi.default_of.len()), ("arm64", 1));
        let other = of(&format!(r#"{{{labels}, "DefaultOf": ["rpi-5-b"]}}"#)).unwrap_err();
        assert!(other.contains("rpi-5-b in DefaultOf"), "{other}");
        assert!(of(r#"{"Labels": {}}"#).unwrap_err().contains("walt.node.models"));
        assert!(of(&format!("{{{labels}, \"Cmd\": []}}")).is_err());
    }
}
