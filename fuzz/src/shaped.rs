//! The setting `networks`, and frames of nodes on a link of this shape.

use walt_types::Networks;
use walt_vnode::link::model::Direction;

/// Time between two frames, in nanoseconds.
const INTERVAL: u64 = 1_000_000;

/// A line with the setting, and frames behind it, each with its length in front. The text of networks is canonical, and
/// every frame meets one fate.
pub fn link(bytes: &[u8]) {
    let cut = bytes.iter().position(|b| *b == b'\n').unwrap_or(bytes.len());
    let (line, mut frames) = bytes.split_at(cut);
    let Ok(networks) = String::from_utf8_lossy(line).parse::<Networks>() else { return };
    let text = networks.to_string();
    assert_eq!(text.parse::<Networks>().as_ref(), Ok(&networks), "{text}");
    // Invariant: walt-net is in every list.
    let Some((_, shape)) = networks.iter().next() else { return };
    let mut direction = Direction::new(shape.down, shape.is_cut, shape.seed.unwrap_or(1));
    let (mut offered, mut now) = (0, 0);
    while let Some((length, rest)) = frames.split_first() {
        let (frame, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        direction.offer(now, frame.to_vec());
        (offered, frames, now) = (offered + 1, rest, now + INTERVAL);
        while let Some(frame) = direction.take(now) {
            direction.delivered(frame.len(), true);
        }
    }
    while let Some(due) = direction.next_due() {
        // Invariant: what is due is there.
        let Some(frame) = direction.take(due) else { unreachable!("a frame that is due") };
        direction.delivered(frame.len(), true);
    }
    let c = direction.counters();
    let dropped = c.lost + c.lost_in_bursts + c.queue_full + c.cut + c.no_memory;
    assert_eq!(c.passed + dropped, offered + c.duplicated, "{c:?}");
    assert_eq!(c.queued, 0);
}
