//! What a sealed segment holds, kept in the metadata: so that a start need not read the segment, and so that it is known whose rows
//! are lost when it is. Pure.

use super::tables::{get_record, put_record};
use std::collections::BTreeSet;

/// The contents of one segment when its last row was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Manifest {
    /// Commits that the segment has had.
    pub commits: u64,
    /// Group, first and last index of the rows that were alive, ascending.
    pub rows: Vec<(u64, u64, u64)>,
    /// The table `cuts`.
    pub cuts: Vec<(u64, u64)>,
}

impl Manifest {
    /// Whose logs are not known without this segment.
    pub fn groups(&self) -> BTreeSet<u64> {
        self.rows.iter().map(|row| row.0).chain(self.cuts.iter().map(|cut| cut.0)).collect()
    }

    /// Rows that were alive.
    pub fn row_count(&self) -> u64 {
        self.rows.iter().map(|(_, first, last)| last - first + 1).sum()
    }

    /// A record: commits, number of rows, rows, cuts.
    pub fn encode(&self, segment: u32) -> Vec<u8> {
        let mut words = vec![self.commits, self.rows.len() as u64];
        self.rows.iter().for_each(|(group, first, last)| words.extend([group, first, last]));
        self.cuts.iter().for_each(|(group, at)| words.extend([group, at]));
        let bytes: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
        put_record((u64::from(segment), 0), &bytes)
    }

    pub fn decode(segment: u32, bytes: &[u8]) -> Result<Manifest, &'static str> {
        let bytes = get_record((u64::from(segment), 0), bytes)?;
        let (words, rest) = bytes.as_chunks::<8>();
        let words: Vec<u64> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let [commits, rows, words @ ..] = &words[..] else { return Err("a manifest is too short") };
        let rows = usize::try_from(*rows).ok().and_then(|rows| words.split_at_checked(rows.checked_mul(3)?));
        let Some((rows, cuts)) = rows.filter(|(_, cuts)| cuts.len() % 2 == 0 && rest.is_empty()) else {
            return Err("a manifest has the wrong length");
        };
        let (rows, cuts) = (rows.as_chunks::<3>().0, cuts.as_chunks::<2>().0);
        Ok(Manifest {
            commits: *commits,
            rows: rows.iter().map(|[group, first, last]| (*group, *first, *last)).collect(),
            cuts: cuts.iter().map(|[group, at]| (*group, *at)).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_comes_back_for_its_own_segment_only() {
        let cases = [(vec![], vec![]), (vec![(1, 2, 3)], vec![]), (vec![(1, 2, 3), (4, 5, 6)], vec![(1, 0), (7, 8)])];
        for (rows, cuts) in cases {
            let manifest = Manifest { commits: 9, rows, cuts };
            let bytes = manifest.encode(5);
            assert_eq!(Manifest::decode(5, &bytes), Ok(manifest));
            assert!(Manifest::decode(6, &bytes).is_err());
            assert!((0..bytes.len()).all(|len| Manifest::decode(5, &bytes[..len]).is_err()));
        }
    }
}
