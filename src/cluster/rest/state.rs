//! Whether one replica rests, and the switch of its ticks.

use crate::cluster::types::Raft;
use std::{
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// A handle to one replica's state; clones are the same one.
#[derive(Clone)]
pub struct Rest {
    inner: Arc<Inner>,
}

/// Wakes a replica as long as there is one: for what the replica itself keeps.
pub struct Waker(Weak<Inner>);

impl Waker {
    pub fn wake(&self) {
        if let Some(inner) = self.0.upgrade() {
            Rest { inner }.wake();
        }
    }
}

struct Inner {
    raft: Raft,
    /// Whether there is anything to wake: read on every append, without the lock.
    ticks_off: AtomicBool,
    state: Mutex<State>,
    /// How long a leader that wakes may take to be heard.
    settle: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Since it woke; `None` where its leader need not be waited for.
    Awake(Option<Instant>),
    /// It was opened, has heard of no leader, and has no ticks yet. It helps whoever stands for election.
    Opened,
    Resting,
    /// Its ticks begin once a time is up, unless it is put to rest again before.
    Waking,
}

impl Rest {
    /// `opened`: its ticks are off from the beginning.
    pub fn of(raft: Raft, settle: Duration, opened: bool) -> Rest {
        let state = Mutex::new(if opened { State::Opened } else { State::Awake(None) });
        Rest { inner: Arc::new(Inner { raft, ticks_off: AtomicBool::new(opened), state, settle }) }
    }

    pub fn waker(&self) -> Waker {
        Waker(Arc::downgrade(&self.inner))
    }

    pub fn is_on(&self) -> bool {
        matches!(*self.lock(), State::Resting | State::Waking)
    }

    /// Whether its silence, or that of its leader, means nothing: it rests, or has woken only now.
    pub fn silence_is_normal(&self) -> bool {
        match *self.lock() {
            State::Awake(since) => since.is_some_and(|since| since.elapsed() < self.inner.settle),
            State::Resting | State::Waking => true,
            State::Opened => false,
        }
    }

    /// Whether it waits for its first leader since it was opened.
    pub fn is_opened(&self) -> bool {
        *self.lock() == State::Opened
    }

    /// It waits no longer: its ticks begin, and find that it is time to stand for election.
    pub fn stand(&self) {
        self.change(State::Awake(None), |now| now == State::Opened);
    }

    /// Ends the ticks. Whoever calls this looks afterwards whether the reason still holds, and wakes it otherwise: what wakes a replica
    /// looks at `ticks_off` after it has done something, so one of the two sees the other.
    pub fn begin(&self) {
        self.change(State::Resting, |_| true);
    }

    pub fn wake(&self) {
        if self.inner.ticks_off.load(SeqCst) {
            self.change(State::Awake(Some(Instant::now())), |_| true);
        }
    }

    /// Wakes it after a while. Its ticks would find that nothing came for a long time, and stand for election at once: others may
    /// settle that before, or its leader may turn out to live.
    pub fn wake_after(&self, pause: Duration) {
        {
            let mut state = self.lock();
            if *state != State::Resting {
                return;
            }
            *state = State::Waking;
        }
        let rest = self.clone();
        tokio::spawn(async move {
            sleep(pause).await;
            rest.change(State::Awake(None), |now| now == State::Waking);
        });
    }

    fn change(&self, to: State, from: impl Fn(State) -> bool) {
        let mut state = self.lock();
        if !from(*state) {
            return;
        }
        let (off, was_off) = (to == State::Resting, !matches!(*state, State::Awake(_)));
        *state = to;
        self.inner.ticks_off.store(off, SeqCst);
        if off != was_off {
            self.inner.raft.runtime_config().tick(!off);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().expect("nobody panics while holding it")
    }
}
