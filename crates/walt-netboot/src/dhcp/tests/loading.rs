//! What a machine is told to load, and what it says of itself on the wire.

use super::*;

#[test]
fn what_to_load() {
    let mut server = server_of(24, &[]);
    let mut told = |client: Client| {
        let (offer, ..) = reply(handle(&mut server, &client.discovers(), 100, &nodes()));
        let file = offer.fname_str().map(|f| f.unwrap().trim_end_matches('\0').to_owned());
        (file, option(&offer, 175))
    };
    let rom = || Client::new(9).with(60, b"PXEClient:Arch:00000:UNDI:002001");
    assert_eq!(told(rom().with(93, &[0, 0])).0.as_deref(), Some("pxe/bios"));
    assert_eq!(told(rom().with(93, &[0, 7])).0.as_deref(), Some("pxe/uefi"));
    assert_eq!(told(rom().with(93, &[0, 9])).0.as_deref(), Some("pxe/uefi"));
    assert_eq!(told(rom().with(93, &[0, 11])).0, None, "arm64: there is no loader");
    let ipxe = || rom().with(93, &[0, 0]).with(175, &[0xb1, 1, 1]);
    let (file, own) = told(ipxe().with(77, b"iPXE"));
    assert_eq!(file.as_deref(), Some(SCRIPT));
    let Some(DhcpOption::Unknown(own)) = own else { panic!("{own:?}") };
    assert_eq!(own.data(), [176, 1, 1], "it need not wait for a proxy");
    let (file, own) = told(ipxe().with(77, b"walt.node.pc-x86-64"));
    assert!(file.is_none() && own.is_some(), "our script goes on by itself");
    assert_eq!(told(Client::new(9)), (None, None));

    // iPXE says it by its class, or by the option of its settings; a system that runs says neither.
    assert_eq!(told(rom().with(77, b"iPXE")), (Some(SCRIPT.into()), None));
    assert_eq!(told(rom().with(175, &[0xb1, 1, 1])).0.as_deref(), Some(SCRIPT));

    let board = Client { mac: Mac([0xb8, 0x27, 0xeb, 1, 2, 3]), ..rom().with(93, &[0, 0]) };
    let (offer, ..) = reply(handle(&mut server, &board.discovers(), 100, &nodes()));
    assert_eq!(option(&offer, 60), Some(DhcpOption::ClassIdentifier(b"PXEClient".to_vec())));
    let menu = [&[9, 20, 0, 0, 17][..], b"Raspberry Pi Boot", &[255]].concat();
    assert_eq!(option(&offer, 43), Some(DhcpOption::VendorExtensions(menu)));
    assert_eq!(offer.fname(), None);
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
    assert_eq!(told(rom(2, 11), true), None);
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
