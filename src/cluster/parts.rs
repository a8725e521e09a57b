//! Snapshots that are larger than a frame between peers: in parts, one after the other, put together again at the other end. No IO here.

use super::encoding;
use super::mesh::BODY_BYTES_MAX;
use crate::core::codec::{Corrupt, Writer};
use crate::core::limits::{SNAPSHOT_BYTES_MAX, SNAPSHOT_PART_BYTES, SNAPSHOTS_BYTES_MAX};
use bytes::{Bytes, BytesMut};
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_128;

/// A sender from whom no part came for so long has given up.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

const _: () = assert!(SNAPSHOT_PART_BYTES + 64 < BODY_BYTES_MAX);

/// A piece of a snapshot's installation (`encoding::encode_install`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub group: u64,
    /// The XXH3 hash of the whole.
    pub hash: u128,
    pub offset: u64,
    /// Bytes of the whole.
    pub total: u64,
    pub bytes: Bytes,
}

impl Part {
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::with_capacity(self.bytes.len() + 48);
        w.u8(encoding::VERSION);
        w.u128(self.hash);
        [self.group, self.offset, self.total].into_iter().for_each(|number| w.varint(number));
        w.raw(&self.bytes);
        w.finish()
    }

    pub fn decode(bytes: Bytes) -> Result<Part, Corrupt> {
        let mut r = encoding::message("a part of a snapshot", bytes)?;
        let hash = r.u128()?;
        let [group, offset, total] = [r.varint()?, r.varint()?, r.varint()?];
        let part = Part { group, hash, offset, total, bytes: r.rest() };
        let end = offset.checked_add(part.bytes.len() as u64);
        if part.bytes.is_empty() || end.is_none_or(|end| end > total) || total > SNAPSHOT_BYTES_MAX as u64 {
            return Err(Corrupt { what: "a part of a snapshot", why: "it is empty, or beyond its end or its bound" });
        }
        Ok(part)
    }

    /// The parts of a whole, in order.
    pub fn split(group: u64, whole: &Bytes) -> impl Iterator<Item = Part> + use<> {
        let (whole, hash, total) = (whole.clone(), xxh3_128(whole), whole.len());
        (0..total).step_by(SNAPSHOT_PART_BYTES).map(move |offset| {
            let bytes = whole.slice(offset..total.min(offset + SNAPSHOT_PART_BYTES));
            Part { group, hash, offset: offset as u64, total: total as u64, bytes }
        })
    }
}

/// What became of a part.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// There are more to come.
    More,
    /// It was the last one: the whole.
    Whole(Bytes),
    /// It does not follow on what is here, or the whole is not what was sent: the sender has to begin anew.
    OutOfPlace,
    /// Too many bytes of other snapshots are here.
    Busy,
}

struct Partial {
    hash: u128,
    bytes: BytesMut,
    since: Instant,
}

/// Snapshots of which parts have come, by sender and group.
#[derive(Default)]
pub struct Parts(Mutex<HashMap<(u64, u64), Partial>>);

impl Parts {
    pub fn take(&self, from: u64, part: &Part) -> Taken {
        let mut all = self.0.lock().expect("nobody panics while holding it");
        all.retain(|_, partial| partial.since.elapsed() < FORGOTTEN_AFTER);
        let key = (from, part.group);
        if part.offset == 0 {
            all.insert(key, Partial { hash: part.hash, bytes: BytesMut::new(), since: Instant::now() });
        }
        let here: usize = all.values().map(|partial| partial.bytes.len()).sum();
        let Some(partial) = all.get_mut(&key) else { return Taken::OutOfPlace };
        let follows = partial.hash == part.hash && partial.bytes.len() as u64 == part.offset;
        if !follows || here + part.bytes.len() > SNAPSHOTS_BYTES_MAX {
            all.remove(&key);
            return if follows { Taken::Busy } else { Taken::OutOfPlace };
        }
        partial.bytes.extend_from_slice(&part.bytes);
        partial.since = Instant::now();
        if (partial.bytes.len() as u64) < part.total {
            return Taken::More;
        }
        let whole = all.remove(&key).map(|whole| whole.bytes.freeze()).filter(|whole| xxh3_128(whole) == part.hash);
        whole.map_or(Taken::OutOfPlace, Taken::Whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(seed: usize) -> Bytes {
        (0..2 * SNAPSHOT_PART_BYTES + 5).map(|at| ((at + seed) % 251) as u8).collect()
    }

    fn parts(seed: usize) -> Vec<Part> {
        Part::split(7, &whole(seed)).collect()
    }

    #[test]
    fn a_part_comes_back_and_is_frozen() {
        let part = Part { group: 300, hash: 5, offset: 2, total: 4, bytes: Bytes::from_static(b"ab") };
        let bytes = part.encode();
        assert_eq!(bytes[..2], [1, 5]);
        assert_eq!(bytes[17..], [0xac, 2, 2, 4, b'a', b'b']);
        assert_eq!(Part::decode(bytes.clone()).unwrap(), part);
        for cut in 0..bytes.len() - 1 {
            assert!(Part::decode(bytes.slice(..cut)).is_err(), "{cut}");
        }
        let beyond = Part { total: 3, ..part.clone() };
        let huge = Part { total: SNAPSHOT_BYTES_MAX as u64 + 1, ..part.clone() };
        let far = Part { offset: u64::MAX, total: u64::MAX, ..part };
        assert!([beyond, huge, far].iter().all(|part| Part::decode(part.encode()).is_err()));
    }

    #[test]
    fn parts_make_the_whole_of_their_own_sender() {
        let here = Parts::default();
        let (first, second) = (parts(1), parts(2));
        assert_eq!(first.len(), 3);
        assert_eq!(here.take(1, &first[0]), Taken::More);
        assert_eq!(here.take(2, &first[1]), Taken::OutOfPlace, "from another sender");
        assert_eq!(here.take(1, &second[1]), Taken::OutOfPlace, "of another snapshot");
        assert_eq!(here.take(1, &first[1]), Taken::OutOfPlace, "after it was given up");
        for part in [&second[0], &first[0], &first[1]] {
            assert_eq!(here.take(1, part), Taken::More);
        }
        assert_eq!(here.take(2, &second[0]), Taken::More);
        assert_eq!(here.take(1, &first[2]), Taken::Whole(whole(1)));
        assert_eq!(here.take(1, &first[2]), Taken::OutOfPlace, "it is there once");
    }

    #[test]
    fn a_whole_that_is_not_what_was_sent_is_not_taken() {
        let here = Parts::default();
        let mut parts = parts(1);
        parts[1].bytes = Bytes::from(vec![0; SNAPSHOT_PART_BYTES]);
        let taken: Vec<Taken> = parts.iter().map(|part| here.take(1, part)).collect();
        assert_eq!(taken, [Taken::More, Taken::More, Taken::OutOfPlace]);
    }

    #[test]
    fn what_is_kept_is_bounded_and_forgotten() {
        let here = Parts::default();
        let large = Bytes::from(vec![0; SNAPSHOTS_BYTES_MAX / 4]);
        let part = |offset: u64| Part { group: 1, hash: 1, offset, total: u64::MAX, bytes: large.clone() };
        (1..=4).for_each(|sender| assert_eq!(here.take(sender, &part(0)), Taken::More));
        assert_eq!(here.take(5, &part(0)), Taken::Busy);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let here = Parts::default();
            (1..=4).for_each(|sender| assert_eq!(here.take(sender, &part(0)), Taken::More));
            tokio::time::advance(FORGOTTEN_AFTER).await;
            assert_eq!(here.take(5, &part(0)), Taken::More);
        });
    }
}
