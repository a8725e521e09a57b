//! What is said about a stream's replicas that are closed while nothing happens to it.

use super::{VERSION, reader, reader_up_to, writer, writer_of};
use crate::cluster::Candidacy;
use crate::core::codec::{Corrupt, Reader, Writer};
use bytes::Bytes;

/// The version that names who is lacking. Nodes that know only the first refuse it, and the stream stays awake.
const LACKING: u8 = 2;

/// A leader asks: this is the end of its log in its term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sleep {
    pub group: u64,
    pub term: u64,
    pub end: Candidacy,
    /// Nodes that hold a replica and cannot be reached.
    pub lacking: Vec<u64>,
}

impl Sleep {
    pub fn encode(&self) -> Bytes {
        let version = if self.lacking.is_empty() { VERSION } else { LACKING };
        let mut w = writer_of(version, 48 + 9 * self.lacking.len());
        w.varint(self.group);
        w.varint(self.term);
        put_end(&mut w, &self.end);
        if version == LACKING {
            w.varint(self.lacking.len() as u64);
            self.lacking.iter().for_each(|id| w.varint(*id));
        }
        w.finish()
    }

    pub fn decode(bytes: Bytes) -> Result<Sleep, Corrupt> {
        let (version, mut r) = reader_up_to(LACKING, "a request to sleep", bytes)?;
        let mut sleep = Sleep { group: r.varint()?, term: r.varint()?, end: get_end(&mut r)?, lacking: Vec::new() };
        if version == LACKING {
            let count = r.varint()?;
            sleep.lacking = (0..count).map(|_| r.varint()).collect::<Result<_, Corrupt>>()?;
        }
        r.end()?;
        Ok(sleep)
    }
}

/// To open the replica of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wake {
    pub group: u64,
    /// Whether a replica that is open and knows of no leader is to look for one too.
    pub passes_on: bool,
}

impl Wake {
    pub fn encode(&self) -> Bytes {
        let mut w = writer(12);
        w.varint(self.group);
        w.u8(self.passes_on as u8);
        w.finish()
    }

    pub fn decode(bytes: Bytes) -> Result<Wake, Corrupt> {
        let mut r = reader("a call to wake", bytes)?;
        let wake = Wake { group: r.varint()?, passes_on: r.u8()? != 0 };
        r.end()?;
        Ok(wake)
    }
}

/// A replica that is open, as its node says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Woken {
    pub leads: bool,
    /// What it would bring into an election; `None`: it must not or will not stand.
    pub end: Option<Candidacy>,
}

impl Woken {
    pub fn encode(&self) -> Bytes {
        let mut w = writer(32);
        w.u8(self.leads as u8);
        w.option(self.end.as_ref(), put_end);
        w.finish()
    }

    pub fn decode(bytes: Bytes) -> Result<Woken, Corrupt> {
        let mut r = reader("a replica that woke", bytes)?;
        let woken = Woken { leads: r.u8()? != 0, end: r.option(get_end)? };
        r.end()?;
        Ok(woken)
    }
}

fn put_end(w: &mut Writer, end: &Candidacy) {
    [end.term, end.leader, end.index].into_iter().for_each(|number| w.varint(number));
}

fn get_end(r: &mut Reader) -> Result<Candidacy, Corrupt> {
    Ok(Candidacy { term: r.varint()?, leader: r.varint()?, index: r.varint()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_sleep_is_frozen() {
        let hex = |bytes: &Bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let end = Candidacy { term: 2, leader: 3, index: 300 };
        let sleep = Sleep { group: 7, term: 4, end, lacking: Vec::new() };
        let lacking = Sleep { lacking: vec![9, 300], ..sleep.clone() };
        for (golden, sleep) in [("0107040203ac02", &sleep), ("0207040203ac020209ac02", &lacking)] {
            assert_eq!(hex(&sleep.encode()), golden);
            assert_eq!(Sleep::decode(sleep.encode()).as_ref(), Ok(sleep));
        }
        for (golden, wake) in [("010700", Wake { group: 7, passes_on: false }), ("010701", Wake { group: 7, passes_on: true })] {
            assert_eq!(hex(&wake.encode()), golden);
            assert_eq!(Wake::decode(wake.encode()), Ok(wake));
        }
        for (golden, woken) in [("010100", Woken { leads: true, end: None }), ("0100010203ac02", Woken { leads: false, end: Some(end) })] {
            assert_eq!(hex(&woken.encode()), golden);
            assert_eq!(Woken::decode(woken.encode()), Ok(woken));
        }
        for bytes in [sleep.encode(), lacking.encode(), Woken { leads: false, end: Some(end) }.encode()] {
            assert!((0..bytes.len()).all(|cut| Sleep::decode(bytes.slice(..cut)).is_err() && Woken::decode(bytes.slice(..cut)).is_err()));
        }
    }
}
