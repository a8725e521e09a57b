//! Lines from a file or stdin, read ahead on a thread of their own, bounded in number and length.

use super::open;
use crate::core::limits;
use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
};
use tokio::sync::mpsc;

/// One line that is an event.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// Its place in the input; the first is 1.
    pub number: u64,
    pub data: Vec<u8>,
}

/// Sends every line that is not blank, but for the first `skip`, until the input or the receiver ends.
pub fn read(file: Option<&Path>, skip: u64, to: &mpsc::Sender<Line>) -> Result<(), String> {
    read_from(BufReader::with_capacity(256 * 1024, open(file)?), skip, |line| to.blocking_send(line).is_ok())
}

fn read_from(mut input: impl BufRead, skip: u64, mut take: impl FnMut(Line) -> bool) -> Result<(), String> {
    let bytes_max = limits::EVENT_BYTES_MAX as u64 + 2;
    for number in 1.. {
        let mut data = Vec::new();
        let got = input
            .by_ref()
            .take(bytes_max)
            .read_until(b'\n', &mut data)
            .map_err(|error| format!("line {number} cannot be read: {error}"))?;
        if got == 0 {
            break;
        }
        while data.last().is_some_and(|last| matches!(last, b'\n' | b'\r')) {
            data.pop();
        }
        if data.len() > limits::EVENT_BYTES_MAX {
            return Err(format!("line {number} is longer than an event may be ({} bytes)", limits::EVENT_BYTES_MAX));
        }
        let wanted = number > skip && !data.iter().all(u8::is_ascii_whitespace);
        if wanted && !take(Line { number, data }) {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &[u8], skip: u64) -> (Vec<(u64, String)>, Result<(), String>) {
        let mut lines = Vec::new();
        let outcome = read_from(input, skip, |line| {
            lines.push((line.number, String::from_utf8(line.data).unwrap()));
            true
        });
        (lines, outcome)
    }

    #[test]
    fn lines_keep_their_numbers() {
        let expected = vec![(1, "a".to_owned()), (3, "b".to_owned()), (4, " c".to_owned())];
        assert_eq!(check(b"a\n\nb\r\n c", 0), (expected.clone(), Ok(())));
        assert_eq!(check(b"a\n\nb\r\n c\n \n", 1), (expected[1..].to_vec(), Ok(())));
        assert_eq!(check(b"", 0), (vec![], Ok(())));
    }

    #[test]
    fn a_line_without_end_is_named() {
        let long = vec![b'x'; limits::EVENT_BYTES_MAX + 1];
        let (lines, outcome) = check(&[b"a\n".as_slice(), &long].concat(), 0);
        assert_eq!(lines.len(), 1);
        assert!(outcome.unwrap_err().contains("line 2"));
        assert!(check(&long[1..], 0).1.is_ok());
    }
}
