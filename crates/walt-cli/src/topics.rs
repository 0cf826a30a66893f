//! The pages of `walt help show`, embedded from `docs/help`, and how they look on a terminal.

pub mod render;
mod table;
pub mod text;

use include_dir::{Dir, include_dir};

static PAGES: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/../../docs/help");

/// One page.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct Topic {
    /// Name for `walt help show`.
    pub topic: &'static str,
    /// First heading.
    pub title: &'static str,
    /// The page.
    pub markdown: &'static str,
}

/// All pages, sorted by name.
pub fn all() -> Vec<Topic> {
    let mut topics: Vec<Topic> = PAGES
        .files()
        .filter_map(|file| {
            let topic = file.path().to_str()?.strip_suffix(".md")?;
            let markdown = file.contents_utf8()?;
            let title = markdown.lines().find_map(|line| line.strip_prefix("# "))?;
            Some(Topic { topic, title, markdown })
        })
        .collect();
    topics.sort_by_key(|t| t.topic);
    topics
}

/// The page of this name.
pub fn find(name: &str) -> Option<Topic> {
    all().into_iter().find(|t| t.topic == name)
}

#[cfg(test)]
mod tests;
