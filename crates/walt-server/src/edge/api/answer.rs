//! Turns failures into errors of the API, and assigns their codes.

use crate::base::failure::{Failure, Kind, no_space};
use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};
use walt_api::{ApiError, Confirmation, ErrorCode};

/// The state directory of this server, for messages about its disk.
pub static STATE_DIR: OnceLock<PathBuf> = OnceLock::new();

fn code(kind: Kind) -> ErrorCode {
    match kind {
        Kind::BadRequest => ErrorCode::BadRequest,
        Kind::NotFound => ErrorCode::NotFound,
        Kind::Forbidden => ErrorCode::Forbidden,
        Kind::Refused => ErrorCode::Refused,
        Kind::Credentials => ErrorCode::Credentials,
    }
}

/// The error for the caller; internal failures are logged here with the id of the request.
pub fn into_api(failure: Failure, request_id: &str) -> ApiError {
    let dir = STATE_DIR.get().map(PathBuf::as_path);
    match failure {
        Failure::Refusal(refusal) => {
            let error = ApiError::new(code(refusal.kind), for_users(&refusal.message, dir));
            match refusal.hint {
                Some(hint) => error.hint(hint),
                None => error,
            }
        }
        Failure::Question { warnings, token } => {
            let mut error = ApiError::new(ErrorCode::Confirm, warnings.join(" "));
            error.confirmation = Some(Confirmation { warnings, token });
            error
        }
        Failure::Internal(error) => {
            tracing::error!(request_id, "{error:#}");
            let text = error.to_string();
            let message = match dir {
                Some(dir) if no_space(&error) => {
                    format!(
                        "No space left on the server's disk, in {}: {}",
                        dir.display(),
                        without_store(&text, dir)
                    )
                }
                Some(dir) => without_store(&text, dir),
                None => text,
            };
            // The client refers to the log by the request's id.
            let mut answer = ApiError::new(ErrorCode::Internal, message);
            answer.request_id = Some(request_id.to_owned());
            answer
        }
    }
}

/// A message for users, without paths of the store. Where a path was removed, "No space left" names the state
/// directory instead.
fn for_users(text: &str, dir: Option<&Path>) -> String {
    let Some(dir) = dir else { return text.to_owned() };
    let clean = without_store(text, dir);
    if clean == text {
        return clean;
    }
    let full = format!("No space left on the server's disk, in {}", dir.display());
    clean.replace("No space left on device", &full)
}

/// A message without the server's own paths: paths below an image become paths in the image, others are removed. The
/// log has the full text.
fn without_store(text: &str, state_dir: &Path) -> String {
    let start = format!("{}/", state_dir.display());
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find(&start) {
        out.push_str(&rest[..at]);
        rest = &rest[at + start.len()..];
        let end = rest.find(|c: char| c.is_whitespace() || "'\")],;:".contains(c)).unwrap_or(rest.len());
        let (path, behind) = rest.split_at(end);
        match path.split_once("/fs").filter(|(_, inner)| inner.is_empty() || inner.starts_with('/')) {
            Some((_, "")) => out.push('/'),
            Some((_, inner)) => out.push_str(inner),
            None if path.starts_with("images/") || path.starts_with("sessions/") => {
                out.push_str("in the image store");
            }
            None => out.push_str("in the state directory"),
        }
        rest = behind;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_not_told_where_the_server_keeps_files() {
        let dir = Path::new("/var/lib/walt");
        let layer = "f".repeat(64);
        for (text, told) in [
            (
                "cannot open /var/lib/walt/images/tmp/12-3/fs/usr/bin/x: denied",
                "cannot open /usr/bin/x: denied",
            ),
            ("cannot open /var/lib/walt/images/tmp/12-3/fs: denied", "cannot open /: denied"),
            (&format!("at '/var/lib/walt/images/layers/{layer}/fs/a b'."), "at '/a b'."),
            (
                "cannot create the skeleton /var/lib/walt/sessions/a/skeleton: denied",
                "cannot create the skeleton in the image store: denied",
            ),
            (
                "cannot write /var/lib/walt/images/views/ab (x), /etc/x",
                "cannot write in the image store (x), /etc/x",
            ),
            ("cannot read /var/lib/walt/keys/id: x", "cannot read in the state directory: x"),
            ("cannot read /home/var/lib/walts/x", "cannot read /home/var/lib/walts/x"),
        ] {
            assert_eq!(without_store(text, dir), told);
        }
    }
}
