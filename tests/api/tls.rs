//! Registries with TLS: Debian's docker-registry with certificates of an authority of the test's own. Names by JFrog's
//! rules.

use crate::registries::{id_of, is_installed, line, run, server_with, walt_at};
use std::fs;
use std::path::{Path, PathBuf};
use walt_testkit::{DockerRegistry, User};

const ANN: User = User::RootFor("ann");
/// A key of one's own, for openssl-req(1).
const NEW_KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

/// An authority, which signs a certificate for each of `hosts` (as openssl names them, `IP:127.0.0.1`); certificate and
/// key each.
fn certificates(dir: &Path, hosts: &[&str]) -> (PathBuf, Vec<(PathBuf, PathBuf)>) {
    let at = |name: String| dir.join(name).display().to_string();
    let (ca, ca_key) = (at("ca.pem".into()), at("ca.key".into()));
    let authority =
        ["-x509", "-days", "2", "-subj", "/CN=authority of a test", "-out", &ca, "-keyout", &ca_key];
    run("openssl", &[&["req"][..], &NEW_KEY, &authority].concat());
    let sign = |(number, host): (usize, &&str)| {
        let [certificate, own_key, request, extensions] =
            ["pem", "key", "csr", "ext"].map(|kind| at(format!("{number}.{kind}")));
        fs::write(&extensions, format!("subjectAltName={host}\n")).unwrap();
        let names = ["-subj", "/CN=registry of a test", "-out", &request, "-keyout", &own_key];
        run("openssl", &[&["req"][..], &NEW_KEY, &names].concat());
        let by = ["-CA", &ca, "-CAkey", &ca_key, "-CAcreateserial", "-days", "2", "-extfile", &extensions];
        run("openssl", &[&["x509", "-req", "-in", &request, "-out", &certificate][..], &by].concat());
        (certificate.into(), own_key.into())
    };
    let all = hosts.iter().enumerate().map(sign).collect();
    (ca.into(), all)
}

#[test]
fn a_registry_is_trusted_by_its_certificate() {
    if !DockerRegistry::is_installed() || !is_installed("openssl") {
        return;
    }
    let room = tempfile::tempdir_in("/var/tmp").unwrap();
    let (ca, signed) = certificates(room.path(), &["IP:127.0.0.1", "DNS:elsewhere.example"]);
    let start = |name: &str, users, (certificate, key): &(PathBuf, PathBuf)| {
        DockerRegistry::start_with_tls(&room.path().join(name), users, certificate, key)
    };
    let (right, wrong) = (start("right", true, &signed[0]), start("wrong", false, &signed[1]));
    // An authority as a server, as many who sign for themselves have it.
    let [own, own_key] = ["own.pem", "own.key"].map(|name| room.path().join(name));
    let files = ["-out", own.to_str().unwrap(), "-keyout", own_key.to_str().unwrap()];
    let itself = ["-x509", "-days", "2", "-subj", "/CN=itself", "-addext", "subjectAltName=IP:127.0.0.1"];
    run("openssl", &[&["req"][..], &NEW_KEY, &itself, &files].concat());
    let itself = start("itself", false, &(own.clone(), own_key));
    let plain = DockerRegistry::start(&room.path().join("plain"), false);
    let entry = |label: &str, port: u16, more: &str| {
        format!("- {{label: {label}, api: docker-registry-v2, host: 127.0.0.1, port: {port}, {more}}}\n")
    };
    let trusted = format!("ca: {}", ca.display());
    let config = [
        entry("safe", right.port, &format!("{trusted}, auth: basic")),
        entry("stranger", right.port, "auth: basic"),
        entry("blind", right.port, "protocol: https-no-verify, auth: basic"),
        entry("wrong", wrong.port, &format!("{trusted}, auth: none")),
        entry("itself", itself.port, &format!("ca: {}, auth: none", own.display())),
        entry("plain", plain.port, &format!("{trusted}, auth: none")),
        entry("lost", right.port, "ca: /nonexistent/ca.pem, auth: none"),
        line("frog", plain.port, "none")
            .replace("docker-registry-v2", "jfrog-artifactory, repository: docker/walt-1"),
    ]
    .concat();
    let server = server_with(&config, &[]);
    let home = room.path().join("home");
    fs::create_dir(&home).unwrap();
    let file = room.path().join("auth.json");
    let auth = |text: &str| {
        fs::write(&file, format!(r#"{{"auths":{{"{}":{{"auth":"{text}"}}}}}}"#, right.host())).unwrap();
    };
    let env = [("REGISTRY_AUTH_FILE", file.to_str().unwrap())];
    let publish =
        |label: &str| walt_at(&server, &home, &env, &["image", "publish", "--registry", label, "mine"]);
    server.walt(ANN, &["image", "duplicate", "pc-x86-64", "mine"]).ok();
    let id = id_of(&server, "ann/mine:latest");

    auth("YW5uOndyb25n"); // ann:wrong
    let (status, _, said) = publish("safe");
    assert!(
        status == Some(1) && said.contains("credentials for safe registry are missing or invalid"),
        "{said}"
    );
    auth("YW5uOnNlY3JldA=="); // ann:secret
    for (label, why) in [
        ("stranger", "its certificate is not signed by an authority that this server trusts"),
        ("wrong", "its certificate is for another host ("),
        ("itself", "its certificate is that of an authority, not of a server"),
        ("plain", "it does not speak TLS (does it need 'protocol: http'?)"),
        ("lost", "cannot read certificates in /nonexistent/ca.pem"),
    ] {
        let (status, out, said) = publish(label);
        assert!(status == Some(1) && out.is_empty() && said.lines().count() <= 3, "{label}: {out}{said}");
        assert!(said.contains(&format!("Failed to communicate with {label} registry. Aborted.")), "{said}");
        assert!(said.lines().any(|l| l.contains(why)), "{label}: {said}");
    }
    let (status, out, said) = publish("safe");
    assert_eq!((status, out.as_str()), (Some(0), "OK, image was published at:\nsafe:ann/mine\n"), "{said}");
    let (status, out, said) = walt_at(&server, &home, &env, &["image", "search", "mine"]);
    assert!(
        status == Some(0) && out.contains("safe:ann/mine") && out.contains("blind:ann/mine"),
        "{out}{said}"
    );
    assert!(!out.contains("stranger:") && said.contains("Ignoring stranger registry"), "{out}{said}");
    for label in ["safe", "blind"] {
        let link = format!("{label}:ann/mine");
        let (status, _, said) = walt_at(&server, &home, &env, &["image", "clone", &link, label]);
        assert_eq!(status, Some(0), "{said}");
        assert_eq!(id_of(&server, &format!("ann/{label}:latest")), id);
    }

    // JFrog: one repository, whoever publishes.
    let (status, out, said) = publish("frog");
    assert_eq!(
        (status, out.as_str()),
        (Some(0), "OK, image was published at:\nfrog:docker/walt-1/mine\n"),
        "{said}"
    );
    let found = server.walt(ANN, &["image", "search", "frog:"]).ok();
    assert!(found.contains("frog:docker/walt-1/mine"), "{found}");
    server.walt(ANN, &["image", "clone", "frog:docker/walt-1/mine", "leaped"]).ok();
    assert_eq!(id_of(&server, "ann/leaped:latest"), id);

    // A machine whose own store has the authority needs no setting.
    let second = server_with(
        &entry("stranger", right.port, "auth: basic"),
        &[("SSL_CERT_FILE", ca.to_str().unwrap())],
    );
    let (status, _, said) = walt_at(&second, &home, &env, &["image", "clone", "stranger:ann/mine"]);
    assert_eq!(status, Some(0), "{said}");
    assert_eq!(id_of(&second, "ann/mine:latest"), id);
}
