//! Pages for people: what is here, the help pages, and the description of the API.

use crate::edge::{
    prefer::Style,
    web::error::{Refusal, escaped},
};
use axum::{
    extract::Path,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
};
use include_dir::{Dir, include_dir};
use pulldown_cmark::{CowStr, Event, Options, Parser, Tag};
use std::sync::LazyLock;

/// The pages of `walt help show`.
static PAGES: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/../../docs/help");

/// Nothing on a page runs or is loaded from elsewhere.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";
const STYLE: &str = "body{max-width:60rem;margin:2rem auto;padding:0 1rem;font-family:sans-serif;line-height:1.5}\
     pre{background:#f4f4f4;padding:.7rem;overflow-x:auto}code{background:#f4f4f4}\
     table{border-collapse:collapse}td,th{border:1px solid #ccc;padding:.2rem .5rem;text-align:left}";

/// A help page.
struct Topic {
    name: &'static str,
    title: &'static str,
    markdown: &'static str,
}

/// All help pages, sorted by name.
static TOPICS: LazyLock<Vec<Topic>> = LazyLock::new(|| {
    let mut topics: Vec<Topic> = PAGES
        .files()
        .filter_map(|file| {
            let name = file.path().to_str()?.strip_suffix(".md")?;
            let markdown = file.contents_utf8()?;
            let title = markdown.lines().find_map(|line| line.strip_prefix("# "))?;
            Some(Topic { name, title, markdown })
        })
        .collect();
    topics.sort_by_key(|topic| topic.name);
    topics
});

/// `GET /`.
pub async fn index() -> Response {
    page(
        "WalT server HTTP service",
        "<h1>WalT server HTTP service</h1>\n<ul>\n\
         <li><a href=\"/doc/\">/doc/</a>: the help pages</li>\n\
         <li><a href=\"/api\">/api</a>: nodes, images and logs for programs</li>\n\
         <li>/boot/: what nodes load when they boot</li>\n</ul>\n",
    )
}

/// `GET /api`.
pub async fn api() -> Response {
    page(
        "WalT web API",
        "<h1>WalT web API</h1>\n<ul>\n\
         <li><a href=\"/api/v1/nodes\">/api/v1/nodes</a>: the nodes</li>\n\
         <li><a href=\"/api/v1/images\">/api/v1/images</a>: the images</li>\n\
         <li>/api/v1/logs?from=…&amp;to=…: lines of logs</li>\n\
         <li><a href=\"/api/v1/openapi.json\">/api/v1/openapi.json</a>: all this for generators of clients</li>\n</ul>\n\
         <p><a href=\"/doc/web-api.html\">Parameters and answers</a></p>\n",
    )
}

/// `GET /api/v1/openapi.json`: of this door.
pub async fn openapi() -> Response {
    static DOCUMENT: LazyLock<String> =
        LazyLock::new(|| walt_api::openapi::text(&walt_api::openapi::read_only()));
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], DOCUMENT.as_str())
        .into_response()
}

/// `GET /doc`: links on the page are relative.
pub async fn doc_without_slash() -> Redirect {
    Redirect::permanent("/doc/")
}

/// `GET /doc/`: all topics.
pub async fn topics() -> Response {
    let mut body = String::from("<h1>Help pages</h1>\n<ul>\n");
    for Topic { name, title, .. } in TOPICS.iter() {
        body += &format!("<li><a href=\"{name}.html\">{name}</a>: {}</li>\n", escaped(title));
    }
    page("Help pages", &(body + "</ul>\n"))
}

/// `GET /doc/<topic>.html`, and its source, `/doc/<topic>.md`.
pub async fn topic(Path(file): Path<String>, style: Style) -> Response {
    let find = |name: &str| TOPICS.iter().find(|topic| topic.name == name);
    if let Some(topic) = file.strip_suffix(".html").and_then(find) {
        let top = "<p><a href=\"./\">Help pages</a></p>\n";
        return page(topic.title, &format!("{top}{}", html(topic.markdown)));
    }
    if let Some(topic) = file.strip_suffix(".md").and_then(find) {
        let kind = HeaderValue::from_static("text/markdown; charset=utf-8");
        return ([(header::CONTENT_TYPE, kind)], topic.markdown).into_response();
    }
    // As one would type it.
    if find(&file).is_some() {
        return Redirect::permanent(&format!("/doc/{file}.html")).into_response();
    }
    Refusal::new(StatusCode::NOT_FOUND, format!("'{file}' is not a help page: /doc/ lists them."))
        .answer(style)
}

/// A page as HTML; links to other pages lead to their HTML.
fn html(markdown: &str) -> String {
    let events = Parser::new_ext(markdown, Options::ENABLE_TABLES).map(|event| match event {
        Event::Start(Tag::Link { link_type, dest_url, title, id }) => {
            let dest_url = match dest_url.strip_suffix(".md") {
                Some(topic) if !topic.contains('/') => CowStr::from(format!("{topic}.html")),
                _ => dest_url,
            };
            Event::Start(Tag::Link { link_type, dest_url, title, id })
        }
        other => other,
    });
    let mut out = String::new();
    pulldown_cmark::html::push_html(&mut out, events);
    out
}

fn page(title: &str, body: &str) -> Response {
    let text = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{}</title>\
         <style>{STYLE}</style></head>\n<body>\n{body}</body></html>\n",
        escaped(title)
    );
    let headers: [(HeaderName, &'static str); 3] = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_html_and_lead_to_each_other() {
        let text = html(
            "# T\n\nsee [walt help show a](a.md), `<b>`\n\n| x | y |\n|---|---|\n| 1 | 2 |\n\n[o](https://x/y.md)\n",
        );
        assert!(text.contains("<h1>T</h1>"), "{text}");
        assert!(text.contains("<a href=\"a.html\">walt help show a</a>, <code>&lt;b&gt;</code>"), "{text}");
        assert!(text.contains("<td>1</td><td>2</td>"), "{text}");
        assert!(text.contains("href=\"https://x/y.md\""), "{text}");
        let names: Vec<&str> = TOPICS.iter().map(|topic| topic.name).collect();
        assert!(names.contains(&"help-intro") && names.is_sorted(), "{names:?}");
        for topic in TOPICS.iter() {
            let text = html(topic.markdown);
            for target in text.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
                let name =
                    target.strip_suffix(".html").unwrap_or_else(|| panic!("{target} in {}", topic.name));
                assert!(names.contains(&name), "{target} in {}", topic.name);
            }
        }
    }
}
