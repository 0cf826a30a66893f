use super::*;
use crate::Source;

const DUMP: &str = include_str!("../../../../tests/fixtures/walt10/dump.sql");

fn source(dump: &str) -> Source {
    let mut source = Source::default();
    source.add(dump.as_bytes()).unwrap();
    source
}

fn existing() -> Existing {
    Existing::empty(Ipv4Addr::new(192, 168, 152, 1), 24)
}

fn wishes() -> Wishes {
    Wishes { users: BTreeMap::new(), zone: TimeZone::UTC }
}

fn plan(dump: &str, existing: &Existing) -> Plan {
    make(&source(dump), existing, &wishes())
}

/// The items of a table: fate, item, note.
fn items(plan: &Plan, table: &str) -> Vec<String> {
    let of_table = plan.items.iter().filter(|item| item.table == table);
    let text = |item: &Item| {
        let note = item.note.as_ref().map_or_else(String::new, |note| format!(": {note}"));
        format!("{:?} {}{note}", item.fate, item.item)
    };
    of_table.map(text).collect()
}

/// What is here after an import.
fn after(plan: &Plan) -> Existing {
    let mut now = existing();
    let of = |mac: Mac| {
        let own = plan.settings.iter().filter(|setting| setting.mac == mac);
        own.map(|setting| (setting.key.to_owned(), setting.value.clone())).collect::<BTreeMap<_, _>>()
    };
    for node in &plan.nodes {
        let known = KnownNode { facts: node.facts.clone(), ip: node.ip, settings: of(node.mac) };
        now.nodes.insert(node.mac, known);
    }
    for device in &plan.devices {
        let known = KnownDevice {
            name: device.name.clone(),
            ip: device.ip,
            device_type: device.device_type,
            is_named: device.is_named,
            settings: of(device.mac),
        };
        now.devices.insert(device.mac, known);
    }
    now.images = plan.images.clone();
    now.checkpoints = plan.checkpoints.iter().map(|c| ((c.user.clone(), c.name.clone()), c.at)).collect();
    now.kept = plan.kept.iter().cloned().collect();
    now
}

#[test]
fn a_second_import_changes_nothing() {
    let first = plan(DUMP, &existing());
    assert!(first.nodes.len() > 3 && first.devices.len() > 1 && first.kept.len() > 5, "{first:#?}");
    let second = plan(DUMP, &after(&first));
    assert!(second.nodes.is_empty() && second.devices.is_empty() && second.settings.is_empty());
    assert!(second.checkpoints.is_empty() && second.kept.is_empty());
    // What came is here, and all else has the fate that it had.
    for (before, now) in first.items.iter().zip(&second.items) {
        let expected = match before.fate {
            Fate::Comes | Fate::Kept => Fate::Here,
            other => other,
        };
        assert_eq!((&before.item, now.fate), (&now.item, expected), "{now:?}");
    }
}

#[test]
fn every_row_has_a_fate() {
    let source = source(DUMP);
    let plan = make(&source, &existing(), &wishes());
    let counted = |table: &str| plan.items.iter().filter(|i| i.table == table).map(|i| i.count).sum::<u64>();
    for (name, table) in source.tables() {
        let expected = match name.as_str() {
            // Nodes are listed once, by their row in nodes.
            "devices" => table.rows.iter().filter(|row| row.text("type") != "node").count() as u64,
            // Images are decided about once the archives are known.
            "images" => continue,
            "nodes" => continue,
            _ => table.count,
        };
        assert_eq!(counted(name), expected, "{name}");
    }
}

const HEAD: &str = "COPY devices (mac, ip, name, type, virtual, conf) FROM stdin;\n";

/// A dump with these devices, each a node of ann's image as well where it is one.
fn devices(rows: &[&str]) -> String {
    let nodes = rows.iter().filter(|row| row.contains("\tnode\t"));
    let nodes: Vec<String> =
        nodes.map(|row| format!("{}\tann/pc:latest\tpc-x86-64\n", row.split('\t').next().unwrap())).collect();
    format!(
        "{HEAD}{}\n\\.\nCOPY nodes (mac, image, model) FROM stdin;\n{}\\.\n",
        rows.join("\n"),
        nodes.concat()
    )
}

#[test]
fn names_that_are_not_ours() {
    let dump = devices(&[
        "02:00:00:00:00:01\t192.168.152.11\tmy-nodes\tnode\tf\t{}",
        "02:00:00:00:00:02\t192.168.152.12\tpi-\tnode\tf\t{}",
        "02:00:00:00:00:03\t192.168.152.13\tPC\tnode\tf\t{}",
        "02:00:00:00:00:04\t192.168.152.14\tpc\tnode\tf\t{}",
        "02:00:00:00:00:05\t192.168.152.15\t\\N\tnode\tf\t{}",
    ]);
    let plan = plan(&dump, &existing());
    let names: Vec<&str> = plan.nodes.iter().map(|node| node.facts.name.as_str()).collect();
    assert_eq!(names, ["my-nodes-000001", "pi-000002", "PC", "pc-2", "node-000005"]);
    let said = items(&plan, "nodes");
    assert!(
        said[0].contains("it comes as my-nodes-000001, since 'my-nodes' is not a name of a device here"),
        "{said:#?}"
    );
    assert!(
        said[3].contains("it comes as pc-2, since another device is called 'pc', regardless of case"),
        "{said:#?}"
    );
    assert!(
        said[2].starts_with("Comes PC (02:00:00:00:00:03): its image ann/pc is not here yet"),
        "{said:#?}"
    );
}

#[test]
fn nodes_that_cannot_come() {
    let dump = devices(&[
        "x\t192.168.152.11\tn1\tnode\tf\t{}",
        "02:00:00:00:00:02\t10.0.0.2\tn2\tnode\tf\t{}",
        "02:00:00:00:00:03\t192.168.152.1\tn3\tnode\tf\t{}",
        "02:00:00:00:00:04\t192.168.152.14\tn4\tnode\tf\t{\"ram\": \"1G\"}",
        "02:00:00:00:00:05\t192.168.152.14\tn5\tnode\tf\t{}",
        "02:00:00:00:00:05\t192.168.152.16\tn6\tnode\tf\t{}",
        "02:00:00:00:00:07\t\\N\tn7\tnode\tf\t[]",
        "02:00:00:00:00:08\t192.168.152.255\tn8\ttoaster\tf\t{}",
    ]);
    let plan = plan(&dump, &existing());
    let said = items(&plan, "nodes");
    for (said, part) in said.iter().zip([
        "Cannot n1 (x): 'x' is not an Ethernet address",
        "Cannot n2 (02:00:00:00:00:02): its address 10.0.0.2 is not one of walt-net, 192.168.152.0/24",
        "Cannot n3 (02:00:00:00:00:03): its address 192.168.152.1 is the server's",
        "Comes n4",
        "Cannot n5 (02:00:00:00:00:05): its address 192.168.152.14 is that of n4 as well",
        "Cannot n6 (02:00:00:00:00:05): the dump has another device",
        "Cannot n7 (02:00:00:00:00:07): it has no address",
    ]) {
        assert!(said.starts_with(part), "{part}: {said}");
    }
    assert_eq!(
        items(&plan, "devices"),
        ["Cannot n8 (02:00:00:00:00:08): 'toaster' is not a type of devices"]
    );
    let said = items(&plan, "settings");
    assert!(said[0].contains("'ram' applies to virtual nodes only, and n4 is a physical one"), "{said:#?}");
    assert!(said[1].starts_with("Cannot n7: its column conf is not a JSON object"), "{said:#?}");
}

#[test]
fn what_is_here_stays() {
    let row = |mac: u8, name: &str| {
        format!("02:00:00:00:00:0{mac}\t192.168.152.1{mac}\t{name}\tnode\tf\t{{\"netsetup\": 1}}")
    };
    let rows = [row(1, "n1"), row(2, "n2"), row(3, "n3"), row(4, "n4"), row(5, "n5")];
    let dump = devices(&rows.each_ref().map(String::as_str));
    let mut here = existing();
    let facts = |name: &str, image: &str| NodeFacts {
        name: name.parse().unwrap(),
        model: "pc-x86-64".parse().unwrap(),
        image: image.parse().unwrap(),
        is_virtual: false,
    };
    let node = |name: &str, image: &str, ip: u8| KnownNode {
        facts: facts(name, image),
        ip: Ipv4Addr::new(192, 168, 152, ip),
        settings: BTreeMap::new(),
    };
    let mac = |n: u8| Mac([2, 0, 0, 0, 0, n]);
    here.nodes.insert(mac(1), node("n1", "bob/x", 11));
    here.nodes.insert(mac(9), node("N2", "bob/x", 99));
    let device = |name: &str, is_named: bool| KnownDevice {
        name: name.parse().unwrap(),
        ip: Some(Ipv4Addr::new(192, 168, 152, 77)),
        device_type: DeviceType::Unknown,
        is_named,
        settings: BTreeMap::new(),
    };
    here.devices.insert(mac(3), device("printer", true));
    here.devices.insert(mac(4), device("unknown-000004", false));
    here.leases.insert(Ipv4Addr::new(192, 168, 152, 15), mac(8));
    let plan = plan(&dump, &here);
    let names: Vec<&str> = plan.nodes.iter().map(|node| node.facts.name.as_str()).collect();
    assert_eq!(names, ["n4"], "only a device that nobody has named makes way");
    let said = items(&plan, "nodes");
    for (said, part) in said.iter().zip([
        "Conflict n1 (02:00:00:00:00:01): the node n1 is here with the image bob/x (dump: ann/pc): it is left as it is",
        "Conflict n2 (02:00:00:00:00:02): the name n2 is that of the device 02:00:00:00:00:09 here",
        "Conflict n3 (02:00:00:00:00:03): it is here as the unknown 'printer', which a user has named or configured: \
         'walt device forget printer'",
        "Comes n4",
        "Conflict n5 (02:00:00:00:00:05): the address 192.168.152.15 is leased to the device 02:00:00:00:00:08",
    ]) {
        assert!(said.starts_with(part), "{part}: {said}");
    }
    let said = items(&plan, "settings");
    assert_eq!(said[0], "Conflict n1 netsetup=NAT: it is 'LAN' here, and is left as it is");
    assert_eq!(said[1], "Conflict n2 netsetup=NAT: its device does not come");
    assert_eq!(said[3], "Comes n4 netsetup=NAT");
}

#[test]
fn users_with_another_name() {
    let dump = "COPY checkpoints (username, \"timestamp\", name) FROM stdin;\n\
        Ann B.\t2024-05-03 10:11:12.123456\tstart\nbob\t2024-05-03 10:11:12\tno good\nbob\tyesterday\tx1\n\\.\n\
        COPY images (fullname) FROM stdin;\nAnn B./pc:v1\nwaltplatform/pc-x86-64-default:latest\n\\.\n";
    let before = make(&source(dump), &existing(), &wishes());
    let said = items(&before, "checkpoints");
    assert!(said[0].contains("say who that is here by --user 'Ann B.=ACCOUNT'"), "{said:#?}");
    assert!(said[1].contains("is not a valid name of a checkpoint"), "{said:#?}");
    assert!(said[2].contains("its timestamp 'yesterday' is not a time"), "{said:#?}");
    let users = BTreeMap::from([("Ann B.".to_owned(), "ann".parse().unwrap())]);
    let paris = TimeZone::fixed(jiff::tz::offset(2));
    let plan = make(&source(dump), &existing(), &Wishes { users, zone: paris });
    let own = NewCheckpoint {
        user: "ann".parse().unwrap(),
        name: "start".parse().unwrap(),
        at: 1_714_723_872_123_456,
    };
    assert_eq!(plan.checkpoints, [own]);
    let images: Vec<String> = plan.images.iter().map(ToString::to_string).collect();
    assert_eq!(images, ["ann/pc:v1", "waltplatform/pc-x86-64-default"]);
}

#[test]
fn names_that_podman_gives_images() {
    for (name, full) in [
        ("docker.io/ann/pc:v1", Some("ann/pc:v1")),
        ("localhost/walt/ann/pc:v1", Some("ann/pc:v1")),
        ("localhost/ann/pc", Some("ann/pc:latest")),
        ("host:5000/ann/pc:v1", Some("ann/pc:v1")),
        ("ann/pc", Some("ann/pc:latest")),
        ("docker.io/walt/clone-temp:0123", None),
        ("localhost/walt/mounts:0123", None),
        ("docker.io/library/x/y/z", None),
        ("pc:v1", None),
        ("", None),
    ] {
        assert_eq!(fullname_of(name).as_deref(), full, "{name}");
    }
}

#[test]
fn addresses_of_walt_net() {
    let existing = existing();
    for (ip, is) in [
        ("192.168.152.0", false),
        ("192.168.152.2", true),
        ("192.168.152.255", false),
        ("192.168.153.1", false),
    ] {
        assert_eq!(existing.is_of_walt_net(ip.parse().unwrap()), is, "{ip}");
    }
}
