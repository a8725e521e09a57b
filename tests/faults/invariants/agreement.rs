//! Nobody is ever told two different events at one seq: publishers by their acknowledgement, readers by what they read, on any
//! node and at any time of the run (promise 1: never changed, never seen in two orders).

use super::{Kind, Violation};
use crate::value::Value;

/// What has been told of one stream so far: the value at each seq, or 0.
#[derive(Clone, Debug, Default)]
pub struct Told {
    values: Vec<u64>,
}

/// A seq beyond any run: whoever tells it is wrong, and memory is not for it.
const SEQ_MAX: u64 = 100_000_000;

impl Told {
    pub fn tell(&mut self, who: &str, seq: u64, value: Value) -> Result<(), Violation> {
        if seq == 0 || seq > SEQ_MAX {
            return Err(Violation::new(Kind::Wrong, format!("{who} was told {value} at {seq}")));
        }
        let at = seq as usize - 1;
        if at >= self.values.len() {
            self.values.resize(at + 1, 0);
        }
        match self.values[at] {
            0 => self.values[at] = value.0,
            same if same == value.0 => {}
            other => {
                return Err(Violation::new(Kind::Diverged, format!("{who} was told {value} at {seq}, another was told {}", Value(other))));
            }
        }
        Ok(())
    }

    /// The last seq that anybody was told of.
    pub fn last(&self) -> u64 {
        self.values.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_value_at_a_seq_is_seen() {
        let mut told = Told::default();
        assert!(told.tell("a", 5, Value::new(1, 1)).is_ok());
        assert!(told.tell("b", 5, Value::new(1, 1)).is_ok());
        assert!(told.tell("b", 4, Value::new(1, 2)).is_ok());
        assert_eq!(told.tell("c", 5, Value::new(1, 2)).unwrap_err().kind, Kind::Diverged);
        assert!(told.tell("c", 0, Value::new(1, 2)).is_err());
        assert_eq!(told.last(), 5);
    }
}
