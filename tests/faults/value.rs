//! What is published: a number that nothing else has, and bytes that follow from it, so that a changed byte is seen without
//! remembering what was sent.

use crate::random::mix;

/// A publisher and its counter in one number; 0 is no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value(pub u64);

const COUNTER_BITS: u32 = 40;
const LETTERS: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";

impl Value {
    pub fn new(publisher: u64, counter: u64) -> Value {
        assert!(publisher > 0 && counter < 1 << COUNTER_BITS);
        Value(publisher << COUNTER_BITS | counter)
    }

    pub fn publisher(self) -> u64 {
        self.0 >> COUNTER_BITS
    }

    pub fn counter(self) -> u64 {
        self.0 & ((1 << COUNTER_BITS) - 1)
    }

    pub fn plus(self, more: u64) -> Value {
        Value(self.0 + more)
    }

    /// The event's data: "PUBLISHER.COUNTER " and 80 to 280 letters that follow from the number.
    pub fn bytes(self) -> Vec<u8> {
        let mut bytes = format!("{}.{} ", self.publisher(), self.counter()).into_bytes();
        let mut state = mix(self.0 ^ 0x6576_6572);
        let mut left = 80 + state % 201;
        while left > 0 {
            state = mix(state.wrapping_add(0x9e37_79b9_7f4a_7c15));
            for letter in 0..left.min(10) {
                bytes.push(LETTERS[(state >> (6 * letter)) as usize & 63]);
            }
            left -= left.min(10);
        }
        bytes
    }

    pub fn text(self) -> String {
        String::from_utf8(self.bytes()).expect("letters are ASCII")
    }

    pub fn id(self) -> String {
        format!("{}.{}", self.publisher(), self.counter())
    }

    /// The value whose bytes these are, all of them.
    pub fn of_bytes(bytes: &[u8]) -> Option<Value> {
        let head = bytes.iter().position(|byte| *byte == b' ')?;
        let (publisher, counter) = std::str::from_utf8(&bytes[..head]).ok()?.split_once('.')?;
        let (publisher, counter) = (publisher.parse::<u64>().ok()?, counter.parse::<u64>().ok()?);
        if publisher == 0 || publisher >= 1 << (64 - COUNTER_BITS) || counter >= 1 << COUNTER_BITS {
            return None;
        }
        let value = Value::new(publisher, counter);
        (value.bytes() == bytes).then_some(value)
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.publisher(), self.counter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_known_by_its_bytes_and_a_changed_byte_is_seen() {
        let value = Value::new(7, 123_456);
        let mut bytes = value.bytes();
        assert!((80..300).contains(&bytes.len()));
        assert_eq!(Value::of_bytes(&bytes), Some(value));
        for at in 0..bytes.len() {
            bytes[at] ^= 1;
            assert_ne!(Value::of_bytes(&bytes), Some(value), "byte {at}");
            bytes[at] ^= 1;
        }
        assert_eq!(Value::of_bytes(&bytes[..bytes.len() - 1]), None);
        assert_eq!(Value::of_bytes(b""), None);
    }
}
