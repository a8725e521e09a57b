//! Format 3: a file `journal` beside the databases has rows that the newest segment lacks, and a segment's record of its commits says up
//! to which batch of it the segment has them. Frozen.
//!
//! No table is new: the number alone keeps an older build from opening a segment without what the journal has for it. The store makes
//! the journal.

use redb::WriteTransaction;

pub fn meta(_: &WriteTransaction) -> Result<(), redb::Error> {
    Ok(())
}

pub fn segment(_: &WriteTransaction) -> Result<(), redb::Error> {
    Ok(())
}
