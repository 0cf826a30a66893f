//! Many nodes that boot within seconds, many clients, and a server that is killed in between.
//!
//! The nodes are addresses of one machine, which speaks the node link for each of them. The server knows each by its own
//! MAC address: the machine takes what is sent to any of them.
//!
//! In CI 100 nodes and 10 clients; 1,000 and 50 with `WALT_TEST_LONG=1`.

use super::{ANN, Follower, open, wide};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};
use std::time::{Duration, Instant, SystemTime};
use walt_testkit::{Netns, Options, Station, TestServer, images, until};

/// How long all boots take together.
const BOOTS: Duration = Duration::from_secs(10);
/// When the server is killed, counted from the first boot.
const KILLS: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(6)];
/// Clients that read nothing, each with this much in the server at most: the snapshot, and what the socket takes.
const SILENT: usize = 10;
const SILENT_MAX: u64 = 4 << 20;
/// For all to come to an end.
const LIMIT: Duration = Duration::from_secs(120);
const LINK_PORT: u16 = 12347;

fn now() -> f64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64()
}

/// The nodes: one machine with all their addresses.
struct Crowd {
    netns: Netns,
    server: SocketAddr,
    nodes: Vec<(Ipv4Addr, String)>,
    links: Mutex<HashMap<usize, TcpStream>>,
    /// How many have been switched on.
    on: AtomicUsize,
    /// When each said last that it has booted, by MAC address.
    booted: Mutex<HashMap<String, f64>>,
    ended: AtomicBool,
}

impl Crowd {
    /// Registers them, and plugs the machine in.
    fn new(server: &TestServer, room: &Netns, prefix: u8, count: usize) -> Self {
        let address = server.address();
        let base = u32::from(address) & !((1 << (32 - prefix)) - 1);
        // Behind the server's own address, and without one at the ends.
        let ips = (base + 2..)
            .map(Ipv4Addr::from)
            .filter(|ip| *ip != address && !matches!(ip.octets()[3], 0 | 255));
        let nodes: Vec<_> = ips
            .take(count)
            .enumerate()
            .map(|(n, ip)| (ip, format!("02:00:00:00:{:02x}:{:02x}", n >> 8, n & 255)))
            .collect();
        let api = server.api(None);
        for (n, (ip, mac)) in nodes.iter().enumerate() {
            let action = json!({"action": "dhcp-commit", "vendor_class": "walt.node.pc-x86-64", "user_class": "",
                "ip": ip, "mac": mac, "host_name": format!("n{n:04}"), "force_name": true});
            let reply = api.post("/api/v1/actions/admin", &action, None);
            assert!(reply.status == 200, "{reply:?}");
        }
        let netns = Netns::new();
        netns.plug(Some(room), &server.bridge(), None, Station { mac: None, ip: nodes[0].0, prefix });
        let batch = server.dir().join("addresses");
        let lines: String =
            nodes[1..].iter().map(|(ip, _)| format!("address add {ip}/{prefix} dev eth0\n")).collect();
        std::fs::write(&batch, lines).unwrap();
        netns.run(&["ip", "-batch", &batch.display().to_string()]);
        let all = server.dir().join("all.nft");
        let rules = "table netdev crowd {\n chain frames {\n  type filter hook ingress device \"eth0\" priority 0;\n  meta pkttype set host\n }\n}\n";
        std::fs::write(&all, rules).unwrap();
        netns.run(&["nft", "-f", &all.display().to_string()]);
        Self {
            netns,
            server: (address, LINK_PORT).into(),
            nodes,
            links: Mutex::default(),
            on: AtomicUsize::new(0),
            booted: Mutex::default(),
            ended: AtomicBool::new(false),
        }
    }

    /// A node opens its link, and says that it has booted. None if there is no server.
    fn link(&self, n: usize) -> std::io::Result<TcpStream> {
        let (ip, _) = self.nodes[n];
        let socket =
            self.netns.inside(|| socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None))?;
        socket.bind(&SocketAddr::from((ip, 0)).into())?;
        socket.connect_timeout(&self.server.into(), Duration::from_secs(2))?;
        let mut stream = TcpStream::from(socket);
        let id = format!("00000000-0000-0000-0000-{n:012}");
        let hello = format!("REQ_NODE_LINK\nHELLO 1 view=- boot_id={id} uptime=1 mode=network\nBOOTED\n");
        self.booted.lock().unwrap().insert(self.nodes[n].1.clone(), now());
        stream.write_all(hello.as_bytes())?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    }

    /// All of them boot, one after the other.
    fn boot(&self) {
        let start = Instant::now();
        for n in 0..self.nodes.len() {
            let due = BOOTS.mul_f64(n as f64 / self.nodes.len() as f64);
            std::thread::sleep(due.saturating_sub(start.elapsed()));
            // If there is no server, it is tried again with the others.
            if let Ok(stream) = self.link(n) {
                self.links.lock().unwrap().insert(n, stream);
            }
            self.on.store(n + 1, Ordering::SeqCst);
        }
    }

    /// Keeps the links of those that have booted: heartbeats, and new links when they break.
    fn keep(&self) {
        let mut beat = Instant::now();
        while !self.ended.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(200));
            let beats = beat.elapsed() > Duration::from_secs(10);
            if beats {
                beat = Instant::now();
            }
            let mut lost = Vec::new();
            {
                let mut links = self.links.lock().unwrap();
                links.retain(|_, stream| {
                    let mut said = [0; 512];
                    let read = stream.read(&mut said);
                    let is_there = match &read {
                        Ok(count) => *count > 0,
                        Err(e) => e.kind() == ErrorKind::WouldBlock,
                    };
                    is_there && (!beats || stream.write_all(b"BEAT\n").is_ok())
                });
                lost.extend((0..self.on.load(Ordering::SeqCst)).filter(|n| !links.contains_key(n)));
            }
            for n in lost {
                match self.link(n) {
                    Ok(stream) => drop(self.links.lock().unwrap().insert(n, stream)),
                    Err(_) => break,
                }
            }
        }
    }
}

/// Resident memory of a process, in bytes (proc(5)).
fn memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

fn nodes(server: &TestServer) -> BTreeMap<String, Value> {
    let list: Value =
        serde_json::from_str(&server.walt(ANN, &["node", "show", "--all", "--json"]).ok()).unwrap();
    let all = list["nodes"].as_array().unwrap().clone();
    all.into_iter().map(|node| (node["mac"].as_str().unwrap().to_owned(), node)).collect()
}

fn percentile(sorted: &[f64], part: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * part) as usize]
}

#[test]
fn clients_of_many_nodes_are_right_at_the_end() {
    let is_long = std::env::var_os("WALT_TEST_LONG").is_some();
    let (count, clients, prefix) = if is_long { (1000, 50, 21) } else { (100, 10, 24) };
    let room = Netns::new();
    room.run(&["ip", "link", "set", "lo", "up"]);
    let options = Options { wrapper: room.wrapper(), ..wide(prefix) };
    let mut server = TestServer::start_with(options).unwrap_or_else(|e| panic!("{e:?}"));
    server.import(images::TINY, &images::tiny(server.dir()));
    let start = Instant::now();
    let crowd = Arc::new(Crowd::new(&server, &room, prefix, count));
    eprintln!("{count} nodes were registered in {:.1} s", start.elapsed().as_secs_f64());

    let latencies = Arc::<Mutex<Vec<f64>>>::default();
    let followers: Vec<Follower> = (0..clients)
        .map(|_| {
            let (crowd, latencies) = (crowd.clone(), latencies.clone());
            Follower::start(server.socket(), "", move |message| {
                if message["fields"]["state"] == "booted" {
                    let said = crowd.booted.lock().unwrap().get(message["id"].as_str().unwrap()).copied();
                    latencies.lock().unwrap().push(now() - said.expect("it has booted"));
                }
            })
        })
        .collect();
    for follower in &followers {
        follower.until("the first snapshot", |seen| (seen.snapshots > 0).then_some(()));
    }
    let boots = std::thread::spawn({
        let crowd = crowd.clone();
        move || crowd.boot()
    });
    let keeps = std::thread::spawn({
        let crowd = crowd.clone();
        move || crowd.keep()
    });
    let start = Instant::now();
    for kill in KILLS {
        std::thread::sleep(kill.saturating_sub(start.elapsed()));
        server.kill();
        server.launch().unwrap_or_else(|e| panic!("{e:?}"));
    }
    // They do not read what the server sends to them from now on.
    let quiet = memory(server.pid());
    let silent: Vec<_> = (0..SILENT).map(|_| open(&server.socket(), "").unwrap()).collect();
    boots.join().unwrap();
    let last = until("all nodes to be booted", LIMIT, || {
        let all = nodes(&server);
        all.values().all(|node| node["state"] == "booted").then_some(all)
    });
    assert_eq!(last.len(), count);
    for (n, follower) in followers.iter().enumerate() {
        until(&format!("the state of client {n} to be right"), LIMIT, || {
            let seen = follower.seen.lock().unwrap();
            let same = seen.nodes().iter().all(|node| last[node["mac"].as_str().unwrap()] == *node);
            (same && seen.nodes().len() == last.len()).then_some(())
        });
        let seen = follower.seen.lock().unwrap();
        assert_eq!(seen.servers.len(), 1 + KILLS.len(), "a snapshot of each run of the server");
        // At most five messages about a node in a second.
        let mut times: HashMap<&str, Vec<f64>> = HashMap::new();
        for message in seen.messages.iter().filter(|m| m["kind"] == "node") {
            times.entry(message["id"].as_str().unwrap()).or_default().push(message["time"].as_f64().unwrap());
        }
        let fastest = times.values().flat_map(|t| t.windows(6)).map(|t| t[5] - t[0]).fold(f64::MAX, f64::min);
        assert!(fastest > 0.95, "six messages about one node in {fastest} s");
    }
    let grown = memory(server.pid()).saturating_sub(quiet);
    drop(silent);
    crowd.ended.store(true, Ordering::SeqCst);
    keeps.join().unwrap();
    let mut latencies = latencies.lock().unwrap().clone();
    latencies.sort_by(f64::total_cmp);
    assert!(!latencies.is_empty());
    eprintln!(
        "{count} nodes, {clients} clients: {} messages that a node has booted, p50 {:.0} ms, p99 {:.0} ms, longest {:.0} ms; \
         {SILENT} clients that read nothing: {:.1} MB more",
        latencies.len(),
        percentile(&latencies, 0.5) * 1e3,
        percentile(&latencies, 0.99) * 1e3,
        percentile(&latencies, 1.0) * 1e3,
        grown as f64 / 1e6
    );
    // All that the server did meanwhile is in this, too.
    assert!(grown < SILENT as u64 * SILENT_MAX + (64 << 20), "{grown} bytes");
}
