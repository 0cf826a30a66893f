//! Text with styles, and how it is broken into lines.
//!
//! A character takes one column: the pages use no wide ones, which a test checks.

/// How a character is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Style {
    /// Headings, and what is emphasised.
    pub bold: bool,
    /// Commands, names of files, and other words of a language.
    pub code: bool,
    /// It belongs to this link of the page, by its number.
    pub link: Option<usize>,
}

/// A character and its style.
pub type Cell = (char, Style);

/// A run of characters, without ends of lines.
pub type Text = Vec<Cell>;

/// Plain characters.
pub fn plain(text: &str) -> Text {
    styled(text, Style::default())
}

/// Characters of one style.
pub fn styled(text: &str, style: Style) -> Text {
    text.chars().map(|c| (c, style)).collect()
}

/// Breaks a text into lines of at most `width` characters (at least one), at spaces. A link that fits on a line is not
/// broken; a word that does not fit on a line is.
pub fn wrap(text: &[Cell], width: usize) -> Vec<Text> {
    let width = width.max(1);
    let mut lines: Vec<Text> = Vec::new();
    let mut line = Text::new();
    for word in words(text, width) {
        let gap = usize::from(!line.is_empty());
        if line.len() + gap + word.len() > width && !line.is_empty() {
            lines.push(std::mem::take(&mut line));
        } else if let Some(last) = line.last() {
            // The space of a link or of code that goes on is part of it.
            let style =
                if word.first().is_some_and(|first| first.1 == last.1) { last.1 } else { Style::default() };
            line.push((' ', style));
        }
        let mut rest = word;
        while rest.len() > width {
            lines.push(rest[..width].to_vec());
            rest = &rest[width..];
        }
        line.extend_from_slice(rest);
    }
    if !line.is_empty() || lines.is_empty() {
        lines.push(line);
    }
    lines
}

/// What stands between spaces; a link of at most `width` characters is one word.
fn words(text: &[Cell], width: usize) -> Vec<&[Cell]> {
    let is_short = |link: usize| text.iter().filter(|(_, style)| style.link == Some(link)).count() <= width;
    let mut words = Vec::new();
    let mut start = None;
    for (at, (character, style)) in text.iter().enumerate() {
        let breaks = *character == ' ' && !style.link.is_some_and(is_short);
        match start {
            Some(begin) if breaks => {
                words.push(&text[begin..at]);
                start = None;
            }
            None if !breaks => start = Some(at),
            _ => {}
        }
    }
    words.extend(start.map(|begin| &text[begin..]));
    words
}

/// The longest word, in characters.
pub fn longest_word(text: &[Cell]) -> usize {
    text.split(|(character, _)| *character == ' ').map(<[Cell]>::len).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(lines: &[Text]) -> Vec<String> {
        lines.iter().map(|line| line.iter().map(|(c, _)| c).collect()).collect()
    }

    #[test]
    fn lines_end_at_spaces() {
        assert_eq!(string(&wrap(&plain("one two three"), 7)), ["one two", "three"]);
        assert_eq!(string(&wrap(&plain("one  two"), 3)), ["one", "two"]);
        assert_eq!(string(&wrap(&plain("abcdefgh i"), 3)), ["abc", "def", "gh", "i"]);
        assert_eq!(string(&wrap(&plain(""), 3)), [""]);
    }

    #[test]
    fn links_stay_whole_if_they_can() {
        let link = Style { link: Some(0), ..Style::default() };
        let text = [plain("see "), styled("a b c", link), plain(" now")].concat();
        assert_eq!(string(&wrap(&text, 7)), ["see", "a b c", "now"]);
        assert_eq!(string(&wrap(&text, 3)), ["see", "a b", "c", "now"]);
        let line = &wrap(&text, 20)[0];
        assert_eq!(line[5], (' ', link));
        assert_eq!(line[3], (' ', Style::default()));
    }
}
