//! Images go to registries and come back while the server is killed: to Debian's by `walt image publish`, and to the
//! server's own by skopeo.

use super::Scene;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use walt_testkit::kills::Random;
use walt_testkit::{OwnRegistry, User, images};

/// Publishes what the default image means, and gets it again from the registry, all the time. How often it came
/// back in one life of a server.
pub fn publish_all_the_time(scene: &Scene<'_>) -> u32 {
    const EVE: User = User::RootFor("eve");
    let attempt = |arguments: &[&str]| {
        let before = scene.wait_until_up();
        let ran = scene.server.walt_with_input(EVE, arguments, "");
        let ok = ran.status == Some(0);
        // Of what an earlier death has interrupted, nothing may be there.
        let absent =
            ran.err.contains("No such") || ran.err.contains("has no ") || ran.err.contains("is missing");
        let killed = scene.epoch.load(Ordering::SeqCst) != before;
        assert!(ok || killed || absent, "nobody was killed: {ran:?}");
        scene.done.fetch_add(u32::from(ok), Ordering::SeqCst);
        ok.then_some(ran.out)
    };
    let id = |name: &str| {
        let list: Value = serde_json::from_str(&attempt(&["image", "show", "--json"])?).unwrap();
        let full = format!("eve/{name}:latest");
        let found = list["images"].as_array().unwrap().iter().find(|i| i["fullname"] == full.as_str());
        Some(found?["id"].as_str().unwrap().to_owned())
    };
    let mut came_back = 0;
    while !scene.stop.load(Ordering::SeqCst) {
        let link = format!("walt:waltplatform/{}", images::TINY);
        let round = || {
            attempt(&["image", "clone", "--force", &link, "out"])?;
            let out = id("out")?;
            attempt(&["image", "publish", "out"])?;
            attempt(&["image", "remove", "out"])?;
            attempt(&["image", "clone", "--force", "lab:eve/out", "back"])?;
            Some((out, id("back")?))
        };
        if let Some((out, back)) = round() {
            assert_eq!(out, back, "another image came back");
            came_back += 1;
        }
    }
    came_back
}

/// Who pushes.
pub const DAN: User = User::RootFor("dan");
/// Seconds that skopeo may take.
const LIMIT: &str = "300";
/// Names that dan pushes to.
const NAMES: u64 = 3;

/// Images for skopeo's transport `dir:`, each with a layer of its own on one of few large ones.
struct Images {
    dir: PathBuf,
    /// Blob (gzip) and diff-id of each large layer.
    bases: Vec<(PathBuf, String)>,
    made: u32,
}

#[track_caller]
fn output(command: &mut Command) -> Vec<u8> {
    let ran = command.stdin(Stdio::null()).output().unwrap();
    assert!(ran.status.success(), "{command:?}: {}", String::from_utf8_lossy(&ran.stderr));
    ran.stdout
}

fn digest_of(path: &Path) -> String {
    String::from_utf8(output(Command::new("sha256sum").arg(path))[..64].to_vec()).unwrap()
}

/// Compresses a file; where the result is.
fn gzip(path: &Path) -> PathBuf {
    let packed = path.with_extension("gz");
    let run = Command::new("gzip").args(["-1nc"]).arg(path).stdout(File::create(&packed).unwrap()).status();
    assert!(run.unwrap().success());
    packed
}

impl Images {
    fn new(dir: PathBuf, variants: &[(PathBuf, String)]) -> Self {
        fs::create_dir(&dir).unwrap();
        let base = |(out, digest): &(PathBuf, String)| (gzip(&out.join("rootfs.tar")), digest.clone());
        Self { bases: variants.iter().map(base).collect(), dir, made: 0 }
    }

    /// A new image: its directory, and its id.
    fn make(&mut self, random: &mut Random) -> (PathBuf, String) {
        self.made += 1;
        let dir = self.dir.join(self.made.to_string());
        fs::create_dir(&dir).unwrap();
        let (token, tar) = (self.dir.join("token"), self.dir.join("token.tar"));
        fs::write(&token, format!("dan-{}\n", self.made)).unwrap();
        output(Command::new("tar").arg("-C").arg(&self.dir).arg("-cf").arg(&tar).arg("token"));
        let (base, base_id) = random.pick(&self.bases).unwrap();
        let mut layers = Vec::new();
        let add = |blob: &Path, kind: &str| {
            let digest = digest_of(blob);
            fs::copy(blob, dir.join(&digest)).unwrap();
            let size = fs::metadata(blob).unwrap().len();
            (json!({"mediaType": kind, "digest": format!("sha256:{digest}"), "size": size}), digest)
        };
        for blob in [&base, &gzip(&tar)] {
            layers.push(add(blob, "application/vnd.oci.image.layer.v1.tar+gzip").0);
        }
        let diff_ids = [&base_id, &digest_of(&tar)].map(|id| format!("sha256:{id}"));
        let config = json!({
            "architecture": "amd64", "os": "linux", "created": "2026-01-01T00:00:00Z",
            "config": {"Labels": {"walt.node.models": "pc-x86-64"}},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let path = self.dir.join("config.json");
        fs::write(&path, config.to_string()).unwrap();
        let (config, id) = add(&path, "application/vnd.oci.image.config.v1+json");
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config, "layers": layers,
        });
        fs::write(dir.join("manifest.json"), manifest.to_string()).unwrap();
        fs::write(dir.join("version"), "Directory Transport Version: 1.1\n").unwrap();
        (dir, format!("sha256:{id}"))
    }
}

/// Dan, who pushes images of another program's making.
pub struct Pusher<'a> {
    scene: &'a Scene<'a>,
    registry: &'a OwnRegistry,
    /// The login.
    auth: &'a Path,
    random: Random,
    images: Images,
    /// By name, what it may mean: ids, and the directories that were pushed. None for a name that may not be there.
    names: BTreeMap<String, BTreeMap<Option<String>, PathBuf>>,
    /// Pushes that were reported as done.
    pub pushed: u32,
    /// Those among them that had been cut off before.
    pub again: u32,
}

impl<'a> Pusher<'a> {
    pub fn new(
        scene: &'a Scene<'a>,
        (registry, auth): (&'a OwnRegistry, &'a Path),
        variants: &[(PathBuf, String)],
        random: Random,
    ) -> Self {
        let images = Images::new(scene.server.dir().join("pushes"), variants);
        let names = (0..NAMES).map(|n| (format!("p{n}"), BTreeMap::from([(None, PathBuf::new())]))).collect();
        Self { scene, registry, auth, random, images, names, pushed: 0, again: 0 }
    }

    /// Copies by skopeo; false if the server was killed meanwhile. Any other failure is one of the test.
    fn skopeo(&self, from: &str, to: &str) -> bool {
        let before = self.scene.wait_until_up();
        let mut command = Command::new("timeout");
        command.args([LIMIT, "skopeo", "copy", "-q", "--preserve-digests", "--src-tls-verify=false"]);
        command.args(["--dest-tls-verify=false", from, to]).env("REGISTRY_AUTH_FILE", self.auth);
        let ran = command.stdin(Stdio::null()).output().unwrap();
        if ran.status.success() {
            self.scene.done.fetch_add(1, Ordering::SeqCst);
            return true;
        }
        let said = String::from_utf8_lossy(&ran.stderr);
        assert_ne!(self.scene.epoch.load(Ordering::SeqCst), before, "nobody was killed: {said}");
        assert!(ran.status.code() == Some(1) && !said.is_empty(), "no clean error: {ran:?}");
        false
    }

    fn link(&self, name: &str) -> String {
        format!("docker://127.0.0.1:{}/dan/{name}", self.registry.port)
    }

    /// One push, until it is done.
    fn push(&mut self) {
        let name = format!("p{}", self.random.below(NAMES));
        let (dir, id) = self.images.make(&mut self.random);
        let (from, to) = (format!("dir:{}", dir.display()), self.link(&name));
        let mut cut = false;
        while !self.skopeo(&from, &to) {
            cut = true;
        }
        (self.pushed, self.again) = (self.pushed + 1, self.again + u32::from(cut));
        let before = self.names.insert(name.clone(), BTreeMap::from([(Some(id), dir)]));
        before.into_iter().flat_map(BTreeMap::into_values).for_each(|dir| drop(fs::remove_dir_all(dir)));
        self.verify(&name);
    }

    /// What the name means comes back byte for byte.
    fn verify(&self, name: &str) {
        let (link, back) = (self.link(name), self.images.dir.join("back"));
        for dir in self.names[name].iter().filter(|(id, _)| id.is_some()).map(|(_, dir)| dir) {
            loop {
                let _ = fs::remove_dir_all(&back);
                if self.skopeo(&link, &format!("dir:{}", back.display())) {
                    break;
                }
            }
            output(Command::new("diff").arg("-r").arg(dir).arg(&back));
        }
    }

    /// Removes a name, and with the last one that means an image all that is kept of it.
    fn remove(&mut self) {
        let name = format!("p{}", self.random.below(NAMES));
        if self.names[&name].contains_key(&None) {
            return;
        }
        let before = self.scene.wait_until_up();
        let ran = self.scene.server.walt(DAN, &["image", "remove", &name]);
        let killed = self.scene.epoch.load(Ordering::SeqCst) != before;
        assert!(ran.status == Some(0) || killed, "nobody was killed: {ran:?}");
        let meanings = self.names.get_mut(&name).unwrap();
        meanings.insert(None, PathBuf::new());
        if ran.status == Some(0) {
            self.scene.done.fetch_add(1, Ordering::SeqCst);
            meanings.retain(|id, _| id.is_none());
        }
    }

    pub fn work(mut self) -> Self {
        while !self.scene.stop.load(Ordering::SeqCst) {
            if self.random.below(3) == 0 { self.remove() } else { self.push() }
        }
        self
    }

    /// Each name means what it may mean; that comes back, and one more push is done.
    pub fn finish(mut self) -> Self {
        let list = self.scene.server.walt(DAN, &["image", "show", "--json"]).ok();
        let list: Value = serde_json::from_str(&list).unwrap();
        for (name, meanings) in &self.names {
            let full = format!("dan/{name}:latest");
            let image = list["images"].as_array().unwrap().iter().find(|i| i["fullname"] == full.as_str());
            let id = image.map(|i| i["id"].as_str().unwrap().to_owned());
            assert!(meanings.contains_key(&id), "{name} means {id:?}, not one of {meanings:?}");
            if id.is_some() {
                self.verify(name);
            }
        }
        self.push();
        self
    }
}
