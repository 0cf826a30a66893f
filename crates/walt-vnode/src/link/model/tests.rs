//! In virtual time: no clock is read.

use super::*;
use walt_types::Shape;

const MS: u64 = 1_000_000;
/// Frames of a test of shares.
const N: u64 = 20_000;

fn impairments(text: &str) -> Impairments {
    text.parse::<Shape>().unwrap_or_else(|e| panic!("{text}: {e}")).down
}

fn direction(text: &str) -> Direction {
    Direction::new(impairments(text), false, 1)
}

/// A frame of this length with a number.
fn frame(number: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    bytes[14..22].copy_from_slice(&number.to_be_bytes());
    bytes
}

fn number(frame: &[u8]) -> u64 {
    u64::from_be_bytes(frame[14..22].try_into().unwrap())
}

/// Everything that arrives, in order: when, and which frame.
fn arrivals(direction: &mut Direction) -> Vec<(u64, u64)> {
    let mut all = Vec::new();
    while let Some(due) = direction.next_due() {
        let bytes = direction.take(due).unwrap();
        direction.delivered(bytes.len(), true);
        all.push((due, number(&bytes)));
    }
    all
}

/// Offers frames of 100 bytes, one each `interval`.
fn offered(text: &str, frames: u64, interval: u64) -> Direction {
    let mut direction = direction(text);
    for n in 0..frames {
        direction.offer(n * interval, frame(n, 100));
    }
    direction
}

/// Whether a count is within the 99 % interval of a binomial distribution.
fn is_within_99_percent(count: u64, of: u64, share: f64) -> bool {
    let (of, count) = (of as f64, count as f64);
    (count - of * share).abs() <= 2.5758 * (of * share * (1.0 - share)).sqrt()
}

#[test]
fn a_plain_link_passes_everything_at_once() {
    let mut link = offered("", 100, MS);
    assert_eq!(link.counters().queued, 100);
    let all = arrivals(&mut link);
    assert!(all.iter().enumerate().all(|(n, (due, number))| *due == n as u64 * MS && *number == n as u64));
    let counters = Counters { passed: 100, bytes: 10_000, ..Counters::default() };
    assert_eq!(link.counters(), counters);
}

#[test]
fn latency_is_exact() {
    let mut link = direction("lat=10ms");
    link.offer(5, frame(1, 60));
    assert_eq!(link.next_due(), Some(10 * MS + 5));
    assert!(link.take(10 * MS + 4).is_none());
    assert_eq!(number(&link.take(10 * MS + 5).unwrap()), 1);
    assert!(link.take(u64::MAX).is_none() && link.next_due().is_none());
}

#[test]
fn jitter_has_its_distribution() {
    for (text, deviation, tolerance) in [
        ("lat=10ms,jitter=2ms", 2.0, 0.05),
        ("lat=10ms,jitter=2ms,dist=pareto", 2.0, 0.2),
        ("lat=10ms,jitter=3ms,dist=uniform", 3.0_f64 / 3.0_f64.sqrt(), 0.05),
    ] {
        let mut link = offered(text, N, MS);
        let delays: Vec<f64> =
            arrivals(&mut link).iter().map(|(due, n)| (due - n * MS) as f64 / MS as f64).collect();
        let mean = delays.iter().sum::<f64>() / N as f64;
        let found = (delays.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / N as f64).sqrt();
        assert!((mean - 10.0).abs() < 0.06, "{text}: mean {mean}");
        assert!((found - deviation).abs() < tolerance, "{text}: deviation {found}");
        if text.contains("uniform") {
            assert!(delays.iter().all(|d| (7.0..=13.0).contains(d)), "{text}");
        }
    }
    // What would arrive before it was sent arrives at once.
    let mut link = offered("lat=1ms,jitter=1ms", N, MS);
    assert!(arrivals(&mut link).iter().all(|(due, n)| *due >= n * MS));
}

#[test]
fn shares_are_kept() {
    for share in ["0.5%", "1%", "30%"] {
        let part = share.parse::<walt_types::networks::Share>().unwrap().fraction();
        type Count = fn(&Counters) -> u64;
        let all: [(&str, Count); 4] = [
            ("loss", |c| c.lost),
            ("dup", |c| c.duplicated),
            ("corrupt", |c| c.corrupted),
            ("lat=5ms,reorder", |c| c.reordered),
        ];
        for (key, count) in all {
            let mut link = offered(&format!("{key}={share}"), N, MS);
            let arrived = arrivals(&mut link).len() as u64;
            let counters = link.counters();
            let found = count(&counters);
            assert!(is_within_99_percent(found, N, part), "{key}={share}: {found}");
            assert_eq!(arrived, N - counters.lost + counters.duplicated, "{key}={share}");
            assert_eq!(counters.passed, arrived);
        }
    }
}

#[test]
fn bursts_have_their_length_and_share() {
    let mut link = offered("burst=1%/25%", 10 * N, MS);
    let arrived: Vec<u64> = arrivals(&mut link).into_iter().map(|(_, n)| n).collect();
    let gaps: Vec<u64> = arrived.windows(2).map(|w| w[1] - w[0] - 1).filter(|gap| *gap > 0).collect();
    let mean = gaps.iter().sum::<u64>() as f64 / gaps.len() as f64;
    // Mean length 1 / 25 %; part of the time in bursts 1 % / (1 % + 25 %).
    assert!((mean - 4.0).abs() < 0.3, "{mean}");
    let part = link.counters().lost_in_bursts as f64 / (10 * N) as f64;
    assert!((part - 1.0 / 26.0).abs() < 0.003, "{part}");
    assert_eq!(link.counters().lost, 0);
}

#[test]
fn a_rate_is_exact_and_its_queue_bounded() {
    // 1,000 frames of 1,500 bytes at 12 Mbit/s: 1 ms each.
    let mut link = direction("bw=12Mbps,queue=1000");
    for n in 0..1005 {
        link.offer(0, frame(n, 1500));
    }
    assert_eq!((link.counters().queued, link.counters().queue_full), (1000, 5));
    let all = arrivals(&mut link);
    assert!(all.iter().enumerate().all(|(at, (due, n))| *due == (at as u64 + 1) * MS && *n == at as u64));
    // A pause gives no credit, and the queue is free again.
    link.offer(5000 * MS, frame(0, 1500));
    assert_eq!(link.next_due(), Some(5001 * MS));
    // One leaves, one may come.
    let mut link = direction("bw=12Mbps,queue=2");
    for now in [0, 0, MS - 1, MS] {
        link.offer(now, frame(0, 1500));
    }
    assert_eq!(link.counters().queue_full, 1);
    // Without 'queue', the default.
    let mut link = direction("bw=1kbps");
    for n in 0..1001 {
        link.offer(0, frame(n, 60));
    }
    assert_eq!(link.counters().queue_full, 1);
}

#[test]
fn the_delay_begins_when_a_frame_has_left_the_queue() {
    let mut link = direction("bw=12Mbps,lat=10ms");
    link.offer(0, frame(0, 1500));
    link.offer(0, frame(1, 1500));
    assert_eq!(arrivals(&mut link), [(11 * MS, 0), (12 * MS, 1)]);
}

#[test]
fn reordered_frames_overtake_and_copies_follow() {
    let mut link = offered("lat=10ms,reorder=10%", 1000, MS);
    let all = arrivals(&mut link);
    let early = all.iter().filter(|(due, n)| due - n * MS == 0).count() as u64;
    assert_eq!(early, link.counters().reordered);
    assert!(all.windows(2).any(|w| w[1].1 < w[0].1), "none has overtaken another");
    let mut link = offered("dup=100%", 3, MS);
    let numbers: Vec<u64> = arrivals(&mut link).into_iter().map(|(_, n)| n).collect();
    assert_eq!(numbers, [0, 0, 1, 1, 2, 2]);
}

#[test]
fn a_corrupt_frame_differs_in_one_bit_behind_its_header() {
    let mut link = direction("corrupt=100%");
    let mut places = std::collections::BTreeSet::new();
    for n in 0..2000 {
        link.offer(n, vec![0; 20]);
        let got = link.take(n).unwrap();
        assert_eq!(got.iter().map(|b| b.count_ones()).sum::<u32>(), 1);
        let byte = got.iter().position(|b| *b != 0).unwrap();
        places.insert((byte, got[byte]));
    }
    assert!(places.iter().all(|(byte, _)| *byte >= 14));
    assert_eq!(places.len(), 48, "every bit has its turn");
    // Nothing behind the header: nothing to flip.
    link.offer(3000, vec![0; 14]);
    assert_eq!(link.take(3000).unwrap(), vec![0; 14]);
    assert_eq!(link.counters().corrupted, 2000);
}

#[test]
fn the_same_seed_gives_the_same_fate() {
    let text = "lat=10ms,jitter=2ms,dist=pareto,loss=5%,burst=1%/25%,dup=3%,reorder=2%,corrupt=1%,bw=1Gbps";
    let fate = |seed, interval: u64| {
        let mut link = Direction::new(impairments(text), false, seed);
        for n in 0..2000 {
            link.offer(n * interval, frame(n, 100));
        }
        let mut fate = Vec::new();
        while let Some(due) = link.next_due() {
            fate.push((due, link.take(due).unwrap()));
        }
        fate
    };
    assert_eq!(fate(5, MS), fate(5, MS));
    assert_ne!(fate(5, MS), fate(6, MS));
    // Who is lost does not depend on when frames come.
    let arrived = |fate: Vec<(u64, Vec<u8>)>| {
        let mut numbers: Vec<Vec<u8>> = fate.into_iter().map(|(_, bytes)| bytes).collect();
        numbers.sort();
        numbers
    };
    assert_eq!(arrived(fate(5, MS)), arrived(fate(5, 3 * MS)));
    // Another parameter leaves the losses as they are.
    let losses = |text: &str| {
        let mut link = offered(text, 2000, MS);
        let mut all: Vec<u64> = arrivals(&mut link).into_iter().map(|(_, n)| n).collect();
        all.sort_unstable();
        all.dedup();
        all
    };
    assert_eq!(losses("loss=5%"), losses("loss=5%,dup=10%,lat=10ms,jitter=3ms"));
}

#[test]
fn changes_while_frames_are_under_way() {
    let mut link = direction("lat=10ms");
    link.offer(0, frame(0, 60));
    link.change(impairments("lat=2ms"), false, None);
    link.offer(MS, frame(1, 60));
    // The second one is faster; the first one arrives when it would have.
    assert_eq!(arrivals(&mut link), [(3 * MS, 1), (10 * MS, 0)]);
    link.offer(20 * MS, frame(2, 60));
    link.change(impairments("lat=2ms"), true, None);
    assert!(link.next_due().is_none());
    link.offer(21 * MS, frame(3, 60));
    assert!(link.next_due().is_none());
    assert_eq!(link.counters().cut, 2);
    link.change(impairments(""), false, None);
    link.offer(22 * MS, frame(4, 60));
    assert_eq!(arrivals(&mut link), [(22 * MS, 4)]);
    // A rate that is gone leaves no queue behind.
    link.change(impairments("bw=1kbps,queue=1"), false, None);
    link.offer(23 * MS, frame(5, 60));
    link.change(impairments(""), false, None);
    link.change(impairments("bw=1Gbps,queue=1"), false, None);
    link.offer(23 * MS, frame(6, 60));
    assert_eq!(link.counters().queue_full, 0);
    assert!(link.next_due().unwrap() < 24 * MS);
}

#[test]
fn a_seed_begins_again_and_bursts_end_with_their_parameter() {
    let lost = |link: &mut Direction| {
        let before = link.counters().lost;
        let mut fates = Vec::new();
        for n in 0..200 {
            link.offer(n, frame(n, 60));
            fates.push(link.take(n).is_some());
        }
        (fates, link.counters().lost - before)
    };
    let mut link = direction("loss=50%");
    let first = lost(&mut link);
    let second = lost(&mut link);
    assert_ne!(first, second);
    link.change(impairments("loss=50%"), false, Some(1));
    assert_eq!(lost(&mut link), first);
    let mut link = direction("burst=100%/0.0001%");
    link.offer(0, frame(0, 60));
    assert_eq!(link.counters().lost_in_bursts, 1);
    link.change(impairments(""), false, None);
    link.change(impairments("burst=0%/0.0001%"), false, None);
    link.offer(1, frame(1, 60));
    assert_eq!(link.counters().lost_in_bursts, 1, "a burst went on after it was switched off");
}

#[test]
fn memory_is_bounded() {
    let mut link = direction("lat=10ms");
    link.bytes_max = 2 * (100 + FRAME_COST) + 50;
    for n in 0..3 {
        link.offer(0, frame(n, 100));
    }
    assert_eq!((link.counters().no_memory, link.counters().queued), (1, 2));
    assert_eq!(arrivals(&mut link).len(), 2);
    let longest = link.bytes_max - FRAME_COST;
    link.offer(0, frame(4, longest));
    assert_eq!(link.counters().no_memory, 1, "the room is free again");
    arrivals(&mut link);
    link.offer(0, frame(5, longest + 1));
    assert_eq!((link.counters().no_memory, link.counters().queued), (2, 0));
    link.delivered(60, false);
    assert_eq!(link.counters().kernel, 1);
}
