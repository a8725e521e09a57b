//! The rules of the machine, one by one; `model` checks them all together.

use super::*;
use crate::core::{Event, NewEvent, SubjectFilter, batch::Origin, golden};

pub fn event(id: Option<&str>, subject: Option<&str>, size: usize) -> NewEvent {
    NewEvent { id: id.map(Text::from), subject: subject.map(Text::from), data: vec![b'x'; size].into(), ..NewEvent::default() }
}

/// A request of node 1 in its first boot.
fn request(counter: u64, events: &[NewEvent]) -> Bytes {
    with(counter, |_| {}, events)
}

fn with(counter: u64, change: impl FnOnce(&mut RequestHead), events: &[NewEvent]) -> Bytes {
    let origin = Origin { node: 1, epoch: 1 };
    let mut head = RequestHead { origin, counter, floor: 0, expected_last_seq: None, count: 0, bytes: 0 };
    change(&mut head);
    batch::encode_request(&head, events)
}

fn publish(ms: i64, requests: Vec<Bytes>) -> Publish {
    Publish { time: Time(ms * 1_000), dedup_window_ms: 1_000, max_events: None, max_bytes: None, requests }
}

fn purge(filter: &str, before_seq: u64, events: u64, bytes: u64) -> Command {
    Command::PurgeSubject { filter: SubjectFilter::new(filter).unwrap(), before_seq, events, bytes }
}

/// A machine that counts the indexes itself.
struct Log {
    machine: Machine,
    index: u64,
    counter: u64,
}

impl Log {
    fn new() -> Log {
        Log { machine: Machine::new(), index: 0, counter: 0 }
    }

    fn apply(&mut self, command: Command) -> Applied {
        self.index += 1;
        self.machine.apply(self.index, &command).unwrap()
    }

    fn requests(&mut self, ms: i64, requests: Vec<Bytes>) -> Applied {
        self.apply(Command::Publish(publish(ms, requests)))
    }

    fn one(&mut self, ms: i64, request: Bytes) -> Outcome {
        self.requests(ms, vec![request]).outcomes.remove(0)
    }

    /// Publishes in an entry of its own.
    fn events(&mut self, ms: i64, events: &[NewEvent]) -> Outcome {
        self.counter += 1;
        self.one(ms, request(1_000_000 + self.counter, events))
    }
}

fn stored(first_seq: u64, count: u32, duplicates: u32, ms: i64) -> Outcome {
    Outcome::Published { first_seq, last_seq: first_seq + u64::from(count) - 1, count, duplicates, time: Time(ms * 1_000) }
}

#[test]
fn seqs_begin_at_one_and_have_no_holes() {
    let mut log = Log::new();
    assert_eq!(log.machine.state(), State { first_seq: 1, ..State::default() });
    let plain = event(None, None, 10);
    let applied = log.requests(5, vec![request(1, &[plain.clone(), plain.clone()]), request(2, &[plain])]);
    assert_eq!(applied, Applied { outcomes: vec![stored(1, 2, 0, 5), stored(3, 1, 0, 5)], first_seq: 1, skipped: vec![] });
    assert_eq!(log.machine.state(), State { first_seq: 1, last_seq: 3, events: 3, bytes: 30, last_time: Time(5_000) });
    assert_eq!(log.machine.locate(3), Some(Place { index: 1, seq: 1, bytes: 0 }));
}

#[test]
fn an_id_is_known_to_the_end_of_the_window() {
    let mut log = Log::new();
    let (a, b) = (event(Some("a"), None, 1), event(Some("b"), None, 1));
    assert_eq!(log.events(0, std::slice::from_ref(&a)), stored(1, 1, 0, 0));
    let again = Outcome::Published { first_seq: 1, last_seq: 1, count: 0, duplicates: 1, time: Time(0) };
    assert_eq!(log.events(1_000, std::slice::from_ref(&a)), again);
    assert_eq!(log.machine.find_id("a", Time(1_000_000), 1_000), Some((1, Time(0))));
    assert_eq!(log.machine.find_id("a", Time(1_000_001), 1_000), None);
    assert_eq!(log.machine.skipped(2), Skipped::All);
    // A repeat inside a request is a duplicate too, and takes no seq.
    let applied = log.requests(1_001, vec![request(5, &[a.clone(), b.clone(), a.clone(), event(None, None, 1)])]);
    assert_eq!(applied, Applied { outcomes: vec![stored(2, 3, 1, 1_001)], first_seq: 2, skipped: vec![2] });
    assert_eq!(log.machine.skipped(3), Skipped::These([2].into()));
    let both = Outcome::Published { first_seq: 3, last_seq: 2, count: 0, duplicates: 2, time: Time(1_001_000) };
    assert_eq!(log.events(1_002, &[b, a]), both);
}

#[test]
fn an_expectation_is_for_the_last_seq_and_a_repeat_is_no_breach() {
    let mut log = Log::new();
    let expecting = |counter, seq, id| with(counter, |head| head.expected_last_seq = Some(seq), &[event(Some(id), None, 1)]);
    assert_eq!(log.one(0, expecting(1, 0, "a")), stored(1, 1, 0, 0));
    assert_eq!(log.one(0, expecting(2, 0, "b")), Outcome::Rejected(Reject::Expectation { last_seq: 1 }));
    let again = Outcome::Published { first_seq: 1, last_seq: 1, count: 0, duplicates: 1, time: Time(0) };
    assert_eq!(log.one(0, expecting(3, 0, "a")), again);
    let applied = log.requests(0, vec![expecting(4, 1, "b"), expecting(5, 1, "c"), expecting(6, 2, "d")]);
    assert_eq!(applied.outcomes, [stored(2, 1, 0, 0), Outcome::Rejected(Reject::Expectation { last_seq: 2 }), stored(3, 1, 0, 0)]);
    assert_eq!(applied.skipped, [1]);
}

#[test]
fn a_full_stream_refuses_whole_requests() {
    let mut log = Log::new();
    let bounded = |counter, events: &[NewEvent]| {
        let requests = vec![request(counter, events)];
        Command::Publish(Publish { max_events: Some(3), max_bytes: Some(100), ..publish(0, requests) })
    };
    let plain = |size| event(None, None, size);
    assert_eq!(log.apply(bounded(1, &[plain(10), plain(10)])).outcomes, [stored(1, 2, 0, 0)]);
    let full = |limit, bytes| [Outcome::Rejected(Reject::Full { limit, bytes })];
    assert_eq!(log.apply(bounded(2, &[plain(1), plain(1)])).outcomes, full(3, false));
    assert_eq!(log.apply(bounded(3, &[plain(81)])).outcomes, full(100, true));
    assert_eq!(log.apply(bounded(4, &[plain(80)])).outcomes, [stored(3, 1, 0, 0)]);
    log.apply(Command::Trim { before_seq: 2, bytes_before: 10 });
    assert_eq!(log.apply(bounded(5, &[plain(10)])).outcomes, [stored(4, 1, 0, 0)]);
}

#[test]
fn a_request_sent_again_gets_the_same_outcome() {
    let mut log = Log::new();
    let plain = [event(None, None, 1)];
    let expecting = |counter| with(counter, |head| head.expected_last_seq = Some(7), &plain);
    assert_eq!(log.one(0, request(5, &plain)), stored(1, 1, 0, 0));
    assert_eq!(log.one(9, request(5, &plain)), stored(1, 1, 0, 0));
    let rejected = Outcome::Rejected(Reject::Expectation { last_seq: 1 });
    assert_eq!(log.one(9, expecting(6)), rejected);
    assert_eq!(log.one(9, request(4, &plain)), stored(2, 1, 0, 9));
    assert_eq!(log.one(9, expecting(6)), rejected);
    assert_eq!(log.machine.skipped(2), Skipped::All);

    let stale = Outcome::Rejected(Reject::Stale);
    assert_eq!(log.one(9, with(7, |head| head.floor = 6, &plain)), stored(3, 1, 0, 9));
    assert_eq!(log.one(9, request(5, &plain)), stale, "it was settled");
    assert_eq!(log.one(9, expecting(6)), rejected, "it was not");
    assert_eq!(log.one(9, with(0, |head| head.origin.epoch = 2, &plain)), stored(4, 1, 0, 9));
    assert_eq!(log.one(9, request(8, &plain)), stale, "the origin has started again");
    assert_eq!(log.machine.state().last_seq, 4);
}

#[test]
fn origins_and_their_outcomes_are_bounded() {
    let mut log = Log::new();
    let plain = [event(None, None, 1)];
    let of = |node| with(0, |head| head.origin.node = node, &plain);
    for node in 1..=limits::ORIGINS_MAX as u64 + 1 {
        log.one(0, of(node));
        log.one(0, of(1));
    }
    let last_seq = log.machine.state().last_seq;
    assert_eq!(log.one(0, of(1)), stored(1, 1, 0, 0), "in use all the time");
    assert_eq!(log.one(0, of(3)), stored(3, 1, 0, 0));
    assert_eq!(log.one(0, of(2)), stored(last_seq + 1, 1, 0, 0), "not used for longest, so forgotten");

    let max = limits::PENDING_REQUESTS_MAX as u64;
    log.requests(0, (1..=max + 1).map(|counter| request(counter, &plain)).collect());
    assert_eq!(log.one(0, request(1, &plain)), Outcome::Rejected(Reject::Stale));
    assert_eq!(log.one(0, request(2, &plain)), stored(last_seq + 3, 1, 0, 0));
}

#[test]
fn what_does_not_decode_changes_nothing() {
    let mut log = Log::new();
    log.events(0, &[event(Some("a"), None, 1)]);
    let before = log.machine.encode();
    let bad = publish(9_999, vec![request(1, &[event(None, None, 1)]), Bytes::from_static(b"?")]);
    assert!(log.machine.apply(2, &Command::Publish(bad)).is_err());
    assert!(log.machine.apply(1, &Command::Trim { before_seq: 2, bytes_before: 1 }).is_err(), "an index that was there");
    assert_eq!(log.machine.encode(), before);
}

#[test]
fn a_trim_is_clamped_and_never_goes_back() {
    let mut log = Log::new();
    for _ in 0..10 {
        log.events(0, &[event(None, None, 10)]);
    }
    let mut trim = |before_seq, bytes_before| log.apply(Command::Trim { before_seq, bytes_before }).outcomes.remove(0);
    assert_eq!(trim(4, 30), Outcome::Trimmed { events: 3, bytes: 30 });
    assert_eq!(trim(2, 10), Outcome::Trimmed { events: 0, bytes: 0 });
    assert_eq!(trim(99, 5), Outcome::Trimmed { events: 7, bytes: 70 });
    let state = State { first_seq: 11, last_seq: 10, ..State::default() };
    assert_eq!(log.machine.state(), state);
    assert_eq!(log.events(0, &[event(None, None, 3)]), stored(11, 1, 0, 0));
    assert_eq!(log.machine.state(), State { last_seq: 11, events: 1, bytes: 3, ..state });
}

#[test]
fn a_subject_purge_hides_and_counts_and_goes_with_its_range() {
    let mut log = Log::new();
    for n in 0..10 {
        log.events(0, &[event(None, Some(if n % 2 == 0 { "a.x" } else { "b" }), 7)]);
    }
    let size = log.machine.state().bytes;
    let outcome = log.apply(purge("a.>", 8, 4, 40)).outcomes.remove(0);
    assert_eq!(outcome, Outcome::Trimmed { events: 4, bytes: 40 });
    assert!(log.machine.is_purged(7, Some("a.x")) && !log.machine.is_purged(9, Some("a.x")) && !log.machine.is_purged(2, Some("b")));
    let State { events, bytes, .. } = log.machine.state();
    assert_eq!((events, bytes), (6, size - 40));
    // The same filter widens its purge.
    log.apply(purge("a.>", 11, 1, 10));
    assert!(log.machine.is_purged(9, Some("a.x")));
    assert_eq!(log.machine.state().events, 5);
    // Half of the range trimmed: half of the purged events with it; all of it: exact again.
    log.apply(Command::Trim { before_seq: 6, bytes_before: size / 2 });
    assert_eq!(log.machine.state().events, 2);
    log.events(0, &[event(None, None, 7)]);
    log.apply(Command::Trim { before_seq: 11, bytes_before: size });
    let state = log.machine.state();
    assert_eq!((state.first_seq, state.events, state.bytes), (11, 1, 7));
    assert!(!log.machine.is_purged(10, Some("a.x")));
}

#[test]
fn subject_purges_are_bounded() {
    let mut log = Log::new();
    log.events(0, &[event(None, None, 1), event(None, None, 1)]);
    for n in 0..limits::TOMBSTONES_MAX {
        assert_eq!(log.apply(purge(&format!("s{n}"), 99, 0, 0)).outcomes, [Outcome::Trimmed { events: 0, bytes: 0 }]);
    }
    assert_eq!(log.apply(purge("more", 99, 0, 0)).outcomes, [Outcome::Rejected(Reject::TombstonesFull)]);
    assert_eq!(log.apply(purge("s0", 99, u64::MAX, u64::MAX)).outcomes, [Outcome::Trimmed { events: 2, bytes: 2 }]);
    assert_eq!(log.machine.state().events, 0);
    log.apply(Command::Trim { before_seq: 99, bytes_before: 0 });
    assert_eq!(log.apply(purge("more", 99, 0, 0)).outcomes, [Outcome::Trimmed { events: 0, bytes: 0 }], "nothing is left to purge");
}

#[test]
fn marks_are_sparse_by_events_and_by_bytes() {
    let mut log = Log::new();
    for ms in 0..130 {
        log.events(ms, &[event(None, None, 1)]);
    }
    log.events(130, &[event(None, None, 64 * 1024)]);
    log.events(131, &[event(None, None, 1)]);
    let place = |index, bytes| Some(Place { index, seq: index, bytes });
    for (seq, expected) in
        [(0, None), (1, place(1, 0)), (64, place(1, 0)), (65, place(65, 64)), (131, place(129, 128)), (999, place(132, 65_666))]
    {
        assert_eq!(log.machine.locate(seq), expected, "{seq}");
    }
    for (ms, expected) in [(0, 1), (64, 1), (65, 65), (129, 129), (131, 129), (132, 132)] {
        assert_eq!(log.machine.locate_time(Time(ms * 1_000)).unwrap().index, expected, "{ms}");
    }
    log.apply(Command::Trim { before_seq: 70, bytes_before: 69 });
    assert_eq!((log.machine.locate(64), log.machine.needless_through()), (None, Some(64)));
    log.machine.forget_through(64);
    assert_eq!(log.machine.locate(70), place(65, 64));
}

#[test]
fn a_checkpoint_has_a_mark_behind_it() {
    let mut log = Log::new();
    for ms in 0..9 {
        log.events(ms, &[event(None, None, 1)]);
        if ms == 3 {
            log.machine.mark_next();
        }
    }
    log.apply(Command::Trim { before_seq: 5, bytes_before: 4 });
    assert_eq!(log.machine.needless_through(), Some(4));
    assert_eq!(log.machine.locate(9), Some(Place { index: 5, seq: 5, bytes: 4 }), "one is enough");
}

#[test]
fn marks_stay_few_in_a_long_stream() {
    let mut index = Index::default();
    let rounds = limits::MARKS_MAX as u64 * 5;
    for n in 0..rounds {
        index.stored(Place { index: n + 1, seq: 1 + n * limits::MARK_EVENTS, bytes: n }, Time(n as i64), &[]);
    }
    for n in [0, 1, rounds / 3, rounds - 1] {
        let seq = 1 + n * limits::MARK_EVENTS;
        let found = index.locate(seq).unwrap();
        assert!(found.seq <= seq && seq - found.seq <= 8 * limits::MARK_EVENTS, "{seq} {found:?}");
    }
}

#[test]
fn whole_skipped_entries_are_runs_between_stored_ones() {
    let mut index = Index::default();
    let place = |index, seq| Place { index, seq, bytes: 0 };
    index.stored(place(2, 1), Time(0), &[1]);
    for skipped in [3, 5, 6] {
        index.skipped_all(skipped);
    }
    index.stored(place(8, 70), Time(0), &[]);
    index.skipped_all(9);
    let all = |index: &Index| (1..11).filter(|at| index.skipped(*at) == Skipped::All).collect::<Vec<_>>();
    assert_eq!(all(&index), [3, 4, 5, 6, 9], "4 is no publish, or it would have been told");
    assert_eq!((index.skipped(2), index.skipped(8)), (Skipped::These([1].into()), Skipped::Nothing));
    index.forget_through(4);
    assert_eq!(all(&index), [5, 6, 9]);
    assert_eq!(index.skipped(2), Skipped::Nothing);
    index.trim(70);
    assert_eq!(all(&index), [9]);
}

#[test]
fn events_take_their_seqs_from_the_entry() {
    let entry = publish(3, vec![request(1, &[event(Some("a"), None, 1), event(Some("b"), None, 2)]), request(2, &[event(None, None, 3)])]);
    let found = events_of(&entry, 7, &[1]).unwrap();
    let brief = |event: &Event| (event.seq, event.time, event.bytes());
    assert_eq!(found.iter().map(brief).collect::<Vec<_>>(), [(7, Time(3_000), 2), (8, Time(3_000), 3)]);
    for (skipped, count) in [(Skipped::Nothing, 3), (Skipped::These([1].into()), 2), (Skipped::All, 0)] {
        assert_eq!(skipped.stored_of(&entry), Ok(count));
        assert_eq!(skipped.events_of(&entry, 7).unwrap().len() as u64, count);
    }
}

/// A machine with something of everything.
fn full() -> Machine {
    let mut log = Log::new();
    let (a, b) = (event(Some("a"), Some("s.a"), 5), event(Some("b"), None, 6));
    log.requests(1, vec![request(1, &[a.clone(), b.clone(), a.clone()]), with(2, |head| head.expected_last_seq = Some(9), &[b])]);
    log.one(2, with(1, |head| head.origin = Origin { node: 2, epoch: 7 }, std::slice::from_ref(&a)));
    log.requests(3, vec![with(300, |head| head.floor = 2, &vec![event(None, None, 1); 70])]);
    log.events(4, &[event(None, Some("s.b"), 1)]);
    log.apply(purge("s.>", 60, 1, 9));
    log.apply(Command::Trim { before_seq: 2, bytes_before: 9 });
    log.machine
}

#[test]
fn a_machine_is_the_golden() {
    let (empty, full) = (Machine::new(), full());
    golden::check("machine_v1.txt", &[("empty", empty.encode()), ("full", full.encode())]);
    for machine in [empty, full] {
        let bytes = machine.encode();
        assert_eq!(Machine::decode(bytes.clone()).unwrap().encode(), bytes);
        assert!(Machine::decode(Bytes::from([&bytes[..], &[0]].concat())).is_err());
        for end in 0..bytes.len() {
            assert!(Machine::decode(bytes.slice(..end)).is_err(), "cut at {end}");
        }
    }
}

#[test]
fn a_damaged_machine_is_refused_or_harmless() {
    let good = full().encode();
    for at in 0..good.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut bytes = good.to_vec();
            bytes[at] ^= flip;
            let Ok(mut machine) = Machine::decode(bytes.into()) else { continue };
            let entry = publish(5, vec![request(400, &[event(Some("c"), None, 1)])]);
            let _ = machine.apply(1_000, &Command::Publish(entry));
            let _ = machine.apply(1_001, &Command::Trim { before_seq: 60, bytes_before: 100 });
            machine.forget_through(2);
            let _ = (machine.state(), machine.locate(5), machine.skipped(2), machine.encode());
        }
    }
}
