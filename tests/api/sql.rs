//! `walt advanced sql`: what users may ask of the database, and how.

use serde_json::{Value, json};
use std::time::{Duration, Instant};
use walt_testkit::{TestServer, User};

const NOBODY: User = User::Account("nobody");
/// For what a person would call at once.
const SOON: Duration = Duration::from_secs(20);

fn ask(server: &TestServer, user: Option<&str>, sql: &str) -> (u16, Value) {
    let answer = server.api(user).post("/api/v1/sql", &json!({ "sql": sql }), None);
    (answer.status, answer.json())
}

#[test]
fn statements_from_a_pipe() {
    let server = TestServer::start_tiny();
    server.walt(NOBODY, &["node", "create", "vn1"]).ok();
    let sql = |input: &str| server.walt_with_input(NOBODY, &["advanced", "sql"], input);
    let tables = sql("\\dt\n").ok();
    for name in ["devices", "nodes", "images", "logstreams", "checkpoints", "switchports", "vpnauth"] {
        assert!(tables.contains(&format!("\n {name} ")), "{name}: {tables}");
    }
    assert_eq!(sql(".tables").ok(), tables);
    let columns = sql("\\d devices\n").ok();
    assert!(columns.starts_with("Table \"devices\"\n") && columns.contains("\n virtual "), "{columns}");
    sql("\\d nothing\n").fails(1, "Did not find any table named \"nothing\"");
    let found =
        sql("select name, type\n from devices -- all; of them\n order by name; select image from nodes;\n");
    assert_eq!(
        found.ok(),
        "    name     |  type\n-------------+--------\n vn1         | node\n walt-server | server\n(2 rows)\n\n\
         \x20         image\n-------------------------\n nobody/pc-x86-64:latest\n(1 row)\n\n"
    );
    // An error does not end it, and shows in the exit status.
    let mixed = sql("SELEC 1; SELECT 2 AS two;");
    assert!(
        mixed.status == Some(1)
            && mixed.out.contains(" two\n-----\n   2\n")
            && mixed.err.contains("syntax error"),
        "{mixed:?}"
    );
    let logs = sql("SELECT * FROM logs");
    assert!(logs.err.contains("'walt log show' prints them"), "{logs:?}");
    let json = server.walt_with_input(
        NOBODY,
        &["advanced", "sql", "--json"],
        "SELECT name, virtual FROM devices WHERE type = 'node';",
    );
    assert_eq!(serde_json::from_str::<Value>(&json.ok()).unwrap(), json!([{"name": "vn1", "virtual": 1}]));
}

#[test]
fn users_read_and_root_changes() {
    let server = TestServer::start_tiny();
    server.walt(User::RootFor("ann"), &["node", "create", "vn1"]).ok();
    let sql = |user: User, input: &str| server.walt_with_input(user, &["advanced", "sql"], input);
    for statement in [
        "DELETE FROM main.nodes",
        "UPDATE devices SET name = 'x'",
        "SELECT * FROM meta",
        "PRAGMA journal_mode = DELETE",
        "ATTACH '/etc/passwd' AS x",
    ] {
        let told = sql(NOBODY, statement);
        assert!(told.status == Some(1) && !told.err.is_empty() && told.out.is_empty(), "{told:?}");
    }
    // Root for somebody is still root.
    assert_eq!(ask(&server, Some("ann"), "SELECT value FROM meta").0, 403);
    let (status, answer) = ask(&server, None, "UPDATE nodes SET model = 'pc-x86-32' WHERE name = 'vn1'");
    assert_eq!((status, &answer["changed"]), (200, &json!(1)), "{answer}");
    assert!(server.walt(User::RootFor("ann"), &["node", "show"]).ok().contains("pc-x86-32"));
    let told = sql(User::Root, "UPDATE nodes SET model = 'pc-x86-64';");
    assert!(told.err.contains("keeps some of this in memory"), "{told:?}");
    assert_eq!(told.ok(), "(1 changed row)\n");
    let (status, answer) = ask(&server, None, "DROP TABLE nodes");
    assert_eq!(status, 403, "{answer}");
    let (status, answer) = ask(&server, Some("ann"), "SELECT 1; SELECT 2");
    assert!(status == 400 && answer["message"].as_str().unwrap().contains("several statements"), "{answer}");
    let long = format!("SELECT '{}'", "x".repeat(70_000));
    assert_eq!(ask(&server, None, &long).0, 400);
}

#[test]
fn a_prompt_on_a_terminal() {
    let server = TestServer::start_tiny();
    let mut terminal = server.terminal(NOBODY, &["advanced", "sql"]);
    terminal.expect("dt for a list of tables", SOON);
    terminal.expect("walt=> ", SOON);
    terminal.line("select");
    terminal.expect("walt-> ", SOON);
    terminal.line("6 * 7 as answer;");
    terminal.expect("     42", SOON);
    terminal.expect("walt=> ", SOON);
    terminal.line("select '");
    terminal.expect("walt-> ", SOON);
    // ctrl-C gives the statement up.
    terminal.send("\u{3}");
    terminal.expect("walt=> ", SOON);
    terminal.line("\\q");
    let (status, said) = terminal.end(SOON);
    assert!(status.success(), "{said}");
}

/// It takes the ten seconds that a statement may run.
#[test]
fn a_statement_that_takes_too_long_is_stopped() {
    if std::env::var_os("WALT_TEST_LONG").is_none() {
        eprintln!("skipped: it takes 10 s (WALT_TEST_LONG=1 runs it)");
        return;
    }
    let server = TestServer::start_tiny();
    let start = Instant::now();
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    let (status, answer) = ask(&server, Some("ann"), endless);
    assert!(
        status == 409 && answer["message"].as_str().unwrap().contains("was stopped"),
        "{status} {answer}"
    );
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    // Meanwhile and afterwards, the server works.
    assert_eq!(ask(&server, Some("ann"), "SELECT 1").0, 200);
}
