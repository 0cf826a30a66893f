//! Where a name in a script leads: iPXE resolves it against the script it stands in.

use super::Problem;
use std::net::Ipv4Addr;

/// The directory of HTTP in which a node finds its boot files.
const HTTP_ROOT: &str = "boot";

/// By which road a file is fetched. Both lead to the same files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Road {
    /// `tftp://<server>/<path>`
    Tftp,
    /// `http://<server>/boot/<path>`
    Http,
}

/// A file on the server, and the road to it, against which names in it are resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    road: Road,
    /// Path on that road, without leading slash.
    path: Vec<String>,
}

impl Location {
    /// The first script, which the loader gets by TFTP.
    pub fn first(name: &str) -> Location {
        Location { road: Road::Tftp, path: components(name) }
    }

    /// Its name relative to the node's boot directory; `None` outside it.
    pub fn file(&self) -> Option<String> {
        let inside = match self.road {
            Road::Tftp => &self.path[..],
            Road::Http => self.path.strip_prefix(&[HTTP_ROOT.to_owned()][..])?,
        };
        (!inside.is_empty()).then(|| inside.join("/"))
    }

    /// The last component: the name by which iPXE remembers a loaded file.
    pub fn base_name(&self) -> String {
        self.path.last().cloned().unwrap_or_default()
    }

    /// The file that a script at this location means by `name`.
    pub fn resolve(&self, name: &str, server: Ipv4Addr) -> Result<Location, Problem> {
        let foreign = || Problem::ForeignUri(name.to_owned());
        if let Some((scheme, rest)) = name.split_once("://") {
            let road = match scheme.to_ascii_lowercase().as_str() {
                "tftp" => Road::Tftp,
                "http" => Road::Http,
                _ => return Err(foreign()),
            };
            let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
            let port = if road == Road::Tftp { ":69" } else { ":80" };
            if host.strip_suffix(port).unwrap_or(host) != server.to_string() {
                return Err(foreign());
            }
            return Ok(Location { road, path: components(&decode(without_query(path))) });
        }
        let path = decode(without_query(name));
        let mut all = match path.strip_prefix('/') {
            Some(absolute) => return Ok(Location { road: self.road, path: components(absolute) }),
            None => self.path[..self.path.len().saturating_sub(1)].join("/"),
        };
        all.push('/');
        all.push_str(&path);
        Ok(Location { road: self.road, path: components(&all) })
    }
}

fn without_query(path: &str) -> &str {
    path.split(['?', '#']).next().unwrap_or_default()
}

/// `.` stays, `..` goes up and not beyond the root, doubled slashes are one.
fn components(path: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for component in path.split('/') {
        match component {
            "" | "." => {}
            ".." => drop(out.pop()),
            plain => out.push(plain.to_owned()),
        }
    }
    out
}

/// `%41` is `A`; a `%` that starts no such code is itself, as in iPXE.
fn decode(path: &str) -> String {
    let bytes = path.as_bytes();
    let digit = |at: usize| bytes.get(at).and_then(|b| (*b as char).to_digit(16));
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match (bytes[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                // Two hexadecimal digits make at most 255.
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
