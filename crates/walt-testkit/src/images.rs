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
    let cache = target().join("walt-test-cache");
    std::fs::create_dir_all(&cache).expect("the target directory can be written");
    let digest = Command::new(programs().join("walt-server")).args(["default-image", "digest"]).output();
    let digest = String::from_utf8(digest.expect("walt-server runs").stdout).expect("a digest is text");
    let done = cache.join(format!("{name}-{}", digest.trim()));
    let lock = File::create(cache.join(format!("{name}.lock"))).expect("the cache can be written");
    lock.lock().expect("files can be locked");
    if done.is_dir() {
        return done;
    }
    forget(&cache, name);
    let part = cache.join(format!("{name}.part"));
    std::fs::create_dir_all(&part).expect("the cache can be written");
    let images = repository().join("images").canonicalize().expect("the repository has images");
    let recipe = images.join(name).join("recipe.sh");
    let status = Command::new("sh")
        .arg(&recipe)
        .arg(&part)
        .env("WALT_IMAGES_DIR", &images)
        .env("WALT_CACHE", cache.join("packages"))
        .status()
        .expect("sh runs");
    assert!(status.success(), "{} failed: {status}", recipe.display());
    std::fs::rename(&part, &done).expect("the cache can be written");
    done
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

/// Makes an image of a few files in `dir`, for tests in which no node needs to boot.
pub fn tiny(dir: &Path) -> PathBuf {
    let out = dir.join("tiny");
    let root = out.join("rootfs");
    std::fs::create_dir_all(root.join("etc")).expect("the directory can be written");
    std::fs::write(root.join("etc/issue"), "tiny\n").expect("the directory can be written");
    let status =
        Command::new("tar").args(["-C"]).arg(&root).arg("-cf").arg(out.join("rootfs.tar")).arg(".").status();
    assert!(status.expect("tar runs").success());
    let config =
        r#"{"Labels":{"walt.node.models":"pc-x86-64","walt.image.preferred-name":"pc-x86-64:latest"}}"#;
    std::fs::write(out.join("config.json"), config).expect("the directory can be written");
    out
}
