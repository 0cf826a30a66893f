//! Records, kinds of files, and which boots are slow.

use super::*;

fn record() -> Record {
    Record::new(100.0, Cause::user("ann", "reboot requested"), "ann/x:latest".into())
}

/// A boot with these stages, by their ends.
fn with(stages: &[(Stage, f64)]) -> Record {
    let mut record = record();
    for (stage, at) in stages {
        record.reach(*stage, 100.0 + at, 0);
    }
    record
}

fn shown(record: &Record) -> String {
    let one = |reached: &Reached| match reached.bytes {
        0 => format!("{}@{}", reached.stage.name(), reached.at),
        bytes => format!("{}@{}={bytes}", reached.stage.name(), reached.at),
    };
    record.stages.iter().map(one).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_boot_by_firmware() {
    let mut boot = record();
    boot.reach(Stage::Start, 100.5, 0);
    assert!(boot.asks_for_address(true, false, 102.0));
    assert!(!boot.asks_for_address(true, false, 102.5), "it asks again");
    assert!(boot.asks_for_address(true, true, 103.0));
    // Its loader asks again, under our script.
    assert!(boot.asks_for_address(false, true, 104.0));
    assert!(boot.asks_for_file(FileKind::Script, 105.0) && boot.asks_for_file(FileKind::Script, 105.5));
    assert!(!boot.has_file(FileKind::Script, 10, 105.6));
    assert!(boot.asks_for_file(FileKind::Initrd, 106.0));
    assert!(boot.has_file(FileKind::Initrd, 1000, 107.0));
    assert!(!boot.asks_for_file(FileKind::Kernel, 107.0), "the scripts are over");
    assert!(boot.has_file(FileKind::Kernel, 300, 107.5) && boot.has_file(FileKind::Kernel, 200, 108.0));
    assert!(!boot.has_file(FileKind::Kernel, 0, 109.0), "only its head was asked for");
    assert!(!boot.asks_for_address(false, true, 109.0), "the initrd asks for its own address");
    assert!(boot.reach_once(Stage::Root, 110.0) && !boot.reach_once(Stage::Root, 111.0));
    assert!(!boot.has_file(FileKind::Kernel, 7, 112.0), "a running system looks at its kernel");
    assert_eq!(
        (boot.total(), boot.outcome().as_str(), boot.last_stage()),
        (None, "boots", Some(Stage::Root))
    );
    boot.reach(Stage::Init, 112.0, 0);
    boot.reach(Stage::Ssh, 115.0, 0);
    let expected = "start@0.5 firmware@2 dhcp@4 script@6 initrd@7=1000 kernel@8=500 root@10 init@12 ssh@15";
    assert_eq!(shown(&boot), expected);
    assert_eq!((boot.total(), boot.outcome().as_str()), (Some(15.0), "booted"));
    let took: Vec<f64> = boot.durations().into_iter().map(|(_, took)| took).collect();
    assert_eq!(took, [0.5, 1.5, 2.0, 2.0, 1.0, 1.0, 2.0, 2.0, 3.0]);
    // What comes later is not of this boot.
    assert!(!boot.asks_for_address(true, false, 200.0) && !boot.asks_for_file(FileKind::Kernel, 200.0));
    assert_eq!((shown(&boot).as_str(), boot.restarts), (expected, 0));
}

#[test]
fn a_machine_that_begins_again() {
    let mut boot =
        with(&[(Stage::Start, 0.0), (Stage::Firmware, 1.0), (Stage::Dhcp, 2.0), (Stage::Kernel, 5.0)]);
    assert!(!boot.asks_for_address(true, true, 110.0), "an answer alone is not a beginning");
    assert!(boot.asks_for_address(true, false, 140.0));
    assert_eq!((shown(&boot).as_str(), boot.restarts), ("start@0 firmware@40", 1));
    assert!(boot.asks_for_address(true, true, 141.0));
    assert_eq!((shown(&boot).as_str(), boot.restarts), ("start@0 firmware@40 dhcp@41", 1));
}

#[test]
fn files_without_anything_before_them() {
    // A file is asked for before anything else is known: whose scripts were read is not known either.
    let mut boot = record();
    assert!(!boot.asks_for_file(FileKind::Kernel, 101.0) && boot.stages.is_empty());
    assert!(boot.has_file(FileKind::Kernel, 5, 102.0));
    assert_eq!(shown(&boot), "kernel@2=5");
    let mut boot = record();
    assert!(boot.asks_for_file(FileKind::Script, 101.0));
    assert_eq!(shown(&boot), "script@1");
}

#[test]
fn the_root_is_that_of_the_boot() {
    let mut boot = record();
    assert!(boot.mounts("v1".into(), Some("i1".into()), 103.0));
    assert!(boot.mounts("v2".into(), Some("i2".into()), 104.0), "the answer was lost, or it began again");
    assert_eq!(
        (shown(&boot).as_str(), boot.view.as_deref(), boot.image_id.as_deref()),
        ("root@3", Some("v2"), Some("i2"))
    );
    boot.reach(Stage::Ssh, 110.0, 0);
    assert!(!boot.mounts("v3".into(), None, 111.0));
    assert_eq!(boot.view.as_deref(), Some("v2"));
}

#[test]
fn moments_are_in_their_order() {
    let boot = with(&[(Stage::Ssh, 9.0), (Stage::Init, 3.0), (Stage::Root, -1.0), (Stage::Start, 3.0)]);
    assert_eq!(shown(&boot), "root@0 init@3 start@3 ssh@9");
}

#[test]
fn ends() {
    let cause = Cause::user("ann", "image change");
    let mut boot = record();
    assert!(boot.close(End::Timeout, 280.0) && !boot.close(End::PoweredOff, 300.0));
    assert_eq!((boot.outcome().as_str(), boot.ended), ("timeout", Some(280.0)));
    // It boots after all.
    boot.reach(Stage::Init, 301.0, 0);
    assert!(boot.end.is_some());
    boot.reach(Stage::Ssh, 302.0, 0);
    assert_eq!((boot.outcome().as_str(), &boot.end, boot.ended), ("booted", &None, None));
    assert!(boot.close(End::Rebooted(cause.clone()), 400.0));
    assert_eq!(
        (boot.outcome().as_str(), boot.end.as_ref().unwrap().text().as_str()),
        ("booted", "rebooted by ann (image change)")
    );
    // Only an end by the clock is taken back.
    let mut boot = record();
    assert!(boot.close(End::PoweredOff, 110.0));
    boot.reach(Stage::Ssh, 111.0, 0);
    assert_eq!(boot.end, Some(End::PoweredOff));
    // A panic is why a machine stops, or does not answer; it is not why a user reboots it.
    for (end, is_panic) in
        [(End::Timeout, true), (End::Stopped("x".into()), true), (End::Rebooted(cause), false)]
    {
        let mut boot = record();
        boot.panic = Some("Kernel panic".into());
        boot.close(end, 1.0);
        assert_eq!(boot.end == Some(End::Panic("Kernel panic".into())), is_panic);
    }
    for (end, text) in [
        (End::Panic("Kernel panic - x".into()), "panic: Kernel panic - x"),
        (End::PoweredOff, "powered off"),
        (End::Stopped(String::new()), "stopped by itself"),
        (End::Stopped("login:".into()), "stopped by itself: login:"),
        (End::NotStarted("no image".into()), "not started: no image"),
        (End::Rebooted(Cause::server("bootup timeout")), "rebooted by the server (bootup timeout)"),
        (End::Rebooted(Cause::node()), "rebooted by the node itself"),
    ] {
        let mut boot = record();
        assert_eq!(boot.failure(&end), text);
        boot.close(end, 101.0);
        assert_eq!(boot.outcome(), text);
    }
    let mut boot = record();
    boot.attempts = 7;
    boot.close(End::NotStarted("no image".into()), 101.0);
    assert_eq!(boot.outcome(), "not started (7 times): no image");
    assert_eq!(
        record().failure(&End::Timeout),
        "boot timeout reached, and the machine has asked for nothing"
    );
    assert_eq!(with(&[(Stage::Root, 3.0)]).failure(&End::Timeout), "boot timeout reached, last stage: root");
}

#[test]
fn kinds_of_files() {
    for (path, kind) in [
        ("kernel", Some(FileKind::Kernel)),
        ("5564247d/kernel8.img", Some(FileKind::Kernel)),
        ("boot/vmlinuz-6.1.0", Some(FileKind::Kernel)),
        ("zImage", Some(FileKind::Kernel)),
        ("uImage", Some(FileKind::Kernel)),
        ("/Image", Some(FileKind::Kernel)),
        ("fit.itb", Some(FileKind::Kernel)),
        ("initrd", Some(FileKind::Initrd)),
        ("initramfs-linux-kernel.img", Some(FileKind::Initrd)),
        ("ramdisk.gz", Some(FileKind::Initrd)),
        ("start.ipxe", Some(FileKind::Script)),
        ("start.uboot", Some(FileKind::Script)),
        ("boot.scr", Some(FileKind::Script)),
        ("grub/grub.cfg", Some(FileKind::Script)),
        ("bootstrap.ipxe", None),
        ("/bootstrap.ipxe", None),
        ("pxe/undionly.kpxe", None),
        ("kernel/x.dtb", None),
        ("start4.elf", None),
        ("", None),
    ] {
        assert_eq!(file_kind(path.as_bytes()), kind, "{path}");
    }
}

/// Boots that took these times, each in two stages of which the first takes a second.
fn boots(totals: &[f64]) -> Vec<Record> {
    totals.iter().map(|total| with(&[(Stage::Root, 1.0), (Stage::Ssh, *total)])).collect()
}

#[test]
fn slow_boots_are_marked() {
    let mut records = boots(&[10.0, 10.0, 12.0, 15.0, 16.6]);
    // The others of the last one: 10, 10, 12, 15; their median is 11, and 16.5 would not be slow.
    let found = slow(&records, 4).unwrap();
    assert_eq!((found.median, found.stage), (11.0, Stage::Ssh));
    assert!((found.factor - 16.6 / 11.0).abs() < 1e-9 && (found.grew - 5.6).abs() < 1e-9, "{found:?}");
    records[4] = boots(&[16.5]).remove(0);
    assert_eq!(slow(&records, 4), None);
    assert_eq!((slow(&records, 0), slow(&records, 9)), (None, None));
    // Another image, or a boot that has not ended well, is not compared with.
    let mut few = boots(&[10.0, 10.0, 30.0]);
    assert!(slow(&few, 2).is_some());
    few[1].image = "ann/y:latest".into();
    assert_eq!(slow(&few, 2), None);
    let mut few = boots(&[10.0, 10.0, 30.0]);
    few[1].stages.pop();
    assert_eq!((slow(&few, 2), slow(&few, 1)), (None, None));
    // The stage that grew need not be the longest, and may be one that the others do not have.
    let mut three = boots(&[10.0, 10.0]);
    three.push(with(&[(Stage::Firmware, 8.0), (Stage::Root, 9.0), (Stage::Ssh, 18.5)]));
    let found = slow(&three, 2).unwrap();
    assert_eq!((found.stage, found.grew), (Stage::Firmware, 8.0));
}

#[test]
fn medians() {
    for (numbers, middle) in [
        (vec![], None),
        (vec![3.0], Some(3.0)),
        (vec![4.0, 1.0], Some(2.5)),
        (vec![9.0, 1.0, 2.0], Some(2.0)),
        (vec![9.0, 1.0, 2.0, 4.0], Some(3.0)),
    ] {
        assert_eq!(median(numbers), middle);
    }
}

#[test]
fn texts_of_nodes_are_bounded() {
    assert_eq!(clean("  a\x1b[31m\nb\t "), "a[31mb");
    assert_eq!(clean(&"é".repeat(TEXT_MAX + 1)).chars().count(), TEXT_MAX);
}

#[test]
fn stages_have_names() {
    assert!(Stage::ALL.is_sorted());
    let names: Vec<&str> = Stage::ALL.iter().map(|stage| stage.name()).collect();
    assert_eq!(names.join(" "), "start firmware dhcp script kernel initrd root init ssh");
}
