//! Identifies the caller by the operating-system account at the other end of the socket.

use crate::{
    base::failure::{Failure, Kind},
    edge::api::reply::answer_error,
};
use axum::{
    extract::{ConnectInfo, Request},
    middleware::Next,
    response::Response,
};
use nix::unistd::{Uid, User};
use walt_api::HEADER_USER;
use walt_types::UserName;

/// The other end of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// User id that the kernel recorded at connect(2).
    pub uid: u32,
}

/// The user for whom a request is carried out.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The user.
    pub user: UserName,
    /// Whether the peer itself is root.
    pub is_root: bool,
}

/// Adds a [`Caller`] to a request, or refuses it.
pub async fn identify(mut request: Request, next: Next) -> Response {
    let uid = request.extensions().get::<ConnectInfo<Peer>>().map(|peer| peer.0.uid);
    let named = match request.headers().get(HEADER_USER).map(|v| v.to_str()) {
        None => None,
        Some(Ok(text)) => Some(text.to_owned()),
        Some(Err(_)) => return answer_error(forbidden("the user name in the request is not text")),
    };
    match caller(uid, named.as_deref()) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(failure) => answer_error(failure),
    }
}

/// Refuses requests of all users but root.
pub async fn require_root(request: Request, next: Next) -> Response {
    match request.extensions().get::<Caller>() {
        Some(caller) if caller.is_root => next.run(request).await,
        _ => answer_error(forbidden("only root may do this")),
    }
}

fn forbidden(message: impl std::fmt::Display) -> Failure {
    Failure::refusal(Kind::Forbidden, message)
}

fn caller(uid: Option<u32>, named: Option<&str>) -> Result<Caller, Failure> {
    let uid = uid.ok_or_else(|| forbidden("cannot find out your user id"))?;
    let account = match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(account)) => account.name,
        _ => return Err(forbidden(format!("user id {uid} has no account on the server"))),
    };
    let is_root = uid == 0;
    let name = match named {
        Some(other) if other != account && !is_root => {
            return Err(forbidden(format!("you are '{account}': only root may act for another user"))
                .hint("unset WALT_USERNAME"));
        }
        Some(other) => other.to_owned(),
        None => account,
    };
    let user: UserName = name.parse().map_err(|e: walt_types::ParseError| forbidden(e.to_string()))?;
    Ok(Caller { user, is_root })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_may_act_for_others_and_nobody_else() {
        assert_eq!(caller(Some(0), None).unwrap().user.as_str(), "root");
        let for_alice = caller(Some(0), Some("alice")).unwrap();
        assert_eq!((for_alice.user.as_str(), for_alice.is_root), ("alice", true));
        let nobody = Uid::from_raw(65534);
        assert!(caller(Some(nobody.as_raw()), Some("alice")).is_err());
        assert!(caller(Some(4_000_000_000), None).is_err());
        assert!(caller(None, None).is_err());
        assert!(caller(Some(0), Some("waltplatform")).is_err());
    }
}
