//! `walt`, the command-line client.
//!
//! ```text
//! main ─▶ cli ─▶ help      the help texts, made from the table that cli passes
//!             ─▶ commands  the table (clap); one file per command: its arguments, and what it does
//!                  ├─ context   the server and the user: actions, with their confirmations
//!                  ├─ events    the server's messages while it works, ctrl-C
//!                  ├─ live      the state of the platform as it changes, over restarts of the server
//!                  ├─ terminal  a terminal: raw mode, window size, both directions
//!                  └─ ui        the only place that writes: results to stdout, all else to stderr
//! ```
//! Imports follow the arrows: a command knows neither the table that it is in nor the help.
//!
//! A command ends with `Ok` (exit status 0) or a [`error::Failure`] with its exit status: 1 for failed or declined, 2 for
//! usage errors, 255 for a bug of `walt`, or the status of the program that ran remotely.
//!
//! The runtime is single-threaded, and nothing is set up before it is needed: most commands are one request, so users
//! notice the start-up time.

mod action;
mod cli;
mod commands;
mod confirm;
mod context;
mod error;
mod events;
mod help;
mod live;
mod node_run;
mod registries;
mod stdio;
mod terminal;
mod topics;
mod ui;

use error::Failure;

/// Exit status after a panic, which is a bug of `walt`.
const STATUS_BUG: i32 = 255;

fn main() {
    let status = std::panic::catch_unwind(run).unwrap_or_else(|_| {
        // The panic's own message has been printed by then.
        ui::note("Error: unexpected client-side issue, please report it.");
        STATUS_BUG
    });
    std::process::exit(status);
}

fn run() -> i32 {
    let command = match cli::parse(std::env::args_os().skip(1).collect()) {
        Ok(command) => command,
        Err(failure) => return failure.report(),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::from(error).report(),
    };
    match runtime.block_on(command.run()) {
        Ok(()) => 0,
        Err(failure) => failure.report(),
    }
}
