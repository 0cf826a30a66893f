//! The limits of the store. Bytes are bytes of text unless they are named otherwise.

use std::time::Duration;

/// Longest line. A longer one is refused; the intake cuts it before.
pub const MAX_LINE: usize = 1 << 20;
/// Most text of one [`Chunk`](crate::Chunk), above one line of the longest kind.
pub const MAX_CHUNK_BYTES: usize = 4 << 20;
/// Most lines of one [`Chunk`](crate::Chunk).
pub const MAX_CHUNK_ROWS: usize = 1 << 16;

/// A batch becomes durable this long after its first line at the latest.
pub const BATCH_TIME: Duration = Duration::from_millis(300);
/// A batch of this much text is written at once. Another one of this size may fill meanwhile; who appends more waits.
pub const BATCH_BYTES: usize = 8 << 20;
/// A batch of this many lines is written at once.
pub const BATCH_ROWS: usize = 1 << 17;

/// Text of a block: the unit of the index, and of what a query loads.
pub const BLOCK_BYTES: usize = 1 << 20;
/// Text of a frame: the unit of checksums and compression inside a block. A stream's lines are next to each other, so
/// a query of one stream reads about one frame of each block.
pub const FRAME_BYTES: usize = 32 << 10;
/// Microseconds between timestamps of a batch above which its lines go to different blocks: a node whose clock is years
/// off does not widen the blocks of all others.
pub const BLOCK_GAP: i64 = 60_000_000;
/// Most parts into which such gaps divide a batch.
pub const BLOCK_PARTS: usize = 8;
/// Most stored bytes of a block's directory; more is damage.
pub const MAX_DIRECTORY: usize = 16 << 20;
/// Most stored bytes of a block's frames; more is damage.
pub const MAX_BODY: usize = 16 << 20;

/// Stored bytes of a segment above which the next one is begun.
pub const SEGMENT_BYTES: u64 = 64 << 20;
/// The same for lines.
pub const SEGMENT_ROWS: u64 = 1 << 20;
/// The same for blocks: a quiet store writes a small one every 300 ms.
pub const SEGMENT_BLOCKS: usize = 4096;
/// A segment is closed after this long, or after an eighth of the time that lines are kept, so that whole segments
/// can expire.
pub const SEGMENT_AGE: Duration = Duration::from_secs(24 * 3600);
/// Shortest such time.
pub const SEGMENT_AGE_MIN: Duration = Duration::from_secs(60);
/// Level of zstd for closed segments.
pub const ZSTD_LEVEL: i32 = 3;
/// How often segments are looked at for compression and retention.
pub const KEEPER_PERIOD: Duration = Duration::from_secs(10);

/// Longest key of an issuer, in bytes.
pub const MAX_ISSUER: usize = 64;
/// Longest name of a stream, in bytes.
pub const MAX_STREAM_NAME: usize = 255;
/// Most streams of one issuer.
pub const MAX_STREAMS_OF_ISSUER: usize = 20_000;
/// Most streams of a store, forgotten ones included.
pub const MAX_STREAMS: usize = 1 << 20;
/// Most sources whose positions are remembered; the one that was silent the longest is forgotten first.
pub const MAX_SOURCES: usize = 4096;

/// Longest regular expression, in bytes.
pub const MAX_PATTERN: usize = 4096;
/// Bytes of memory of a compiled regular expression.
pub const MAX_PATTERN_SIZE: usize = 4 << 20;
/// Threads that decode and search blocks for one long query.
pub const QUERY_THREADS: usize = 2;
/// Blocks that a query decodes without them, and how far they run ahead of the reader.
pub const QUERY_AHEAD: usize = 8;
/// Bytes of decoded lines that a query keeps. Blocks whose times overlap more than that are decoded repeatedly.
pub const QUERY_BYTES: usize = 64 << 20;
/// Most lines that [`Store::last`](crate::Store::last) gives.
pub const MAX_LAST: usize = 1 << 20;
/// Text of lines that are durable and kept in memory for tails; a slower tail reads them from the disk.
pub const TAIL_BYTES: usize = 8 << 20;
/// Most lines that a tail hands out at once.
pub const TAIL_ROWS: usize = 1024;
/// Most findings that a check lists.
pub const MAX_FINDINGS: usize = 100;
