//! `${variable}`, with iPXE's types.

use super::{MAX_VALUE, Problem};
use std::collections::BTreeMap;

/// How deep `${a${b}}` may nest.
const MAX_NESTING: usize = 8;

/// The value of a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Text, as `set` makes it.
    Text(String),
    /// Bytes that are written `52:54:00:…` unless another type is asked for.
    Bytes(Vec<u8>),
}

impl Value {
    fn bytes(&self) -> &[u8] {
        match self {
            Value::Text(text) => text.as_bytes(),
            Value::Bytes(bytes) => bytes,
        }
    }

    fn show(&self, as_type: Option<&str>) -> Result<String, Problem> {
        let hex = |separator: &str| {
            self.bytes().iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(separator)
        };
        Ok(match (as_type, self) {
            (None, Value::Text(text)) => text.clone(),
            (None, Value::Bytes(_)) | (Some("hex"), _) => hex(":"),
            (Some("hexhyp"), _) => hex("-"),
            (Some("hexraw"), _) => hex(""),
            (Some("string"), _) => String::from_utf8_lossy(self.bytes()).into_owned(),
            (Some("uristring"), _) => self.bytes().iter().map(|b| percent(*b)).collect(),
            (Some(other), _) => return Err(Problem::UnknownType(other.to_owned())),
        })
    }
}

fn percent(byte: u8) -> String {
    if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
        (byte as char).to_string()
    } else {
        format!("%{byte:02X}")
    }
}

/// Replaces every `${name}`, `${name:type}` and `${scope/name}` in a word. Values are not looked at again.
pub fn expand(word: &str, variables: &BTreeMap<String, Value>) -> Result<String, Problem> {
    let (out, rest) = until_end(word, variables, 0)?;
    debug_assert!(rest.is_empty());
    Ok(out)
}

/// Expands up to the `}` that ends the variable one level up, or to the end at level 0. Returns what follows.
fn until_end<'a>(
    text: &'a str,
    variables: &BTreeMap<String, Value>,
    depth: usize,
) -> Result<(String, &'a str), Problem> {
    if depth > MAX_NESTING {
        return Err(Problem::Limit { what: "the nesting of variables", limit: MAX_NESTING });
    }
    let mut out = String::new();
    let mut rest = text;
    loop {
        let open = rest.find("${");
        let close = if depth > 0 { rest.find('}') } else { None };
        match (open, close) {
            (Some(o), c) if c.is_none_or(|c| o < c) => {
                out.push_str(&rest[..o]);
                let (name, after) = until_end(&rest[o + 2..], variables, depth + 1)?;
                out.push_str(&lookup(&name, variables)?);
                rest = after;
            }
            (_, Some(c)) => {
                out.push_str(&rest[..c]);
                return bounded(out).map(|out| (out, &rest[c + 1..]));
            }
            _ if depth > 0 => return Err(Problem::OpenVariable),
            _ => {
                out.push_str(rest);
                return bounded(out).map(|out| (out, ""));
            }
        }
        if out.len() > MAX_VALUE {
            return bounded(out).map(|out| (out, ""));
        }
    }
}

fn bounded(out: String) -> Result<String, Problem> {
    if out.len() > MAX_VALUE { Err(Problem::Limit { what: "a value", limit: MAX_VALUE }) } else { Ok(out) }
}

fn lookup(name: &str, variables: &BTreeMap<String, Value>) -> Result<String, Problem> {
    let (name, as_type) = match name.split_once(':') {
        Some((name, as_type)) => (name, Some(as_type)),
        None => (name, None),
    };
    let empty = Value::Text(String::new());
    variables.get(unscoped(name)).unwrap_or(&empty).show(as_type)
}

/// There is one network card, so `net0/mac`, `netX/mac` and `mac` are one variable.
pub fn unscoped(name: &str) -> &str {
    name.rsplit_once('/').map_or(name, |(_, name)| name)
}
