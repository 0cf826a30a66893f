//! Default images: the embedded recipes, and the import of their results. [`crate::services::images::recipe`] runs
//! them.
//!
//! `walt-server default-image build NAME` runs a recipe in that command, as root, and imports the result through a
//! running server, else under the lock of the state. `walt advanced update-default-images` runs, in the server, the
//! recipes that are newer than the images made here.

use crate::{
    base::{
        db::{By, Db, HistoryRow, RefRow},
        fail_points, time,
    },
    services::images::{Images, LABEL_MODELS, recipe},
};
use anyhow::{Context, Result, bail};
use include_dir::{Dir, include_dir};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    path::Path,
};
use walt_core::default_image_of;
use walt_images::{History, ImageConfig, RunConfig, Store};
use walt_types::{DEFAULT_TAG, ImageId, ImageName, ImageRef, Model, PLATFORM_USER};

/// Prefix of the comment in an image's history with the digest of its recipe.
const RECIPE_COMMENT: &str = "recipe ";
/// The build command, in histories.
const BUILD_COMMAND: &str = "walt-server default-image build";
/// The update command, in histories, when it has run a recipe.
pub const UPDATE_COMMAND: &str = "walt advanced update-default-images (recipe)";
/// The command that makes an image the default one of its models, in histories.
const USE_COMMAND: &str = "walt-server default-image use";
/// End of the names of default images.
const DEFAULT_SUFFIX: &str = "-default";

/// All recipes, as `images/` of the source tree.
pub(super) static RECIPES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../images");

/// The description of an image by its recipe: `config.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
pub struct RecipeConfig {
    /// CPU of the image's programs, in Go's names; `amd64` by default.
    pub architecture: String,
    /// Generation of that CPU (`v7` of `arm`).
    pub variant: Option<String>,
    /// Models whose default image it is, in addition to the one in its name (`<model>-default`): each gets a
    /// reference. A model may be listed here by one recipe only, even if several are compatible with it.
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
        let config: Self = serde_json::from_slice(text).context("config.json is invalid")?;
        let Some(models) = config.labels.get(LABEL_MODELS) else {
            bail!("config.json lacks the label {LABEL_MODELS}, which an image for nodes needs");
        };
        let made_for = |model: &Model| models.split(',').any(|m| m.trim() == model.as_str());
        if let Some(other) = config.default_of.iter().find(|model| !made_for(model)) {
            bail!("config.json has {other} in DefaultOf, but not in the label {LABEL_MODELS}");
        }
        Ok(config)
    }
}

/// The description of an image by its embedded recipe.
///
/// # Errors
/// No such recipe.
pub fn recipe_config(name: &str) -> Result<RecipeConfig> {
    let known = || names().join(", ");
    let found = RECIPES.get_file(Path::new(name).join("config.json"));
    let file = found.with_context(|| format!("no recipe for '{name}'; the recipes are: {}", known()))?;
    RecipeConfig::parse(file.contents()).with_context(|| format!("the recipe of '{name}'"))
}

/// What a recipe makes, in a few words for who chooses one; empty for one that needs none.
pub fn about(name: &str) -> &'static str {
    match name {
        "pc-x86-64-default" => "Debian with systemd: some minutes, 1 GB",
        "pc-x86-64-mini" => "busybox and ssh: a minute, 40 MB; needs a C compiler",
        _ => "",
    }
}

/// The programs that a recipe calls, each with its Debian package: what its lines `need PROGRAM=PACKAGE …` say, and
/// those of the common files that it reads.
///
/// # Errors
/// No such recipe.
pub fn programs(name: &str) -> Result<Vec<(String, String)>> {
    recipe_config(name)?;
    let text = |path: &Path| RECIPES.get_file(path).and_then(|f| f.contents_utf8()).unwrap_or_default();
    let recipe = text(&Path::new(name).join("recipe.sh"));
    let common = recipe.lines().filter_map(|l| l.strip_prefix(". \"$WALT_IMAGES_DIR/")?.strip_suffix('"'));
    let mut all = Vec::new();
    for file in std::iter::once(recipe).chain(common.map(|path| text(Path::new(path)))) {
        let joined = file.replace("\\\n", " ");
        let words = joined
            .lines()
            .filter_map(|l| l.trim_start().strip_prefix("need "))
            .flat_map(str::split_whitespace);
        let pairs = words.filter_map(|word| word.split_once('='));
        all.extend(pairs.map(|(program, package)| (program.to_owned(), package.to_owned())));
    }
    all.sort();
    all.dedup();
    Ok(all)
}

/// The recipe that makes the default image of this name, if there is one.
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

/// Names of the images that have recipes.
pub fn names() -> Vec<String> {
    let mut names: Vec<String> = RECIPES
        .dirs()
        .filter(|d| RECIPES.get_file(d.path().join("recipe.sh")).is_some())
        .map(|d| d.path().display().to_string())
        .collect();
    names.sort();
    names
}

/// Directory with the files that all recipes share.
const COMMON: &str = "common";

/// A digest of the files of one recipe, or without a name of all recipes. A cached image is up to date while the
/// digest stays the same.
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

/// A digest of the files of one recipe and of the common files.
pub fn recipe_digest(name: &str) -> String {
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

/// How an image relates to the recipe of its name in this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecipeStatus {
    /// The image was made by this recipe or without a recipe, or there is no recipe.
    Current,
    /// The image was made here, by an older recipe.
    Older,
    /// The image was made elsewhere, by another recipe, which may be older or newer.
    Foreign,
}

/// The recipe that made an image, and the digest of the recipe at that time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeBy {
    /// Name of the recipe.
    pub recipe: String,
    /// Its digest.
    pub digest: String,
}

/// Which recipe made an image; none if it was made in another way.
pub fn made_by(config: &ImageConfig) -> Option<MadeBy> {
    let entry = |h: &History| {
        let digest = h.comment.as_deref()?.strip_prefix(RECIPE_COMMENT)?.to_owned();
        let recipe = h.created_by.as_deref()?.strip_prefix(BUILD_COMMAND)?.trim().to_owned();
        Some(MadeBy { recipe, digest })
    };
    config.history.iter().flatten().filter_map(entry).next_back()
}

/// Whether the administrator made the image of another recipe the default one here ([`make_default`]): then neither
/// the recipe of its name nor a registry replaces it.
///
/// # Errors
/// The store cannot be read.
pub fn is_of_another_recipe(images: &Images, row: &RefRow) -> Result<bool> {
    let made_by = made_by(&images.store().config(&row.image_id)?);
    let own = row.reference.image();
    Ok(made_by.is_some_and(|m| m.recipe != own.name() && recipe_of(own).as_ref() != Some(&m.recipe)))
}

/// How a default image relates to the recipe of its name.
///
/// # Errors
/// The store or the database cannot be read.
pub fn recipe_status(images: &Images, row: &RefRow) -> Result<RecipeStatus> {
    let name = row.reference.image();
    if name.tag() != DEFAULT_TAG || !names().contains(&name.name().to_owned()) {
        return Ok(RecipeStatus::Current);
    }
    let made_by = made_by(&images.store().config(&row.image_id)?);
    if made_by.is_none_or(|m| m.recipe != name.name() || m.digest == recipe_digest(name.name())) {
        return Ok(RecipeStatus::Current);
    }
    let versions = images.db().with(|c| HistoryRow::of(c, &row.reference))?;
    let here = versions
        .first()
        // Versions from before the history have an empty command; at that time, there were no registries.
        .is_none_or(|v| {
            let made_here = [BUILD_COMMAND, UPDATE_COMMAND, USE_COMMAND];
            v.by.command.is_empty() || made_here.iter().any(|c| v.by.command.starts_with(c))
        });
    Ok(if here { RecipeStatus::Older } else { RecipeStatus::Foreign })
}

/// The references of the default images for which an image of this recipe is meant: those that its result gets anyway,
/// or for a recipe that is not the default of a model (`pc-x86-64-mini`), those of the models in its label.
///
/// # Errors
/// No such recipe.
pub fn default_references(name: &str) -> Result<BTreeSet<ImageRef>> {
    let recipe = recipe_config(name)?;
    if name.ends_with(DEFAULT_SUFFIX) {
        return references(name, &recipe);
    }
    let models = recipe.labels.get(LABEL_MODELS).map_or("", String::as_str).split(',');
    let models: BTreeSet<Model> = models.filter_map(|m| m.trim().parse().ok()).collect();
    Ok(models.iter().map(default_image_of).collect())
}

/// Makes the image of this recipe the default one of its models: their references point to it, and follow when it is
/// built again. Returns the references that have changed.
///
/// # Errors
/// The image was not built, or the database failed.
pub fn make_default(images: &Images, name: &str) -> Result<Vec<ImageRef>> {
    let wanted = default_references(name)?;
    let own = ImageRef::platform(name.parse()?);
    let is_its = |image: &ImageId| {
        Ok::<_, anyhow::Error>(made_by(&images.store().config(image)?).is_none_or(|m| m.recipe == name))
    };
    let (row, versions) = images.db().with(|c| Ok((RefRow::get(c, &own)?, HistoryRow::of(c, &own)?)))?;
    let mut found = None;
    // After the image of another recipe has taken its name, the history still has it.
    let earlier = versions.iter().map(|v| (v.image_id, v.since));
    for (image, created) in row.iter().map(|r| (r.image_id, r.created)).chain(earlier) {
        if is_its(&image).unwrap_or(false) {
            found = Some((image, created));
            break;
        }
    }
    let (image_id, created) = found.with_context(|| {
        format!("the image '{name}' is not here yet: 'walt-server default-image build {name}' makes it")
    })?;
    let by = By::new(PLATFORM_USER, format!("{USE_COMMAND} {name}"));
    images.db().transaction(|tx| {
        let mut changed = Vec::new();
        for reference in wanted {
            if RefRow::get(tx, &reference)?.is_some_and(|r| r.image_id == image_id) {
                continue;
            }
            RefRow { reference: reference.clone(), image_id, created }.put(tx, &by)?;
            changed.push(reference);
        }
        Ok(changed)
    })
}

/// What the default image of a model is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DefaultState {
    /// There is none.
    Missing,
    /// A recipe made it here.
    Recipe(MadeBy),
    /// It came from elsewhere.
    Foreign,
}

/// What a reference of the platform points to, in a state directory that a server may use meanwhile.
///
/// # Errors
/// The state cannot be read.
pub fn state_of(state_dir: &Path, reference: &ImageRef) -> Result<DefaultState> {
    if !state_dir.join("walt.sqlite").exists() {
        return Ok(DefaultState::Missing);
    }
    let row = Db::open_to_read(state_dir)?.with(|c| RefRow::get(c, reference))?;
    let Some(row) = row else { return Ok(DefaultState::Missing) };
    let config = Store::open_to_read(state_dir).config(&row.image_id)?;
    Ok(made_by(&config).map_or(DefaultState::Foreign, DefaultState::Recipe))
}

/// The result of a recipe, in the store.
#[derive(Debug)]
pub struct Stored {
    /// The image.
    pub image: ImageId,
    /// When it was stored, in seconds since the epoch.
    pub created: i64,
}

/// The references that a new image of the recipe `name` gets: its own, the default images of its models, and those
/// that point to an earlier image of this recipe by [`make_default`].
///
/// # Errors
/// A name is invalid, or the database or the store cannot be read.
pub fn references_here(images: &Images, name: &str, recipe: &RecipeConfig) -> Result<BTreeSet<ImageRef>> {
    let mut all = references(name, recipe)?;
    for row in images.db().with(RefRow::all)? {
        let image = row.reference.image();
        let may_follow = row.reference.is_platform()
            && image.tag() == DEFAULT_TAG
            && image.name().ends_with(DEFAULT_SUFFIX)
            && !all.contains(&row.reference);
        if may_follow && made_by(&images.store().config(&row.image_id)?).is_some_and(|m| m.recipe == name) {
            all.insert(row.reference);
        }
    }
    Ok(all)
}

/// All references of the recipe `name`: its own, and the default images of its models.
///
/// # Errors
/// A name is invalid.
pub fn references(name: &str, recipe: &RecipeConfig) -> Result<BTreeSet<ImageRef>> {
    let own = ImageRef::platform(name.parse()?);
    Ok(recipe.default_of.iter().map(default_image_of).chain([own]).collect())
}

/// Stores the result of a recipe; nothing refers to it yet.
///
/// # Errors
/// The files are missing or invalid, or the store failed.
pub fn store(images: &Images, name: &str, dir: &Path) -> Result<(Stored, RecipeConfig)> {
    let text = std::fs::read(dir.join("config.json"))
        .with_context(|| format!("cannot read config.json in {}", dir.display()))?;
    let recipe = RecipeConfig::parse(&text)?;
    let tar = File::open(dir.join("rootfs.tar")).context("cannot open rootfs.tar")?;
    let layer = images.store().import_tar(tar).context("cannot import rootfs.tar")?;
    fail_points::point("import-layer");
    let created = time::now() as i64;
    let mut config = ImageConfig {
        created: Some(time::rfc3339(created)),
        architecture: recipe.architecture.clone(),
        os: "linux".into(),
        config: Some(RunConfig {
            env: Some(recipe.env.clone()),
            labels: Some(recipe.labels.clone()),
            ..RunConfig::default()
        }),
        ..ImageConfig::default()
    };
    config.other.extend(recipe.variant.clone().map(|v| ("variant".to_owned(), v.into())));
    // The digest comes from the program that ran the recipe, which may be another one.
    let digest = match std::fs::read_to_string(dir.join(recipe::DIGEST)) {
        Ok(digest) => Some(format!("{RECIPE_COMMENT}{}", digest.trim())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => return Err(e).context("cannot read the digest of the recipe"),
    };
    let history = History {
        created: config.created.clone(),
        created_by: Some(format!("{BUILD_COMMAND} {name}")),
        comment: digest,
        ..History::default()
    };
    config.push_layer(&layer.diff_id, history);
    let image = images.store().put_config(&config)?;
    fail_points::point("import-config");
    Ok((Stored { image, created }, recipe))
}

/// Imports the result of a recipe as `waltplatform/<name>:latest`, and as the default image of its models.
///
/// # Errors
/// The files are missing or invalid, or the store failed; then nothing has changed.
pub fn import(images: &Images, name: &str, dir: &Path) -> Result<ImageId> {
    let (Stored { image, created }, recipe) = store(images, name, dir)?;
    let by = By::new(PLATFORM_USER, format!("{BUILD_COMMAND} {name}"));
    let references = references_here(images, name, &recipe)?;
    images.db().transaction(|tx| {
        let put = |reference| RefRow { reference, image_id: image, created }.put(tx, &by);
        references.into_iter().try_for_each(put)
    })?;
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipes_are_whole() {
        let mut default: BTreeMap<String, String> = BTreeMap::new();
        for name in names() {
            let config = recipe_config(&name).unwrap();
            assert!(
                walt_container::emulation::foreign(&config.architecture).is_ok(),
                "{name}: {}",
                config.architecture
            );
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
    fn of_which_models_an_image_can_be_the_default() {
        let of = |name: &str| {
            default_references(name).map(|all| all.iter().map(ImageRef::full).collect::<Vec<_>>())
        };
        assert_eq!(of("pc-x86-64-mini").unwrap(), ["waltplatform/pc-x86-64-default:latest"]);
        assert_eq!(of("pc-x86-64-default").unwrap(), ["waltplatform/pc-x86-64-default:latest"]);
        assert!(of("rpi64-default").unwrap().contains(&"waltplatform/rpi-4-b-default:latest".to_owned()));
        assert!(of("toaster").is_err());
    }

    #[test]
    fn what_recipes_call() {
        let has = |name: &str, program: &str, package: &str| {
            programs(name).unwrap().contains(&(program.to_owned(), package.to_owned()))
        };
        assert!(has("pc-x86-64-default", "mmdebstrap", "mmdebstrap"));
        assert!(has("pc-x86-64-mini", "busybox", "busybox-static"), "on a second line");
        assert!(has("pc-x86-64-mini", "gcc", "gcc") && !has("pc-x86-64-mini", "mmdebstrap", "mmdebstrap"));
        assert!(has("rpi64-default", "perl", "perl-base"), "in a common file");
        assert!(programs("toaster").is_err());
    }

    #[test]
    fn which_recipe_made_an_image() {
        let mut config = ImageConfig::default();
        assert_eq!(made_by(&config), None);
        let entry = |by: &str, comment: Option<&str>| History {
            created_by: Some(by.into()),
            comment: comment.map(str::to_owned),
            ..History::default()
        };
        let made = entry("walt-server default-image build pc-x86-64-mini", Some("recipe 0123"));
        config.history = Some(vec![made, entry("walt image shell", None)]);
        let expected = MadeBy { recipe: "pc-x86-64-mini".into(), digest: "0123".into() };
        assert_eq!(made_by(&config), Some(expected));
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
