use super::*;
use crate::{Chunk, Mode, Retention, StreamId};
use proptest::prelude::*;
use std::path::Path;

/// What is done to a store between lines.
#[derive(Debug, Clone)]
enum Step {
    Append(Vec<(i64, usize, String)>),
    Flush,
    Rotate,
    Compress,
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    const DAY: i64 = 86_400_000_000;
    // Clocks that agree, one that is a day off, and any at all.
    let time = prop_oneof![4 => 0..1000i64, 2 => (0..1000i64).prop_map(|t| t - DAY), 1 => any::<i64>()];
    let line = (time, 0..3usize, "[ab\n]{0,4}");
    let step = prop_oneof![
        6 => prop::collection::vec(line, 1..20).prop_map(Step::Append),
        3 => Just(Step::Flush),
        2 => Just(Step::Rotate),
        1 => Just(Step::Compress),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..12)
}

fn streams(store: &Store) -> Vec<StreamId> {
    ["x", "y", "z"].map(|name| store.stream("node", name, Mode::Line).unwrap()).to_vec()
}

/// The store after these steps, and all its records in order.
fn run(dir: &Path, steps: &[Step]) -> (Store, Vec<Record>) {
    let mut store = Store::open(dir, Retention::default()).unwrap();
    let ids = streams(&store);
    let mut records = Vec::new();
    for step in steps {
        match step {
            Step::Append(lines) => {
                let mut chunk = Chunk::new();
                for (timestamp, stream, line) in lines {
                    chunk.push(ids[*stream], *timestamp, line.as_bytes()).unwrap();
                    let (seq, line) = (records.len() as u64, line.clone().into_bytes());
                    records.push(Record { timestamp: *timestamp, seq, stream: ids[*stream], line });
                }
                store.append(chunk, None, Box::new(|result| result.unwrap())).unwrap();
            }
            Step::Flush => store.flush().unwrap(),
            Step::Rotate => store.rotate().unwrap(),
            Step::Compress => store.compress().unwrap(),
            Step::Reopen => {
                drop(store);
                store = Store::open(dir, Retention::default()).unwrap();
            }
        }
    }
    records.sort_unstable_by_key(Record::key);
    (store, records)
}

fn all() -> Query {
    Query::new(Arc::new(|_| true))
}

fn found(records: Records) -> Vec<Record> {
    records.collect::<Result<_, _>>().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if std::env::var_os("WALT_TEST_LONG").is_some() { 512 } else { 48 }))]

    #[test]
    fn queries_find_what_was_appended(
        steps in steps(),
        bounds in (prop::option::of(-1..1000i64), prop::option::of(0..1001i64)),
        wanted in prop::sample::subsequence(vec!["x", "y", "z"], 0..=3),
        pattern in prop::option::of(prop::sample::select(vec!["a", "^b", "b$", "a\\nb", "^$"])),
        n in 0..30usize,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (store, records) = run(dir.path(), &steps);
        prop_assert_eq!(&found(store.query(&all())), &records);
        let mut backwards = found(store.query(&Query { newest_first: true, ..all() }));
        backwards.reverse();
        prop_assert_eq!(&backwards, &records);
        prop_assert_eq!(store.last(&all(), n).unwrap(), &records[records.len().saturating_sub(n)..]);
        prop_assert_eq!(store.estimate(&all()).unwrap(), records.len() as u64);

        let names = wanted.clone();
        let (after, before) = bounds;
        let query = Query {
            after,
            before,
            pattern: pattern.map(|p| Pattern::new(p).unwrap()),
            ..Query::new(Arc::new(move |info| names.contains(&&*info.name)))
        };
        let expected: Vec<Record> = records.iter().filter(|r| {
            after.is_none_or(|t| r.timestamp > t) && before.is_none_or(|t| r.timestamp < t)
                && wanted.contains(&&*store.stream_info(r.stream).unwrap().name)
                && query.pattern.as_ref().is_none_or(|p| p.matches(&r.line))
        }).cloned().collect();
        prop_assert_eq!(&found(store.query(&query)), &expected);

        // Page by page, in both directions.
        for newest_first in [false, true] {
            let (mut paged, mut behind) = (Vec::new(), None);
            loop {
                let page = Query { behind, newest_first, ..query.clone() };
                let page = store.query(&page).take(3).collect::<Result<Vec<_>, _>>().unwrap();
                let Some(last) = page.last() else { break };
                behind = Some(last.key());
                paged.extend(page);
            }
            if newest_first {
                paged.reverse();
            }
            prop_assert_eq!(&paged, &expected);
        }

        let report = store.check().unwrap();
        prop_assert_eq!(report.findings, Vec::<String>::new());
    }

    #[test]
    fn memory_that_is_short_changes_nothing(steps in steps(), limit in 0..2000usize, newest_first in any::<bool>()) {
        let dir = tempfile::tempdir().unwrap();
        let (store, mut records) = run(dir.path(), &steps);
        let mut query = store.query(&Query { newest_first, ..all() });
        query.limit = limit;
        if newest_first {
            records.reverse();
        }
        let mut got = Vec::new();
        while let Some(record) = query.next() {
            got.push(record.unwrap());
            let held: usize = query.heap.iter().filter(|c| c.lines.is_some()).map(|c| c.bytes).sum();
            prop_assert_eq!(query.held, held);
        }
        prop_assert_eq!(got, records);
    }
}

#[test]
fn long_queries_have_threads_and_find_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Retention::default()).unwrap();
    let ids = streams(&store);
    let line = [b'x'; 3000];
    for i in 0..=100i64 {
        let mut chunk = Chunk::new();
        // Times go up and down.
        for k in 0..100 {
            chunk.push(ids[(k % 3) as usize], (i * 100 + k) * 7919 % 6_000_000, &line).unwrap();
        }
        store.append(chunk, None, Box::new(|r| r.unwrap())).unwrap();
    }
    store.flush().unwrap();
    let mut query = store.query(&all());
    let mut keys = Vec::new();
    for record in query.by_ref() {
        keys.push(record.unwrap().key());
    }
    assert!(query.ahead.is_some(), "there were {} blocks", query.plan.units.len());
    assert_eq!(keys.len(), 10_100);
    assert!(keys.is_sorted());
    // One that is given up ends its threads.
    let mut given_up = store.query(&all());
    given_up.by_ref().take(9000).for_each(|r| drop(r.unwrap()));
    let ahead = Arc::downgrade(given_up.ahead.as_ref().unwrap());
    drop(given_up);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while ahead.upgrade().is_some() {
        assert!(std::time::Instant::now() < deadline, "the threads of a query are still there after 20 s");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn a_damaged_block_is_an_error_and_the_others_follow() {
    let dir = tempfile::tempdir().unwrap();
    let (store, records) = {
        let line = |i: i64| (i, 0, "line".to_owned());
        let steps: Vec<Step> = (0..5)
            .flat_map(|b| [Step::Append((b * 10..b * 10 + 10).map(line).collect()), Step::Flush])
            .collect();
        run(dir.path(), &steps)
    };
    let (path, offset) = {
        let state = store.inner.state.lock();
        (state.active.path().to_owned(), state.active.blocks[2].offset)
    };
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[offset as usize + 150] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let results: Vec<_> = store.query(&all()).collect();
    let errors: Vec<_> = results.iter().filter_map(|r| r.as_ref().err()).collect();
    assert!(matches!(errors[..], [Error::Damaged { offset: o, .. }] if *o == offset), "{errors:?}");
    assert_eq!(results.iter().flatten().count(), records.len() - 10);
    let report = store.check().unwrap();
    assert_eq!(report.findings.len(), 1, "{report:?}");
    // It is not compressed, so that nothing of it gets lost.
    store.rotate().unwrap();
    assert!(matches!(store.compress(), Err(Error::Damaged { .. })));
    assert_eq!(store.status().compressed, 0);
    store.compress().unwrap();
    // The next start finds it as well.
    drop(store);
    let store = Store::open(dir.path(), Retention::default()).unwrap();
    assert_eq!(store.query(&all()).flatten().count(), records.len() - 10);
    assert_eq!(store.check().unwrap().findings.len(), 1);
}
