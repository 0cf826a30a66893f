//! The queue for nodes: who gets which, and when.
//!
//! Everybody who waits names a set of nodes, and gets all of them at once or none. Who came earlier and wants one of the
//! same nodes goes first, also to nodes that are available already. So the first one waits for owners only, each other one for
//! owners and those before, and nobody waits in a circle or is overtaken.

use std::collections::BTreeSet;
use walt_types::{Mac, UserName};

/// Somebody who waits. The queue is a list of these in the order in which they came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// Grows with each new one.
    pub id: i64,
    /// Who waits.
    pub user: UserName,
    /// Since when, in seconds since the epoch.
    pub since: i64,
    /// For what.
    pub nodes: BTreeSet<Mac>,
}

/// Those in the queue who come before one of them and want some of the same nodes.
pub fn ahead<'a>(queue: &'a [Wait], of: &'a Wait) -> impl Iterator<Item = &'a Wait> {
    queue.iter().filter(|wait| wait.id < of.id && !wait.nodes.is_disjoint(&of.nodes))
}

/// Whether it is the turn of one of the queue.
pub fn is_next(queue: &[Wait], of: &Wait, mut is_available: impl FnMut(Mac) -> bool) -> bool {
    ahead(queue, of).next().is_none() && of.nodes.iter().all(|mac| is_available(*mac))
}

/// Those who wait for a node, in their order.
pub fn waiting_for(queue: &[Wait], node: Mac) -> impl Iterator<Item = &Wait> {
    queue.iter().filter(move |wait| wait.nodes.contains(&node))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(n: u8) -> Mac {
        Mac([2, 0, 0, 0, 0, n])
    }

    fn queue(sets: &[&[u8]]) -> Vec<Wait> {
        let wait = |(id, set): (usize, &&[u8])| Wait {
            id: id as i64,
            user: format!("u{id}").parse().unwrap(),
            since: 0,
            nodes: set.iter().map(|n| mac(*n)).collect(),
        };
        sets.iter().enumerate().map(wait).collect()
    }

    #[test]
    fn overlapping_sets_keep_their_order() {
        let queue = queue(&[&[1, 2], &[2], &[3], &[2, 3]]);
        let next = |free: &[u8]| -> Vec<i64> {
            let free: Vec<Mac> = free.iter().map(|n| mac(*n)).collect();
            queue.iter().filter(|w| is_next(&queue, w, |m| free.contains(&m))).map(|w| w.id).collect()
        };
        assert_eq!(next(&[1, 2, 3]), [0, 2]);
        // Node 2 is free, but the first one, who also wants node 1, came earlier.
        assert_eq!(next(&[2, 3]), [2]);
        assert_eq!(next(&[1]), [0i64; 0]);
        assert_eq!(ahead(&queue, &queue[3]).map(|w| w.id).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(ahead(&queue, &queue[2]).count(), 0);
        let waiting: Vec<&str> = waiting_for(&queue, mac(2)).map(|w| w.user.as_str()).collect();
        assert_eq!(waiting, ["u0", "u1", "u3"]);
    }

    /// As long as owners give nodes back, everybody gets a turn, and no node goes to two.
    #[test]
    fn nobody_waits_for_ever() {
        let subset = |bits: usize| (0..3u8).filter(|n| bits >> n & 1 == 1).collect::<Vec<u8>>();
        for all in 0..512 {
            let sets = [all & 7, all >> 3 & 7, all >> 6].map(|bits| subset(bits.max(1)));
            let mut queue = queue(&sets.each_ref().map(Vec::as_slice));
            while let Some(first) = queue.first().cloned() {
                let next: Vec<Wait> =
                    queue.iter().filter(|w| is_next(&queue, w, |_| true)).cloned().collect();
                assert_eq!(next.first(), Some(&first), "{sets:?}");
                for (i, one) in next.iter().enumerate() {
                    assert!(
                        next[i + 1..].iter().all(|other| other.nodes.is_disjoint(&one.nodes)),
                        "{sets:?}"
                    );
                }
                queue.retain(|w| !next.contains(w));
            }
        }
    }
}
