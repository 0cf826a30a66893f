//! Failures of requests: what the caller is told, and what only the log keeps.

use std::{path::PathBuf, sync::OnceLock};
use walt_api::{ApiError, Confirmation, ErrorCode};

/// The state directory of this process's server, for messages about its disk.
pub static STATE_DIR: OnceLock<PathBuf> = OnceLock::new();

/// Whether a full disk, or a quota, is the cause.
fn no_space(error: &anyhow::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        let sql = cause.downcast_ref::<rusqlite::Error>().and_then(rusqlite::Error::sqlite_error_code);
        matches!(io, Some(StorageFull | QuotaExceeded)) || sql == Some(rusqlite::ErrorCode::DiskFull)
    })
}

/// Why a request was not fulfilled.
#[derive(Debug)]
pub enum Failure {
    /// The caller is told this.
    Api(Box<ApiError>),
    /// A failure of the server: details go to the log, the caller gets the outermost sentence.
    Internal(anyhow::Error),
}

/// Result of request handling.
pub type Outcome<T> = Result<T, Failure>;

impl Failure {
    /// A question, with the token that answers it.
    pub fn ask(warnings: Vec<String>, token: String) -> Self {
        let message = warnings.join(" ");
        let mut error = ApiError::new(ErrorCode::Confirm, message);
        error.confirmation = Some(Confirmation { warnings, token });
        error.into()
    }

    /// The answer to the caller; internal failures are logged here, with the request's id.
    pub fn into_api(self, request_id: &str) -> ApiError {
        match self {
            Self::Api(mut error) => {
                if let Some(dir) = STATE_DIR.get() {
                    let told = without_store(&error.message, dir);
                    // Where to make room is said also where the disk is not the whole of the sentence.
                    if told != error.message {
                        let full = format!("No space left on the server's disk, in {}", dir.display());
                        error.message = told.replace("No space left on device", &full);
                    }
                }
                *error
            }
            Self::Internal(error) => {
                tracing::error!(request_id, "{error:#}");
                let said = error.to_string();
                let said = STATE_DIR.get().map_or(said.clone(), |dir| without_store(&said, dir));
                let message = match STATE_DIR.get() {
                    Some(dir) if no_space(&error) => {
                        format!("No space left on the server's disk, in {}: {said}", dir.display())
                    }
                    _ => said,
                };
                // The client tells where the details are.
                let mut answer = ApiError::new(ErrorCode::Internal, message);
                answer.request_id = Some(request_id.to_owned());
                answer
            }
        }
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::Api(Box::new(error))
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Internal(error)
    }
}

/// A sentence for users, who are not concerned with where the server keeps its files: a path of an image's files is the
/// one in the image, others are not told. The log has the whole.
fn without_store(text: &str, state_dir: &std::path::Path) -> String {
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

/// The request itself is wrong.
pub fn bad_request(message: impl std::fmt::Display) -> Failure {
    ApiError::new(ErrorCode::BadRequest, message.to_string()).into()
}

/// Something named does not exist.
pub fn not_found(message: impl std::fmt::Display) -> Failure {
    ApiError::new(ErrorCode::NotFound, message.to_string()).into()
}

/// The state of things does not allow it.
pub fn refused(message: impl std::fmt::Display) -> Failure {
    ApiError::new(ErrorCode::Refused, message.to_string()).into()
}

/// What the caller gave cannot be used, for these reasons; a full disk is the server's failure.
pub fn unusable(error: anyhow::Error) -> Failure {
    if no_space(&error) { Failure::Internal(error) } else { refused(reasons(&error)) }
}

/// The sentence of an error and of what caused it; what a sentence says itself of its cause is not repeated.
fn reasons(error: &anyhow::Error) -> String {
    let mut said = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if said.is_empty() {
            said = cause;
        } else if !said.ends_with(&cause) {
            said = format!("{said}: {cause}");
        }
    }
    said
}

/// As [`refused`], with a hint.
pub fn refused_hint(message: impl std::fmt::Display, hint: impl std::fmt::Display) -> Failure {
    ApiError::new(ErrorCode::Refused, message.to_string()).hint(hint.to_string()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_not_the_callers_mistake() {
        let error = |errno| {
            let source = std::io::Error::from_raw_os_error(errno);
            let inner = walt_images::Error::Io { what: "create", path: "/x".into(), source };
            anyhow::Error::new(inner).context("cannot import rootfs.tar")
        };
        assert!(matches!(unusable(error(28)), Failure::Internal(_)));
        let Failure::Api(told) = unusable(error(2)) else { panic!("a missing file is") };
        assert_eq!(
            told.message,
            "cannot import rootfs.tar: cannot create /x: No such file or directory (os error 2)"
        );
    }

    #[test]
    fn users_are_not_told_where_the_server_keeps_files() {
        let dir = std::path::Path::new("/var/lib/walt");
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
