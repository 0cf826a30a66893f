//! What breaks clients of an older document: something removed, or something newly required.
//!
//! Both documents are walked side by side, what is in the old one leads. Schemas that requests contain may not require
//! more, nor allow less; schemas that only answers contain may not leave out what they had. In both, nothing goes away.

use serde_json::{Map, Value};
use std::collections::BTreeSet;

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// Which way data goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Request,
    Answer,
}

/// Everything in `new` that breaks clients of `old`, one sentence each.
pub fn breaks(old: &Value, new: &Value) -> Vec<String> {
    let mut compared = Compared { old, new, found: Vec::new(), seen: BTreeSet::new() };
    compared.paths();
    compared.found
}

struct Compared<'a> {
    old: &'a Value,
    new: &'a Value,
    found: Vec<String>,
    seen: BTreeSet<(String, Way)>,
}

fn object(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn texts(value: &Value) -> BTreeSet<String> {
    match value {
        Value::Array(all) => all.iter().map(ToString::to_string).collect(),
        Value::Null => BTreeSet::new(),
        one => BTreeSet::from([one.to_string()]),
    }
}

impl Compared<'_> {
    fn paths(&mut self) {
        for (path, old) in object(&self.old["paths"]) {
            for method in METHODS {
                let (old, new) = (&old[method], &self.new["paths"][path][method]);
                let at = format!("{method} {path}");
                match (old.is_object(), new.is_object()) {
                    (false, _) => {}
                    (true, false) => self.found.push(format!("{at} is removed")),
                    (true, true) => self.operation(&at, old, new),
                }
            }
        }
        // Messages of WebSockets, to which no route refers: as strict as requests.
        for (name, _) in object(&self.old["components"]["schemas"]) {
            if !self.seen.iter().any(|(seen, _)| seen == name) {
                self.component(name, name, Way::Request);
            }
        }
    }

    fn operation(&mut self, at: &str, old: &Value, new: &Value) {
        let key = |p: &Value| (p["name"].clone().to_string(), p["in"].clone().to_string());
        for parameter in items(&old["parameters"]) {
            match items(&new["parameters"]).iter().find(|p| key(p) == key(parameter)) {
                None => self.found.push(format!("{at}: the parameter {} is removed", key(parameter).0)),
                Some(now) => self.schema(
                    &format!("{at}: {}", key(parameter).0),
                    &parameter["schema"],
                    &now["schema"],
                    Way::Request,
                ),
            }
        }
        for parameter in items(&new["parameters"]).iter().filter(|p| p["required"] == true) {
            let before = items(&old["parameters"]).iter().find(|p| key(p) == key(parameter));
            if before.is_none_or(|p| p["required"] != true) {
                self.found.push(format!("{at}: the parameter {} is newly required", key(parameter).0));
            }
        }
        if new["requestBody"]["required"] == true && old["requestBody"]["required"] != true {
            self.found.push(format!("{at}: a body is newly required"));
        }
        self.contents(&format!("{at}: body"), &old["requestBody"], &new["requestBody"], Way::Request);
        for (status, answer) in object(&old["responses"]) {
            let (at, now) = (format!("{at}: {status}"), &new["responses"][status]);
            match now.is_object() {
                true => self.contents(&at, answer, now, Way::Answer),
                false => self.found.push(format!("{at} is removed")),
            }
        }
    }

    fn contents(&mut self, at: &str, old: &Value, new: &Value, way: Way) {
        for (kind, content) in object(&old["content"]) {
            let now = &new["content"][kind];
            match now.is_object() {
                true => self.schema(&format!("{at} {kind}"), &content["schema"], &now["schema"], way),
                false => self.found.push(format!("{at}: {kind} is removed")),
            }
        }
    }

    fn component(&mut self, at: &str, name: &str, way: Way) {
        if !self.seen.insert((name.to_owned(), way)) {
            return;
        }
        let (old, new) = (self.old, self.new);
        let of = |document: &'_ Value| document["components"]["schemas"][name].clone();
        match of(new) {
            Value::Null => self.found.push(format!("{at}: the type {name} is removed")),
            now => self.schema(name, &of(old), &now, way),
        }
    }

    fn schema(&mut self, at: &str, old: &Value, new: &Value, way: Way) {
        if let Some(name) = old["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
            match old["$ref"] == new["$ref"] {
                true => self.component(at, name, way),
                false => self.found.push(format!("{at} is not a {name} any more")),
            }
            return;
        }
        let (types, now) = (texts(&old["type"]), texts(&new["type"]));
        let same = match way {
            Way::Request => now.is_empty() || (!types.is_empty() && types.is_subset(&now)),
            Way::Answer => types.is_empty() || (!now.is_empty() && now.is_subset(&types)),
        };
        if !same {
            self.found.push(format!("{at}: the type {types:?} is now {now:?}"));
        }
        for value in texts(&old["enum"]).difference(&texts(&new["enum"])) {
            self.found.push(format!("{at}: the value {value} is removed"));
        }
        for (field, schema) in object(&old["properties"]) {
            match new["properties"].get(field) {
                None => self.found.push(format!("{at}: the field {field} is removed")),
                Some(now) => self.schema(&format!("{at}.{field}"), schema, now, way),
            }
        }
        let (required, now) = (texts(&old["required"]), texts(&new["required"]));
        match way {
            Way::Request => {
                for field in now.difference(&required) {
                    self.found.push(format!("{at}: the field {field} is newly required"));
                }
            }
            Way::Answer => {
                for field in required.difference(&now) {
                    self.found.push(format!("{at}: the field {field} may be missing now"));
                }
            }
        }
        if way == Way::Request && new["additionalProperties"] == false && old["additionalProperties"] != false
        {
            self.found.push(format!("{at}: other fields are refused now"));
        }
        for part in ["items", "additionalProperties"] {
            if old[part].is_object() {
                self.schema(&format!("{at}[]"), &old[part], &new[part], way);
            }
        }
        for part in ["oneOf", "anyOf", "allOf"] {
            self.variants(&format!("{at} {part}"), items(&old[part]), items(&new[part]), way);
        }
    }

    /// Each old variant must still be there. They have no names: a tag (an enum of one value) tells which is which, or else
    /// the first compatible one is it.
    fn variants(&mut self, at: &str, old: &[Value], new: &[Value], way: Way) {
        for variant in old {
            let twin =
                tag(variant).and_then(|tag_of| new.iter().find(|now| tag(now).as_ref() == Some(&tag_of)));
            if let Some(twin) = twin {
                self.schema(&format!("{at} {}", tag(variant).unwrap_or_default()), variant, twin, way);
                continue;
            }
            let fits = new.iter().any(|now| {
                let mut trial =
                    Compared { old: self.old, new: self.new, found: Vec::new(), seen: self.seen.clone() };
                trial.schema(at, variant, now, way);
                let fits = trial.found.is_empty();
                if fits {
                    self.seen = trial.seen;
                }
                fits
            });
            if !fits {
                let name = tag(variant).unwrap_or_else(|| variant.to_string());
                self.found.push(format!("{at}: the variant {name} is removed"));
            }
        }
    }
}

/// What tells a variant of a tagged type from the others.
fn tag(variant: &Value) -> Option<String> {
    let properties = variant["properties"].as_object();
    let of = |properties: &Map<String, Value>| {
        properties.iter().find_map(|(field, schema)| match items(&schema["enum"]) {
            [value] => Some(format!("{field}={value}")),
            _ => None,
        })
    };
    properties.and_then(of).or_else(|| items(&variant["allOf"]).iter().find_map(tag))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn document() -> Value {
        let reference = |name: &str| json!({"schema": {"$ref": format!("#/components/schemas/{name}")}});
        json!({
            "paths": {"/x": {"post": {
                "parameters": [{"name": "a", "in": "query", "required": false, "schema": {"type": "string"}}],
                "requestBody": {"required": false, "content": {"application/json": reference("Body")}},
                "responses": {"200": {"content": {
                    "application/json": reference("Answer"), "application/x-ndjson": reference("Event"),
                }}},
            }, "get": {"responses": {"200": {"content": {"application/json": reference("Answer")}}}}}},
            "components": {"schemas": {
                "Body": {"type": "object", "required": ["n"], "properties": {
                    "n": {"type": "string"}, "o": {"type": ["string", "null"]},
                    "list": {"type": "array", "items": {"type": "object", "properties": {"i": {"type": "integer"}}}},
                }},
                "Answer": {"type": "object", "required": ["word"], "properties": {
                    "word": {"$ref": "#/components/schemas/Word"}, "text": {"type": "string"},
                }},
                "Word": {"type": "string", "enum": ["on", "off"]},
                "Event": {"oneOf": [
                    {"type": "object", "properties": {"event": {"type": "string", "enum": ["out"]}, "text": {"type": "string"}}},
                    {"type": "object", "properties": {"event": {"type": "string", "enum": ["done"]}, "ok": {"type": "boolean"}}},
                ]},
                "Message": {"type": "object", "properties": {"m": {"type": "string"}}},
            }},
        })
    }

    /// What is found when one thing is changed.
    fn after(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut new = document();
        change(&mut new);
        breaks(&document(), &new)
    }

    fn remove(value: &mut Value, key: &str) {
        assert!(value.as_object_mut().unwrap().remove(key).is_some(), "there was a {key}");
    }

    #[test]
    fn additions_are_fine() {
        assert_eq!(after(|_| ()), [""; 0]);
        let found = after(|new| {
            new["paths"]["/y"] = json!({"get": {"responses": {}}});
            let post = &mut new["paths"]["/x"]["post"];
            post["parameters"]
                .as_array_mut()
                .unwrap()
                .push(json!({"name": "b", "in": "query", "required": false, "schema": {"type": "string"}}));
            post["responses"]["201"] = json!({});
            let schemas = &mut new["components"]["schemas"];
            schemas["Body"]["properties"]["p"] = json!({"type": "string"});
            schemas["Answer"]["properties"]["q"] = json!({"type": "string"});
            schemas["Answer"]["required"] = json!(["word", "q"]);
            schemas["Word"]["enum"] = json!(["on", "off", "broken"]);
            schemas["Event"]["oneOf"]
                .as_array_mut()
                .unwrap()
                .push(json!({"type": "object", "properties": {"event": {"enum": ["item"]}}}));
            schemas["Body"]["required"] = json!([]);
        });
        assert_eq!(found, [""; 0]);
    }

    #[test]
    fn removals_are_refused() {
        for (found, wanted) in [
            (after(|new| remove(&mut new["paths"], "/x")), "get /x is removed"),
            (after(|new| remove(&mut new["paths"]["/x"], "post")), "post /x is removed"),
            (
                after(|new| new["paths"]["/x"]["post"]["parameters"] = json!([])),
                "post /x: the parameter \"a\" is removed",
            ),
            (
                after(|new| remove(&mut new["paths"]["/x"]["post"]["responses"], "200")),
                "post /x: 200 is removed",
            ),
            (
                after(|new| {
                    remove(
                        &mut new["paths"]["/x"]["post"]["responses"]["200"]["content"],
                        "application/x-ndjson",
                    )
                }),
                "post /x: 200: application/x-ndjson is removed",
            ),
            (
                after(|new| remove(&mut new["components"]["schemas"]["Body"]["properties"], "o")),
                "Body: the field o is removed",
            ),
            (
                after(|new| remove(&mut new["components"]["schemas"]["Answer"]["properties"], "text")),
                "Answer: the field text is removed",
            ),
            (
                after(|new| {
                    remove(
                        &mut new["components"]["schemas"]["Body"]["properties"]["list"]["items"]["properties"],
                        "i",
                    )
                }),
                "Body.list[]: the field i is removed",
            ),
            (
                after(|new| new["components"]["schemas"]["Word"]["enum"] = json!(["on"])),
                "Word: the value \"off\" is removed",
            ),
            (
                after(|new| {
                    drop(new["components"]["schemas"]["Event"]["oneOf"].as_array_mut().unwrap().remove(0))
                }),
                "Event oneOf: the variant event=\"out\" is removed",
            ),
            (
                after(|new| {
                    remove(&mut new["components"]["schemas"]["Event"]["oneOf"][1]["properties"], "ok")
                }),
                "Event oneOf event=\"done\": the field ok is removed",
            ),
            (
                after(|new| remove(&mut new["components"]["schemas"], "Message")),
                "Message: the type Message is removed",
            ),
            (
                after(|new| remove(&mut new["components"]["schemas"]["Message"]["properties"], "m")),
                "Message: the field m is removed",
            ),
        ] {
            assert!(found.iter().any(|line| line == wanted), "{wanted}: {found:?}");
        }
    }

    #[test]
    fn what_is_newly_required_or_changed_is_refused() {
        for (found, wanted) in [
            (
                after(|new| new["paths"]["/x"]["post"]["parameters"][0]["required"] = true.into()),
                "post /x: the parameter \"a\" is newly required",
            ),
            (
                after(|new| {
                    new["paths"]["/x"]["get"]["parameters"] =
                        json!([{"name": "c", "in": "query", "required": true, "schema": {"type": "string"}}]);
                }),
                "get /x: the parameter \"c\" is newly required",
            ),
            (
                after(|new| new["paths"]["/x"]["post"]["requestBody"]["required"] = true.into()),
                "post /x: a body is newly required",
            ),
            (
                after(|new| new["components"]["schemas"]["Body"]["required"] = json!(["n", "o"])),
                "Body: the field \"o\" is newly required",
            ),
            (
                after(|new| new["components"]["schemas"]["Body"]["additionalProperties"] = false.into()),
                "Body: other fields are refused now",
            ),
            (
                after(|new| new["components"]["schemas"]["Answer"]["required"] = json!([])),
                "Answer: the field \"word\" may be missing now",
            ),
            (
                after(|new| {
                    new["components"]["schemas"]["Body"]["properties"]["o"]["type"] = "string".into()
                }),
                "Body.o: the type {\"\\\"null\\\"\", \"\\\"string\\\"\"} is now {\"\\\"string\\\"\"}",
            ),
            (
                after(|new| {
                    new["components"]["schemas"]["Answer"]["properties"]["word"] = json!({"type": "string"})
                }),
                "Answer.word is not a Word any more",
            ),
        ] {
            assert!(found.iter().any(|line| line == wanted), "{wanted}: {found:?}");
        }
    }
}
