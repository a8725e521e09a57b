//! Power loss and failing disks: random operations, a crash at any write, and a look at what the next start finds.
//!
//! What must hold: each group is found in the state after one of its own operations, and not before the last one that was answered.
//! That implies no lost entry, no hole, no resurrected entry, no forgotten vote.

use super::*;
use crate::store::crash::{Fault, Random};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

const GROUPS: u64 = 3;

/// What a group should be.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    purged: Option<LogId>,
    log: Vec<Entry>,
    vote: Option<Bytes>,
    checkpoints: BTreeMap<u64, Bytes>,
}

impl std::fmt::Display for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let short = |bytes: &Bytes| String::from_utf8_lossy(&bytes[..bytes.len().min(10)]).into_owned();
        let log: Vec<_> = self.log.iter().map(|entry| (entry.index, entry.term, short(&entry.payload))).collect();
        write!(f, "purged {:?} log {log:?} vote {:?} checkpoints {:?}", self.purged, self.vote, self.checkpoints)
    }
}

impl Model {
    fn of(group: &Group) -> Model {
        let checkpoints = group.checkpoints().into_iter().map(|index| (index, group.checkpoint(index).unwrap().unwrap()));
        Model { purged: group.log_state().purged, log: read_all(group), vote: group.vote(), checkpoints: checkpoints.collect() }
    }

    fn last(&self) -> Option<LogId> {
        self.log.last().map(Entry::id).or(self.purged)
    }
}

/// Every state a group had since the last start, and the newest that was answered for.
#[derive(Default)]
struct History {
    states: Vec<Model>,
    answered: Arc<AtomicUsize>,
    committed: Option<LogId>,
}

impl History {
    fn begin(model: Model, committed: Option<LogId>) -> History {
        History { states: vec![model], answered: Arc::default(), committed }
    }

    fn now(&self) -> &Model {
        self.states.last().unwrap()
    }

    fn done(&self) -> impl FnOnce(Result<(), Error>) + Send + 'static {
        let (answered, at) = (self.answered.clone(), self.states.len() - 1);
        move |result| {
            if result.is_ok() {
                answered.fetch_max(at, SeqCst);
            }
        }
    }
}

struct Run {
    random: Random,
    options: Options,
    rig: Rig,
    histories: Vec<History>,
    identity_saved: Arc<AtomicUsize>,
    term: u64,
    written: u64,
    merges: u64,
}

impl Run {
    fn new(seed: u64) -> Run {
        let mut random = Random(seed);
        let segment_bytes = [1, 2_000, 20_000][random.below(3) as usize];
        let tail_bytes = [0, 500, 1 << 20][random.below(3) as usize];
        let journal_bytes = [0, 40 << 10, 200 << 10][random.below(3) as usize];
        let options = Options { journal_bytes, ..options(segment_bytes, tail_bytes) };
        let rig = Rig::new(options.clone());
        let histories = (0..GROUPS).map(|_| History::begin(Model::default(), None)).collect();
        let identity_saved = Arc::new(AtomicUsize::new(0));
        Run { random, options, rig, histories, identity_saved, term: 1, written: 0, merges: 0 }
    }

    fn go(&mut self) {
        if self.random.chance(80) {
            let saved = self.rig.store.save_identity(Bytes::from_static(b"me")).unwrap();
            self.rig.settle();
            saved.wait().unwrap();
            self.identity_saved.store(1, SeqCst);
        }
        for _ in 0..1 + self.random.below(4) {
            self.round();
        }
    }

    /// Some operations, an end of one kind or another, and the next start.
    fn round(&mut self) {
        let end = self.random.below(5);
        match end {
            0 => self.rig.disk.fail(self.random.below(150), Fault::PowerOff),
            1 => self.rig.disk.fail(self.random.below(150), Fault::Once),
            _ => {}
        }
        let operations = if self.random.chance(10) { 250 } else { 50 };
        for _ in 0..self.random.below(operations) {
            self.operation();
        }
        self.merges += self.rig.store.stats().merges;
        let clean = end == 2;
        if clean {
            self.rig.settle();
            self.rig.writer.finish();
            self.rig.store.0.shared.segments.close().unwrap();
            self.rig.store.0.shared.check().unwrap();
        } else if end < 2 && self.rig.disk.failed() && self.rig.store.0.shared.check().is_ok() {
            self.rig.settle();
        }
        let mut disk = match clean || self.random.chance(20) {
            true => self.rig.disk.kill(),
            false => self.rig.disk.crash(&mut self.random),
        };
        while self.random.chance(25) {
            disk.fail(self.random.below(60), Fault::PowerOff);
            drop(Rig::open(&disk, self.options.clone()));
            disk = disk.crash(&mut self.random);
        }
        self.rig = Rig::open(&disk, self.options.clone()).expect("a crashed directory opens");
        self.check(clean);
    }

    fn operation(&mut self) {
        let at = self.random.below(GROUPS) as usize;
        let kind = self.random.below(100);
        match kind {
            0..40 => self.append(at),
            40..47 => self.truncate(at),
            47..54 => self.purge(at),
            54..62 => self.vote(at),
            62..68 => self.checkpoint(at),
            68..69 => self.drop_group(at),
            69..72 => self.commit(at),
            72..89 => drop(self.rig.step()),
            89..93 => drop(self.rig.keep()),
            93..96 => self.merge(),
            96..97 => drop(self.rig.store.0.shared.segments.place.witness.sync()),
            _ => self.look(at),
        }
    }

    /// Has segments merged, if there are some that are worth it: the writer comes to it later, or never.
    fn merge(&mut self) {
        while self.rig.keep() {}
        (0..2).for_each(|_| self.rig.look());
    }

    fn group(&self, at: usize) -> Group {
        self.rig.store.group(at as u64)
    }

    /// Notes a group's next state, to be forgotten if the store refuses it.
    fn change(&mut self, at: usize, change: impl FnOnce(&mut Model), call: impl FnOnce(&Run, Group) -> Result<(), Error>) {
        let mut model = self.histories[at].now().clone();
        change(&mut model);
        self.histories[at].states.push(model);
        if call(self, self.group(at)).is_err() {
            self.histories[at].states.pop();
            assert!(self.rig.store.0.shared.check().is_err(), "only a fault refuses");
        }
    }

    fn append(&mut self, at: usize) {
        let next = self.histories[at].now().last().map_or(1, |last| last.index + 1);
        let mut new = Vec::new();
        for index in next..=next + self.random.below(4) {
            self.written += 1;
            let size = [0, 10, 300, 5000][self.random.below(4) as usize];
            let payload = Bytes::from(format!("{} {}", self.written, "x".repeat(size)));
            new.push(Entry { index, term: self.term, leader: 1, payload });
        }
        self.change(at, |model| model.log.extend(new.clone()), |run, group| group.append(new.clone(), run.histories[at].done()));
    }

    fn truncate(&mut self, at: usize) {
        let history = &self.histories[at];
        let floor = history.committed.or(history.now().purged).map(|id| id.index);
        let last = history.now().log.last().map(|entry| entry.index);
        let Some(last) = last else { return };
        let keep = match floor {
            None if self.random.chance(10) => None,
            floor => {
                let floor = floor.unwrap_or(1).min(last);
                Some(floor + self.random.below(last - floor + 1))
            }
        };
        self.term += 1;
        let change = |model: &mut Model| model.log.retain(|entry| keep.is_some_and(|keep| entry.index <= keep));
        self.change(at, change, |_, group| group.truncate_after(keep));
    }

    fn purge(&mut self, at: usize) {
        let model = self.histories[at].now();
        let beyond = LogId { index: model.last().map_or(0, |last| last.index) + 3, term: self.term, leader: 1 };
        let upto = match model.log.len() as u64 {
            0 => return,
            _ if self.random.chance(10) => beyond,
            len => model.log[self.random.below(len) as usize].id(),
        };
        let change = |model: &mut Model| {
            model.log.retain(|entry| entry.index > upto.index);
            model.purged = Some(upto);
        };
        self.change(at, change, |_, group| group.purge(upto));
        let history = &mut self.histories[at];
        history.committed = history.committed.filter(|id| id.index > upto.index).or(Some(upto));
    }

    fn vote(&mut self, at: usize) {
        self.written += 1;
        let vote = Bytes::from(format!("vote {}", self.written));
        let change = |model: &mut Model| model.vote = Some(vote.clone());
        self.change(at, change, |run, group| {
            drop(group.save_vote(vote.clone())?);
            group.append(Vec::new(), run.histories[at].done())
        });
    }

    fn checkpoint(&mut self, at: usize) {
        self.written += 1;
        let Some(last) = self.histories[at].now().last() else { return };
        let bytes = Bytes::from(format!("checkpoint {}", self.written));
        match self.random.chance(60) {
            true => self.change(
                at,
                |model| drop(model.checkpoints.insert(last.index, bytes.clone())),
                |run, group| group.save_checkpoint(last.index, bytes.clone(), Box::new(run.histories[at].done())),
            ),
            false => self.change(
                at,
                |model| model.checkpoints = model.checkpoints.split_off(&last.index),
                |_, group| group.drop_checkpoints_before(last.index),
            ),
        }
    }

    fn drop_group(&mut self, at: usize) {
        self.change(
            at,
            |model| *model = Model::default(),
            |run, group| {
                drop(run.rig.store.drop_group(at as u64)?);
                group.append(Vec::new(), run.histories[at].done())
            },
        );
        self.histories[at].committed = None;
    }

    fn commit(&mut self, at: usize) {
        let log = &self.histories[at].now().log;
        if log.is_empty() {
            return;
        }
        let id = log[self.random.below(log.len() as u64) as usize].id();
        if self.histories[at].committed.is_none_or(|committed| committed.index < id.index) {
            self.histories[at].committed = Some(id);
            self.group(at).save_committed(id);
        }
    }

    /// What is read is what was asked for, durable or not.
    fn look(&mut self, at: usize) {
        if self.rig.store.0.shared.check().is_ok() && !self.rig.disk.failed() {
            assert_eq!(&Model::of(&self.group(at)), self.histories[at].now());
        }
    }

    fn check(&mut self, clean: bool) {
        let fences = self.rig.store.fences().borrow().clone();
        assert_eq!(*fences, crate::store::Fences::default(), "a crash is no damage");
        assert_eq!(self.rig.store.stats().files_aside, 0, "a crash is no damage");
        let identity = self.rig.store.identity();
        assert!(identity.is_some() || self.identity_saved.load(SeqCst) == 0, "the identity is lost");
        for at in 0..GROUPS as usize {
            let (group, history) = (self.group(at), &self.histories[at]);
            let found = Model::of(&group);
            let answered = if clean { history.states.len() - 1 } else { history.answered.load(SeqCst) };
            let matches = history.states[answered..].contains(&found);
            if !matches {
                history.states.iter().enumerate().for_each(|(at, state)| eprintln!("state {at}: {state}"));
                panic!("group {at} is in no state from {answered} on: {found}");
            }
            let committed = group.committed();
            let certain = |id: &LogId| found.purged == Some(*id) || found.log.iter().any(|entry| entry.id() == *id);
            assert!(committed.is_none_or(|id| certain(&id)), "{committed:?} is not in the log");
            self.histories[at] = History::begin(found, committed);
        }
    }
}

/// Gives how often segments were merged.
fn run(seed: u64) -> u64 {
    let result = std::panic::catch_unwind(|| {
        let mut run = Run::new(seed);
        run.go();
        run.merges
    });
    result.unwrap_or_else(|panic| {
        eprintln!("to repeat: EVERMESH_SEED={seed} cargo test --lib store::tests::crash::any_crash");
        std::panic::resume_unwind(panic);
    })
}

#[test]
fn any_crash_leaves_each_group_as_it_was_at_some_moment_not_before_the_last_answer() {
    if let Ok(seed) = std::env::var("EVERMESH_SEED") {
        run(seed.parse().expect("EVERMESH_SEED is a number"));
        return;
    }
    let seeds: u64 = std::env::var("EVERMESH_SEEDS").map_or(2_000, |seeds| seeds.parse().expect("EVERMESH_SEEDS is a number"));
    let merges: u64 = std::thread::scope(|scope| {
        let half = |half| scope.spawn(move || (0..seeds).filter(|seed| seed % 2 == half).map(run).sum::<u64>());
        [half(0), half(1)].map(|half| half.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).iter().sum()
    });
    assert!(merges > seeds / 20, "{merges} merges: too few to say anything about them");
}

#[test]
fn a_seed_repeats_a_run() {
    let disk_of = |seed| {
        let mut run = Run::new(seed);
        run.go();
        run.histories.into_iter().map(|history| history.now().clone()).collect::<Vec<_>>()
    };
    assert_eq!(disk_of(42), disk_of(42));
}

#[test]
fn a_failing_disk_is_latched_and_told() {
    let mut rig = Rig::new(options(1 << 20, 0));
    let group = rig.store.group(1);
    append(&group, 1..=2, 1);
    rig.settle();
    let failed = rig.store.failed();
    rig.disk.fail(0, Fault::Once);
    let answers = Arc::new(AtomicUsize::new(0));
    for index in [3, 4] {
        let answers = answers.clone();
        let done = move |result: Result<(), Error>| {
            result.unwrap_err();
            answers.fetch_add(1, SeqCst);
        };
        group.append(entries(index..=index, 1), done).unwrap();
    }
    rig.settle();
    assert_eq!(answers.load(SeqCst), 2);
    let fault = failed.borrow().clone().expect("the fault is told");
    assert!(matches!(fault, Error::Io { .. }), "{fault}");
    assert_eq!(group.append(entries(5..=5, 1), |_| ()), Err(fault.clone()));
    assert_eq!(group.save_vote(Bytes::new()).err(), Some(fault.clone()));
    assert_eq!(group.read(1..2, 1), Err(fault));
    let rig = Rig::open(&rig.disk.crash(&mut Random(1)), options(1 << 20, 0)).unwrap();
    assert_eq!(read_all(&rig.store.group(1))[..2], entries(1..=2, 1));
}
