//! The key `registries` of the configuration.

use anyhow::{Result, bail};
use serde::Deserialize;
use std::path::PathBuf;
use walt_registry::{Endpoint, Protocol as Wire};

/// Host of the docker hub: its registry, its search, and its name in files with credentials.
const HUB_HOST: &str = "index.docker.io";
/// Host of the hub's own API, which lists what a user has there.
const HUB_API_HOST: &str = "hub.docker.com";
/// Labels with another meaning in links.
const RESERVED: [&str; 2] = ["walt", "docker"];
/// Label of the hub.
pub const HUB: &str = "hub";
/// Longest description.
const DESCRIPTION_MAX: usize = 35;
/// Longest label.
const LABEL_MAX: usize = 63;

/// One registry.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RegistryConfig {
    /// Its name in links.
    pub label: String,
    /// Its kind.
    pub api: Kind,
    /// Description for users.
    #[serde(default)]
    pub description: String,
    /// Host; optional for the hub.
    #[serde(default)]
    pub host: Option<String>,
    /// TCP port.
    #[serde(default)]
    pub port: Option<u16>,
    /// Protocol.
    #[serde(default)]
    pub protocol: Protocol,
    /// File with certificates of additional trusted authorities.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// Whether users need credentials.
    #[serde(default)]
    pub auth: Auth,
    /// First part of its image names (JFrog only).
    #[serde(default)]
    pub repository: Option<String>,
}

/// Kinds of registries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The docker hub: public, with its own search API.
    DockerHub,
    /// Any registry that follows the OCI distribution specification.
    DockerRegistryV2,
    /// JFrog Artifactory: images of all users are in one repository.
    JfrogArtifactory,
}

/// Protocol of a registry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// TLS.
    #[default]
    Https,
    /// Unencrypted.
    Http,
    /// TLS without verification of the certificate.
    HttpsNoVerify,
}

/// Authentication of a registry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Auth {
    /// Users with a password or token.
    #[default]
    Basic,
    /// Everybody.
    None,
}

/// The registries of a server without configuration.
pub fn default_registries() -> Vec<RegistryConfig> {
    vec![RegistryConfig {
        label: HUB.into(),
        api: Kind::DockerHub,
        description: "Public registry at hub.docker.com".into(),
        host: None,
        port: None,
        protocol: Protocol::Https,
        ca: None,
        auth: Auth::Basic,
        repository: None,
    }]
}

impl RegistryConfig {
    /// Its endpoint.
    pub fn endpoint(&self) -> Endpoint {
        let protocol = match self.protocol {
            Protocol::Https => Wire::Https,
            Protocol::Http => Wire::Http,
            Protocol::HttpsNoVerify => Wire::HttpsNoVerify,
        };
        let host = self.host.clone().unwrap_or_else(|| HUB_HOST.to_owned());
        Endpoint { host, port: self.port.unwrap_or(443), protocol, ca: self.ca.clone() }
    }

    /// Endpoint of the hub's own API: on the configured host, if there is one.
    pub fn hub_api(&self) -> Endpoint {
        let host = self.host.clone().unwrap_or_else(|| HUB_API_HOST.to_owned());
        Endpoint { host, ..self.endpoint() }
    }

    /// Whether everybody may read without credentials.
    pub fn reads_anonymously(&self) -> bool {
        self.api == Kind::DockerHub || self.auth == Auth::None
    }

    fn check(&self) -> Result<()> {
        let label = &self.label;
        let word = !label.is_empty()
            && label.len() <= LABEL_MAX
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !word || RESERVED.contains(&label.as_str()) {
            bail!(
                "registries: '{label}' must be made of a-z, 0-9 and '-', and must not be one of {}",
                RESERVED.join(", ")
            );
        }
        if (label == HUB) != (self.api == Kind::DockerHub) {
            bail!("registries: the label '{HUB}' and 'api: docker-hub' belong together");
        }
        if self.host.is_none() && self.api != Kind::DockerHub {
            bail!("registries: '{label}' has no 'host'");
        }
        let host_ok = |h: &str| {
            !h.is_empty()
                && h.len() < 256
                && h.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:".contains(&b))
        };
        if let Some(host) = self.host.as_deref().filter(|h| !host_ok(h)) {
            bail!(
                "registries: the host '{host}' of '{label}' must be a name or an address, without scheme, port and path"
            );
        }
        if self.port == Some(0) {
            bail!("registries: the port of '{label}' cannot be 0");
        }
        if let Some(ca) = &self.ca {
            if self.protocol != Protocol::Https {
                bail!("registries: 'ca' of '{label}' requires 'protocol: https'");
            }
            if !ca.is_absolute() {
                bail!("registries: 'ca' of '{label}' must be an absolute path");
            }
        }
        let path_ok = |p: &str| {
            let part = |s: &str| {
                !s.is_empty()
                    && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
            };
            p.split('/').all(|s| part(s) && s.starts_with(|c: char| c.is_ascii_alphanumeric()))
        };
        match (&self.repository, self.api) {
            (None, Kind::JfrogArtifactory) => bail!("registries: '{label}' has no 'repository'"),
            (Some(path), Kind::JfrogArtifactory) if !path_ok(path) => {
                bail!("registries: the repository '{path}' of '{label}' must be made of a-z, 0-9 and '._-/'")
            }
            (Some(_), Kind::DockerHub | Kind::DockerRegistryV2) => {
                bail!(
                    "registries: 'repository' requires 'api: jfrog-artifactory', but '{label}' has another kind"
                )
            }
            _ => {}
        }
        if self.description.chars().count() > DESCRIPTION_MAX {
            bail!("registries: the description of '{label}' has more than {DESCRIPTION_MAX} characters");
        }
        Ok(())
    }
}

/// Checks all of them.
///
/// # Errors
/// A registry is invalid; the error says which and why.
pub fn check(all: &[RegistryConfig]) -> Result<()> {
    for (number, registry) in all.iter().enumerate() {
        registry.check()?;
        if all[..number].iter().any(|r| r.label == registry.label) {
            bail!("registries: the label '{}' is used twice", registry.label);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::base::config::Config;

    #[test]
    fn registries_of_the_configuration() {
        let hub = &Config::parse("").unwrap().registries;
        assert_eq!((hub.len(), hub[0].label.as_str(), hub[0].reads_anonymously()), (1, "hub", true));
        assert!(Config::parse("registries: []").unwrap().registries.is_empty());
        let text = "registries:\n\
            - {label: lab, api: docker-registry-v2, host: reg.lab, port: 5000, protocol: http, auth: none}\n\
            - {label: frog, api: jfrog-artifactory, host: art.lab, repository: docker/walt, description: ours}\n";
        let all = Config::parse(text).unwrap().registries;
        assert_eq!(all[0].endpoint().to_string(), "reg.lab:5000");
        assert_eq!(all[1].endpoint().to_string(), "art.lab");
        assert!(!all[1].reads_anonymously());
        for bad in [
            "{label: walt, api: docker-registry-v2, host: h}",
            "{label: Lab, api: docker-registry-v2, host: h}",
            "{label: lab, api: docker-registry-v2}",
            "{label: lab, api: docker-registry-v2, host: 'http://h'}",
            "{label: lab, api: docker-registry-v2, host: h, repository: x}",
            "{label: lab, api: jfrog-artifactory, host: h}",
            "{label: lab, api: jfrog-artifactory, host: h, repository: ../x}",
            "{label: lab, api: docker-hub}",
            "{label: hub, api: docker-registry-v2, host: h}",
            "{label: lab, api: other, host: h}",
            "{label: lab, api: docker-registry-v2, host: h, port: 0}",
            "{label: lab, api: docker-registry-v2, host: h, ca: ca.pem}",
            "{label: lab, api: docker-registry-v2, host: h, protocol: https-no-verify, ca: /ca.pem}",
            "{label: lab, api: docker-registry-v2, host: h, hots: x}",
            "{label: l, api: docker-registry-v2, host: h}, {label: l, api: docker-registry-v2, host: h}",
        ] {
            assert!(Config::parse(&format!("registries: [{bad}]")).is_err(), "{bad}");
        }
    }
}
