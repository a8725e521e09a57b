//! A stream's replica on this node: its machine, and its newest entries, decoded once for every reader at the tail, by the first of them.

use super::types::Delivery;
use crate::cluster::{Fold, Response};
use crate::core::command::{Command, Publish};
use crate::core::machine::{Machine, Skipped, State};
use crate::core::{codec::Corrupt, limits};
use bytes::Bytes;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, OnceLock},
};
use tokio::sync::watch;

/// - `tail` holds entries whose events have consecutive seqs that end with the machine's last seq, or nothing.
/// - `state` is published after `tail`, so a reader that sees a seq there finds it here.
pub struct Replica {
    machine: Mutex<Machine>,
    tail: Mutex<Tail>,
    state: watch::Sender<State>,
}

#[derive(Default)]
struct Tail {
    entries: VecDeque<Arc<Applied>>,
    events: u64,
    bytes: usize,
}

/// An applied entry that stored events: `first_seq..=last_seq`.
struct Applied {
    first_seq: u64,
    last_seq: u64,
    publish: Publish,
    skipped: Skipped,
    /// Filled by the first reader; `None`: they cannot be decoded, and the log says why.
    events: OnceLock<Option<Vec<Arc<Delivery>>>>,
}

impl Applied {
    fn count(&self) -> u64 {
        self.last_seq - self.first_seq + 1
    }

    fn bytes(&self) -> usize {
        self.publish.requests.iter().map(Bytes::len).sum()
    }

    fn events(&self) -> Option<&[Arc<Delivery>]> {
        let events = self.events.get_or_init(|| {
            let events = self.skipped.events_of(&self.publish, self.first_seq).ok()?;
            Some(events.into_iter().map(|event| Arc::new(Delivery { event, json: OnceLock::new() })).collect())
        });
        events.as_deref()
    }
}

impl Tail {
    /// The newest entry stays however large it is: an entry has its own bound.
    fn push(&mut self, entry: Applied) {
        self.events += entry.count();
        self.bytes += entry.bytes();
        self.entries.push_back(Arc::new(entry));
        while self.entries.len() > 1 && (self.events > limits::TAIL_EVENTS_MAX as u64 || self.bytes > limits::TAIL_BYTES_MAX) {
            let Some(old) = self.entries.pop_front() else { break };
            self.events -= old.count();
            self.bytes -= old.bytes();
        }
    }

    /// The entries from the one with `seq` on that have so many events; `None` when memory begins later.
    fn from(&self, seq: u64, events: u64) -> Option<Vec<Arc<Applied>>> {
        self.entries.front().filter(|front| front.first_seq <= seq)?;
        let from = self.entries.partition_point(|entry| entry.last_seq < seq);
        let enough = self.entries.iter().skip(from).take_while(|entry| entry.first_seq < seq.saturating_add(events));
        Some(enough.cloned().collect())
    }
}

impl Default for Replica {
    fn default() -> Replica {
        Replica { machine: Mutex::new(Machine::new()), tail: Mutex::default(), state: watch::Sender::new(Machine::new().state()) }
    }
}

impl Replica {
    pub fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().expect("nobody panics while holding it")
    }

    /// Changes with every applied entry, and is nudged when whoever waits for that has something else to look at.
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Wakes everybody who waits for the state to change.
    pub fn nudge(&self) {
        self.state.send_modify(|_| {});
    }

    pub fn current(&self) -> State {
        *self.state.borrow()
    }

    /// Events from `seq` on out of memory; `None` when memory begins later. `Some` of nothing: `seq` is beyond the last event.
    pub fn tail(&self, seq: u64, events: usize) -> Option<Vec<Arc<Delivery>>> {
        let entries = {
            let tail = self.tail.lock().expect("nobody panics while holding it");
            if tail.entries.is_empty() {
                return (seq > self.current().last_seq).then(Vec::new);
            }
            tail.from(seq, events as u64)?
        };
        let mut taken = Vec::new();
        for entry in entries {
            let skip = usize::try_from(seq.saturating_sub(entry.first_seq)).unwrap_or(usize::MAX);
            taken.extend(entry.events()?.iter().skip(skip).take(events - taken.len()).cloned());
        }
        Some(taken)
    }

    fn publish_state(&self, machine: &Machine) {
        self.state.send_replace(machine.state());
    }

    fn push(&self, entry: Applied) {
        self.tail.lock().expect("nobody panics while holding it").push(entry);
    }
}

impl Fold for Replica {
    fn apply(&self, index: u64, command: Bytes) -> Result<Response, Corrupt> {
        let command = Command::decode(command)?;
        let mut machine = self.machine();
        let applied = machine.apply(index, &command)?;
        let (first_seq, last_seq) = (applied.first_seq, machine.state().last_seq);
        if let Command::Publish(publish) = command
            && first_seq <= last_seq
        {
            let skipped = match applied.skipped.is_empty() {
                true => Skipped::Nothing,
                false => Skipped::These(applied.skipped.into()),
            };
            self.push(Applied { first_seq, last_seq, publish, skipped, events: OnceLock::new() });
        }
        self.publish_state(&machine);
        Ok(Response::Stream(applied.outcomes))
    }

    fn encode(&self) -> Bytes {
        let mut machine = self.machine();
        machine.mark_next();
        machine.encode()
    }

    fn restore(&self, state: Bytes) -> Result<(), Corrupt> {
        let mut machine = self.machine();
        *machine = Machine::decode(state)?;
        machine.mark_next();
        *self.tail.lock().expect("nobody panics while holding it") = Tail::default();
        self.publish_state(&machine);
        Ok(())
    }

    fn forget_through(&self, index: u64) {
        self.machine().forget_through(index);
    }

    fn seq(&self) -> u64 {
        self.current().last_seq
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::batch::{Origin, RequestHead, encode_request};
    use crate::core::{NewEvent, Time};

    /// Applies an entry with one request of so many events of so many bytes.
    fn apply(replica: &Replica, index: u64, count: usize, bytes: usize) {
        repeat(replica, index, index, count, bytes);
    }

    fn repeat(replica: &Replica, index: u64, counter: u64, count: usize, bytes: usize) {
        let events: Vec<_> = (0..count).map(|_| NewEvent { data: vec![b'x'; bytes].into(), ..NewEvent::default() }).collect();
        let bytes = events.iter().map(NewEvent::bytes).sum();
        let origin = Origin { node: 1, epoch: 1 };
        let head = RequestHead { origin, counter, floor: 1, expected_last_seq: None, count: count as u32, bytes };
        let requests = vec![encode_request(&head, &events)];
        let publish = Publish { time: Time(1), dedup_window_ms: 0, max_events: None, max_bytes: None, requests };
        replica.apply(index, Command::Publish(publish).encode()).unwrap();
    }

    #[track_caller]
    fn check(replica: &Replica, seq: u64, events: usize, expected: Option<std::ops::Range<u64>>) {
        let seqs = replica.tail(seq, events).map(|events| events.iter().map(|event| event.event.seq).collect::<Vec<_>>());
        assert_eq!(seqs, expected.map(Iterator::collect));
    }

    #[test]
    fn a_tail_gives_what_it_has_from_anywhere() {
        let replica = Replica::default();
        check(&replica, 1, 10, Some(1..1));
        (1..=4).for_each(|index| apply(&replica, index, 3, 10));
        check(&replica, 1, 100, Some(1..13));
        check(&replica, 5, 100, Some(5..13));
        check(&replica, 5, 3, Some(5..8));
        check(&replica, 6, 0, Some(6..6));
        check(&replica, 12, 1, Some(12..13));
        check(&replica, 13, 9, Some(13..13));
        // The same request again stores nothing.
        repeat(&replica, 5, 4, 3, 10);
        check(&replica, 10, 9, Some(10..13));
        let again = replica.tail(10, 1).unwrap();
        assert!(Arc::ptr_eq(&again[0], &replica.tail(9, 2).unwrap()[1]), "decoded once for everybody");
    }

    #[test]
    fn a_tail_is_bounded_by_whole_entries() {
        let replica = Replica::default();
        let each = limits::TAIL_EVENTS_MAX / 4;
        (1..=4).for_each(|index| apply(&replica, index, each, 0));
        check(&replica, 1, 1, Some(1..2));
        apply(&replica, 5, 1, 0);
        check(&replica, each as u64, 1, None);
        check(&replica, each as u64 + 1, 1, Some(each as u64 + 1..each as u64 + 2));
        // One entry beyond the bound is there alone.
        apply(&replica, 6, 3, limits::TAIL_BYTES_MAX);
        let first = replica.current().last_seq - 2;
        check(&replica, first - 1, 1, None);
        check(&replica, first, 9, Some(first..first + 3));
    }
}
