use super::*;
use crate::Record;
use proptest::prelude::*;

fn lines() -> impl Strategy<Value = Vec<(i64, u32, Vec<u8>)>> {
    let time = prop_oneof![0..100i64, any::<i64>()];
    let byte = prop::sample::select(b"ab \n\0\xff\xc3".to_vec());
    prop::collection::vec((time, 0..5u32, prop::collection::vec(byte, 0..20)), 1..40)
}

fn rows(lines: &[(i64, u32, Vec<u8>)]) -> Vec<Row<'_>> {
    let numbered = lines.iter().enumerate();
    numbered
        .map(|(i, l)| Row { timestamp: l.0, seq: 1000 + i as u64, stream: StreamId(l.1), line: &l.2 })
        .collect()
}

fn all() -> Filter {
    Filter { seq: 0..u64::MAX, streams: (0..10).map(StreamId).collect(), ..Filter::default() }
}

/// Reads a block as a query does; `None` if it is damaged.
fn read(bytes: &[u8], filter: &Filter) -> Option<Vec<Record>> {
    let header = Header::decode(bytes)?;
    let (directory, body) = bytes[HEADER..].split_at_checked(header.directory as usize)?;
    let directory = Directory::decode(&header, directory)?;
    let mut decompressor = zstd::bulk::Decompressor::new().unwrap();
    let (mut out, mut unpacked) = (Vec::new(), Vec::new());
    for frame in &directory.frames {
        let stored = body.get(frame.offset..frame.offset + frame.stored)?;
        let bytes = open_frame(frame, stored, &mut unpacked, &mut decompressor)?;
        for run in &directory.runs[frame.runs.clone()] {
            scan(&header, run, bytes, filter, &mut |row| out.push(Record::from(row)))?;
        }
    }
    out.sort_unstable_by_key(Record::key);
    Some(out)
}

fn encoded(lines: &[(i64, u32, Vec<u8>)], packed: bool) -> Vec<u8> {
    let mut compressor = packed.then(|| zstd::bulk::Compressor::new(3).unwrap());
    let marks = [Mark { source: 7, position: 8 }];
    encode(&mut rows(lines), &marks, Header { batch: 3, last: true, ..Header::default() }, &mut compressor).1
}

proptest! {
    #[test]
    fn lines_come_back(lines in lines(), packed in any::<bool>()) {
        let mut expected: Vec<Record> = rows(&lines).into_iter().map(Record::from).collect();
        expected.sort_unstable_by_key(Record::key);
        prop_assert_eq!(read(&encoded(&lines, packed), &all()), Some(expected));
    }

    #[test]
    fn filters_take_what_they_say(
        lines in lines(),
        after in prop::option::of(-1..100i64),
        before in prop::option::of(-1..101i64),
        seq in 990..1050u64,
        above in prop::option::of((0..100i64, 1000..1040u64)),
        streams in prop::collection::vec(0..5u32, 0..4),
        pattern in prop::option::of(prop::sample::select(vec!["a", "^b", "a$", "b\\s*a", "^$", "a\\nb"])),
    ) {
        let pattern = pattern.map(|p| Pattern::new(p).unwrap());
        let streams: StreamSet = streams.into_iter().map(StreamId).collect();
        let filter = Filter { after, before, seq: seq..1030, streams, pattern, above, below: None };
        let mut expected: Vec<Record> = rows(&lines).into_iter().map(Record::from).filter(|r| {
            after.is_none_or(|t| r.timestamp > t) && before.is_none_or(|t| r.timestamp < t)
                && (seq..1030).contains(&r.seq) && above.is_none_or(|key| r.key() > key)
                && filter.streams.contains(r.stream)
                && filter.pattern.as_ref().is_none_or(|p| p.matches(&r.line))
        }).collect();
        expected.sort_unstable_by_key(Record::key);
        let found = read(&encoded(&lines, true), &filter).map(|found| {
            found.into_iter().filter(|r| filter.streams.contains(r.stream)).collect::<Vec<_>>()
        });
        prop_assert_eq!(found, Some(expected));
    }

    #[test]
    fn no_changed_byte_goes_unnoticed(lines in lines(), at in any::<prop::sample::Index>(), change in 1..=255u8, packed in any::<bool>()) {
        let mut bytes = encoded(&lines, packed);
        let at = at.index(bytes.len());
        bytes[at] ^= change;
        prop_assert_eq!(read(&bytes, &all()), None);
    }

    #[test]
    fn a_cut_block_is_noticed(lines in lines(), at in any::<prop::sample::Index>()) {
        let bytes = encoded(&lines, false);
        prop_assert_eq!(read(&bytes[..at.index(bytes.len())], &all()), None);
    }
}

#[test]
fn headers_come_back() {
    let header = Header {
        last: true,
        all_marks: true,
        batch: 1,
        rows: 2,
        directory: 3,
        body: 4,
        raw: 5,
        min_ts: i64::MIN,
        max_ts: i64::MAX,
        min_seq: 6,
        max_seq: u64::MAX,
        received: -1,
        directory_sum: 7,
    };
    assert_eq!(Header::decode(&header.encode()), Some(header));
    let too_large = Header { body: MAX_BODY as u32 + 1, ..header };
    assert_eq!(Header::decode(&too_large.encode()), None);
}

#[test]
fn marks_come_back() {
    let bytes = encoded(&[(1, 1, b"x".to_vec())], false);
    let header = Header::decode(&bytes).unwrap();
    let directory = Directory::decode(&header, &bytes[HEADER..HEADER + header.directory as usize]).unwrap();
    assert_eq!(directory.marks, [Mark { source: 7, position: 8 }]);
}

#[test]
fn a_stream_is_in_one_frame_or_few() {
    let lines: Vec<_> = (0..20_000i64).map(|i| (i, (i % 10) as u32, vec![b'x'; 40])).collect();
    let (header, bytes) = encode(&mut rows(&lines), &[], Header::default(), &mut None);
    let directory = Directory::decode(&header, &bytes[HEADER..HEADER + header.directory as usize]).unwrap();
    assert_eq!(directory.runs.len(), 10);
    assert!(
        directory.frames.iter().all(|f| f.raw >= FRAME_BYTES && f.raw < 4 * FRAME_BYTES),
        "{:?}",
        directory.frames
    );
}

#[test]
fn similar_lines_take_few_bytes() {
    let lines: Vec<_> = (0..10_000i64)
        .map(|i| {
            (
                i * 137,
                (i % 20) as u32,
                format!("request {i} of client {} took {} us", i % 97, i * 31 % 4001).into_bytes(),
            )
        })
        .collect();
    let text: usize = lines.iter().map(|l| l.2.len()).sum();
    let stored = encoded(&lines, true).len();
    assert!(stored * 2 < text, "{stored} of {text}");
}
