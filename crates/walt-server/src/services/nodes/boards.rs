//! Raspberry Pis whose firmware is about to fetch files, though they are not nodes yet.
//!
//! Their ROM uses the address that it was offered without asking for it, so that nothing else tells who is at an
//! address. They get the files of a default image; what these start says of which model the machine is, and makes it a
//! node.
//!
//! Limits: [`BOARDS_MAX`] boards, each for [`KEPT_FOR`] after its last sign.

use parking_lot::Mutex;
use std::{
    collections::HashMap,
    net::Ipv4Addr,
    time::{Duration, Instant},
};
use walt_netboot::rpi;
use walt_types::Model;

/// Boards at once; the one that was silent for longest is forgotten for a new one.
const BOARDS_MAX: usize = 256;
/// How long a board may take from its offer, or from one file to the next.
const KEPT_FOR: Duration = Duration::from_secs(600);

/// A board at an address.
#[derive(Debug)]
struct Seen {
    /// Its model, if its firmware told it or has asked for a file that only one model asks for.
    model: Option<Model>,
    last: Instant,
}

/// All boards that are not nodes.
#[derive(Debug, Default)]
pub struct Boards(Mutex<HashMap<Ipv4Addr, Seen>>);

impl Boards {
    /// A board was offered this address, or was given it.
    pub fn offered(&self, ip: Ipv4Addr, model: Option<Model>) {
        let (mut boards, last) = (self.0.lock(), Instant::now());
        boards.retain(|_, seen| last.duration_since(seen.last) < KEPT_FOR);
        if boards.len() >= BOARDS_MAX
            && let Some(oldest) = boards.iter().min_by_key(|(_, seen)| seen.last).map(|(ip, _)| *ip)
        {
            boards.remove(&oldest);
        }
        boards.insert(ip, Seen { model, last });
    }

    /// The models whose default image may have a file for the board at this address; none if there is no board.
    pub fn models(&self, ip: Ipv4Addr, file: &[u8]) -> Vec<Model> {
        let mut boards = self.0.lock();
        let Some(seen) = boards.get_mut(&ip).filter(|seen| seen.last.elapsed() < KEPT_FOR) else {
            return Vec::new();
        };
        seen.last = Instant::now();
        if seen.model.is_none() {
            seen.model = rpi::model_asking_for(file);
        }
        seen.model.clone().map_or_else(rpi::models, |model| vec![model])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(boards: &Boards, last: u8, file: &str) -> Vec<String> {
        let models = boards.models(Ipv4Addr::new(192, 168, 183, last), file.as_bytes());
        models.iter().map(Model::to_string).collect()
    }

    #[test]
    fn what_is_known_of_a_board() {
        let boards = Boards::default();
        let ip = |last| Ipv4Addr::new(192, 168, 183, last);
        assert_eq!(names(&boards, 9, "start.elf"), [""; 0], "nobody was offered this address");
        boards.offered(ip(9), None);
        assert!(names(&boards, 9, "start.elf").len() > 3, "any model's");
        assert_eq!(names(&boards, 9, "bootcode.bin"), ["rpi-3-b-plus"]);
        assert_eq!(names(&boards, 9, "config.txt"), ["rpi-3-b-plus"], "by what it asked for first");
        boards.offered(ip(8), Some("rpi-4-b".parse().unwrap()));
        assert_eq!(names(&boards, 8, "bootcode.bin"), ["rpi-4-b"], "its own word counts");
        // Another board at the address.
        boards.offered(ip(9), Some("rpi-5-b".parse().unwrap()));
        assert_eq!(names(&boards, 9, "config.txt"), ["rpi-5-b"]);
    }

    #[test]
    fn boards_are_bounded() {
        let boards = Boards::default();
        let ip = |n: usize| Ipv4Addr::from_bits(0x0a00_0000 + n as u32);
        for n in 0..=BOARDS_MAX {
            boards.offered(ip(n), None);
        }
        assert_eq!(boards.0.lock().len(), BOARDS_MAX);
        assert!(boards.models(ip(0), b"start.elf").is_empty(), "the oldest is forgotten");
    }
}
