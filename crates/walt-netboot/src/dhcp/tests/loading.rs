//! What a machine is told to load, and what it says of itself on the wire.

use super::*;

const PXE: &[u8] = b"PXEClient:Arch:00000:UNDI:002001";
/// The end of the identifiers below: bytes of the address, and the serial number.
const REST: [u8; 8] = [0x32, 1, 0x36, 0xc2, 0xef, 0xfd, 0xfe, 0x9e];

/// A machine as its firmware describes it: what differs from one to the other.
struct Machine {
    name: &'static str,
    mac: [u8; 6],
    class: &'static [u8],
    arch: Option<u16>,
    id: Vec<u8>,
    more: &'static [(u8, &'static [u8])],
}

impl Machine {
    fn new(name: &'static str, class: &'static [u8], arch: Option<u16>) -> Self {
        // Of a maker of PCs.
        Self { name, mac: [0x00, 0x0d, 0xb9, 0x18, 0xd5, 0x5d], class, arch, id: vec![], more: &[] }
    }
    fn with_id(self, start: &[u8], revision: u32) -> Self {
        Self { id: [&[0], start, &revision.to_le_bytes(), &REST].concat(), ..self }
    }
    fn client(&self) -> Client {
        let mut client = Client { mac: Mac(self.mac), ..Client::new(0) };
        // In the order of a PXE ROM: what it wants, its identifier, its architecture, its interface, its class.
        client = client.with(55, &[1, 3, 43, 60, 66, 128, 129, 130, 131, 132, 133, 134, 135]);
        if !self.id.is_empty() {
            client = client.with(97, &self.id);
        }
        if let Some(arch) = self.arch {
            client = client.with(93, &arch.to_be_bytes()).with(94, &[1, 2, 1]);
        }
        if !self.class.is_empty() {
            client = client.with(60, self.class);
        }
        self.more.iter().fold(client, |client, (code, value)| client.with(*code, value))
    }
}

/// What a machine is told, in words: the file, option 60, whether there is a menu in option 43; its model.
fn told(client: impl Fn() -> Client) -> (Option<String>, Option<String>, bool, Option<String>) {
    let mut server = server_of(24, &[]);
    let (offer, ..) = reply(handle(&mut server, &client().discovers(), 100, &nodes()));
    let menu = [&[9, 20, 0, 0, 17][..], b"Raspberry Pi Boot", &[255]].concat();
    let vendor = option(&offer, 43);
    assert!(vendor.is_none() || vendor == Some(DhcpOption::VendorExtensions(menu)), "{vendor:?}");
    let request = client().selects(offer.yiaddr());
    let model = server.registration(&request, 101, &nodes()).map(|r| r.model.to_string());
    let (ack, ..) = reply(handle(&mut server, &request, 101, &nodes()));
    for code in [43, 60, 67] {
        assert_eq!(option(&offer, code), option(&ack, code), "offer and confirmation differ in {code}");
    }
    assert_eq!(offer.fname(), ack.fname());
    let class = match option(&offer, 60) {
        Some(DhcpOption::ClassIdentifier(class)) => Some(String::from_utf8(class).unwrap()),
        other => other.map(|o| panic!("{o:?}")),
    };
    (offer.fname_str().map(|f| f.unwrap().trim_end_matches('\0').to_owned()), class, vendor.is_some(), model)
}

/// Every kind of firmware, and what must happen: file, option 60, menu, model.
#[test]
fn every_firmware() {
    let pi = |name, oui: [u8; 3]| Machine {
        mac: [oui[0], oui[1], oui[2], 1, 2, 3],
        ..Machine::new(name, PXE, Some(0))
    };
    let serial = || [&[0][..], &[0x7d, 0x24, 0x64, 0x55].repeat(4)].concat();
    let arm_pxe = b"PXEClient:Arch:00011:UNDI:003000";
    for (machine, file, class, menu, model) in [
        (Machine::new("PC, BIOS", PXE, Some(0)), Some("pxe/bios"), None, false, None),
        (
            Machine::new("PC, UEFI", b"PXEClient:Arch:00007:UNDI:003016", Some(7)),
            Some("pxe/uefi"),
            None,
            false,
            None,
        ),
        (
            Machine::new("PC, UEFI", b"PXEClient:Arch:00009:UNDI:003016", Some(9)),
            Some("pxe/uefi"),
            None,
            false,
            None,
        ),
        (
            Machine::new("PC, UEFI of 32 bits", b"PXEClient:Arch:00006:UNDI:003016", Some(6)),
            None,
            None,
            false,
            None,
        ),
        (
            Machine::new("PC, UEFI, HTTP", b"HTTPClient:Arch:00016:UNDI:003001", Some(16)),
            Some("http://192.168.183.1/boot/pxe/uefi"),
            Some("HTTPClient"),
            false,
            None,
        ),
        (
            Machine::new("the same, by its class alone", b"HTTPClient:Arch:00016:UNDI:003001", None),
            Some("http://192.168.183.1/boot/pxe/uefi"),
            Some("HTTPClient"),
            false,
            None,
        ),
        (Machine::new("PXE without option 93", PXE, None), Some("pxe/bios"), None, false, None),
        (Machine::new("PXE without any", b"PXEClient", None), None, None, false, None),
        (Machine::new("PXE, odd", b"PXEClient:Arch:x", None), None, None, false, None),
        (
            Machine::new("HTTP on an unknown CPU", b"HTTPClient:Arch:00027:UNDI:003001", Some(27)),
            None,
            None,
            false,
            None,
        ),
        // The number of one road does not count on the other.
        (Machine::new("HTTP, odd", b"HTTPClient", Some(7)), None, None, false, None),
        (Machine::new("PXE, odd", b"PXEClient", Some(16)), None, None, false, None),
        (Machine::new("arm64, UEFI", arm_pxe, Some(11)), Some("start.efi"), None, false, Some("uefi-arm64")),
        (
            Machine::new("arm64, UEFI, HTTP", b"HTTPClient:Arch:00019:UNDI:003001", Some(19)),
            None,
            None,
            false,
            None,
        ),
        // The ROM of a 3 B+ repeats its serial number; so do early EEPROMs.
        (Machine { id: serial(), ..pi("3 B+", [0xb8, 0x27, 0xeb]) }, None, Some("PXEClient"), true, None),
        (
            pi("4 B", [0xdc, 0xa6, 0x32]).with_id(b"RPi4", 0x00c0_3111),
            None,
            Some("PXEClient"),
            true,
            Some("rpi-4-b"),
        ),
        (
            Machine::new("4 B with another address", PXE, Some(0)).with_id(b"RPi4", 0x00c0_3111),
            None,
            Some("PXEClient"),
            true,
            Some("rpi-4-b"),
        ),
        (
            Machine::new("400", PXE, Some(0)).with_id(b"RPi4", 0x00c0_3130),
            None,
            Some("PXEClient"),
            true,
            Some("rpi-400"),
        ),
        (
            Machine::new("5 B", PXE, Some(0)).with_id(b"RPi5", 0x00d0_4170),
            None,
            Some("PXEClient"),
            true,
            Some("rpi-5-b"),
        ),
        (
            Machine::new("a board of the future", PXE, Some(0)).with_id(b"RPi5", 0x00d0_4ff0),
            None,
            Some("PXEClient"),
            true,
            None,
        ),
        (
            Machine { class: arm_pxe, arch: Some(11), ..pi("4 B with UEFI", [0xdc, 0xa6, 0x32]) },
            Some("start.efi"),
            None,
            false,
            Some("uefi-arm64"),
        ),
        (
            Machine {
                class: b"HTTPClient:Arch:00019",
                arch: None,
                ..pi("the same, HTTP", [0xdc, 0xa6, 0x32])
            },
            None,
            None,
            false,
            None,
        ),
        // iPXE: started by a ROM; in a card's ROM (FlexBoot), with its settings only; with its class only.
        (
            Machine { more: &[(175, &[0xb1, 1, 1]), (77, b"iPXE")], ..Machine::new("iPXE", PXE, Some(0)) },
            Some(SCRIPT),
            None,
            false,
            None,
        ),
        (
            Machine { more: &[(175, &[0xb1, 1, 1])], ..Machine::new("FlexBoot", PXE, Some(0)) },
            Some(SCRIPT),
            None,
            false,
            None,
        ),
        (
            Machine { more: &[(77, b"iPXE")], ..Machine::new("iPXE, little", b"", None) },
            Some(SCRIPT),
            None,
            false,
            None,
        ),
        (
            Machine {
                more: &[(175, &[0xb1, 1, 1]), (77, b"walt.node.pc-x86-64")],
                ..Machine::new("iPXE under our script", PXE, Some(0))
            },
            None,
            None,
            false,
            Some("pc-x86-64"),
        ),
        (
            Machine::new("U-Boot that knows us", b"walt.node.nanopi-r5c", Some(22)),
            None,
            None,
            false,
            Some("nanopi-r5c"),
        ),
        (
            pi("a Pi's U-Boot", [0xb8, 0x27, 0xeb]).of_class(b"walt.node.rpi-2-b"),
            None,
            None,
            false,
            Some("rpi-2-b"),
        ),
        (Machine::new("U-Boot that does not", b"U-Boot.armv8", Some(22)), None, None, false, None),
        // What runs, or is not a computer.
        (Machine::new("Linux", b"", None), None, None, false, None),
        (Machine::new("busybox", b"udhcp 1.35.0", None), None, None, false, None),
        (Machine::new("Windows", b"MSFT 5.0", None), None, None, false, None),
        (Machine::new("a phone", b"android-dhcp-13", None), None, None, false, None),
        (Machine::new("a telephone", b"yealink", None), None, None, false, None),
        (Machine::new("a printer", b"Hewlett-Packard JetDirect", None), None, None, false, None),
        (
            pi("Linux on a Pi", [0xb8, 0x27, 0xeb])
                .of_class(b"dhcpcd-9.4.1:Linux-6.1.21-v8+:aarch64:BCM2835"),
            None,
            None,
            false,
            None,
        ),
        (
            Machine::new("Linux that names its machine", b"Linux", None).with_id(b"RPi4", 0x00c0_3111),
            None,
            None,
            false,
            None,
        ),
    ] {
        let expected = (file.map(str::to_owned), class.map(str::to_owned), menu, model.map(str::to_owned));
        assert_eq!(told(|| machine.client()), expected, "{}", machine.name);
    }
}

impl Machine {
    fn of_class(self, class: &'static [u8]) -> Self {
        Self { class, arch: None, ..self }
    }
}

/// iPXE is told not to wait for a proxy, and nobody else.
#[test]
fn settings_of_ipxe() {
    let mut server = server_of(24, &[]);
    let mut own = |client: Client| {
        let (offer, ..) = reply(handle(&mut server, &client.discovers(), 100, &nodes()));
        option(&offer, 175)
    };
    let ipxe = || Client::new(9).with(175, &[0xb1, 1, 1]);
    for client in [ipxe(), ipxe().with(77, b"walt.node.pc-x86-64")] {
        let Some(DhcpOption::Unknown(settings)) = own(client) else { panic!("no settings") };
        assert_eq!(settings.data(), [176, 1, 1]);
    }
    assert_eq!(own(Client::new(9).with(77, b"iPXE")), None);
    assert_eq!(own(Client::new(9).with(60, PXE)), None);
}

/// The file is in its field, with NULs up to the end; as an option only for who asks, with a NUL that ROMs look for.
#[test]
fn the_name_of_the_file_on_the_wire() {
    for (list, expected) in [
        (&[1, 3, 66, 67][..], Some(b"pxe/bios\0".to_vec())),
        (&[67], Some(b"pxe/bios\0".to_vec())),
        (&[1, 3, 66], None),
        (&[], None),
    ] {
        let mut server = server_of(24, &[]);
        let client = Client::new(9).with(60, PXE).with(93, &[0, 0]).with(55, list);
        let Outcome::Answer { reply: Some(sent), .. } =
            handle(&mut server, &client.discovers(), 100, &nodes())
        else {
            panic!("no offer")
        };
        let field = [&b"pxe/bios"[..], &[0; 120]].concat();
        assert_eq!(&sent.bytes[108..236], field, "{list:?}");
        let message = Message::decode(&mut Decoder::new(&sent.bytes)).unwrap();
        assert_eq!(option(&message, 67), expected.map(DhcpOption::BootfileName), "{list:?}");
    }
    // Who gets no file gets no option either.
    let mut server = server_of(24, &[]);
    let (offer, ..) = reply(handle(&mut server, &Client::new(9).with(55, &[67]).discovers(), 100, &nodes()));
    assert_eq!((offer.fname(), option(&offer, 67)), (None, None));
}

/// Early EEPROMs of the 4 B say who they are when they look for a server only.
#[test]
fn firmware_that_says_less_when_it_asks() {
    let id = [&[0][..], b"RPi4", &0x00c0_3111_u32.to_le_bytes(), &REST].concat();
    let first = || Client::new(9).with(60, PXE).with(93, &[0, 0]).with(97, &id).discovers();
    let begun = || {
        let mut server = server_of(24, &[]);
        let (offer, ..) = reply(handle(&mut server, &first(), 100, &nodes()));
        (server, offer.yiaddr())
    };
    let model = |server: &Server, request: &Request, now| {
        server.registration(request, now, &nodes()).map(|r| r.model.to_string())
    };
    let (mut server, ip) = begun();
    let silent = Client::new(9).selects(ip);
    assert_eq!(model(&server, &silent, 100 + OFFER_S - 1).as_deref(), Some("rpi-4-b"));
    assert_eq!(model(&server, &silent, 100 + OFFER_S), None);
    let (ack, ..) = reply(handle(&mut server, &silent, 101, &nodes()));
    assert!(option(&ack, 43).is_some() && option(&ack, 60).is_some());
    // With something to say of its own, that counts.
    for client in
        [Client::new(9).with(60, b"Linux"), Client::new(9).with(77, b"x"), Client::new(9).with(175, &[1])]
    {
        let (server, ip) = begun();
        assert_eq!(model(&server, &client.selects(ip), 101), None);
    }
    // Another machine; and a system that runs on the same one, which looks for a server itself.
    let (mut server, ip) = begun();
    let (other, ..) = reply(handle(&mut server, &Client::new(8).discovers(), 101, &nodes()));
    assert_eq!(model(&server, &Client::new(8).selects(other.yiaddr()), 101), None);
    reply(handle(&mut server, &Client::new(9).discovers(), 102, &nodes()));
    assert_eq!(model(&server, &Client::new(9).selects(ip), 103), None);
    // Of what it does say, nothing is replaced.
    let (server, ip) = begun();
    let other = [&[0][..], b"RPi4", &0x00c0_3130_u32.to_le_bytes(), &REST].concat();
    let known = Client::new(9).with(97, &other).selects(ip);
    assert_eq!(model(&server, &known, 101).as_deref(), Some("rpi-400"));
    let (server, ip) = begun();
    assert_eq!(
        model(&server, &Client::new(9).with(93, &[0, 11]).selects(ip), 101).as_deref(),
        Some("uefi-arm64")
    );
}

/// What is remembered of firmware is bounded; the oldest goes.
#[test]
fn what_firmware_said_is_bounded() {
    let mut server = server_of(16, &[]);
    let id = [&[0][..], b"RPi4", &0x00c0_3111_u32.to_le_bytes(), &REST].concat();
    let client = |n: usize| Client { mac: Mac([2, 0, 0, 0, (n >> 8) as u8, n as u8]), ..Client::new(0) };
    let mut addresses = vec![];
    for n in 0..=OFFERS_MAX {
        let request = client(n).with(60, PXE).with(97, &id).discovers();
        let (offer, ..) = reply(handle(&mut server, &request, 100 + u64::from(n > 0), &nodes()));
        addresses.push(offer.yiaddr());
    }
    let known = |n: usize| server.registration(&client(n).selects(addresses[n]), 105, &nodes()).is_some();
    assert_eq!((0..=OFFERS_MAX).filter(|n| known(*n)).count(), OFFERS_MAX);
    assert!(!known(0));
}

#[test]
fn a_node_with_secure_boot_loads_what_is_signed() {
    let mut server = server_of(24, &[]);
    let mut told = |client: Client, secure: bool| {
        let nodes: Vec<Node> = nodes().into_iter().map(|node| Node { secure, ..node }).collect();
        let (offer, ..) = reply(handle(&mut server, &client.discovers(), 100, &nodes));
        offer.fname_str().map(|f| f.unwrap().trim_end_matches('\0').to_owned())
    };
    let rom = |number, arch| Client::new(number).with(60, b"PXEClient").with(93, &[0, arch]);
    for arch in [7, 9] {
        assert_eq!(told(rom(2, arch), true).as_deref(), Some("secure/shimx64.efi"));
        assert_eq!(told(rom(2, arch), false).as_deref(), Some("pxe/uefi"));
        assert_eq!(told(rom(9, arch), true).as_deref(), Some("pxe/uefi"), "it is not that node");
    }
    // Nothing else of the node is firmware that checks signatures.
    assert_eq!(told(rom(2, 0), true).as_deref(), Some("pxe/bios"));
    assert_eq!(told(rom(2, 11), true).as_deref(), Some("start.efi"));
    assert_eq!(told(rom(2, 7).with(77, b"iPXE"), true).as_deref(), Some(SCRIPT));
    assert_eq!(told(rom(2, 7).with(77, b"walt.node.pc-x86-64"), true), None);
}

/// Who is worth a line in the log, since a loader is missing: a ROM that could have one.
#[test]
fn loaders_that_are_missing() {
    let rom = |arch: u8| Client::new(9).with(60, b"PXEClient").with(93, &[0, arch]);
    let board = Client { mac: Mac([0xdc, 0xa6, 0x32, 1, 2, 3]), ..rom(0) };
    let (bios, uefi) = (Some("pxe/bios".to_owned()), Some("pxe/uefi".to_owned()));
    let both = Loaders { bios: bios.clone(), uefi: uefi.clone() };
    let (only_bios, only_uefi) = (Loaders { bios, uefi: None }, Loaders { bios: None, uefi });
    for (client, neither, without_uefi, without_bios) in [
        (rom(0), true, false, true),
        (rom(7), true, true, false),
        (rom(9), true, true, false),
        (rom(11), false, false, false),
        (rom(6), false, false, false),
        (Client::new(9).with(60, b"HTTPClient").with(93, &[0, 16]), true, true, false),
        (board, false, false, false),
        (rom(0).with(77, b"iPXE"), false, false, false),
        (Client::new(9).with(60, b"PXEClient"), false, false, false),
        (Client::new(9), false, false, false),
    ] {
        let request = client.discovers();
        let needs = |loaders: &Loaders| boot::needs_loader(&request, loaders);
        assert_eq!(
            [needs(&Loaders::default()), needs(&only_bios), needs(&only_uefi), needs(&both)],
            [neither, without_uefi, without_bios, false],
            "{request:?}"
        );
    }
}

#[test]
fn identifiers_are_repeated() {
    let mut server = server_of(24, &[]);
    let client = Client::new(9).with(61, &[1, 2, 3]).with(97, &[0; 17]);
    let (offer, ..) = reply(handle(&mut server, &client.discovers(), 100, &nodes()));
    assert_eq!(option(&offer, 61), Some(DhcpOption::ClientIdentifier(vec![1, 2, 3])));
    assert_eq!(option(&offer, 97), Some(DhcpOption::ClientMachineIdentifier(vec![0; 17])));
    // Of lengths that they cannot have (RFC 2132 §9.14, RFC 4578 §2.3) they are not.
    let client = Client::new(9).with(61, &[1]).with(97, &[0; 16]);
    let (offer, ..) = reply(handle(&mut server, &client.discovers(), 100, &nodes()));
    assert_eq!((option(&offer, 61), option(&offer, 97)), (None, None));
}

#[test]
fn packets_that_are_no_requests() {
    let good = || packet(mac(9), Ipv4Addr::UNSPECIFIED, false, &[(53, &[1])]);
    assert!(parse(&good()).is_ok());
    let changed = |at: usize, value: u8| {
        let mut bytes = good();
        bytes[at] = value;
        parse(&bytes).unwrap_err()
    };
    assert_eq!(changed(0, 2), WireError::NotARequest);
    assert_eq!(changed(1, 6), WireError::Hardware);
    assert_eq!(changed(2, 16), WireError::Hardware);
    assert_eq!(changed(2, 255), WireError::Hardware);
    assert_eq!(changed(28, 0x53), WireError::Hardware, "a multicast address");
    let nobody = packet(Mac([0; 6]), ip(0), false, &[(53, &[1])]);
    assert_eq!(parse(&nobody), Err(WireError::Hardware), "no address");
    assert_eq!(changed(27, 1), WireError::Relay);
    assert_eq!(changed(236, 0), WireError::Cookie);
    assert_eq!(changed(241, 200), WireError::Cut(53));
    let short = packet(mac(9), ip(0), false, &[(53, &[1]), (54, &[1])]);
    assert_eq!(parse(&short), Err(WireError::OptionLength(54)));
    let empty = packet(mac(9), ip(0), false, &[(53, &[])]);
    assert_eq!(parse(&empty), Err(WireError::OptionLength(53)));
    assert_eq!(changed(240, 12), WireError::NoType);
    assert_eq!(parse(&good()[..239]), Err(WireError::Length(239)));
    assert!(parse(&good()[..243]).is_ok(), "without an end mark");
    assert_eq!(parse(&vec![0; wire::PACKET_MAX + 1]), Err(WireError::Length(wire::PACKET_MAX + 1)));
}

#[test]
fn options_in_pieces_and_in_other_fields() {
    for (overload, class) in [(0, ""), (1, "one"), (2, "two"), (3, "onetwo")] {
        let options: [(u8, &[u8]); 4] = [(53, &[1]), (12, b"ab"), (12, b"cd"), (52, &[overload])];
        let mut bytes = packet(mac(9), ip(0), false, &options);
        // With padding in front.
        bytes[108..115].copy_from_slice(b"\x00\x3c\x03one\xff");
        bytes[44..51].copy_from_slice(b"\x3c\x03two\xff\x00");
        let request = parse(&bytes).unwrap();
        assert_eq!(request.host_name.as_deref(), Some("abcd"));
        assert_eq!(request.vendor_class, class, "{overload}");
    }
}

/// With a length in front as RFC 3004 has it, or as text alone.
#[test]
fn user_classes() {
    let spaced = [b' '; 40];
    for (bytes, class) in [
        (&b"\x04iPXE"[..], "iPXE"),
        (b"\x04iPXE\x01x", "iPXE"),
        (b"iPXE", "iPXE"),
        (b"iPXE\0", "iPXE"),
        (b"\x05iPXE", "\x05iPXE"),
        (b"", ""),
        (&spaced, str::from_utf8(&spaced).unwrap()),
    ] {
        assert_eq!(Client::new(9).with(77, bytes).discovers().user_class, class, "{bytes:?}");
    }
}
