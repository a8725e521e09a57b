//! Who belongs to a group: bringing its members to what the catalog wants, and taking a damaged replica out.

use super::Group;
use super::mesh::NodeId;
use super::types::{LeaderId, Raft, TypeConfig};
use openraft::{ChangeMembers, RaftState, async_runtime::WatchReceiver, impls::EmptyNode};
use std::{collections::BTreeSet, time::Duration};

/// A learner so many entries behind its leader makes a voter: it is about as far as the others.
const CAUGHT_UP: u64 = 64;
/// Longest wait for a change of members that takes somebody out; whoever asked asks again.
const OUT_WAIT: Duration = Duration::from_secs(5);
/// Changes that one call tries: out of the voters, out of the learners, and one that somebody else made meanwhile.
const OUT_TRIES: usize = 4;

/// The voters of a group: one set, or two while they change; a majority of each has to agree.
pub type Voters = Vec<BTreeSet<NodeId>>;

/// Whether a majority of each set agrees; nobody is no majority.
pub fn agree(voters: &Voters, agrees: impl Fn(NodeId) -> bool) -> bool {
    let majority = |set: &BTreeSet<NodeId>| set.iter().filter(|id| agrees(**id)).count() > set.len() / 2;
    !voters.is_empty() && voters.iter().all(majority)
}

/// Why a replica was not counted out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotOut {
    /// Another node leads, if one is known.
    NotLeader(Option<u64>),
    /// It could not be committed (yet).
    Failed(String),
}

/// A node was counted out of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountedOut {
    /// The leader that says so; its quorum was asked after the question.
    pub leader: LeaderId,
    /// Of the entry with the members that are committed now, without the node.
    pub index: u64,
}

/// What a node is to a group, in the membership in force and in the last one that is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Voter,
    Learner,
    /// Since the membership at this index.
    Nothing(u64),
}

impl Group {
    /// At the leader: brings every node of `wanted` up to date as a learner, then makes exactly them the voters.
    pub async fn change_members(&self, wanted: &BTreeSet<u64>) -> Result<(), String> {
        for id in wanted.iter().filter(|id| !self.is_voter(**id)) {
            self.check_belongs().await?;
            self.raft().add_learner(*id, EmptyNode::new(), false).await.map_err(|error| error.to_string())?;
            self.wait_caught_up(*id).await?;
        }
        self.check_belongs().await?;
        let change = ChangeMembers::ReplaceAllVoters(wanted.clone());
        self.raft().change_membership(change, false).await.map_err(|error| error.to_string())?;
        Ok(())
    }

    /// A leader that was taken out goes on for a moment, until somebody else leads: openraft lets it append, but takes a change of members by
    /// it for impossible (an assertion that ends the group's task, where those are compiled in). The next leader makes it.
    async fn check_belongs(&self) -> Result<(), String> {
        match role_of(self.raft(), self.node()).await? {
            Role::Nothing(_) => Err("this node does not belong to the group any more".into()),
            Role::Voter | Role::Learner => Ok(()),
        }
    }

    /// Takes as long as its log; ends early when this node stops leading or somebody takes the learner out.
    async fn wait_caught_up(&self, id: u64) -> Result<(), String> {
        let mut metrics = self.raft().metrics();
        loop {
            {
                let now = metrics.borrow_watched();
                let Some(replication) = now.replication.as_ref() else { return Err("the leadership was lost".into()) };
                if now.membership_config.membership().get_node(&id).is_none() {
                    return Err(format!("node {id} was taken out meanwhile"));
                }
                let last = now.last_log_index.map_or(0, |index| index + 1);
                let matched = replication.get(&id).copied().flatten().map(|id| id.index() + 1);
                if matched.is_some_and(|matched| last.saturating_sub(matched) <= CAUGHT_UP) {
                    return Ok(());
                }
            }
            metrics.changed().await.map_err(|error| error.to_string())?;
        }
    }

    /// The voters in force, those on their way in or out among them.
    pub fn voters(&self) -> BTreeSet<u64> {
        self.raft().metrics().borrow_watched().membership_config.membership().voter_ids().collect()
    }

    pub fn is_voter(&self, node: u64) -> bool {
        self.voters().contains(&node)
    }

    /// Whether these nodes could decide for the group: a majority of its voters, and while they change of those before and after.
    pub fn is_quorum(&self, nodes: &BTreeSet<u64>) -> bool {
        agree(self.raft().metrics().borrow_watched().membership_config.membership().get_joint_config(), |id| nodes.contains(&id))
    }

    /// Whether this replica knows of no change of the members that is under way.
    pub fn has_settled(&self) -> bool {
        let watched = self.raft().metrics();
        let metrics = watched.borrow_watched();
        let (now, committed) = (&metrics.membership_config, &metrics.committed_membership_config);
        now.membership().get_joint_config().len() == 1 && now.log_id() == committed.log_id()
    }

    /// At the leader: takes a node out of the group, and answers only when a quorum has agreed to a membership in which it is nothing at
    /// all, neither voter nor learner: so nothing of its progress, and no vote or acknowledgement of it, counts any more.
    ///
    /// It may be repeated.
    pub async fn count_out(&self, id: u64) -> Result<CountedOut, NotOut> {
        for _ in 0..OUT_TRIES {
            let now = self.current();
            let Some(leader) = now.mine else { return Err(NotOut::NotLeader(now.leader)) };
            self.confirm_leadership().await.map_err(NotOut::Failed)?;
            let change = match role_of(self.raft(), id).await.map_err(NotOut::Failed)? {
                Role::Nothing(index) => return Ok(CountedOut { leader, index }),
                Role::Voter => ChangeMembers::RemoveVoters([id].into()),
                Role::Learner => ChangeMembers::RemoveNodes([id].into()),
            };
            self.check_belongs().await.map_err(NotOut::Failed)?;
            // A change that is under way already is refused here, and finished by whoever began it.
            match tokio::time::timeout(OUT_WAIT, self.raft().change_membership(change, false)).await {
                Ok(Ok(_)) => (),
                Ok(Err(error)) => return Err(NotOut::Failed(error.to_string())),
                Err(_) => return Err(NotOut::Failed("the change of members was not committed in time".into())),
            }
        }
        Err(NotOut::Failed("the members keep changing".into()))
    }
}

/// Asked of the group's own task, so that nothing newer is missed.
async fn role_of(raft: &Raft, id: u64) -> Result<Role, String> {
    let role = move |state: &RaftState<TypeConfig>| {
        let memberships = [state.membership_state.effective(), state.membership_state.committed()];
        let is_voter = memberships.iter().any(|stored| stored.membership().voter_ids().any(|voter| voter == id));
        let is_known = memberships.iter().any(|stored| stored.membership().get_node(&id).is_some());
        let committed = state.membership_state.committed().log_id().map_or(0, |id| id.index());
        match (is_voter, is_known) {
            (true, _) => Role::Voter,
            (false, true) => Role::Learner,
            (false, false) => Role::Nothing(committed),
        }
    };
    raft.with_raft_state(role).await.map_err(|error| error.to_string())
}
