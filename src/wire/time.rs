//! Points in time as RFC 3339 with microseconds in UTC, and spans of time as people write them: `30s`, `2m`, `1h30m`.

use crate::core::Time;
use jiff::fmt::{StdFmtWrite, temporal::DateTimePrinter};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use utoipa::ToSchema;

/// A point in time, `2026-11-22T10:15:30.123456Z`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, ToSchema)]
#[schema(value_type = String, format = DateTime, examples("2026-11-22T10:15:30.123456Z"))]
pub struct Timestamp(pub Time);

impl Timestamp {
    /// Reads any RFC 3339 time; digits beyond microseconds are dropped.
    pub fn parse(text: &str) -> Option<Timestamp> {
        let at: jiff::Timestamp = text.parse().ok()?;
        Some(Timestamp(Time(at.as_microsecond())))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        static PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(6));
        // A time outside what a calendar holds cannot come from a clock; it is shown as the nearest one that can.
        let (min, max) = (jiff::Timestamp::MIN.as_second() * 1_000_000, jiff::Timestamp::MAX.as_second() * 1_000_000);
        let at = jiff::Timestamp::from_microsecond(self.0.0.clamp(min, max)).expect("clamped to what it holds");
        PRINTER.print_timestamp(&at, StdFmtWrite(f)).map_err(|_| fmt::Error)
    }
}

/// A span of time: numbers with the units `d`, `h`, `m`, `s`, `ms`, the largest first, as in `2m` or `1h30m`; milliseconds inside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, ToSchema)]
#[schema(value_type = String, pattern = "^(0|(?=[0-9])([0-9]{1,9}d)?([0-9]{1,9}h)?([0-9]{1,9}m)?([0-9]{1,9}s)?([0-9]{1,9}ms)?)$", examples("2m"))]
pub struct Span(pub u64);

const UNITS: [(&str, u64); 5] = [("d", 24 * 3600 * 1000), ("h", 3600 * 1000), ("m", 60 * 1000), ("s", 1000), ("ms", 1)];

/// Digits of one number in a span, at most: nothing of it can overflow then.
const NUMBER_DIGITS_MAX: usize = 9;

impl Span {
    /// Reads a span. Each unit at most once, from the largest to the smallest; a bare number is refused, but for `0`.
    pub fn parse(text: &str) -> Option<Span> {
        if text == "0" {
            return Some(Span(0));
        }
        let (mut rest, mut ms, mut units) = (text, 0u64, &UNITS[..]);
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            if digits > NUMBER_DIGITS_MAX {
                return None;
            }
            let number: u64 = rest[..digits].parse().ok()?;
            let unit_len = rest[digits..].bytes().take_while(u8::is_ascii_lowercase).count();
            let unit = &rest[digits..digits + unit_len];
            let at = units.iter().position(|(name, _)| *name == unit)?;
            ms = ms.checked_add(number.checked_mul(units[at].1)?)?;
            units = &units[at + 1..];
            rest = &rest[digits + unit_len..];
        }
        (!text.is_empty()).then_some(Span(ms))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.0;
        for (name, unit) in UNITS {
            if rest >= unit {
                write!(f, "{}{name}", rest / unit)?;
                rest %= unit;
            }
        }
        Ok(())
    }
}

macro_rules! as_text {
    ($($name:ident, $what:literal);*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<$name, D::Error> {
                let text = String::deserialize(from)?;
                $name::parse(&text).ok_or_else(|| de::Error::custom(format!(concat!("{:?} is not ", $what), text)))
            }
        }
    )*};
}
as_text!(Timestamp, "an RFC 3339 time such as 2026-11-22T10:15:30Z"; Span, "a span of time such as 30s, 2m or 1h30m");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_six_digits_and_come_back() {
        for (micros, text) in [(0, "1970-01-01T00:00:00.000000Z"), (1_795_342_530_123_456, "2026-11-22T10:15:30.123456Z")] {
            assert_eq!(Timestamp(Time(micros)).to_string(), text);
            assert_eq!(Timestamp::parse(text), Some(Timestamp(Time(micros))));
        }
        assert_eq!(Timestamp::parse("1970-01-01T01:00:00+01:00"), Some(Timestamp(Time(0))));
        assert_eq!(Timestamp(Time(i64::MAX)).to_string(), "9999-12-30T22:00:00.000000Z");
        for bad in ["", "yesterday", "2026-11-22", "2026-11-22T10:15:30", "12"] {
            assert_eq!(Timestamp::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn spans_are_read_and_written_as_people_do() {
        for (ms, text) in
            [(0, "0s"), (1, "1ms"), (30_000, "30s"), (120_000, "2m"), (5_400_000, "1h30m"), (86_400_000, "1d"), (1_500, "1s500ms")]
        {
            assert_eq!(Span(ms).to_string(), text);
            assert_eq!(Span::parse(text), Some(Span(ms)));
        }
        assert_eq!(Span::parse("0"), Some(Span(0)));
        assert_eq!(Span::parse("90m"), Some(Span(5_400_000)));
        for bad in ["", "5", "s", "-1s", "1m1h", "1s1s", "1 s", "1.5h", "2M", "99999999999999999999s", "9999999999999999d", "1é"] {
            assert_eq!(Span::parse(bad), None, "{bad:?}");
        }
    }
}
