//! Where statements end: at a `;` that is not in a string, a quoted name or a comment.

/// What is open at the end of the text.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Open {
    /// Nothing.
    #[default]
    No,
    /// A string or a name in these quotes.
    Quotes(char),
    /// `/* …`
    Comment,
}

/// Gathers lines until a statement is complete.
#[derive(Debug, Default)]
pub struct Splitter {
    text: String,
    open: Open,
}

impl Splitter {
    /// Whether no statement has begun.
    pub fn is_empty(&self) -> bool {
        self.open == Open::No && self.text.trim().is_empty()
    }

    /// Adds a line; the statements that are complete, without their `;`.
    pub fn add(&mut self, line: &str) -> Vec<String> {
        let mut complete = Vec::new();
        let mut chars = line.chars().peekable();
        while let Some(c) = chars.next() {
            let follows = chars.peek().copied();
            match (self.open, c) {
                (Open::No, '-') if follows == Some('-') => break,
                (Open::No, '/') if follows == Some('*') => {
                    chars.next();
                    self.open = Open::Comment;
                    continue;
                }
                (Open::Comment, '*') if follows == Some('/') => {
                    chars.next();
                    self.open = Open::No;
                    // A comment separates words.
                    self.text.push(' ');
                    continue;
                }
                (Open::Comment, _) => continue,
                (Open::No, ';') => {
                    let statement = std::mem::take(&mut self.text);
                    complete.extend(Some(statement.trim().to_owned()).filter(|text| !text.is_empty()));
                    continue;
                }
                (Open::No, '\'' | '"' | '`') => self.open = Open::Quotes(c),
                // The second one of '' opens the quotes again.
                (Open::Quotes(quote), c) if c == quote => self.open = Open::No,
                _ => {}
            }
            self.text.push(c);
        }
        if self.open != Open::Comment {
            self.text.push('\n');
        }
        if self.open == Open::No && self.text.trim().is_empty() {
            self.text.clear();
        }
        complete
    }

    /// What is left without a `;`.
    pub fn rest(self) -> Option<String> {
        Some(self.text.trim().to_owned()).filter(|text| !text.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(lines: &[&str]) -> (Vec<String>, Option<String>) {
        let mut splitter = Splitter::default();
        let complete = lines.iter().flat_map(|line| splitter.add(line)).collect();
        (complete, splitter.rest())
    }

    #[test]
    fn statements_end_at_semicolons_of_their_own() {
        let of = |lines: &[&str]| split(lines).0;
        assert_eq!(of(&["SELECT 1; SELECT 2;", ";;"]), ["SELECT 1", "SELECT 2"]);
        assert_eq!(of(&["SELECT", "1", ";"]), ["SELECT\n1"]);
        assert_eq!(of(&["SELECT 'a;''b', \"c;\", `d;`;"]), ["SELECT 'a;''b', \"c;\", `d;`"]);
        assert_eq!(of(&["SELECT 'two", "lines; still';"]), ["SELECT 'two\nlines; still'"]);
        assert_eq!(of(&["SELECT 1 -- one; not", ", 2; -- end"]), ["SELECT 1 \n, 2"]);
        assert_eq!(of(&["/* a; ", "b; */SELECT/**/3;"]), ["SELECT 3"]);
        assert_eq!(of(&["SELECT 4-2/1;"]), ["SELECT 4-2/1"]);
    }

    #[test]
    fn what_is_left() {
        assert_eq!(split(&["SELECT 1; SELECT", "2"]).1.as_deref(), Some("SELECT\n2"));
        assert_eq!(split(&["SELECT 1;", "  ", "-- end"]).1, None);
        let mut splitter = Splitter::default();
        splitter.add(" ");
        assert!(splitter.is_empty());
        splitter.add("/*");
        assert!(!splitter.is_empty());
    }
}
