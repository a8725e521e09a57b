//! openraft's own suite over our log storage and state machine, on real files; and what a group must not do when it opens.

use super::elections::Elections;
use super::encoding;
use super::group::{Group, NotProposed, Open, Timers};
use super::leadership::{Leadership, changed_within};
use super::log::Log;
use super::machine::{Fold, Folded};
use super::mesh::{Handler, Identity, Mesh, Options as MeshOptions, Peer, Reply, Secret};
use super::types::{EntryPayload, LeaderId, Membership, Response, TypeConfig, Vote};
use crate::core::codec::Corrupt;
use crate::store::{self, Options, Store};
use bytes::Bytes;
use openraft::impls::EmptyNode;
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{ServerState, StorageError, type_config::TypeConfigExt};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// Keeps every command that it folded.
#[derive(Default)]
pub(super) struct Kept(pub(super) Mutex<Vec<Bytes>>);

impl Fold for Kept {
    fn apply(&self, _index: u64, command: Bytes) -> Result<Response, Corrupt> {
        self.0.lock().unwrap().push(command);
        Ok(Response::None)
    }

    fn encode(&self) -> Bytes {
        self.0.lock().unwrap().concat().into()
    }

    fn restore(&self, state: Bytes) -> Result<(), Corrupt> {
        *self.0.lock().unwrap() = vec![state];
        Ok(())
    }

    fn forget_through(&self, _index: u64) {}
}

struct Builder;

impl StoreBuilder<TypeConfig, Log, Folded, (TempDir, Store)> for Builder {
    async fn build(&self) -> Result<((TempDir, Store), Log, Folded), StorageError<TypeConfig>> {
        let folder = TempDir::new().expect("a temporary folder");
        let store = Store::open_dir(folder.path(), Options::default()).expect("an empty folder opens");
        let group = store.group(1);
        let folded = Folded::open(group.clone(), Arc::new(Kept::default())).expect("an empty group opens");
        Ok(((folder, store), Log::new(group), folded))
    }
}

#[test]
fn the_log_and_the_machine_pass_the_suite_of_openraft() {
    TypeConfig::run(async { Suite::test_all(Builder).await.unwrap() });
}

struct Nobody;

impl Handler for Nobody {
    fn handle(&self, _from: Peer, _method: u16, _body: Bytes, reply: Reply) {
        reply.refuse(1, "nobody is here");
    }
}

/// A group whose log says that these are its members, and whose vote that node 1 was elected in term 2.
async fn reopened(members: &[u64], quiet_until: Option<u64>) -> (TempDir, Store, Group) {
    reopened_with(&[members], quiet_until).await
}

/// The same; two sets of voters are a change that is under way.
async fn reopened_with(voters: &[&[u64]], quiet_until: Option<u64>) -> (TempDir, Store, Group) {
    let folder = TempDir::new().unwrap();
    let store = Store::open_dir(folder.path(), Options::default()).unwrap();
    let group = store.group(1);
    let leader = LeaderId { term: 2, node_id: 1 };
    group.save_vote(encoding::encode_vote(&Vote { leader_id: leader, committed: true })).unwrap().await.unwrap();
    let nodes: BTreeMap<u64, EmptyNode> = voters.iter().copied().flatten().map(|id| (*id, EmptyNode::new())).collect();
    let voters = voters.iter().map(|set| BTreeSet::from_iter(set.iter().copied())).collect();
    let membership = Membership::new(voters, nodes).unwrap();
    let payload = encoding::encode_payload(&EntryPayload::Membership(membership));
    group.append(vec![store::Entry { index: 0, term: 2, leader: 1, payload }], |_| ()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let identity = Identity { cluster: 1, node: 1, boot: 1, version: "test".into() };
    let mesh = Mesh::start(listener, identity, MeshOptions::new(Secret::new("secret")), Arc::new(Nobody));
    let (fold, timers, ended) = (Arc::new(Kept::default()), Timers::default(), mpsc::channel(1).0);
    let elections = Elections::default();
    let group =
        Group::open(Open { id: 1, opening: 1, node: 1, quiet_until, mesh: &mesh, store: group, fold, timers, ended, elections }).await;
    (folder, store, group.unwrap())
}

#[tokio::test]
async fn a_leader_that_starts_again_does_not_go_on_in_its_old_term() {
    let (_folder, _store, group) = reopened(&[1, 2, 3], None).await;
    let state = group.raft().with_raft_state(|state| state.server_state).await.unwrap();
    assert_eq!(state, ServerState::Follower);
}

#[tokio::test]
async fn a_group_of_one_is_led_again_at_once() {
    let (_folder, _store, group) = reopened(&[1], None).await;
    let mut leadership = group.leadership();
    let led = leadership.wait_for(|now| now.mine.is_some()).await.unwrap();
    assert_eq!(led.term, 3);
}

#[tokio::test]
async fn both_halves_of_a_change_of_members_have_to_agree() {
    let (_folder, _store, group) = reopened_with(&[&[1], &[1, 2, 3, 4]], None).await;
    let wait = group.raft().wait(Some(std::time::Duration::from_secs(30)));
    wait.metrics(|now| now.membership_config.voter_ids().count() == 4, "the members are read").await.unwrap();
    assert!(!group.has_settled());
    assert!(!group.is_quorum(&[2, 3, 4].into()), "the only voter of before is missing");
    assert!(!group.is_quorum(&[1, 2].into()), "and here a majority of those after");
    assert!(group.is_quorum(&[1, 2, 3].into()));
    let (_folder, _store, group) = reopened(&[1], None).await;
    group.leadership().wait_for(|now| now.mine.is_some()).await.unwrap();
    group.raft().wait(Some(std::time::Duration::from_secs(30))).metrics(|_| group.has_settled(), "it is committed").await.unwrap();
    assert!(group.is_quorum(&[1].into()) && !group.is_quorum(&[2].into()));
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_the_leadership_of_a_closed_group_waits_for_the_whole_pause() {
    let (sender, leadership) = tokio::sync::watch::channel(Leadership::default());
    drop(sender);
    let (start, pause) = (tokio::time::Instant::now(), std::time::Duration::from_millis(25));
    changed_within(leadership, Leadership::default(), pause).await;
    assert!(start.elapsed() >= pause);
}

#[tokio::test]
async fn a_refused_command_is_known_before_the_next_is_proposed() {
    let (_folder, _store, group) = reopened(&[1], None).await;
    let leader = group.leadership().wait_for(|now| now.mine.is_some()).await.unwrap().mine.unwrap();
    let before = LeaderId { term: leader.term - 1, ..leader };
    assert_eq!(group.propose(before, "too late".into()).await.map(drop), Err(NotProposed::Refused));
    group.propose(leader, "in time".into()).await.unwrap().await.unwrap();
}

#[tokio::test]
async fn a_replica_that_reads_of_members_of_long_ago_stays_quiet() {
    let (_folder, _store, group) = reopened(&[1], Some(1)).await;
    let mut leadership = group.leadership();
    let led = leadership.wait_for(|now| now.mine.is_some());
    assert!(tokio::time::timeout(std::time::Duration::from_secs(2), led).await.is_err());
    assert!(group.standing(2).await.is_none());
    drop(group);
    let (_folder, _store, group) = reopened(&[1], Some(0)).await;
    let mut leadership = group.leadership();
    assert!(leadership.wait_for(|now| now.mine.is_some()).await.is_ok(), "what it was quiet for is in its log");
}
