//! Every command, each failure, the scripts' usual shape, and random scripts.

use super::*;
use proptest::prelude::*;

/// Boot files in memory.
struct Memory(BTreeMap<String, Vec<u8>>);

impl Files for Memory {
    fn read(&self, path: &str, _limit: u64) -> io::Result<Vec<u8>> {
        self.0.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
    fn exists(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }
}

fn machine() -> Machine {
    Machine {
        mac: "52:54:00:0a:0b:0c".parse().unwrap(),
        ip: Ipv4Addr::new(192, 168, 183, 2),
        netmask: Ipv4Addr::new(255, 255, 255, 0),
        gateway: None,
        hostname: "vn1".into(),
        next_server: Ipv4Addr::new(192, 168, 183, 1),
        manufacturer: "QEMU".into(),
        product: "Standard PC (i440FX + PIIX, 1996)".into(),
        model: "pc-x86-64".into(),
    }
}

fn files(scripts: &[(&str, &str)]) -> Memory {
    let mut all: BTreeMap<String, Vec<u8>> = scripts
        .iter()
        .map(|(name, text)| ((*name).to_owned(), format!("#!ipxe\n{text}\n").into_bytes()))
        .collect();
    for name in ["kernel", "initrd", "initrd2", "sub/kernel"] {
        all.insert(name.into(), b"data".to_vec());
    }
    Memory(all)
}

fn run_files(scripts: &[(&str, &str)]) -> Report {
    run(&machine(), "start.ipxe", &files(scripts))
}

/// What a script prints, when it comes to `boot` at its end.
fn console(script: &str) -> String {
    let report = run_files(&[("start.ipxe", &format!("{script}\nkernel kernel\nboot"))]);
    assert!(report.outcome.is_ok(), "{script}: {:?}", report.outcome);
    report.console
}

fn error(script: &str) -> String {
    let report = run_files(&[("start.ipxe", script)]);
    report.outcome.expect_err(script).to_string()
}

fn boot(scripts: &[(&str, &str)]) -> Boot {
    match run_files(scripts).outcome {
        Ok(Outcome::Boot(boot)) => boot,
        other => panic!("{other:?}"),
    }
}

#[test]
fn words_and_variables() {
    for (script, printed) in [
        ("echo a  b", "a b\n"),
        ("echo -n a", "a"),
        (
            "echo ${mac} ${mac:hexhyp} ${mac:hex} ${mac:hexraw}",
            "52:54:00:0a:0b:0c 52-54-00-0a-0b-0c 52:54:00:0a:0b:0c 5254000a0b0c\n",
        ),
        ("echo ${net0/mac} ${netX/ip}", "52:54:00:0a:0b:0c 192.168.183.2\n"),
        ("echo ${manufacturer}/${product}", "QEMU/Standard PC (i440FX + PIIX, 1996)\n"),
        ("echo ${next-server} ${server_ip} [${gateway}] [${nothing}]", "192.168.183.1 192.168.183.1 [] []\n"),
        (
            "echo ${hostname} ${name} ${netmask} ${model} ${user-class}",
            "vn1 vn1 255.255.255.0 pc-x86-64 walt.node.pc-x86-64\n",
        ),
        ("set a b c\necho ${a}\nset a\necho [${a}]", "b c\n[]\n"),
        ("set a x/y z\necho ${a:uristring} ${a:string}", "x%2Fy%20z x/y z\n"),
        ("set n ip\necho ${${n}}", "192.168.183.2\n"),
        ("set net0/a 1\necho ${a} }", "1 }\n"),
        ("set a:string 1\necho ${a}", "1\n"),
        ("set a ${b}${c}\necho ${a}.", ".\n"),
        // Values are not expanded again.
        ("set d $\nset a ${d}{ip}\necho ${a}", "${ip}\n"),
        ("echo a # b || c", "a\n"),
        ("# nothing", ""),
        ("echo a#b", "a#b\n"),
        ("echo a \\\n  b", "a b\n"),
        ("  \t echo a\r", "a\n"),
        ("sleep 2", ""),
    ] {
        assert_eq!(console(script), printed, "{script}");
    }
}

#[test]
fn operators() {
    for (script, printed) in [
        ("iseq a a && echo yes", "yes\n"),
        ("iseq a b || echo no", "iseq a b: they differ\nno\n"),
        ("iseq a b && echo yes ||", "iseq a b: they differ\n"),
        ("iseq a b && echo yes || echo no", "iseq a b: they differ\nno\n"),
        ("iseq a a || echo no && echo yes", "yes\n"),
        ("iseq a b ; echo on", "iseq a b: they differ\non\n"),
        ("isset ${ip} && echo yes", "yes\n"),
        ("isset ${nothing} || echo no", "isset : it is empty\nno\n"),
        ("isset ${nothing} ||", "isset : it is empty\n"),
        ("goto end\necho skipped\n:end\necho here", "here\n"),
        ("goto end || echo never\n:end echo here", "here\n"),
        ("goto nowhere || echo no", "goto nowhere: no label ':nowhere'\nno\n"),
        ("kernel absent || echo no", "kernel absent: no such file\nno\n"),
        ("initrd absent || echo no", "initrd absent: no such file\nno\n"),
        ("chain absent || echo no", "chain absent: no such file\nno\n"),
        ("imgfree absent || echo no", "imgfree absent: no file 'absent' is loaded\nno\n"),
        ("boot || echo no", "boot: no kernel is loaded\nno\n"),
        ("kernel kernel\nboot absent || echo no", "boot absent: no such file\nno\n"),
        ("initrd -n k initrd\nboot k || echo no", "boot k: no such file\nno\n"),
        (
            "set i a\n:loop\nset i ${i}a\niseq ${i} aaaa && goto out ||\ngoto loop\n:out\necho -n",
            "iseq aa aaaa: they differ\niseq aaa aaaa: they differ\n",
        ),
    ] {
        assert_eq!(console(script), printed, "{script}");
    }
}

#[test]
fn failures_name_file_and_line() {
    for (script, message) in [
        ("echo a\n\nfoo bar", "start.ipxe:4: unknown command 'foo'"),
        ("foo || echo a", "start.ipxe:2: unknown command 'foo'"),
        ("echo ${ip", "start.ipxe:2: '${' without '}'"),
        ("echo ${ip:ipv6}", "start.ipxe:2: unknown type 'ipv6'"),
        ("kernel --frob kernel", "start.ipxe:2: 'kernel' has no option '--frob'"),
        ("chain --name", "start.ipxe:2: 'chain' has no option '--name'"),
        ("kernel", "start.ipxe:2: usage: kernel"),
        ("initrd", "start.ipxe:2: usage: initrd"),
        ("chain", "start.ipxe:2: usage: chain"),
        ("set", "start.ipxe:2: usage: set"),
        ("isset", "start.ipxe:2: usage: isset"),
        ("iseq a", "start.ipxe:2: usage: iseq"),
        ("goto", "start.ipxe:2: usage: goto"),
        ("sleep long", "start.ipxe:2: usage: sleep"),
        (
            "chain http://example.org/boot/x",
            "start.ipxe:2: 'http://example.org/boot/x' is not on this server",
        ),
        (
            "kernel nfs://192.168.183.1/kernel",
            "start.ipxe:2: 'nfs://192.168.183.1/kernel' is not on this server",
        ),
        ("chain kernel", "start.ipxe:2: 'kernel' is not an iPXE script"),
        ("kernel absent", "start.ipxe:2: 'kernel absent' failed: no such file"),
        ("iseq a b", "start.ipxe:2: 'iseq a b' failed: they differ"),
        ("boot", "start.ipxe:2: 'boot' failed: no kernel is loaded"),
        ("goto x", "start.ipxe:2: 'goto x' failed: no label ':x'"),
        ("kernel kernel", "start.ipxe:3: the script ended without 'boot'"),
        (":a\ngoto a", "start.ipxe:3: the number of commands exceeds 1000"),
        (":a\nchain start.ipxe", "start.ipxe:3: the depth of chained scripts exceeds 8"),
        ("set a 0123456789\n:a\nset a ${a}${a}\ngoto a", "start.ipxe:4: a value exceeds 16384"),
    ] {
        let told = error(script);
        assert!(told.starts_with(message), "{script}: {told}");
    }
    let report = run(&machine(), "start.ipxe", &Memory(BTreeMap::new()));
    let told = report.outcome.expect_err("no script").to_string();
    assert_eq!(told, "start.ipxe:1: 'chain start.ipxe' failed: no such file");
}

#[test]
fn a_failure_in_a_chained_script_is_the_callers_to_catch() {
    let inner = ("in/b.ipxe", "echo in\nkernel absent\necho never");
    let report = run_files(&[("start.ipxe", "chain in/b.ipxe"), inner]);
    let told = report.outcome.expect_err("fails").to_string();
    assert_eq!(told, "in/b.ipxe:3: 'kernel absent' failed: no such file");
    let report = run_files(&[("start.ipxe", "chain in/b.ipxe || echo caught\nkernel kernel\nboot"), inner]);
    assert!(report.outcome.is_ok());
    assert_eq!(report.console, "in\nkernel absent: no such file\nchain in/b.ipxe: no such file\ncaught\n");
    // After a caught failure, errors are the caller's again.
    let report = run_files(&[("start.ipxe", "chain in/b.ipxe ||\nfrob"), inner]);
    assert!(report.outcome.expect_err("frob").to_string().starts_with("start.ipxe:3: unknown command"));
}

#[test]
fn kernels_and_initrds() {
    let plain =
        boot(&[("start.ipxe", "initrd initrd\ninitrd initrd2\nkernel kernel a=${ip}  b ${nothing} c\nboot")]);
    assert_eq!(plain.kernel, "kernel");
    assert_eq!(plain.initrds, ["initrd", "initrd2"]);
    assert_eq!(plain.command_line, "a=192.168.183.2 b  c");
    // The last kernel counts; freed files do not.
    let last =
        boot(&[("start.ipxe", "kernel kernel one\ninitrd initrd\nimgfree\nkernel sub/kernel two\nboot")]);
    assert_eq!((last.kernel.as_str(), last.command_line.as_str()), ("sub/kernel", "two"));
    assert!(last.initrds.is_empty());
    let named =
        boot(&[("start.ipxe", "kernel --name k kernel x\ninitrd -n i initrd\nimgfree i\nboot k y z")]);
    assert_eq!((named.command_line.as_str(), named.initrds.len()), ("y z", 0));
    // Without arguments, those of before; an initrd of the name is not meant.
    let again = boot(&[("start.ipxe", "initrd -n k initrd\nkernel -n l kernel x\nboot l")]);
    assert_eq!((again.kernel.as_str(), again.command_line.as_str(), again.initrds.len()), ("kernel", "x", 1));
    let direct = boot(&[("start.ipxe", "boot sub/kernel quiet")]);
    assert_eq!((direct.kernel.as_str(), direct.command_line.as_str()), ("sub/kernel", "quiet"));
    let long = format!("kernel kernel {}\nboot", "x".repeat(MAX_COMMAND_LINE + 1));
    assert!(error(&long).contains("the kernel's command line exceeds 2047"));
}

#[test]
fn ends_other_than_boot() {
    assert_eq!(run_files(&[("start.ipxe", "iseq a b || reboot")]).outcome, Ok(Outcome::Reboot));
    assert_eq!(run_files(&[("start.ipxe", "shell")]).outcome, Ok(Outcome::Shell));
    let replaced = run_files(&[("start.ipxe", "chain --replace b.ipxe\nfrob"), ("b.ipxe", "echo b")]);
    assert!(matches!(replaced.outcome, Err(Error { problem: Problem::NotBooted, .. })));
}

#[test]
fn names_lead_where_ipxe_goes() {
    for name in [
        "sub/kernel",
        "/sub/kernel",
        "./sub/../sub/kernel",
        "../../sub/kernel",
        "sub%2Fkernel",
        "tftp://192.168.183.1/sub/kernel",
        "tftp://192.168.183.1:69/sub/kernel",
        "http://192.168.183.1/boot/sub/kernel",
        "HTTP://192.168.183.1:80/boot//sub/kernel?node=1",
        "http://${next-server}/boot/sub/kernel",
        "sub/kernel#here",
        "s%75b/kerne%6C",
    ] {
        assert_eq!(boot(&[("start.ipxe", &format!("kernel {name}\nboot"))]).kernel, "sub/kernel", "{name}");
    }
    for name in
        ["http://192.168.183.1/sub/kernel", "http://192.168.183.1/", "http://192.168.183.1/boot", "/", ".."]
    {
        let report = run_files(&[("start.ipxe", &format!("kernel {name} || shell"))]);
        assert_eq!(report.outcome, Ok(Outcome::Shell), "{name}");
    }
    // A port of another protocol, and what looks like a code and is none.
    for name in ["tftp://192.168.183.1:80/kernel", "http://192.168.183.1:69/boot/kernel"] {
        assert!(error(&format!("kernel {name}")).contains("is not on this server"), "{name}");
    }
    for name in ["100%", "a%4", "a%zz", "%e2%82%AC"] {
        let mut all = files(&[("start.ipxe", &format!("kernel {name}\nboot"))]);
        let file = if name.contains("AC") { "€" } else { name };
        all.0.insert(file.into(), vec![]);
        let outcome = run(&machine(), "start.ipxe", &all).outcome;
        assert!(matches!(outcome, Ok(Outcome::Boot(Boot { kernel, .. })) if kernel == file), "{name}");
    }
    // Names in a chained script are relative to it, and on its road.
    let scripts = [
        ("start.ipxe", "chain http://${next-server}/boot/sub/a.ipxe"),
        ("sub/a.ipxe", "kernel /kernel || kernel /boot/kernel one || \nkernel kernel two\nboot"),
    ];
    let found = boot(&scripts);
    assert_eq!((found.kernel.as_str(), found.command_line.as_str()), ("sub/kernel", "two"));
}

/// The usual layering of published images: model, file system, a second stage by HTTP, optional parameters.
#[test]
fn layered_scripts_of_an_image() {
    let submodel = "QEMU/Standard PC (i440FX + PIIX, 1996)/boot-params.ipxe";
    let scripts = [
        ("start.ipxe", "set node_model pc-x86-64\nchain /start-generic.ipxe"),
        (
            "start-generic.ipxe",
            "set fs root=/dev/nfs nfsroot=${next-server}:/var/lib/walt/nodes/${mac}/fs,ro,vers=3\n\
             set prefix http://${next-server}/boot\nchain ${prefix}/second.ipxe ||\n\
             echo falling back\nset prefix\nchain ${prefix}/second.ipxe",
        ),
        (
            "second.ipxe",
            "set submodel ${manufacturer}/${product}\nset init /bin/walt-init\nset more\n\
             chain ${prefix}/server-params.ipxe && imgfree server-params.ipxe ||\n\
             chain ${prefix}/boot-params.ipxe && imgfree boot-params.ipxe ||\n\
             chain ${prefix}/${submodel}/boot-params.ipxe && imgfree boot-params.ipxe ||\n\
             set ip_conf ip=${ip}:${next-server}:${gateway}:${netmask}:${hostname}::off BOOTIF=01-${mac:hexhyp}\n\
             set args ${fs} walt.node.model=${node_model} init=${init} ${ip_conf} ${more}\n\
             initrd ${prefix}/initrd || echo No initrd\nkernel ${prefix}/kernel initrd=initrd ${args} || reboot\nboot",
        ),
        ("server-params.ipxe", "set server_mac 02:00:00:00:00:01"),
        (submodel, "set more console=ttyS0"),
    ];
    let expected = "initrd=initrd root=/dev/nfs nfsroot=192.168.183.1:/var/lib/walt/nodes/52:54:00:0a:0b:0c/fs,ro,vers=3 \
        walt.node.model=pc-x86-64 init=/bin/walt-init ip=192.168.183.2:192.168.183.1::255.255.255.0:vn1::off \
        BOOTIF=01-52-54-00-0a-0b-0c console=ttyS0";
    assert_eq!(
        boot(&scripts),
        Boot { kernel: "kernel".into(), initrds: vec!["initrd".into()], command_line: expected.into() }
    );
}

/// What a limit allows, and one more: the script without its end `kernel kernel` and `boot`, and what is exceeded.
#[test]
fn limits_are_met() {
    let end = "\nkernel kernel\nboot";
    let value = |length: usize| "x".repeat(length);
    let commands = |count: usize| "isset a\n".repeat(count - 3) + "isset a";
    let images = |count: usize| (0..count).map(|n| format!("initrd -n {n} initrd\n")).collect::<String>();
    let nested = |depth: usize| format!("echo {}ip{}", "${".repeat(depth), "}".repeat(depth));
    // '#!ipxe' and two line feeds besides.
    let script = |size: usize| "#".to_owned() + &"x".repeat(size - end.len() - 9);
    let two_words = |length: usize| format!("set a {} {}", value(length - 11), value(10));
    for (fits, too_much, exceeded) in [
        (commands(MAX_STEPS), commands(MAX_STEPS + 1), "the number of commands exceeds 1000"),
        (format!("echo {}", value(16_384)), format!("echo {}", value(16_385)), "a value exceeds 16384"),
        (two_words(16_384), two_words(16_385), "a value exceeds 16384"),
        (
            format!("set a {}\necho ${{a}}", value(16_384)),
            format!("set a {}\necho ${{a}}x", value(16_384)),
            "a value exceeds 16384",
        ),
        (images(MAX_IMAGES - 1), images(MAX_IMAGES), "the number of loaded files exceeds 64"),
        (nested(8), nested(9), "the nesting of variables exceeds 8"),
        (script(65_536), script(65_537), "the size of a script exceeds 65536"),
        (
            format!("kernel kernel {}\nboot", value(2047)),
            format!("kernel kernel {}\nboot", value(2048)),
            "the kernel's command line exceeds 2047",
        ),
    ] {
        let whole = |script: &str| run_files(&[("start.ipxe", &format!("{script}{end}"))]).outcome;
        assert!(matches!(whole(&fits), Ok(Outcome::Boot(_))), "{exceeded}: {:?}", whole(&fits));
        let told = whole(&too_much).expect_err(exceeded).to_string();
        assert!(told.ends_with(exceeded), "{told}");
    }
    // Scripts in scripts, the last one boots.
    for (depth, fits) in [(MAX_DEPTH, true), (MAX_DEPTH + 1, false)] {
        let mut all = files(&[("start.ipxe", "chain 1")]);
        for n in 1..depth {
            all.0.insert(n.to_string(), format!("#!ipxe\nchain {}", n + 1).into_bytes());
        }
        all.0.insert(depth.to_string(), b"#!ipxe\nboot kernel".to_vec());
        assert_eq!(run(&machine(), "start.ipxe", &all).outcome.is_ok(), fits, "{depth}");
    }
}

/// Options are in front of the words that a command is about, in both of their forms.
#[test]
fn options() {
    for (script, printed) in [
        ("echo -- -n", "-n\n"),
        ("echo - -n", "- -n\n"),
        ("echo a -n", "a -n\n"),
        ("echo --n a", "a"),
        ("initrd --name=i initrd\nimgfree i", ""),
        ("initrd -a -t 5 --timeout 5 initrd\nimgfree initrd", ""),
        // A script stays loaded, under its name, unless it frees itself.
        ("chain b.ipxe\nimgfree b.ipxe", "b\n"),
        ("chain --name c b.ipxe\nimgfree c", "b\n"),
        ("chain -a b.ipxe\nimgfree b.ipxe || echo no", "b\nimgfree b.ipxe: no file 'b.ipxe' is loaded\nno\n"),
        (
            "chain --autofree b.ipxe\nimgfree b.ipxe || echo no",
            "b\nimgfree b.ipxe: no file 'b.ipxe' is loaded\nno\n",
        ),
        // Of two files of one name the last is loaded.
        (
            "initrd -n i initrd\ninitrd -n i initrd2\nimgfree i\nimgfree i || echo no",
            "imgfree i: no file 'i' is loaded\nno\n",
        ),
    ] {
        let scripts = [("start.ipxe", &*format!("{script}\nkernel kernel\nboot")), ("b.ipxe", "echo b")];
        let report = run_files(&scripts);
        assert!(report.outcome.is_ok(), "{script}: {:?}", report.outcome);
        assert_eq!(report.console, printed, "{script}");
    }
    for (script, message) in [
        ("echo --n=1 a", "'echo' has no option '--n=1'"),
        ("initrd -n=i initrd", "'initrd' has no option '-n=i'"),
        ("initrd --name", "'initrd' has no option '--name'"),
        ("sleep 1 2", "usage: sleep <seconds>"),
        ("isset a b", "usage: isset <value>"),
        ("iseq a b c", "usage: iseq <value> <value>"),
        ("goto a b", "usage: goto <label>"),
    ] {
        let told = error(script);
        assert!(told.contains(message), "{script}: {told}");
    }
}

/// A file that is there and cannot be read is told with its reason.
#[test]
fn scripts_that_cannot_be_read() {
    struct Locked;
    impl Files for Locked {
        fn read(&self, path: &str, limit: u64) -> io::Result<Vec<u8>> {
            assert_eq!(limit, 65_536);
            match path {
                "start.ipxe" => Ok(b"#!ipxe\nchain locked || shell".to_vec()),
                _ => Err(io::ErrorKind::PermissionDenied.into()),
            }
        }
        fn exists(&self, _: &str) -> bool {
            true
        }
    }
    let report = run(&machine(), "start.ipxe", &Locked);
    assert_eq!(report.outcome, Ok(Outcome::Shell));
    assert_eq!(report.console, "chain locked: permission denied\n");
}

#[test]
fn the_console_is_bounded() {
    // 8 lines of 8002 bytes leave room for 1520: a character of two bytes does not fit there, the next x does.
    let line = format!("set a {}\n:a\necho x${{a}}\ngoto a", "é".repeat(4000));
    let report = run_files(&[("start.ipxe", &line)]);
    assert!(report.outcome.is_err());
    assert_eq!((report.console.len(), report.console.ends_with("éx")), (65_536, true));
}

/// Words that make random lines likely to mean something.
fn word() -> impl Strategy<Value = String> {
    let known = [
        "set",
        "echo",
        "chain",
        "imgfree",
        "initrd",
        "kernel",
        "boot",
        "sleep",
        "reboot",
        "isset",
        "iseq",
        "goto",
        "||",
        "&&",
        ";",
        "#",
        ":a",
        "a",
        "b",
        "start.ipxe",
        "other.ipxe",
        "kernel",
        "${a}",
        "${${a}}",
        "${mac:hexhyp}",
        "${",
        "}",
        "1",
        "-n",
        "--replace",
        "/",
        "..",
        "http://192.168.183.1/boot/other.ipxe",
        "\\",
        "%2",
        "${a:hex}",
    ];
    prop_oneof![4 => prop::sample::select(known.to_vec()).prop_map(str::to_owned), 1 => ".{0,12}"]
}

fn any_script() -> impl Strategy<Value = String> {
    let line = prop::collection::vec(word(), 0..8).prop_map(|words| words.join(" "));
    prop::collection::vec(line, 0..20).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #[test]
    fn random_scripts_end(start in any_script(), other in any_script()) {
        let report = run_files(&[("start.ipxe", &start), ("other.ipxe", &other)]);
        prop_assert!(report.console.len() <= MAX_CONSOLE);
        if let Err(error) = report.outcome {
            prop_assert!(error.line >= 1 && !error.file.is_empty());
        }
    }

    #[test]
    fn random_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let mut script = b"#!ipxe\n".to_vec();
        script.extend(bytes);
        let files = Memory(BTreeMap::from([("start.ipxe".to_owned(), script)]));
        prop_assert!(run(&machine(), "start.ipxe", &files).outcome.is_err());
    }
}
