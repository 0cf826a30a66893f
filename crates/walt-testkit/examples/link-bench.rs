//! `link-bench ROUNDS`: what the process of a shaped link costs, compared with the plain bridge that it stands for.
//! `scripts/bench links` runs it. Needs root; uses namespaces of its own.
//!
//! ```text
//!   plain:   node ── bridge 'segment' ── peer
//!   ours:    node ── bridge 'cell' ── tap ══ walt-server link ══ tap ── bridge 'segment' ── peer
//! ```
//! Both in turns, `ROUNDS` times; medians (smallest..largest). Frames have 1,514 bytes. The link has a delay of 1 us in
//! `delayed`, so that each frame waits in its queue, and no parameter in `ours`.

#![allow(clippy::unwrap_used, reason = "a measurement fails by panicking")]

use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};
use walt_sys::net::bridge::{self, BridgeSpec};
use walt_sys::net::mac_from_seed;
use walt_testkit::{Netns, Station};
use walt_types::Shape;
use walt_vnode::link::{self, Link, LinkSpec, Port};

const NODE: Ipv4Addr = Ipv4Addr::new(10, 98, 0, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 98, 0, 2);
const MACS: [&str; 2] = ["02:00:00:00:00:01", "02:00:00:00:00:02"];
const PORT: u16 = 9999;
/// How long frames are sent as fast as possible.
const BLAST: Duration = Duration::from_secs(2);
/// Round trips of a measurement of the delay.
const TRIPS: usize = 3000;
/// Data of a frame of 1,514 bytes.
const DATA: usize = 1472;
const FRAME_BITS: f64 = 1514.0 * 8.0;
/// Ticks of a second in /proc (sysconf(3), `_SC_CLK_TCK`: 100 on Linux).
const TICKS: f64 = 100.0;

/// Figures of one round.
#[derive(Default, Clone, Copy)]
struct Figures {
    mbps: f64,
    median_us: f64,
    p99_us: f64,
    /// Of one core, by the process of the link.
    cpu_percent: f64,
}

struct Room {
    node: Netns,
    peer: Netns,
    room: Netns,
}

impl Room {
    fn new() -> Self {
        let (node, peer, room) = (Netns::new(), Netns::new(), Netns::new());
        room.inside(|| {
            for name in ["cell", "segment"] {
                let mac = mac_from_seed(name);
                let made = BridgeSpec { name: name.into(), alias: "bench".into(), address: None, mac };
                bridge::ensure(&made).unwrap();
            }
        });
        for (netns, ip, other, own, others, port) in [
            (&node, NODE, PEER, MACS[0], MACS[1], "node-port"),
            (&peer, PEER, NODE, MACS[1], MACS[0], "peer-port"),
        ] {
            netns.plug(Some(&room), "segment", Some(port), Station { mac: Some(own), ip, prefix: 24 });
            let other = other.to_string();
            netns.run(&[
                "ip",
                "neigh",
                "replace",
                &other,
                "lladdr",
                others,
                "nud",
                "permanent",
                "dev",
                "eth0",
            ]);
        }
        Self { node, peer, room }
    }

    fn connect(&self, bridge: &str) {
        self.room.run(&["ip", "link", "set", "node-port", "master", bridge]);
        std::thread::sleep(Duration::from_millis(300));
    }

    /// Frames that have come to the node.
    fn received(&self) -> u64 {
        let table = self.node.run(&["cat", "/proc/net/dev"]);
        let line = table.lines().find(|l| l.trim_start().starts_with("eth0:")).unwrap();
        line.split_whitespace().nth(2).unwrap().parse().unwrap()
    }

    fn measure(&self, link: Option<&Link>) -> Figures {
        let socket = |netns: &Netns, own: Ipv4Addr, other: Ipv4Addr| {
            netns.inside(|| {
                let socket = UdpSocket::bind((own, PORT)).unwrap();
                socket.connect((other, PORT)).unwrap();
                socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
                socket
            })
        };
        let (node, peer) = (socket(&self.node, NODE, PEER), socket(&self.peer, PEER, NODE));
        // The bridges learn where the node is now.
        node.send(&[0; 64]).unwrap();
        peer.recv(&mut [0; 64]).unwrap();
        let trips = std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut buffer = [0; 64];
                while let Ok(length) = node.recv(&mut buffer) {
                    node.send(&buffer[..length]).unwrap();
                    if buffer[0] == 1 {
                        break;
                    }
                }
            });
            let mut trips: Vec<f64> = (0..TRIPS)
                .map(|n| {
                    let start = Instant::now();
                    peer.send(&[u8::from(n + 1 == TRIPS); 64]).unwrap();
                    peer.recv(&mut [0; 64]).unwrap();
                    start.elapsed().as_secs_f64() * 1e6
                })
                .collect();
            trips.sort_by(f64::total_cmp);
            trips
        });
        // Nobody reads: what counts is what the link delivers.
        let (data, before, cpu) = ([0; DATA], self.received(), link.map(cpu_seconds));
        let start = Instant::now();
        while start.elapsed() < BLAST {
            for _ in 0..100 {
                // A full queue of the own interface is an error; the frame is lost.
                let _ = peer.send(&data);
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        let frames = self.received() - before;
        let used = link.zip(cpu).map_or(0.0, |(link, before)| cpu_seconds(link) - before);
        Figures {
            mbps: frames as f64 * FRAME_BITS / seconds / 1e6,
            median_us: trips[TRIPS / 2],
            p99_us: trips[TRIPS * 99 / 100],
            cpu_percent: used / seconds * 100.0,
        }
    }
}

/// Time that the process of a link has used, in seconds of a core.
fn cpu_seconds(link: &Link) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", link.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / TICKS
}

fn shown(all: &[Figures], of: impl Fn(&Figures) -> f64, digits: usize) -> String {
    let mut values: Vec<f64> = all.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    let (low, median, high) = (values[0], values[values.len() / 2], values[values.len() - 1]);
    format!("{median:.digits$} ({low:.digits$}..{high:.digits$})")
}

fn main() {
    let rounds: usize = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(5);
    let room = Room::new();
    let files = tempfile::tempdir_in("/var/tmp").unwrap();
    let port = |ifname: &str, bridge: &str| Port {
        ifname: ifname.into(),
        bridge: bridge.into(),
        alias: "link of a measurement".into(),
    };
    let spec = LinkSpec {
        node: port("node-end", "cell"),
        network: port("network-end", "segment"),
        shape: Shape::default(),
    };
    let exe = walt_testkit::programs().join("walt-server");
    let link = room.room.inside(|| link::start(&spec, &files.path().join("link"), &exe, None)).unwrap();
    let names = ["plain bridge", "ours", "ours, delayed"];
    let mut all: [Vec<Figures>; 3] = Default::default();
    for _ in 0..rounds {
        for (which, figures) in all.iter_mut().enumerate() {
            room.connect(if which == 0 { "segment" } else { "cell" });
            let shape = if which == 2 { "lat=1us,lat.up=1us" } else { "" };
            link.set(shape.parse().unwrap()).unwrap();
            figures.push(room.measure((which > 0).then_some(&link)));
        }
    }
    link.stop().unwrap();
    println!("frames of 1,514 bytes as fast as one sender can, round trips of 64 bytes, n = {rounds}");
    for (name, figures) in names.iter().zip(&all) {
        println!(
            "{name:14} {} Mbit/s   round trip {} us, p99 {} us   process {} % of a core",
            shown(figures, |f| f.mbps, 0),
            shown(figures, |f| f.median_us, 1),
            shown(figures, |f| f.p99_us, 1),
            shown(figures, |f| f.cpu_percent, 0),
        );
    }
}
