//! The text of the configuration file, edited by line: what the user wrote stays, comments too.
//!
//! A changed key is found by its line and indentation. In block style, only its own line changes; a mapping in flow
//! style (`{…}`) is written again in one line. The result is parsed and must have exactly the values that were wanted;
//! where it has not (JSON, flows over several lines, anchors), the whole file is written again from its values, and
//! the caller says that its comments are gone.

use anyhow::{Context, Result};
use serde_norway::{Mapping, Value};

/// The start of a file that did not exist.
pub const HEADER: &str = "# Configuration of walt-server, begun by 'walt-server setup', which can be run again.\n\
# All keys are optional: 'walt help show server-network-config' and docs/server.md have them.\n\
# 'walt-server check-config' checks this file.\n";
/// The start of a file that had to be written again.
const REWRITTEN: &str =
    "# Written again by 'walt-server setup'; the file before it is next to it, as *.old.\n";

/// A key that gets another value.
#[derive(Debug, Clone, PartialEq)]
pub struct Edit {
    /// The way to the key, such as `network`, `walt-net`, `ip`.
    pub path: Vec<String>,
    /// Its value; none removes the key.
    pub value: Option<Value>,
}

impl Edit {
    /// Sets or removes the key at this path.
    pub fn new(path: &[&str], value: Option<Value>) -> Self {
        Self { path: path.iter().map(|p| (*p).to_owned()).collect(), value }
    }
}

/// An edited text.
#[derive(Debug, PartialEq, Eq)]
pub struct Edited {
    /// The text.
    pub text: String,
    /// Whether the lines of the text before were kept.
    pub kept: bool,
}

/// The text with the edits.
///
/// # Errors
/// The text is not YAML, or a key on the way has no keys below it.
pub fn edited(text: &str, edits: &[Edit]) -> Result<Edited> {
    let mut wanted = parsed(text)?;
    for edit in edits {
        let names: Vec<&str> = edit.path.iter().map(String::as_str).collect();
        change(&mut wanted, &names, edit.value.as_ref())?;
    }
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for edit in edits {
        let names: Vec<&str> = edit.path.iter().map(String::as_str).collect();
        let end = lines.len();
        change_lines(&mut lines, 0..end, 0, &names, edit.value.as_ref());
    }
    let mut new = lines.join("\n");
    if !new.is_empty() {
        new.push('\n');
    }
    if parsed(&new).is_ok_and(|value| value == wanted) {
        return Ok(Edited { text: new, kept: true });
    }
    let mut new = REWRITTEN.to_owned();
    for (key, value) in &wanted {
        new.push_str(&entry(key.as_str().unwrap_or_default(), value, 0).join("\n"));
        new.push('\n');
    }
    Ok(Edited { text: new, kept: false })
}

fn parsed(text: &str) -> Result<Mapping> {
    match serde_norway::from_str::<Value>(text).context("the configuration is not YAML")? {
        Value::Mapping(map) => Ok(map),
        Value::Null => Ok(Mapping::new()),
        _ => anyhow::bail!("the configuration is not a map of keys"),
    }
}

/// Changes the value at a path. A mapping that has become empty is removed.
fn change(map: &mut Mapping, path: &[&str], value: Option<&Value>) -> Result<()> {
    let [name, rest @ ..] = path else { return Ok(()) };
    let key = Value::from(*name);
    if rest.is_empty() {
        match value {
            Some(value) => drop(map.insert(key, value.clone())),
            None => drop(map.shift_remove(&key)),
        }
        return Ok(());
    }
    if map.get(&key).is_none_or(|v| v.is_null()) {
        if value.is_none() {
            return Ok(());
        }
        map.insert(key.clone(), Value::Mapping(Mapping::new()));
    }
    let Some(Value::Mapping(below)) = map.get_mut(&key) else {
        anyhow::bail!("the key '{name}' of the configuration has no keys below it");
    };
    change(below, rest, value)?;
    if below.is_empty() {
        map.shift_remove(&key);
    }
    Ok(())
}

/// The key of a line, and what follows its colon.
fn key_of(line: &str) -> Option<(&str, &str)> {
    let text = line.trim_start();
    if text.starts_with(['#', '-', '{', '}', '[', ']']) {
        return None;
    }
    let (key, rest) = text.split_once(':')?;
    let is_key = rest.is_empty() || rest.starts_with([' ', '\t']);
    is_key.then(|| (key.trim().trim_matches(['"', '\'']), rest))
}

fn indent_of(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

fn says_nothing(line: &str) -> bool {
    let text = line.trim_start();
    text.is_empty() || text.starts_with('#')
}

/// The lines of the entry with this key, in a mapping that is indented by `indent`.
fn find(
    lines: &[String],
    within: &std::ops::Range<usize>,
    indent: usize,
    key: &str,
) -> Option<std::ops::Range<usize>> {
    let is_it = |n: &usize| {
        let line = &lines[*n];
        indent_of(line) == indent && key_of(line).is_some_and(|(name, _)| name == key)
    };
    let start = within.clone().find(is_it)?;
    let belongs = |line: &str| {
        says_nothing(line)
            || indent_of(line) > indent
            || (indent_of(line) == indent && line.trim_start().starts_with("- "))
    };
    let mut end = start + 1;
    while end < within.end && belongs(&lines[end]) {
        end += 1;
    }
    // Comments in front of the next key are its own.
    while end > start + 1 && says_nothing(&lines[end - 1]) && indent_of(&lines[end - 1]) <= indent {
        end -= 1;
    }
    Some(start..end)
}

/// What stands after a value: a comment, with the spaces before it.
fn comment_of(rest: &str) -> &str {
    let mut quote = None;
    for (at, c) in rest.char_indices() {
        match (quote, c) {
            (None, '"' | '\'') => quote = Some(c),
            (Some(q), _) if c == q => quote = None,
            (None, '#') if rest[..at].ends_with([' ', '\t']) => return &rest[rest[..at].trim_end().len()..],
            _ => {}
        }
    }
    ""
}

fn change_lines(
    lines: &mut Vec<String>,
    within: std::ops::Range<usize>,
    indent: usize,
    path: &[&str],
    value: Option<&Value>,
) {
    let [key, rest @ ..] = path else { return };
    let Some(found) = find(lines, &within, indent, key) else {
        let Some(value) = value else { return };
        let whole = rest.iter().rev().fold(value.clone(), |inner, name| {
            Value::Mapping(Mapping::from_iter([(Value::from(*name), inner)]))
        });
        let mut at = within.end;
        while indent > 0 && at > within.start && says_nothing(&lines[at - 1]) {
            at -= 1;
        }
        lines.splice(at..at, entry(key, &whole, indent));
        return;
    };
    let after = key_of(&lines[found.start]).map_or("", |(_, rest)| rest).to_owned();
    let comment = comment_of(&after).to_owned();
    let inline = after[..after.len() - comment.len()].trim();
    let below = found.start + 1..found.end;
    if !rest.is_empty() && inline.is_empty() {
        let first = below.clone().find(|n| !says_nothing(&lines[*n]));
        let Some(inner) = first.map(|n| indent_of(&lines[n])).filter(|inner| *inner > indent) else {
            // A key without a value: it has no keys below it yet.
            lines.drain(found);
            return change_lines(lines, within.start..within.end - below.len() - 1, indent, path, value);
        };
        let (before, count) = (lines.len(), below.len());
        change_lines(lines, below.clone(), inner, rest, value);
        let left = below.start..below.start + (count + lines.len() - before);
        if lines[left].iter().all(|line| says_nothing(line)) {
            lines.remove(found.start);
        }
        return;
    }
    // The whole entry as a value, changed, and written again.
    let text = lines[found.clone()].join("\n");
    let Ok(mut map) = serde_norway::from_str::<Mapping>(&text) else { return };
    if change(&mut map, path, value).is_err() {
        return;
    }
    let new = map.get(Value::from(*key)).map_or_else(Vec::new, |value| {
        let mut new = match value {
            Value::Mapping(_) => vec![format!("{:indent$}{key}: {}", "", flow(value))],
            _ => entry(key, value, indent),
        };
        if let Some(first) = new.first_mut() {
            first.push_str(&comment);
        }
        new
    });
    lines.splice(found, new);
}

/// The lines of an entry.
fn entry(key: &str, value: &Value, indent: usize) -> Vec<String> {
    let start = format!("{:indent$}{key}:", "");
    match value {
        Value::Mapping(map) if indent == 0 && map.values().any(Value::is_mapping) => {
            let below = map.iter().map(|(k, v)| format!("  {}: {}", scalar(k), flow(v)));
            std::iter::once(start).chain(below).collect()
        }
        Value::Sequence(list) if indent == 0 && list.iter().any(Value::is_mapping) => {
            let below = list.iter().map(|v| format!("  - {}", flow(v)));
            std::iter::once(start).chain(below).collect()
        }
        value => vec![format!("{start} {}", flow(value))],
    }
}

/// A value in flow style, on one line.
pub fn flow(value: &Value) -> String {
    match value {
        Value::Mapping(map) => {
            let all: Vec<_> = map.iter().map(|(k, v)| format!("{}: {}", scalar(k), flow(v))).collect();
            format!("{{{}}}", all.join(", "))
        }
        Value::Sequence(list) => format!("[{}]", list.iter().map(flow).collect::<Vec<_>>().join(", ")),
        other => scalar(other),
    }
}

/// A scalar: plain if that means the same, else with quotes.
fn scalar(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => n.to_string(),
        Value::String(s) => {
            let parses = serde_norway::from_str::<Vec<Value>>(&format!("[{s}]"))
                .is_ok_and(|list| list == [Value::from(s.as_str())]);
            let plain = parses && !s.contains(['#', '\n', '"', '\'']) && s.trim() == s;
            // JSON's strings are YAML's in double quotes. Writing a string as JSON cannot fail.
            if plain { s.clone() } else { serde_json::to_string(s).unwrap_or_default() }
        }
        other => serde_json::to_string(other).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(path: &[&str], value: &str) -> Edit {
        Edit::new(path, Some(serde_norway::from_str(value).unwrap()))
    }

    #[track_caller]
    fn becomes(text: &str, edits: &[Edit], expected: &str) {
        assert_eq!(edited(text, edits).unwrap(), Edited { text: expected.into(), kept: true });
    }

    const IP: [&str; 3] = ["network", "walt-net", "ip"];

    #[test]
    fn a_new_file() {
        becomes(
            "# mine\n",
            &[
                set(&IP, "192.168.184.1/24"),
                set(&["network", "walt-net", "raw-device"], "eth1"),
                set(&["network", "walt-adm"], "{raw-device: eth2, ip: dhcp}"),
                set(&["api", "group"], "walt"),
                set(&["registries"], "[{label: hub, api: docker-hub}, {label: l, description: 'a: b'}]"),
            ],
            "# mine\nnetwork:\n  walt-net: {ip: 192.168.184.1/24, raw-device: eth1}\n  \
             walt-adm: {raw-device: eth2, ip: dhcp}\napi: {group: walt}\nregistries:\n  \
             - {label: hub, api: docker-hub}\n  - {label: l, description: \"a: b\"}\n",
        );
        becomes("", &[set(&["state-dir"], "/srv/w")], "state-dir: /srv/w\n");
    }

    #[test]
    fn what_the_user_wrote_stays() {
        let text = "# head\nnetwork:   # all of them\n    # the nodes\n    walt-net:\n        ip: 10.0.0.1/24 # ours\n\
                    \n        bridge: wn\n    # switches\n    walt-adm: {raw-device: eth2, ip: dhcp} # hp\n\n# places\n\
                    state-dir: /srv/w\n# end\n";
        becomes(text, &[set(&IP, "10.0.1.1/24")], &text.replace("10.0.0.1", "10.0.1.1"));
        becomes(
            text,
            &[set(&["network", "walt-net", "raw-device"], "eth1"), set(&["state-dir"], "/srv/x")],
            &text
                .replace("bridge: wn\n", "bridge: wn\n        raw-device: eth1\n")
                .replace("/srv/w", "/srv/x"),
        );
        becomes(
            text,
            &[set(&["network", "walt-adm", "vlan"], "7")],
            &text.replace("ip: dhcp}", "ip: dhcp, vlan: 7}"),
        );
        let gone = Edit::new(&["network", "walt-adm"], None);
        becomes(text, &[gone], &text.replace("    walt-adm: {raw-device: eth2, ip: dhcp} # hp\n", ""));
        becomes(text, &[Edit::new(&["api", "group"], None)], text);
        let edit = [set(&["api", "group"], "walt")];
        becomes(text, &edit, &format!("{text}api: {{group: walt}}\n"));
    }

    #[test]
    fn lists_and_last_keys() {
        let text = "registries:\n- {label: hub, api: docker-hub}\n- label: lab\n  host: h\napi:\n  group: walt\n# end\n";
        becomes(
            text,
            &[set(&["registries"], "[]"), Edit::new(&["api", "group"], None)],
            "registries: []\n# end\n",
        );
        becomes(
            "api: {group: walt} # who\nstate-dir: /a\n",
            &[Edit::new(&["api", "group"], None)],
            "state-dir: /a\n",
        );
        becomes("api: {group: walt} # who\n", &[set(&["api", "group"], "lab")], "api: {group: lab} # who\n");
        becomes(
            "web:\nnetwork:\n",
            &[set(&IP, "10.0.0.1/24")],
            "web:\nnetwork:\n  walt-net: {ip: 10.0.0.1/24}\n",
        );
    }

    #[test]
    fn odd_files_are_written_again() {
        for text in [
            "{\"network\": {\"walt-net\": {\"ip\": \"10.0.0.1/24\"}}, \"state-dir\": \"/a\"}\n",
            "network: {\n  walt-net: {ip: 10.0.0.1/24}\n}\nstate-dir: /a\n",
            "network: {walt-net: &x {ip: 10.0.0.1/24}}\n\"state-dir\" : /a\n? a\n: 1\n",
        ] {
            let new = edited(text, &[set(&IP, "10.0.1.1/24")]).unwrap();
            let mut value = parsed(text).unwrap();
            change(&mut value, &IP, Some(&"10.0.1.1/24".into())).unwrap();
            assert_eq!(parsed(&new.text).unwrap(), value, "{}", new.text);
        }
        let json = "{\"network\": {\"walt-net\": {\"ip\": \"10.0.0.1/24\"}}}";
        assert!(!edited(json, &[set(&IP, "10.0.1.1/24")]).unwrap().kept);
        assert!(edited("- a\n", &[]).is_err() && edited("a: [\n", &[]).is_err());
        assert!(edited("network: 7\n", &[set(&IP, "10.0.1.1/24")]).is_err());
    }
}
