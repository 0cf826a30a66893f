//! A page as lines of a terminal of some width.

use super::{
    table,
    text::{Cell, Style, Text, plain, styled, wrap},
};
use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

/// Lines of text are not longer than this, since they are hard to read then; tables may be.
const TEXT_WIDTH: usize = 100;
/// Narrowest width that is rendered; what is narrower is cut by the terminal.
const LEAST_WIDTH: usize = 20;
/// Columns by which blocks of code are indented.
const CODE_INDENT: usize = 4;
/// Columns by which the rest of a broken line of code is indented further.
const CODE_REST: usize = 4;

/// A page, rendered.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// Its lines, without trailing spaces.
    pub lines: Vec<Text>,
    /// Where its links lead: names of topics. Each [`Style::link`] is a position in this list.
    pub links: Vec<String>,
}

impl Page {
    /// All lines with escape sequences for styles, each with its end.
    pub fn ansi(&self) -> String {
        self.lines.iter().map(|line| ansi(line) + "\n").collect()
    }
}

/// A line with escape sequences (ECMA-48): bold, underlined for code and links.
pub fn ansi(line: &[Cell]) -> String {
    let mut text = String::new();
    let mut last = Style::default();
    for (character, style) in line {
        if *style != last {
            text += "\x1b[0m";
            text += if style.bold { "\x1b[1m" } else { "" };
            text += if style.link.is_some() {
                "\x1b[4;36m"
            } else if style.code {
                "\x1b[36m"
            } else {
                ""
            };
            last = *style;
        }
        text.push(*character);
    }
    if last != Style::default() {
        text += "\x1b[0m";
    }
    text
}

/// What a page consists of.
#[derive(Debug)]
enum Block {
    Heading(Text),
    Paragraph(Text),
    Code(Vec<String>),
    /// With the first number, if the items have numbers.
    List(Option<u64>, Vec<Vec<Block>>),
    Table(Vec<Text>, Vec<Vec<Text>>),
}

/// Renders a page for a terminal of `width` columns.
pub fn page(markdown: &str, width: usize) -> Page {
    let mut reader = Reader { events: Parser::new_ext(markdown, Options::ENABLE_TABLES), links: Vec::new() };
    let blocks = reader.blocks();
    let mut page = Page { lines: Vec::new(), links: reader.links };
    layout(&blocks, width.max(LEAST_WIDTH), &mut page.lines);
    for line in &mut page.lines {
        while line.last().is_some_and(|(character, _)| *character == ' ') {
            line.pop();
        }
    }
    page
}

struct Reader<'a> {
    events: Parser<'a>,
    links: Vec<String>,
}

impl Reader<'_> {
    /// The blocks up to the end of what contains them.
    fn blocks(&mut self) -> Vec<Block> {
        let mut blocks = Vec::new();
        // Text without a paragraph of its own: the items of a tight list.
        let mut loose = Text::new();
        while let Some(event) = self.events.next() {
            let block = match event {
                Event::End(_) => break,
                Event::Start(Tag::Heading { .. }) => {
                    Block::Heading(self.text(Style { bold: true, ..Style::default() }))
                }
                Event::Start(Tag::Paragraph) => Block::Paragraph(self.text(Style::default())),
                Event::Start(Tag::CodeBlock(
                    _kind @ (CodeBlockKind::Fenced(_) | CodeBlockKind::Indented),
                )) => Block::Code(self.code()),
                Event::Start(Tag::List(first)) => Block::List(first, self.items()),
                Event::Start(Tag::Table(_)) => self.table(),
                Event::Start(tag) => {
                    self.inline(tag, Style::default(), &mut loose);
                    continue;
                }
                other => {
                    self.word(&other, Style::default(), &mut loose);
                    continue;
                }
            };
            if !loose.is_empty() {
                blocks.push(Block::Paragraph(std::mem::take(&mut loose)));
            }
            blocks.push(block);
        }
        if !loose.is_empty() {
            blocks.push(Block::Paragraph(loose));
        }
        blocks
    }

    fn items(&mut self) -> Vec<Vec<Block>> {
        let mut items = Vec::new();
        while let Some(Event::Start(_)) = self.events.next() {
            items.push(self.blocks());
        }
        items
    }

    fn code(&mut self) -> Vec<String> {
        let mut code = String::new();
        while let Some(Event::Text(text)) = self.events.next() {
            code += &text;
        }
        code.lines().map(str::to_owned).collect()
    }

    fn table(&mut self) -> Block {
        let (mut head, mut rows) = (Vec::new(), Vec::new());
        while let Some(Event::Start(part)) = self.events.next() {
            let mut cells = Vec::new();
            while let Some(Event::Start(_)) = self.events.next() {
                cells.push(self.text(Style::default()));
            }
            match part {
                Tag::TableHead => head = cells,
                _ => rows.push(cells),
            }
        }
        Block::Table(head, rows)
    }

    /// Text up to the end of what contains it.
    fn text(&mut self, style: Style) -> Text {
        let mut text = Text::new();
        while let Some(event) = self.events.next() {
            match event {
                Event::End(TagEnd::Paragraph | TagEnd::Heading(_) | TagEnd::TableCell) => break,
                Event::End(_) => break,
                Event::Start(tag) => self.inline(tag, style, &mut text),
                other => self.word(&other, style, &mut text),
            }
        }
        text
    }

    fn inline(&mut self, tag: Tag<'_>, style: Style, text: &mut Text) {
        let style = match tag {
            Tag::Strong | Tag::Emphasis => Style { bold: true, ..style },
            Tag::Link { dest_url, .. } => {
                self.links.push(dest_url.strip_suffix(".md").unwrap_or(&dest_url).to_owned());
                Style { link: Some(self.links.len() - 1), ..style }
            }
            _ => style,
        };
        text.extend(self.text(style));
    }

    fn word(&mut self, event: &Event<'_>, style: Style, text: &mut Text) {
        match event {
            Event::Text(part) => text.extend(styled(part, style)),
            Event::Code(part) => text.extend(styled(part, Style { code: true, ..style })),
            Event::SoftBreak | Event::HardBreak => text.push((' ', style)),
            // The pages have no HTML: what looks like it is a placeholder.
            Event::InlineHtml(part) | Event::Html(part) => text.extend(styled(part, style)),
            _ => {}
        }
    }
}

fn layout(blocks: &[Block], width: usize, lines: &mut Vec<Text>) {
    for (at, block) in blocks.iter().enumerate() {
        if at > 0 {
            lines.push(Text::new());
        }
        match block {
            Block::Heading(text) => lines.extend(wrap(text, width.min(TEXT_WIDTH))),
            Block::Paragraph(text) => lines.extend(wrap(text, width.min(TEXT_WIDTH))),
            Block::Code(code) => code.iter().for_each(|line| lines.extend(code_line(line, width))),
            Block::Table(head, rows) => lines.extend(table::lines(head, rows, width)),
            Block::List(first, items) => list(*first, items, width, lines),
        }
    }
}

/// A line of code; one that is too long goes on in the next one, indented further.
fn code_line(line: &str, width: usize) -> Vec<Text> {
    let style = Style { code: true, ..Style::default() };
    let room = width - CODE_INDENT;
    let mut rest = styled(line, style);
    let mut lines = Vec::new();
    let mut indent = CODE_INDENT;
    loop {
        let room = room + CODE_INDENT - indent;
        let end = if rest.len() <= room {
            rest.len()
        } else {
            // Behind the last space that fits, unless that would leave next to nothing on the line.
            let space = rest[..room].iter().rposition(|(character, _)| *character == ' ');
            space.filter(|at| *at > room / 2).map_or(room, |at| at + 1)
        };
        let next = rest.split_off(end);
        let mut text = plain(&" ".repeat(indent));
        text.extend(rest);
        lines.push(text);
        if next.is_empty() {
            return lines;
        }
        rest = next;
        indent = CODE_INDENT + CODE_REST;
    }
}

fn list(first: Option<u64>, items: &[Vec<Block>], width: usize, lines: &mut Vec<Text>) {
    // Items of several blocks are apart.
    let apart = items.iter().any(|item| item.len() > 1);
    for (at, item) in items.iter().enumerate() {
        if apart && at > 0 {
            lines.push(Text::new());
        }
        let mark = first.map_or_else(|| "- ".to_owned(), |first| format!("{}. ", first + at as u64));
        let indent = mark.chars().count();
        let mut inner = Vec::new();
        layout(item, width - indent, &mut inner);
        for (at, line) in inner.into_iter().enumerate() {
            let mut text = if at == 0 { plain(&mark) } else { plain(&" ".repeat(indent)) };
            text.extend(line);
            lines.push(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(markdown: &str, width: usize) -> String {
        let page = page(markdown, width);
        page.lines.iter().map(|line| line.iter().map(|(c, _)| *c).chain(['\n']).collect::<String>()).collect()
    }

    #[test]
    fn blocks_are_lines() {
        let markdown = "# T\n\nsome `code` and\n**words** <x>\n\n1. one two three four five\n2. b\n\n- x\n\n  y\n- z\n\n\
                        ```text\n$ walt node show --all --json\nlast\n```\n";
        assert_eq!(
            text(markdown, 24),
            "T\n\nsome code and words <x>\n\n1. one two three four\n   five\n2. b\n\n- x\n\n  y\n\n- z\n\n    \
             $ walt node show\n        --all --json\n    last\n"
        );
    }

    #[test]
    fn links_lead_to_topics() {
        let page = page("see [walt help show shells](shells.md), or `this`\n", 80);
        assert_eq!(page.links, ["shells"]);
        assert_eq!(
            page.ansi(),
            "see \x1b[0m\x1b[4;36mwalt help show shells\x1b[0m, or \x1b[0m\x1b[36mthis\x1b[0m\n"
        );
    }
}
