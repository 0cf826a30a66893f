//! How a command fails: its message and its exit status.

use crate::ui;
use std::io;
use walt_api::{ApiError, ErrorCode};
use walt_client::{Error, Target};

/// Exit status of a command that failed, or that its user declined.
const STATUS_FAILED: i32 = 1;
/// Exit status of a command line that cannot be understood.
pub const STATUS_USAGE: i32 = 2;
/// Exit status of an unknown category or sub-command; scripts rely on it.
pub const STATUS_UNKNOWN: i32 = 1;
/// A program that signal n ended has this plus n as its exit status, as in shells.
const STATUS_SIGNAL: i32 = 128;

/// Why a command failed.
#[derive(Debug)]
pub enum Failure {
    /// The command line is wrong.
    Usage {
        /// What is wrong with it.
        reason: String,
        /// Help of the command it was meant for; the grammar adds it.
        help: Option<String>,
        /// Exit status.
        status: i32,
    },
    /// Not an error: help is shown instead of running a command.
    Help {
        /// The text, for standard output.
        text: String,
        /// Exit status.
        status: i32,
    },
    /// It failed on this side.
    Failed {
        /// One sentence.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// The server refused or failed.
    Api(Box<ApiError>),
    /// No server, or a broken connection.
    Client(Error),
    /// The user pressed ctrl-C or declined; `newline` after a `^C` echoed by the terminal.
    Aborted {
        /// Whether the cursor is behind a `^C`.
        newline: bool,
    },
    /// The reason has already been printed; only the exit status is left.
    Status(i32),
}

impl Failure {
    /// A failure with a message: one sentence.
    pub fn new(message: impl Into<String>) -> Self {
        Self::Failed { message: message.into(), hint: None }
    }

    /// A failure with a message and a hint what to do about it.
    pub fn with_hint(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Failed { message: message.into(), hint: Some(hint.into()) }
    }

    /// Arguments that the grammar accepts and the command does not.
    pub fn usage(reason: impl Into<String>) -> Self {
        Self::Usage { reason: reason.into(), help: None, status: STATUS_USAGE }
    }

    /// The same failure, with the help of its command if it is about arguments.
    #[must_use]
    pub fn with_help(self, text: impl FnOnce() -> String) -> Self {
        match self {
            Self::Usage { reason, help: None, status } => Self::Usage { reason, help: Some(text()), status },
            other => other,
        }
    }

    /// It failed, and the reason has already been printed.
    pub fn reported() -> Self {
        Self::Status(STATUS_FAILED)
    }

    /// Ended by signal `number`.
    pub fn signal(number: i32) -> Self {
        Self::Status(STATUS_SIGNAL + number)
    }

    /// Prints the failure, and returns the exit status.
    pub fn report(&self) -> i32 {
        match self {
            Self::Help { text, status } => {
                let _ = ui::out_text(text);
                *status
            }
            Self::Status(status) => *status,
            Self::Usage { status, .. } => {
                ui::note(&self.text());
                *status
            }
            _ => {
                ui::note(&self.text());
                STATUS_FAILED
            }
        }
    }

    /// The message for standard error.
    pub fn text(&self) -> String {
        match self {
            Self::Usage { reason, help: None, .. } => format!("Error: {reason}"),
            Self::Usage { reason, help: Some(help), .. } => {
                format!("Error: {reason}\n------\n{}", help.trim_end())
            }
            Self::Help { text, .. } => text.clone(),
            Self::Failed { message, hint } => sentence(message, hint.as_deref(), None),
            Self::Api(error) => {
                // The id finds the details in the server's log, which has them for the server's own failures only.
                let id = (error.code == ErrorCode::Internal).then_some(error.request_id.as_deref()).flatten();
                sentence(&error.message, error.hint.as_deref(), id)
            }
            Self::Client(error) => client_text(error),
            Self::Aborted { newline: true } => "\nAborted.".to_owned(),
            Self::Aborted { newline: false } => "Aborted.".to_owned(),
            Self::Status(_) => String::new(),
        }
    }
}

fn sentence(message: &str, hint: Option<&str>, id: Option<&str>) -> String {
    let mut text = String::new();
    if !message.starts_with("Error: ") {
        text.push_str("Error: ");
    }
    text.push_str(message);
    if let Some(hint) = hint {
        text.push('\n');
        text.push_str(hint);
    }
    if let Some(id) = id {
        text.push_str(&format!("\nSee request {id} in the server's log for the details."));
    }
    text
}

fn client_text(error: &Error) -> String {
    match error {
        Error::Connect { target, reason } => {
            let mut text = format!(
                "Network connection to WalT server failed!\nNo server answers at {target}: {reason}."
            );
            text.push_str("\nIs walt-server running? Set WALT_SERVER to unix:<path of walt.sock> or ssh://<host> to select another server.");
            if Target::from_env().is_ok_and(|t| matches!(t, Target::Ssh { .. })) {
                text.push_str("\nThe command 'walt' must be in the PATH of ssh sessions on that host.");
            }
            text
        }
        Error::Broken(reason) => {
            let mut text = "Issue occured while communicating with WalT server!".to_owned();
            text.push_str(&format!("\nDetails: {reason}."));
            text
        }
        Error::Api(error) => sentence(&error.message, error.hint.as_deref(), error.request_id.as_deref()),
        Error::BadTarget(_) | Error::BadUser(_) => format!("Error: {error}"),
        Error::Version { .. } => format!("Error: {error}\nInstall the same version of walt on both sides."),
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Api(error) => Self::Api(error),
            other => Self::Client(other),
        }
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::Api(Box::new(error))
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        // A reader that has read enough, such as `head`, closes the pipe: print nothing.
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::reported()
        } else {
            Self::new(error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        let api = ApiError::new(ErrorCode::NotFound, "No such image 'x'.").hint("(tip: walt image show)");
        assert_eq!(Failure::from(api).text(), "Error: No such image 'x'.\n(tip: walt image show)");
        let mut api = ApiError::new(ErrorCode::Internal, "it broke");
        api.request_id = Some("r7".into());
        assert!(Failure::from(api).text().ends_with("See request r7 in the server's log for the details."));
        let text = Failure::from(Error::Connect { target: "/run/x".into(), reason: "no".into() }).text();
        assert!(text.starts_with("Network connection to WalT server failed!\n"), "{text}");
        assert!(text.contains("/run/x"));
        let usage = Failure::Usage { reason: "r".into(), help: Some("h\n".into()), status: STATUS_USAGE };
        assert_eq!(usage.text(), "Error: r\n------\nh");
    }
}
