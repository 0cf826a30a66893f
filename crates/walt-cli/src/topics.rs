//! The pages of `walt help show`, embedded from `docs/help`.

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

/// Light styling for a terminal: bold headings and strong text, underlined code, indented code blocks.
pub fn styled(markdown: &str) -> String {
    let mut text = String::new();
    let mut in_code = false;
    for line in markdown.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        } else if in_code {
            text += &format!("    {line}\n");
        } else if line.starts_with('#') {
            text += &format!("\x1b[1m{}\x1b[0m\n", line.trim_start_matches('#').trim());
        } else {
            text += &inline(line);
            text.push('\n');
        }
    }
    text
}

/// `code` becomes underlined and **strong** bold; an unpaired mark stays as it is.
fn inline(line: &str) -> String {
    let pairs = |line: &str, mark: &str, on: &str, off: &str| {
        let parts: Vec<&str> = line.split(mark).collect();
        if parts.len().is_multiple_of(2) {
            return line.to_owned();
        }
        parts
            .iter()
            .enumerate()
            .map(|(i, part)| if i % 2 == 1 { format!("{on}{part}{off}") } else { (*part).to_owned() })
            .collect::<String>()
    };
    let code = pairs(line, "`", "\x1b[4m", "\x1b[24m");
    pairs(&code, "**", "\x1b[1m", "\x1b[22m")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::help;
    use clap::CommandFactory;

    #[test]
    fn pages_exist_and_link_to_pages() {
        let names: Vec<&str> = all().iter().map(|t| t.topic).collect();
        for wanted in
            ["boot-modes", "help-intro", "image-from-scratch", "node-bootup", "node-ownership", "shells"]
        {
            assert!(names.contains(&wanted), "{wanted} in {names:?}");
        }
        let index = find("help-intro").unwrap().markdown;
        for name in names.iter().filter(|n| **n != "help-intro") {
            assert!(index.contains(&format!("({name}.md)")), "help-intro leads to {name}");
        }
        for topic in all() {
            for part in topic.markdown.split("](").skip(1) {
                let target = part.split(')').next().unwrap();
                let name =
                    target.strip_suffix(".md").unwrap_or_else(|| panic!("{target} in {}", topic.topic));
                assert!(names.contains(&name), "{target} in {}", topic.topic);
            }
        }
    }

    /// Every `walt x y` in a page is a command of the grammar, with options it has; so is every topic.
    #[test]
    fn pages_name_only_commands_that_exist() {
        let root = crate::cli::Cli::command();
        for topic in all() {
            for line in topic.markdown.lines() {
                for (at, _) in line.match_indices("walt ") {
                    let before = line[..at].chars().next_back();
                    let after: Vec<&str> = line[at + 5..].split_whitespace().collect();
                    // Commands stand in code: behind a backquote or a prompt.
                    if !matches!(before, Some('`' | '$' | '\'')) && !line[..at].ends_with("$ ") {
                        continue;
                    }
                    let clean = |w: &&str| w.trim_matches(|c: char| "`'.,;:()|".contains(c)).to_owned();
                    let words: Vec<String> = after.iter().take(2).map(clean).collect();
                    let words: Vec<&str> = words.iter().map(String::as_str).collect();
                    let path = help::path(&root, &words);
                    assert_eq!(path.len(), 2, "'walt {}' in {}", words.join(" "), topic.topic);
                    let command = help::find(&root, &path);
                    let rest = line[at..].split('`').next().unwrap();
                    for option in rest.split_whitespace().filter(|w| w.starts_with("--") && w.len() > 2) {
                        let name = option[2..].split(['=', '[']).next().unwrap();
                        let name = name.trim_matches(|c: char| !c.is_ascii_alphanumeric());
                        assert!(
                            name == "help" || command.get_arguments().any(|a| a.get_long() == Some(name)),
                            "--{name} of {path:?} in {}",
                            topic.topic
                        );
                    }
                    if path == ["help", "show"] {
                        let name = clean(&after[2]);
                        assert!(find(&name).is_some(), "topic {name} in {}", topic.topic);
                    }
                }
            }
        }
    }

    #[test]
    fn styling() {
        assert_eq!(
            styled("# T\n\nsee `x` **y**\n```\na `b\n```\n"),
            "\x1b[1mT\x1b[0m\n\nsee \x1b[4mx\x1b[24m \x1b[1my\x1b[22m\n    a `b\n"
        );
        assert_eq!(inline("5 ` left"), "5 ` left");
    }
}
