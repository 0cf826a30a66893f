//! `/api/v1/nodes` and `/api/v1/images` for everybody.

use crate::{
    actions::image_list,
    base::{
        db::blocking,
        failure::{Failure, Outcome},
    },
    edge::{
        prefer::Style,
        web::{
            Shared,
            error::Refusal,
            filter::{self, Filter},
        },
    },
    services::nodes,
};
use axum::{
    Json,
    extract::State,
    http::{HeaderValue, Uri, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use walt_api::web::{WebImageList, WebNodeList};

/// `GET /api/v1/nodes`.
pub async fn nodes(State(shared): State<Shared>, style: Style, uri: Uri) -> Response {
    let list = async {
        let filter = Filter::of(&uri, filter::NODE)?;
        let _turn = shared.turn().await?;
        let nodes = found(blocking(|| nodes::list(shared.app.nodes())).map_err(Failure::from))?;
        Ok(WebNodeList::of(nodes, |node| filter.takes(node)))
    };
    answer(list.await, style)
}

/// `GET /api/v1/images`.
pub async fn images(State(shared): State<Shared>, style: Style, uri: Uri) -> Response {
    let list = async {
        let filter = Filter::of(&uri, filter::IMAGE)?;
        let _turn = shared.turn().await?;
        let images = found(image_list::list(&shared.app, None).await)?;
        Ok(WebImageList::of(images, |image| filter.takes(image)))
    };
    answer(list.await, style)
}

fn found<T>(outcome: Outcome<T>) -> Result<T, Refusal> {
    outcome.map_err(|failure| Refusal::failed(&failure))
}

/// A list, which changes at any moment, or why there is none.
pub fn answer(list: Result<impl Serialize, Refusal>, style: Style) -> Response {
    match list {
        Ok(list) => {
            ([(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"))], Json(list)).into_response()
        }
        Err(refusal) => refusal.answer(style),
    }
}
