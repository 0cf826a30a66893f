//! Functions that read untrusted bytes, for the fuzzer in `fuzz/` only.

use crate::{
    Composed, Live, Store, View,
    layer::{import, skeleton},
    view::file,
};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use walt_tar::read_header;

/// Reads the headers of a tar, passing over what its files hold.
pub fn tar_headers(mut bytes: &[u8]) {
    let mut raw = Vec::new();
    while let Ok(Some(header)) = read_header(&mut bytes, &mut raw) {
        let size = header.size.min(import::MAX_APPARENT);
        let padded = size.next_multiple_of(walt_tar::BLOCK as u64);
        if std::io::copy(&mut (&mut bytes).take(padded), &mut std::io::sink()).is_err() {
            break;
        }
        raw.clear();
    }
}

/// Most bytes that are unpacked of one input.
const MAX_PLAIN: u64 = 1 << 20;

/// Undoes a compression.
pub fn decompress(bytes: &[u8]) {
    if let Ok(plain) = crate::compression::decompress(bytes) {
        let _ = std::io::copy(&mut plain.take(MAX_PLAIN), &mut std::io::sink());
    }
}

/// Unpacks a layer into a directory; whether it was accepted.
pub fn unpack(bytes: &[u8], layer: &Path) -> bool {
    import::import(bytes, layer).is_ok()
}

/// Puts a tar on top of an image; what is accepted is a layer that a view can be made of.
pub fn compose(bytes: &[u8], store: &Store, base: &Arc<View>) {
    let Ok(mut composer) = store.compose(base) else { return };
    if composer.extract(&mut &bytes[..], b"d", &mut |_| Ok(true), &mut |_| ()).is_err() {
        return;
    }
    if let Ok(Composed::Layer(info)) = composer.finish() {
        let layers = [base.layers(), &[info.diff_id]].concat();
        store.view(&layers, None).expect("a composed layer has a view");
        let dead = Live { layers: base.layers().iter().copied().collect(), ..Live::default() };
        store.remove_unreferenced(&dead).expect("layers can be removed");
    }
}

/// Reads an index file; one that is accepted is written again, and must be the same.
pub fn index(bytes: &[u8]) {
    if let Ok(index) = file::decode(bytes) {
        assert_eq!(file::encode(&index), bytes, "an index changes when it is written again");
    }
    // Behind the checksum, which a fuzzer cannot guess.
    if let Some(Ok(index)) = bytes.get(file::BODY..).map(file::check) {
        file::encode(&index);
    }
}

/// Reads the records of a skeleton, which are compressed on the disk.
pub fn skeleton(mut bytes: &[u8]) {
    while let Ok(Some(_)) = skeleton::read_record(&mut bytes) {}
}
