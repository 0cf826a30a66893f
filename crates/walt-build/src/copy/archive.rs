//! Which files `ADD` unpacks: tars, detected by their content and not by their names.

use std::fs::File;
use std::io;
use walt_images::compression::{Compression, Decompressed, decompress};

/// How `ADD` treats a file.
pub(super) enum Content {
    /// A tar, decompressed.
    Tar(Box<Decompressed<'static>>),
    /// A file that is copied; if it looks like an archive, the reason why it is not unpacked.
    File(Option<String>),
}

/// Suffixes of archives that other programs unpack, in addition to `.tar.*`.
const ARCHIVE_NAMES: [&[u8]; 12] = [
    b".tar", b".tgz", b".taz", b".tbz", b".tbz2", b".tb2", b".txz", b".tlz", b".tzst", b".tzo", b".tlz4",
    b".cpio",
];

/// Whether this is the name of an archive. Zip files do not count: no builder unpacks them.
fn has_archive_name(name: &[u8]) -> bool {
    let name = name.to_ascii_lowercase();
    let before_last = name.iter().rposition(|b| *b == b'.').map_or(&b""[..], |dot| &name[..dot]);
    ARCHIVE_NAMES.iter().any(|end| name.ends_with(end)) || before_last.ends_with(b".tar")
}

/// Finds out whether a file is a tar, whatever its compression.
pub(super) fn archive(file: File, name: &[u8]) -> io::Result<Content> {
    let mut content = decompress(file)?;
    let compression = content.compression;
    // A compressed file without a tar in it is an ordinary file.
    let (seems, why) = match content.first_block() {
        Ok(start) if start.first_chunk().is_some_and(walt_tar::is_header) => {
            return Ok(Content::Tar(Box::new(content)));
        }
        Ok(start) if start.get(257..262) == Some(b"ustar") => (true, "the tar in it is damaged".to_owned()),
        Ok(start) if start.is_empty() || start.iter().all(|b| *b == 0) => {
            (false, "it is an empty tar".into())
        }
        Ok(_) if compression == Compression::None => {
            (false, "it is not a tar, nor one compressed with gzip, bzip2, xz or zstd".into())
        }
        Ok(_) => (false, format!("the {} data in it is not a tar", compression.name())),
        Err(e) => (false, format!("it cannot be read as {}: {e}", compression.name())),
    };
    Ok(Content::File((seems || has_archive_name(name)).then_some(why)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn what_looks_like_an_archive_and_is_none_is_told() {
        let mut tar = Vec::new();
        let header = walt_tar::Header { path: b"f".to_vec(), ..walt_tar::Header::file(0) };
        walt_tar::write_header(&mut tar, &header);
        tar.extend_from_slice(&walt_tar::END);
        let zst = zstd::encode_all(tar.as_slice(), 1).unwrap();
        let skippable = [b"\x50\x2a\x4d\x18\x04\0\0\0size".as_slice(), &zst].concat();
        let text = zstd::encode_all(&b"a text"[..], 1).unwrap();
        let mut damaged = tar.clone();
        damaged[0] ^= 1;
        for (name, content, why) in [
            ("x", &tar, None),
            ("x", &zst, None),
            ("p.tar.zst", &skippable, None),
            ("x.txt", &b"text".to_vec(), Some(None)),
            ("x.zst", &text, Some(None)),
            ("x.zip", &b"PK\x03\x04".to_vec(), Some(None)),
            ("x", &damaged, Some(Some("damaged"))),
            ("x.tzst", &text, Some(Some("the zstd data in it is not a tar"))),
            ("x.tar.lz", &b"LZIP\x01".to_vec(), Some(Some("gzip, bzip2, xz or zstd"))),
            ("X.TAR.XZ", &b"\xfd7zXZ\0broken".to_vec(), Some(Some("cannot be read as xz"))),
            ("e.tar", &walt_tar::END.to_vec(), Some(Some("an empty tar"))),
        ] {
            let path = std::env::temp_dir().join(format!("walt-archive-{}", std::process::id()));
            File::create(&path).unwrap().write_all(content).unwrap();
            let found = archive(File::open(&path).unwrap(), name.as_bytes()).unwrap();
            std::fs::remove_file(path).unwrap();
            match (found, why) {
                (Content::Tar(_), None) | (Content::File(None), Some(None)) => {}
                (Content::File(Some(said)), Some(Some(why))) => assert!(said.contains(why), "{name}: {said}"),
                (Content::File(said), _) => panic!("{name}: {said:?}"),
                (Content::Tar(_), _) => panic!("{name} is a tar"),
            }
        }
    }
}
