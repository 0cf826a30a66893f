//! Default images for tests: recipes are run once per digest, and their results are kept.

use crate::{programs, repository, target};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Name of the image that [`tiny`] makes; the models in its labels are those of virtual nodes.
pub const TINY: &str = "pc-x86-64-default";

/// What the recipe of `name` makes (`rootfs.tar`, `config.json`); it is run if the cache has no result.
///
/// # Panics
/// If the recipe fails; its messages are on standard error.
pub fn built(name: &str) -> PathBuf {
    let server = || Command::new(programs().join("walt-server"));
    let digest = server().args(["default-image", "digest", name]).output();
    let digest = String::from_utf8(digest.expect("walt-server runs").stdout).expect("a digest is text");
    let mut make = server();
    make.args(["default-image", "make", name]);
    result_of(name, make, digest.trim())
}

/// Like [`built`], for a recipe of the tests, by its path in the repository.
///
/// # Panics
/// If the recipe fails; its messages are on standard error.
pub fn built_by(recipe: &str) -> PathBuf {
    built_for(recipe, "")
}

/// Like [`built_by`], with a release of Debian: the recipe finds its name in `WALT_SUITE`.
///
/// # Panics
/// If the recipe fails; its messages are on standard error.
pub fn built_for(recipe: &str, suite: &str) -> PathBuf {
    let recipe = repository().join(recipe);
    let sum = Command::new("sha256sum").arg(&recipe).arg(images().join("common/lib.sh")).output();
    let sum = sum.expect("sha256sum runs").stdout;
    // Of both sums together, the first 16 digits as of default images.
    let both = String::from_utf8_lossy(&sum);
    let digest: String = both.lines().filter_map(|line| line.get(..8)).collect();
    let name = recipe.parent().and_then(Path::file_name).expect("a recipe is in a directory");
    let mut make = Command::new("sh");
    make.arg(&recipe).env("WALT_SUITE", suite);
    result_of(&format!("{}{suite}", name.to_string_lossy()), make, &digest)
}

fn images() -> PathBuf {
    repository().join("images").canonicalize().expect("the repository has images")
}

/// `make` gets one more argument, the directory for its results.
fn result_of(name: &str, mut make: Command, digest: &str) -> PathBuf {
    let cache = target().join("walt-test-cache");
    std::fs::create_dir_all(&cache).expect("the target directory can be written");
    let done = cache.join(format!("{name}-{digest}"));
    let lock = File::create(cache.join(format!("{name}.lock"))).expect("the cache can be written");
    lock.lock().expect("files can be locked");
    if done.is_dir() {
        return done;
    }
    forget(&cache, name);
    let part = cache.join(format!("{name}.part"));
    std::fs::create_dir_all(&part).expect("the cache can be written");
    let status = make
        .arg(&part)
        .env("WALT_IMAGES_DIR", images())
        .env("WALT_CACHE", cache.join("packages"))
        .status()
        .expect("the recipe can be started");
    assert!(status.success(), "the recipe of {name} failed: {status}");
    std::fs::rename(&part, &done).expect("the cache can be written");
    done
}

/// A kernel for a guest of a test's own.
#[derive(Debug)]
pub struct Kernel {
    /// What qemu's `-kernel` takes.
    pub image: PathBuf,
    /// Its modules, uncompressed: `/lib/modules/<version>`.
    pub modules: PathBuf,
}

/// The kernel of the default image `name`, unpacked once next to the result of its recipe.
///
/// # Panics
/// If the image has not one kernel and its modules where `pc-x86-64-mini` has them.
pub fn kernel(name: &str) -> Kernel {
    const IMAGE: &str = "boot/pc-x86-64/kernel";
    const MODULES: &str = "lib/modules";
    let done = built(name);
    let (dir, part) = (done.join("kernel"), done.join("kernel.part"));
    let lock = File::create(done.join("kernel.lock")).expect("the cache can be written");
    lock.lock().expect("files can be locked");
    if !dir.is_dir() {
        let _ = std::fs::remove_dir_all(&part); // of a test that was killed
        std::fs::create_dir(&part).expect("the cache can be written");
        let mut tar = Command::new("tar");
        tar.arg("-xf").arg(done.join("rootfs.tar")).arg("-C").arg(&part);
        let status = tar.args([IMAGE, MODULES].map(|p| format!("./{p}"))).status().expect("tar runs");
        assert!(status.success(), "{name} has no {IMAGE} or no {MODULES}: {status}");
        std::fs::rename(&part, &dir).expect("the cache can be written");
    }
    let versions: Vec<PathBuf> = std::fs::read_dir(dir.join(MODULES))
        .expect("it was unpacked")
        .map(|entry| entry.expect("the cache can be read").path())
        .collect();
    let [modules] = versions.as_slice() else { panic!("{name} has not one kernel: {versions:?}") };
    Kernel { image: dir.join(IMAGE), modules: modules.clone() }
}

/// Deletes what older recipes, or a killed one, have left.
fn forget(cache: &Path, name: &str) {
    for entry in std::fs::read_dir(cache).into_iter().flatten().flatten() {
        let file = entry.file_name().to_string_lossy().into_owned();
        let digest = file.strip_prefix(&format!("{name}-")).unwrap_or("");
        let old = digest.len() == 16 && digest.bytes().all(|b| b.is_ascii_hexdigit());
        if old || file == format!("{name}.part") {
            std::fs::remove_dir_all(entry.path()).expect("the cache can be written");
        }
    }
}

/// Makes an image of a few files in `dir`, for tests that need nodes and not what runs on them: its kernel
/// halts at once.
pub fn tiny(dir: &Path) -> PathBuf {
    let out = dir.join("tiny");
    let boot = out.join("rootfs/boot/pc-x86-64");
    std::fs::create_dir_all(&boot).expect("the directory can be written");
    let write =
        |path: PathBuf, bytes: &[u8]| std::fs::write(path, bytes).expect("the directory can be written");
    write(boot.join("start.ipxe"), b"#!ipxe\nkernel kernel panic=30 || reboot\nboot || reboot\n");
    write(boot.join("kernel"), &halting_kernel());
    write(boot.join("large"), &large());
    let tar = Command::new("tar")
        .arg("-C")
        .arg(out.join("rootfs"))
        .arg("-cf")
        .arg(out.join("rootfs.tar"))
        .arg(".")
        .status();
    assert!(tar.expect("tar runs").success());
    let config =
        r#"{"Labels":{"walt.node.models":"pc-x86-64","walt.image.preferred-name":"pc-x86-64:latest"}}"#;
    write(out.join("config.json"), config.as_bytes());
    out
}

/// Content of the boot file `large` of [`tiny`]: more than 65,536 blocks of 8 bytes, the smallest of TFTP.
pub fn large() -> Vec<u8> {
    (0..75_000_u64).flat_map(|n| (n * n).to_be_bytes()).chain([7; 5]).collect()
}

/// The least that a boot loader takes for Linux: the header of the x86 boot protocol 2.02 (Linux,
/// Documentation/arch/x86/boot.rst), and real-mode code that halts.
fn halting_kernel() -> Vec<u8> {
    let mut image = vec![0; 4096];
    image[0x1f1] = 1; // setup_sects: one sector of setup code behind the boot sector
    image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    image[0x200..0x202].copy_from_slice(&[0xeb, 0x66]); // entry: jmp 0x268
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&[0x02, 0x02]); // version
    image[0x211] = 1; // loadflags: LOADED_HIGH
    image[0x268..0x26c].copy_from_slice(&[0xfa, 0xf4, 0xeb, 0xfd]); // cli; hlt; jmp back to hlt
    image
}
