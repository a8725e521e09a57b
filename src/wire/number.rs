//! Whole numbers as JSON knows them: `3` and `3.0` are the same number, and none is larger than a signed 64-bit integer.

use serde::{Deserialize, Deserializer, de};
use std::fmt;

/// The largest whole number of the API: what every JSON library of a typed language can hold.
pub const MAX: u64 = i64::MAX as u64;
/// Up to here, every whole number is a float of its own.
const FLOAT_MAX: f64 = 9_007_199_254_740_992.0;

/// A whole number on its way in.
#[derive(Clone, Copy)]
pub struct Whole(pub u64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Whole, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Whole;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a whole number from 0 to {MAX}")
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Whole, E> {
                match number <= MAX {
                    true => Ok(Whole(number)),
                    false => Err(E::invalid_value(de::Unexpected::Unsigned(number), &self)),
                }
            }
            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Whole, E> {
                match number.fract() == 0.0 && (0.0..=FLOAT_MAX).contains(&number) {
                    true => Ok(Whole(number as u64)),
                    false => Err(E::invalid_value(de::Unexpected::Float(number), &self)),
                }
            }
        }
        from.deserialize_any(Visitor)
    }
}

/// A field that is there.
pub fn some<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    Whole::deserialize(from).map(|whole| Some(whole.0))
}

/// A small one that is there.
pub fn some_small<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u8>, D::Error> {
    let whole = Whole::deserialize(from)?.0;
    u8::try_from(whole).map(Some).map_err(|_| de::Error::invalid_value(de::Unexpected::Unsigned(whole), &"a number from 0 to 255"))
}

/// A field that is there, and may be `null`.
pub fn nullable<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<u64>>, D::Error> {
    Ok(Some(Option::<Whole>::deserialize(from)?.map(|whole| whole.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_taken_however_they_are_written() {
        for (text, expected) in [("0", Some(0)), ("3.0", Some(3)), ("1e3", Some(1000)), ("9223372036854775807", Some(MAX))] {
            assert_eq!(serde_json::from_str::<Whole>(text).ok().map(|whole| whole.0), expected, "{text}");
        }
        for bad in ["-1", "1.5", "9223372036854775808", "1e300", "\"1\"", "null", "true"] {
            assert!(serde_json::from_str::<Whole>(bad).is_err(), "{bad}");
        }
    }
}
