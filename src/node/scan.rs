//! Walking a replica's log, entry by entry.

use super::error::{Error, Result};
use super::stream::Local;
use crate::core::command::Command;
use crate::core::machine::Place;
use crate::core::{Event, Time, limits};
use std::collections::VecDeque;

/// Walks the entries of a replica's log in order, from the one that holds `seq` or a little before.
pub struct Scan {
    place: Option<Place>,
    /// Entries that were read and not yet given.
    read: VecDeque<(u64, bytes::Bytes)>,
    next_index: u64,
    /// Bytes given so far, unpacked.
    pub bytes: usize,
}

impl Scan {
    /// `position` is used if it is at or before `seq`.
    pub fn new(local: &Local, seq: u64, position: Option<Place>) -> Scan {
        let place = position.filter(|place| place.seq <= seq).or_else(|| local.replica.machine().locate(seq));
        Scan { place, read: VecDeque::new(), next_index: place.map_or(0, |place| place.index), bytes: 0 }
    }

    /// Where the next entry begins.
    pub fn place(&self) -> Option<Place> {
        self.place
    }

    /// Bytes that were read and not yet given.
    pub fn held(&self) -> usize {
        self.read.iter().map(|(_, command)| command.len()).sum()
    }

    /// The place of the next entry with events, and its events; `None` at the end of what is applied. Of the same replica as before.
    pub async fn next(&mut self, local: &Local) -> Result<Option<(Place, Vec<Event>)>> {
        let Some(mut place) = self.place else { return Ok(None) };
        loop {
            let Some((index, command)) = self.read.pop_front() else {
                let read = local.group.read_commands(self.next_index, limits::CHUNK_BYTES_MAX / 4).await.map_err(Error::Internal)?;
                let Some(read) = read else { return Ok(None) };
                self.next_index = read.next;
                self.read = read.commands.into();
                continue;
            };
            let Command::Publish(publish) = Command::decode(command)? else { continue };
            self.bytes += publish.requests.iter().map(bytes::Bytes::len).sum::<usize>();
            let skipped = local.replica.machine().skipped(index);
            let events = skipped.events_of(&publish, place.seq)?;
            if events.is_empty() {
                continue;
            }
            let here = Place { index, ..place };
            place.index = index + 1;
            place.seq += events.len() as u64;
            place.bytes += events.iter().map(Event::bytes).sum::<u64>();
            self.place = Some(place);
            return Ok(Some((here, events)));
        }
    }
}

/// The first seq whose event is not older than `time`; one past the end if there is none.
pub async fn first_since(local: &Local, time: Time) -> Result<u64> {
    let state = local.replica.current();
    let place = local.replica.machine().locate_time(time);
    let mut scan = Scan::new(local, place.map_or(state.first_seq, |place| place.seq), place);
    while let Some((_, events)) = scan.next(local).await? {
        if let Some(event) = events.iter().find(|event| event.time >= time) {
            return Ok(event.seq.max(state.first_seq));
        }
    }
    Ok(local.replica.current().last_seq + 1)
}

/// The cumulative bytes of the stream before `seq`.
pub async fn bytes_before(local: &Local, seq: u64) -> Result<u64> {
    let mut scan = Scan::new(local, seq, None);
    let mut before = scan.place().map_or(0, |place| place.bytes);
    while let Some((_, events)) = scan.next(local).await? {
        for event in events {
            if event.seq >= seq {
                return Ok(before);
            }
            before += event.bytes();
        }
    }
    Ok(before)
}
