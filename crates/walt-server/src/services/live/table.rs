//! What was last published, by kind, and how something new differs from it.

use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// What has become of one thing.
#[derive(Debug, Clone, PartialEq)]
pub enum Difference {
    /// It has these values now; all fields of what is new.
    Changed(Map<String, Value>),
    /// It is gone.
    Gone,
}

/// The things of one kind, by id.
#[derive(Debug)]
pub struct Collection<T>(BTreeMap<String, T>);

impl<T> Default for Collection<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: PartialEq + Serialize> Collection<T> {
    /// Takes over the present state; what differs from the one before, by id.
    pub fn replace(&mut self, present: BTreeMap<String, T>) -> Vec<(String, Difference)> {
        let mut differences = Vec::new();
        for (id, now) in &present {
            match self.0.get(id) {
                Some(before) if before == now => {}
                before => {
                    let mut fields = fields(now);
                    if let Some(before) = before.map(self::fields) {
                        fields.retain(|name, value| before.get(name) != Some(value));
                    }
                    // What differs only in parts that clients do not see has no fields.
                    if !fields.is_empty() {
                        differences.push((id.clone(), Difference::Changed(fields)));
                    }
                }
            }
        }
        let gone = self.0.keys().filter(|id| !present.contains_key(*id));
        differences.extend(gone.map(|id| (id.clone(), Difference::Gone)));
        self.0 = present;
        differences
    }

    /// All of them, by id.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &T)> {
        self.0.iter()
    }
}

/// The fields of a thing.
fn fields(thing: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(thing) {
        Ok(Value::Object(fields)) => fields,
        // Invariant: all kinds are plain structs, which JSON can always express.
        other => unreachable!("not an object: {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize)]
    struct Thing {
        name: &'static str,
        size: u64,
    }

    fn things(all: &[(&str, Thing)]) -> BTreeMap<String, Thing> {
        all.iter().map(|(id, thing)| ((*id).to_owned(), thing.clone())).collect()
    }

    fn object(json: &str) -> Difference {
        Difference::Changed(serde_json::from_str(json).unwrap())
    }

    #[test]
    fn differences_are_whole_things_or_changed_fields() {
        let mut table = Collection::default();
        let (a, b) = (Thing { name: "a", size: 1 }, Thing { name: "b", size: 2 });
        let first = things(&[("1", a.clone()), ("2", b.clone())]);
        assert_eq!(
            table.replace(first.clone()),
            [
                ("1".to_owned(), object(r#"{"name":"a","size":1}"#)),
                ("2".to_owned(), object(r#"{"name":"b","size":2}"#))
            ]
        );
        assert!(table.replace(first).is_empty());
        let third = Thing { name: "c", size: 3 };
        let next = things(&[("1", Thing { size: 9, ..a }), ("3", third)]);
        assert_eq!(
            table.replace(next),
            [
                ("1".to_owned(), object(r#"{"size":9}"#)),
                ("3".to_owned(), object(r#"{"name":"c","size":3}"#)),
                ("2".to_owned(), Difference::Gone)
            ]
        );
        assert_eq!(table.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["1", "3"]);
    }
}
