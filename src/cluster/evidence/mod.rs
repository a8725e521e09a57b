//! Failover without waiting for a timeout: survivors that see a peer gone agree on it and elect at once.
//!
//! Consensus itself only knows silence: a follower waits until nothing has come for longer than the leader's lease, and so do those that
//! it asks for their votes. The mesh knows more: a connection that was closed or refused, a peer from which not even a sign of life came
//! (`mesh::PeerState`). That is evidence, not proof: it may be the connection that broke, and a leader that lives must stay. So:
//!
//! 1. A node that sees a peer gone *says* so to the other voters of each group that the peer led, with its own vote and the end of its
//!    log (`statement`): one message a voter for all its groups.
//! 2. Whoever sees it too and hears a majority of a group's voters agree comes to a *verdict* (`decide`): the one with the longest log
//!    stands for election, in the way of a leadership that is handed over, which voters grant whatever lease they gave.
//! 3. Where that did not bring a leader (the log of another one was longer after all, a vote got lost) the next *round* says everything
//!    anew. After the last one, as for everything that is not settled here, the groups' own timers decide.
//!
//! What is always true:
//! - Nothing here is needed for safety: an election that this starts is one that consensus decides, by its rules about terms and logs.
//! - Nobody acts on what only others see, and no minority unseats anybody.
//! - Nothing is done while nothing happens: the task sleeps until a peer goes or somebody says something.
//! - Only peers that speak version 2 of the peer protocol are told; older ones elect by their timers.

mod decide;
mod statement;
#[cfg(test)]
mod tests;

pub use decide::Standing;

use super::groups::Groups;
use super::members::Voters;
use super::mesh::{DownReason, Lane, Mesh, NodeId, Peer, PeerState, PeerStates};
use super::network::method;
use crate::core::codec::Corrupt;
use crate::core::limits;
use bytes::Bytes;
use decide::{About, Book, Case, Verdict, judge};
use futures_util::{StreamExt, stream};
use statement::Statement;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// Between seeing a peer gone and saying so: what it sent before is read meanwhile, so that the logs are as long as they will be.
const SETTLE: Duration = Duration::from_millis(2);
/// Once a majority agrees, the others that can be reached are waited for so long: one of them may have the longest log.
const GRACE: Duration = Duration::from_millis(20);
/// The pauses between the rounds; after the last one the timers decide.
const ROUNDS: [Duration; 5] = [
    Duration::from_millis(40),
    Duration::from_millis(80),
    Duration::from_millis(160),
    Duration::from_millis(320),
    Duration::from_millis(640),
];
/// How long a statement counts.
const COUNTS: Duration = Duration::from_secs(1);
/// The first version of the peer protocol that knows statements.
const PROTOCOL: u16 = 2;
/// Groups that are asked for their standing at a time.
const ASKED: usize = 64;

/// What a peer said.
pub struct Heard {
    from: NodeId,
    statement: Statement,
}

impl Heard {
    pub fn decode(from: Peer, body: Bytes) -> Result<Heard, Corrupt> {
        Ok(Heard { from: from.node, statement: Statement::decode(body)? })
    }
}

/// A peer that this node sees gone, and the groups that it led.
struct Gone {
    boot: u64,
    since: Instant,
    /// Groups that have no other leader yet, and their voters.
    orphans: BTreeMap<u64, Voters>,
    /// Rounds so far.
    rounds: usize,
    next_round: Option<Instant>,
    /// Until then, whoever may have the longer log is waited for.
    patient_until: Option<Instant>,
    told: bool,
}

/// Runs until it is dropped.
pub async fn run(groups: Groups, mesh: Mesh, own: NodeId, mut heard: mpsc::Receiver<Heard>) {
    let mut peers = mesh.peers();
    let mut watch =
        Watch { own, groups, mesh, peers: PeerStates::default(), met: BTreeMap::new(), gone: BTreeMap::new(), book: Book::default() };
    loop {
        let states = peers.borrow_and_update().clone();
        watch.see(states);
        let due = watch.due();
        tokio::select! {
            biased;
            changed = peers.changed() => if changed.is_err() {
                return;
            },
            Some(one) = heard.recv() => {
                watch.hear(one);
                while let Ok(more) = heard.try_recv() {
                    watch.hear(more);
                }
            }
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => watch.act(Instant::now()).await,
        }
    }
}

/// - `gone` has the peers that were connected once and are down now, for a reason that may mean that their process is gone.
struct Watch {
    own: NodeId,
    groups: Groups,
    mesh: Mesh,
    peers: PeerStates,
    /// The last boot of each peer that was connected.
    met: BTreeMap<NodeId, u64>,
    gone: BTreeMap<NodeId, Gone>,
    book: Book,
}

/// Whether the peer can be heard and knows statements.
fn speaks(peers: &PeerStates, node: NodeId) -> bool {
    matches!(peers.get(&node), Some(PeerState::Connected { protocol, .. }) if *protocol >= PROTOCOL)
}

fn may_be_gone(reason: &DownReason) -> bool {
    match reason {
        DownReason::Refused | DownReason::Closed(_) | DownReason::Silent | DownReason::Unreachable(_) => true,
        // It answers, so it lives; or nothing is known of it.
        DownReason::Rejected(_) | DownReason::New => false,
    }
}

impl Watch {
    /// Takes in the peers' states: who came back, who went.
    fn see(&mut self, peers: PeerStates) {
        self.peers = peers.clone();
        for (id, state) in peers.iter() {
            match state {
                PeerState::Connected { boot, .. } => {
                    self.met.insert(*id, *boot);
                    self.back(*id);
                }
                PeerState::Down { reason, .. } if !may_be_gone(reason) => self.back(*id),
                PeerState::Down { .. } => self.went(*id),
            }
        }
        let removed: Vec<NodeId> = self.gone.keys().copied().filter(|id| !peers.contains_key(id)).collect();
        removed.into_iter().for_each(|id| self.back(id));
    }

    fn went(&mut self, id: NodeId) {
        let Some(boot) = self.met.get(&id).copied() else { return };
        let now = Instant::now();
        self.gone.entry(id).or_insert_with(|| Gone {
            boot,
            since: now,
            orphans: BTreeMap::new(),
            rounds: 0,
            next_round: Some(now + SETTLE),
            patient_until: None,
            told: false,
        });
    }

    fn back(&mut self, id: NodeId) {
        let Some(gone) = self.gone.remove(&id) else { return };
        self.book.retract(self.own, id);
        if gone.told {
            let statement = Statement::Back { about: About { node: id, boot: gone.boot } };
            let hearers: Vec<NodeId> = self.peers.keys().copied().filter(|peer| speaks(&self.peers, *peer)).collect();
            hearers.into_iter().for_each(|peer| self.tell(peer, &statement));
        }
    }

    /// Without waiting for an answer: who does not hear it does not agree.
    fn tell(&self, peer: NodeId, statement: &Statement) {
        let deadline = Instant::now() + COUNTS;
        if let Err(error) = self.mesh.send_call(peer, Lane::Consensus, method::STATEMENT, statement.encode(), deadline) {
            tracing::debug!(peer, %error, "a statement could not be sent");
        }
    }

    fn due(&self) -> Option<Instant> {
        self.gone.values().flat_map(|gone| [gone.next_round, gone.patient_until]).flatten().min()
    }

    async fn act(&mut self, now: Instant) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let rounds: Vec<NodeId> = self.gone.iter().filter(|(_, gone)| due(gone.next_round)).map(|(id, _)| *id).collect();
        for id in rounds {
            self.round(id).await;
        }
        let impatient: Vec<NodeId> = self.gone.iter().filter(|(_, gone)| due(gone.patient_until)).map(|(id, _)| *id).collect();
        for id in impatient {
            self.decide(id);
        }
        self.book.drop_old(now);
    }

    fn hear(&mut self, Heard { from, statement }: Heard) {
        match statement {
            Statement::Back { about } => self.book.retract(from, about.node),
            Statement::Gone { about, groups } => {
                let until = Instant::now() + COUNTS;
                for (group, standing) in groups {
                    // What is not held here is nothing to this node, and would fill the book.
                    if self.groups.get(group).is_some() {
                        self.book.note(group, from, about, standing, until);
                    }
                }
                self.decide(about.node);
            }
        }
    }

    /// Says what this node would bring into the elections of the groups that are still without a leader.
    async fn round(&mut self, id: NodeId) {
        let Some(gone) = self.gone.get_mut(&id) else { return };
        let first = gone.rounds == 0;
        let asked: Vec<u64> = if first { led_by(&self.groups, id) } else { gone.orphans.keys().copied().collect() };
        let standings = stand(&self.groups, asked, id).await;
        gone.orphans = standings.iter().map(|(group, (_, voters))| (*group, voters.clone())).collect();
        gone.next_round = ROUNDS.get(gone.rounds).filter(|_| !gone.orphans.is_empty()).map(|pause| Instant::now() + *pause);
        gone.patient_until = None;
        gone.rounds += 1;
        gone.told |= !gone.orphans.is_empty();
        let about = About { node: id, boot: gone.boot };
        let until = Instant::now() + COUNTS;
        let mut news: BTreeMap<NodeId, Vec<(u64, Standing)>> = BTreeMap::new();
        for (group, (standing, voters)) in standings {
            self.book.note(group, self.own, about, standing, until);
            let hearers = self.peers.keys().filter(|peer| speaks(&self.peers, **peer) && voters.iter().any(|set| set.contains(*peer)));
            hearers.for_each(|peer| news.entry(*peer).or_default().push((group, standing)));
        }
        for (peer, groups) in news {
            for groups in groups.chunks(limits::STATEMENT_GROUPS_MAX) {
                self.tell(peer, &Statement::Gone { about, groups: groups.to_vec() });
            }
        }
        self.decide(id);
    }

    /// Comes to a verdict on each group of a peer that is gone, where enough was said.
    fn decide(&mut self, id: NodeId) {
        let Some(gone) = self.gone.get(&id) else { return };
        let (now, about) = (Instant::now(), About { node: id, boot: gone.boot });
        let patient = gone.patient_until.is_none_or(|until| now < until);
        let mut listening = false;
        for (group, voters) in &gone.orphans {
            let said = self.book.said(*group, about, now, |speaker| speaker == self.own || speaks(&self.peers, speaker));
            let silent = |voter: &NodeId| *voter != id && !said.contains_key(voter) && speaks(&self.peers, *voter);
            let awaited = patient && voters.iter().flatten().any(silent);
            match judge(&Case { group: *group, own: self.own, gone: id, voters, said: &said, awaited }) {
                Verdict::Stand => {
                    self.book.use_up(*group);
                    if let Some(group) = self.groups.get(*group) {
                        group.stand(said[&self.own], gone.since);
                    }
                }
                Verdict::Yield(_) => self.book.use_up(*group),
                Verdict::Listen => listening = true,
                Verdict::Wait => (),
            }
        }
        if let Some(gone) = self.gone.get_mut(&id) {
            gone.patient_until = match listening {
                true => gone.patient_until.or(Some(now + GRACE)),
                false => None,
            };
        }
    }
}

/// The groups that a node leads as the replicas here know it.
fn led_by(groups: &Groups, id: NodeId) -> Vec<u64> {
    groups.all().into_iter().filter(|group| group.current().leader == Some(id)).map(|group| group.id()).collect()
}

/// The standing of this node in each of the groups that have no leader but the one that is gone.
async fn stand(groups: &Groups, asked: Vec<u64>, gone: NodeId) -> BTreeMap<u64, (Standing, Voters)> {
    let open = asked.into_iter().filter_map(|id| groups.get(id));
    let standings = stream::iter(open).map(|group| async move {
        let standing = group.standing(gone).await?;
        Some((group.id(), standing))
    });
    standings.buffer_unordered(ASKED).filter_map(|standing| async move { standing }).collect().await
}
