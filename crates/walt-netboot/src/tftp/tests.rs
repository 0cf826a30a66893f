#![allow(clippy::unwrap_used, reason = "tests fail by panicking: unwrap is their assertion")]

use super::*;
use proptest::prelude::*;

fn rrq(texts: &[&str]) -> Vec<u8> {
    let mut packet = RRQ.to_be_bytes().to_vec();
    texts.iter().for_each(|t| packet.extend([t.as_bytes(), b"\0"].concat()));
    packet
}

fn ack(number: u64) -> Vec<u8> {
    [ACK.to_be_bytes(), (number as u16).to_be_bytes()].concat()
}

#[test]
fn requests() {
    let request = request::parse(&rrq(&["a/b", "OCTET"])).unwrap();
    assert_eq!(request, Request { path: b"a/b".to_vec(), options: Options::default() });
    // As iPXE asks.
    let ipxe = rrq(&["x", "octet", "blksize", "1432", "tsize", "0"]);
    let options = request::parse(&ipxe).unwrap().options;
    assert_eq!(options, Options { blksize: Some(1432), tsize: true, ..Options::default() });
    let all = rrq(&["x", "octet", "BLKSIZE", "65464", "windowsize", "999", "timeout", "255", "none", "1"]);
    let expected = Options {
        blksize: Some(BLKSIZE_MAX),
        windowsize: Some(WINDOWSIZE_MAX),
        timeout: Some(255),
        tsize: false,
    };
    assert_eq!(request::parse(&all).unwrap().options, expected);
    let least = rrq(&["x", "octet", "blksize", "8", "windowsize", "1", "timeout", "1"]);
    let expected = Options { blksize: Some(8), windowsize: Some(1), timeout: Some(1), tsize: false };
    assert_eq!(request::parse(&least).unwrap().options, expected);
    let longest = rrq(&[&"x".repeat(request::PACKET_MAX - 9), "octet"]);
    assert_eq!((longest.len(), request::parse(&longest).is_ok()), (1500, true));
    let odd = ["x", "octet", "blksize", "7", "windowsize", "0", "timeout", "256", "tsize", "x", "blksize"];
    assert_eq!(request::parse(&rrq(&odd)).unwrap().options, Options::default());
    for (packet, code, says) in [
        (rrq(&["x", "netascii"]), code::OTHER, "octet"),
        (rrq(&["x", "mail"]), code::ILLEGAL, "octet"),
        (rrq(&["x"]), code::ILLEGAL, "cut"),
        (b"\0\x01x\0octet".to_vec(), code::ILLEGAL, "cut"),
        (rrq(&["", "octet"]), code::NOT_FOUND, "empty"),
        (b"\0\x02x\0octet\0".to_vec(), code::ACCESS, "read"),
        (ack(1), code::ILLEGAL, "read request"),
        (vec![], code::ILLEGAL, "cut"),
        (rrq(&[&"x".repeat(request::PACKET_MAX), "octet"]), code::ILLEGAL, "long"),
    ] {
        let refusal = request::parse(&packet).unwrap_err();
        assert!(refusal.code == code && refusal.message.contains(says), "{refusal:?}");
    }
}

/// A client that loses packets: each true of `lost` is the loss of one packet, in either direction. What it
/// has received, and the end.
fn run(options: Options, file: &[u8], lost: &[bool]) -> (Vec<u8>, End) {
    let blksize = usize::from(options.blksize.unwrap_or(512));
    let window = usize::from(options.windowsize.unwrap_or(1));
    let (mut transfer, first) = Transfer::new(options, file.len() as u64);
    let mut lost = lost.iter().copied();
    let mut is_lost = || lost.next().unwrap_or(false);
    let (mut got, mut blocks, mut in_window, mut is_done) = (Vec::new(), 0_u64, 0, false);
    let mut step = Step::Send(first);
    let mut answers: std::collections::VecDeque<Vec<u8>> = [].into();
    for _ in 0..1_000_000 {
        match step {
            Step::Send(Send::Packet(oack)) => {
                assert_eq!(oack[..2], OACK.to_be_bytes());
                if !is_lost() && !is_lost() {
                    answers.push_back(ack(0));
                }
            }
            Step::Send(Send::Blocks(sent)) => {
                let mut gap = false;
                for block in sent {
                    if is_lost() {
                        continue;
                    }
                    if block.number == (blocks + 1) as u16 && !is_done {
                        let at = block.offset as usize;
                        got.extend_from_slice(&file[at..at + block.length]);
                        blocks += 1;
                        in_window += 1;
                        is_done = block.length < blksize;
                        if (in_window == window || is_done) && !is_lost() {
                            answers.push_back(ack(blocks));
                        }
                        in_window %= window;
                    } else {
                        gap = true;
                    }
                }
                if gap && !is_lost() {
                    answers.push_back(ack(blocks));
                    in_window = 0;
                }
            }
            Step::Wait => {}
            Step::End(end) => return (got, end),
        }
        step = match answers.pop_front() {
            Some(answer) => transfer.packet(&answer),
            None => transfer.timeout(),
        };
    }
    panic!("the transfer does not end");
}

#[test]
fn numbers_roll_over() {
    let file: Vec<u8> = (0..8 * 70_000 + 3).map(|n: u32| (n % 251) as u8).collect();
    for windowsize in [None, Some(1), Some(16)] {
        let options = Options { blksize: Some(8), windowsize, ..Options::default() };
        assert!(run(options, &file, &[]) == (file.clone(), End::Complete), "{windowsize:?}");
    }
}

#[test]
fn the_last_block_is_short() {
    for (length, blocks) in [(0, vec![0]), (511, vec![511]), (512, vec![512, 0]), (513, vec![512, 1])] {
        let (mut transfer, mut send) = Transfer::new(Options::default(), length);
        for (number, expected) in (1..).zip(&blocks) {
            let offset = (number - 1) * 512;
            let block = Block { number: number as u16, offset, length: *expected };
            assert_eq!(send, Send::Blocks(vec![block]));
            match transfer.packet(&ack(number)) {
                Step::Send(next) => send = next,
                Step::End(end) => assert_eq!((end, number), (End::Complete, blocks.len() as u64)),
                Step::Wait => panic!("an acknowledgement was ignored"),
            }
        }
    }
}

#[test]
fn options_are_told_and_acknowledged() {
    let options = Options { blksize: Some(1024), timeout: Some(3), tsize: true, windowsize: Some(4) };
    let (mut transfer, first) = Transfer::new(options, 5000);
    let oack = b"\0\x06blksize\x001024\0windowsize\x004\0timeout\x003\0tsize\x005000\0".to_vec();
    assert_eq!(first, Send::Packet(oack.clone()));
    assert_eq!(transfer.wait().as_secs(), 3);
    assert_eq!(transfer.timeout(), Step::Send(Send::Packet(oack)));
    assert_eq!(transfer.packet(&ack(7)), Step::Wait);
    let Step::Send(Send::Blocks(window)) = transfer.packet(&ack(0)) else { panic!("no window") };
    assert_eq!(
        window.iter().map(|b| (b.number, b.length)).collect::<Vec<_>>(),
        [(1, 1024), (2, 1024), (3, 1024), (4, 1024)]
    );
    // The third was lost: the window goes on behind the second.
    let Step::Send(Send::Blocks(window)) = transfer.packet(&ack(2)) else { panic!("no window") };
    assert_eq!(window.iter().map(|b| b.number).collect::<Vec<_>>(), [3, 4, 5]);
    assert!(matches!(transfer.packet(&ack(2)), Step::Send(_)), "its first block was lost");
    assert_eq!(transfer.packet(&ack(2)), Step::Wait, "a duplicate");
    assert_eq!(transfer.packet(&ack(6)), Step::Wait, "what was never sent");
    assert_eq!(transfer.packet(&ack(5)), Step::End(End::Complete));
}

/// RFC 1350, figures 5-2 and 5-4.
#[test]
fn packets_of_a_transfer() {
    assert_eq!(data_header(0x102), [0, 3, 1, 2]);
    assert_eq!(error(code::NOT_FOUND, "no \0file"), b"\0\x05\0\x01no file\0");
}

#[test]
fn duplicates_are_not_answered() {
    // Nor with a window of one, which is none.
    let (mut transfer, _) = Transfer::new(Options { windowsize: Some(1), ..Options::default() }, 2000);
    assert!(!transfer.has_begun());
    assert!(matches!(transfer.packet(&ack(0)), Step::Send(_)));
    assert!(transfer.has_begun());
    assert_eq!(transfer.packet(&ack(0)), Step::Wait);
    let (mut transfer, _) = Transfer::new(Options::default(), 2000);
    assert!(!transfer.has_begun());
    assert!(matches!(transfer.packet(&ack(1)), Step::Send(_)));
    assert!(transfer.has_begun());
    assert_eq!(transfer.packet(&ack(1)), Step::Wait);
    assert_eq!(transfer.packet(&ack(0)), Step::Wait);
}

#[test]
fn ends() {
    let (mut transfer, _) = Transfer::new(Options { tsize: true, ..Options::default() }, 2000);
    let end = End::Client { code: 8, message: "enough".into() };
    assert_eq!(transfer.packet(&error(8, "enough")), Step::End(end));
    let (mut transfer, _) = Transfer::new(Options::default(), 2000);
    let cut = Step::End(End::Client { code: 0, message: String::new() });
    assert_eq!(transfer.packet(&error(0, "")[..2]), cut);
    assert!(matches!(transfer.packet(&rrq(&["x", "octet"])), Step::End(End::Nonsense(_))));
    let (mut transfer, first) = Transfer::new(Options::default(), 2000);
    let mut seconds = transfer.wait().as_secs();
    for _ in 1..TRIES {
        assert_eq!(transfer.timeout(), Step::Send(first.clone()));
        seconds += transfer.wait().as_secs();
    }
    assert_eq!(transfer.timeout(), Step::End(End::Silent));
    assert_eq!(seconds, 1 + 2 + 4 + 8 + 8 + 8 + 8);
}

proptest! {
    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..100), length in 0..100_000_u64) {
        let _ = request::parse(&bytes);
        let _ = request::parse(&[&RRQ.to_be_bytes()[..], &bytes].concat());
        let (mut transfer, _) = Transfer::new(Options { windowsize: Some(9), ..Options::default() }, length);
        for packet in bytes.chunks(5) {
            let _ = transfer.packet(packet);
            let _ = transfer.packet(&[&ACK.to_be_bytes()[..], packet].concat());
        }
    }

    /// Whatever is lost, the file arrives whole, as long as the client is not silent for too long.
    #[test]
    fn losses(
        length in 0..5000_usize,
        windowsize in proptest::option::of(1..9_u16),
        lost in proptest::collection::vec(proptest::bool::weighted(0.2), 0..200),
    ) {
        let file: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
        let options = Options { blksize: Some(64), windowsize, ..Options::default() };
        match run(options, &file, &lost) {
            (got, End::Complete) => prop_assert_eq!(got, file),
            (got, End::Silent) => prop_assert!(file.starts_with(&got)),
            (_, end) => prop_assert!(false, "{:?}", end),
        }
    }
}
