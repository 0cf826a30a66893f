use super::*;

fn parse_words(line: &str) -> Result<CommandLine, Failure> {
    parse(line.split_whitespace().map(OsString::from).collect())
}

fn debug(line: &str) -> String {
    match parse_words(line) {
        Ok(line) => format!("{:?}", line.category),
        Err(failure) => panic!("{line}: {}", failure.text()),
    }
}

#[test]
fn the_grammar_itself_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn accepted_lines() {
    for (line, wanted) in [
        ("node show", "all: false"),
        ("node show --all --json", "all: true, names_only: false, json: true"),
        (
            "node boot vn1 default -y",
            r#"node_set: "vn1", image_name_or_default: "default", confirmed: Confirmed { yes: true }"#,
        ),
        ("node boot --yes vn1 default", "yes: true"),
        ("node deploy vn1,vn2 x:v1", r#"Deploy(Boot { node_set: "vn1,vn2""#),
        ("node acquire vn1", "span: None, queue: false"),
        ("node acquire --queue --for 2h vn1", "span: Some(Span(7200)), queue: true"),
        ("node lease vn1", "change: None"),
        ("node lease vn1 +1h", "change: Some(Later(Span(3600)))"),
        ("node lease vn1 -30m", "change: Some(Earlier(Span(1800)))"),
        ("node lease --hold vn1 -- make -k", r#"grace: Span(60) }, command: ["make", "-k"]"#),
        ("node wait --timeout -5 vn1", "timeout: -5"),
        ("node wait vn1 --timeout=5", "timeout: 5"),
        ("node wait vn1", "timeout: -1"),
        ("node config vn1", "configuration: []"),
        ("node link", "node_set: None, network: None, changes: []"),
        (
            "node link vn1 lab lat=1ms loss.up=1% --for 2m",
            r#"changes: ["lat=1ms", "loss.up=1%"], duration: Some(Span(120))"#,
        ),
        ("node config vn1 cpu.cores=2 ram=1G", r#"configuration: ["cpu.cores=2", "ram=1G"]"#),
        ("node run vn1 ls -l --all", r#"cmdargs: ["ls", "-l", "--all"], term: false"#),
        ("node run --term vn1 -- ls -l", r#"cmdargs: ["ls", "-l"], term: true"#),
        ("node run vn1 ls -- -l", r#"cmdargs: ["ls", "--", "-l"]"#),
        ("node run vn1 --help", r#"cmdargs: ["--help"]"#),
        ("node run -- vn1 ls -l", r#"node_set: "vn1", cmdargs: ["ls", "-l"]"#),
        ("image shell x", "save: None"),
        ("image shell x --save", r#"image_name: "x", save: Some("")"#),
        ("image shell --save x", r#"image_name: "x", save: Some("")"#),
        ("image shell --save=y x", r#"image_name: "x", save: Some("y")"#),
        ("image shell --resume x --save", "resume: true"),
        ("image clone walt:a/b", "image_name: None, force: false"),
        ("image clone walt:a/b c --force", r#"image_name: Some("c"), force: true"#),
        ("image show --refresh", "refresh: true"),
        ("image search", "keyword: None, json: false"),
        ("image search --json rpi", r#"keyword: Some("rpi"), json: true"#),
        ("image publish x", r#"image_name: "x", registry: "auto""#),
        ("image publish --registry lab x:v1", r#"image_name: "x:v1", registry: "lab""#),
        ("advanced update-default-images", "UpdateDefaultImages"),
        ("advanced update-hub-meta", "UpdateHubMeta"),
        ("advanced rescan-hub-account --waltplatform-user", "UpdateHubMeta"),
        ("registry serve --port 0", "port: 0"),
        ("registry login", "port: 5050"),
        ("help show", r#"topic: "help-intro""#),
        ("help show -- shells", r#"topic: "shells""#),
        ("proxy", "Proxy"),
    ] {
        let got = debug(line);
        assert!(got.contains(wanted), "{line}: {got}");
    }
}

#[test]
fn refused_lines() {
    for (line, reason) in [
        ("node show --al", "unknown option '--al'"),
        ("node show --all --all", "cannot be used multiple times"),
        ("node show x", "unexpected argument 'x'"),
        ("node boot vn1", "missing image_name_or_default"),
        ("node wait --timeout x vn1", "invalid value 'x'"),
        ("node wait --timeout", "a value is required"),
        ("node link vn1 lab down --for 5", "must be a time span"),
        ("node reboot vn1 --hard --hard", "cannot be used multiple times"),
        ("node run vn1", "missing cmdargs"),
        ("node run", "missing node_set"),
        ("node run --bad vn1 ls", "unknown option '--bad'"),
        ("image shell --discard --save x", "cannot be used with"),
        ("image show --json --names-only", "--json cannot be used with --names-only"),
        ("image build x", "missing --from-dir or --from-url"),
        ("image build --from-dir a --from-url b x", "--from-dir cannot be used with --from-url"),
        ("image build --sub-dir a --from-dir b x", "--sub-dir cannot be used with --from-dir"),
        ("image rollback x y", "invalid value 'y' for version: a whole number is expected"),
        ("registry serve --port 70000", "invalid value '70000' for --port: 70000 is not in 0..=65535"),
        ("registry serve --port x", "invalid value 'x' for --port: a whole number is expected"),
        ("registry login --port 1 --port=2", "--port cannot be used multiple times"),
        ("image shell --save=a --save x", "--save cannot be used multiple times"),
        ("image shell --discard --save=a x", "--discard cannot be used with --save"),
        ("nodes show", "Unknown sub-command 'nodes'"),
        ("node shw", "Unknown sub-command 'shw'"),
        ("--bad", "unknown option '--bad'"),
        ("image -x", "unknown option '-x'"),
    ] {
        match parse_words(line) {
            Err(Failure::Usage { reason: got, help, status }) => {
                assert_eq!(status, if reason.starts_with("Unknown sub-command") { 1 } else { 2 }, "{line}");
                assert!(got.contains(reason), "{line}: {got}");
                assert!(!got.contains('\n') && help.is_some_and(|h| !h.is_empty()), "{line}");
            }
            other => panic!("{line}: {other:?}"),
        }
    }
}

#[test]
fn help_texts() {
    let shown = |line: &str| match parse_words(line) {
        Err(Failure::Help { text, status }) => (text, status),
        other => panic!("{line}: {other:?}"),
    };
    for line in ["", "node", "image", "help"] {
        let (text, status) = shown(line);
        assert!(text.starts_with("No sub-command given\n------\n\nWalT platform control tool"), "{text}");
        assert_eq!(status, 1, "{line}");
    }
    let (top, status) = shown("--help");
    assert_eq!(status, 0);
    assert!(top.contains("\nCategories:\n    image     management"), "{top}");
    assert!(!top.contains("proxy"), "{top}");
    assert!(
        shown("node -h").0.contains("-> management of nodes\n\nUsage:\n    walt node SUBCOMMAND [args...]\n")
    );
    let (advanced, _) = shown("advanced -h");
    let listed: Vec<&str> = advanced.lines().skip_while(|l| *l != "Sub-commands:").skip(1).collect();
    let names: Vec<&str> = listed.iter().filter_map(|l| l.split_whitespace().next()).collect();
    // Sorted by name; an alias is listed as well.
    assert_eq!(names, ["fix-image-owner", "rescan-hub-account", "update-default-images", "update-hub-meta"]);
    assert!(listed[1].ends_with("the same as 'update-hub-meta'"), "{advanced}");
    let (leaf, status) = shown("node wait --help");
    assert_eq!(status, 0);
    assert_eq!(
        leaf,
        "wait until nodes have booted

Usage:
    walt node wait [SWITCHES] node_set

It goes on over a restart of the server. It fails if a node needs a look: 'walt help show node-reboot'.

Meta-switches:
    -h, --help  Prints this help message and quits

Switches:
    --timeout SECONDS:int  stop if still waiting after this number of seconds; -1, the default, means no limit
"
    );
    assert!(
        shown("image clone -h")
            .0
            .contains("walt image clone [SWITCHES] clonable_image_link [image_name=None]")
    );
    assert!(shown("image shell -h").0.contains("    --save[=NAME:str]  save"));
    assert!(shown("image publish -h").0.contains("  registry to publish to; the default is auto\n"));
    let cp = "Usage:\n    walt image cp <local-path> <image>:<path>\n    walt image cp <image>:<path> <local-path>\n\nMeta";
    assert!(shown("image cp -h").0.contains(cp));
    assert!(shown("node cp -h").0.contains("\n    walt node cp <node>:<path> booted-image\n\nMeta"));
    let build = "<image-name>\n\nSee 'walt help show image-build' for more info.\n\nMeta";
    assert!(shown("image build -h").0.contains(build));
    assert!(shown("help show -h").0.contains("[topic=help-intro]"));
    assert!(shown("node run -h").0.contains("walt node run [SWITCHES] node_set cmdargs..."));
}
