//! Why a request failed, and what its user gets to read. `edge/api/answer.rs` turns failures into answers.

use std::fmt;

/// Kind of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request itself is wrong.
    BadRequest,
    /// Something in the request does not exist.
    NotFound,
    /// The caller may not do this.
    Forbidden,
    /// The current state does not allow it.
    Refused,
    /// A registry requires credentials, or refused the given ones.
    Credentials,
}

/// A message for the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Its kind.
    pub kind: Kind,
    /// One sentence.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Why a request failed. `Display` is the message for the user, with the hint.
#[derive(Debug)]
pub enum Failure {
    /// The request is refused.
    Refusal(Box<Refusal>),
    /// The caller must confirm the request first.
    Question {
        /// One sentence for each thing that would be lost or disturbed.
        warnings: Vec<String>,
        /// Confirms exactly this request.
        token: String,
    },
    /// A failure of the server: the log gets all details, the caller the outermost message.
    Internal(anyhow::Error),
}

/// Result of request handling.
pub type Outcome<T> = Result<T, Failure>;

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refusal(refusal) => match &refusal.hint {
                Some(hint) => write!(f, "{} {hint}", refusal.message),
                None => f.write_str(&refusal.message),
            },
            Self::Question { warnings, .. } => f.write_str(&warnings.join(" ")),
            Self::Internal(error) => write!(f, "{error}"),
        }
    }
}

impl Failure {
    /// A refusal of this kind.
    pub fn refusal(kind: Kind, message: impl fmt::Display) -> Self {
        Self::Refusal(Box::new(Refusal { kind, message: message.to_string(), hint: None }))
    }

    /// Adds a hint to a refusal.
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        if let Self::Refusal(refusal) = &mut self {
            refusal.hint = Some(hint.to_string());
        }
        self
    }

    /// The failure of a task without result: it panicked, or the server is ending.
    pub fn of_task(what: &'static str) -> impl FnOnce(tokio::task::JoinError) -> Self {
        move |e| Self::Internal(anyhow::Error::new(e).context(format!("{what} ended abnormally")))
    }
}

/// Failures of the server itself.
macro_rules! internal {
    ($($error:ty),* $(,)?) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::Internal(error.into())
            }
        })*
    };
}

internal!(
    anyhow::Error,
    rustix::io::Errno,
    std::io::Error,
    walt_container::Error,
    walt_images::Error,
    walt_logs::Error,
    walt_sys::Error,
    walt_tar::Error,
);

/// The request itself is wrong.
pub fn bad_request(message: impl fmt::Display) -> Failure {
    Failure::refusal(Kind::BadRequest, message)
}

/// Something in the request does not exist.
pub fn not_found(message: impl fmt::Display) -> Failure {
    Failure::refusal(Kind::NotFound, message)
}

/// The current state does not allow it.
pub fn refused(message: impl fmt::Display) -> Failure {
    Failure::refusal(Kind::Refused, message)
}

/// As [`refused`], with a hint.
pub fn refused_hint(message: impl fmt::Display, hint: impl fmt::Display) -> Failure {
    refused(message).hint(hint)
}

/// Whether a full disk or a quota is the cause.
pub fn no_space(error: &anyhow::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        let sql = cause.downcast_ref::<rusqlite::Error>().and_then(rusqlite::Error::sqlite_error_code);
        matches!(io, Some(StorageFull | QuotaExceeded)) || sql == Some(rusqlite::ErrorCode::DiskFull)
    })
}

/// The failure for input that cannot be used, with all causes. A full disk is a failure of the server.
pub fn unusable(error: anyhow::Error) -> Failure {
    if no_space(&error) { Failure::Internal(error) } else { refused(reasons(&error)) }
}

/// The messages of an error and its causes, without repeating a cause that a message already contains.
pub fn reasons(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
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
        let Failure::Refusal(told) = unusable(error(2)) else { panic!("a missing file is") };
        assert_eq!(
            told.message,
            "cannot import rootfs.tar: cannot create /x: No such file or directory (os error 2)"
        );
    }
}
