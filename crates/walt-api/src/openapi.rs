//! The description of this API as an OpenAPI document (3.1), with the schemas that utoipa makes of the types.
//!
//! The routes are tables ([`routes`]), since the handlers live elsewhere. What OpenAPI cannot say: WebSockets are listed as
//! `GET` with 101, and the types of their messages are components that no route refers to; of NDJSON, the schema is that
//! of one line.
//!
//! `tests/openapi.rs` compares the documents with the committed ones, with exchanges of a real server, and with the last
//! released document, from which nothing may be removed.

mod routes;

use crate::ApiError;
use serde_json::{Map, Value, json};
use utoipa::{
    ToSchema,
    openapi::{RefOr, Schema},
};

pub use routes::{read_only, socket};

/// The document as text, as it is committed and served.
pub fn text(document: &Value) -> String {
    format!("{document:#}\n")
}

/// What an answer or a body is.
const JSON: &str = "application/json";
/// A stream of objects, one per line.
const NDJSON: &str = "application/x-ndjson";
/// Errors of resources (RFC 9457).
const PROBLEM: &str = "application/problem+json";

/// How the routes of a part of the API answer errors.
#[derive(Clone, Copy)]
enum Errors {
    /// [`ApiError`] as JSON.
    Api,
    /// [`crate::resource::Problem`], or as `Prefer` says.
    Problem,
    /// HTML, or as `Prefer` says.
    Web,
}

/// A document that is being written.
struct Document {
    info: Value,
    errors: Errors,
    paths: Map<String, Value>,
    schemas: Map<String, Value>,
}

/// One operation of it.
struct Operation<'a> {
    document: &'a mut Document,
    path: String,
    method: &'static str,
    value: Value,
}

impl Document {
    fn new(title: &str, description: &str) -> Self {
        let info = json!({
            "title": title, "version": env!("CARGO_PKG_VERSION"), "description": description,
            "license": {"name": "MIT", "identifier": "MIT"},
        });
        Self { info, errors: Errors::Api, paths: Map::new(), schemas: Map::new() }
    }

    /// Adds a type to the components; a reference to it.
    fn schema<T: ToSchema>(&mut self) -> Value {
        let mut needed: Vec<(String, RefOr<Schema>)> = Vec::new();
        T::schemas(&mut needed);
        needed.push((T::name().into_owned(), T::schema()));
        for (name, schema) in needed {
            // Invariant: schemas are plain structs, which JSON can always express.
            let mut schema = serde_json::to_value(schema).expect("a schema is JSON");
            write_plainly(&mut schema);
            let before = self.schemas.insert(name.clone(), schema.clone());
            assert!(before.is_none_or(|before| before == schema), "two types are called {name}");
        }
        json!({"$ref": format!("#/components/schemas/{}", T::name())})
    }

    /// An operation. What is in braces in the path is a parameter.
    fn operation(&mut self, method: &'static str, path: &str, id: &str, summary: &str) -> Operation<'_> {
        let parameters: Vec<Value> = path
            .split('{')
            .skip(1)
            .filter_map(|rest| rest.split_once('}'))
            .map(|(name, _)| {
                json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"},
                    "description": path_parameter(name)})
            })
            .collect();
        let mut value = json!({"operationId": id, "summary": summary, "responses": {}});
        if !parameters.is_empty() {
            value["parameters"] = parameters.into();
        }
        let operation = Operation { document: self, path: path.to_owned(), method, value };
        operation.failures()
    }

    fn finish(self) -> Value {
        json!({
            "openapi": "3.1.0",
            "info": self.info,
            "paths": self.paths,
            "components": {"schemas": self.schemas},
        })
    }
}

/// What a parameter in a path is.
fn path_parameter(name: &str) -> &'static str {
    match name {
        "name" => "Name of a node; where several make sense, a set of nodes such as `vn1,vn2` or `my-nodes`.",
        "user" => "The owner of the image.",
        "image" => "`<name>[:<tag>]`.",
        "page" => "Name of a help page, with `.html` or `.md`.",
        _ => "",
    }
}

impl Operation<'_> {
    /// A parameter of the query.
    fn query(mut self, name: &str, required: bool, kind: &str, description: &str) -> Self {
        let parameter = json!({"name": name, "in": "query", "required": required, "schema": {"type": kind},
            "description": description});
        self.push("parameters", parameter);
        self
    }

    /// A header of the request, which need not be there.
    fn header(mut self, name: &str, description: &str) -> Self {
        let parameter = json!({"name": name, "in": "header", "required": false, "schema": {"type": "string"},
            "description": description});
        self.push("parameters", parameter);
        self
    }

    fn push(&mut self, list: &str, item: Value) {
        match self.value.get_mut(list).and_then(Value::as_array_mut) {
            Some(items) => items.push(item),
            None => self.value[list] = json!([item]),
        }
    }

    /// The body of the request.
    fn takes<T: ToSchema>(self, required: bool) -> Self {
        let schema = self.document.schema::<T>();
        self.takes_schema(required, schema)
    }

    fn takes_schema(mut self, required: bool, schema: Value) -> Self {
        self.value["requestBody"] = json!({"required": required, "content": {JSON: {"schema": schema}}});
        self
    }

    /// An answer.
    fn gives<T: ToSchema>(self, status: u16, kind: &str, description: &str) -> Self {
        let schema = self.document.schema::<T>();
        self.gives_schema(status, kind, description, schema)
    }

    fn gives_schema(mut self, status: u16, kind: &str, description: &str, schema: Value) -> Self {
        let response = &mut self.value["responses"][status.to_string()];
        response["description"] = description.into();
        response["content"][kind] = json!({"schema": schema});
        self
    }

    /// The answer of a list or a question.
    fn answers<T: ToSchema>(self, description: &str) -> Self {
        self.gives::<T>(200, JSON, description)
    }

    /// The answer of an action: a stream of events.
    fn streams(self) -> Self {
        self.header(crate::HEADER_CONFIRM, "The token of the answer 409 to the same request.")
            .gives::<crate::Event>(
                200,
                NDJSON,
                "The action runs: events, one per line, the last one `done` or `error`.",
            )
    }

    /// The answers of a resource: at the end, or as a stream. `made` if something is made.
    fn performs(self, made: bool) -> Self {
        let status = if made { 201 } else { 200 };
        self.header(crate::HEADER_CONFIRM, "The token of the answer 409 to the same request.")
            .query("confirm", false, "string", "`any` says yes to whatever is asked.")
            .gives::<crate::resource::Performed>(status, JSON, "All was done.")
            .gives::<crate::Event>(200, NDJSON, "With `Accept: application/x-ndjson`: events, as of actions.")
            .gives::<crate::resource::Performed>(crate::resource::NOT_ALL, JSON, "Part of it was not done.")
    }

    /// A WebSocket: its messages are components.
    fn socket<Open: ToSchema, Client: ToSchema, Server: ToSchema>(mut self) -> Self {
        let names = [
            self.document.schema::<Open>(),
            self.document.schema::<Client>(),
            self.document.schema::<Server>(),
        ]
        .map(|reference| reference["$ref"].as_str().unwrap_or_default().to_owned());
        let [open, client, server] = names;
        self.value["description"] = format!(
            "A WebSocket. The first message of the client is {open}, the following ones are {client}, those of the \
             server are {server}; binary messages carry bytes."
        )
        .into();
        self.value["responses"]["101"] = json!({"description": "The WebSocket is open."});
        self
    }

    /// The answers to requests that fail.
    fn failures(mut self) -> Self {
        let (kind, schema) = match self.document.errors {
            Errors::Api => (JSON, self.document.schema::<ApiError>()),
            Errors::Problem => (PROBLEM, self.document.schema::<crate::resource::Problem>()),
            Errors::Web => ("text/html", json!({"type": "string"})),
        };
        let mut content = Map::from_iter([(kind.to_owned(), json!({"schema": schema}))]);
        if !matches!(self.document.errors, Errors::Api) {
            content.insert("text/plain".into(), json!({"schema": {"type": "string"}}));
            let error = self.document.schema::<crate::web::WebError>();
            content.insert(JSON.into(), json!({"schema": error}));
            self = self.header("Prefer", "`errors=text-only` or `errors=json`: how an error is written.");
        }
        self.value["responses"]["default"] =
            json!({"description": "It failed, or is refused.", "content": content});
        self
    }
}

impl Drop for Operation<'_> {
    fn drop(&mut self) {
        let item = self.document.paths.entry(std::mem::take(&mut self.path)).or_insert_with(|| json!({}));
        item[self.method] = std::mem::take(&mut self.value);
    }
}

/// Makes descriptions, which are comments of Rust, readable for others: links to items become their names.
fn write_plainly(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(text) if key == "description" => *text = without_links(text),
                    other => write_plainly(other),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(write_plainly),
        _ => {}
    }
}

/// A comment without its links: of ``[`a::B`](c)`` and ``[`a::B`]``, `` `B` `` is left.
fn without_links(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once("[`") {
        let Some((name, behind)) = after.split_once("`]") else { break };
        let name = name.rsplit("::").next().unwrap_or(name);
        out.push_str(&format!("{before}`{name}`"));
        rest = match behind.strip_prefix('(').and_then(|target| target.split_once(')')) {
            Some((_, behind)) => behind,
            None => behind,
        };
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_have_no_links() {
        for (text, plain) in [
            ("See [`Hold`].", "See `Hold`."),
            ("[`NodeList`](crate::NodeList), [`a::b::C`] (x)", "`NodeList`, `C` (x)"),
            ("no link, `code`, a[1] and [`open", "no link, `code`, a[1] and [`open"),
        ] {
            assert_eq!(without_links(text), plain);
        }
        let mut schema =
            json!({"description": "[`A`]", "oneOf": [{"description": "[`B`]", "enum": ["[`C`]"]}]});
        write_plainly(&mut schema);
        assert_eq!(
            schema,
            json!({"description": "`A`", "oneOf": [{"description": "`B`", "enum": ["[`C`]"]}]})
        );
    }

    #[test]
    fn what_is_in_braces_is_a_parameter() {
        let document = socket();
        let operation = &document["paths"][crate::route::IMAGE]["get"];
        let parameters: Vec<(&str, &str, bool)> = operation["parameters"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| (p["name"].as_str().unwrap(), p["in"].as_str().unwrap(), p["required"] == true))
            .collect();
        assert_eq!(
            parameters,
            [("user", "path", true), ("image", "path", true), ("Prefer", "header", false)]
        );
        for path in ["name", "user", "image", "page"] {
            assert!(!path_parameter(path).is_empty(), "{path}");
        }
        assert!(text(&document).ends_with("}\n"));
    }
}
