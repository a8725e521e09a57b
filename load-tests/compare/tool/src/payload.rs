//! The events: 256 bytes of JSON with a number and a time at fixed places, found again in whatever a system puts around them.

use std::time::{SystemTime, UNIX_EPOCH};

pub const BYTES: usize = 256;
const HEAD: &[u8] = b"{\"n\":\"";
const NUMBER: std::ops::Range<usize> = 6..18;
const MICROS: std::ops::Range<usize> = 26..42;

/// Microseconds since the Unix epoch.
pub fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// Event number `n`, stamped with `us`.
pub fn event(n: u64, us: u64) -> Vec<u8> {
    let head = format!("{{\"n\":\"{n:012}\",\"us\":\"{us:016}\",\"x\":\"");
    let filler = BYTES - head.len() - 2;
    format!("{head}{:x<filler$}\"}}", "").into_bytes()
}

/// Gives the number and the time of every event in a frame, in order.
pub fn scan(frame: &[u8], mut each: impl FnMut(u64, u64)) {
    let mut rest = frame;
    while let Some(at) = find(rest, HEAD) {
        let Some(event) = rest.get(at..at + BYTES) else { return };
        each(digits(&event[NUMBER]), digits(&event[MICROS]));
        rest = &rest[at + BYTES..];
    }
}

/// Where `what` begins in `bytes`.
pub fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// The number that begins `bytes`; 0 where none does.
pub fn digits(bytes: &[u8]) -> u64 {
    bytes.iter().take_while(|byte| byte.is_ascii_digit()).fold(0, |number, byte| number * 10 + u64::from(byte - b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_in_what_is_around_them() {
        let (one, two) = (event(1, 22), event(999_999_999_999, 1_800_000_000_000_000));
        assert_eq!((one.len(), two.len()), (BYTES, BYTES));
        let frame = [b"{\"events\":[{\"data\":", &one[..], b"},{\"data\":", &two, b"}]}"].concat();
        let mut found = Vec::new();
        scan(&frame, |n, us| found.push((n, us)));
        assert_eq!(found, [(1, 22), (999_999_999_999, 1_800_000_000_000_000)]);
    }
}
