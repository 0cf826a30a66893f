//! An interpreter of the iPXE scripts of images, for nodes that are started without firmware (`direct` boot).
//!
//! Images carry `start.ipxe` and friends, written for iPXE on a real machine. For a virtual node the server runs them
//! itself, on the files of the image, and gets what a real iPXE would have started: kernel, initrds, command line.
//!
//! ```text
//! start.ipxe ─chain─► start-generic.ipxe ─chain─► start-generic-2.ipxe ─► boot
//!                                                      └─chain─► server-params, boot-params, <submodel>/boot-params
//! ```
//!
//! Commands: `set echo chain imgfree initrd kernel boot sleep reboot shell isset iseq goto`, labels, comments, `||`,
//! `&&`, `;`, continuation by `\`, and `${variable}` with the types `string hex hexhyp hexraw uristring`. Anything else
//! is an error that names file and line, so that an image that needs more says so instead of booting half.
//!
//! The meaning is iPXE's: a line is split at blanks first and expanded after, so a value with blanks stays one word;
//! `||` and `&&` decide about the next command only; a command that fails ends the script, and the script that chained
//! it sees a failure. Unset variables are empty. `sleep` takes no time here.
//!
//! Limits: [`MAX_STEPS`] commands, [`MAX_DEPTH`] scripts within scripts, [`MAX_SCRIPT`] bytes a script, [`MAX_VALUE`]
//! bytes a value, [`MAX_COMMAND_LINE`] bytes for the kernel, [`MAX_CONSOLE`] bytes of messages (the rest is cut).

mod exec;
mod expand;
mod script;
#[cfg(test)]
mod tests;
mod uri;

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use walt_types::Mac;

/// Most commands that one boot may run; a loop ends here.
pub const MAX_STEPS: usize = 1000;
/// Most scripts that may be open at once, the first not counted.
pub const MAX_DEPTH: usize = 8;
/// Longest script, in bytes.
pub const MAX_SCRIPT: u64 = 64 * 1024;
/// Longest value of a variable or word after expansion, in bytes.
pub const MAX_VALUE: usize = 16 * 1024;
/// Longest command line that a kernel of x86 takes (`COMMAND_LINE_SIZE` less its final NUL), in bytes.
pub const MAX_COMMAND_LINE: usize = 2047;
/// Most text of `echo` and of failures that is kept, in bytes.
pub const MAX_CONSOLE: usize = 64 * 1024;
/// Most files that may be loaded at once.
pub const MAX_IMAGES: usize = 64;

/// The boot files of a node, by names relative to `/boot/<model>` of its image: without leading slash and without
/// `.` and `..`.
pub trait Files {
    /// The bytes of a script. At most `limit` bytes are wanted; more is an error of the caller's choice.
    ///
    /// # Errors
    /// `NotFound` for a file that is not there; any error makes the command fail that asked.
    fn read(&self, path: &str, limit: u64) -> io::Result<Vec<u8>>;
    /// Whether there is a regular file of this name.
    fn exists(&self, path: &str) -> bool;
}

/// What iPXE would know of the machine it runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Ethernet address.
    pub mac: Mac,
    /// Address by DHCP.
    pub ip: Ipv4Addr,
    /// Mask of walt-net.
    pub netmask: Ipv4Addr,
    /// Router, if the node is given one.
    pub gateway: Option<Ipv4Addr>,
    /// Name of the node.
    pub hostname: String,
    /// The server.
    pub next_server: Ipv4Addr,
    /// Manufacturer in the firmware's tables; the same as qemu is given.
    pub manufacturer: String,
    /// Product in the firmware's tables; the same as qemu is given.
    pub product: String,
    /// Model of the node, such as `pc-x86-64`.
    pub model: String,
}

impl Machine {
    fn variables(&self) -> BTreeMap<String, expand::Value> {
        let text = |s: &str| expand::Value::Text(s.to_owned());
        let server = self.next_server.to_string();
        [
            ("mac", expand::Value::Bytes(self.mac.0.to_vec())),
            ("ip", text(&self.ip.to_string())),
            ("netmask", text(&self.netmask.to_string())),
            ("gateway", text(&self.gateway.map(|ip| ip.to_string()).unwrap_or_default())),
            ("hostname", text(&self.hostname)),
            ("name", text(&self.hostname)),
            ("next-server", text(&server)),
            ("dhcp-server", text(&server)),
            ("dns", text(&server)),
            ("server_ip", text(&server)),
            ("manufacturer", text(&self.manufacturer)),
            ("product", text(&self.product)),
            ("model", text(&self.model)),
            ("user-class", text(&format!("walt.node.{}", self.model))),
            ("platform", text("pcbios")),
            ("buildarch", text("x86_64")),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
    }
}

/// What the scripts decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Start a kernel.
    Boot(Boot),
    /// Start again from the first script.
    Reboot,
    /// A person at the console is wanted; a server has none, so this is a boot that failed.
    Shell,
}

/// What to start. Paths are as [`Files`] takes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// The kernel.
    pub kernel: String,
    /// The initrds, in the order in which they are to be concatenated.
    pub initrds: Vec<String>,
    /// Command line of the kernel.
    pub command_line: String,
}

/// How a boot went: the outcome, and what iPXE would have printed.
#[derive(Debug)]
pub struct Report {
    /// What to do, or why not.
    pub outcome: Result<Outcome, Error>,
    /// Text of `echo` and of commands that failed, each line ending in `\n`.
    pub console: String,
}

/// Why the scripts of an image lead to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {problem}")]
pub struct Error {
    /// The script.
    pub file: String,
    /// The line in it, from 1.
    pub line: usize,
    /// What is wrong there.
    pub problem: Problem,
}

/// What can be wrong in a script.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A command that this interpreter does not have.
    #[error(
        "unknown command '{0}' (known: set echo chain imgfree initrd kernel boot sleep reboot shell isset iseq goto)"
    )]
    UnknownCommand(String),
    /// An option that this interpreter does not have.
    #[error("'{command}' has no option '{option}'")]
    UnknownOption {
        /// The command.
        command: String,
        /// The option.
        option: String,
    },
    /// A command with too few or too many words.
    #[error("usage: {0}")]
    Usage(&'static str),
    /// `${variable:type}` with a type that this interpreter does not have.
    #[error("unknown type '{0}' of a variable (known: string hex hexhyp hexraw uristring)")]
    UnknownType(String),
    /// `${` without `}`.
    #[error("'${{' without '}}'")]
    OpenVariable,
    /// Something is larger than it may be.
    #[error("{what} exceeds {limit}")]
    Limit {
        /// What.
        what: &'static str,
        /// Its limit.
        limit: usize,
    },
    /// A file is needed from another machine, or by another protocol.
    #[error("'{0}' is not on this server (only names, tftp://<server>/ and http://<server>/boot/ are)")]
    ForeignUri(String),
    /// A chained file does not start with `#!ipxe`.
    #[error("'{0}' is not an iPXE script")]
    NotAScript(String),
    /// A command failed and nothing followed by `||`.
    #[error("'{command}' failed: {reason}")]
    Failed {
        /// The command.
        command: String,
        /// Why.
        reason: String,
    },
    /// The first script came to its end.
    #[error("the script ended without 'boot'")]
    NotBooted,
}

/// Runs the script `start` (such as `start.ipxe`) and what it chains.
///
/// Ends after a bounded number of steps on any input, and never panics.
pub fn run(machine: &Machine, start: &str, files: &dyn Files) -> Report {
    let mut interpreter = exec::Interpreter::new(machine, files);
    let outcome = interpreter.start(start);
    Report { outcome, console: interpreter.into_console() }
}
