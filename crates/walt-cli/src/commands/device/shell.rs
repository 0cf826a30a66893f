//! `walt device shell`

use crate::{
    commands::{
        node::{access, shell},
        options::Confirmed,
    },
    context::Context,
    error::Failure,
    terminal::{self, Mode},
    ui::prompt::Dialog,
};
use clap::Args;
use walt_api::term::NodeTerminal;
use walt_types::DeviceType;

/// Who logs in, unless the user says otherwise.
const DEFAULT_USER: &str = "root";

/// `walt device shell`
#[derive(Debug, Args)]
pub struct Shell {
    device_name: String,
    /// SSH user name
    #[arg(long, value_name = "USER:str")]
    user: Option<String>,
    #[command(flatten)]
    confirmed: Confirmed,
}

impl Shell {
    /// Runs it. A node is reached as by `walt node shell`, where everybody is root.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let yes = self.confirmed.yes;
        let devices = context.ui.watch(context.client.devices()).await?.devices;
        let device = devices.iter().find(|d| d.name.eq_ignore_ascii_case(&self.device_name));
        if device.is_some_and(|d| d.device_type == DeviceType::Node) {
            if self.user.as_deref().is_some_and(|user| user != DEFAULT_USER) {
                return Err(Failure::with_hint(
                    format!("{} is a node: its shell is that of {DEFAULT_USER}.", self.device_name),
                    "Leave --user out, or use 'walt node shell'.",
                ));
            }
            return shell::shell(context, &self.device_name, yes).await;
        }
        // Of a device that cannot be reached, the server says why: nothing is asked before.
        let user = match (self.user, device.is_some_and(|d| d.device_type != DeviceType::Server)) {
            (Some(user), _) => user,
            (None, true) => context.ask("SSH user name: ").await?.line()?,
            (None, false) => String::new(),
        };
        let user = if user.is_empty() { DEFAULT_USER.to_owned() } else { user };
        let tty = terminal::local_tty(&context.ui);
        let mode = if tty.is_some() { Mode::Raw } else { Mode::Pipes };
        let what = NodeTerminal::DeviceShell { user };
        access::result(access::open(context, &self.device_name, what, tty, mode, yes).await?)
    }
}
