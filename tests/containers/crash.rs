//! The server is killed while the store changes: what was reported as done is there, what was not is there as
//! a whole or not at all, and `walt-server check-store` finds nothing.

mod registries;

use super::mini::MINI;
use registries::{DAN, Pusher, publish_all_the_time};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};
use walt_testkit::kills::{Random, StopAll};
use walt_testkit::{DockerRegistry, Options, OwnRegistry, TestServer, User, images, until};

/// Kills in CI.
const KILLS: u32 = 20;
/// Kills if `WALT_TEST_LONG` is set.
const KILLS_LONG: u32 = 200;
/// Kills between two checks of the store beside its users.
const CHECK_EVERY: u32 = 10;
/// Longest time a server lives, in milliseconds.
const LIFE_MS: u64 = 1200;
/// Images of a user beside the clone of the default image.
const MOST_IMAGES: usize = 4;
/// For a server to be there again.
const RESTART: Duration = Duration::from_secs(120);

/// The store must be right; what the command says.
#[track_caller]
pub fn check_store(server: &TestServer) -> String {
    let ran = server.server_command(&["check-store"]).output().unwrap();
    let said = [ran.stdout, ran.stderr].map(|s| String::from_utf8(s).unwrap()).concat();
    assert!(ran.status.success(), "{said}");
    said
}

/// A server that is killed now and then, and those who use it.
struct Scene<'a> {
    server: &'a TestServer,
    /// Odd while no server runs.
    epoch: AtomicU32,
    stop: AtomicBool,
    /// What was reported as done.
    done: AtomicU32,
}

impl Scene<'_> {
    fn wait_until_up(&self) -> u32 {
        until("the server to be started again", RESTART, || {
            let now = self.epoch.load(Ordering::SeqCst);
            now.is_multiple_of(2).then_some(now)
        })
    }

    fn kill(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
        self.server.crash();
        self.server.launch_with(&[]).unwrap_or_else(|e| panic!("{e:?}"));
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }
}

/// One user: knows which images there must be, and what each may contain.
struct Actor<'a> {
    scene: &'a Scene<'a>,
    name: &'static str,
    random: Random,
    images: BTreeMap<String, BTreeSet<String>>,
    /// Images with an open session, and what was written in it, if it was.
    open: BTreeMap<String, String>,
    number: u32,
}

/// What a command that was interrupted may have done.
#[derive(Default)]
struct Perhaps {
    /// Images that may be there now, or have this content now.
    made: BTreeMap<String, BTreeSet<String>>,
    /// Images that may be gone.
    gone: BTreeSet<String>,
    /// A session that may be open, and what is written in it.
    opened: Option<(String, String)>,
}

impl<'a> Actor<'a> {
    fn new(scene: &'a Scene<'a>, name: &'static str, seed: u64) -> Self {
        let images = BTreeMap::from([(MINI.to_owned(), BTreeSet::from([String::new()]))]);
        Self { scene, name, random: Random::new(seed), images, open: BTreeMap::new(), number: 0 }
    }

    /// Runs the client; none if the server was killed meanwhile. Any other failure is one of the test.
    fn attempt(&self, arguments: &[&str], script: &str) -> Option<String> {
        let before = self.scene.wait_until_up();
        let ran = self.scene.server.walt_with_input(User::RootFor(self.name), arguments, script);
        if ran.status == Some(0) {
            self.scene.done.fetch_add(1, Ordering::SeqCst);
            return Some(ran.out);
        }
        assert_ne!(self.scene.epoch.load(Ordering::SeqCst), before, "nobody was killed: {ran:?}");
        None
    }

    /// Looks at what there is after a command that was interrupted.
    fn find_out(&mut self, perhaps: Perhaps) {
        let list = loop {
            if let Some(list) = self.attempt(&["image", "show", "--json"], "") {
                break serde_json::from_str::<Value>(&list).unwrap();
            }
        };
        let mut present = BTreeMap::new();
        for image in list["images"].as_array().unwrap().iter().filter(|i| i["user"] == self.name) {
            let full = image["fullname"].as_str().unwrap();
            let name = full.trim_start_matches(self.name).trim_start_matches('/').trim_end_matches(":latest");
            present.insert(name.to_owned(), !image["session"].is_null());
        }
        for (name, open) in &present {
            let known = self.images.contains_key(name);
            let made = perhaps.made.get(name).cloned();
            assert!(known || made.is_some(), "{}: nobody made {name}", self.name);
            self.images.entry(name.clone()).or_default().extend(made.unwrap_or_default());
            match (&perhaps.opened, open) {
                (Some((image, content)), true) if image == name => {
                    self.open.insert(name.clone(), content.clone());
                }
                (_, true) => assert!(self.open.contains_key(name), "{}: nobody opened {name}", self.name),
                (_, false) => drop(self.open.remove(name)),
            }
        }
        let lost: Vec<_> = self.images.keys().filter(|n| !present.contains_key(*n)).cloned().collect();
        for name in lost {
            assert!(perhaps.gone.contains(&name), "{}: {name} is lost", self.name);
            self.images.remove(&name);
            self.open.remove(&name);
        }
    }

    fn fresh(&mut self) -> String {
        self.number += 1;
        format!("i{}", self.number)
    }

    /// One thing that a user does.
    fn act(&mut self) {
        let closed: Vec<String> =
            self.images.keys().filter(|n| !self.open.contains_key(*n)).cloned().collect();
        let own: Vec<String> = closed.iter().filter(|n| *n != MINI).cloned().collect();
        let room = self.images.len() <= MOST_IMAGES;
        let open: Vec<String> = self.open.keys().cloned().collect();
        if let Some(image) = self.random.pick(&open)
            && self.random.below(2) == 0
        {
            return self.go_on(&image, room);
        }
        match self.random.below(11) {
            0..=2 if room && closed.iter().any(|n| n == MINI) => {
                let name = self.fresh();
                self.change(MINI, &name);
            }
            3 | 4 => {
                if let Some(image) = self.random.pick(&own) {
                    self.change(&image, &image);
                }
            }
            5 if room => {
                if let Some(image) = self.random.pick(&own) {
                    self.duplicate(&image);
                }
            }
            6 => {
                if let Some(image) = self.random.pick(&own) {
                    self.rename(&image);
                }
            }
            7 => {
                if let Some(image) = self.random.pick(&own) {
                    self.squash(&image);
                }
            }
            8 if room => {
                let name = self.fresh();
                self.build(MINI, &name);
            }
            9 => {
                if let Some(image) = self.random.pick(&own) {
                    self.build(&image, &image);
                }
            }
            _ => match self.random.pick(&own) {
                Some(image) if !room || self.random.below(2) == 0 => self.remove(&image),
                _ => self.drop_changes(),
            },
        }
    }

    /// Changes `image` in a shell and saves as `target`.
    fn change(&mut self, image: &str, target: &str) {
        self.number += 1;
        let content = format!("{}-{}", self.name, self.number);
        let script = format!("echo {content} >/root/token\n");
        let save = format!("--save={target}");
        if self.attempt(&["image", "shell", image, &save], &script).is_some() {
            self.images.insert(target.into(), BTreeSet::from([content]));
            return;
        }
        let made = BTreeMap::from([(target.to_owned(), BTreeSet::from([content.clone()]))]);
        self.find_out(Perhaps { made, opened: Some((image.into(), content)), ..Perhaps::default() });
    }

    /// Builds `target` from a Dockerfile on top of `image`.
    fn build(&mut self, image: &str, target: &str) {
        self.number += 1;
        let content = format!("{}-{}", self.name, self.number);
        let dir = self.scene.server.dir().join(format!("build-{}", self.name));
        fs::create_dir_all(&dir).unwrap();
        let file = format!(
            "FROM {image}\nCOPY token /root/token\nRUN test -s /root/token && echo {content} >/root/more\n"
        );
        fs::write(dir.join("Dockerfile"), file).unwrap();
        fs::write(dir.join("token"), format!("{content}\n")).unwrap();
        let arguments = ["image", "build", "-y", "--from-dir", dir.to_str().unwrap(), target];
        if self.attempt(&arguments, "").is_some() {
            self.images.insert(target.into(), BTreeSet::from([content]));
            return;
        }
        let made = BTreeMap::from([(target.to_owned(), BTreeSet::from([content]))]);
        self.find_out(Perhaps { made, ..Perhaps::default() });
    }

    /// Goes on with a session that a kill has left.
    fn go_on(&mut self, image: &str, room: bool) {
        let content = self.open[image].clone();
        if self.random.below(3) == 0 || (image == MINI && !room) {
            match self.attempt(&["image", "shell", "--discard", image], "") {
                Some(_) => drop(self.open.remove(image)),
                None => self.find_out(Perhaps::default()),
            }
            return;
        }
        let target = if image == MINI { self.fresh() } else { image.to_owned() };
        let save = format!("--save={target}");
        match self.attempt(&["image", "shell", "--resume", image, &save], "") {
            Some(said) => {
                self.open.remove(image);
                // The script may never have run: then nothing changed.
                if said.contains(" saved.") || said.contains(" updated.") {
                    self.images.insert(target, BTreeSet::from([content]));
                } else {
                    assert!(said.contains("Nothing changed"), "{said}");
                }
            }
            None => {
                let made = BTreeMap::from([(target, BTreeSet::from([content.clone()]))]);
                self.find_out(Perhaps { made, opened: Some((image.into(), content)), ..Perhaps::default() });
            }
        }
    }

    fn drop_changes(&mut self) {
        if self.open.contains_key(MINI) {
            return;
        }
        if self.attempt(&["image", "shell", MINI], "echo dropped >/root/token\n").is_none() {
            let opened = Some((MINI.to_owned(), "dropped".to_owned()));
            self.find_out(Perhaps { opened, ..Perhaps::default() });
        }
    }

    fn duplicate(&mut self, image: &str) {
        let (copy, content) = (self.fresh(), self.images[image].clone());
        match self.attempt(&["image", "duplicate", image, &copy], "") {
            Some(_) => drop(self.images.insert(copy, content)),
            None => {
                let made = BTreeMap::from([(copy, content)]);
                self.find_out(Perhaps { made, ..Perhaps::default() });
            }
        }
    }

    /// Changes its layers, and not what is in them.
    fn squash(&mut self, image: &str) {
        if self.attempt(&["image", "squash", image], "").is_none() {
            self.find_out(Perhaps::default());
        }
    }

    fn rename(&mut self, image: &str) {
        let (new, content) = (self.fresh(), self.images[image].clone());
        if self.attempt(&["image", "rename", image, &new], "").is_some() {
            self.images.remove(image);
            self.images.insert(new, content);
            return;
        }
        let (made, gone) = (BTreeMap::from([(new.clone(), content)]), BTreeSet::from([image.to_owned()]));
        self.find_out(Perhaps { made, gone, opened: None });
        let both = self.images.contains_key(image) && self.images.contains_key(&new);
        let none = !self.images.contains_key(image) && !self.images.contains_key(&new);
        assert!(!both && !none, "{}: half of a renaming of {image} to {new}", self.name);
    }

    fn remove(&mut self, image: &str) {
        match self.attempt(&["image", "remove", image], "") {
            Some(_) => drop(self.images.remove(image)),
            None => {
                let gone = BTreeSet::from([image.to_owned()]);
                self.find_out(Perhaps { gone, ..Perhaps::default() });
            }
        }
    }

    fn work(mut self) -> Self {
        while !self.scene.stop.load(Ordering::SeqCst) {
            self.act();
        }
        // Sessions that kills have left end as their user says.
        for image in self.open.keys().cloned().collect::<Vec<_>>() {
            while self.open.contains_key(&image) {
                self.go_on(&image, true);
            }
        }
        self
    }

    /// Every image can be used, and has a content that it may have.
    fn verify(&self) {
        for (image, contents) in &self.images {
            let script = "cat /root/token 2>/dev/null || echo\n";
            let read = self.scene.server.walt_with_input(
                User::RootFor(self.name),
                &["image", "shell", image],
                script,
            );
            let read = read.ok();
            assert!(
                contents.contains(read.trim()),
                "{}: {image} has {read:?}, not one of {contents:?}",
                self.name
            );
        }
    }
}

/// Variants of a small default image, and the digest of each one's layer.
fn variants(dir: &Path) -> Vec<(PathBuf, String)> {
    let variant = |number: u8| {
        let dir = dir.join(format!("variant{number}"));
        let out = images::tiny(&dir);
        // Enough that an import takes a while; each variant has other bytes.
        let bytes: Vec<u8> =
            (0..4_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8 ^ number).collect();
        fs::write(out.join("rootfs/payload"), bytes).unwrap();
        let tar = out.join("rootfs.tar");
        let run =
            Command::new("tar").arg("-C").arg(out.join("rootfs")).arg("-cf").arg(&tar).arg(".").status();
        assert!(run.unwrap().success());
        let sum = Command::new("sha256sum").arg(&tar).output().unwrap().stdout;
        (out, String::from_utf8(sum[..64].to_vec()).unwrap())
    };
    (1..=3).map(variant).collect()
}

/// Imports default images all the time; what the reference may mean in the end.
fn import_all_the_time(
    scene: &Scene<'_>,
    variants: &[(PathBuf, String)],
    mut random: Random,
) -> BTreeSet<String> {
    let mut perhaps = BTreeSet::new();
    while !scene.stop.load(Ordering::SeqCst) {
        let (dir, digest) = random.pick(variants).unwrap();
        let before = scene.wait_until_up();
        let action = serde_json::json!({"action": "import-default-image", "name": images::TINY, "dir": dir});
        let mut curl = Command::new("curl");
        curl.args(["-s", "-H", "Content-Type: application/json", "--unix-socket"]).arg(scene.server.socket());
        let ran =
            curl.args(["-d", &action.to_string(), "http://walt/api/v1/actions/admin"]).output().unwrap();
        if String::from_utf8_lossy(&ran.stdout).contains(r#""ok":true"#) {
            scene.done.fetch_add(1, Ordering::SeqCst);
            perhaps = BTreeSet::from([digest]);
        } else {
            assert_ne!(scene.epoch.load(Ordering::SeqCst), before, "nobody was killed: {ran:?}");
            perhaps.insert(digest);
        }
    }
    perhaps
}

#[test]
fn kills_at_random_moments() {
    let kills = if std::env::var_os("WALT_TEST_LONG").is_some() { KILLS_LONG } else { KILLS };
    let mut random = Random::seeded(&format!("crash test of the store: {kills} kills"));
    let start = Instant::now();
    let room = tempfile::tempdir_in("/var/tmp").unwrap();
    let registry =
        DockerRegistry::is_installed().then(|| DockerRegistry::start(&room.path().join("lab"), false));
    let config = registry.as_ref().map_or(String::new(), |registry| {
        format!(
            "registries:\n- {{label: lab, api: docker-registry-v2, host: 127.0.0.1, port: {}, protocol: http, \
             auth: none}}\n",
            registry.port
        )
    });
    let server = TestServer::prepare(Options { config, ..Options::default() });
    server.launch_with(&[]).unwrap_or_else(|e| panic!("{e:?}"));
    server.import(MINI, &images::built(MINI));
    let users = ["ann", "bob"];
    for user in users {
        server.walt(User::RootFor(user), &["image", "clone", "walt:waltplatform/pc-x86-64-mini"]).ok();
    }
    let variants = variants(server.dir());
    let skopeo = Path::new("/usr/bin/skopeo").exists();
    if !skopeo {
        eprintln!("skipped in part: skopeo is not installed, nothing is pushed to the server");
    }
    let auth = room.path().join("auth.json");
    let own_registry = skopeo.then(|| OwnRegistry::serve(&server, DAN));
    own_registry.iter().for_each(|registry| registry.login(&server, DAN, &auth));
    let scene = Scene {
        server: &server,
        epoch: AtomicU32::new(0),
        stop: AtomicBool::new(false),
        done: AtomicU32::new(0),
    };
    std::thread::scope(|scope| {
        let actors: Vec<_> = users
            .into_iter()
            .map(|user| {
                let actor = Actor::new(&scene, user, random.number());
                scope.spawn(move || actor.work())
            })
            .collect();
        let own = Random::new(random.number());
        let importer = scope.spawn(|| import_all_the_time(&scene, &variants, own));
        let publisher = registry.is_some().then(|| scope.spawn(|| publish_all_the_time(&scene)));
        let pusher = own_registry.as_ref().map(|registry| {
            let pusher = Pusher::new(&scene, (registry, &auth), &variants, Random::new(random.number()));
            scope.spawn(|| pusher.work())
        });
        let stop = StopAll(&scene.stop);
        for kill in 1..=kills {
            // The moment is the point: nothing is waited for.
            random.sleep(LIFE_MS);
            scene.kill();
            if kill % CHECK_EVERY == 0 {
                check_store(&server);
            }
        }
        drop(stop);
        let imported = importer.join().unwrap();
        let came_back = publisher.map_or(0, |publisher| publisher.join().unwrap());
        let pusher = pusher.map(|pusher| pusher.join().unwrap().finish());
        let (pushed, again) = pusher.map_or((0, 0), |pusher| (pusher.pushed, pusher.again));
        let actors: Vec<_> = actors.into_iter().map(|a| a.join().unwrap()).collect();
        let verdict = check_store(&server);
        actors.iter().for_each(Actor::verify);
        let list = server.api(None).get("/api/v1/images").json();
        let find = |i: &&Value| i["fullname"] == "waltplatform/pc-x86-64-default:latest";
        if let Some(image) = list["images"].as_array().unwrap().iter().find(find) {
            let hex = image["id"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
            let config = server.state_dir().join(format!("images/configs/{hex}.json"));
            let config: Value = serde_json::from_slice(&fs::read(config).unwrap()).unwrap();
            let layer =
                config["rootfs"]["diff_ids"][0].as_str().unwrap().trim_start_matches("sha256:").to_owned();
            assert!(imported.contains(&layer), "{layer} is not one of {imported:?}");
        } else {
            assert!(!imported.is_empty(), "the default image is lost");
        }
        eprintln!(
            "{kills} kills in {:.0} s, {} commands were reported as done, {came_back} images came back from the \
             registry, {pushed} were pushed to us and came back, {again} of these after a death; {}",
            start.elapsed().as_secs_f64(),
            scene.done.load(Ordering::SeqCst),
            verdict.trim()
        );
    });
}

/// Each named point once: the command fails, and afterwards all of it is done or nothing.
#[test]
fn kills_at_each_point() {
    let mut server = TestServer::start_with_images(&[MINI]);
    let ann = User::RootFor("ann");
    server.walt(ann, &["image", "clone", "walt:waltplatform/pc-x86-64-mini"]).ok();
    let variants = variants(server.dir());
    let names = |server: &TestServer| server.walt(ann, &["image", "show", "--names-only"]).ok();
    let mut last = String::new();
    for (point, done) in [
        ("import-layer", false),
        ("import-config", false),
        ("shell-recorded", false),
        ("shell-prepared", false),
        ("discard-deleted", true),
        ("save-sealed", false),
        ("save-prepared", false),
        ("save-config", false),
        ("save-recorded", true),
        ("save-adopted", true),
        ("save-referenced", true),
        ("platform-layer", false),
        ("platform-view", false),
    ] {
        server.kill();
        server.launch_with(&[("WALT_FAIL_STORE", point)]).unwrap_or_else(|e| panic!("{point}: {e:?}"));
        let name = point.to_owned();
        let save = format!("--save={name}");
        let script = format!("echo {point} >/root/token\n");
        let ran = match point.split_once('-').unwrap().0 {
            "import" => {
                let (dir, _) = &variants[usize::from(point == "import-config")];
                let ran = server.server_command(&["check-store"]).output().unwrap();
                assert!(ran.status.success(), "{ran:?}");
                import_fails(&server, dir);
                None
            }
            "discard" => Some(server.walt_with_input(ann, &["image", "shell", MINI], &script)),
            // What was saved last has had no shell since: its platform layer is new.
            "platform" => Some(server.walt_with_input(ann, &["image", "shell", &last, &save], &script)),
            _ => Some(server.walt_with_input(ann, &["image", "shell", MINI, &save], &script)),
        };
        if let Some(ran) = ran {
            assert_ne!(ran.status, Some(0), "{point}: the server was to be killed: {ran:?}");
        }
        server.wait_for_end();
        server.launch().unwrap_or_else(|e| panic!("{point}: {e:?}"));
        check_store(&server);
        let list = names(&server);
        if point.starts_with("save") {
            assert_eq!(list.lines().any(|l| l == name), done, "{point}: {list}");
            if !done {
                // The session is as it was.
                let said = server.walt(ann, &["image", "shell", "--resume", MINI, &save]).ok();
                assert!(said.contains(&format!("New image {name} saved.")), "{point}: {said}");
            }
            let read = server.walt_with_input(ann, &["image", "shell", &name], "cat /root/token\n").ok();
            assert_eq!(read.trim(), point);
            // As the platform layer of this one exists now, another name of other content is made for later.
            last = format!("after-{point}");
            let save = format!("--save={last}");
            server
                .walt_with_input(ann, &["image", "shell", &name, &save], &script.replace("token", "more"))
                .ok();
        } else if point.starts_with("shell") {
            // It was opened and nothing ran: it can be ended.
            server.walt(ann, &["image", "shell", "--discard", MINI]);
        }
        // Whatever it was, it can be done now.
        server.walt_with_input(ann, &["image", "shell", MINI], "true\n").ok();
        check_store(&server);
    }
}

fn import_fails(server: &TestServer, dir: &Path) {
    let action = serde_json::json!({"action": "import-default-image", "name": images::TINY, "dir": dir});
    let mut curl = Command::new("curl");
    curl.args(["-s", "-H", "Content-Type: application/json", "--unix-socket"]).arg(server.socket());
    let ran = curl.args(["-d", &action.to_string(), "http://walt/api/v1/actions/admin"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&ran.stdout).contains(r#""ok":true"#), "{ran:?}");
}
