//! Who a client is, and what it should load: all of it is decided here.
//!
//! | client | how it says so | loads | is a node of model |
//! |---|---|---|---|
//! | our loader, or a board's U-Boot | class `walt.node.<model>` | nothing: it goes on by itself | `<model>` |
//! | iPXE without our script | user class `iPXE`, or option 175 | the script that the server makes, by HTTP | |
//! | Raspberry Pi | PXE class, and option 97 or its address | what it asks for by TFTP; options 43 and 60 let it ask | as option 97 says |
//! | PXE ROM, BIOS | PXE class, architecture 0 | iPXE for BIOS, by TFTP | |
//! | UEFI on x86-64, PXE | PXE class, architecture 7 or 9 | iPXE for UEFI, by TFTP | |
//! | the same, of a node that boots by Secure Boot | | [`SECURE_LOADER`], by TFTP | |
//! | UEFI on x86-64, HTTP | HTTP class, architecture 16 | iPXE for UEFI, by HTTP | |
//! | UEFI on arm64, PXE | PXE class, architecture 11 | [`START_EFI`] of its image, by TFTP | [`UEFI_ARM64`] |
//! | UEFI on arm64, HTTP | HTTP class, architecture 19 | nothing: the firmware goes on to PXE | |
//! | anything else: phones, printers, running systems | | nothing | |
//!
//! PXE class: vendor class `PXEClient…` (PXE specification 2.1, §2.2.3); HTTP class: `HTTPClient…` (UEFI specification
//! 2.10, §24.7). Architecture: option 93, or the number in the class. Debian has no iPXE for arm64: a machine has its
//! loader from its image there, so it is a node before it has loaded anything. That is GRUB, which finds neither its
//! configuration nor an address when firmware has loaded it by HTTP, and would end in a prompt.

use super::Request;
use crate::rpi::Board;
use walt_types::Model;

/// What a node's class starts with.
const NODE_PREFIX: &str = "walt.node.";
/// What the vendor class of a PXE ROM starts with.
const PXE_PREFIX: &str = "PXEClient";
/// What the vendor class of firmware starts with that loads by HTTP.
const HTTP_PREFIX: &str = "HTTPClient";
/// What stands before the architecture in both.
const ARCH_WORD: &str = ":Arch:";
/// User class of iPXE.
const IPXE_CLASS: &str = "iPXE";
/// Model of arm64 machines with UEFI.
pub const UEFI_ARM64: &str = "uefi-arm64";
/// First file of an image that UEFI firmware loads.
pub const START_EFI: &str = "start.efi";
/// Firmware by architecture and by road (IANA, "Processor Architecture Types"; for x86-64 both 7 and 9 are in use).
const FIRMWARE: [(u16, Road, Firmware); 5] = [
    (0, Road::Tftp, Firmware::Bios),
    (7, Road::Tftp, Firmware::UefiX64),
    (9, Road::Tftp, Firmware::UefiX64),
    (11, Road::Tftp, Firmware::UefiArm64),
    (16, Road::Http, Firmware::UefiX64),
];
/// Option 43 that a Raspberry Pi looks for: a boot menu (sub-option 9) with one entry of type 0.
const RASPBERRY_MENU: &str = "Raspberry Pi Boot";

/// How firmware loads its first file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Road {
    /// By TFTP, as PXE has it.
    Tftp,
    /// By HTTP.
    Http,
}

/// Firmware that a loader exists for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    /// A PC's BIOS.
    Bios,
    /// UEFI on x86-64.
    UefiX64,
    /// UEFI on arm64.
    UefiArm64,
}

/// What UEFI firmware loads that only runs signed programs: shim.
pub const SECURE_LOADER: &str = "secure/shimx64.efi";

/// What a client says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Class {
    /// A node of a model; its boot loader is ours or knows us.
    Node(Model),
    /// iPXE as it comes.
    Ipxe,
    /// The firmware of a Raspberry Pi.
    Board(Board),
    /// Other firmware that boots from the network; none if there is no loader for it.
    Firmware(Road, Option<Firmware>),
    /// Something else, such as a running system.
    Other,
}

/// Boot loaders that the server has, by their paths on its TFTP.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Loaders {
    /// iPXE for BIOS.
    pub bios: Option<String>,
    /// iPXE for UEFI on x86-64.
    pub uefi: Option<String>,
}

impl Loaders {
    fn of(&self, firmware: Firmware) -> Option<&str> {
        match firmware {
            Firmware::Bios => self.bios.as_deref(),
            Firmware::UefiX64 => self.uefi.as_deref(),
            Firmware::UefiArm64 => Some(START_EFI),
        }
    }
}

/// What a reply says about booting.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Advice {
    /// Field `file`: a path on TFTP or a URL.
    pub file: Option<String>,
    /// Option 43.
    pub vendor: Option<Vec<u8>>,
    /// Option 60.
    pub class: Option<&'static str>,
    /// Whether iPXE's settings are sent: it does not wait for a proxy then.
    pub for_ipxe: bool,
}

/// What a client claims to be; the user class wins over the vendor class. A claim with an invalid model is ignored, since
/// models end up in paths and in names of images.
pub fn class(request: &Request) -> Class {
    let named = |class: &str| class.strip_prefix(NODE_PREFIX).and_then(|m| m.parse::<Model>().ok());
    if let Some(model) = named(&request.user_class).or_else(|| named(&request.vendor_class)) {
        return Class::Node(model);
    }
    if request.is_ipxe || request.user_class == IPXE_CLASS {
        return Class::Ipxe;
    }
    let road = match &request.vendor_class {
        class if class.starts_with(PXE_PREFIX) => Road::Tftp,
        class if class.starts_with(HTTP_PREFIX) => Road::Http,
        _ => return Class::Other,
    };
    match Board::of(request.mac, request.machine_id.as_deref()) {
        Some(board) if road == Road::Tftp && is_like_bios(request) => Class::Board(board),
        _ => {
            let arch = architecture(request);
            let found = FIRMWARE.iter().find(|(number, by, _)| Some(*number) == arch && *by == road);
            Class::Firmware(road, found.map(|(.., firmware)| *firmware))
        }
    }
}

/// A Raspberry Pi under UEFI firmware says that it is UEFI; its own firmware calls itself a BIOS.
fn is_like_bios(request: &Request) -> bool {
    architecture(request).is_none_or(|number| number == 0)
}

/// Option 93, or else the number in the vendor class.
fn architecture(request: &Request) -> Option<u16> {
    request.arch.or_else(|| {
        let (_, rest) = request.vendor_class.split_once(ARCH_WORD)?;
        rest.split(':').next()?.parse().ok()
    })
}

/// The model of node that a client is, if it says so or if its firmware leaves no choice.
pub fn model(request: &Request) -> Option<Model> {
    match class(request) {
        Class::Node(model) => Some(model),
        Class::Board(board) => board.model,
        // Invariant: it is a valid model.
        Class::Firmware(_, Some(Firmware::UefiArm64)) => UEFI_ARM64.parse().ok(),
        Class::Firmware(..) | Class::Ipxe | Class::Other => None,
    }
}

/// What a client should load. `script` is the URL of the script for iPXE without ours, `root` that of all boot files.
pub fn advice(request: &Request, script: &str, root: &str, loaders: &Loaders) -> Advice {
    let for_ipxe = request.is_ipxe;
    match class(request) {
        Class::Ipxe => Advice { file: Some(script.to_owned()), for_ipxe, ..Advice::default() },
        Class::Board(_) => {
            Advice { vendor: Some(raspberry_menu()), class: Some(PXE_PREFIX), ..Advice::default() }
        }
        Class::Firmware(road, firmware) => {
            let path = firmware.and_then(|f| loaders.of(f));
            match road {
                Road::Tftp => Advice { file: path.map(str::to_owned), ..Advice::default() },
                Road::Http => Advice {
                    file: path.map(|path| format!("{root}{path}")),
                    class: path.map(|_| HTTP_PREFIX),
                    ..Advice::default()
                },
            }
        }
        Class::Node(_) => Advice { for_ipxe, ..Advice::default() },
        Class::Other => Advice::default(),
    }
}

/// Whether a client is UEFI firmware of a PC that loads by PXE.
pub fn is_uefi_pc(request: &Request) -> bool {
    matches!(class(request), Class::Firmware(Road::Tftp, Some(Firmware::UefiX64)))
}

/// Whether a client needs a boot loader that the server could have and has not.
pub fn needs_loader(request: &Request, loaders: &Loaders) -> bool {
    matches!(class(request), Class::Firmware(_, Some(firmware)) if loaders.of(firmware).is_none())
}

fn raspberry_menu() -> Vec<u8> {
    let text = RASPBERRY_MENU.as_bytes();
    // Invariant: the text is 17 bytes long.
    let mut menu = vec![9, text.len() as u8 + 3, 0, 0, text.len() as u8];
    menu.extend_from_slice(text);
    menu.push(255);
    menu
}
