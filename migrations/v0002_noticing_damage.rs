//! Format 2: files count their commits, sealed segments have a manifest, and what must not be used is fenced. Frozen.
//!
//! The files `witness` and `identity` beside the databases come with this format; the store makes them.

use redb::{TableDefinition, WriteTransaction};

const COMMITS: TableDefinition<&str, &[u8]> = TableDefinition::new("commits");
const MANIFESTS: TableDefinition<u32, &[u8]> = TableDefinition::new("manifests");
const REMOVED: TableDefinition<u32, u64> = TableDefinition::new("removed");
const FENCES: TableDefinition<u64, &[u8]> = TableDefinition::new("fences");

pub fn meta(txn: &WriteTransaction) -> Result<(), redb::Error> {
    txn.open_table(COMMITS)?;
    txn.open_table(MANIFESTS)?;
    txn.open_table(REMOVED)?;
    txn.open_table(FENCES)?;
    Ok(())
}

pub fn segment(txn: &WriteTransaction) -> Result<(), redb::Error> {
    txn.open_table(COMMITS)?;
    Ok(())
}
