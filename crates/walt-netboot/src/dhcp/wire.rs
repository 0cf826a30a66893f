//! From bytes to [`Request`]. Options are walked here and not by `dhcproto`, which stops in silence at a
//! malformed one, asserts lengths that a client chooses, and leaves overloaded fields aside.

use dhcproto::{
    Decodable, Decoder,
    v4::{HType, MAGIC, Message, MessageType, Opcode, OptionCode},
};
use std::{collections::BTreeMap, net::Ipv4Addr};
use walt_types::Mac;

/// Largest request that is read, in bytes: what fits an Ethernet frame.
pub const PACKET_MAX: usize = 1500;
/// Bytes in front of the options: the fields of BOOTP and the magic cookie (RFC 2131 §2).
const HEADER: usize = 240;
/// Where the fields `sname` and `file` are, which option 52 may turn into room for options.
const SNAME: std::ops::Range<usize> = 44..108;
const FILE: std::ops::Range<usize> = 108..236;
/// Lengths of a client identifier (RFC 2132 §9.14; an option has 255 bytes).
const CLIENT_ID: std::ops::RangeInclusive<usize> = 2..=255;
/// Option of iPXE's own settings: <https://ipxe.org/howto/dhcpd>.
pub const OPTION_IPXE: u8 = 175;

/// Option with the name of the boot file (RFC 2132 §9.5).
const OPTION_FILE: u8 = 67;

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Kind of the message.
    pub kind: MessageType,
    /// The client's number for this exchange.
    pub xid: u32,
    /// Seconds since the client began.
    pub secs: u16,
    /// Whether the client can only receive broadcasts before it has an address.
    pub broadcast: bool,
    /// Address that the client has and uses; 0.0.0.0 if none.
    pub ciaddr: Ipv4Addr,
    /// Its Ethernet address.
    pub mac: Mac,
    /// Address that it asks for (option 50).
    pub requested: Option<Ipv4Addr>,
    /// Server that it chose (option 54).
    pub server: Option<Ipv4Addr>,
    /// Name that it gives itself (option 12).
    pub host_name: Option<String>,
    /// Client identifier (option 61), which a reply repeats (RFC 6842).
    pub client_id: Option<Vec<u8>>,
    /// Vendor class (option 60).
    pub vendor_class: String,
    /// User class (option 77).
    pub user_class: String,
    /// Architecture of a network boot program (option 93, RFC 4578).
    pub arch: Option<u16>,
    /// Machine identifier of a network boot program (option 97, RFC 4578), which a reply repeats.
    pub machine_id: Option<Vec<u8>>,
    /// Whether it is iPXE: option 175 is there.
    pub is_ipxe: bool,
    /// Whether it wants the name of the boot file as an option (67), too: its option 55 lists it.
    pub wants_file_option: bool,
}

impl Request {
    /// The request of a station that wants to keep an address, as one does after its start (RFC 2131 §4.3.2,
    /// INIT-REBOOT).
    pub fn to_keep(mac: Mac, ip: Ipv4Addr) -> Self {
        Self {
            kind: MessageType::Request,
            xid: 0,
            secs: 0,
            broadcast: false,
            ciaddr: Ipv4Addr::UNSPECIFIED,
            mac,
            requested: Some(ip),
            server: None,
            host_name: None,
            client_id: None,
            vendor_class: String::new(),
            user_class: String::new(),
            arch: None,
            machine_id: None,
            is_ipxe: false,
            wants_file_option: false,
        }
    }
}

/// Why a packet is not a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Shorter than the fixed fields, or longer than a frame.
    #[error("{0} bytes cannot be a DHCP message")]
    Length(usize),
    /// Not from a client.
    #[error("it is not a request")]
    NotARequest,
    /// Not Ethernet, or an address that no station can have.
    #[error("its hardware address is not that of an Ethernet station")]
    Hardware,
    /// It came through a relay.
    #[error("it came through a relay, and walt-net has none")]
    Relay,
    /// The four bytes that distinguish DHCP from other uses of BOOTP are missing.
    #[error("it has no DHCP options")]
    Cookie,
    /// An option is longer than what is left.
    #[error("option {0} is cut")]
    Cut(u8),
    /// An option has a length that it cannot have.
    #[error("option {0} has a wrong length")]
    OptionLength(u8),
    /// Option 53 is missing: plain BOOTP.
    #[error("it does not say what kind of message it is")]
    NoType,
}

type Options = BTreeMap<u8, Vec<u8>>;

/// Reads a packet.
///
/// # Errors
/// Why it is not a request that could be answered.
pub fn parse(packet: &[u8]) -> Result<Request, WireError> {
    if !(HEADER..=PACKET_MAX).contains(&packet.len()) {
        return Err(WireError::Length(packet.len()));
    }
    if packet[HEADER - MAGIC.len()..HEADER] != MAGIC {
        return Err(WireError::Cookie);
    }
    // `dhcproto` reads the fixed fields only.
    let header =
        Message::decode(&mut Decoder::new(&packet[..HEADER])).map_err(|_| WireError::Length(packet.len()))?;
    if header.opcode() != Opcode::BootRequest {
        return Err(WireError::NotARequest);
    }
    // Checked before chaddr(), which trusts the length.
    if header.htype() != HType::Eth || header.hlen() != 6 {
        return Err(WireError::Hardware);
    }
    let mac = Mac(header.chaddr().try_into().map_err(|_| WireError::Hardware)?);
    if mac.0[0] & 1 == 1 || mac.0 == [0; 6] {
        return Err(WireError::Hardware);
    }
    if header.giaddr() != Ipv4Addr::UNSPECIFIED {
        return Err(WireError::Relay);
    }
    let options = options(packet)?;
    let kind = *options.get(&53).ok_or(WireError::NoType)?.first().ok_or(WireError::OptionLength(53))?;
    Ok(Request {
        kind: kind.into(),
        xid: header.xid(),
        secs: header.secs(),
        broadcast: header.flags().broadcast(),
        ciaddr: header.ciaddr(),
        mac,
        requested: address(&options, OptionCode::RequestedIpAddress.into())?,
        server: address(&options, OptionCode::ServerIdentifier.into())?,
        host_name: options.get(&12).map(|b| text(b)).filter(|t| !t.is_empty()),
        client_id: options.get(&61).filter(|b| CLIENT_ID.contains(&b.len())).cloned(),
        vendor_class: options.get(&60).map(|b| text(b)).unwrap_or_default(),
        user_class: options.get(&77).map(|b| user_class(b)).unwrap_or_default(),
        arch: options.get(&93).and_then(|b| b.first_chunk()).map(|b| u16::from_be_bytes(*b)),
        machine_id: options.get(&97).filter(|b| b.len() == 17).cloned(),
        is_ipxe: options.contains_key(&OPTION_IPXE),
        wants_file_option: options.get(&55).is_some_and(|wanted| wanted.contains(&OPTION_FILE)),
    })
}

/// All options, long ones put together (RFC 3396), those in overloaded fields included.
fn options(packet: &[u8]) -> Result<Options, WireError> {
    let mut all = Options::new();
    walk(&packet[HEADER..], &mut all)?;
    let overload = all.get(&52).and_then(|b| b.first().copied()).unwrap_or(0);
    if overload & 1 != 0 {
        walk(&packet[FILE], &mut all)?;
    }
    if overload & 2 != 0 {
        walk(&packet[SNAME], &mut all)?;
    }
    Ok(all)
}

fn walk(mut bytes: &[u8], all: &mut Options) -> Result<(), WireError> {
    while let Some((&code, rest)) = bytes.split_first() {
        match code {
            0 => bytes = rest,
            255 => return Ok(()),
            _ => {
                let (&length, rest) = rest.split_first().ok_or(WireError::Cut(code))?;
                let (value, rest) = rest.split_at_checked(length.into()).ok_or(WireError::Cut(code))?;
                all.entry(code).or_default().extend_from_slice(value);
                bytes = rest;
            }
        }
    }
    // Clients exist that leave the end mark out.
    Ok(())
}

fn address(options: &Options, code: u8) -> Result<Option<Ipv4Addr>, WireError> {
    let Some(bytes) = options.get(&code) else { return Ok(None) };
    let bytes: [u8; 4] = bytes.as_slice().try_into().map_err(|_| WireError::OptionLength(code))?;
    Ok(Some(bytes.into()))
}

/// Text of an option; some clients count a final NUL in.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}

/// RFC 3004 wants a length in front of each class; iPXE and udhcpc send the text alone.
fn user_class(bytes: &[u8]) -> String {
    match bytes.split_first() {
        Some((&length, rest)) if usize::from(length) <= rest.len() && length < b' ' => {
            text(&rest[..length.into()])
        }
        _ => text(bytes),
    }
}
