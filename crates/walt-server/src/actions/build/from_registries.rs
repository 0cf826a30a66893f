//! What `FROM name` of a build means at the registries.
//!
//! ```text
//! debian:12 ─▶ at the hub library/debian; elsewhere debian, then library/debian, as mirrors of the hub have it
//! ann/x     ─▶ ann/x everywhere
//! host/a/b  ─▶ a/b at the registry of that host, which must be one of the configuration
//! ```
//! They are asked in the order of the configuration; the first that has it is taken. One that cannot be asked costs a line.
//! A name never leads to a host that is not in the configuration: who builds could look around with the server's eyes.

use crate::{actions::build::Asker, services::registries::Registries};
use crate::{
    base::registry_config::{Kind, RegistryConfig},
    services::registries::{
        get::{self, Found},
        in_time,
        links::{path_part, tag_ok},
        open_one_of_all,
    },
};
use walt_registry::{Error, Platform};
use walt_types::{DEFAULT_TAG, Hash256};

/// Longest name.
const NAME_MAX: usize = 255;
/// Hosts that mean the docker hub in names.
const HUB_HOSTS: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];
/// Where the hub has images without an owner.
const LIBRARY: &str = "library";

/// A name as docker understands it (distribution/reference): `[host/]path[:tag][@digest]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    host: Option<String>,
    path: String,
    tag: String,
    /// Digest of what is meant, whatever the tag means now.
    pub digest: Option<Hash256>,
}

impl Name {
    /// Reads a name.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = |why: &str| Err(format!("'{text}' cannot name an image: {why}"));
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
            return bad("its tag has other signs than letters, digits, '.', '_', '-'");
        }
        if !path.split('/').all(path_part) {
            return bad("its parts are made of a-z, 0-9, '.', '_', '-', and begin with a letter or a digit");
        }
        Ok(Self { host, path: path.to_owned(), tag: tag.to_owned(), digest })
    }

    /// Whether it may name an image of this server: it names no host.
    pub fn is_local(&self) -> bool {
        self.host.is_none()
    }

    /// What a registry is asked for.
    fn reference(&self) -> String {
        match &self.digest {
            Some(digest) => format!("sha256:{digest}"),
            None => self.tag.clone(),
        }
    }

    /// The repositories at a registry that it may mean; none if it names another host.
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
pub struct Base {
    /// To be got.
    pub found: Found,
    /// Where it is: label, repository, tag, and the digest of what that means now.
    pub place: String,
}

/// Why a registry did not give it.
enum Without {
    /// It has none.
    Nothing,
    /// It wants to know who asks.
    Stranger(String),
    /// It cannot be reached.
    Away(String),
    /// It fails, or its image cannot be used.
    Failed(String),
}

/// Asks the registries for an image, for one of these platforms.
///
/// # Errors
/// A sentence that says which ones were asked.
pub async fn look(
    registries: &Registries,
    name: &Name,
    text: &str,
    platforms: &[Platform],
    asker: &Asker<'_>,
) -> Result<Base, String> {
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
    let (mut said, mut strangers) = (Vec::new(), Vec::new());
    for (registry, repositories) in &places {
        let label = &registry.label;
        match at(registry, repositories, name, platforms, asker, false).await {
            Ok(base) => return Ok(base),
            Err(Without::Nothing) => said.push(format!("{label} has none")),
            Err(Without::Away(why)) => {
                asker.away(label, &why).await;
                said.push(format!("{label}: {why}"));
            }
            Err(Without::Failed(why)) => {
                asker.ignoring(label, &why).await;
                said.push(format!("{label}: {why}"));
            }
            Err(Without::Stranger(why)) => strangers.push((registry, repositories, why)),
        }
    }
    // Nobody is asked for a password as long as another registry may have it.
    for (registry, repositories, why) in strangers {
        let label = &registry.label;
        match at(registry, repositories, name, platforms, asker, true).await {
            Ok(base) => return Ok(base),
            Err(Without::Nothing) => said.push(format!("{label} has none")),
            Err(Without::Failed(why) | Without::Away(why)) => said.push(format!("{label}: {why}")),
            Err(Without::Stranger(_)) => {
                said.push(format!("{label}: {why} (see 'walt help show registries')"))
            }
        }
    }
    let here = if name.is_local() { "this server has no image of that name, " } else { "" };
    let there = match said.is_empty() {
        true => "and no registry is configured that could be asked".to_owned(),
        false => format!("the registries were asked: {}", said.join("; ")),
    };
    Err(format!("there is no image '{text}': {here}{there}"))
}

fn no_such_host(registries: &Registries, host: &str) -> String {
    let known = registries.config().registries.iter().map(|r| format!("{} ({})", r.label, r.endpoint()));
    let known: Vec<String> = known.collect();
    let known = if known.is_empty() { "it has none".to_owned() } else { known.join(", ") };
    format!(
        "'{host}' is not one of this server's registries: {known}. Its administrator adds one to 'registries' in the \
         configuration (see 'walt help show registries')"
    )
}

/// Asks one registry.
async fn at(
    registry: &RegistryConfig,
    repositories: &[String],
    name: &Name,
    platforms: &[Platform],
    asker: &Asker<'_>,
    needed: bool,
) -> Result<Base, Without> {
    if let Some(why) = asker.is_away(&registry.label) {
        return Err(Without::Away(why));
    }
    let credentials = asker.credentials(registry, needed).await;
    if needed && credentials.is_none() {
        return Err(Without::Stranger(String::new()));
    }
    asker.busy(format!("Asking the registry {}", registry.label)).await;
    let hub = registry.api == Kind::DockerHub;
    for repository in repositories {
        let looked = in_time(&registry.label, async {
            let client = open_one_of_all(registry, credentials.as_ref())?;
            get::look_base(client, registry, repository, &name.reference(), platforms).await
        });
        let found = match looked.await {
            Ok(found) => found,
            Err(Error::NotFound { .. }) => continue,
            // The hub wants to know who asks for what it does not have, also of those who said it.
            Err(Error::Credentials { given: false, .. }) if hub => continue,
            Err(Error::Credentials { given: true, .. }) if hub => {
                let why = "it has none that you may read, or does not accept your credentials";
                return Err(Without::Failed(why.into()));
            }
            Err(e @ Error::Credentials { .. }) => return Err(Without::Stranger(e.to_string())),
            Err(e @ Error::Unreachable { .. }) => return Err(Without::Away(e.to_string())),
            Err(e) => return Err(Without::Failed(e.to_string())),
        };
        let tag = if name.digest.is_some() { String::new() } else { format!(":{}", name.tag) };
        let place = format!("{}:{repository}{tag}@sha256:{}", registry.label, found.named());
        return Ok(Base { found, place });
    }
    Err(Without::Nothing)
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
