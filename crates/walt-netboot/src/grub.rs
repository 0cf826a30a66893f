//! Configurations for GRUB: what it loads on a machine that only runs signed programs (Secure Boot).
//!
//! ```text
//! firmware ─► shim ─► GRUB ─grub/grub.cfg─► [`first`] ─grub/boot/<manufacturer>/<product>─► [`boot`]
//! ```
//! GRUB loads files from where it came from: the paths are those of TFTP. Its language: GRUB manual, "Writing full
//! configuration files directly". A kernel that is not signed makes `linux` fail.

use crate::ipxe::Boot;
use std::fmt::Write;

/// First configuration that GRUB asks for; its signed builds have this path built in.
pub const CONFIG: &str = "grub/grub.cfg";
/// Directory of the second one.
pub const BOOT_DIR: &str = "grub/boot/";
/// How long a failure is shown before the machine reboots, in seconds.
pub const READING_S: u32 = 30;
/// Characters that GRUB puts a backslash before, when it passes a command line to a kernel.
const ESCAPED: [char; 3] = ['\'', '"', '\\'];

/// The first configuration: it asks for the second one by manufacturer and product of the machine, since boot scripts may
/// depend on them.
pub fn first() -> String {
    format!(
        "# Made by the WalT server.
smbios --type 1 --get-string 4 --set manufacturer
smbios --type 1 --get-string 5 --set product
source \"$prefix/boot/$manufacturer/$product\"
{}",
        ending("the WalT server has no boot configuration for this machine")
    )
}

/// Manufacturer and product in a path below [`BOOT_DIR`].
pub fn machine(path: &str) -> Option<(&str, &str)> {
    path.strip_prefix(BOOT_DIR)?.split_once('/')
}

/// The configuration that starts a kernel.
///
/// # Errors
/// GRUB cannot pass this command line; the error says why.
pub fn boot(boot: &Boot) -> Result<String, String> {
    if let Some(c) = boot.command_line.chars().find(|c| ESCAPED.contains(c) || c.is_control()) {
        return Err(format!("the command line of the kernel has the character {c:?}, which GRUB changes"));
    }
    let mut text = "# Made by the WalT server from the boot scripts of the image.\nif linux".to_owned();
    write_words(&mut text, std::iter::once(format!("/{}", boot.kernel)));
    write_words(&mut text, boot.command_line.split_ascii_whitespace().map(str::to_owned));
    text += "; then\n";
    if boot.initrds.is_empty() {
        text += "boot\n";
    } else {
        text += "if initrd";
        write_words(&mut text, boot.initrds.iter().map(|path| format!("/{path}")));
        text += "; then\nboot\nfi\n";
    }
    text += "fi\n";
    Ok(text + &ending("the kernel did not start; with Secure Boot, it must be signed"))
}

/// A configuration that shows why nothing can be booted.
pub fn refusal(reason: &str) -> String {
    let plain: String = reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("# Made by the WalT server.\n{}", ending(&plain))
}

fn ending(reason: &str) -> String {
    let (reason, next) =
        (quoted(&format!("WalT: {reason}")), quoted(&format!("WalT: reboot in {READING_S} s")));
    format!("echo {reason}\necho {next}\nsleep {READING_S}\nreboot\n")
}

fn write_words(text: &mut String, words: impl Iterator<Item = String>) {
    for word in words {
        // Writing to a string cannot fail.
        let _ = write!(text, " {}", quoted(&word));
    }
}

/// A word as it is: nothing is special between single quotes but their end.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Boot {
        Boot {
            kernel: "kernel".into(),
            initrds: vec!["initrd".into(), "more's".into()],
            command_line: "a=$b  c;d ip=1.2.3.4:::".into(),
        }
    }

    #[test]
    fn a_kernel_is_started() {
        assert_eq!(
            boot(&example()).unwrap(),
            "# Made by the WalT server from the boot scripts of the image.
if linux '/kernel' 'a=$b' 'c;d' 'ip=1.2.3.4:::'; then
if initrd '/initrd' '/more'\\''s'; then
boot
fi
fi
echo 'WalT: the kernel did not start; with Secure Boot, it must be signed'
echo 'WalT: reboot in 30 s'
sleep 30
reboot
"
        );
        let without = boot(&Boot { initrds: Vec::new(), ..example() }).unwrap();
        assert!(without.contains("'; then\nboot\nfi\necho") && !without.contains("initrd"), "{without}");
    }

    #[test]
    fn what_grub_would_change_is_refused() {
        for c in ['\'', '"', '\\', '\n'] {
            let why = boot(&Boot { command_line: format!("a={c}b"), ..example() }).unwrap_err();
            assert_eq!(
                why,
                format!("the command line of the kernel has the character {c:?}, which GRUB changes")
            );
        }
    }

    #[test]
    fn what_machines_ask_for() {
        let text = first();
        assert!(text.contains("\nsource \"$prefix/boot/$manufacturer/$product\"\n"), "{text}");
        assert!(
            text.ends_with("for this machine'\necho 'WalT: reboot in 30 s'\nsleep 30\nreboot\n"),
            "{text}"
        );
        assert_eq!(machine("grub/boot/QEMU/Standard PC (Q35)/x"), Some(("QEMU", "Standard PC (Q35)/x")));
        assert_eq!(machine("grub/boot//"), Some(("", "")));
        assert_eq!(machine("grub/boot/QEMU"), None);
        assert_eq!(machine("grub/grub.cfg"), None);
    }

    #[test]
    fn a_refusal_is_one_line() {
        let text = refusal("it's\nbad");
        assert!(text.contains("\necho 'WalT: it'\\''s bad'\necho "), "{text}");
    }
}
