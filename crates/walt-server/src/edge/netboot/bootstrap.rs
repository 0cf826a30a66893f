//! The script that leads stock iPXE to the boot scripts of the node's image.
//!
//! Published loaders have such a script built in; stock iPXE (of a network card, or of Debian's package `ipxe`) gets
//! this one. It reports the model of the machine by DHCP, which registers the machine as a node, and continues like
//! every published loader: at `start.ipxe`, by TFTP, since images name their next script by a path from the root of
//! TFTP.
//!
//! An iPXE for arm64, as some cards have it, goes on at `start.efi` instead, as UEFI firmware does.
//!
//! iPXE: <https://ipxe.org/cmd>. `cpuid --ext 29` is the long-mode bit of a 64-bit CPU. `netX` is the network card
//! that loaded this script. `ifconf` uses DHCP only, whereas `dhcp` would also wait for IPv6. DHCP sets the current
//! URI to the root of TFTP, so the next script has a full URI.

use std::net::Ipv4Addr;

/// Name of the script, in all protocols.
pub const NAME: &str = "bootstrap.ipxe";
/// Pauses before the second, the third … attempt, in seconds. After the last one, the machine reboots.
const PAUSES_S: [u32; 3] = [1, 3, 10];
/// How long the last message is shown, in seconds.
const READING_S: u32 = 10;

/// The script, for a server at this address.
pub fn script(server: Ipv4Addr) -> String {
    let mut text = format!(
        "#!ipxe
# Made by the WalT server {server}: tells the model of this machine, then boots its image.
iseq ${{buildarch}} arm64 && goto arm64 ||
set start start.ipxe
cpuid --ext 29 && set user-class walt.node.pc-x86-64 || set user-class walt.node.pc-x86-32
goto begin
:arm64
set start start.efi
set user-class walt.node.uefi-arm64
:begin
set next try-1
:try
ifconf --configurator dhcp netX || goto ${{next}}
chain --autofree tftp://{server}/${{start}} || goto ${{next}}
goto ${{next}}
"
    );
    for (number, pause) in (1..).zip(PAUSES_S) {
        let following = number + 1;
        text += &format!(
            ":try-{number}
echo WalT: boot failed, next try in {pause} s
sleep {pause}
set next try-{following}
goto try
"
        );
    }
    let last = PAUSES_S.len() + 1;
    text + &format!(
        ":try-{last}
echo WalT: the server {server} did not boot this machine; reboot in {READING_S} s
sleep {READING_S}
reboot
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{cell::Cell, io};
    use walt_netboot::ipxe::{self, Machine, Outcome};

    const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 183, 1);

    /// What a node finds: this script, and a start.ipxe that is there from the n-th look on.
    struct Files {
        script: String,
        missing: Cell<u32>,
    }

    impl ipxe::Files for Files {
        fn read(&self, path: &str, _limit: u64) -> io::Result<Vec<u8>> {
            match path {
                NAME => Ok(self.script.clone().into_bytes()),
                "start.ipxe" if self.missing.get() == 0 => Ok(b"#!ipxe\nkernel kernel a=b\nboot\n".to_vec()),
                "start.ipxe" => {
                    self.missing.set(self.missing.get() - 1);
                    Err(io::ErrorKind::NotFound.into())
                }
                other => panic!("{other} was read"),
            }
        }
        fn exists(&self, path: &str) -> bool {
            path == "kernel"
        }
    }

    /// Runs it without the commands that only a real machine can answer.
    fn run(missing: u32) -> ipxe::Report {
        let script: String = script(SERVER)
            .lines()
            .filter(|line| !line.starts_with("cpuid ") && !line.starts_with("ifconf "))
            .map(|line| format!("{line}\n"))
            .collect();
        let machine = Machine {
            mac: "52:54:00:12:34:56".parse().unwrap(),
            ip: Ipv4Addr::new(192, 168, 183, 2),
            netmask: Ipv4Addr::new(255, 255, 255, 0),
            gateway: None,
            hostname: "vn1".into(),
            next_server: SERVER,
            manufacturer: "QEMU".into(),
            product: "PC".into(),
            model: "pc-x86-64".into(),
        };
        ipxe::run(&machine, NAME, &Files { script, missing: Cell::new(missing) })
    }

    #[test]
    fn it_boots_what_start_ipxe_says() {
        for missing in 0..=PAUSES_S.len() as u32 {
            let report = run(missing);
            let Ok(Outcome::Boot(boot)) = report.outcome else { panic!("{missing}: {report:?}") };
            assert_eq!((boot.kernel.as_str(), boot.command_line.as_str()), ("kernel", "a=b"));
            assert_eq!(report.console.matches("next try in").count() as u32, missing);
        }
    }

    #[test]
    fn it_gives_up_after_the_last_pause() {
        let report = run(PAUSES_S.len() as u32 + 1);
        assert_eq!(report.outcome, Ok(Outcome::Reboot), "{}", report.console);
        assert!(
            report.console.ends_with("did not boot this machine; reboot in 10 s\n"),
            "{}",
            report.console
        );
    }
}
