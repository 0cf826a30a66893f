//! Who a client is, and what it should load.
//!
//! | client | loads |
//! |---|---|
//! | class `walt.node.<model>` | nothing: its own script goes on with the image's files |
//! | iPXE without our script | the script that the server makes, by HTTP |
//! | Raspberry Pi ROM | that this is a boot server (options 43 and 60), which is all that it looks for |
//! | PXE ROM, BIOS | iPXE for BIOS, by TFTP |
//! | PXE ROM, UEFI on x86-64 | iPXE for UEFI, by TFTP |
//! | the same, of a node that boots by Secure Boot | [`SECURE_LOADER`], by TFTP |

use super::Request;
use walt_types::{Mac, Model};

/// What a node's class starts with.
const NODE_PREFIX: &str = "walt.node.";
/// What the vendor class of a PXE ROM starts with (PXE specification 2.1, §2.2.3).
const PXE_PREFIX: &str = "PXEClient";
/// User class of iPXE.
const IPXE_CLASS: &str = "iPXE";
/// Architectures of option 93 (RFC 4578 §2.1 and its errata): UEFI on x86-64 announces 7 or 9.
const ARCH_BIOS: u16 = 0;
const ARCH_UEFI: [u16; 2] = [7, 9];
/// Prefixes of the Ethernet addresses of Raspberry Pi boards.
const RASPBERRY: [[u8; 3]; 7] = [
    [0x28, 0xcd, 0xc1],
    [0xb8, 0x27, 0xeb],
    [0xd8, 0x3a, 0xdd],
    [0xdc, 0xa6, 0x32],
    [0xe4, 0x5f, 0x01],
    [0x2c, 0xcf, 0x67],
    [0x88, 0xa2, 0x9e],
];
/// Option 43 that a Raspberry Pi's ROM looks for: a boot menu (sub-option 9) with one entry of type 0.
const RASPBERRY_MENU: &str = "Raspberry Pi Boot";

/// What UEFI firmware loads that only runs signed programs: shim.
pub const SECURE_LOADER: &str = "secure/shimx64.efi";

/// What a client says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Class {
    /// A node of a model; its boot loader is ours or knows us.
    Node(Model),
    /// iPXE as it comes.
    Ipxe,
    /// A PXE ROM and its architecture.
    Pxe(Option<u16>),
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
    fn of(&self, arch: u16) -> Option<&String> {
        if arch == ARCH_BIOS {
            self.bios.as_ref()
        } else {
            self.uefi.as_ref().filter(|_| ARCH_UEFI.contains(&arch))
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
    let model = |class: &str| class.strip_prefix(NODE_PREFIX).and_then(|m| m.parse::<Model>().ok());
    if let Some(model) = model(&request.user_class).or_else(|| model(&request.vendor_class)) {
        Class::Node(model)
    } else if request.is_ipxe || request.user_class == IPXE_CLASS {
        Class::Ipxe
    } else if request.vendor_class.starts_with(PXE_PREFIX) {
        Class::Pxe(request.arch)
    } else {
        Class::Other
    }
}

/// What a client should load; `script` is the URL of the script for iPXE without ours.
pub fn advice(request: &Request, script: &str, loaders: &Loaders) -> Advice {
    let for_ipxe = request.is_ipxe;
    match class(request) {
        Class::Ipxe => Advice { file: Some(script.to_owned()), for_ipxe, ..Advice::default() },
        Class::Pxe(_) if is_raspberry(request.mac) => {
            Advice { vendor: Some(raspberry_menu()), class: Some(PXE_PREFIX), ..Advice::default() }
        }
        Class::Pxe(arch) => Advice { file: arch.and_then(|a| loaders.of(a)).cloned(), ..Advice::default() },
        Class::Node(_) => Advice { for_ipxe, ..Advice::default() },
        Class::Other => Advice::default(),
    }
}

/// Whether a client is UEFI firmware of a PC that loads by PXE.
pub fn is_uefi_pc(request: &Request) -> bool {
    matches!(class(request), Class::Pxe(Some(arch)) if ARCH_UEFI.contains(&arch))
}

/// Whether a client needs a boot loader that the server could have and has not.
pub fn needs_loader(request: &Request, loaders: &Loaders) -> bool {
    match class(request) {
        Class::Pxe(Some(arch)) if !is_raspberry(request.mac) => {
            (arch == ARCH_BIOS || ARCH_UEFI.contains(&arch)) && loaders.of(arch).is_none()
        }
        _ => false,
    }
}

fn is_raspberry(mac: Mac) -> bool {
    RASPBERRY.iter().any(|prefix| mac.0.starts_with(prefix))
}

fn raspberry_menu() -> Vec<u8> {
    let text = RASPBERRY_MENU.as_bytes();
    // Invariant: the text is 17 bytes long.
    let mut menu = vec![9, text.len() as u8 + 3, 0, 0, text.len() as u8];
    menu.extend_from_slice(text);
    menu.push(255);
    menu
}
