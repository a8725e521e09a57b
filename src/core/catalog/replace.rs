//! A new node in the place of one that is gone for good: one command, so that nobody ever sees half of it.

use super::{Catalog, NodeName, NodeState, Outcome, Reject, StreamRecord};

impl Catalog {
    /// Removes `old` and lets the new node in, at the same positions of the same placements.
    ///
    /// A stream whose other holders are all removed keeps its placement: nobody could give its events to the new node. The same
    /// token again gets the same id, as with a join.
    pub(super) fn replace_node(
        &mut self,
        old: u64,
        token: u128,
        name: &NodeName,
        url: &str,
        peer: &str,
        version: &str,
    ) -> Result<Outcome, Reject> {
        if let Some(known) = self.joined_before(token) {
            return known;
        }
        let before = self.node(old)?.state;
        self.node(old)?.state = NodeState::Removed;
        let added = self.add_node(token, name, url, peer, version);
        let Ok(Outcome::NodeAdded { id }) = added else {
            self.nodes.get_mut(&old).expect("it was found above").state = before;
            return added;
        };
        let survives: Vec<_> =
            self.streams.values().filter(|stream| self.survives(stream, old)).map(|stream| stream.name.clone()).collect();
        for name in survives {
            let stream = self.streams.get_mut(&name).expect("it was listed just now");
            stream.placement.iter_mut().filter(|node| **node == old).for_each(|node| *node = id);
        }
        Ok(added?)
    }

    /// Whether somebody beside this node holds the stream and was not removed.
    pub fn survives(&self, stream: &StreamRecord, without: u64) -> bool {
        let stays = |id: &u64| *id != without && self.nodes.get(id).is_some_and(|node| node.state != NodeState::Removed);
        stream.placement.iter().any(stays)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        Command,
        tests::{cluster, create, node_name, stream_name},
    };
    use super::*;
    use crate::core::limits;
    use proptest::prelude::*;

    fn replace(old: u64, token: u128, name: &str) -> Command {
        Command::ReplaceNode { old, token, name: node_name(name), url: "u".into(), peer: "p".into(), version: "1".into() }
    }

    fn no(reject: Reject) -> Outcome {
        Outcome::Rejected(reject)
    }

    fn remove(id: u64) -> Command {
        Command::SetNodeState { id, state: NodeState::Removed }
    }

    #[test]
    fn the_new_node_has_the_places_of_the_old_one() {
        let mut catalog = cluster(4);
        for (name, placement) in [("a", &[3, 1, 2][..]), ("b", &[1, 3, 2]), ("c", &[1, 2, 4]), ("only", &[3])] {
            catalog.apply(&create(name, placement.len() as u8, placement));
        }
        assert_eq!(catalog.apply(&replace(3, 77, "n3")), Outcome::NodeAdded { id: 5 });
        let placement = |name: &str| catalog.streams[&stream_name(name)].placement.clone();
        assert_eq!([placement("a"), placement("b"), placement("c")], [[5, 1, 2], [1, 5, 2], [1, 2, 4]]);
        assert_eq!(placement("only"), [3], "nobody has its events");
        assert_eq!((catalog.nodes[&3].state, catalog.nodes[&5].state), (NodeState::Removed, NodeState::Active));
        assert_eq!(catalog.nodes[&5].name, node_name("n3"), "the name is free with the node that had it");
        assert_eq!(catalog.streams[&stream_name("a")].initial, [3, 1, 2]);
    }

    #[test]
    fn what_cannot_be_replaced_changes_nothing() {
        let mut catalog = cluster(3);
        catalog.apply(&create("a", 3, &[1, 2, 3]));
        catalog.apply(&Command::SetNodeState { id: 2, state: NodeState::Draining });
        let before = catalog.clone();
        assert_eq!(catalog.apply(&replace(9, 77, "n9")), no(Reject::NoSuchNode));
        assert_eq!(catalog.apply(&replace(2, 77, "n1")), no(Reject::NameTaken));
        assert_eq!(catalog, before, "the node that drains drains on");
        catalog.apply(&remove(3));
        let before = catalog.clone();
        assert_eq!(catalog.apply(&replace(3, 77, "n4")), no(Reject::NoSuchNode));
        assert_eq!(catalog, before);
    }

    #[test]
    fn a_join_that_is_repeated_is_the_same_node() {
        let mut catalog = cluster(3);
        assert_eq!(catalog.apply(&replace(3, 77, "n4")), Outcome::NodeAdded { id: 4 });
        let once = catalog.clone();
        for old in [3, 2, 9] {
            assert_eq!(catalog.apply(&replace(old, 77, "n4")), Outcome::NodeAdded { id: 4 });
        }
        assert_eq!(catalog, once);
        catalog.apply(&remove(4));
        assert_eq!(catalog.apply(&replace(3, 77, "n4")), no(Reject::NoSuchNode));
    }

    #[test]
    fn a_full_cluster_has_room_for_a_replacement() {
        let mut catalog = cluster(limits::NODES_MAX as u64);
        assert_eq!(catalog.apply(&replace(1, 999, "new")), Outcome::NodeAdded { id: limits::NODES_MAX as u64 + 1 });
    }

    proptest! {
        /// Against the plain way: remove, add, and put the new id where the old one was.
        #[test]
        fn it_is_a_removal_an_addition_and_an_exchange(
            placements in proptest::collection::vec(proptest::sample::subsequence(vec![1u64, 2, 3, 4, 5, 6], 1..=5), 0..8),
            removed in proptest::sample::subsequence(vec![1u64, 2, 3, 4, 5, 6], 0..3),
            old in 1u64..8,
        ) {
            let mut catalog = cluster(6);
            for (at, placement) in placements.iter().enumerate() {
                catalog.apply(&create(&format!("s{at}"), placement.len() as u8, placement));
            }
            removed.iter().for_each(|id| drop(catalog.apply(&remove(*id))));
            let before = catalog.clone();
            let outcome = catalog.apply(&replace(old, 77, "new"));
            if removed.contains(&old) || old > 6 {
                prop_assert_eq!((outcome, catalog), (no(Reject::NoSuchNode), before));
                return Ok(());
            }
            prop_assert_eq!(outcome, Outcome::NodeAdded { id: 7 });
            for (name, stream) in &before.streams {
                let kept = stream.placement.iter().any(|id| *id != old && !removed.contains(id));
                let expected: Vec<u64> = stream.placement.iter().map(|id| if *id == old && kept { 7 } else { *id }).collect();
                prop_assert_eq!(&catalog.streams[name].placement, &expected);
                prop_assert!(!kept || !catalog.streams[name].placement.contains(&old));
            }
            prop_assert_eq!(catalog.nodes.len(), 7);
        }
    }
}
