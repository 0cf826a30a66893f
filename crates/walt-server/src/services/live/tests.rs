//! The publisher, without a server: what is looked at is made up.

use super::*;
use crate::base::changes::Parts;

/// For what is only a matter of turns.
const SOON: Duration = Duration::from_secs(10);

fn live() -> (Arc<Live>, Arc<Changes>) {
    let changes = Arc::new(Changes::default());
    (Live::new(changes.clone()), changes)
}

fn operation(id: &str, label: Option<&str>) -> (String, Operation) {
    let label = label.map(str::to_owned);
    let (user, what) = ("ann".into(), "node boot".into());
    (id.to_owned(), Operation { id: id.into(), user, what, since: 1.0, label, done: None, total: None })
}

/// One look at everything: only operations are there.
fn look(live: &Live, operations: &[(String, Operation)]) {
    live.look_begins();
    live.changes.take();
    live.publish(Look { operations: Some(operations.iter().cloned().collect()), ..Look::default() });
}

fn read(line: &Bytes) -> Message {
    assert_eq!(line.last(), Some(&b'\n'));
    serde_json::from_slice(line).unwrap()
}

async fn next(client: &mut Subscription) -> Message {
    read(&tokio::time::timeout(SOON, client.next()).await.expect("a message"))
}

async fn snapshot(client: &mut Subscription) -> Snapshot {
    match next(client).await {
        Message::Snapshot(snapshot) => *snapshot,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_snapshot_and_what_changes_after_it() {
    let (live, _) = live();
    look(&live, &[operation("1", None)]);
    let mut client = live.subscribe(Wanted::default()).unwrap();
    let first = snapshot(&mut client).await;
    assert_eq!((first.operations.len(), first.seq, first.server.len()), (1, 1, 2 * RUN_ID_LEN));
    look(&live, &[operation("1", Some("Copying")), operation("2", None)]);
    look(&live, &[operation("2", None)]);
    let Message::Changed { seq: 2, kind: Kind::Operation, id, fields, .. } = next(&mut client).await else {
        panic!()
    };
    assert_eq!(
        (id.as_str(), serde_json::to_string(&fields).unwrap().as_str()),
        ("1", r#"{"label":"Copying"}"#)
    );
    let Some(Message::Changed { seq: 3, fields, .. }) = client.ready().map(|line| read(&line)) else {
        panic!()
    };
    assert_eq!(fields["user"], "ann", "all fields of what is new");
    let Message::Gone { seq: 4, id, .. } = next(&mut client).await else { panic!() };
    assert_eq!(id, "1");
    assert!(client.ready().is_none());
    // A second client begins where the first one is.
    let second = snapshot(&mut live.subscribe(Wanted::default()).unwrap()).await;
    assert_eq!((second.seq, second.operations.len()), (4, 1));
}

#[tokio::test]
async fn a_snapshot_is_as_new_as_the_request() {
    let (live, changes) = live();
    let mut early = live.subscribe(Wanted::default()).unwrap();
    // Nothing has been looked at.
    let waits = tokio::time::timeout(Duration::from_millis(20), early.next()).await;
    assert!(waits.is_err());
    look(&live, &[]);
    assert!(snapshot(&mut early).await.operations.is_empty());
    // Something is marked, and a look that began before does not count.
    live.look_begins();
    changes.mark(Parts::OPERATIONS);
    let mut client = live.subscribe(Wanted::default()).unwrap();
    let mut waiting = Box::pin(client.next());
    assert!(futures_util::FutureExt::now_or_never(waiting.as_mut()).is_none());
    live.publish(Look::default());
    assert!(futures_util::FutureExt::now_or_never(waiting.as_mut()).is_none());
    live.look_wanted().await;
    look(&live, &[operation("1", None)]);
    let Message::Snapshot(snapshot) = read(&waiting.await) else { panic!() };
    assert_eq!(snapshot.operations.len(), 1);
    // A look that fails gives no snapshot.
    changes.mark(Parts::OPERATIONS);
    let mut client = live.subscribe(Wanted::default()).unwrap();
    let mut waiting = Box::pin(client.next());
    assert!(futures_util::FutureExt::now_or_never(waiting.as_mut()).is_none());
    live.look_begins();
    live.look_failed();
    assert!(futures_util::FutureExt::now_or_never(waiting.as_mut()).is_none());
    assert!(!live.is_followed());
    look(&live, &[]);
    assert!(matches!(read(&waiting.await), Message::Snapshot(snapshot) if snapshot.operations.is_empty()));
}

#[tokio::test]
async fn a_client_that_falls_behind_gets_a_new_snapshot() {
    let (live, _) = live();
    look(&live, &[]);
    let mut client = live.subscribe(Wanted::default()).unwrap();
    let mut eager = live.subscribe(Wanted::default()).unwrap();
    snapshot(&mut client).await;
    snapshot(&mut eager).await;
    // One more than are kept.
    for n in 0..=MESSAGES_KEPT {
        look(&live, &[operation("1", Some(&n.to_string()))]);
        assert!(matches!(next(&mut eager).await, Message::Changed { seq, .. } if seq == n as u64 + 1));
    }
    assert!(matches!(next(&mut client).await, Message::Resync { .. }));
    assert_eq!(live.resyncs(), 1);
    let snapshot = snapshot(&mut client).await;
    assert_eq!(snapshot.operations[0].label, Some(MESSAGES_KEPT.to_string()));
    assert_eq!(snapshot.seq, MESSAGES_KEPT as u64 + 1);
    look(&live, &[]);
    assert!(matches!(next(&mut client).await, Message::Gone { .. }), "it follows again");
    // The same for what waits already.
    for n in 0..=MESSAGES_KEPT {
        look(&live, &[operation("1", Some(&n.to_string()))]);
    }
    assert!(matches!(client.ready().map(|line| read(&line)), Some(Message::Resync { .. })));
    assert!(client.ready().is_none() && matches!(next(&mut client).await, Message::Snapshot(_)));
}

#[tokio::test]
async fn clients_see_what_they_want() {
    let (live, _) = live();
    let mac = |n: u8| format!("02:00:00:00:00:0{n}");
    let lease = |n: u8, user: &str| {
        let lease = Lease {
            mac: mac(n),
            node: format!("pc{n}"),
            user: user.into(),
            ends: None,
            expired: false,
            held: true,
        };
        (mac(n), lease)
    };
    let publish = |user: &str, label| {
        live.look_begins();
        let leases = Some(BTreeMap::from([lease(1, user), lease(2, user)]));
        let operations = Some(BTreeMap::from([operation("1", label)]));
        live.publish(Look { leases, operations, ..Look::default() });
    };
    publish("ann", None);
    let kinds = BTreeSet::from([Kind::Lease]);
    let mut of_two = live.subscribe(Wanted { kinds, nodes: Some(BTreeSet::from([mac(2)])) }).unwrap();
    let nodes = Some(BTreeSet::from([mac(1)]));
    let mut of_one = live.subscribe(Wanted { nodes, ..Wanted::default() }).unwrap();
    let (two, one) = (snapshot(&mut of_two).await, snapshot(&mut of_one).await);
    assert_eq!((two.leases.len(), two.leases[0].node.as_str(), two.operations.len()), (1, "pc2", 0));
    assert_eq!(
        (one.leases[0].node.as_str(), one.operations.len()),
        ("pc1", 1),
        "what is not of a node is there"
    );
    publish("bob", Some("x"));
    assert!(
        matches!(next(&mut of_two).await, Message::Changed { kind: Kind::Lease, id, .. } if id == mac(2))
    );
    assert!(of_two.ready().is_none());
    assert!(matches!(next(&mut of_one).await, Message::Changed { kind: Kind::Operation, .. }));
    assert!(
        matches!(next(&mut of_one).await, Message::Changed { kind: Kind::Lease, id, .. } if id == mac(1))
    );
}

#[tokio::test]
async fn a_silent_server_sends_heartbeats() {
    let (live, _) = live();
    look(&live, &[operation("1", None)]);
    let mut client = live.subscribe(Wanted::default()).unwrap();
    assert!(matches!(read(&client.next().await), Message::Snapshot(_)));
    assert_eq!(client.silence, Duration::from_secs(HEARTBEAT_SECONDS));
    client.silence = Duration::from_millis(1);
    assert!(matches!(next(&mut client).await, Message::Heartbeat { seq: 1, .. }));
    assert!(matches!(next(&mut client).await, Message::Heartbeat { seq: 1, .. }));
}

#[tokio::test]
async fn there_are_not_too_many_clients_and_nobody_looks_without_one() {
    let (live, _) = live();
    let mut all: Vec<_> = (0..CLIENTS_MAX).map(|_| live.subscribe(Wanted::default()).unwrap()).collect();
    assert!(live.subscribe(Wanted::default()).is_none());
    live.has_clients().await;
    all.pop();
    assert!(live.subscribe(Wanted::default()).is_some());
    drop(all);
    assert_eq!(live.clients(), 0);
    // Nobody has listened: the number of the messages grows, and nothing is kept.
    look(&live, &[operation("1", None)]);
    assert!(live.ring.is_empty() && live.is_followed());
    live.pause();
    assert!(!live.is_followed());
}
