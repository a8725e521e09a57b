//! The cluster's replicated state: its nodes, its streams with their settings, and who holds what.
//!
//! Commands are folded in the order of the catalog's log; the same commands give the same catalog on every node.

mod encoding;
mod replace;

use super::{NodeName, Settings, StreamName, Time, limits};
use std::collections::{BTreeMap, BTreeSet};

/// Most replicas of one stream (`settings::Settings::check` takes up to 5).
const PLACEMENT_MAX: usize = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeState {
    Active,
    /// On its way out: it keeps what it has until that is elsewhere, and gets nothing new.
    Draining,
    /// Gone for good: its id is never used again.
    Removed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRecord {
    pub id: u64,
    pub name: NodeName,
    /// What clients use, `http://host:port`.
    pub url: String,
    /// What peers use, `host:port`.
    pub peer: String,
    pub version: String,
    pub state: NodeState,
    /// Chosen at random by the joining node, so that a repeated join gets the same id.
    pub token: u128,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamRecord {
    pub name: StreamName,
    /// Its Raft group; never reused. 0 is the catalog's own.
    pub group: u64,
    pub settings: Settings,
    /// The members with which the group is to begin; nobody once it has begun, so that nobody begins it a second time, without its events.
    pub initial: Vec<u64>,
    /// The nodes that hold it; the first is the preferred leader.
    pub placement: Vec<u64>,
    pub created: Time,
}

/// An entry of the catalog's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The first entry of a cluster.
    Found {
        cluster: u128,
    },
    AddNode {
        token: u128,
        name: NodeName,
        url: String,
        peer: String,
        version: String,
    },
    UpdateNode {
        id: u64,
        url: String,
        peer: String,
        version: String,
    },
    /// Lets a node in and removes another, whose places it takes.
    ReplaceNode {
        old: u64,
        token: u128,
        name: NodeName,
        url: String,
        peer: String,
        version: String,
    },
    SetNodeState {
        id: u64,
        state: NodeState,
    },
    CreateStream {
        name: StreamName,
        settings: Settings,
        placement: Vec<u64>,
        time: Time,
    },
    ChangeStream {
        name: StreamName,
        settings: Settings,
    },
    DeleteStream {
        name: StreamName,
    },
    /// Taken only if the placement still is `from`.
    SetPlacement {
        group: u64,
        from: Vec<u64>,
        to: Vec<u64>,
    },
    /// The stream's group has its first leader. Before that it is not moved.
    Begun {
        group: u64,
    },
}

impl StreamRecord {
    pub fn has_begun(&self) -> bool {
        self.initial.is_empty()
    }

    /// Whether most of the nodes that hold it are among these.
    pub fn has_majority_in(&self, nodes: &BTreeSet<u64>) -> bool {
        self.placement.iter().filter(|id| nodes.contains(id)).count() > self.placement.len() / 2
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    NodeAdded {
        id: u64,
    },
    StreamCreated {
        group: u64,
    },
    /// The stream is there already (its record is in the catalog).
    StreamExists {
        group: u64,
    },
    Rejected(Reject),
}

/// A deterministic no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reject {
    NameTaken,
    NoSuchNode,
    NoSuchStream,
    TooManyStreams,
    TooManyNodes,
    PlacementChanged,
    AlreadyFounded,
    BadPlacement,
}

/// The replicated state of a cluster.
///
/// - Node names are unique among the nodes that are not removed, tokens among all.
/// - Groups are unique, at least 1 and below `next_group`; node ids likewise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catalog {
    /// 0 before the cluster is founded.
    pub cluster: u128,
    pub nodes: BTreeMap<u64, NodeRecord>,
    pub streams: BTreeMap<StreamName, StreamRecord>,
    /// Group ids from here on were never given out; a group below that no stream has was deleted.
    pub next_group: u64,
    pub next_node: u64,
}

impl Default for Catalog {
    fn default() -> Catalog {
        Catalog::new()
    }
}

impl Catalog {
    pub fn new() -> Catalog {
        Catalog { cluster: 0, nodes: BTreeMap::new(), streams: BTreeMap::new(), next_group: 1, next_node: 1 }
    }

    pub fn apply(&mut self, command: &Command) -> Outcome {
        let done = match command {
            Command::Found { cluster } => self.found(*cluster),
            Command::AddNode { token, name, url, peer, version } => self.add_node(*token, name, url, peer, version),
            Command::UpdateNode { id, url, peer, version } => self.update_node(*id, url, peer, version),
            Command::ReplaceNode { old, token, name, url, peer, version } => self.replace_node(*old, *token, name, url, peer, version),
            Command::SetNodeState { id, state } => self.set_node_state(*id, *state),
            Command::CreateStream { name, settings, placement, time } => self.create_stream(name, settings, placement, *time),
            Command::ChangeStream { name, settings } => self.change_stream(name, settings),
            Command::DeleteStream { name } => self.streams.remove(name).map(|_| Outcome::Done).ok_or(Reject::NoSuchStream),
            Command::SetPlacement { group, from, to } => self.set_placement(*group, from, to),
            Command::Begun { group } => self.begun(*group),
        };
        done.unwrap_or_else(Outcome::Rejected)
    }

    fn found(&mut self, cluster: u128) -> Result<Outcome, Reject> {
        if self.cluster != 0 && self.cluster != cluster {
            return Err(Reject::AlreadyFounded);
        }
        self.cluster = cluster;
        Ok(Outcome::Done)
    }

    /// The same token again gets the same id, unless that node was removed: then it has to begin anew.
    fn joined_before(&self, token: u128) -> Option<Result<Outcome, Reject>> {
        let same = self.nodes.values().find(|node| node.token == token)?;
        Some(match same.state {
            NodeState::Removed => Err(Reject::NoSuchNode),
            NodeState::Active | NodeState::Draining => Ok(Outcome::NodeAdded { id: same.id }),
        })
    }

    fn add_node(&mut self, token: u128, name: &NodeName, url: &str, peer: &str, version: &str) -> Result<Outcome, Reject> {
        if let Some(known) = self.joined_before(token) {
            return known;
        }
        let present = || self.nodes.values().filter(|node| node.state != NodeState::Removed);
        if present().any(|node| node.name == *name) {
            return Err(Reject::NameTaken);
        }
        if present().count() >= limits::NODES_MAX {
            return Err(Reject::TooManyNodes);
        }
        let id = self.next_node;
        let (name, url, peer, version) = (name.clone(), url.into(), peer.into(), version.into());
        self.nodes.insert(id, NodeRecord { id, name, url, peer, version, state: NodeState::Active, token });
        self.next_node += 1;
        Ok(Outcome::NodeAdded { id })
    }

    /// A node that is not removed.
    fn node(&mut self, id: u64) -> Result<&mut NodeRecord, Reject> {
        self.nodes.get_mut(&id).filter(|node| node.state != NodeState::Removed).ok_or(Reject::NoSuchNode)
    }

    fn update_node(&mut self, id: u64, url: &str, peer: &str, version: &str) -> Result<Outcome, Reject> {
        let node = self.node(id)?;
        (node.url, node.peer, node.version) = (url.into(), peer.into(), version.into());
        Ok(Outcome::Done)
    }

    /// A removed node stays removed.
    fn set_node_state(&mut self, id: u64, state: NodeState) -> Result<Outcome, Reject> {
        let is_removed = self.nodes.get(&id).is_some_and(|node| node.state == NodeState::Removed);
        if !(is_removed && state == NodeState::Removed) {
            self.node(id)?.state = state;
        }
        Ok(Outcome::Done)
    }

    fn create_stream(&mut self, name: &StreamName, settings: &Settings, placement: &[u64], time: Time) -> Result<Outcome, Reject> {
        if let Some(there) = self.streams.get(name) {
            return Ok(Outcome::StreamExists { group: there.group });
        }
        if self.streams.len() >= limits::STREAMS_MAX {
            return Err(Reject::TooManyStreams);
        }
        self.check_placement(&[], placement)?;
        let group = self.next_group;
        let (initial, placement) = (placement.to_vec(), placement.to_vec());
        let record = StreamRecord { name: name.clone(), group, settings: settings.clone(), initial, placement, created: time };
        self.streams.insert(name.clone(), record);
        self.next_group += 1;
        Ok(Outcome::StreamCreated { group })
    }

    fn change_stream(&mut self, name: &StreamName, settings: &Settings) -> Result<Outcome, Reject> {
        self.streams.get_mut(name).ok_or(Reject::NoSuchStream)?.settings = settings.clone();
        Ok(Outcome::Done)
    }

    fn set_placement(&mut self, group: u64, from: &[u64], to: &[u64]) -> Result<Outcome, Reject> {
        self.check_placement(from, to)?;
        let stream = self.streams.values_mut().find(|stream| stream.group == group).ok_or(Reject::NoSuchStream)?;
        if stream.placement != from {
            return Err(Reject::PlacementChanged);
        }
        stream.placement = to.to_vec();
        Ok(Outcome::Done)
    }

    fn begun(&mut self, group: u64) -> Result<Outcome, Reject> {
        let stream = self.streams.values_mut().find(|stream| stream.group == group).ok_or(Reject::NoSuchStream)?;
        stream.initial.clear();
        Ok(Outcome::Done)
    }

    /// One to five known nodes, none twice, none new that is removed. One that was there already may be: a stream that lost two
    /// of its nodes for good gets others in their place one by one.
    fn check_placement(&self, from: &[u64], to: &[u64]) -> Result<(), Reject> {
        let is_usable = |id: &u64| self.nodes.get(id).is_some_and(|node| node.state != NodeState::Removed || from.contains(id));
        let distinct: BTreeSet<_> = to.iter().collect();
        match (1..=PLACEMENT_MAX).contains(&to.len()) && distinct.len() == to.len() && to.iter().all(is_usable) {
            true => Ok(()),
            false => Err(Reject::BadPlacement),
        }
    }

    /// Looks through all streams.
    pub fn stream_of_group(&self, group: u64) -> Option<&StreamRecord> {
        self.streams.values().find(|stream| stream.group == group)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn node_name(name: &str) -> NodeName {
        NodeName::new(name).unwrap()
    }

    pub fn stream_name(name: &str) -> StreamName {
        StreamName::new(name).unwrap()
    }

    pub fn add_node(token: u128, name: &str) -> Command {
        let text = |what: &str| format!("{what}-{name}");
        Command::AddNode { token, name: node_name(name), url: text("url"), peer: text("peer"), version: "1".into() }
    }

    pub fn create(name: &str, replicas: u8, placement: &[u64]) -> Command {
        let settings = Settings::with_replicas(replicas);
        Command::CreateStream { name: stream_name(name), settings, placement: placement.to_vec(), time: Time(9) }
    }

    /// A cluster of nodes `n1`, `n2` and so on.
    pub fn cluster(nodes: u64) -> Catalog {
        let mut catalog = Catalog::new();
        catalog.apply(&Command::Found { cluster: 77 });
        for id in 1..=nodes {
            assert_eq!(catalog.apply(&add_node(u128::from(id), &format!("n{id}"))), Outcome::NodeAdded { id });
        }
        catalog
    }

    fn check(catalog: &mut Catalog, cases: &[(Command, Outcome)]) {
        for (command, expected) in cases {
            assert_eq!(catalog.apply(command), *expected, "{command:?}");
        }
    }

    fn no(reject: Reject) -> Outcome {
        Outcome::Rejected(reject)
    }

    #[test]
    fn a_cluster_is_founded_once() {
        let mut catalog = Catalog::new();
        let found = |cluster| Command::Found { cluster };
        check(&mut catalog, &[(found(5), Outcome::Done), (found(6), no(Reject::AlreadyFounded)), (found(5), Outcome::Done)]);
        assert_eq!(catalog.cluster, 5);
    }

    #[test]
    fn a_node_has_one_id_for_ever() {
        let state = |id, state| Command::SetNodeState { id, state };
        let update = |id| Command::UpdateNode { id, url: "u".into(), peer: "p".into(), version: "2".into() };
        let mut catalog = cluster(2);
        check(
            &mut catalog,
            &[
                (add_node(2, "n2"), Outcome::NodeAdded { id: 2 }),
                (add_node(3, "n2"), no(Reject::NameTaken)),
                (update(2), Outcome::Done),
                (update(9), no(Reject::NoSuchNode)),
                (state(2, NodeState::Draining), Outcome::Done),
                (add_node(3, "n2"), no(Reject::NameTaken)),
                (state(2, NodeState::Removed), Outcome::Done),
                (state(2, NodeState::Removed), Outcome::Done),
                (state(2, NodeState::Active), no(Reject::NoSuchNode)),
                (update(2), no(Reject::NoSuchNode)),
                (add_node(2, "n2"), no(Reject::NoSuchNode)),
                (add_node(3, "n2"), Outcome::NodeAdded { id: 3 }),
                (state(7, NodeState::Removed), no(Reject::NoSuchNode)),
            ],
        );
        assert_eq!(catalog.nodes[&2].version, "2");
    }

    #[test]
    fn a_cluster_has_room_for_so_many_nodes_that_are_not_removed() {
        let mut catalog = cluster(limits::NODES_MAX as u64);
        let more = add_node(999, "more");
        let remove = Command::SetNodeState { id: 1, state: NodeState::Removed };
        let added = Outcome::NodeAdded { id: limits::NODES_MAX as u64 + 1 };
        check(&mut catalog, &[(more.clone(), no(Reject::TooManyNodes)), (remove, Outcome::Done), (more, added)]);
    }

    #[test]
    fn streams_are_created_changed_and_deleted() {
        let change = |name| Command::ChangeStream { name: stream_name(name), settings: Settings::with_replicas(3) };
        let delete = |name| Command::DeleteStream { name: stream_name(name) };
        let mut catalog = cluster(6);
        catalog.apply(&Command::SetNodeState { id: 6, state: NodeState::Removed });
        check(
            &mut catalog,
            &[
                (create("a", 1, &[]), no(Reject::BadPlacement)),
                (create("a", 1, &[7]), no(Reject::BadPlacement)),
                (create("a", 1, &[6]), no(Reject::BadPlacement)),
                (create("a", 1, &[2, 2]), no(Reject::BadPlacement)),
                (create("a", 1, &[2]), Outcome::StreamCreated { group: 1 }),
                (create("a", 3, &[1, 2, 3]), Outcome::StreamExists { group: 1 }),
                (create("b", 5, &[5, 4, 3, 2, 1]), Outcome::StreamCreated { group: 2 }),
                (change("a"), Outcome::Done),
                (change("c"), no(Reject::NoSuchStream)),
                (delete("b"), Outcome::Done),
                (delete("b"), no(Reject::NoSuchStream)),
                (create("b", 1, &[2]), Outcome::StreamCreated { group: 3 }),
            ],
        );
        assert_eq!(catalog.stream_of_group(1).unwrap().settings.replicas, 3);
        assert_eq!(catalog.stream_of_group(2), None, "a group is never used again");
        assert_eq!(catalog.stream_of_group(3).unwrap().initial, [2]);
    }

    #[test]
    fn streams_are_bounded() {
        let mut catalog = cluster(1);
        for n in 0..limits::STREAMS_MAX {
            catalog.apply(&create(&format!("s{n}"), 1, &[1]));
        }
        check(
            &mut catalog,
            &[(create("more", 1, &[1]), no(Reject::TooManyStreams)), (create("s1", 1, &[1]), Outcome::StreamExists { group: 2 })],
        );
    }

    #[test]
    fn a_placement_changes_from_what_it_was() {
        let set = |group, from: &[u64], to: &[u64]| Command::SetPlacement { group, from: from.to_vec(), to: to.to_vec() };
        let mut catalog = cluster(6);
        catalog.apply(&create("a", 3, &[1, 2, 3]));
        check(
            &mut catalog,
            &[
                (set(9, &[1], &[1]), no(Reject::NoSuchStream)),
                (set(1, &[1, 3, 2], &[4]), no(Reject::PlacementChanged)),
                (set(1, &[1, 2, 3], &[]), no(Reject::BadPlacement)),
                (set(1, &[1, 2, 3], &[1, 2, 3, 4, 5, 6]), no(Reject::BadPlacement)),
                (set(1, &[1, 2, 3], &[1, 1]), no(Reject::BadPlacement)),
                (set(1, &[1, 2, 3], &[1, 2, 99]), no(Reject::BadPlacement)),
                (set(1, &[1, 2, 3], &[4, 2, 3]), Outcome::Done),
                (Command::SetNodeState { id: 2, state: NodeState::Removed }, Outcome::Done),
                (Command::SetNodeState { id: 3, state: NodeState::Removed }, Outcome::Done),
                (set(1, &[4, 2, 3], &[4, 5, 3]), Outcome::Done),
                (set(1, &[4, 5, 3], &[4, 5, 2]), no(Reject::BadPlacement)),
            ],
        );
        let stream = catalog.stream_of_group(1).unwrap();
        assert_eq!((&stream.initial, &stream.placement), (&vec![1, 2, 3], &vec![4, 5, 3]));
    }

    #[test]
    fn a_group_begins_once() {
        let mut catalog = cluster(3);
        let begun = |group| Command::Begun { group };
        check(&mut catalog, &[(create("a", 3, &[1, 2, 3]), Outcome::StreamCreated { group: 1 })]);
        assert!(!catalog.streams[&stream_name("a")].has_begun());
        check(&mut catalog, &[(begun(1), Outcome::Done), (begun(1), Outcome::Done), (begun(9), no(Reject::NoSuchStream))]);
        assert!(catalog.streams[&stream_name("a")].has_begun());
    }
}
