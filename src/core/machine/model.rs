//! The machine against a model that keeps everything in plain lists, and against itself after a restart.

use super::{tests::event, *};
use crate::core::{SubjectFilter, batch::Origin};
use proptest::prelude::*;
use std::collections::BTreeMap;

const WINDOW_MS: u64 = 3_000;

#[derive(Clone, Debug)]
struct Request {
    node: u64,
    epoch: u64,
    counter: u64,
    /// How far the floor is below the counter.
    pending: u64,
    /// Expects the last seq before the entry, and this more.
    expects: Option<u64>,
    /// Id, subject, size.
    events: Vec<(Option<u8>, Option<u8>, usize)>,
}

#[derive(Clone, Debug)]
enum Step {
    Publish {
        later_ms: i64,
        max_events: Option<u64>,
        max_bytes: Option<u64>,
        requests: Vec<Request>,
    },
    /// So much of what is there, in percent.
    Trim(u64),
    Purge(u8, u64),
    /// The log is purged as far as may be.
    Forget,
}

fn any_request() -> impl Strategy<Value = Request> {
    let events = proptest::collection::vec((proptest::option::of(0u8..12), proptest::option::of(0u8..3), 0usize..2_000), 1..12);
    let epoch = prop_oneof![8 => Just(1u64), 1 => Just(2u64)];
    (1u64..4, epoch, 0u64..40, 0u64..60, proptest::option::of(prop_oneof![4 => Just(0u64), 1 => Just(1u64)]), events)
        .prop_map(|(node, epoch, counter, pending, expects, events)| Request { node, epoch, counter, pending, expects, events })
}

fn any_step() -> impl Strategy<Value = Step> {
    let bound = |range| prop_oneof![3 => Just(None), 1 => proptest::strategy::Strategy::prop_map(range, Some)];
    let publish = (0i64..2_000, bound(1u64..200), bound(1_000u64..200_000), proptest::collection::vec(any_request(), 0..6));
    prop_oneof![
        12 => publish.prop_map(|(later_ms, max_events, max_bytes, requests)| Step::Publish { later_ms, max_events, max_bytes, requests }),
        1 => (0u64..120).prop_map(Step::Trim),
        1 => (0u8..3, 0u64..120).prop_map(|(subject, part)| Step::Purge(subject, part)),
        1 => Just(Step::Forget),
    ]
}

fn subject(number: u8) -> &'static str {
    ["a", "b.x", "b.y"][number as usize]
}

struct Stored {
    time: Time,
    id: Option<Text>,
    subject: Option<Text>,
    bytes: u64,
    purged: bool,
}

/// Everything that was ever stored and decided; seq is the place in `events`, from 1.
#[derive(Default)]
struct Model {
    time: Time,
    events: Vec<Stored>,
    first: usize,
    /// Whether the machine's counts are estimates.
    is_estimate: bool,
    epochs: BTreeMap<u64, (u64, u64)>,
    outcomes: Vec<(Origin, u64, Outcome)>,
    log: BTreeMap<u64, Publish>,
}

impl Model {
    fn command(&mut self, step: &Step) -> Option<Command> {
        let part = |percent: &u64| (self.first as u64) + (self.events.len() - self.first) as u64 * percent / 100 + 1;
        match step {
            Step::Publish { later_ms, max_events, max_bytes, requests } => {
                self.time.0 += later_ms * 1_000;
                let requests = requests.iter().map(|request| self.encode(request)).collect();
                let (max_events, max_bytes) = (*max_events, *max_bytes);
                Some(Command::Publish(Publish { time: self.time, dedup_window_ms: WINDOW_MS, max_events, max_bytes, requests }))
            }
            Step::Trim(percent) => {
                let before_seq = part(percent);
                let bytes_before = self.events.iter().take(before_seq as usize - 1).map(|event| event.bytes).sum();
                Some(Command::Trim { before_seq, bytes_before })
            }
            Step::Purge(number, percent) => {
                let filter = SubjectFilter::new(["a", "b.*", ">"][*number as usize]).unwrap();
                let before_seq = part(percent);
                let taken = || self.events.iter().take(before_seq as usize - 1).skip(self.first);
                let taken = || taken().filter(|event| !event.purged && filter.matches(event.subject.as_deref()));
                let (events, bytes) = (taken().count() as u64, taken().map(|event| event.bytes).sum());
                Some(Command::PurgeSubject { filter, before_seq, events, bytes })
            }
            Step::Forget => None,
        }
    }

    fn encode(&self, request: &Request) -> Bytes {
        let head = RequestHead {
            origin: Origin { node: request.node, epoch: request.epoch },
            counter: request.counter,
            floor: request.counter.saturating_sub(request.pending),
            expected_last_seq: request.expects.map(|more| self.events.len() as u64 + more),
            count: 0,
            bytes: 0,
        };
        let id = |id: &Option<u8>| id.map(|id| format!("id-{id}"));
        let events = request.events.iter().map(|(i, s, size)| event(id(i).as_deref(), s.map(subject), *size)).collect::<Vec<_>>();
        batch::encode_request(&head, &events)
    }

    fn apply(&mut self, index: u64, command: &Command, before: State) -> Vec<Outcome> {
        match command {
            Command::Publish(publish) => {
                let mut state = before;
                self.log.insert(index, publish.clone());
                publish.requests.iter().map(|request| self.request(publish, request, &mut state)).collect()
            }
            Command::Trim { before_seq, .. } => {
                let first = (*before_seq as usize - 1).min(self.events.len());
                self.is_estimate |= self.events[self.first..].iter().any(|event| event.purged) && first > self.first;
                self.first = self.first.max(first);
                self.is_estimate &= self.first < self.events.len();
                vec![]
            }
            Command::PurgeSubject { filter, before_seq, .. } => {
                for event in self.events.iter_mut().take(*before_seq as usize - 1).skip(self.first) {
                    event.purged |= filter.matches(event.subject.as_deref());
                }
                vec![]
            }
        }
    }

    fn request(&mut self, publish: &Publish, request: &Bytes, state: &mut State) -> Outcome {
        let head = batch::decode_head(request).unwrap();
        let (epoch, floor) = self.epochs.entry(head.origin.node).or_default();
        if head.origin.epoch < *epoch {
            return Outcome::Rejected(Reject::Stale);
        }
        if head.origin.epoch > *epoch {
            (*epoch, *floor) = (head.origin.epoch, 0);
        }
        *floor = head.floor.max(*floor);
        if head.counter < *floor {
            return Outcome::Rejected(Reject::Stale);
        }
        let same = self.outcomes.iter().find(|(origin, counter, _)| *origin == head.origin && *counter == head.counter);
        if let Some((_, _, outcome)) = same {
            return outcome.clone();
        }
        let outcome = self.decide(publish, &head, request, state);
        self.outcomes.push((head.origin, head.counter, outcome.clone()));
        outcome
    }

    fn known(&self, id: &Option<Text>) -> Option<u64> {
        id.as_ref()?;
        let is_in_window = |event: &Stored| self.time.0 - event.time.0 <= WINDOW_MS as i64 * 1_000;
        let at = self.events.iter().rposition(|event| event.id == *id && is_in_window(event))?;
        Some(at as u64 + 1)
    }

    fn decide(&mut self, publish: &Publish, head: &RequestHead, request: &Bytes, state: &mut State) -> Outcome {
        let all = batch::decode_events(request).unwrap();
        let known: Vec<_> = all.iter().map(|event| self.known(&event.id)).collect();
        if let (true, Some(first), Some(last)) = (known.iter().all(Option::is_some), known[0], known[known.len() - 1]) {
            let time = self.events[first as usize - 1].time;
            return Outcome::Published { first_seq: first, last_seq: last, count: 0, duplicates: head.count, time };
        }
        let last_seq = self.events.len() as u64;
        if head.expected_last_seq.is_some_and(|expected| expected != last_seq) {
            return Outcome::Rejected(Reject::Expectation { last_seq });
        }
        let is_new = |at: usize| known[at].is_none() && (all[at].id.is_none() || all[..at].iter().all(|event| event.id != all[at].id));
        let new: Vec<_> = (0..all.len()).filter(|at| is_new(*at)).map(|at| &all[at]).collect();
        let (events, bytes) = (state.events + new.len() as u64, state.bytes + new.iter().map(|event| event.bytes()).sum::<u64>());
        if let Some(limit) = publish.max_events.filter(|limit| events > *limit) {
            return Outcome::Rejected(Reject::Full { limit, bytes: false });
        }
        if let Some(limit) = publish.max_bytes.filter(|limit| bytes > *limit) {
            return Outcome::Rejected(Reject::Full { limit, bytes: true });
        }
        (state.events, state.bytes) = (events, bytes);
        self.events.extend(new.iter().map(|event| Stored {
            time: publish.time,
            id: event.id.clone(),
            subject: event.subject.clone(),
            bytes: event.bytes(),
            purged: false,
        }));
        let (count, duplicates) = (new.len() as u32, (all.len() - new.len()) as u32);
        Outcome::Published { first_seq: last_seq + 1, last_seq: self.events.len() as u64, count, duplicates, time: publish.time }
    }

    /// The machine's size is the model's, and a reader finds the model's events.
    fn check(&self, machine: &Machine) {
        let state = machine.state();
        let kept = || self.events[self.first..].iter().filter(|event| !event.purged);
        assert_eq!((state.first_seq, state.last_seq), (self.first as u64 + 1, self.events.len() as u64));
        assert!(state.events <= state.last_seq + 1 - state.first_seq);
        if !self.is_estimate {
            assert_eq!((state.events, state.bytes), (kept().count() as u64, kept().map(|event| event.bytes).sum()));
        }
        self.check_reading(machine);
    }

    fn check_reading(&self, machine: &Machine) {
        let Some(place) = machine.locate(self.first as u64 + 1) else {
            return assert_eq!(self.first, self.events.len(), "a stream with events has a mark for them");
        };
        assert_eq!(place.bytes, self.events[..place.seq as usize - 1].iter().map(|event| event.bytes).sum::<u64>());
        let mut seq = place.seq;
        for (index, publish) in self.log.range(place.index..) {
            let skipped = machine.skipped(*index);
            let events = skipped.events_of(publish, seq).unwrap();
            assert_eq!(skipped.stored_of(publish).unwrap(), events.len() as u64);
            for event in events {
                let stored = &self.events[event.seq as usize - 1];
                assert_eq!((&event.id, &event.subject, event.bytes()), (&stored.id, &stored.subject, stored.bytes));
                let is_purged = machine.is_purged(event.seq, event.subject.as_deref());
                assert!(event.seq <= self.first as u64 || is_purged == stored.purged, "seq {}", event.seq);
                seq += 1;
            }
        }
        assert_eq!(seq, self.events.len() as u64 + 1, "a reader comes to the end");
    }
}

proptest! {
    #[test]
    fn the_machine_does_as_the_model(steps in proptest::collection::vec(any_step(), 1..60), restart in 0usize..60) {
        let (mut model, mut machine) = (Model::default(), Machine::new());
        let mut restarted: Option<Machine> = None;
        for (at, step) in steps.iter().enumerate() {
            let index = at as u64 * 2 + 1;
            if at == restart {
                let mut decoded = Machine::decode(machine.encode()).unwrap();
                [&mut machine, &mut decoded].into_iter().for_each(Machine::mark_next);
                restarted = Some(decoded);
            }
            let Some(command) = model.command(step) else {
                if let Some(through) = machine.needless_through() {
                    model.log = model.log.split_off(&(through + 1));
                    [Some(&mut machine), restarted.as_mut()].into_iter().flatten().for_each(|machine| machine.forget_through(through));
                }
                model.check(&machine);
                continue;
            };
            let before = machine.state();
            let applied = machine.apply(index, &command).unwrap();
            let expected = model.apply(index, &command, before);
            if let Command::Publish(publish) = &command {
                prop_assert_eq!(&applied.outcomes, &expected);
                prop_assert_eq!(events_of(publish, applied.first_seq, &applied.skipped), machine.skipped(index).events_of(publish, applied.first_seq));
            }
            if let Some(restarted) = &mut restarted {
                prop_assert_eq!(&restarted.apply(index, &command).unwrap(), &applied);
            }
            model.check(&machine);
        }
        if let Some(restarted) = restarted {
            prop_assert_eq!(restarted.encode(), machine.encode());
        }
    }
}
