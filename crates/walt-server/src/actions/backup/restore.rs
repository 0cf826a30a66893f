//! `walt-server restore`: the reverse of a backup, into an empty state.

use super::{
    addresses,
    ground::Ground,
    manifest::{FileEntry, Images, MANIFEST_MAX, Manifest, NAME, is_inside},
    open, reading,
    sink::read_manifest,
};
use crate::{
    base::{config::Config, db, fail_points, files::make_dir, formats::RELEASE, state_lock::StateLock},
    services::images::default_image,
};
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use rusqlite::Connection;
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, BufReader, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};
use walt_images::Store;
use walt_tar::{
    BLOCK, Type,
    local::{Target, Watch, unpack},
    read_header,
};
use walt_types::{DiffId, Hash256, ImageRef};

/// Where a tar is unpacked, in the state directory.
const STAGE: &str = "stage";
/// The configuration of the server that made the backup, in the state directory.
const CONFIG: &str = "server.conf.of-backup";
/// The database until it is whole.
const DATABASE_PART: &str = "walt.sqlite.part";
/// Bytes that are read at once.
const BUFFER: usize = 1 << 18;
/// Most names of images that are listed.
const LISTED_MAX: usize = 50;

/// `walt-server restore`
#[derive(Debug, Args)]
pub struct Restore {
    /// The directory of a backup, or - for its tar on standard input
    #[arg(value_name = "DIR|-")]
    from: PathBuf,
    /// Restore into this state directory instead of that of the configuration
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Move a state that is there aside
    #[arg(long)]
    force: bool,
}

impl Restore {
    /// Restores the backup. `file` is the configuration file in use.
    ///
    /// # Errors
    /// The backup is not whole, damaged or of a newer server, a server runs, or there is a state already: nothing was changed
    /// then. Otherwise the state stays marked, and no server starts on it.
    pub fn run(self, mut config: Config, file: &Path) -> Result<()> {
        if let Some(dir) = &self.state_dir {
            config.state_dir.clone_from(dir);
        }
        let stream = self.from.as_os_str() == OsStr::new("-");
        // What can be refused is refused before anything is changed.
        let manifest = if stream { None } else { Some(whole(&self.from)?) };
        let state = config.state_dir.clone();
        let lock = StateLock::take(&state)?;
        let ground = Ground::prepare(&state, self.force, &lock)?;
        let (from, manifest) = match manifest {
            Some(manifest) => (self.from.clone(), manifest),
            None => {
                let stage = state.join(STAGE);
                make_dir(&stage, 0o700)?;
                receive(&mut io::stdin().lock(), &stage)?;
                let manifest = whole(&stage)?;
                (stage, manifest)
            }
        };
        let source = Source { dir: from, manifest, takes: stream };
        let store = Store::open(&state).context("cannot use the image store")?;
        source.small_files(&state)?;
        source.images(&store)?;
        fail_points::point("state-images");
        source.persist(&state)?;
        let moved = source.database(&config)?;
        fail_points::point("state-database");
        if stream {
            fs::remove_dir_all(&source.dir)
                .with_context(|| format!("cannot remove {}", source.dir.display()))?;
        }
        let replaced = ground.finish()?;
        source.report(&config, &store, file, replaced.as_deref(), &moved)
    }
}

/// The manifest of a whole backup.
fn whole(dir: &Path) -> Result<Manifest> {
    read_manifest(dir)?.ok_or_else(|| {
        anyhow!(
            "{} has no {NAME}: it is not a backup, or one that was interrupted; nothing can be restored from it",
            dir.display()
        )
    })
}

/// Unpacks a tar of a backup.
fn receive(input: &mut dyn Read, stage: &Path) -> Result<()> {
    let mut input = BufReader::with_capacity(BUFFER, input);
    let mut raw = Vec::new();
    let cut = || "the tar of the backup is cut off or damaged";
    while let Some(header) = read_header(&mut input, &mut raw).with_context(cut)? {
        raw.clear();
        let path = String::from_utf8(header.path).context("a path in the tar of the backup is not text")?;
        if header.kind != Type::File || !is_inside(&path) {
            bail!("the tar has '{}', which is not a file of a backup", path.escape_debug());
        }
        if path == NAME && header.size > MANIFEST_MAX {
            bail!("the manifest of the backup is too large");
        }
        let target = stage.join(&path);
        let mut file = create(&target)?;
        let size = header.size;
        let copied = io::copy(&mut (&mut input).take(size), &mut file)
            .with_context(|| format!("cannot write {}", target.display()))?;
        let padding = size.next_multiple_of(BLOCK as u64) - size;
        if copied != size || io::copy(&mut (&mut input).take(padding), &mut io::sink())? != padding {
            bail!("{}", cut());
        }
    }
    Ok(())
}

/// Makes a file that only root can read, and the directories above it.
fn create(path: &Path) -> Result<File> {
    let failed = || format!("cannot make {}", path.display());
    if let Some(dir) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).with_context(failed)?;
    }
    OpenOptions::new().create_new(true).write(true).mode(0o600).open(path).with_context(failed)
}

/// A backup that is restored.
struct Source {
    dir: PathBuf,
    manifest: Manifest,
    /// Files are removed when they have been used: they are a copy of our own.
    takes: bool,
}

/// Digests what is read.
struct Checked<R> {
    from: R,
    hash: blake3::Hasher,
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.from.read(buffer)?;
        self.hash.update(&buffer[..n]);
        Ok(n)
    }
}

impl Source {
    /// Hands the bytes of a file to `read`, and compares them with the digest in the manifest.
    fn with<T>(&self, file: &FileEntry, read: impl FnOnce(&mut (dyn Read + Send)) -> Result<T>) -> Result<T> {
        let path = self.dir.join(&file.path);
        let opened = open(&path)?;
        let from = BufReader::with_capacity(BUFFER, opened.take(file.size));
        let mut checked = Checked { from, hash: blake3::Hasher::new() };
        let value = read(&mut checked);
        io::copy(&mut checked, &mut io::sink()).with_context(reading(&path))?;
        if checked.hash.finalize().to_hex().as_str() != file.blake3 {
            bail!(
                "{} of the backup is damaged: it does not have the digest that the manifest says",
                path.display()
            );
        }
        let value = value?;
        if self.takes {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
        Ok(value)
    }

    fn copy(&self, file: &FileEntry, to: &Path) -> Result<()> {
        let mut target = create(to)?;
        self.with(file, |from| {
            io::copy(from, &mut target).map(drop).with_context(|| format!("cannot write {}", to.display()))
        })
    }

    /// Keys, log lines, and the configuration.
    fn small_files(&self, state: &Path) -> Result<()> {
        for (name, file) in self.manifest.below(&self.manifest.place) {
            if name == "server.conf" {
                self.copy(file, &state.join(CONFIG))?;
            } else if name != db::FILE && !name.starts_with("persist/") {
                self.copy(file, &state.join(name))?;
            }
        }
        Ok(())
    }

    fn images(&self, store: &Store) -> Result<()> {
        let mut layers: BTreeMap<DiffId, &FileEntry> = BTreeMap::new();
        for (name, file) in self.manifest.below("images/layers") {
            let id = name.strip_suffix(".tar").and_then(|id| id.parse().ok());
            layers.insert(id.with_context(|| format!("{} is not a layer", file.path))?, file);
        }
        for (name, file) in self.manifest.below("images/blobs") {
            let wanted: Hash256 = name.parse().map_err(|_| anyhow!("{} is not a blob", file.path))?;
            let mut blob = store.new_blob()?;
            self.with(file, |from| {
                let mut buffer = vec![0; BUFFER];
                loop {
                    match from.read(&mut buffer)? {
                        0 => return Ok(()),
                        n => blob.write(&buffer[..n])?,
                    }
                }
            })?;
            if blob.digest() != wanted {
                bail!(
                    "{} of the backup is damaged: it does not have the digest that its name says",
                    file.path
                );
            }
            store.keep_blob(&blob)?;
        }
        for (_, file) in self.manifest.below("images/configs") {
            let mut bytes = Vec::new();
            self.with(file, |from| Ok(from.read_to_end(&mut bytes).map(drop)?))?;
            let of_image = walt_images::ImageConfig::parse(&bytes)?.layers()?;
            // A layer is of use if all below it are there: others may be in the backup, or an image by digest has none.
            let have = of_image.iter().take_while(|l| store.has_layer(l) || layers.contains_key(l)).count();
            let mut unpacked: Vec<walt_images::Unpacked> = Vec::new();
            for layer in &of_image[..have] {
                // Another image may have brought it, and one image may have it twice.
                let known = |one: &walt_images::Unpacked| one.info().diff_id == *layer;
                let new = !store.has_layer(layer) && !unpacked.iter().any(known);
                let Some(file) = layers.get(layer).filter(|_| new) else { continue };
                unpacked.push(self.with(file, |from| {
                    store.unpack_layer(from, layer).with_context(|| format!("cannot restore layer {layer}"))
                })?);
            }
            store.keep_layers(unpacked, &of_image)?;
            store.put_config_alone(&bytes)?;
        }
        Ok(())
    }

    fn persist(&self, state: &Path) -> Result<()> {
        let dir = format!("{}/persist", self.manifest.place);
        let mut parts: Vec<&FileEntry> = self.manifest.below(&dir).map(|(_, file)| file).collect();
        if parts.is_empty() {
            return Ok(());
        }
        parts.sort_by(|a, b| a.path.cmp(&b.path));
        // Verified first: what is unpacked cannot be taken back file by file.
        for part in &parts {
            let keeps = Self { dir: self.dir.clone(), manifest: self.manifest.clone(), takes: false };
            keeps.with(part, |_| Ok(()))?;
        }
        let mut stream: Box<dyn Read> = Box::new(io::empty());
        for part in &parts {
            stream = Box::new(stream.chain(open(&self.dir.join(&part.path))?));
        }
        let mut notes = Vec::new();
        let mut note = |text: String| notes.push(text);
        let target = Target { dir: state, name: None, top: b"" };
        unpack(&mut stream, &target, &mut Watch { progress: &mut |_| {}, note: &mut note })
            .context("cannot restore /persist of the nodes")?;
        notes.iter().for_each(|note| eprintln!("Note: {note}"));
        Ok(())
    }

    /// The database, with addresses that fit the configuration; sentences about those.
    fn database(&self, config: &Config) -> Result<Vec<String>> {
        let wanted = format!("{}/{}", self.manifest.place, db::FILE);
        let file = self.manifest.files.iter().find(|file| file.path == wanted);
        let part = config.state_dir.join(DATABASE_PART);
        self.copy(file.context("the backup has no database")?, &part)?;
        let mut connection = Connection::open(&part)?;
        connection.pragma_update(None, "foreign_keys", true)?;
        let said = addresses::fit(&mut connection, config.network.walt_net.ip)?;
        connection.close().map_err(|(_, e)| e)?;
        File::open(&part).and_then(|f| f.sync_all()).context("cannot write the database")?;
        fs::rename(&part, config.state_dir.join(db::FILE)).context("cannot write the database")?;
        Ok(said)
    }

    fn report(
        &self,
        config: &Config,
        store: &Store,
        file: &Path,
        replaced: Option<&Path>,
        moved: &[String],
    ) -> Result<()> {
        let Manifest { made, host, state, .. } = &self.manifest;
        let dir = &config.state_dir;
        println!(
            "Restored the backup of {host} of {made} (walt-server {}) into {}, by walt-server {RELEASE}.",
            state.release,
            dir.display()
        );
        if let Some(replaced) = replaced {
            println!(
                "What was there before is in {}: remove it when you do not need it.",
                replaced.display()
            );
        }
        moved.iter().for_each(|what| println!("Changed: {what}."));
        self.manifest.left_out.iter().for_each(|what| println!("Not in the backup: {what}."));
        if !self.manifest.persist {
            println!("Not in the backup: /persist of the nodes.");
        }
        self.missing(store)?;
        let theirs = dir.join(CONFIG);
        if theirs.exists() && fs::read(&theirs).ok() != fs::read(file).ok() {
            println!(
                "The configuration of that server is in {}; this one uses {}: compare them.",
                theirs.display(),
                file.display()
            );
        }
        println!("Start the server, then reboot the nodes that were running.");
        io::stdout().flush().map_err(Into::into)
    }

    /// Says which images are here by name only, and how to get them.
    fn missing(&self, store: &Store) -> Result<()> {
        let mut missing = BTreeMap::new();
        for reference in &self.manifest.references {
            let layers = reference.layers.iter().map(|id| id.parse::<DiffId>());
            let layers: BTreeSet<DiffId> =
                layers.collect::<Result<_, _>>().map_err(|_| anyhow!("the manifest is damaged"))?;
            if layers.iter().any(|layer| !store.has_layer(layer)) {
                missing.insert(&reference.name, reference);
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let why = match self.manifest.images {
            Images::Digests => "the backup has their digests only",
            Images::Included => "they were damaged when the backup was made",
        };
        println!(
            "{} name(s) of images have no layers here, since {why}. Get them before nodes boot:",
            missing.len()
        );
        for (name, reference) in missing.iter().take(LISTED_MAX) {
            let parsed = name.parse::<ImageRef>().ok().filter(ImageRef::is_platform);
            let recipe = parsed.and_then(|r| default_image::recipe_of(r.image()));
            let how = match (recipe, &reference.made_by) {
                (Some(recipe), _) => format!("walt-server default-image build {recipe}"),
                (None, Some(command)) => format!("made by: {command}"),
                (None, None) => "walt image clone --force …".to_owned(),
            };
            println!("  {name}  sha256:{}  {how}", reference.image_id);
        }
        if missing.len() > LISTED_MAX {
            println!("  and {} more: see {NAME} of the backup", missing.len() - LISTED_MAX);
        }
        println!(
            "'walt image clone' and 'walt image build' take layers from registries as long as they are there."
        );
        Ok(())
    }
}
