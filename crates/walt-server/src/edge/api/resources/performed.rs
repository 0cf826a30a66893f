//! Answers of resources: one object at the end, or a stream of events; errors as problems.

use super::json;
use crate::{
    base::failure::{Failure, Outcome},
    edge::{
        api::{
            answer::into_api,
            reply::{AbortOnDrop, join, request_id, stream_with},
        },
        prefer::{JSON, NDJSON, Style},
    },
};
use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use serde::Serialize;
use std::collections::BTreeMap;
use tokio::sync::mpsc;
use walt_api::{
    Event,
    resource::{ItemResult, NOT_ALL, Performed, Problem},
    web::WebError,
};

/// Lines of one answer that is not a stream; more are counted.
const LINES_MAX: usize = 10_000;

/// Media type of errors.
const PROBLEM: &str = "application/problem+json";

/// What an answer is about.
pub(super) struct Expected {
    /// The nodes.
    pub names: Vec<String>,
    /// The full name of the image, if it is about one.
    pub image: Option<String>,
    /// The status if all is done.
    pub done: StatusCode,
}

/// What an action has said so far.
#[derive(Default)]
struct Said {
    items: Vec<ItemResult>,
    output: Vec<String>,
    notes: Vec<String>,
    left_out: usize,
}

impl Said {
    fn hear(&mut self, event: Event) {
        let list = match &event {
            Event::Out { .. } => &mut self.output,
            Event::Note { .. } => &mut self.notes,
            _ => {
                if let Event::Item { item } = event {
                    self.items.push(item);
                }
                return;
            }
        };
        match event {
            Event::Out { text } | Event::Note { text } if list.len() < LINES_MAX => list.push(text),
            _ => self.left_out += 1,
        }
    }

    fn notes(self) -> Vec<String> {
        let mut notes = self.notes;
        if self.left_out > 0 {
            notes.push(format!("{} more lines are left out: ask for {NDJSON}.", self.left_out));
        }
        notes
    }

    /// What became of each item: what was said of it, or else how the whole ended.
    fn results(&self, expected: &Expected, ok: bool) -> Vec<ItemResult> {
        let whole = || {
            let lines = if ok { &self.output } else { &self.notes };
            let text = if lines.is_empty() { "done".to_owned() } else { lines.join(" ") };
            match (ok, lines.is_empty()) {
                (true, _) => Ok(text),
                (false, false) => Err(text),
                (false, true) => Err("not all was done".to_owned()),
            }
        };
        if let Some(image) = &expected.image {
            let image = ItemResult::of_image(image, whole());
            return std::iter::once(image).chain(self.items.iter().cloned()).collect();
        }
        let said: BTreeMap<&str, &ItemResult> =
            self.items.iter().filter_map(|item| Some((item.node.as_deref()?, item))).collect();
        let of = |name: &String| {
            said.get(name.as_str()).map_or_else(|| ItemResult::of_node(name, whole()), |item| (*item).clone())
        };
        expected.names.iter().map(of).collect()
    }
}

/// Waits for the end of an action; the status says how it ended.
pub(super) async fn whole(
    mut work: AbortOnDrop,
    mut receiver: mpsc::Receiver<Event>,
    expected: Expected,
    style: Style,
) -> Response {
    let mut said = Said::default();
    while let Some(event) = receiver.recv().await {
        said.hear(event);
    }
    match join(&mut work).await {
        Ok(ok) => {
            let results = said.results(&expected, ok);
            let status = if ok { expected.done } else { not_all() };
            let output = std::mem::take(&mut said.output);
            json(status, JSON, &Performed { ok, results, output, notes: said.notes() })
        }
        Err(failure) => {
            let results = std::mem::take(&mut said.items);
            problem_with(failure, style, results, said.notes())
        }
    }
}

fn not_all() -> StatusCode {
    // Invariant: the constant is a status.
    StatusCode::from_u16(NOT_ALL).expect("a status")
}

/// The events of an action as they come. A failure before the first one is the answer.
pub(super) async fn stream(work: AbortOnDrop, receiver: mpsc::Receiver<Event>, style: Style) -> Response {
    stream_with(work, receiver, |failure| problem(failure, style)).await
}

/// An answer to a question.
pub(super) fn found(outcome: Outcome<impl Serialize>, style: Style) -> Response {
    match outcome {
        Ok(value) => json(StatusCode::OK, JSON, &value),
        Err(failure) => problem(failure, style),
    }
}

/// A failure as an answer.
pub(super) fn problem(failure: Failure, style: Style) -> Response {
    problem_with(failure, style, Vec::new(), Vec::new())
}

fn problem_with(failure: Failure, style: Style, results: Vec<ItemResult>, notes: Vec<String>) -> Response {
    let error = into_api(failure, &request_id());
    let status = StatusCode::from_u16(error.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let problem =
        Problem { results, notes, ..Problem::new(error, status.canonical_reason().unwrap_or_default()) };
    match style {
        Style::Default => json(status, PROBLEM, &problem),
        Style::Json => json(status, JSON, &WebError { error: problem.detail, status_code: status.as_u16() }),
        Style::TextOnly => {
            let mut response = Response::new(Body::from(problem.detail));
            *response.status_mut() = status;
            let text = HeaderValue::from_static("text/plain; charset=utf-8");
            response.headers_mut().insert(header::CONTENT_TYPE, text);
            response
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use walt_api::resource::ItemCode;

    #[test]
    fn each_node_has_a_result() {
        let mut said = Said::default();
        said.hear(Event::Busy { label: "Rebooting".into() });
        said.hear(Event::Item { item: ItemResult::of_node("b", Err("no link".into())) });
        said.hear(Event::Note { text: "Node b: failed to reboot (no link)".into() });
        let expected = Expected { names: vec!["a".into(), "b".into()], image: None, done: StatusCode::OK };
        let results = said.results(&expected, false);
        let shown: Vec<_> = results.iter().map(|r| (r.node.as_deref(), r.ok, r.message.as_str())).collect();
        let of_all = "Node b: failed to reboot (no link)";
        assert_eq!(shown, [(Some("a"), false, of_all), (Some("b"), false, "no link")]);
        assert_eq!(results[0].code, ItemCode::Failed);
        assert_eq!(said.notes(), [of_all]);
    }

    #[test]
    fn an_image_and_the_nodes_that_use_it_have_results() {
        let mut said = Said::default();
        said.hear(Event::Out { text: "Image x was rolled back.".into() });
        said.hear(Event::Item { item: ItemResult::of_node("a", Ok("rebooted ok".into())) });
        let image = Some("ann/x:latest".to_owned());
        let results = said.results(&Expected { names: Vec::new(), image, done: StatusCode::OK }, true);
        assert_eq!(results.len(), 2);
        assert_eq!(
            (results[0].image.as_deref(), results[0].message.as_str()),
            (Some("ann/x:latest"), "Image x was rolled back.")
        );
        assert_eq!(results[1].node.as_deref(), Some("a"));
    }

    #[test]
    fn lines_of_an_answer_are_bounded() {
        let mut said = Said::default();
        for n in 0..LINES_MAX + 3 {
            said.hear(Event::Out { text: n.to_string() });
        }
        assert_eq!(said.output.len(), LINES_MAX);
        assert_eq!(said.notes(), ["3 more lines are left out: ask for application/x-ndjson."]);
    }
}
