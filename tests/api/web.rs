//! HTTP with a foreign client (curl): port 80 of walt-net, `web.listen`, and the socket's resources.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use walt_testkit::{Netns, Options, Station, TestServer, User, help, images, until};

const ANN: User = User::RootFor("ann");
const SOON: Duration = Duration::from_secs(60);
/// `connections_of_one` of `walt-server/src/edge/web/mod.rs`.
const OF_ONE: usize = 16;

/// A server with an image, whose web server listens on the loopback address as well.
struct Web {
    server: TestServer,
    listen: SocketAddr,
    station: Netns,
    recorded: Vec<Value>,
}

/// An answer.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("no JSON ({e}): {self:?}"))
    }

    fn header(&self, name: &str) -> Option<&str> {
        let line = |line: &&str| line.to_ascii_lowercase().starts_with(&format!("{name}:"));
        self.head.lines().find(line).and_then(|line| line.split_once(':')).map(|(_, value)| value.trim())
    }
}

fn curl(mut command: Command, words: &[&str]) -> Answer {
    let output = command.args(["-sS", "-i", "--max-time", "60"]).args(words).output().unwrap();
    assert!(output.status.success(), "curl {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

impl Web {
    fn start() -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = free.local_addr().unwrap();
        drop(free);
        let config = format!("web: {{listen: '{listen}'}}\n");
        let server = TestServer::start_with(Options { config, ..Options::default() });
        let server = server.unwrap_or_else(|e| panic!("{e:?}"));
        server.import(images::TINY, &images::tiny(server.dir()));
        let station = station(&server, 200);
        Self { server, listen, station, recorded: Vec::new() }
    }

    fn walt_net(&self) -> String {
        format!("http://{}", self.server.address())
    }

    /// A request from a machine on walt-net.
    fn machine(&self, words: &[&str]) -> Answer {
        self.station.inside(|| curl(Command::new("curl"), words))
    }

    /// `GET` at both doors, whose answers must be the same.
    fn get(&mut self, target: &str, headers: &[&str]) -> Answer {
        let mut words: Vec<&str> = headers.iter().flat_map(|header| ["-H", header]).collect();
        let outside = format!("http://{}{target}", self.listen);
        words.push(&outside);
        let answer = curl(Command::new("curl"), &words);
        let inside = self.walt_net() + target;
        *words.last_mut().unwrap() = &inside;
        let twin = self.machine(&words);
        assert_eq!((answer.status, &answer.body), (twin.status, &twin.body), "{target}");
        self.record("port 80", "GET", target, None, &answer);
        answer
    }

    /// As [`Web::get`], of lines of logs up to this moment.
    fn logs(&mut self, parameters: &str, headers: &[&str]) -> Answer {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let target = format!("/api/v1/logs?from=1340000000&to={}", now.as_secs_f64());
        let answer = self.get(&(target + parameters), headers);
        // By a name that does not change.
        self.recorded.last_mut().unwrap()["target"] =
            format!("/api/v1/logs?from=1340000000&to=NOW{parameters}").into();
        answer
    }

    /// A request of ann at the socket.
    fn ask(&mut self, method: &str, target: &str, body: Option<Value>, headers: &[&str]) -> Answer {
        let (url, socket) = (format!("http://walt{target}"), self.server.socket());
        let mut words = vec!["-X", method, "--unix-socket", socket.to_str().unwrap(), "-H", "walt-user: ann"];
        words.extend(headers.iter().flat_map(|header| ["-H", header]));
        let text = body.as_ref().map(Value::to_string);
        words.extend(text.iter().flat_map(|text| ["-d", text]));
        words.push(&url);
        let answer = curl(Command::new("curl"), &words);
        self.record("socket", method, target, body, &answer);
        answer
    }

    fn record(&mut self, door: &str, method: &str, target: &str, body: Option<Value>, answer: &Answer) {
        if target == "/api/v1/nodes/boots" {
            // A node with the name of a route, which OpenAPI cannot describe.
            return;
        }
        let kind = answer.header("content-type").unwrap_or_default().to_owned();
        let content = if kind.contains("ndjson") {
            answer.body.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect()
        } else if target.ends_with("openapi.json") {
            // The document itself is committed already.
            json!({"openapi": answer.json()["openapi"]})
        } else if kind.contains("json") {
            answer.json()
        } else {
            answer.body.clone().into()
        };
        let mut exchange = json!({
            "door": door, "method": method, "target": target, "status": answer.status, "type": kind, "answer": content,
        });
        if let Some(body) = body {
            exchange["request"] = body;
        }
        self.recorded.push(exchange);
    }
}

fn station(server: &TestServer, last: u8) -> Netns {
    let [a, b, c, _] = server.address().octets();
    let station = Netns::new();
    station.plug(None, &server.bridge(), None, Station { mac: None, ip: [a, b, c, last].into(), prefix: 24 });
    station
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap_or_else(|| panic!("{value}")).keys().map(String::as_str).collect()
}

/// The exchanges that the tests of the OpenAPI document replay. `WALT_UPDATE_SNAPSHOTS=1` writes them; without, they must
/// be about the same requests, so that the document is compared with what this server does.
fn compare_with_the_recorded(part: &str, recorded: Vec<Value>) {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../walt-api/tests/openapi/recorded").join(part);
    if std::env::var_os("WALT_UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, format!("{:#}\n", Value::from(recorded.clone()))).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let committed: Vec<Value> = serde_json::from_str(&committed).unwrap();
    let asked = |all: &[Value]| -> BTreeSet<String> {
        all.iter().map(|e| format!("{} {} {} {}", e["door"], e["method"], e["target"], e["status"])).collect()
    };
    assert_eq!(asked(&recorded), asked(&committed), "run this test with WALT_UPDATE_SNAPSHOTS=1");
}

#[test]
fn everybody_may_read_nodes_and_images() {
    let mut web = Web::start();
    let none = web.get("/api/v1/nodes", &[]);
    assert_eq!((none.status, none.json()), (200, json!({"num_nodes": 0, "nodes": []})));
    web.server.walt(ANN, &["node", "create", "vn1"]).ok();
    web.server.walt(ANN, &["node", "create", "vn2"]).ok();
    web.server
        .walt(ANN, &["node", "config", "vn2", "netsetup=NAT", "boot.retries=3", "mount.persist=false"])
        .ok();

    let nodes = web.get("/api/v1/nodes", &[]).json();
    assert_eq!(nodes["num_nodes"], 2);
    let vn2 = &nodes["nodes"][1];
    assert_eq!(keys(vn2), ["booted", "config", "image", "ip", "mac", "model", "name", "virtual"]);
    assert_eq!((&vn2["name"], &vn2["virtual"], &vn2["booted"]), (&json!("vn2"), &json!(true), &json!(false)));
    assert_eq!(vn2["image"], "ann/pc-x86-64:latest");
    let config = &vn2["config"];
    assert_eq!(
        (
            &config["netsetup"],
            &config["boot.retries"],
            &config["mount.persist"],
            &config["disks"],
            &config["ram"]
        ),
        (&json!("NAT"), &json!(3), &json!(false), &Value::Null, &json!("512M"))
    );
    let images = web.get("/api/v1/images", &[]).json();
    assert_eq!(images["num_images"], 2, "{images}");
    let wanted = ["compatibility", "created", "fullname", "id", "in_use", "user"];
    assert_eq!(keys(&images["images"][0]), wanted);

    // Filters.
    let mac = vn2["mac"].as_str().unwrap();
    for (target, number) in [
        ("/api/v1/nodes?name=vn1".to_owned(), 1),
        (format!("/api/v1/nodes?mac={mac}&name="), 1),
        ("/api/v1/nodes?virtual=true&booted=false&model=pc-x86-64".to_owned(), 2),
        ("/api/v1/nodes?booted=true".to_owned(), 0),
        ("/api/v1/nodes?image=ann/pc-x86-64:latest".to_owned(), 2),
    ] {
        let found = curl(Command::new("curl"), &[&format!("http://{}{target}", web.listen)]).json();
        assert_eq!(
            (&found["num_nodes"], found["nodes"].as_array().unwrap().len()),
            (&json!(number), number),
            "{target}"
        );
    }
    let found = web.get("/api/v1/images?user=ann&in_use=true&refresh=true", &[]).json();
    assert_eq!(
        (&found["num_images"], &found["images"][0]["fullname"]),
        (&json!(1), &json!("ann/pc-x86-64:latest"))
    );

    // What is wrong, in three styles.
    let html = web.get("/api/v1/nodes?color=red", &[]);
    assert_eq!((html.status, html.header("content-type")), (400, Some("text/html; charset=utf-8")));
    assert!(html.body.contains("<p>Unknown parameter &#39;color&#39;; there are: name, "), "{html:?}");
    let text = web.get("/api/v1/nodes?booted=perhaps", &["Prefer: errors=text-only"]);
    assert_eq!(text.body, "'perhaps' is not a value of 'booted': it must be true or false.");
    let answer = web.get("/api/v1/images?config=x", &["Prefer: errors=json"]);
    let wanted = "Unknown parameter 'config'; there are: fullname, user, id, in_use, refresh.";
    assert_eq!((answer.status, answer.json()), (400, json!({"error": wanted, "status_code": 400})));
    logs(&mut web);
    let figures = curl(Command::new("curl"), &[&format!("http://{}/metrics", web.listen)]);
    assert!(figures.body.contains("# TYPE walt_"), "{figures:?}");
    let document = web.get("/api/v1/openapi.json", &[]).json();
    assert_eq!(
        (&document["openapi"], document["paths"]["/api/v1/nodes"]["post"].is_null()),
        (&json!("3.1.0"), true)
    );
    compare_with_the_recorded("port-80.json", web.recorded);
}

/// Lines of logs: of the platform, since no node has booted.
fn logs(web: &mut Web) {
    let of_platform = "&issuer=walt-server&stream=platform.*";
    let found = until("a line of the platform", SOON, || {
        let url = format!("http://{}/api/v1/logs?from=1340000000&to=NOW{of_platform}", web.listen);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let url = url.replace("NOW", &now.as_secs_f64().to_string());
        let lines = curl(Command::new("curl"), &[&url]).json();
        lines.to_string().contains("vn2").then_some(lines)
    });
    assert_eq!(keys(&found), ["logs", "num_logs"]);
    assert_eq!(keys(&found["logs"][0]), ["issuer", "line", "stream", "timestamp"]);
    let all = web.logs(of_platform, &[]).json();
    let number = all["num_logs"].as_u64().unwrap();
    assert!(number >= 2 && all["logs"].as_array().unwrap().len() as u64 == number, "{all}");
    let first = web.logs(&format!("{of_platform}&limit=1"), &[]).json();
    assert_eq!((&first["logs"][0], first["num_logs"].as_u64()), (&all["logs"][0], Some(1)));
    let page = format!("{of_platform}&page={}", first["next_page"].as_str().unwrap());
    let url = format!("http://{}/api/v1/logs?from=1340000000&to=1900000000000&ts_unit=ms{page}", web.listen);
    let url =
        url.replace("from=1340000000&", "from=1340000000000&").replace("1900000000000", "1500000000000");
    assert_eq!(curl(Command::new("curl"), &[&url]).json()["num_logs"], 0, "{url}");
    let lines = web.logs(of_platform, &["Accept: application/x-ndjson"]);
    assert_eq!(lines.header("content-type"), Some("application/x-ndjson"));
    let lines: Vec<Value> = lines.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[..number as usize], all["logs"].as_array().unwrap()[..]);
    // Of nobody, and of the server's own log, which is not for everybody.
    for parameters in ["&issuer=nobody", "&issuer=walt-server&stream=daemon.*"] {
        assert_eq!(web.logs(parameters, &[]).json(), json!({"num_logs": 0, "logs": []}), "{parameters}");
    }
    let missing = web.get("/api/v1/logs?to=1340000001", &["Prefer: errors=text-only"]);
    assert_eq!(
        (missing.status, missing.body.as_str()),
        (400, "The parameter 'from' is needed: a moment, since 1970.")
    );
}

#[test]
fn pages_for_people() {
    let mut web = Web::start();
    assert!(web.get("/", &[]).body.contains("WalT server HTTP service"));
    assert!(web.get("/api", &[]).body.contains("href=\"/api/v1/nodes\""));
    assert_eq!(web.get("/doc", &[]).header("location"), Some("/doc/"));
    // From link to link.
    let (mut seen, mut next) = (BTreeSet::new(), vec!["/doc/".to_owned()]);
    while let Some(path) = next.pop() {
        if !seen.insert(path.clone()) {
            continue;
        }
        let url = format!("http://{}{path}", web.listen);
        let page = curl(Command::new("curl"), &[&url]);
        assert_eq!(
            (page.status, page.header("content-type")),
            (200, Some("text/html; charset=utf-8")),
            "{path}"
        );
        assert!(
            page.header("content-security-policy")
                .is_some_and(|policy| policy.starts_with("default-src 'none'"))
        );
        let links = page.body.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next());
        next.extend(links.filter(|link| *link != "./").map(|link| format!("/doc/{link}")));
    }
    assert!(seen.contains("/doc/help-intro.html") && seen.contains("/doc/web-api.html"), "{seen:?}");
    assert!(web.get("/doc/web-api.md", &[]).body.starts_with("# "));
    for missing in ["/doc/nothing.html", "/doc/..%2f..%2fREADME.md", "/nothing", "/api/v1/devices", "/v2/"] {
        assert_eq!(web.get(missing, &[]).status, 404, "{missing}");
    }
    // Boot files are for machines.
    let file = web.machine(&[&(web.walt_net() + "/boot/nothing")]);
    assert_eq!((file.status, file.body.as_str()), (404, "No such file."));
    let script = web.machine(&[&(web.walt_net() + "/boot/bootstrap.ipxe")]);
    assert!(script.status == 200 && script.body.starts_with("#!ipxe"), "{script:?}");
    for path in ["/boot/bootstrap.ipxe", "/node/boot-mode"] {
        assert_eq!(
            curl(Command::new("curl"), &[&format!("http://{}{path}", web.listen)]).status,
            404,
            "{path}"
        );
    }
}

#[test]
fn nothing_is_changed_and_nothing_is_shared_with_pages() {
    let web = Web::start();
    let url = format!("http://{}/api/v1/nodes", web.listen);
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let refused = curl(Command::new("curl"), &["-X", method, "-d", "{\"name\": \"vn1\"}", &url]);
        assert_eq!((refused.status, refused.header("allow")), (405, Some("GET, HEAD")), "{method}");
    }
    let page = curl(Command::new("curl"), &["-H", "Origin: http://elsewhere", &url]);
    assert_eq!(page.status, 200);
    assert!(!page.head.to_ascii_lowercase().contains("access-control"), "{page:?}");
    let head = curl(Command::new("curl"), &["--head", &url]);
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    let large = format!("X: {}", "x".repeat(20 * 1024));
    assert_eq!(curl(Command::new("curl"), &["-H", &large, &url]).status, 431);
}

#[test]
fn a_machine_cannot_take_port_80_from_others() {
    let web = Web::start();
    let other = station(&web.server, 201);
    let at = SocketAddr::from((web.server.address(), 80));
    let connect = move || {
        let stream = TcpStream::connect_timeout(&at, SOON).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream
    };
    // Half a request on each connection, then nothing.
    let held: Vec<TcpStream> = web.station.inside(|| {
        let half = |_| {
            let mut stream = connect();
            stream.write_all(b"GET /api/v1/nodes HTTP/1.1\r\n").unwrap();
            stream
        };
        (0..OF_ONE).map(half).collect()
    });
    web.station
        .inside(|| assert!(connect().read(&mut [0; 1]).is_ok_and(|n| n == 0), "one more than it may have"));
    let url = web.walt_net() + "/api/v1/nodes";
    let served = other.inside(|| curl(Command::new("curl"), &[&url]));
    assert_eq!(served.json()["num_nodes"], 0);
    drop(held);
}

#[test]
fn the_socket_is_not_for_web_pages() {
    let server = TestServer::start();
    let socket = server.socket();
    for header in ["Origin: http://elsewhere", "Origin: null", "Sec-Fetch-Site: none"] {
        for path in ["/api/v1/info", "/api/v1/nodes", "/v2/", "/nothing"] {
            let url = format!("http://walt{path}");
            let words = ["--unix-socket", socket.to_str().unwrap(), "-H", header, &url];
            let refused = curl(Command::new("curl"), &words);
            assert_eq!(refused.status, 403, "{header} {path}");
            assert!(refused.body.contains("The server's socket is not for web pages"), "{refused:?}");
        }
    }
    let url = "http://walt/api/v1/actions/node";
    let words = ["--unix-socket", socket.to_str().unwrap(), "-H", "Origin: null", "-d", "{}", url];
    assert_eq!(curl(Command::new("curl"), &words).status, 403);
}

#[test]
fn nodes_as_resources() {
    let mut web = Web::start();
    let info = web.ask("GET", "/api/v1/info", None, &[]).json();
    assert!(info["features"].as_array().unwrap().contains(&json!("resources")), "{info}");
    let made = web.ask("POST", "/api/v1/nodes", Some(json!({"name": "vn1"})), &[]);
    assert_eq!(made.status, 201, "{made:?}");
    let result = &made.json()["results"][0];
    assert_eq!(
        (&result["node"], &result["ok"], &result["code"]),
        (&json!("vn1"), &json!(true), &json!("done"))
    );
    assert!(made.json()["notes"].to_string().contains("Tip: "), "{made:?}");
    let node = web.ask("GET", "/api/v1/nodes/vn1", None, &[]).json();
    assert_eq!((&node["name"], &node["owner"]), (&json!("vn1"), &json!("ann")));
    assert_eq!(web.ask("GET", "/api/v1/nodes/vn1/boots", None, &[]).json()["node"], "vn1");
    web.ask("GET", "/api/v1/nodes", None, &[]);

    // Settings are changed as they are read.
    let changed =
        web.ask("PATCH", "/api/v1/nodes/vn1/config", Some(json!({"boot.retries": 3, "ram": "96M"})), &[]);
    assert_eq!(changed.status, 200, "{changed:?}");
    let config = web.ask("GET", "/api/v1/nodes/vn1/config", None, &[]).json();
    assert_eq!((&config["config"]["boot.retries"], &config["config"]["ram"]), (&json!(3), &json!("96M")));
    let again = web.ask("PATCH", "/api/v1/nodes/vn1/config", Some(config["config"].clone()), &[]);
    assert_eq!(again.status, 200, "{again:?}");
    web.ask("PATCH", "/api/v1/nodes/vn1/config", Some(json!({"ram": ""})), &[]);
    assert_eq!(web.ask("GET", "/api/v1/nodes/vn1/config", None, &[]).json()["config"]["ram"], "512M");

    // What is wrong is a problem.
    for (method, target, body, status, says) in [
        ("GET", "/api/v1/nodes/nope", None, 404, "No device with name 'nope' found."),
        ("POST", "/api/v1/nodes/nope/reboot", None, 404, "No device with name 'nope' found."),
        ("POST", "/api/v1/nodes", Some(json!({"name": "vn1"})), 412, "already exists"),
        ("POST", "/api/v1/nodes", Some(json!({"name": "vn3", "imag": "x"})), 400, "unknown field `imag`"),
        ("POST", "/api/v1/nodes/vn1/boot", Some(json!({})), 400, "missing field `image`"),
        ("POST", "/api/v1/nodes/vn1/reboot", Some(json!({"hart": true})), 400, "unknown field `hart`"),
        ("POST", "/api/v1/nodes/vn1/reboot?confirm=all", None, 400, "unknown variant `all`"),
        (
            "PATCH",
            "/api/v1/nodes/vn1/config",
            Some(json!({"cpu.cores": 0})),
            400,
            "'0' is not a value of 'cpu.cores'",
        ),
        (
            "PATCH",
            "/api/v1/nodes/vn1/config",
            Some(json!({"ram": ["1G"]})),
            400,
            "the value of 'ram' must be",
        ),
    ] {
        let problem = web.ask(method, target, body, &[]);
        assert_eq!(
            (problem.status, problem.header("content-type")),
            (status, Some("application/problem+json")),
            "{problem:?}"
        );
        let problem = problem.json();
        assert_eq!(problem["status"], status, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(says), "{says}: {problem}");
    }
    let text = web.ask("GET", "/api/v1/nodes/nope", None, &["Prefer: errors=text-only"]);
    assert!(text.body.starts_with("No device with name 'nope' found."), "{text:?}");
    let short = web.ask("GET", "/api/v1/nodes/nope", None, &["Prefer: errors=json"]).json();
    assert_eq!((keys(&short), &short["status_code"]), (vec!["error", "status_code"], &json!(404)));

    // Each node of a set has its result.
    web.server.walt(ANN, &["node", "create", "vn2"]).ok();
    let both = web.ask("POST", "/api/v1/nodes/vn1,vn2/reboot", Some(json!({"hard": true})), &[]);
    assert_eq!(both.status, 200, "{both:?}");
    let named = |answer: &Answer| -> Vec<(String, bool, String)> {
        let results = answer.json()["results"].as_array().unwrap().clone();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        results.iter().map(|r| (text(&r["node"]), r["ok"] == true, text(&r["message"]))).collect()
    };
    let rebooted = |name: &str| (name.to_owned(), true, "rebooted ok".to_owned());
    assert_eq!(named(&both), [rebooted("vn1"), rebooted("vn2")]);
    let late = web.ask("POST", "/api/v1/nodes/vn1/wait", Some(json!({"timeout": 0})), &[]);
    assert_eq!(late.status, 502, "{late:?}");
    assert_eq!(named(&late), [("vn1".to_owned(), false, "Timeout was reached.".to_owned())]);

    // Few machines boot at once: the following ones need not wait for this one.
    web.server.walt(ANN, &["node", "remove", "vn2"]).ok();

    // A stream, and a question.
    let events = web.ask(
        "POST",
        "/api/v1/nodes/vn1/reboot",
        Some(json!({"hard": true})),
        &["Accept: application/x-ndjson"],
    );
    assert_eq!(events.header("content-type"), Some("application/x-ndjson"));
    let last: Value = serde_json::from_str(events.body.lines().last().unwrap()).unwrap();
    assert_eq!(last, json!({"event": "done", "ok": true}));
    assert!(events.body.contains(r#""event":"item""#), "{events:?}");
    web.server.walt(User::RootFor("bob"), &["node", "create", "vn3"]).ok();
    let question = web.ask("POST", "/api/v1/nodes/vn3/reboot", None, &[]);
    assert_eq!(question.status, 409, "{question:?}");
    let token = question.json()["confirmation"]["token"].as_str().unwrap().to_owned();
    let wrong = web.ask("POST", "/api/v1/nodes/vn3/reboot", None, &["walt-confirm: nonsense"]);
    assert_eq!(wrong.status, 409, "{wrong:?}");
    let sure = web.ask("POST", "/api/v1/nodes/vn3/reboot", None, &[&format!("walt-confirm: {token}")]);
    assert_eq!(sure.status, 200, "{sure:?}");
    let any = web.ask("POST", "/api/v1/nodes/vn3/reboot?confirm=any", None, &[]);
    assert_eq!(any.status, 200, "{any:?}");

    web.server.walt(User::RootFor("bob"), &["node", "remove", "vn3"]).ok();

    for (method, target, body) in [
        ("POST", "/api/v1/nodes/vn1/release", None),
        ("POST", "/api/v1/nodes/vn1/acquire", Some(json!({"lease": "2h"}))),
        ("POST", "/api/v1/nodes/vn1/boot", Some(json!({"image": "pc-x86-64"}))),
        ("POST", "/api/v1/nodes/vn1/rename", Some(json!({"new_name": "boots"}))),
        ("GET", "/api/v1/nodes/boots", None),
        ("DELETE", "/api/v1/nodes/boots", None),
    ] {
        let done = web.ask(method, target, body, &[]);
        assert_eq!(done.status, 200, "{method} {target}: {done:?}");
    }
    assert_eq!(web.ask("GET", "/api/v1/nodes/boots", None, &[]).status, 404);
    let document = web.ask("GET", "/api/v1/openapi.json", None, &[]).json();
    assert!(document["paths"]["/api/v1/nodes/{name}/boot"]["post"].is_object());
    compare_with_the_recorded("nodes.json", web.recorded);
}

#[test]
fn images_as_resources() {
    let mut web = Web::start();
    let clone = json!({"link": format!("walt:waltplatform/{}", images::TINY), "name": "base"});
    let made = web.ask("POST", "/api/v1/images", Some(clone.clone()), &[]);
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!(made.json()["results"][0]["image"], "ann/base:latest");
    let again = web.ask("POST", "/api/v1/images", Some(clone), &[]);
    assert!(again.status == 412 || again.status == 409, "{again:?}");
    assert_eq!(web.ask("GET", "/api/v1/images/ann/base", None, &[]).json()["fullname"], "ann/base:latest");
    web.ask("GET", "/api/v1/images", None, &[]);
    for (method, target, body, status) in [
        ("POST", "/api/v1/images/ann/base/duplicate", Some(json!({"new_name": "copy:v1"})), 201),
        ("GET", "/api/v1/images/ann/copy:v1", None, 200),
        ("POST", "/api/v1/images/ann/copy:v1/rename", Some(json!({"new_name": "other"})), 200),
        ("GET", "/api/v1/images/ann/copy:v1", None, 404),
        ("GET", "/api/v1/images/ann/other/history", None, 200),
        ("GET", "/api/v1/images/bob/other/history", None, 403),
        ("POST", "/api/v1/images/ann/other/rollback", Some(json!({"version": 7})), 412),
        ("POST", "/api/v1/images/ann/other/rollback", Some(json!({"revision": 7})), 400),
        ("POST", "/api/v1/images/ann/other/prune?confirm=any", None, 200),
        ("POST", "/api/v1/images/ann/other/squash", None, 200),
        ("POST", "/api/v1/images/ann/other/publish", Some(json!({"registry": "nowhere"})), 400),
        ("DELETE", "/api/v1/images/waltplatform/pc-x86-64", None, 403),
        ("DELETE", "/api/v1/images/ann/other", None, 200),
        ("DELETE", "/api/v1/images/ann/other", None, 404),
    ] {
        let answer = web.ask(method, target, body, &[]);
        assert_eq!(answer.status, status, "{method} {target}: {answer:?}");
    }
    compare_with_the_recorded("images.json", web.recorded);
}

/// The examples of the help pages, with this server's socket and address instead of the usual ones.
#[test]
fn examples_of_the_help_pages() {
    let web = Web::start();
    for topic in ["web-api", "web-server"] {
        let examples = help::examples(topic);
        assert!(!examples.is_empty(), "{topic} has no examples");
        for example in examples {
            let socket = web.server.socket();
            let line = example.command.replace("/run/walt/walt.sock", socket.to_str().unwrap());
            let line = line.replace("http://server.example", &format!("http://{}", web.listen));
            let mut command = web.server.as_user(Command::new("sh"), ANN);
            let path = std::env::var("PATH").unwrap_or_default();
            command.env("PATH", format!("{}:{path}", web.server.dir().join("bin").display()));
            let output = command.args(["-ec", &line]).output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "{line}: {text}{}", String::from_utf8_lossy(&output.stderr));
            let first = example.output.first().cloned().unwrap_or_default();
            assert!(text.contains(&first), "{topic} says that '{line}' prints '{first}': {text}");
        }
    }
}
