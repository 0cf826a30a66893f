//! The registry client against a registry that breaks off, stalls, lies, and talks nonsense.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking: unwrap is their assertion")]

mod fake;

use fake::{Answer, Fake};
use std::{sync::Arc, time::Duration};
use walt_images::{ImageConfig, RunConfig, Store};
use walt_registry::{
    Credentials, Endpoint, Error, Limits, Protocol, Registry, Result, Wanted,
    manifest::digest_of,
    pull::{Progress, Pull, Resolved, resolve},
    push,
};

/// Where the test's stores lie: an overlay has no device files.
const DISK: &str = "/var/tmp";

struct Stored(Store);

impl AsRef<Store> for Stored {
    fn as_ref(&self) -> &Store {
        &self.0
    }
}

fn new_store() -> (tempfile::TempDir, Arc<Stored>) {
    let dir = tempfile::tempdir_in(DISK).unwrap();
    let store = Store::open(dir.path()).unwrap();
    (dir, Arc::new(Stored(store)))
}

fn client_of(fake: &Fake, credentials: Option<(&str, &str)>) -> Arc<Registry> {
    client_with(fake, credentials, Limits::default().repetitions)
}

fn client_with(fake: &Fake, credentials: Option<(&str, &str)>, repetitions: u32) -> Arc<Registry> {
    let endpoint = Endpoint { host: "127.0.0.1".into(), port: fake.port, protocol: Protocol::Http, ca: None };
    let credentials =
        credentials.map(|(user, password)| Credentials { username: user.into(), password: password.into() });
    let limits = Limits {
        answer: Duration::from_millis(1500),
        stall: Duration::from_millis(1500),
        pause: Duration::from_millis(10),
        repetitions,
        ..Limits::default()
    };
    Arc::new(Registry::new(endpoint, credentials, limits).unwrap())
}

/// A tar with one file that does not compress well.
fn tar(name: &str, size: usize) -> Vec<u8> {
    let mut state = size as u64 + 1;
    let content: Vec<u8> = (0..size)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect();
    let dir = tempfile::tempdir_in(DISK).unwrap();
    std::fs::write(dir.path().join(name), content).unwrap();
    let made = std::process::Command::new("tar").arg("-C").arg(dir.path()).args(["-cf", "-", name]).output();
    made.unwrap().stdout
}

/// An image of two layers in a store.
fn image(store: &Store) -> walt_types::ImageId {
    let mut config =
        ImageConfig { architecture: "amd64".into(), os: "linux".into(), ..ImageConfig::default() };
    let labels = [("walt.node.models".to_owned(), "pc-x86-64".to_owned())];
    config.config = Some(RunConfig { labels: Some(labels.into()), ..RunConfig::default() });
    for tar in [tar("large", 3 << 20), tar("small", 10)] {
        let layer = store.import_tar(&tar[..]).unwrap();
        config.push_layer(&layer.diff_id, Default::default());
    }
    store.put_config(&config).unwrap()
}

async fn publish(client: &Registry, store: &Arc<Stored>, image: &walt_types::ImageId) -> Result<()> {
    let mut blobs = Vec::new();
    for layer in store.0.config(image)?.layers()? {
        blobs.push(
            push::layer(client, "ann/x", layer, Vec::new(), store.clone(), &Progress::default()).await?,
        );
    }
    let config = store.0.config_bytes(image)?;
    push::finish(client, "ann/x", "latest", &config, &blobs).await.map(|_| ())
}

async fn resolved(client: &Registry) -> Result<Resolved> {
    resolve(client, "ann/x", "latest", Wanted::Models(&["pc-x86-64".into()]), |_| true).await
}

async fn fetch(client: &Arc<Registry>, store: &Arc<Stored>) -> Result<walt_types::ImageId> {
    let image = resolved(client).await?;
    let progress = Progress::default();
    let mut pull = Pull::start(client, "ann/x", &image.layers, store, &progress);
    let layers: Vec<_> = image.layers.iter().map(|l| l.diff_id).collect();
    while let Some(unpacked) = pull.next().await {
        store.0.keep_layers(vec![unpacked?], &layers)?;
    }
    assert_eq!(progress.bytes(), image.layers.iter().map(|l| l.size).sum::<u64>(), "no byte counts twice");
    Ok(store.0.put_config_bytes(&image.config_bytes)?)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(future)
}

#[test]
fn what_was_pushed_comes_back_whatever_happens_on_the_way() {
    let (_one, ours) = new_store();
    let image = image(&ours.0);
    let fake = Fake::start();
    block_on(async {
        publish(&client_of(&fake, None), &ours, &image).await.unwrap();
        // Cuts: every answer with bytes ends after some of them, once with ranges, once without.
        for ranges in [true, false] {
            fake.set(move |request, answer| {
                answer.ranges = ranges;
                if request.path.contains("/blobs/") && answer.body.len() > 500_000 {
                    // Without ranges, each answer has to get further than the last one.
                    let more = 1_200_000 * (request.count + 1);
                    answer.cut = Some(if ranges { 1_200_000 } else { more });
                }
            });
            let (_two, theirs) = new_store();
            assert_eq!(fetch(&client_of(&fake, None), &theirs).await.unwrap(), image, "ranges: {ranges}");
            for layer in ours.0.config(&image).unwrap().layers().unwrap() {
                let (mut a, mut b) = (Vec::new(), Vec::new());
                ours.0.export_layer(&layer, &mut a).unwrap();
                theirs.0.export_layer(&layer, &mut b).unwrap();
                assert!(a == b, "a layer comes back byte for byte");
            }
        }
        assert!(fake.seen(|r| r.range.is_some()), "it goes on where it was cut");
        // An interrupted upload starts from the beginning.
        let again = Fake::start();
        again.set(|request, answer| {
            if request.method == "PUT" && request.path.contains("/uploads/") && request.count == 0 {
                *answer = Answer::status(503);
            }
        });
        publish(&client_of(&again, None), &ours, &image).await.unwrap();
        assert!(again.manifest().contains(&image.oci()));
        // What is there is not sent again, and gets the same digests.
        let manifest = again.manifest();
        again.forget_requests();
        publish(&client_of(&again, None), &ours, &image).await.unwrap();
        assert_eq!(again.manifest(), manifest);
        assert!(!again.seen(|r| r.path.contains("/uploads/")), "layers that are there are not sent");
    });
}

#[test]
fn lies_and_nonsense_are_refused() {
    let (_one, ours) = new_store();
    let image = image(&ours.0);
    let fake = Fake::start();
    block_on(async {
        publish(&client_of(&fake, None), &ours, &image).await.unwrap();
        let fails = async |what: &str, says: &str, change: fn(&fake::Request, &mut Answer)| {
            fake.set(change);
            let (dir, theirs) = new_store();
            let error = fetch(&client_with(&fake, None, 1), &theirs).await.expect_err(what);
            assert!(error.to_string().contains(says), "{what}: {error}");
            let left = |name: &str| std::fs::read_dir(dir.path().join("images").join(name)).unwrap().count();
            // A blob that is unpacked may be the small one, which was right.
            assert!(left("layers") <= 1 && left("configs") == 0, "{what}");
            error
        };
        fails("a changed byte", "has the digest", |request, answer| {
            if request.path.contains("/blobs/") && answer.body.len() > 500_000 {
                answer.body[400_000] ^= 1;
            }
        })
        .await;
        fails("a longer blob", "is longer than", |request, answer| {
            if request.path.contains("/blobs/") && answer.body.len() > 500_000 {
                answer.body.push(0);
            }
        })
        .await;
        fails("a shorter blob", "ended after", |request, answer| {
            if request.path.contains("/blobs/") && answer.body.len() > 500_000 {
                answer.body.truncate(400_000);
            }
        })
        .await;
        fails("another configuration", "has the wrong size or digest", |request, answer| {
            if request.path.contains("/blobs/") && answer.body.starts_with(b"{") {
                answer.body[1] ^= 1;
            }
        })
        .await;
        fails("a page", "not valid", |request, answer| {
            if request.path.contains("/manifests/") {
                answer.body = b"<html>Sign in</html>".to_vec();
            }
        })
        .await;
        fails("a flood", "more than", |request, answer| {
            if request.path.contains("/manifests/") {
                answer.body = vec![b' '; 9 << 20];
            }
        })
        .await;
        fails("an endless redirection", "redirections", |request, answer| {
            if request.path.contains("/manifests/") {
                *answer = Answer::status(307);
                answer.headers.push(format!("Location: {}", request.path));
            }
        })
        .await;
        let slow = fails("a stalled blob", "no data for", |request, answer| {
            if request.path.contains("/blobs/") && answer.body.len() > 500_000 {
                answer.stall = Some(300_000);
            }
        })
        .await;
        assert!(slow.is_transient());
        fails("silence", "no answer in", |_, answer| answer.stall = Some(0)).await;
        fails("a failure", "answered 500", |_, answer| *answer = Answer::status(500)).await;
        // A layer that is what the manifest says, and not what the image says.
        let (_other, other) = new_store();
        let layer = other.0.import_tar(&tar("other", 100)[..]).unwrap().diff_id;
        fake.set(|_, _| {});
        let client = client_of(&fake, None);
        let blob = push::layer(&client, "ann/x", layer, Vec::new(), other.clone(), &Progress::default())
            .await
            .unwrap();
        let mut wrong = resolved(&client).await.unwrap();
        wrong.layers[1].digest = blob.digest;
        wrong.layers[1].size = blob.size;
        let blobs = wrong.layers.clone();
        push::finish(&client, "ann/x", "latest", &wrong.config_bytes, &blobs).await.unwrap();
        let (_two, theirs) = new_store();
        let error = fetch(&client, &theirs).await.unwrap_err();
        assert!(error.to_string().contains("as the image's configuration says"), "{error}");
    });
}

#[test]
fn who_asks_is_told_to_the_registry_alone() {
    let (_one, ours) = new_store();
    let image = image(&ours.0);
    // Tokens: the realm is the registry itself, and wants user and password.
    let fake = Fake::start();
    let port = fake.port;
    let token = move |request: &fake::Request, answer: &mut Answer| {
        if request.path.starts_with("/token") {
            let known = request.authorization.as_deref() == Some("Basic YW5uOnNlY3JldA==");
            let scope = request.path.contains("scope=repository%3Aann%2Fx%3A");
            *answer = if known && scope {
                Answer::ok(br#"{"access_token":"t0ken","expires_in":60}"#)
            } else {
                Answer::status(401)
            };
        } else if request.authorization.as_deref() != Some("Bearer t0ken") {
            *answer = Answer::status(401);
            answer.headers.push(format!(
                "WWW-Authenticate: Bearer realm=\"http://127.0.0.1:{port}/token\",service=\"s\""
            ));
        }
    };
    fake.set(token);
    // Basic.
    let basic = Fake::start();
    basic.set(|request, answer| {
        if request.authorization.as_deref() != Some("Basic YW5uOnNlY3JldA==") {
            *answer = Answer::status(401);
            answer.headers.push("WWW-Authenticate: Basic realm=\"x\"".into());
        }
    });
    block_on(async {
        for fake in [&fake, &basic] {
            let ann = client_of(fake, Some(("ann", "secret")));
            ann.ping().await.unwrap_or_else(|e| assert!(matches!(e, Error::Credentials { .. }), "{e}"));
            publish(&ann, &ours, &image).await.unwrap();
            resolved(&ann).await.unwrap();
            for (credentials, given) in [(Some(("ann", "wrong")), true), (None, false)] {
                let error = resolved(&client_of(fake, credentials)).await.unwrap_err();
                assert!(matches!(error, Error::Credentials { given: g, .. } if g == given), "{error}");
                assert!(!error.to_string().contains("wrong"));
            }
        }
        // A blob is on another host, which does not get the credentials.
        let elsewhere = Fake::start();
        let store_at = elsewhere.port;
        elsewhere.take_from(&basic);
        basic.set(move |request, answer| {
            if request.authorization.is_none() {
                *answer = Answer::status(401);
                answer.headers.push("WWW-Authenticate: Basic realm=\"x\"".into());
            } else if request.path.contains("/blobs/") {
                *answer = Answer::status(307);
                answer.headers.push(format!("Location: http://127.0.0.1:{store_at}{}", request.path));
            }
        });
        let (_two, theirs) = new_store();
        assert_eq!(fetch(&client_of(&basic, Some(("ann", "secret"))), &theirs).await.unwrap(), image);
        assert!(elsewhere.seen(|r| r.path.contains("/blobs/")));
        assert!(!elsewhere.seen(|r| r.authorization.is_some()));
    });
}

#[test]
fn lists_and_indexes() {
    let (_one, ours) = new_store();
    let image = image(&ours.0);
    let fake = Fake::start();
    block_on(async {
        let client = client_of(&fake, None);
        publish(&client, &ours, &image).await.unwrap();
        fake.set(|request, answer| {
            if request.path.starts_with("/v2/_catalog") {
                let last = request.path.contains("last=b");
                let page = if last { r#"{"repositories":["c"]}"# } else { r#"{"repositories":["a","b"]}"# };
                *answer = Answer::ok(page.as_bytes());
                if !last {
                    answer.headers.push("Link: </v2/_catalog?n=2&last=b>; rel=\"next\"".into());
                }
            } else if request.path.starts_with("/v2/ann/x/tags/list") {
                *answer = Answer::ok(br#"{"name":"ann/x","tags":null}"#);
            }
        });
        assert_eq!(client.catalog().await.unwrap(), ["a", "b", "c"]);
        assert!(client.tags("ann/x").await.unwrap().is_empty());
        assert!(matches!(client.tags("no/such").await, Err(Error::NotFound { .. })));
        // Of an index, the image that fits.
        let child = fake.manifest().into_bytes();
        let entry = |architecture: &str, bytes: &[u8]| {
            format!(
                r#"{{"mediaType":"x","digest":"sha256:{}","size":{},"platform":{{"os":"linux","architecture":"{architecture}"}}}}"#,
                digest_of(bytes),
                bytes.len()
            )
        };
        client
            .put_manifest("ann/x", "child", "application/vnd.oci.image.manifest.v1+json", &child)
            .await
            .unwrap();
        let index = format!(
            r#"{{"schemaVersion":2,"manifests":[{},{}]}}"#,
            entry("arm64", b"absent"),
            entry("amd64", &child)
        );
        let kind = "application/vnd.oci.image.index.v1+json";
        client.put_manifest("ann/x", "latest", kind, index.as_bytes()).await.unwrap();
        assert_eq!(resolved(&client).await.unwrap().manifest, digest_of(&child));
    });
    // Nobody listens there.
    let port = fake.port;
    drop(fake);
    let endpoint = Endpoint { host: "127.0.0.1".into(), port, protocol: Protocol::HttpsNoVerify, ca: None };
    let away = Registry::new(endpoint, None, Limits::default()).unwrap();
    let error = block_on(away.ping()).unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
}
