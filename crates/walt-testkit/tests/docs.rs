//! The pages for engineers name files and tests: each of them exists.
//!
//! A path in backquotes is complete: from the top of the repository (`tests/api/isolation.rs`), or from `crates/`
//! (`walt-core/src/firewall.rs`). `{a,b}` stands for several, `*` for any name, `file.rs::function` for a test.
#![allow(clippy::unwrap_used)] // a test's assertion

use std::path::{Path, PathBuf};

/// Pages whose paths are checked.
const PAGES: [&str; 4] = ["ARCHITECTURE.md", "CONTRIBUTING.md", "README.md", "SECURITY.md"];
/// Ends of what is a path, even if its first directory is wrong.
const ENDINGS: [&str; 4] = [".rs", ".sh", ".toml", ".yml"];

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The paths that `a/{b,c}.rs` stands for.
fn expanded(text: &str) -> Vec<String> {
    let Some((start, rest)) = text.split_once('{') else { return vec![text.to_owned()] };
    let (middle, end) =
        rest.split_once('}').unwrap_or_else(|| panic!("{text} has a brace that does not end"));
    middle.split(',').flat_map(|part| expanded(&format!("{start}{part}{end}"))).collect()
}

/// Is there a file or directory of this path below `dir`? `*` matches within one name.
fn exists(dir: &Path, path: &str) -> bool {
    let (name, rest) = path.split_once('/').map_or((path, ""), |(name, rest)| (name, rest));
    let matches = |found: &str| match name.split_once('*') {
        None => found == name,
        Some((start, end)) => {
            found.len() >= start.len() + end.len() && found.starts_with(start) && found.ends_with(end)
        }
    };
    std::fs::read_dir(dir).into_iter().flatten().flatten().any(|entry| {
        matches(&entry.file_name().to_string_lossy()) && (rest.is_empty() || exists(&entry.path(), rest))
    })
}

/// Paths of a page, with the function behind them.
fn named(page: &str) -> Vec<(String, Option<String>)> {
    let top = top();
    let first_exists = |path: &str| {
        let first = path.split('/').next().unwrap_or_default();
        !first.is_empty()
            && path.contains('/')
            && (top.join(first).is_dir() || top.join("crates").join(first).is_dir())
    };
    let is_path = |path: &str| {
        first_exists(path) || ENDINGS.iter().any(|end| path.ends_with(end) && path.len() > end.len())
    };
    page.split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| !word.contains(char::is_whitespace) && !word.contains('<'))
        .map(|word| match word.split_once("::") {
            Some((path, function)) if path.ends_with(".rs") => (path, Some(function.to_owned())),
            _ => (word, None),
        })
        .filter(|(path, _)| is_path(path))
        .flat_map(|(path, function)| expanded(path).into_iter().map(move |p| (p, function.clone())))
        .collect()
}

fn missing(page: &str) -> Vec<String> {
    let places = [top(), top().join("crates")];
    let mut missing = Vec::new();
    for (path, function) in named(page) {
        let Some(place) = places.iter().find(|place| exists(place, &path)) else {
            missing.push(path);
            continue;
        };
        let Some(function) = function else { continue };
        let text = std::fs::read_to_string(place.join(&path)).unwrap_or_default();
        // Some stand beside the code, indented.
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let marks = ["#[test] fn ", "#[tokio::test] async fn "];
        if !marks.iter().any(|mark| words.contains(&format!("{mark}{function}()"))) {
            missing.push(format!("{path}::{function}"));
        }
    }
    missing
}

#[test]
fn every_path_and_test_of_the_pages_exists() {
    for page in PAGES {
        let text = std::fs::read_to_string(top().join(page)).unwrap();
        assert_eq!(missing(&text), Vec::<String>::new(), "{page} names what is not there");
    }
}

#[test]
fn security_names_a_test_for_each_promise() {
    let text = std::fs::read_to_string(top().join("SECURITY.md")).unwrap();
    let tests = named(&text).into_iter().filter(|(_, function)| function.is_some()).count();
    assert!(tests > 30, "{tests}");
}

#[test]
fn what_is_missing_is_found() {
    let page = "`crates/walt-core/src/nothing.rs` `gone.rs` `walt-core/src/{life,gone}.rs` `scripts/te*` \
        `crates/walt-core/src/life.rs::no_such_test` `a/b` `walt-core/src/life.rs` `docs/` `--help` `walt.sock`";
    let expected = [
        "crates/walt-core/src/nothing.rs",
        "gone.rs",
        "walt-core/src/gone.rs",
        "crates/walt-core/src/life.rs::no_such_test",
    ];
    assert_eq!(missing(page), expected);
}
