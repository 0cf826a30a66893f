//! Documents of registries, and files with credentials.

use walt_client::credentials::{authfile, config};
use walt_registry::{
    auth::{Challenge, parse_token},
    manifest::{self, Document, MAX_BLOB, MAX_DOCUMENT},
};
use walt_server::services::registries::links::Link;

/// Manifests, indexes, challenges, tokens, auth files, the client's configuration, links: any bytes may come as any of
/// them.
pub fn documents(bytes: &[u8]) {
    match manifest::parse(bytes) {
        Ok(Document::Image(image)) => {
            assert!(image.layers.len() <= walt_images::MAX_LAYERS && image.config.size <= MAX_DOCUMENT);
            assert!(image.layers.iter().all(|l| l.size <= MAX_BLOB));
            // An image needs as many diff-ids as layers.
            assert_eq!(manifest::pair(&image.layers, &[]).is_ok(), image.layers.is_empty());
        }
        Ok(Document::Index(entries)) => {
            let ordered = manifest::candidates(&entries, &["pc-x86-64".to_owned(), "rpi-b".to_owned()]);
            assert!(ordered.len() <= entries.len());
        }
        Err(why) => assert!(why.len() < 2000, "a stranger writes our messages"),
    }
    if let Ok(token) = parse_token(bytes) {
        assert!(token.bytes().all(|b| b.is_ascii_graphic()));
    }
    if let Some(file) = authfile::AuthFile::parse(bytes) {
        for (host, hub) in [("reg.example:5000", false), ("index.example", true)] {
            if let Some(authfile::Entry::Helper { program, .. }) = file.entry(host, hub) {
                assert!(!program.contains('/'), "a helper is a name");
            }
        }
    }
    let _ = authfile::parse_helper(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = Challenge::parse(text.lines());
    if let Ok(link) = Link::parse(text) {
        // What is put into a URL stays one path.
        let path = link.repository();
        assert!(!path.contains("..") || !path.split('/').any(|p| p == ".."));
        assert!(path.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b)));
        assert_eq!(Link::parse(&link.text()).as_ref(), Ok(&link));
        let _ = link.own_name();
    }
    if let Ok(config) = config::parse(text) {
        let _ = config.credentials("hub");
    }
}
