//! Format 1: the tables that the first release writes. Frozen.

use redb::{TableDefinition, WriteTransaction};

const NODE: TableDefinition<&str, &[u8]> = TableDefinition::new("node");
const VOTES: TableDefinition<u64, &[u8]> = TableDefinition::new("votes");
const PURGED: TableDefinition<u64, &[u8]> = TableDefinition::new("purged");
const COMMITTED: TableDefinition<u64, &[u8]> = TableDefinition::new("committed");
const CHECKPOINTS: TableDefinition<(u64, u64), &[u8]> = TableDefinition::new("checkpoints");
const SEGMENTS: TableDefinition<u32, u64> = TableDefinition::new("segments");
const DROPPED: TableDefinition<u64, u64> = TableDefinition::new("dropped");

const LOG: TableDefinition<(u64, u64), &[u8]> = TableDefinition::new("log");
const CUTS: TableDefinition<u64, u64> = TableDefinition::new("cuts");

pub fn meta(txn: &WriteTransaction) -> Result<(), redb::Error> {
    txn.open_table(NODE)?;
    txn.open_table(VOTES)?;
    txn.open_table(PURGED)?;
    txn.open_table(COMMITTED)?;
    txn.open_table(CHECKPOINTS)?;
    txn.open_table(SEGMENTS)?;
    txn.open_table(DROPPED)?;
    Ok(())
}

pub fn segment(txn: &WriteTransaction) -> Result<(), redb::Error> {
    txn.open_table(LOG)?;
    txn.open_table(CUTS)?;
    Ok(())
}
