//! Faults as data. Where a fault says `Who`, the node is found when it comes to it: who leads changes all the time.

use crate::random::Random;

/// The kinds that a run can be told to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Kill,
    Pause,
    Cut,
    Stop,
    Rolling,
    Transfer,
    Drain,
    Join,
    Replace,
    Power,
    Slow,
    Eio,
    Full,
    Damage,
    Clock,
    Delay,
    Oneway,
}

impl Kind {
    pub const ALL: [(Kind, &'static str); 17] = [
        (Kind::Kill, "kill"),
        (Kind::Pause, "pause"),
        (Kind::Cut, "cut"),
        (Kind::Stop, "stop"),
        (Kind::Rolling, "rolling"),
        (Kind::Transfer, "transfer"),
        (Kind::Drain, "drain"),
        (Kind::Join, "join"),
        (Kind::Replace, "replace"),
        (Kind::Power, "power"),
        (Kind::Slow, "slow"),
        (Kind::Eio, "eio"),
        (Kind::Full, "full"),
        (Kind::Damage, "damage"),
        (Kind::Clock, "clock"),
        (Kind::Delay, "delay"),
        (Kind::Oneway, "oneway"),
    ];

    pub fn name(self) -> &'static str {
        Kind::ALL.iter().find(|(kind, _)| *kind == self).expect("every kind is in the list").1
    }

    pub fn of_name(name: &str) -> Option<Kind> {
        Kind::ALL.iter().find(|(_, known)| *known == name).map(|(kind, _)| *kind)
    }
}

/// Which nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// The leader of the stream with this number.
    Leader(usize),
    /// The n-th of those that are there, counted around.
    Nth(usize),
    /// A majority, without the n-th of those that are there.
    Majority(usize),
    All,
}

/// How the network is cut, in terms of who leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    Isolate(Who),
    /// A majority on one side, the rest on the other; the n-th begins the smaller side.
    Halves(usize),
    /// Everybody alone, as far as bridges go.
    Shattered,
    /// Two that do not see each other, all others see both.
    Bridge(usize),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    Kill(Who),
    /// All at once lose power, and with it what was not synced.
    Power(Who),
    Pause(Who),
    Cut(Shape),
    Stop(Who),
    Rolling,
    Transfer {
        stream: usize,
        to: usize,
    },
    Drain(Who),
    Join,
    Replace(Who),
    Slow {
        who: Who,
        ms: u64,
    },
    Eio(Who),
    Full(Who),
    Damage {
        who: Who,
        how: Harm,
        seed: u64,
    },
    Clock {
        who: Who,
        seconds: i64,
    },
    Delay {
        who: Who,
        ms: u64,
        jitter_ms: u64,
        stall_percent: u64,
    },
    Oneway {
        who: Who,
        inward: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    FlipStopped,
    FlipRunning,
    Truncate,
    RollBack,
}

impl Fault {
    pub fn kind(&self) -> Kind {
        match self {
            Fault::Kill(_) => Kind::Kill,
            Fault::Power(_) => Kind::Power,
            Fault::Pause(_) => Kind::Pause,
            Fault::Cut(_) => Kind::Cut,
            Fault::Stop(_) => Kind::Stop,
            Fault::Rolling => Kind::Rolling,
            Fault::Transfer { .. } => Kind::Transfer,
            Fault::Drain(_) => Kind::Drain,
            Fault::Join => Kind::Join,
            Fault::Replace(_) => Kind::Replace,
            Fault::Slow { .. } => Kind::Slow,
            Fault::Eio(_) => Kind::Eio,
            Fault::Full(_) => Kind::Full,
            Fault::Damage { .. } => Kind::Damage,
            Fault::Clock { .. } => Kind::Clock,
            Fault::Delay { .. } => Kind::Delay,
            Fault::Oneway { .. } => Kind::Oneway,
        }
    }

    /// One of a kind, chosen by chance.
    pub fn choose(kind: Kind, random: &mut Random, streams: usize, nodes: usize) -> Fault {
        let stream = random.index(streams);
        let nth = random.index(nodes);
        let one = |random: &mut Random| if random.chance(60) { Who::Leader(stream) } else { Who::Nth(nth) };
        let some = |random: &mut Random| match random.below(10) {
            0..7 => one(random),
            7..9 => Who::Majority(nth),
            _ => Who::All,
        };
        match kind {
            Kind::Kill => Fault::Kill(some(random)),
            Kind::Power => Fault::Power(if random.chance(50) { Who::All } else { some(random) }),
            Kind::Pause => Fault::Pause(if random.chance(80) { one(random) } else { Who::Majority(nth) }),
            Kind::Cut => Fault::Cut(match random.below(10) {
                0..4 => Shape::Isolate(one(random)),
                4..6 => Shape::Halves(nth),
                6 => Shape::Shattered,
                _ => Shape::Bridge(nth),
            }),
            Kind::Stop => Fault::Stop(one(random)),
            Kind::Rolling => Fault::Rolling,
            Kind::Transfer => Fault::Transfer { stream, to: nth },
            Kind::Drain => Fault::Drain(one(random)),
            Kind::Join => Fault::Join,
            Kind::Replace => Fault::Replace(one(random)),
            Kind::Slow => Fault::Slow { who: one(random), ms: *random.choose(&[20, 100, 400, 1500]) },
            Kind::Eio => Fault::Eio(one(random)),
            Kind::Full => Fault::Full(one(random)),
            Kind::Damage => {
                let how = *random.choose(&[Harm::FlipStopped, Harm::FlipRunning, Harm::Truncate, Harm::RollBack]);
                Fault::Damage { who: one(random), how, seed: random.next() }
            }
            Kind::Clock => Fault::Clock { who: one(random), seconds: *random.choose(&[-86_400, -60, -2, 2, 60, 86_400]) },
            Kind::Delay => {
                let (ms, jitter_ms) = *random.choose(&[(5, 5), (20, 40), (80, 20), (200, 200)]);
                Fault::Delay { who: one(random), ms, jitter_ms, stall_percent: *random.choose(&[0, 0, 2, 10]) }
            }
            Kind::Oneway => Fault::Oneway { who: one(random), inward: random.chance(50) },
        }
    }
}
