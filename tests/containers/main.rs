//! Image shells: a real image, a real runtime, a terminal.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking: unwrap is their assertion")]

mod crash;
mod escape;
mod history;
mod hooks;
mod mini;

use std::time::Duration;
use walt_testkit::User;

/// The normal user.
const USER: User = User::Account("nobody");
/// For what a person would call at once.
const SOON: Duration = Duration::from_secs(60);
