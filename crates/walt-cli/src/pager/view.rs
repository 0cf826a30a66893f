//! What the pager shows: a page, a place in it, a selected link, a search.

use super::keys::Key;
use crate::topics::{
    self,
    render::{self, Page},
    text::{Style, Text},
};

/// Pages that can be gone back to; the oldest ones are forgotten.
const HISTORY: usize = 100;
/// Longest text that is searched for, in characters.
const SEARCH_LENGTH: usize = 100;
/// What the last line of the screen says about keys.
const KEYS: &str = "tab: next link  enter: open  backspace: back  /: search  q: quit";

/// Where the reader is.
#[derive(Debug, Clone)]
struct Place {
    topic: String,
    /// First line on the screen.
    top: usize,
    /// A link of the page.
    selected: Option<usize>,
}

/// The state of the pager.
#[derive(Debug)]
pub struct View {
    rows: usize,
    columns: usize,
    place: Place,
    history: Vec<Place>,
    page: Page,
    search: String,
    /// What is being typed after `/`.
    typing: Option<String>,
    message: String,
}

impl View {
    /// Shows a topic on a terminal of this size (lines, columns).
    pub fn new(topic: &str, (rows, columns): (u16, u16)) -> Self {
        let mut view = Self {
            rows: rows.into(),
            columns: columns.into(),
            place: Place { topic: topic.to_owned(), top: 0, selected: None },
            history: Vec::new(),
            page: Page::default(),
            search: String::new(),
            typing: None,
            message: String::new(),
        };
        view.render();
        view
    }

    /// The terminal has another size: the reader stays at about the same place.
    pub fn resize(&mut self, (rows, columns): (u16, u16)) {
        let before = self.page.lines.len().max(1);
        (self.rows, self.columns) = (rows.into(), columns.into());
        self.render();
        self.scroll_to(self.place.top * self.page.lines.len() / before);
    }

    fn render(&mut self) {
        let markdown = topics::find(&self.place.topic).map_or("", |topic| topic.markdown);
        self.page = render::page(markdown, self.columns);
    }

    /// Lines of the page on the screen; the last line of the screen is the status.
    fn height(&self) -> usize {
        self.rows.saturating_sub(1).max(1)
    }

    fn scroll_to(&mut self, top: usize) {
        self.place.top = top.min(self.page.lines.len().saturating_sub(self.height()));
    }

    fn scroll(&mut self, lines: isize) {
        self.scroll_to(self.place.top.saturating_add_signed(lines));
    }

    /// Carries out a key; false if the user quits.
    pub fn key(&mut self, key: Key) -> bool {
        self.message.clear();
        if self.typing.is_some() {
            self.type_search(key);
            return true;
        }
        let page = self.height().saturating_sub(1).max(1).cast_signed();
        match key {
            Key::Char('q' | 'Q') | Key::Interrupt => return false,
            Key::Down | Key::Char('j' | 'e') => self.scroll(1),
            Key::Up | Key::Char('k' | 'y') => self.scroll(-1),
            Key::PageDown | Key::Char(' ' | 'f') => self.scroll(page),
            Key::PageUp | Key::Char('b') => self.scroll(-page),
            Key::Char('d') => self.scroll(page / 2),
            Key::Char('u') => self.scroll(-page / 2),
            Key::Home | Key::Char('g' | '<') => self.scroll_to(0),
            Key::End | Key::Char('G' | '>') => self.scroll_to(usize::MAX),
            Key::Tab => self.select(true),
            Key::BackTab => self.select(false),
            Key::Enter | Key::Right => self.open(),
            Key::Backspace | Key::Left => self.back(),
            Key::Char('/') => self.typing = Some(String::new()),
            Key::Char('n') => self.find(true, false),
            Key::Char('N') => self.find(false, false),
            Key::Char(_) | Key::Escape => {}
        }
        true
    }

    fn type_search(&mut self, key: Key) {
        let Some(typing) = &mut self.typing else { return };
        match key {
            Key::Char(character) if typing.chars().count() < SEARCH_LENGTH => typing.push(character),
            Key::Backspace if !typing.is_empty() => {
                typing.pop();
            }
            Key::Backspace | Key::Escape | Key::Interrupt => self.typing = None,
            Key::Enter => {
                // As in other pagers, nothing repeats what was searched for before.
                if let Some(text) = self.typing.take().filter(|text| !text.is_empty()) {
                    self.search = text;
                }
                self.find(true, true);
            }
            _ => {}
        }
    }

    /// Goes to the next line, or the one before, that has what is searched for.
    fn find(&mut self, forward: bool, here: bool) {
        if self.search.is_empty() {
            "Nothing was searched for yet: / begins a search.".clone_into(&mut self.message);
            return;
        }
        let top = self.place.top;
        let mut lines =
            (0..self.page.lines.len()).filter(|at| !self.matches(&self.page.lines[*at]).is_empty());
        let found = match forward {
            true => lines.find(|at| *at > top || here && *at == top),
            false => lines.take_while(|at| *at < top).last(),
        };
        match found {
            // The end of a page cannot be at the top of the screen.
            Some(at)
                if self.place.top < at
                    && self.page.lines.len() - self.height().min(self.page.lines.len()) <= top =>
            {
                self.message = format!("'{}' is on this screen.", self.search);
            }
            Some(at) => self.scroll_to(at),
            None => self.message = format!("'{}' is not found.", self.search),
        }
    }

    /// Where a line has what is searched for: positions of the first characters. Upper and lower case are the same.
    fn matches(&self, line: &Text) -> Vec<usize> {
        let fold = |c: char| c.to_lowercase().next().unwrap_or(c);
        let wanted: Vec<char> = self.search.chars().map(fold).collect();
        let line: Vec<char> = line.iter().map(|(character, _)| fold(*character)).collect();
        if wanted.is_empty() {
            return Vec::new();
        }
        line.windows(wanted.len()).enumerate().filter(|(_, part)| *part == wanted).map(|(at, _)| at).collect()
    }

    /// The first line of each link.
    fn line_of(&self, link: usize) -> usize {
        let has = |line: &Text| line.iter().any(|(_, style)| style.link == Some(link));
        self.page.lines.iter().position(has).unwrap_or(0)
    }

    /// Selects the next link, or the one before: the nearest one on the screen if none is selected there.
    fn select(&mut self, forward: bool) {
        let count = self.page.links.len();
        if count == 0 {
            "This page has no links.".clone_into(&mut self.message);
            return;
        }
        let screen = self.place.top..self.place.top + self.height();
        let next = match self.place.selected.filter(|link| screen.contains(&self.line_of(*link))) {
            Some(link) if forward => (link + 1) % count,
            Some(link) => (link + count - 1) % count,
            None if forward => (0..count).find(|link| self.line_of(*link) >= screen.start).unwrap_or(0),
            None => (0..count).rfind(|link| self.line_of(*link) < screen.end).unwrap_or(count - 1),
        };
        self.place.selected = Some(next);
        let line = self.line_of(next);
        if !screen.contains(&line) {
            self.scroll_to(line.saturating_sub(self.height() / 2));
        }
    }

    fn open(&mut self) {
        let Some(topic) = self.place.selected.and_then(|link| self.page.links.get(link)) else {
            return self.scroll(1);
        };
        if topics::find(topic).is_none() {
            self.message = format!("{topic} is not a topic of this help.");
            return;
        }
        let next = Place { topic: topic.clone(), top: 0, selected: None };
        if self.history.len() == HISTORY {
            self.history.remove(0);
        }
        self.history.push(std::mem::replace(&mut self.place, next));
        self.render();
    }

    fn back(&mut self) {
        let Some(place) = self.history.pop() else {
            "This is the first page.".clone_into(&mut self.message);
            return;
        };
        let top = place.top;
        self.place = place;
        self.render();
        self.scroll_to(top);
    }

    /// The whole screen, with escape sequences.
    pub fn screen(&self) -> String {
        let mut text = String::new();
        let lines = self.page.lines.iter().skip(self.place.top).take(self.height());
        let mut row = 1;
        for line in lines {
            text += &format!("\x1b[{row};1H{}\x1b[K", self.line(line));
            row += 1;
        }
        for row in row..self.rows.max(1) {
            text += &format!("\x1b[{row};1H\x1b[K");
        }
        let status: String = self.status().chars().take(self.columns).collect();
        text + &format!("\x1b[{};1H\x1b[7m{status:width$}\x1b[0m", self.rows.max(1), width = self.columns)
    }

    /// A line, with the selected link and what is searched for in reverse video.
    fn line(&self, line: &Text) -> String {
        let width = self.search.chars().count();
        let found = self.matches(line);
        let mut text = String::new();
        let mut part = Text::new();
        let mut reversed = false;
        let flush = |part: &mut Text, reversed: bool, text: &mut String| {
            let styled = render::ansi(part);
            *text += &match reversed {
                // Each change of style ends the reverse video: begin it again.
                true => format!("\x1b[7m{}\x1b[0m", styled.replace("\x1b[0m", "\x1b[0;7m")),
                false => styled,
            };
            part.clear();
        };
        for (at, (character, style)) in line.iter().take(self.columns).enumerate() {
            let is_link = |style: &Style| style.link.is_some() && style.link == self.place.selected;
            let is_found = found.iter().any(|begin| (*begin..begin + width).contains(&at));
            if (is_link(style) || is_found) != reversed {
                flush(&mut part, reversed, &mut text);
                reversed = !reversed;
            }
            part.push((*character, *style));
        }
        flush(&mut part, reversed, &mut text);
        text
    }

    fn status(&self) -> String {
        if let Some(typing) = &self.typing {
            return format!("/{typing}");
        }
        let (lines, last) = (self.page.lines.len(), self.place.top + self.height());
        let where_ = match lines {
            lines if lines <= self.height() => "all".to_owned(),
            lines if last >= lines => "end".to_owned(),
            lines => format!("{} %", last * 100 / lines),
        };
        let rest = if self.message.is_empty() { KEYS } else { &self.message };
        format!("{} ({where_})  {rest}", self.place.topic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The screen without escape sequences.
    fn shown(view: &View) -> String {
        let mut text = String::new();
        let screen = view.screen();
        let mut characters = screen.chars();
        while let Some(character) = characters.next() {
            if character == '\x1b' {
                let end = characters.by_ref().skip(1).find(|c| ('@'..='~').contains(c));
                if end == Some('H') {
                    text.push('\n');
                }
            } else {
                text.push(character);
            }
        }
        text
    }

    fn press(view: &mut View, keys: &[Key]) {
        for key in keys {
            assert!(view.key(*key), "{key:?}");
        }
    }

    #[test]
    fn links_are_selected_opened_and_left() {
        let mut view = View::new("node-config", (24, 80));
        assert!(shown(&view).contains("Settings of nodes"), "{}", shown(&view));
        press(&mut view, &[Key::Tab]);
        assert!(view.screen().contains("\x1b[7m"), "the link is shown as selected");
        press(&mut view, &[Key::Enter]);
        assert!(shown(&view).contains("Settings of nodes and other devices"), "{}", shown(&view));
        assert!(shown(&view).contains("device-config ("));
        press(&mut view, &[Key::PageDown, Key::Backspace]);
        assert!(shown(&view).contains("node-config (all)"));
        press(&mut view, &[Key::Backspace]);
        assert!(shown(&view).contains("This is the first page."));
        assert!(!view.key(Key::Char('q')));
    }

    #[test]
    fn a_search_goes_to_the_line() {
        let mut view = View::new("node-bootup", (24, 80));
        let typed: Vec<Key> = "/secure BOOT".chars().map(Key::Char).chain([Key::Enter]).collect();
        press(&mut view, &typed);
        let first = view.place.top;
        assert!(first > 0 && shown(&view).contains("Secure Boot"), "{}", shown(&view));
        press(&mut view, &[Key::Char('n')]);
        assert!(view.place.top > first);
        press(&mut view, &[Key::Char('N')]);
        assert_eq!(view.place.top, first);
        press(&mut view, &"/zebra".chars().map(Key::Char).chain([Key::Enter]).collect::<Vec<_>>());
        assert!(shown(&view).contains("'zebra' is not found."), "{}", shown(&view));
        assert_eq!(view.place.top, first);
    }

    #[test]
    fn every_size_has_a_screen() {
        let mut view = View::new("help-intro", (24, 80));
        press(&mut view, &[Key::End]);
        for size in [(1, 1), (2, 10), (50, 200), (24, 60)] {
            view.resize(size);
            let screen = shown(&view);
            assert!(screen.lines().all(|line| line.chars().count() <= size.1.into()), "{size:?}: {screen}");
            press(&mut view, &[Key::Tab, Key::BackTab, Key::Down, Key::PageUp, Key::End]);
        }
    }
}
