//! What `bench pub` publishes: JSON with the time of publishing, by which `bench sub` measures, and noise or the readings of a machine.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Different events; after so many they come again, with other times.
const EVENTS: usize = 1_024;

/// As many as make noise that does not compress.
const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The events of one size. What stands behind the time is made once: else that would be most of what a publisher does.
pub struct Payload {
    tails: Vec<String>,
    made: AtomicUsize,
}

impl Payload {
    /// Noise does not compress, readings do as those of machines would.
    pub fn new(size: usize, readings: bool) -> Payload {
        let size = size.saturating_sub(head(super::now_us()).len());
        // Any start but zero.
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let tail = |machine| tail(size, if readings { reading(&mut random, machine) } else { String::new() }, &mut random);
        Payload { tails: (0..EVENTS).map(tail).collect(), made: AtomicUsize::new(0) }
    }

    /// The data of an event that is published now.
    pub fn event(&self) -> String {
        head(super::now_us()) + &self.tails[self.made.fetch_add(1, Relaxed) % EVENTS]
    }
}

fn head(us: u64) -> String {
    format!("{{\"us\":{us},")
}

/// The rest of an event in so many bytes, the fields where they fit in.
fn tail(size: usize, fields: String, random: &mut Random) -> String {
    let (open, close) = ("\"x\":\"", "\"}");
    let room = size.saturating_sub(open.len() + close.len());
    let (fields, filler) = match room.checked_sub(fields.len()) {
        Some(left) if !fields.is_empty() => (fields, " ".repeat(left)),
        _ => (String::new(), (0..room).map(|_| char::from(LETTERS[random.below(LETTERS.len())])).collect()),
    };
    [&fields, open, &filler, close].concat()
}

fn reading(random: &mut Random, machine: usize) -> String {
    let (temperature, pressure, vibration) = (20_00 + random.below(70_00), random.below(9_000), random.below(1_000));
    format!(
        "\"machine\":{machine},\"temperature\":{}.{:02},\"bar\":{}.{:03},\"vibration\":0.{vibration:03},\"rpm\":{},",
        temperature / 100,
        temperature % 100,
        pressure / 1_000,
        pressure % 1_000,
        900 + random.below(2_100)
    )
}

/// Xorshift64, by Marsaglia: the same numbers in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn events_have_their_size_and_a_time_and_differ() {
        for (size, readings) in [(32, false), (33, true), (128, true), (256, false), (1_000, true)] {
            let payload = Payload::new(size, readings);
            let events: BTreeSet<String> = (0..100).map(|_| payload.event()).collect();
            assert!(events.len() == 100 || size < 40, "{events:?}");
            for data in events {
                assert_eq!(data.len(), size, "{data}");
                let json: serde_json::Value = serde_json::from_str(&data).unwrap();
                assert!(json["us"].is_u64());
                assert_eq!(json["machine"].is_u64(), readings && size >= 128, "{data}");
            }
        }
    }
}
