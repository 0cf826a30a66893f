//! What all pages have in common.

use super::*;
use crate::{cli, error::Failure, help};
use clap::CommandFactory;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// What a block of code may be: `walt-testkit/src/help.rs` says how each is checked.
const MARKS: [&str; 5] = ["console", "text", "sh", "yaml", "dockerfile"];
/// Widths of terminals at which the pages are looked at.
const WIDTHS: [usize; 4] = [40, 60, 80, 200];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn pages_link_to_pages() {
    let names: Vec<&str> = all().iter().map(|t| t.topic).collect();
    for topic in all() {
        for part in topic.markdown.split("](").skip(1) {
            let target = part.split(')').next().unwrap();
            let name = target.strip_suffix(".md").unwrap_or_else(|| panic!("{target} in {}", topic.topic));
            assert!(names.contains(&name), "{target} in {}", topic.topic);
        }
        // The text of a link is what leads there without a mouse, and the title says what the page is about.
        for part in topic.markdown.split("[walt help show ").skip(1) {
            let (text, rest) = part.split_once("](").unwrap();
            assert!(rest.starts_with(&format!("{text}.md)")), "the link to {text} in {}", topic.topic);
        }
        assert!(topic.markdown.starts_with("# "), "{} begins with its title", topic.topic);
    }
}

/// `help-intro` is the index: it has each other topic once, as an item of a list under a heading.
#[test]
fn the_index_has_each_topic_once() {
    let index = find("help-intro").unwrap().markdown;
    let (_, index) = index.split_once("\n## Topics\n").expect("a section with the topics");
    let index = index.split("\n## ").next().unwrap();
    for topic in all().iter().filter(|topic| topic.topic != "help-intro") {
        let link = format!("[walt help show {0}]({0}.md)", topic.topic);
        assert_eq!(index.matches(&link).count(), 1, "{link} in the index");
        assert_eq!(index.matches(&format!("({}.md)", topic.topic)).count(), 1, "{link} in the index");
    }
}

#[test]
fn blocks_of_code_say_what_they_are() {
    for topic in all() {
        let mut open = false;
        for (at, line) in topic.markdown.lines().enumerate() {
            let Some(mark) = line.trim_start().strip_prefix("```") else { continue };
            open = !open;
            let known = if open { MARKS.contains(&mark) } else { mark.is_empty() };
            assert!(known, "line {} of {}: '{line}' is not one of {MARKS:?}", at + 1, topic.topic);
            assert!(line.starts_with('`'), "line {} of {}: blocks are not indented", at + 1, topic.topic);
        }
        assert!(!open, "{}", topic.topic);
    }
}

#[test]
fn pages_fit_on_terminals() {
    for topic in all() {
        // A character is one column: nothing wide, nothing that joins.
        let odd = topic.markdown.chars().find(|c| c.is_control() && *c != '\n' || *c >= '\u{2600}');
        assert_eq!(odd, None, "{}", topic.topic);
        for width in WIDTHS {
            let page = render::page(topic.markdown, width);
            for line in &page.lines {
                let text: String = line.iter().map(|(c, _)| *c).collect();
                assert!(line.len() <= width, "{} at {width} columns: {text}", topic.topic);
            }
            assert!(page.lines.len() > 5, "{} at {width} columns", topic.topic);
            // Nothing is lost on the way.
            let words = |text: &str| -> String { text.chars().filter(char::is_ascii_alphanumeric).collect() };
            let shown: String = page.lines.iter().flatten().map(|(c, _)| *c).collect();
            let heading = words(topic.title);
            assert!(words(&shown).contains(&heading), "{}: {heading}", topic.topic);
        }
    }
}

/// Writes all pages as terminals show them, for people to look at: `WALT_SHOW_PAGES=<directory>`.
#[test]
fn pages_can_be_looked_at() {
    let Some(dir) = std::env::var_os("WALT_SHOW_PAGES").map(PathBuf::from) else { return };
    for width in WIDTHS {
        let dir = dir.join(width.to_string());
        std::fs::create_dir_all(&dir).unwrap();
        for topic in all() {
            std::fs::write(dir.join(topic.topic), render::page(topic.markdown, width).ansi()).unwrap();
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

/// Every command line behind a prompt is one that `walt` accepts, also in illustrations.
#[test]
fn command_lines_of_pages_are_of_the_grammar() {
    let mut count = 0;
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let pages = all().into_iter().map(|topic| (topic.topic, topic.markdown));
    for (topic, markdown) in pages.chain([("README.md", readme.as_str())]) {
        for line in markdown.lines() {
            // Of a user, of a user with a name, of root.
            let prompt =
                line.split_once("$ ").filter(|(user, _)| user.chars().all(|c| c.is_ascii_lowercase()));
            let Some((_, typed)) =
                prompt.or_else(|| line.split_once("# ").filter(|(user, _)| user.is_empty()))
            else {
                continue;
            };
            for words in commands(typed) {
                if words.first().is_none_or(|program| program != "walt") {
                    continue;
                }
                // A form with placeholders stands for several command lines; numbers are checked by those.
                if words.iter().any(|word| word.starts_with('<') || word.starts_with('[')) {
                    continue;
                }
                let arguments = words[1..].iter().map(OsString::from).collect();
                if let Err(failure) = cli::parse(arguments) {
                    assert!(
                        matches!(failure, Failure::Help { status: 0, .. }),
                        "'{line}' in {topic}: {failure:?}"
                    );
                }
                count += 1;
            }
        }
    }
    assert!(count > 150, "{count} command lines");
}

/// The commands of a line for a shell, each as its words, as far as the pages need it.
fn commands(line: &str) -> Vec<Vec<String>> {
    let mut commands = vec![Vec::new()];
    let (mut word, mut quote) = (None::<String>, None::<char>);
    let end = |word: &mut Option<String>, commands: &mut Vec<Vec<String>>| {
        if let (Some(word), Some(last)) = (word.take(), commands.last_mut()) {
            last.push(word);
        }
    };
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(mark), _) if mark == character => quote = None,
            (None, '\'' | '"') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(characters.next()),
            (Some(_), _) => word.get_or_insert_default().push(character),
            (None, '#') if word.is_none() => break,
            (None, ' ') => end(&mut word, &mut commands),
            (None, '|' | '&' | ';') => {
                end(&mut word, &mut commands);
                commands.push(Vec::new());
            }
            (None, _) => word.get_or_insert_default().push(character),
        }
    }
    end(&mut word, &mut commands);
    commands
}

#[test]
fn lines_are_split_as_a_shell_does() {
    assert_eq!(
        commands("a 'b c' \"d \\\" e\" f\\ g | h; i & # j"),
        vec![vec!["a", "b c", "d \" e", "f g"], vec!["h"], vec!["i"], vec![]]
    );
}

/// A message that says `walt help show X` leads to a topic: in the sources, in what runs on nodes, in recipes.
#[test]
fn messages_lead_to_topics_that_exist() {
    let topics: BTreeSet<&str> = all().iter().map(|topic| topic.topic).collect();
    let mut files: Vec<PathBuf> =
        ["README.md", "SECURITY.md", "ARCHITECTURE.md", "CHANGELOG.md", "docs/server.md"]
            .map(|file| repository().join(file))
            .into();
    for dir in ["crates", "node", "images", "scripts"] {
        files_below(&repository().join(dir), &mut files);
    }
    let mut count = 0;
    for file in files {
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        for (at, found) in text.match_indices("walt help show") {
            // A string may go on in the next line of the source.
            let rest = text[at + found.len()..].trim_start_matches([' ', '\\', '\n', '`']);
            let name: String =
                rest.chars().take_while(|c| c.is_ascii_lowercase() || "-0123456789".contains(*c)).collect();
            let behind = &text[at + found.len()..];
            if !behind.starts_with(' ') || name.is_empty() {
                continue;
            }
            assert!(topics.contains(name.as_str()), "'walt help show {name}' in {}", file.display());
            count += 1;
        }
    }
    assert!(count > 40, "{count} messages");
}

fn files_below(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" {
                files_below(&path, files);
            }
        } else if !path.ends_with("topics/tests.rs") && !path.ends_with("walt-cli/src/complete.rs") {
            // Completion has begun names in its tests.
            files.push(path);
        }
    }
}
