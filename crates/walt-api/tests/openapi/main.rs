//! The OpenAPI documents: they are the committed ones, describe what a real server gives and takes, and remove nothing of
//! the last released ones.
//!
//! * `docs/openapi.json`, `docs/openapi-read-only.json`: of the types as they are. `WALT_UPDATE_SNAPSHOTS=1` writes them.
//! * `recorded/*.json`: exchanges with a real server; `tests/api/web.rs` writes it with the same variable.
//! * `released/*.json`: of the last release. They are copied from `docs/` by hand, when there is a release.

#![cfg(feature = "openapi")]
#![allow(clippy::unwrap_used, reason = "tests fail by panicking: unwrap is their assertion")]

mod compat;

use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/openapi")
}

fn documents() -> [(&'static str, Value); 2] {
    use walt_api::openapi::{read_only, socket};
    [("openapi.json", socket()), ("openapi-read-only.json", read_only())]
}

fn read(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn the_documents_are_the_committed_ones() {
    for (name, document) in documents() {
        let (path, text) = (docs().join(name), walt_api::openapi::text(&document));
        if std::env::var_os("WALT_UPDATE_SNAPSHOTS").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == text,
            "docs/{name} is not what the types say: run this test with WALT_UPDATE_SNAPSHOTS=1"
        );
    }
}

#[test]
fn nothing_of_the_last_release_is_gone() {
    for (name, document) in documents() {
        let found = compat::breaks(&read(&tests().join("released").join(name)), &document);
        assert!(found.is_empty(), "{name} breaks clients of the last release:\n{}", found.join("\n"));
    }
}

/// All references lead to a component, every component has a name of its own, and ids of operations are unique.
#[test]
fn documents_are_whole() {
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    for (name, document) in documents() {
        assert_eq!(document["openapi"], "3.1.0");
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 5, "{name}");
        for path in found {
            assert!(document.pointer(path.trim_start_matches('#')).is_some(), "{path} in {name}");
        }
        let paths = document["paths"].as_object().unwrap();
        let operations = || paths.values().flat_map(|item| item.as_object().unwrap().values());
        let ids: std::collections::BTreeSet<&str> =
            operations().map(|operation| operation["operationId"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), operations().count(), "{name}");
        assert!(operations().all(|operation| operation["responses"]["default"].is_object()), "{name}");
    }
}

/// A schema of the document, for the validator. `strict` refuses fields that it does not name, too.
fn validator(document: &Value, schema: &Value, strict: bool) -> jsonschema::Validator {
    let mut components = document["components"].clone();
    let mut schema = schema.clone();
    if strict {
        make_strict(&mut components);
        make_strict(&mut schema);
    }
    schema["components"] = components;
    jsonschema::draft202012::new(&schema).unwrap_or_else(|e| panic!("{schema}: {e}"))
}

fn make_strict(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            map.values_mut().for_each(make_strict);
            if map.get("properties").is_some_and(Value::is_object)
                && !map.contains_key("additionalProperties")
            {
                map.insert("unevaluatedProperties".into(), false.into());
            }
        }
        Value::Array(list) => list.iter_mut().for_each(make_strict),
        _ => {}
    }
}

/// The operation of a request: literal segments first.
fn operation<'a>(document: &'a Value, method: &str, target: &str) -> Option<&'a Value> {
    let path = target.split('?').next().unwrap();
    let wanted: Vec<&str> = path.split('/').collect();
    let fits = |template: &str| {
        let parts: Vec<&str> = template.split('/').collect();
        parts.len() == wanted.len() && parts.iter().zip(&wanted).all(|(p, w)| p.starts_with('{') || p == w)
    };
    let paths = document["paths"].as_object().unwrap();
    let found = paths
        .keys()
        .filter(|template| fits(template))
        .min_by_key(|template| template.matches('{').count())?;
    paths[found].get(method.to_ascii_lowercase())
}

fn assert_valid(validator: &jsonschema::Validator, instance: &Value, what: &str) {
    let errors: Vec<String> =
        validator.iter_errors(instance).map(|e| format!("{} at {}", e, e.instance_path())).collect();
    assert!(errors.is_empty(), "{what}: {}\n{instance}", errors.join("; "));
}

/// Both ways: what the server gave is described, to the last field; what it took is allowed, and what it refused as not
/// understood is not.
#[test]
fn what_a_real_server_gives_and_takes() {
    let parts =
        ["images.json", "nodes.json", "port-80.json"].map(|part| read(&tests().join("recorded").join(part)));
    let documents = documents();
    let (mut checked, mut refused) = (0, 0);
    for exchange in parts.iter().flat_map(|part| part.as_array().unwrap()) {
        let document = match exchange["door"].as_str().unwrap() {
            "socket" => &documents[0].1,
            "port 80" => &documents[1].1,
            other => panic!("no door {other}"),
        };
        let text = |field: &str| exchange[field].as_str().unwrap_or_default().to_owned();
        let (method, target, kind) = (text("method"), text("target"), text("type"));
        let what = format!("{method} {target} ({})", exchange["status"]);
        let operation =
            operation(document, &method, &target).unwrap_or_else(|| panic!("{what} is not in the document"));
        if let Some(body) = exchange.get("request") {
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            let is_valid = validator(document, schema, false).is_valid(body);
            let detail = exchange["answer"]["detail"].as_str().unwrap_or_default();
            let is_refused = detail.starts_with("cannot understand the body");
            let is_done = exchange["status"].as_u64().unwrap() < 400;
            refused += usize::from(is_refused);
            assert!(!(is_refused && is_valid || is_done && !is_valid), "{what}: {body} is valid: {is_valid}");
        }
        let answers = &operation["responses"];
        let answer = answers.get(exchange["status"].to_string()).unwrap_or(&answers["default"]);
        let kind = kind.split(';').next().unwrap();
        let schema = &answer["content"][kind]["schema"];
        assert!(schema.is_object(), "{what}: {kind} is not in the document");
        let strict = validator(document, schema, true);
        let body = &exchange["answer"];
        match kind {
            "application/x-ndjson" => {
                let lines = body.as_array().unwrap();
                lines.iter().for_each(|line| assert_valid(&strict, line, &what));
            }
            _ => assert_valid(&strict, body, &what),
        }
        checked += 1;
    }
    assert!(checked >= 50 && refused >= 3, "{checked} exchanges, {refused} refused");
}

#[test]
fn the_validator_sees_what_is_wrong() {
    let document = json!({"components": {"schemas": {
        "A": {"type": "object", "required": ["a"], "properties": {"a": {"$ref": "#/components/schemas/B"}}},
        "B": {"type": "string", "enum": ["x"]},
    }}});
    let schema = json!({"$ref": "#/components/schemas/A"});
    let strict = validator(&document, &schema, true);
    assert!(strict.is_valid(&json!({"a": "x"})));
    for wrong in [json!({}), json!({"a": "y"}), json!({"a": "x", "b": 1})] {
        assert!(!strict.is_valid(&wrong), "{wrong}");
    }
    assert!(validator(&document, &schema, false).is_valid(&json!({"a": "x", "b": 1})));
}
