//! A stream's replica on this node: its machine, and the newest events decoded once for every reader at the tail.

use super::types::Delivery;
use crate::cluster::{Fold, Response};
use crate::core::command::Command;
use crate::core::machine::{Machine, Outcome, Skipped, State};
use crate::core::{Event, codec::Corrupt, limits};
use bytes::Bytes;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, OnceLock},
};
use tokio::sync::watch;

/// - `tail` holds events with consecutive seqs that end with the machine's last seq, or nothing.
/// - `state` is published after `tail`, so a reader that sees a seq there finds it here.
pub struct Replica {
    machine: Mutex<Machine>,
    tail: Mutex<Tail>,
    state: watch::Sender<State>,
}

#[derive(Default)]
struct Tail {
    events: VecDeque<Arc<Delivery>>,
    bytes: usize,
}

impl Tail {
    fn push(&mut self, event: Event) {
        self.bytes += event.data.len();
        self.events.push_back(Arc::new(Delivery { event, json: OnceLock::new() }));
        while self.events.len() > limits::TAIL_EVENTS_MAX || self.bytes > limits::TAIL_BYTES_MAX {
            let Some(old) = self.events.pop_front() else { break };
            self.bytes -= old.event.data.len();
        }
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
        let tail = self.tail.lock().expect("nobody panics while holding it");
        let first = match tail.events.front() {
            Some(front) => front.event.seq,
            None => return (seq > self.current().last_seq).then(Vec::new),
        };
        let skip = seq.checked_sub(first)?;
        Some(tail.events.iter().skip(usize::try_from(skip).unwrap_or(usize::MAX)).take(events).cloned().collect())
    }

    fn publish_state(&self, machine: &Machine) {
        self.state.send_replace(machine.state());
    }

    fn push(&self, events: Vec<Event>) {
        let mut tail = self.tail.lock().expect("nobody panics while holding it");
        events.into_iter().for_each(|event| tail.push(event));
    }
}

impl Fold for Replica {
    fn apply(&self, index: u64, command: Bytes) -> Result<Response, Corrupt> {
        let command = Command::decode(command)?;
        let mut machine = self.machine();
        let applied = machine.apply(index, &command)?;
        if let Command::Publish(publish) = &command
            && applied.outcomes.iter().any(|outcome| matches!(outcome, Outcome::Published { count: 1.., .. }))
        {
            let skipped = match applied.skipped.is_empty() {
                true => Skipped::Nothing,
                false => Skipped::These(applied.skipped.into()),
            };
            self.push(skipped.events_of(publish, applied.first_seq)?);
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
