//! Parameters of lists: filters by equality. An empty value counts as absent, booleans are JSON, everything that is not
//! understood is refused with what would be.

use crate::edge::web::error::Refusal;
use axum::{extract::Query, http::Uri};
use serde::Serialize;
use serde_json::Value;

/// What a parameter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A text, which must be equal.
    Text,
    /// `true` or `false`, which must be equal.
    Flag,
    /// `true` or `false`, which filters nothing.
    Option,
}

/// The parameters of one list.
pub type Fields = &'static [(&'static str, Kind)];

/// Parameters of the nodes' list: all keys of a node but `config`.
pub const NODE: Fields = &[
    ("name", Kind::Text),
    ("model", Kind::Text),
    ("virtual", Kind::Flag),
    ("image", Kind::Text),
    ("booted", Kind::Flag),
    ("ip", Kind::Text),
    ("mac", Kind::Text),
];
/// Parameters of the images' list. `refresh` looked at the storage again in the existing system; here, lists are never
/// older than the request.
pub const IMAGE: Fields = &[
    ("fullname", Kind::Text),
    ("user", Kind::Text),
    ("id", Kind::Text),
    ("in_use", Kind::Flag),
    ("refresh", Kind::Option),
];

/// What must be equal.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Filter(Vec<(&'static str, Value)>);

impl Filter {
    /// The filter in the query of a request.
    ///
    /// # Errors
    /// A parameter is unknown, is there twice, or its value is not what it must be.
    pub fn of(uri: &Uri, fields: Fields) -> Result<Self, Refusal> {
        let mut wanted = Vec::new();
        for (name, value) in parameters(uri)? {
            let Some((field, kind)) = fields.iter().find(|(field, _)| *field == name) else {
                let known: Vec<&str> = fields.iter().map(|(field, _)| *field).collect();
                let known = known.join(", ");
                return Err(Refusal::bad_request(format!("Unknown parameter '{name}'; there are: {known}.")));
            };
            let value = match kind {
                Kind::Text => Value::String(value),
                Kind::Flag | Kind::Option => flag(field, &value)?.into(),
            };
            if *kind != Kind::Option {
                wanted.push((*field, value));
            }
        }
        Ok(Self(wanted))
    }

    /// Whether an item has all that is wanted.
    pub fn takes(&self, item: &impl Serialize) -> bool {
        // Invariant: items are plain structs, which JSON can always express.
        self.0.is_empty() || {
            let item = serde_json::to_value(item).expect("an item is JSON");
            self.0.iter().all(|(field, value)| item[*field] == *value)
        }
    }
}

/// The parameters of a query that have a value; none is there twice.
///
/// # Errors
/// One is there twice.
pub fn parameters(uri: &Uri) -> Result<Vec<(String, String)>, Refusal> {
    let Query(all) = Query::<Vec<(String, String)>>::try_from_uri(uri)
        .map_err(|e| Refusal::bad_request(format!("Cannot understand the parameters: {e}.")))?;
    let mut seen: Vec<(String, String)> = Vec::new();
    for (name, value) in all {
        if value.is_empty() {
            continue;
        }
        if seen.iter().any(|(other, _)| *other == name) {
            return Err(Refusal::bad_request(format!("The parameter '{name}' is there twice.")));
        }
        seen.push((name, value));
    }
    Ok(seen)
}

fn flag(field: &str, value: &str) -> Result<bool, Refusal> {
    serde_json::from_str(value).map_err(|_| {
        Refusal::bad_request(format!("'{value}' is not a value of '{field}': it must be true or false."))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn filter(query: &str, fields: Fields) -> Result<Filter, String> {
        Filter::of(&format!("/api/v1/nodes{query}").parse().unwrap(), fields).map_err(|e| e.message)
    }

    #[test]
    fn items_that_have_all_that_is_wanted() {
        let node = json!({"name": "vn1", "virtual": true, "booted": false, "mac": "52:54:00:00:00:01", "image": "ann/a b:1"});
        for (query, takes) in [
            ("", true),
            ("?", true),
            ("?name=vn1", true),
            ("?name=VN1", false),
            ("?name=", true),
            ("?virtual=true", true),
            ("?virtual=%20true", true),
            ("?virtual=false", false),
            ("?virtual=true&booted=false", true),
            ("?virtual=true&booted=true", false),
            ("?mac=52%3A54:00:00:00:01", true),
            ("?image=ann/a+b:1", true),
            ("?booted=&name=vn2", false),
        ] {
            assert_eq!(filter(query, NODE).unwrap().takes(&node), takes, "{query}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let known = "there are: name, model, virtual, image, booted, ip, mac.";
        assert_eq!(filter("?config=x", NODE), Err(format!("Unknown parameter 'config'; {known}")));
        assert_eq!(filter("?refresh=true", NODE), Err(format!("Unknown parameter 'refresh'; {known}")));
        let wrong =
            |value: &str| Err(format!("'{value}' is not a value of 'virtual': it must be true or false."));
        for value in ["yes", "1", "True", "null", "\"true\""] {
            assert_eq!(filter(&format!("?virtual={}", value.replace('"', "%22")), NODE), wrong(value));
        }
        let twice = Err("The parameter 'name' is there twice.".to_owned());
        assert_eq!(filter("?name=a&name=b", NODE), twice);
        assert_eq!(filter("?name=&name=b", NODE), Ok(Filter(vec![("name", json!("b"))])));
    }

    #[test]
    fn refresh_filters_nothing() {
        assert_eq!(filter("?refresh=true", IMAGE), Ok(Filter::default()));
        assert!(filter("?refresh=maybe", IMAGE).is_err());
        assert_eq!(filter("?refresh=false&in_use=true", IMAGE), Ok(Filter(vec![("in_use", json!(true))])));
    }
}
