use super::*;

fn shown(text: &str) -> String {
    text.parse::<Networks>().map_or_else(|e| e.to_string(), |networks| networks.to_string())
}

fn shape(text: &str) -> Shape {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn why(text: &str) -> String {
    text.parse::<Shape>().expect_err(text).to_string()
}

#[test]
fn canonical_texts_stay() {
    for same in [
        "walt-net",
        "walt-net,lab",
        "lab2,walt-net,a-b",
        "walt-net,lab[lat=10ms,jitter=2ms,loss=0.5%,bw=100Mbps]",
        "walt-net[lat=1ms],lab[lat=10ms,lat.up=5us,jitter=2ms,jitter.up=5us,dist=pareto,dist.up=uniform,loss=1%,\
         loss.up=100%,burst=1%/25%,burst.up=0%/0.0001%,dup=2%,dup.up=3%,reorder=4%,reorder.up=5%,corrupt=6%,\
         corrupt.up=7%,queue=50,queue.up=100000,bw=1Gbps,bw.up=64kbps,link=down,seed=18446744073709551615]",
        "walt-net[lat=60s,bw=100Gbps]",
    ] {
        assert_eq!(shown(same), same);
        let again: Networks = same.parse().unwrap();
        assert_eq!(again.to_string().parse::<Networks>().unwrap(), again);
    }
    for (text, canonical) in [
        ("walt-net[bw=100MBPS,lat=1000us]", "walt-net[lat=1ms,bw=100Mbps]"),
        ("walt-net[bw=1000mbps,lat=2000ms]", "walt-net[lat=2s,bw=1Gbps]"),
        ("walt-net[bw=1001kbps,lat=1001MS]", "walt-net[lat=1001ms,bw=1001kbps]"),
        ("walt-net[loss=00.5000%,link=up]", "walt-net[loss=0.5%]"),
        ("walt-net[loss=0%,lat=1ms,dist=normal]", "walt-net[lat=1ms]"),
    ] {
        assert_eq!(shown(text), canonical);
    }
    assert_eq!(Networks::default().to_string(), "walt-net");
}

#[test]
fn bad_networks() {
    for (bad, reason) in [
        ("lab", "walt-net is missing: every node has it, since it boots from there"),
        ("walt-net,lab,lab", "the network 'lab' is there twice; a node has one card for each"),
        ("walt-net,walt-net[lat=1ms]", "the network 'walt-net' is there twice; a node has one card for each"),
        (
            "walt-net,lab[lat=-1ms]",
            "network lab: '-1ms' is not a time; 'lat' is a whole number followed by us, ms or s, such as 10ms",
        ),
        ("walt-net,lab[lat=1ms", "the brackets of 'walt-net,lab[lat=1ms' do not match"),
        ("walt-net,lab]", "the brackets of 'walt-net,lab]' do not match"),
        ("walt-net[[lat=1ms]]", "the brackets of 'walt-net[[lat=1ms]]' do not match"),
        ("walt-net[lat=1ms]x", "'walt-net[lat=1ms]x' is not a network: nothing may follow the bracket ']'"),
        ("walt-net[]", "'walt-net[]' has no parameter between its brackets"),
        ("walt-net,a,b,c,d,e,f,g,h", "9 networks are too many; a node has at most 8"),
    ] {
        assert_eq!(shown(bad), reason);
    }
    assert_eq!(shown("walt-net,a,b,c,d,e,f,g"), "walt-net,a,b,c,d,e,f,g");
    let long = "n".repeat(40);
    assert_eq!(
        shown(&format!("walt-net,{long}")),
        format!("the name of the network '{long}' has 40 characters; a name has at most 32")
    );
    for name in ["a", "lab-2", "a--", &"n".repeat(32)] {
        assert_eq!(name.parse::<NetworkName>().unwrap().as_str(), name);
    }
    for name in ["", "-a", "2a", "Lab", "a_b", "a.b", "é", "a b", &"n".repeat(33)] {
        assert!(name.parse::<NetworkName>().is_err(), "{name}");
        assert!(format!("walt-net,{name}").parse::<Networks>().is_err(), "{name}");
    }
}

#[test]
fn values_of_parameters() {
    let s = shape("lat=10ms,jitter=500us,loss=0.25%,burst=1%/50%,bw=2Mbps,queue=7,lat.up=1s");
    assert_eq!((s.down.latency_us, s.down.jitter_us, s.up.latency_us), (10_000, 500, 1_000_000));
    assert_eq!((s.down.rate_kbps, s.down.queue, s.up.rate_kbps), (Some(2000), Some(7), None));
    assert!((s.down.loss.fraction() - 0.0025).abs() < 1e-12);
    let burst = s.down.burst.unwrap();
    assert!((burst.begin.fraction() - 0.01).abs() < 1e-12 && (burst.end.fraction() - 0.5).abs() < 1e-12);
    assert_eq!(shape("seed=7").seed, Some(7));
    assert!(shape("link=down").is_cut && !shape("link=up").is_cut);
    assert!(shape("").is_plain() && shape("seed=3").is_plain() && !shape("link=down").is_plain());
    assert!(!shape("lat.up=1us").is_plain());
    assert!((shape("loss=100%").down.loss.fraction() - 1.0).abs() < 1e-12);
    assert!((shape("loss=0.0001%").down.loss.fraction() - 1e-6).abs() < 1e-12);
}

#[test]
fn bad_values() {
    for (key, bad) in [
        (
            "lat",
            vec![
                "1",
                "ms",
                "1.5ms",
                "-1ms",
                "+1ms",
                "1m",
                " 1ms",
                "99999999999999999999s",
                "18446744073709551615s",
            ],
        ),
        ("jitter", vec!["1", "x"]),
    ] {
        for value in bad {
            let reason = format!(
                "'{value}' is not a time; '{key}' is a whole number followed by us, ms or s, such as 10ms"
            );
            assert_eq!(why(&format!("{key}={value}")), reason);
        }
    }
    assert_eq!(why("lat=61s"), "'lat=61s' is too long; the longest is 60s");
    assert_eq!(why("lat=60000001us"), "'lat=60000001us' is too long; the longest is 60s");
    for value in ["0Mbps", "1", "1bps", "-1Mbps", "1.5Gbps", "99999999999999999999Gbps"] {
        let reason = format!(
            "'{value}' is not a rate; 'bw' is a whole number, not 0, followed by kbps, Mbps or Gbps, such as 100Mbps"
        );
        assert_eq!(why(&format!("bw={value}")), reason);
    }
    assert_eq!(why("bw=101Gbps"), "'bw=101Gbps' is too much; the most is 100Gbps");
    for value in
        ["1", "101%", "100.0001%", "-1%", "1.%", ".5%", "0.00001%", "%", "1e1%", "99999999999%", "x%", "1.x%"]
    {
        let reason = format!("'{value}' is not a share; a share is 0% to 100%, such as 0.5%");
        for key in ["loss", "dup", "corrupt", "reorder"] {
            assert_eq!(why(&format!("{key}={value}")), reason);
        }
    }
    assert_eq!(
        why("burst=1%"),
        "'1%' is not a pair of shares, such as 1%/25%: begin and end of bursts of loss"
    );
    assert_eq!(why("burst=1%/0%"), "the burst '1%/0%' would never end: its second share must not be 0%");
    assert!(why("burst=1%/x").starts_with("'x' is not a share"));
    for value in ["0", "100001", "-1", "+5", "x"] {
        let reason =
            format!("'{value}' is not a length of a queue; it is a number of frames from 1 to 100000");
        assert_eq!(why(&format!("queue={value}")), reason);
    }
    assert_eq!(why("dist=flat"), "there is no distribution 'flat'; there are: normal, pareto, uniform");
    assert_eq!(why("link=off"), "'off' is not a state of a link; it is 'up' or 'down'");
    for value in ["x", "-1", "+1", "18446744073709551616"] {
        assert_eq!(
            why(&format!("seed={value}")),
            format!("'{value}' is not a seed; a seed is a whole number")
        );
    }
    assert_eq!(
        why("delay=1ms"),
        "a link has no parameter 'delay'; there are: lat, jitter, dist, loss, burst, dup, reorder, corrupt, queue, bw, \
         each also with .up for the direction from the node, link and seed"
    );
    assert!(why("seed.up=1").starts_with("a link has no parameter 'seed.up'"));
    assert_eq!(why("lat"), "'lat' is not of the form <parameter>=<value>, such as lat=10ms");
    assert_eq!(why("lat="), "'lat=' has no value");
    assert_eq!(why("lat=1ms,lat=2ms"), "'lat' is there twice");
    assert!(why("lat=1ms,").contains("not of the form"));
}

#[test]
fn what_does_not_fit_together() {
    assert_eq!(
        why("lat=2ms,jitter=3ms"),
        "jitter=3ms is more than lat=2ms: no frame can arrive before it was sent"
    );
    assert_eq!(
        why("lat=9ms,jitter.up=3ms"),
        "jitter.up=3ms is more than lat.up=0s: no frame can arrive before it was sent"
    );
    assert_eq!(why("lat=1ms,dist=pareto"), "dist=pareto has no effect without jitter");
    assert_eq!(
        why("reorder.up=1%"),
        "reorder.up=1% has no effect without lat.up: a frame overtakes those that are delayed"
    );
    assert_eq!(why("queue=5"), "queue=5 has no effect without bw: frames wait for a rate only");
    shape("lat=2ms,jitter=2ms");
}

#[test]
fn changes_of_a_shape() {
    let before = shape("lat=10ms,loss=1%,seed=3");
    let changed = |words: &[&str]| before.changed(words.iter().copied()).map(|s| s.to_string());
    assert_eq!(changed(&["lat=30ms", "bw.up=1Mbps"]).unwrap(), "lat=30ms,loss=1%,bw.up=1Mbps,seed=3");
    assert_eq!(changed(&["lat=", "seed="]).unwrap(), "loss=1%");
    assert_eq!(changed(&["link=down"]).unwrap(), "lat=10ms,loss=1%,link=down,seed=3");
    assert_eq!(before.changed(["link=down"]).unwrap().changed(["link="]).unwrap(), before);
    for key in ["lat", "jitter", "dist", "loss", "burst", "dup", "reorder", "corrupt", "queue", "bw"] {
        changed(&[&format!("{key}="), &format!("{key}.up=")]).unwrap();
    }
    assert_eq!(
        changed(&["jitter=11ms"]).unwrap_err().0,
        "jitter=11ms is more than lat=10ms: no frame can arrive before it was sent"
    );
    // The order of the words does not matter: they are looked at together.
    assert_eq!(changed(&["jitter=11ms", "lat=20ms"]).unwrap(), "lat=20ms,jitter=11ms,loss=1%,seed=3");
}

#[test]
fn cards_and_names() {
    let networks: Networks = "lab[lat=1ms],walt-net,b".parse().unwrap();
    let cards: Vec<String> = networks.iter().map(|(name, shape)| format!("{name} {shape}")).collect();
    assert_eq!(cards, ["walt-net ", "lab lat=1ms", "b "]);
    let names: Vec<&str> = networks.names().into_iter().map(NetworkName::as_str).collect();
    assert_eq!(names, ["b", "lab", "walt-net"]);
    assert_eq!(networks.shape("lab"), Some(&shape("lat=1ms")));
    assert_eq!(networks.shape("x"), None);
    let other = networks.with_shape("b", shape("link=down"));
    assert_eq!(other.to_string(), "lab[lat=1ms],walt-net,b[link=down]");
    assert!(cards[0].parse::<NetworkName>().is_err());
    assert!("walt-net".parse::<NetworkName>().unwrap().is_walt_net());
    assert!(!"walt-net2".parse::<NetworkName>().unwrap().is_walt_net());
}
