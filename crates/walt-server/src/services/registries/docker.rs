//! Images of a docker or podman daemon of this machine, by the docker Engine API over its unix socket (podman serves
//! it too). `DOCKER_HOST` of the server may name another socket.

use crate::{
    base::{db::blocking, events::Events, time},
    services::{
        images::{self, Images, labels},
        registries::{
            error::{self, Error},
            links::Link,
            pull::{self, PulledImage},
        },
    },
};
use anyhow::{Context, Result, bail};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    header::HOST,
};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};
use tokio::{net::UnixStream, time::timeout};
use walt_images::{
    MAX_FOREIGN_LAYERS, Skipped,
    archive::{Archive, Spool},
    cancel,
};
use walt_registry::manifest::check_layer_count;
use walt_types::{DiffId, Model};

/// Location of the daemon's images in links.
pub const LOCATION: &str = "docker";
/// Sockets of daemons.
const SOCKETS: [&str; 2] = ["/var/run/docker.sock", "/run/podman/podman.sock"];
/// How long a daemon may take to begin its answer; podman first writes an archive.
const ANSWER: Duration = Duration::from_secs(300);
/// How long it may send nothing.
const STALL: Duration = Duration::from_secs(60);
/// Largest list of images, in bytes.
const MAX_LIST: usize = 16 << 20;

fn sockets() -> Vec<PathBuf> {
    match std::env::var("DOCKER_HOST") {
        Ok(host) => host.strip_prefix("unix://").map(PathBuf::from).into_iter().collect(),
        Err(_) => SOCKETS.iter().map(PathBuf::from).collect(),
    }
}

async fn get(path: &str) -> Result<Response<Incoming>> {
    let mut tried = Vec::new();
    for socket in sockets() {
        let stream = match UnixStream::connect(&socket).await {
            Ok(stream) => stream,
            Err(e) => {
                tried.push(format!("{}: {e}", socket.display()));
                continue;
            }
        };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the answer's body.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        let request = Request::get(path).header(HOST, "docker").body(Empty::<Bytes>::new())?;
        let answer =
            timeout(ANSWER, sender.send_request(request)).await.context("the daemon does not answer")?;
        return answer.context("the daemon does not answer");
    }
    bail!("no docker or podman daemon is running on the server ({})", tried.join("; "))
}

async fn get_json<T: serde::de::DeserializeOwned>(path: &str) -> Result<Option<T>> {
    let answer = get(path).await?;
    match answer.status().as_u16() {
        200 => {}
        404 => return Ok(None),
        status => bail!("the daemon answered with status {status}"),
    }
    let body = Limited::new(answer.into_body(), MAX_LIST).collect();
    let body = timeout(ANSWER, body).await.context("the daemon stopped answering")?;
    let body = body.map_err(|e| anyhow::anyhow!("cannot read the daemon's answer: {e}"))?;
    serde_json::from_slice(&body.to_bytes()).context("cannot read the daemon's answer").map(Some)
}

/// All images of the daemon that have names, with their labels.
///
/// # Errors
/// No daemon answers.
pub async fn list() -> Result<Vec<(Link, BTreeMap<String, String>)>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Item {
        #[serde(default)]
        repo_tags: Option<Vec<String>>,
        #[serde(default)]
        labels: Option<BTreeMap<String, String>>,
    }
    let items: Vec<Item> = get_json("/images/json").await?.unwrap_or_default();
    let mut all = Vec::new();
    for item in items {
        for name in item.repo_tags.unwrap_or_default() {
            // podman prefixes local images with localhost/.
            let name = name.strip_prefix("localhost/").unwrap_or(&name);
            if let Ok(link) = Link::parse(&format!("{LOCATION}:{name}")) {
                all.push((link, item.labels.clone().unwrap_or_default()));
            }
        }
    }
    Ok(all)
}

/// An image of the daemon.
pub struct DaemonImage {
    link: Link,
    /// Models that it is compatible with.
    pub models: Vec<Model>,
}

/// Inspects an image.
pub async fn inspect(link: &Link) -> error::Result<DaemonImage> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Image {
        #[serde(default)]
        config: Option<walt_images::RunConfig>,
    }
    let name = format!("{}:{}", link.repository(), link.tag);
    let path = format!("/images/{}/json", utf8_percent_encode(&name, NON_ALPHANUMERIC));
    let found: Option<Image> = get_json(&path).await.map_err(Error::Daemon)?;
    let Some(image) = found else {
        return Err(Error::NoSuchImage);
    };
    let config = walt_images::ImageConfig { config: image.config, ..Default::default() };
    Ok(DaemonImage { link: link.clone(), models: labels::check(&config)? })
}

impl DaemonImage {
    /// Copies it into the store: spools an archive from the daemon and unpacks its layers.
    pub async fn pull(&self, images: &Arc<Images>, events: &Events) -> error::Result<PulledImage> {
        let _housekeeping = images.housekeeping_on_drop();
        let failed = Error::DaemonFailed;
        let name = format!("{}:{}", self.link.repository(), self.link.tag);
        let path = format!("/images/{}/get", utf8_percent_encode(&name, NON_ALPHANUMERIC));
        let mut answer = get(&path).await.map_err(failed)?;
        if answer.status() != 200 {
            return Err(Error::DaemonRefused { status: answer.status().as_u16() });
        }
        let mut spool = Spool::create(images.store())?;
        while let Some(frame) = timeout(STALL, answer.body_mut().frame())
            .await
            .map_err(|_| Error::DaemonSilent { limit: STALL })?
        {
            let frame = frame.map_err(|e| failed(e.into()))?;
            if let Ok(bytes) = frame.into_data() {
                blocking(|| spool.write(&bytes))?;
                events.progress("Copying", spool.bytes(), 0).await;
            }
        }
        let archive = blocking(|| Archive::open(spool)).map_err(|e| failed(e.into()))?;
        let config = archive.config().map_err(|e| failed(e.into()))?;
        labels::check(&config)?;
        let layers: Vec<DiffId> = config.layers().map_err(|e| failed(e.into()))?;
        check_layer_count(layers.len(), MAX_FOREIGN_LAYERS).map_err(Error::TooManyLayers)?;
        let archive = Arc::new(archive);
        let mut pinned = images.pins().begin();
        let mut skipped = Skipped::default();
        for (number, layer) in layers.iter().enumerate() {
            {
                let _writing = images.writing().await;
                if images.store().has_layer(layer) {
                    pinned.layer(*layer);
                    continue;
                }
            }
            let (archive, server, layer) = (archive.clone(), images.clone(), *layer);
            let client = events.clone();
            let unpack = move || server.store().unpack_layer(archive.layer(number)?, &layer);
            let work = tokio::task::spawn_blocking(move || cancel::when(move || client.is_gone(), unpack));
            let unpacked = work.await.map_err(anyhow::Error::new)?.map_err(|e| failed(e.into()))?;
            skipped.merge(unpacked.skipped());
            let _writing = images.writing().await;
            blocking(|| images.store().keep_layers(vec![unpacked], &layers))?;
            pinned.layer(layer);
        }
        let writing = images.writing().await;
        let image = pull::put_config(images, events, archive.config_bytes(), layers.len(), &writing).await?;
        pinned.image(image);
        if let Some(note) = skipped.note() {
            events.note(format!("Note: {note}")).await;
        }
        let created = images::created(&config).unwrap_or_else(|| time::now() as i64);
        Ok(PulledImage::new(image, created, pinned))
    }
}
