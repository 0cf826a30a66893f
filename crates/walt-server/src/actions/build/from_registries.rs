//! Finds the image of `FROM name` in the registries.
//!
//! ```text
//! debian:12 ─▶ at the hub library/debian; elsewhere debian, then library/debian, as mirrors of the hub have it
//! ann/x     ─▶ ann/x everywhere
//! host/a/b  ─▶ a/b at the registry of that host, which must be one of the configuration
//! ```
//! They are asked in the order of the configuration, and the first one that has the image is used. A registry that
//! does not answer costs a note. The server never contacts a host that is not in the configuration: otherwise, users
//! could scan networks through it.

use crate::{
    actions::build::CredentialSource,
    base::registry_config::{Kind, RegistryConfig},
    services::registries::{
        Registries,
        links::{path_part, tag_ok},
        open_impatient,
        pull::{self, RemoteImage},
        with_time_limit,
    },
};
use walt_registry::{Error, Platform};
use walt_types::{DEFAULT_TAG, Hash256};

/// Longest name.
const NAME_MAX: usize = 255;
/// Names of the docker hub in image names.
const HUB_HOSTS: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];
/// Where the hub keeps images without an owner.
const LIBRARY: &str = "library";

/// An image name in docker's syntax (distribution/reference): `[host/]path[:tag][@digest]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    host: Option<String>,
    path: String,
    tag: String,
    /// Digest of the image; it takes precedence over the tag.
    pub digest: Option<Hash256>,
}

impl Name {
    /// Reads a name.
    ///
    /// # Errors
    /// The name is invalid; the text says why.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = |why: &str| Err(format!("'{text}' is not a valid image name: {why}"));
        if text.len() > NAME_MAX {
            return bad("it is too long");
        }
        let (rest, digest) = match text.split_once('@') {
            None => (text, None),
            Some((rest, digest)) => match digest.strip_prefix("sha256:").map(str::parse) {
                Some(Ok(digest)) => (rest, Some(digest)),
                _ => return bad("a digest is @sha256: and 64 hexadecimal digits"),
            },
        };
        let (host, rest) = match rest.split_once('/') {
            Some((first, path)) if first == "localhost" || first.contains(['.', ':']) => {
                (Some(first.to_ascii_lowercase()), path)
            }
            _ => (None, rest),
        };
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, tag),
            _ => (rest, DEFAULT_TAG),
        };
        if !tag_ok(tag) {
            return bad("its tag may have letters, digits, '.', '_' and '-' only");
        }
        if !path.split('/').all(path_part) {
            return bad(
                "its parts must consist of a-z, 0-9, '.', '_' and '-', and begin with a letter or a digit",
            );
        }
        Ok(Self { host, path: path.to_owned(), tag: tag.to_owned(), digest })
    }

    /// Whether it may name an image of this server, since it has no host.
    pub fn is_local(&self) -> bool {
        self.host.is_none()
    }

    /// The tag or digest to request from a registry.
    fn reference(&self) -> String {
        match &self.digest {
            Some(digest) => format!("sha256:{digest}"),
            None => self.tag.clone(),
        }
    }

    /// The repositories of a registry to look in; none if the name has another host.
    fn repositories(&self, registry: &RegistryConfig) -> Vec<String> {
        let hub = registry.api == Kind::DockerHub;
        let library = (!self.path.contains('/')).then(|| format!("{LIBRARY}/{}", self.path));
        if let Some(host) = &self.host {
            let endpoint = registry.endpoint();
            let with_port = format!("{}:{}", endpoint.host, endpoint.port);
            let here = host.eq_ignore_ascii_case(&endpoint.to_string())
                || host.eq_ignore_ascii_case(&with_port)
                || (hub && HUB_HOSTS.contains(&host.as_str()));
            return match library {
                _ if !here => Vec::new(),
                Some(library) if hub => vec![library],
                _ => vec![self.path.clone()],
            };
        }
        let all = match library {
            Some(library) if hub => vec![library],
            Some(library) => vec![self.path.clone(), library],
            None => vec![self.path.clone()],
        };
        match &registry.repository {
            Some(first) => all.into_iter().map(|path| format!("{first}/{path}")).collect(),
            None => all,
        }
    }
}

/// An image of a registry.
pub struct RegistryBase {
    /// The image.
    pub image: RemoteImage,
    /// Where it is: label, repository, tag, and the digest of the tag.
    pub place: String,
}

/// Why a registry does not provide an image.
enum Unavailable {
    /// It does not have it.
    Absent,
    /// It asks for credentials.
    NeedsCredentials(String),
    /// It cannot be reached.
    Unreachable(String),
    /// It failed, or its image cannot be used.
    Failed(String),
}

/// Asks the registries for an image, for one of these platforms.
///
/// # Errors
/// No registry provides the image; the text lists the reasons.
pub async fn find(
    registries: &Registries,
    name: &Name,
    text: &str,
    platforms: &[Platform],
    credentials: &CredentialSource<'_>,
) -> Result<RegistryBase, String> {
    let places: Vec<_> = registries
        .config()
        .registries
        .iter()
        .map(|r| (r, name.repositories(r)))
        .filter(|(_, repositories)| !repositories.is_empty())
        .collect();
    if let (Some(host), true) = (&name.host, places.is_empty()) {
        return Err(no_such_host(registries, host));
    }
    let (mut reasons, mut need_credentials) = (Vec::new(), Vec::new());
    for (registry, repositories) in &places {
        let label = &registry.label;
        match ask_registry(registry, repositories, name, platforms, credentials, false).await {
            Ok(base) => return Ok(base),
            Err(Unavailable::Absent) => reasons.push(format!("{label} does not have it")),
            Err(Unavailable::Unreachable(why)) => {
                credentials.report_unreachable(label, &why).await;
                reasons.push(format!("{label}: {why}"));
            }
            Err(Unavailable::Failed(why)) => {
                credentials.report_ignored(label, &why).await;
                reasons.push(format!("{label}: {why}"));
            }
            Err(Unavailable::NeedsCredentials(why)) => need_credentials.push((registry, repositories, why)),
        }
    }
    // The user is asked for a password only if no other registry has the image.
    for (registry, repositories, why) in need_credentials {
        let label = &registry.label;
        match ask_registry(registry, repositories, name, platforms, credentials, true).await {
            Ok(base) => return Ok(base),
            Err(Unavailable::Absent) => reasons.push(format!("{label} does not have it")),
            Err(Unavailable::Failed(why) | Unavailable::Unreachable(why)) => {
                reasons.push(format!("{label}: {why}"))
            }
            Err(Unavailable::NeedsCredentials(_)) => {
                reasons.push(format!("{label}: {why} (see 'walt help show registries')"))
            }
        }
    }
    let here = if name.is_local() { "it is not an image of this server, " } else { "" };
    let there = match reasons.is_empty() {
        true => "and no registry is configured".to_owned(),
        false => format!("the registries were asked: {}", reasons.join("; ")),
    };
    Err(format!("cannot find the image '{text}': {here}{there}"))
}

fn no_such_host(registries: &Registries, host: &str) -> String {
    let known = registries.config().registries.iter().map(|r| format!("{} ({})", r.label, r.endpoint()));
    let known: Vec<String> = known.collect();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    format!(
        "'{host}' is not one of this server's registries: {known}. Its administrator adds one to 'registries' in the \
         configuration (see 'walt help show registries')"
    )
}

/// Looks for the image in one registry.
async fn ask_registry(
    registry: &RegistryConfig,
    repositories: &[String],
    name: &Name,
    platforms: &[Platform],
    credentials: &CredentialSource<'_>,
    needed: bool,
) -> Result<RegistryBase, Unavailable> {
    if let Some(why) = credentials.why_unreachable(&registry.label) {
        return Err(Unavailable::Unreachable(why));
    }
    let given = credentials.get(registry, needed).await;
    if needed && given.is_none() {
        return Err(Unavailable::NeedsCredentials(String::new()));
    }
    credentials.busy(format!("Asking the registry {}", registry.label)).await;
    let hub = registry.api == Kind::DockerHub;
    for repository in repositories {
        let inspected = with_time_limit(&registry.label, async {
            let client = open_impatient(registry, given.as_ref())?;
            pull::inspect_base(client, registry, repository, &name.reference(), platforms).await
        });
        let image = match inspected.await {
            Ok(image) => image,
            Err(Error::NotFound { .. }) => continue,
            // The hub asks for credentials for images that it does not have, even if some were given.
            Err(Error::Credentials { given: false, .. }) if hub => continue,
            Err(Error::Credentials { given: true, .. }) if hub => {
                let why = "it does not have an image that you may read, or does not accept your credentials";
                return Err(Unavailable::Failed(why.into()));
            }
            Err(e @ Error::Credentials { .. }) => return Err(Unavailable::NeedsCredentials(e.to_string())),
            Err(e @ Error::Unreachable { .. }) => return Err(Unavailable::Unreachable(e.to_string())),
            Err(e) => return Err(Unavailable::Failed(e.to_string())),
        };
        let tag = if name.digest.is_some() { String::new() } else { format!(":{}", name.tag) };
        let place = format!("{}:{repository}{tag}@sha256:{}", registry.label, image.named());
        return Ok(RegistryBase { image, place });
    }
    Err(Unavailable::Absent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::config::Config;

    #[test]
    fn where_names_are_looked_for() {
        let text = "registries:\n\
            - {label: hub, api: docker-hub}\n\
            - {label: lab, api: docker-registry-v2, host: Reg.lab, port: 5000}\n\
            - {label: frog, api: jfrog-artifactory, host: art.lab, repository: walt}\n";
        let all = Config::parse(text).unwrap().registries;
        let digest = "a".repeat(64);
        let of = |text: &str| {
            let name = Name::parse(text).unwrap();
            let mut found = Vec::new();
            for registry in &all {
                let label = &registry.label;
                let links = name.repositories(registry).into_iter();
                found.extend(links.map(|path| format!("{label}:{path}:{}", name.reference())));
            }
            found.join(" ")
        };
        for (text, is) in [
            (
                "debian:12",
                "hub:library/debian:12 lab:debian:12 lab:library/debian:12 frog:walt/debian:12 \
                 frog:walt/library/debian:12",
            ),
            ("ann/x", "hub:ann/x:latest lab:ann/x:latest frog:walt/ann/x:latest"),
            ("docker.io/debian", "hub:library/debian:latest"),
            ("index.docker.io/library/debian:9", "hub:library/debian:9"),
            ("reg.lab:5000/a/b/c:V_1", "lab:a/b/c:V_1"),
            ("REG.lab:5000/x", "lab:x:latest"),
            ("art.lab:443/walt/x", "frog:walt/x:latest"),
            ("art.lab/walt/x", "frog:walt/x:latest"),
            ("reg.lab/x", ""),
            ("ghcr.io/a/b", ""),
            ("localhost/x", ""),
        ] {
            assert_eq!(of(text), is, "{text}");
        }
        let pinned = of(&format!("docker.io/ann/x:1@sha256:{digest}"));
        assert_eq!(pinned, format!("hub:ann/x:sha256:{digest}"));
        for bad in
            ["", "Debian", "a//b", "a/../b", "x:", "x:a b", "x@sha256:1", "x@md5:1", "a b", "x?y", "/x", "x/"]
        {
            assert!(Name::parse(bad).is_err(), "{bad}");
        }
    }
}
