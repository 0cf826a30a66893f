//! The configuration that packages bring: it shows every key, with its default.

use super::Config;

const FILE: &str = include_str!("../../../../../packaging/walt-server/server.conf");

/// The file with its settings switched on: `#key:` and `#  key:`, while `# text` is a comment.
fn switched_on() -> String {
    let setting = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with("  ") || !rest.starts_with(' ') => rest.to_owned(),
        _ => line.to_owned(),
    };
    FILE.lines().map(|line| setting(line) + "\n").collect()
}

/// The keys that a section may have: serde lists them when there is a wrong one.
fn keys(mistake: &str) -> Vec<String> {
    let error = format!("{:#}", Config::parse(mistake).unwrap_err());
    let (_, expected) = error.split_once("expected").unwrap_or_else(|| panic!("{mistake}: {error}"));
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn every_key_is_shown() {
    let text = switched_on();
    for (section, some) in [
        ("zzz: 1", "state-dir"),
        ("network: {walt-net: {zzz: 1}}", "raw-device"),
        ("network: {walt-adm: {zzz: 1}}", "ip"),
        ("containers: {zzz: 1}", "runtime"),
        ("virtual-nodes: {zzz: 1}", "acceleration"),
        ("limits: {zzz: 1}", "session-keep"),
        ("logs: {zzz: 1}", "max-size"),
        ("logs: {forward: {zzz: 1}}", "syslog"),
        ("api: {zzz: 1}", "group"),
        ("web: {zzz: 1}", "listen"),
        ("registries: [{zzz: 1}]", "label"),
    ] {
        let keys = keys(section);
        assert!(keys.iter().any(|key| key == some), "{section}: {keys:?}");
        for key in keys {
            let begins = format!("{key}:");
            let shown = text.lines().any(|l| l.trim_start_matches([' ', '-']).starts_with(&begins));
            assert!(shown, "{section}: packaging/walt-server/server.conf does not show {key}");
        }
    }
    assert!(text.contains("\n  expose-on:"));
}

#[test]
fn what_it_shows_are_the_defaults() {
    let shown = Config::parse(&switched_on()).unwrap();
    let default = Config::parse(FILE).unwrap();
    let parts = |c: &Config| {
        let mut net = c.network.walt_net.clone();
        net.vlan = None;
        format!(
            "{:?}",
            (
                (net, &c.state_dir, &c.run_dir, &c.containers),
                (&c.virtual_nodes, &c.limits, &c.logs, &c.api, &c.registries[0], &c.web),
            )
        )
    };
    assert_eq!(parts(&shown), parts(&default));
    assert_eq!(format!("{default:?}"), format!("{:?}", Config::default()), "as it is shipped");
    let examples =
        (shown.registries.len(), shown.network.others.len(), shown.network.expose_on.map(|list| list.len()));
    assert_eq!(examples, (2, 1, Some(1)));
}
