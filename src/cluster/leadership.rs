//! Who leads a group, as this node knows it: followed from openraft's own state, and waited for.

use super::elections::{Called, Cause, Elections};
use super::group::Ended;
use super::types::{LeaderId, Raft, Vote};
use openraft::{ServerState, async_runtime::WatchReceiver, errors::Fatal};
use std::time::Duration;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout},
};

/// Longest wait for the first commit of a new leader, which is counted.
const FIRST_COMMIT_WAIT: Duration = Duration::from_secs(10);

/// Who leads a group, as this node knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    pub leader: Option<u64>,
    pub term: u64,
    /// Set while this node leads: what a proposal is bound to.
    pub mine: Option<LeaderId>,
}

/// Waits until the leadership is another one than `seen`, at most for `pause`.
pub async fn changed_within(mut leadership: watch::Receiver<Leadership>, seen: Leadership, pause: Duration) {
    let ended = matches!(timeout(pause, leadership.wait_for(|now| *now != seen)).await, Ok(Err(_)));
    if ended {
        // Nothing will change any more: whoever tries on does not spin.
        sleep(pause).await;
    }
}

/// Follows openraft's own state: publishes who leads, and reports a group that ended by itself.
pub struct Herald {
    pub group: u64,
    pub opening: u64,
    pub node: u64,
    pub ended: mpsc::Sender<Ended>,
    pub elections: Elections,
    pub called: Called,
}

impl Herald {
    pub fn watch(self, raft: &Raft) -> watch::Receiver<Leadership> {
        let (sender, receiver) = watch::channel(Leadership::default());
        tokio::spawn(self.follow(raft.clone(), sender));
        receiver
    }

    async fn follow(self, raft: Raft, sender: watch::Sender<Leadership>) {
        let mut server = raft.server_metrics();
        let opened_in = server.borrow_watched().vote.leader_id.term.max(1);
        loop {
            let now = {
                let metrics = server.borrow_watched();
                leadership(self.node, metrics.state, metrics.current_leader, &metrics.vote)
            };
            let mut before = now;
            sender.send_if_modified(|old| {
                before = std::mem::replace(old, now);
                before != now
            });
            // Who goes on with the term of before its restart was not elected, and the first leader of a group is no news.
            if before.mine.is_none()
                && let Some(mine) = now.mine
                && now.term > opened_in
            {
                self.tell_elected(&raft, mine);
            }
            if server.changed().await.is_err() {
                break;
            }
        }
        sender.send_replace(Leadership::default());
        // A task that panicked has said nothing itself: only asking it shows that.
        let said = raft.metrics().borrow_watched().running_state.clone().err();
        let ended = match said {
            Some(fatal) => Some(fatal),
            None => raft.with_raft_state(|_| ()).await.err(),
        };
        if let Some(fatal) = ended
            && !matches!(fatal, Fatal::Stopped)
        {
            // Whoever receives never waits for a group; a node that is gone needs no word of it.
            let _ = self.ended.send(Ended { group: self.group, opening: self.opening, why: fatal.to_string() }).await;
        }
    }

    fn tell_elected(&self, raft: &Raft, mine: LeaderId) {
        let cause = self.elections.tell(self.group, mine.term, &self.called);
        if cause == Cause::Evidence {
            tokio::spawn(count_first_commit(raft.clone(), mine, self.elections.clone()));
        }
    }
}

/// Counts how long it takes a new leader until an entry of its own is committed: from then on it takes publishes.
async fn count_first_commit(raft: Raft, mine: LeaderId, elections: Elections) {
    let since = Instant::now();
    let wait = raft.wait(Some(FIRST_COMMIT_WAIT));
    let own = wait.metrics(|metrics| metrics.last_applied.is_some_and(|id| *id.committed_leader_id() == mine), "an entry of its own");
    if own.await.is_ok() {
        elections.seen().first_commit.add(since.elapsed());
    }
}

fn leadership(node: u64, state: ServerState, leader: Option<u64>, vote: &Vote) -> Leadership {
    let mine = (state == ServerState::Leader && vote.committed && vote.leader_id.node_id == node).then_some(vote.leader_id);
    Leadership { leader, term: vote.leader_id.term, mine }
}
