use super::*;
use crate::block::Row;
use crate::writer::Writer;
use std::fs;

const LINE: &[u8] = b"some text";

/// A `.log` with so many batches of three lines, and where each batch ends.
fn log(dir: &Path, batches: u64) -> (PathBuf, Vec<u64>) {
    let (mut writer, segment) = Writer::begin(dir, 0, &[Mark { source: 1, position: 1 }], 5).unwrap();
    let mut ends = vec![segment.bytes];
    for batch in 0..batches {
        // Two blocks: the second one is far away in time.
        let row = |i: u64| Row {
            timestamp: if i == 2 { 1 << 40 } else { batch as i64 },
            seq: batch * 3 + i,
            stream: StreamId(i as u32),
            line: LINE,
        };
        let marks = [Mark { source: 2, position: batch + 1 }];
        let headers = writer.write((0..3).map(row).collect(), &marks, 7).unwrap();
        assert_eq!(headers.len(), 2);
        ends.push(ends[ends.len() - 1] + headers.iter().map(Header::stored).sum::<u64>());
    }
    (segment.path().to_owned(), ends)
}

fn rows_of(path: &Path) -> u64 {
    scan(path).unwrap().segment.rows
}

#[test]
fn a_log_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let (path, ends) = log(dir.path(), 4);
    let scanned = scan(&path).unwrap();
    let segment = &scanned.segment;
    assert_eq!((segment.rows, segment.blocks.len(), segment.bytes), (12, 8, ends[4]));
    assert_eq!((segment.first_seq, segment.last_seq, segment.received), (0, 11, 7));
    assert_eq!(segment.streams, Some([0, 1, 2].map(StreamId).into_iter().collect()));
    assert_eq!(scanned.marks.first(), Some(&Mark { source: 1, position: 1 }));
    assert_eq!(scanned.marks.last(), Some(&Mark { source: 2, position: 4 }));
    assert_eq!(scanned.batch, 5);
}

#[test]
fn a_torn_batch_is_cut_off_as_a_whole_wherever_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (path, ends) = log(dir.path(), 3);
    let bytes = fs::read(&path).unwrap();
    for length in ends[2]..ends[3] {
        fs::write(&path, &bytes[..length as usize]).unwrap();
        let scanned = scan(&path).unwrap();
        assert_eq!((scanned.segment.rows, scanned.segment.bytes), (6, ends[2]), "cut at {length}");
        assert_eq!(scanned.marks.last(), Some(&Mark { source: 2, position: 2 }));
        assert!(scanned.segment.damage.is_empty());
    }
}

#[test]
fn a_batch_whose_pages_came_to_the_disk_out_of_order_is_torn_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let (path, ends) = log(dir.path(), 3);
    let mut bytes = fs::read(&path).unwrap();
    // The first block of the last batch is zeroes, the second one is whole.
    let first = ends[2] as usize;
    bytes[first..first + 100].fill(0);
    fs::write(&path, &bytes).unwrap();
    let scanned = scan(&path).unwrap();
    assert_eq!((scanned.segment.rows, scanned.segment.bytes), (6, ends[2]));
    assert!(scanned.segment.damage.is_empty());
}

#[test]
fn damage_of_what_was_acknowledged_is_reported_and_the_rest_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (path, ends) = log(dir.path(), 4);
    let whole = fs::read(&path).unwrap();
    for at in ends[1]..ends[2] {
        let mut bytes = whole.clone();
        bytes[at as usize] ^= 0x55;
        fs::write(&path, &bytes).unwrap();
        let scanned = scan(&path).unwrap();
        let rows = scanned.segment.rows;
        assert!(rows == 12 - 1 || rows == 12 - 2, "one of two blocks is lost: {rows} rows, byte {at}");
        assert_eq!(scanned.segment.bytes, ends[4], "byte {at}");
        assert_eq!(scanned.segment.damage.len(), 1);
        assert_eq!(scanned.batch, 5);
    }
}

#[test]
fn a_resumed_log_goes_on_behind_what_was_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let (path, ends) = log(dir.path(), 2);
    fs::OpenOptions::new()
        .append(true)
        .open(&path)
        .and_then(|mut f| std::io::Write::write_all(&mut f, &[9; 500]))
        .unwrap();
    let scanned = scan(&path).unwrap();
    let mut writer = Writer::resume(&scanned.segment, scanned.batch).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), ends[2]);
    writer.write(vec![Row { timestamp: 1, seq: 100, stream: StreamId(0), line: LINE }], &[], 8).unwrap();
    assert_eq!(rows_of(&path), 7);
}

#[test]
fn other_versions_and_other_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _) = log(dir.path(), 1);
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 2;
    let sum = checksum(&bytes[..28]);
    bytes[28..32].copy_from_slice(&sum.to_le_bytes());
    fs::write(&path, &bytes).unwrap();
    assert!(matches!(scan(&path), Err(Error::Version(_))));
    bytes[9] = 1;
    fs::write(&path, &bytes).unwrap();
    assert!(matches!(scan(&path), Err(Error::Damaged { offset: 0, .. })));
}

#[test]
fn names_of_files() {
    assert_eq!(parse_name(&log_name(255)), Name::Log { first_seq: 255 });
    assert_eq!(
        parse_name(&compressed_name(1, u64::MAX)),
        Name::Compressed { first_seq: 1, last_seq: u64::MAX }
    );
    assert_eq!(parse_name("00000000000000ff.tmp"), Name::Temporary);
    for other in ["lock", "catalogue", "1.log", "x-y.zst", "00000000000000ff.zst", "-.zst", ".log"] {
        assert_eq!(parse_name(other), Name::Other, "{other}");
    }
}
