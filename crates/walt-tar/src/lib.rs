//! Tar streams of layers, copies of files and build contexts.
//!
//! ```text
//! header   one entry's headers, read and written: ustar, GNU long names, PAX
//! sparse   files with holes: GNU's four formats are read, PAX 1.0 is written
//! local    files of this machine, packed and unpacked
//! ```
//! Paths of entries that are read are relative, without `.` and `..`: no entry leads out of the directory that a
//! stream is unpacked in. Code that unpacks only has to be careful with symbolic links.
//!
//! Limits: extended headers of 1 MiB, paths of 4095 bytes, names of 255, 2^20 regions of a sparse file, 16 MiB after
//! the end of the archive. Global PAX headers are read and have no effect.

mod header;
pub mod local;
pub mod paths;
mod sparse;

pub use header::{
    BLOCK, Dialect, Header, MAX_PATH, Time, Type, is_header, read_header, write_header, write_header_as,
};
pub use sparse::{
    CopyError, MAX_REGIONS, Region, Sparse, holes, read_file, read_regions, write_file, write_map,
};

/// The end of an archive: two blocks of zeros.
pub const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// A tar violates its format or one of our limits, or it cannot be read. `Display` is a sentence without final stop.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);

/// Result of reading a tar.
pub type Result<T> = std::result::Result<T, Error>;
