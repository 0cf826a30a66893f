//! `walt-server status`.

use serde_json::Value;
use walt_testkit::{Options, TestServer, User};

fn text(server: &TestServer) -> (Option<i32>, String) {
    let ran = server.server_command(&["status"]).output().unwrap();
    (ran.status.code(), String::from_utf8([ran.stdout, ran.stderr].concat()).unwrap())
}

fn json(server: &TestServer) -> Value {
    let ran = server.server_command(&["status", "--json"]).output().unwrap();
    serde_json::from_slice(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {ran:?}"))
}

#[test]
fn it_counts_also_when_no_server_runs() {
    let server = TestServer::prepare(Options::default());
    let (status, said) = text(&server);
    assert!(status == Some(1) && said.contains("has no state of a server"), "{said}");
    drop(server);

    let mut server = TestServer::start_tiny();
    server.walt(User::RootFor("ann"), &["node", "create", "vn1"]).ok();
    let status = json(&server);
    assert_eq!((&status["running"], &status["nodes"]["total"]), (&true.into(), &1.into()), "{status}");
    let states = ["booted", "booting", "down", "off"].map(|s| status["nodes"][s].as_u64().unwrap());
    assert_eq!(states.iter().sum::<u64>(), 1, "{status}");
    assert_eq!(status["images"]["references"], 2, "{status}");
    let bytes = status["images"]["bytes"].as_u64().unwrap();
    let (size, free) = (status["disk"]["size"].as_u64().unwrap(), status["disk"]["free"].as_u64().unwrap());
    assert!(bytes > 4096 && free > 0 && free < size, "{status}");
    let (code, said) = text(&server);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(" runs since ") && said.contains("Nodes:     1 ("), "{said}");

    server.kill();
    let (code, said) = text(&server);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("No server is running. ") && said.contains("Nodes:     1 ("), "{said}");
    assert!(said.contains("Images:    2 references to 1 images, "), "{said}");
    let down = json(&server);
    assert_eq!((&down["running"], &down["since"]), (&false.into(), &Value::Null), "{down}");
    assert_eq!((&down["images"]["references"], &down["images"]["images"]), (&2.into(), &1.into()));
}

/// In a network namespace of its own, where a port and a firewall disturb nobody.
#[test]
fn it_names_who_is_in_the_way() {
    let script = r#"
        set -e; ip link set lo up
        nft -f - <<E
        table ip theirs {
            chain incoming { type filter hook input priority 5; policy drop; }
            chain outgoing { type filter hook output priority 5; policy drop; }
        }
        table inet harmless {
            chain incoming { type filter hook input priority 6; policy accept; }
        }
E
        ( busybox nc -l -p 111 & holder=$!
          while [ -e /proc/$$/exe ]; do sleep 0.1; done; kill $holder ) </dev/null >/dev/null 2>&1 &
        until ss -ltn | grep -q :111; do sleep 0.05; done
        exec "$@""#;
    let wrapper = ["unshare", "-n", "sh", "-c", script, "sh"].map(str::to_owned).to_vec();
    let server =
        TestServer::start_with(Options { wrapper, ..Options::default() }).unwrap_or_else(|e| panic!("{e:?}"));
    let status = server.api(None).get("/api/v1/status").json();
    let missing = &status["ports_missing"];
    assert_eq!(missing.as_array().unwrap().len(), 1, "{status}");
    assert_eq!(missing[0]["port"], 111);
    assert_eq!((&missing[0]["protocol"], &missing[0]["holder"]), (&"tcp".into(), &"busybox".into()));
    assert!(missing[0]["pid"].as_u64().is_some_and(|pid| pid > 1), "{missing}");
    let said = status["errors"].as_array().unwrap();
    assert!(said.iter().any(|e| e["message"].as_str().unwrap().contains("held by busybox")), "{said:?}");
    let rules: Vec<(String, bool)> = status["foreign_rules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| (r["chain"].as_str().unwrap().to_owned(), r["accepted"] == true))
        .filter(|(chain, _)| chain != "iptables")
        .collect();
    assert_eq!(rules, [("ip theirs incoming".to_owned(), true), ("ip theirs outgoing".to_owned(), false)]);
}
