//! Streams that nobody can lead, because too few of their replicas are whole: whoever publishes is told so, and does not wait in vain.
//!
//! - Told at once is only what is certain: so many replicas say that they are damaged and closed that the others are no majority, and none
//!   of those can confirm that it leads. A replica that cannot be reached, or is being made anew already, may come back: that is waited for.

use super::Inner;
use super::error::Error;
use super::rebuild::no_majority_without;
use super::remote::ReplicaAnswer;
use super::stream::Stream;
use super::types::ReplicaState;
use crate::core::NodeName;
use std::collections::BTreeMap;
use std::sync::Weak;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// A stream has been without a leader for so long when it is first looked at: an election is no damage.
const FIRST_LOOK: Duration = Duration::from_millis(100);
const LOOK_AGAIN: Duration = Duration::from_millis(500);

type Answers = BTreeMap<u64, Option<ReplicaAnswer>>;

/// Resolves once it is certain that nobody can lead the stream as things are.
pub async fn until_lost(node: Weak<Inner>, group: u64) -> Error {
    let mut pause = FIRST_LOOK;
    loop {
        sleep(pause).await;
        pause = LOOK_AGAIN;
        let Some(node) = node.upgrade() else { return std::future::pending().await };
        if let Some(lost) = node.find_lost(group).await {
            return lost;
        }
    }
}

impl Inner {
    /// The refusal of a stream whose only replica is here and damaged: waiting would not help.
    pub fn is_lost(&self, stream: &Stream) -> Option<Error> {
        if stream.record().placement != [self.id] {
            return None;
        }
        let here = self.replica_here(stream.group);
        (here.state != ReplicaState::Ok).then(|| Error::Damaged(format!("the only replica of {} is damaged: {}", stream.name, here.why)))
    }

    /// The refusal of a stream that found no leader: its damage, where that is the reason.
    pub async fn explain(&self, group: u64, error: Error) -> Error {
        if error != Error::NoLeader {
            return error;
        }
        match self.holders(group) {
            Some(holders) => {
                let answers = self.ask_replicas(&holders, group).await;
                self.damaged(group, &answers, |_| true).unwrap_or(error)
            }
            None => error,
        }
    }

    /// The refusal of a stream that certainly nobody can lead.
    async fn find_lost(&self, group: u64) -> Option<Error> {
        let answers = self.ask_replicas(&self.holders(group)?, group).await;
        let lost = self.damaged(group, &answers, |answer| !answer.open)?;
        // The members may be fewer than the catalog wants: then one of the whole leads.
        let whole = answers.into_iter().filter(|(_, answer)| answer.as_ref().is_some_and(|answer| answer.open));
        for (id, _) in whole {
            if self.can_lead(id, group).await {
                return None;
            }
        }
        Some(lost)
    }

    /// Whether a quorum confirms just now that the node leads the group.
    async fn can_lead(&self, id: u64, group: u64) -> bool {
        if id != self.id {
            return self.ask_read_index(id, group, Instant::now() + LOOK_AGAIN).await.is_some();
        }
        let Some(group) = self.groups.get(group) else { return false };
        matches!(timeout(LOOK_AGAIN, group.confirm_leadership()).await, Ok(Ok(_)))
    }

    fn holders(&self, group: u64) -> Option<Vec<u64>> {
        self.directory.read().stream_of_group(group).map(|record| record.placement.clone())
    }

    /// What to say where the damaged replicas that count leave no majority.
    fn damaged(&self, group: u64, answers: &Answers, counts: impl Fn(&ReplicaAnswer) -> bool) -> Option<Error> {
        let damaged = answers.iter().filter_map(|(id, answer)| {
            let answer = answer.as_ref().filter(|answer| counts(answer))?;
            damage(&self.node_name(*id), answer)
        });
        let damaged: Vec<String> = damaged.collect();
        no_majority_without(damaged.len(), answers.len())
            .then(|| Error::Damaged(format!("too few replicas of {} are whole: {}", self.name_of(group), damaged.join("; "))))
    }
}

fn damage(node: &NodeName, answer: &ReplicaAnswer) -> Option<String> {
    (answer.state != ReplicaState::Ok).then(|| format!("{node}: {}", answer.why))
}
