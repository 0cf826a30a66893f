//! What a server of WalT 10 has in its database, and what of it comes into ours. Pure: bytes of a dump and facts of our
//! database in, a plan out.
//!
//! ```text
//! pg_dump --data-only ──dump::read──▶ rows ──Source──▶ tables ──plan::make(.., Existing)──▶ Plan
//!                                                                                            ├ rows to insert
//!                                                                                            └ items: the fate of each
//! ```
//!
//! Nothing of a dump is lost silently. Each of its rows, and each setting of a device, is an [`plan::Item`] with a
//! [`plan::Fate`]: it comes, it is here already, it is kept for a later version, it conflicts with what is here, or it
//! cannot come, and then the item says why. Lines of logs are only counted.
//!
//! What is here already is never changed, so that a second import changes nothing.
//!
//! Limits: [`dump::ROW_MAX`] bytes for a row, [`source::ROWS_MAX`] rows of a table, [`source::TABLES_MAX`] tables.

pub mod dump;
pub mod plan;
pub mod source;

pub use dump::DumpError;
pub use plan::{Existing, Fate, Item, Plan};
pub use source::Source;
