//! The history of the on-disk format: numbered, frozen steps. See `README.md` beside this file.
//!
//! Compiled into the store (`src/store/format.rs`). May touch redb and nothing of today's code.

use redb::WriteTransaction;

mod v0001_initial;
mod v0002_noticing_damage;
mod v0003_journal;

/// Brings one file from the format before to this step's, within one transaction.
pub struct Step {
    /// For `meta.redb`.
    pub meta: fn(&WriteTransaction) -> Result<(), redb::Error>,
    /// For every log segment.
    pub segment: fn(&WriteTransaction) -> Result<(), redb::Error>,
}

/// Step `n` (counted from one) makes format `n`.
pub const STEPS: &[Step] = &[
    Step { meta: v0001_initial::meta, segment: v0001_initial::segment },
    Step { meta: v0002_noticing_damage::meta, segment: v0002_noticing_damage::segment },
    Step { meta: v0003_journal::meta, segment: v0003_journal::segment },
];
