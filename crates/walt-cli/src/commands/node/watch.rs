//! `walt node show --watch`: the table while it changes, or a line for each change.

use super::show::{cells_of, text};
use crate::{
    context::Context,
    error::Failure,
    live::{Follower, Turn, Until, Wanted},
    terminal::window_size,
    ui,
};
use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::time::Duration;
use walt_api::{Node, NodeState};
use walt_client::State;

/// How often times in the table advance.
const TICK: Duration = Duration::from_secs(1);
/// Least time between two tables.
const FRAME: Duration = Duration::from_millis(100);
/// The other screen of the terminal, without what was there; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// Shows nodes until ctrl-C, which is its normal end.
pub async fn watch(context: &mut Context, user: &str, all: bool) -> Result<(), Failure> {
    let mut follower = Follower::open(context, Wanted { kinds: "node", nodes: None }).await?;
    // The table is what is seen.
    context.ui.busy.disable();
    let done = if io::stdout().is_terminal() {
        ui::out_text(ENTER)?;
        let done = table(context, &mut follower, user, all).await;
        ui::out_text(LEAVE)?;
        done
    } else {
        lines(context, &mut follower, user, all).await
    };
    match done {
        Err(Failure::Aborted { .. }) => Ok(()),
        other => other,
    }
}

/// The nodes that are shown, with what changes by the clock; in the order of the table.
fn shown(state: &State, user: &str, all: bool) -> Vec<Node> {
    let now = state.now();
    let mut nodes: Vec<Node> =
        state.nodes.values().filter(|node| all || node.owner == user).map(|node| at(node, now)).collect();
    nodes.sort_by(|a, b| (&a.owner, &a.name).cmp(&(&b.owner, &b.name)));
    nodes
}

/// A node at a moment.
fn at(node: &Node, now: f64) -> Node {
    let mut node = node.clone();
    if let (NodeState::Booting, Some(started)) = (node.state, node.boot_started) {
        node.booted_text = format!("booting {}s", (now - started).max(0.0) as u64);
    }
    if let Some(lease) = &mut node.lease {
        lease.seconds_left = lease.ends_at.map(|end| (end as f64 - now).max(0.0) as u64);
    }
    node
}

async fn table(context: &mut Context, follower: &mut Follower, user: &str, all: bool) -> Result<(), Failure> {
    loop {
        let nodes = shown(&follower.state, user, all);
        let top = if follower.is_connected() {
            ""
        } else {
            "The connection to the server broke: connecting again.\n\n"
        };
        ui::out_text(&frame(&format!("{top}{}", text(&nodes, user)), window_size()))?;
        let began = Until::now();
        if let Turn::News(_) = follower.turn(context, Some(began + TICK)).await? {
            // What comes together is shown together.
            while let Turn::News(_) = follower.turn(context, Some(began + FRAME)).await? {}
        }
    }
}

/// A table as it is drawn: lines are cut at the edge of the screen, and what is below it is counted.
fn frame(text: &str, (rows, columns): (u16, u16)) -> String {
    let (rows, columns) = (usize::from(rows).max(2), usize::from(columns));
    let lines: Vec<&str> = if text.is_empty() { vec!["No nodes."] } else { text.lines().collect() };
    let fits = lines.len() < rows;
    let room = if fits { lines.len() } else { rows - 2 };
    let mut out = "\x1b[H".to_owned();
    for line in &lines[..room] {
        out += &cut(line, columns);
        out += "\x1b[K\r\n";
    }
    if !fits {
        out += &format!("… {} more lines\x1b[K\r\n", lines.len() - room);
    }
    out + "\x1b[J"
}

/// The start of a line: this many characters, without counting those that only change their style.
fn cut(line: &str, columns: usize) -> String {
    let (mut out, mut left, mut style) = (String::new(), columns, false);
    for c in line.chars() {
        match c {
            '\x1b' => style = true,
            _ if style => style = c != 'm',
            _ if left == 0 => continue,
            _ => left -= 1,
        }
        out.push(c);
    }
    out
}

async fn lines(context: &mut Context, follower: &mut Follower, user: &str, all: bool) -> Result<(), Failure> {
    let mut before = BTreeMap::new();
    loop {
        let now = rows(&follower.state, user, all);
        changes(&before, &now).iter().try_for_each(|line| ui::out(line))?;
        before = now;
        follower.turn(context, None).await?;
    }
}

/// Name and cells of each node, by MAC address, without what changes by the clock.
type Rows = BTreeMap<String, (String, Vec<(&'static str, String)>)>;

fn rows(state: &State, user: &str, all: bool) -> Rows {
    let nodes = state.nodes.iter().filter(|(_, node)| all || node.owner == user);
    nodes.map(|(mac, node)| (mac.clone(), (node.name.clone(), cells_of(node)))).collect()
}

/// What is different, a line for each node.
fn changes(before: &Rows, now: &Rows) -> Vec<String> {
    let mut lines = Vec::new();
    for (mac, (name, cells)) in now {
        let old = before.get(mac);
        let new = cells.iter().filter(|cell| old.is_none_or(|(_, old)| !old.contains(cell)));
        let mut parts: Vec<String> = new.map(|(column, value)| format!("{column} {value}")).collect();
        if let Some((old, _)) = old.filter(|(old, _)| old != name) {
            parts.insert(0, format!("was {old}"));
        }
        if !parts.is_empty() {
            lines.push(format!("{name}: {}", parts.join(", ")));
        }
    }
    let gone = before.iter().filter(|(mac, _)| !now.contains_key(*mac));
    lines.extend(gone.map(|(_, (name, _))| format!("{name}: not shown any more")));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Columns of a row, by name.
    type Columns<'a> = &'a [(&'static str, &'a str)];

    fn rows_of(all: &[(&str, &str, Columns<'_>)]) -> Rows {
        let row = |(mac, name, cells): &(&str, &str, &[(&'static str, &str)])| {
            let cells = cells.iter().map(|(column, value)| (*column, (*value).to_owned())).collect();
            ((*mac).to_owned(), ((*name).to_owned(), cells))
        };
        all.iter().map(row).collect()
    }

    #[test]
    fn lines_say_what_has_changed() {
        let first =
            rows_of(&[("1", "a", &[("image", "x"), ("booted", "NO")]), ("2", "b", &[("image", "x")])]);
        assert_eq!(changes(&Rows::new(), &first), ["a: image x, booted NO", "b: image x"]);
        assert!(changes(&first, &first).is_empty());
        let next = rows_of(&[("1", "c", &[("image", "x"), ("booted", "yes")])]);
        assert_eq!(changes(&first, &next), ["c: was a, booted yes", "b: not shown any more"]);
    }

    #[test]
    fn a_frame_fits_the_screen() {
        assert_eq!(frame("ab\ncd\n", (24, 80)), "\x1b[Hab\x1b[K\r\ncd\x1b[K\r\n\x1b[J");
        assert_eq!(frame("", (24, 80)), "\x1b[HNo nodes.\x1b[K\r\n\x1b[J");
        let long = frame("1\n2\n3\n4\n", (4, 80));
        assert_eq!(long, "\x1b[H1\x1b[K\r\n2\x1b[K\r\n… 2 more lines\x1b[K\r\n\x1b[J");
        assert_eq!(frame("1\n2\n3\n", (4, 80)).matches("\r\n").count(), 3);
        assert_eq!(cut("\x1b[1mtitle\x1b[0m", 3), "\x1b[1mtit\x1b[0m");
        assert_eq!(cut("ab", 2), "ab");
    }
}
