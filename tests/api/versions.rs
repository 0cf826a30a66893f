//! Clients and servers of different versions: they work together as long as their versions of the API do.

use serde_json::json;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use walt_testkit::{Options, TestServer, User};

/// A server that speaks a version of the API, and counts what it is asked to do.
fn server_of(socket: &Path, headers: &'static str, protocol: u32) -> Arc<Mutex<Vec<String>>> {
    let listener = UnixListener::bind(socket).unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    std::thread::spawn({
        let asked = asked.clone();
        move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                let request = lines.next().unwrap_or_default();
                let rest: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
                asked.lock().unwrap().push(format!("{request} {}", rest.join(" ")));
                let body = match request.contains("/info") {
                    true => json!({"version": "9.9", "protocol": protocol, "user": "ann"}),
                    false => json!({"code": "bad-request", "message": "another version; nothing was done"}),
                };
                let (body, mut stream) = (body.to_string(), stream);
                let status = if request.contains("/info") { "200 OK" } else { "400 Bad Request" };
                let _gone = write!(
                    stream,
                    "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\
                     connection: close\r\n\r\n{body}",
                    body.len()
                );
            }
        }
    });
    asked
}

fn walt(server: &TestServer, socket: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(server.dir().join("bin/walt"));
    command.args(arguments).env("WALT_SERVER", format!("unix:{}", socket.display())).stdin(Stdio::null());
    let output = command.output().unwrap();
    assert!(output.stdout.is_empty(), "{output:?}");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn another_version_of_the_api_is_one_message() {
    let server = TestServer::prepare(Options::default());
    let socket = server.dir().join("newer.sock");
    let asked = server_of(&socket, "walt-protocol: 2\r\nwalt-version: 9.9\r\n", 2);
    let commands: [&[&str]; 5] = [
        &["node", "show"],
        &["node", "create", "vn1"],
        &["node", "shell", "vn1"],
        &["image", "shell", "x"],
        &["log", "show", "--history", "full"],
    ];
    for command in commands {
        let (status, said) = walt(&server, &socket, command);
        assert_eq!(status, Some(1), "{command:?}: {said}");
        assert!(
            said.contains(
                "(walt-server 9.9) do not understand each other: they speak the versions 1 and 2 of the API."
            ) && said
                .contains("Upgrade the client: install version 9.9 of the package 'walt' on this machine."),
            "{command:?}: {said}"
        );
        assert_eq!(said.matches("Error:").count(), 1, "{command:?}: {said}");
    }
    assert!(asked.lock().unwrap().iter().all(|a| a.to_lowercase().contains("walt-protocol: 1")), "{asked:?}");
    // Completion says nothing.
    let (status, said) = walt(&server, &socket, &["advanced", "complete", "fish", "walt node shell "]);
    assert_eq!((status, said.as_str()), (Some(0), ""));

    // The server is the older side; one that does not know the header yet says it in its info.
    for headers in ["walt-protocol: 0\r\nwalt-version: 9.9\r\n", ""] {
        let socket = server.dir().join(format!("older{}.sock", headers.len()));
        let _asked = server_of(&socket, headers, 0);
        let (status, said) = walt(&server, &socket, &["node", "show"]);
        assert!(
            status == Some(1) && said.contains("Upgrade the server: its administrator installs version"),
            "{said}"
        );
        assert!(said.contains("Or install the package 'walt' of version 9.9 here."), "{said}");
    }
}

#[test]
fn a_server_refuses_clients_of_another_version() {
    let server = TestServer::start();
    let ask = |request: &str, protocol: &str| {
        let mut stream = std::os::unix::net::UnixStream::connect(server.socket()).unwrap();
        let body = r#"{"action":"create","name":"vn1"}"#;
        write!(
            stream,
            "{request} HTTP/1.1\r\nHost: walt\r\nwalt-protocol: {protocol}\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        std::io::read_to_string(stream).unwrap()
    };
    let refused = ask("POST /api/v1/actions/node", "2");
    assert!(
        refused.starts_with("HTTP/1.1 400 ") && refused.contains("\r\nwalt-protocol: 1\r\n"),
        "{refused}"
    );
    assert!(refused.contains("Upgrade the package 'walt-server' on the server."), "{refused}");
    assert!(
        ask("GET /api/v1/nodes", "0").contains("Upgrade the package 'walt' on the machine of the client.")
    );
    assert!(ask("GET /api/v1/info", "2").starts_with("HTTP/1.1 200 "), "that can be asked");
    assert!(ask("GET /api/v1/nodes", "1").contains("\"num_nodes\":0"), "nothing was done");
    assert!(server.walt(User::Root, &["node", "show", "--json"]).ok().contains("\"num_nodes\": 0"));
}
