//! Placement: cases by name, and random clusters that must always come to rest.

use super::*;
use crate::core::{
    Settings, StreamName,
    catalog::{
        Command, Outcome,
        tests::{add_node, cluster, create, stream_name},
    },
};
use proptest::prelude::*;

const ROUNDS_MAX: usize = 1_000;

fn alive(nodes: impl IntoIterator<Item = u64>) -> BTreeSet<u64> {
    nodes.into_iter().collect()
}

fn all(catalog: &Catalog) -> BTreeSet<u64> {
    catalog.nodes.keys().copied().collect()
}

fn add_streams(catalog: &mut Catalog, prefix: &str, count: usize, replicas: u8) {
    for n in 0..count {
        let placement = place(catalog, &all(catalog), replicas).unwrap();
        let outcome = catalog.apply(&create(&format!("{prefix}{n}"), replicas, &placement));
        assert!(matches!(outcome, Outcome::StreamCreated { .. }), "{outcome:?}");
    }
    begin_all(catalog);
}

fn begin_all(catalog: &mut Catalog) {
    for group in 1..catalog.next_group {
        catalog.apply(&Command::Begun { group });
    }
}

#[test]
fn a_stream_that_has_not_begun_stays() {
    let mut catalog = cluster(4);
    catalog.apply(&create("a", 3, &[1, 2, 3]));
    set_state(&mut catalog, 3, NodeState::Removed);
    let alive = alive([1, 2, 4]);
    assert_eq!(rebalance(&catalog, &alive, 8), []);
    begin_all(&mut catalog);
    assert_eq!(rebalance(&catalog, &alive, 8).len(), 1);
}

fn join(catalog: &mut Catalog) {
    let id = catalog.next_node;
    assert_eq!(catalog.apply(&add_node(u128::from(id), &format!("n{id}"))), Outcome::NodeAdded { id });
}

fn set_state(catalog: &mut Catalog, id: u64, state: NodeState) {
    assert_eq!(catalog.apply(&Command::SetNodeState { id, state }), Outcome::Done);
}

fn set_replicas(catalog: &mut Catalog, name: &StreamName, replicas: u8) {
    let settings = Settings::with_replicas(replicas);
    assert_eq!(catalog.apply(&Command::ChangeStream { name: name.clone(), settings }), Outcome::Done);
}

/// Applies moves until there are none, checks each, and says how many there were.
fn settle(catalog: &mut Catalog, alive: &BTreeSet<u64>, limit: usize) -> usize {
    let mut count = 0;
    for _ in 0..ROUNDS_MAX {
        let moves = rebalance(catalog, alive, limit);
        assert_eq!(moves, rebalance(catalog, alive, limit), "the same again");
        if moves.is_empty() {
            return count;
        }
        assert!(moves.len() <= limit);
        assert_eq!(moves.iter().map(|m| m.group).collect::<BTreeSet<_>>().len(), moves.len(), "one a stream");
        for one in moves {
            check_move(catalog, alive, &one);
            let command = Command::SetPlacement { group: one.group, from: one.from, to: one.to };
            assert_eq!(catalog.apply(&command), Outcome::Done, "{command:?}");
            count += 1;
        }
    }
    panic!("it does not come to rest: {:?}", rebalance(catalog, alive, limit));
}

/// One replica at most comes, goes or is replaced, never to a node that is down or leaves; or only the order changes.
fn check_move(catalog: &Catalog, alive: &BTreeSet<u64>, one: &Move) {
    let (from, to) = (set(&one.from), set(&one.to));
    let (added, removed): (Vec<_>, Vec<_>) = (to.difference(&from).collect(), from.difference(&to).collect());
    assert!(added.len() <= 1 && removed.len() <= 1 && one.from != one.to, "{one:?}");
    for node in added {
        assert!(alive.contains(node) && catalog.nodes[node].state == NodeState::Active, "{one:?}");
    }
}

fn set(nodes: &[u64]) -> BTreeSet<u64> {
    nodes.iter().copied().collect()
}

/// Replicas and leaders of each usable node.
fn counts(catalog: &Catalog, alive: &BTreeSet<u64>) -> (Vec<usize>, Vec<usize>) {
    let spread = Spread::new(catalog, alive, 0);
    spread.usable.iter().map(|node| (spread.counts.replicas(*node), spread.counts.leads(*node))).unzip()
}

#[track_caller]
fn assert_even(catalog: &Catalog, alive: &BTreeSet<u64>) {
    let (replicas, leads) = counts(catalog, alive);
    for counts in [&replicas, &leads] {
        assert!(counts.iter().max().unwrap_or(&0) - counts.iter().min().unwrap_or(&0) <= 1, "replicas {replicas:?} leaders {leads:?}");
    }
}

#[test]
fn twelve_streams_on_three_nodes_are_led_by_four_each() {
    for replicas in [1, 3] {
        let mut catalog = cluster(3);
        add_streams(&mut catalog, "s", 12, replicas);
        assert_eq!(counts(&catalog, &all(&catalog)).1, [4, 4, 4]);
        assert_eq!(rebalance(&catalog, &all(&catalog), 9), []);
    }
}

#[test]
fn a_joining_node_takes_its_share_with_few_moves() {
    for replicas in [1, 3] {
        let mut catalog = cluster(3);
        add_streams(&mut catalog, "s", 12, replicas);
        for nodes in [4, 5] {
            join(&mut catalog);
            let moves = settle(&mut catalog, &alive(1..=nodes), 5);
            assert_even(&catalog, &alive(1..=nodes));
            let share = 12 * usize::from(replicas) / nodes as usize;
            assert!(moves <= share + 3, "{moves} moves for a share of {share}");
        }
        let stays: Vec<_> = catalog.streams.values().map(|stream| stream.placement.len()).collect();
        assert_eq!(stays, [usize::from(replicas); 12]);
    }
}

#[test]
fn five_replicas_and_fewer_nodes_than_replicas() {
    let mut catalog = cluster(5);
    add_streams(&mut catalog, "s", 10, 5);
    assert_eq!(counts(&catalog, &all(&catalog)), (vec![10; 5], vec![2; 5]));
    assert_eq!(place(&catalog, &alive([1, 2]), 3), None);
    assert_eq!(place(&catalog, &alive([]), 1), None);
    assert_eq!(place(&catalog, &alive([1, 2, 9]), 3), None, "9 is alive and unknown");
    set_state(&mut catalog, 1, NodeState::Draining);
    assert_eq!(place(&catalog, &all(&catalog), 5), None);
}

#[test]
fn a_change_of_replicas_grows_and_shrinks() {
    let mut catalog = cluster(5);
    add_streams(&mut catalog, "s", 5, 1);
    let names: Vec<_> = catalog.streams.keys().cloned().collect();
    for replicas in [3, 5, 3, 1] {
        let leaders: Vec<_> = catalog.streams.values().map(|stream| stream.placement[0]).collect();
        names.iter().for_each(|name| set_replicas(&mut catalog, name, replicas));
        settle(&mut catalog, &alive(1..=5), 3);
        assert!(catalog.streams.values().all(|stream| stream.placement.len() == usize::from(replicas)));
        assert_eq!(leaders, catalog.streams.values().map(|stream| stream.placement[0]).collect::<Vec<_>>(), "no leader moves for it");
        assert_even(&catalog, &alive(1..=5));
    }
}

#[test]
fn a_stream_with_too_few_nodes_grows_when_they_come() {
    let mut catalog = cluster(1);
    add_streams(&mut catalog, "s", 1, 1);
    set_replicas(&mut catalog, &stream_name("s0"), 3);
    assert_eq!(settle(&mut catalog, &alive([1]), 9), 0);
    join(&mut catalog);
    join(&mut catalog);
    assert_eq!(settle(&mut catalog, &alive([1, 2]), 9), 1);
    assert_eq!(settle(&mut catalog, &alive([1, 2, 3]), 9), 1);
    assert_eq!(catalog.streams[&stream_name("s0")].placement, [1, 2, 3]);
}

#[test]
fn a_draining_node_hands_its_leaderships_over_and_is_emptied() {
    let mut catalog = cluster(4);
    add_streams(&mut catalog, "s", 8, 3);
    add_streams(&mut catalog, "t", 4, 1);
    set_state(&mut catalog, 2, NodeState::Draining);
    for one in rebalance(&catalog, &alive(1..=4), 99) {
        let leads_several = one.from[0] == 2 && one.from.len() > 1;
        assert!(!leads_several || set(&one.from) == set(&one.to), "first the leadership: {one:?}");
    }
    settle(&mut catalog, &alive(1..=4), 4);
    assert!(catalog.streams.values().all(|stream| !stream.placement.contains(&2)));
    assert_even(&catalog, &alive([1, 3, 4]));
    // With three nodes left, another one that drains keeps its replicas of three, and leads none of them.
    set_state(&mut catalog, 3, NodeState::Draining);
    settle(&mut catalog, &alive(1..=4), 4);
    for stream in catalog.streams.values() {
        assert_ne!(stream.placement[0], 3);
        assert_eq!(stream.placement.len(), usize::from(stream.settings.replicas));
        assert_eq!(stream.placement.contains(&3), stream.settings.replicas == 3);
    }
}

#[test]
fn a_removed_node_is_replaced_or_left_out() {
    let mut catalog = cluster(5);
    add_streams(&mut catalog, "s", 10, 3);
    add_streams(&mut catalog, "t", 5, 1);
    let lost: Vec<_> = catalog.streams.values().filter(|stream| stream.placement == [1] || stream.placement == [2]).cloned().collect();
    assert!(!lost.is_empty());
    set_state(&mut catalog, 1, NodeState::Removed);
    set_state(&mut catalog, 2, NodeState::Removed);
    settle(&mut catalog, &alive(3..=5), 4);
    for stream in catalog.streams.values().filter(|stream| !lost.contains(stream)) {
        assert_eq!(stream.placement.len(), usize::from(stream.settings.replicas));
        assert!(!stream.placement.iter().any(|node| [1, 2].contains(node)), "{stream:?}");
    }
    for stream in lost {
        assert_eq!(catalog.streams[&stream.name], stream, "nobody could hand it on");
    }
    set_state(&mut catalog, 3, NodeState::Removed);
    settle(&mut catalog, &alive(4..=5), 4);
    assert!(catalog.streams.values().filter(|s| s.settings.replicas == 3).all(|s| set(&s.placement) == set(&[4, 5])));
}

#[test]
fn a_node_that_is_down_keeps_what_it_has_and_gets_nothing() {
    let mut catalog = cluster(4);
    add_streams(&mut catalog, "s", 12, 3);
    let before = catalog.clone();
    assert_eq!(settle(&mut catalog, &alive([1, 3, 4]), 9), 0);
    assert_eq!(catalog, before);
    // A new node takes nothing from streams whose replicas are needed, and all it may once the node is back.
    join(&mut catalog);
    add_streams(&mut catalog, "t", 1, 3);
    assert!(catalog.streams[&stream_name("t0")].placement.contains(&5));
    settle(&mut catalog, &alive([1, 3, 4, 5]), 9);
    settle(&mut catalog, &alive(1..=5), 9);
    assert_even(&catalog, &all(&catalog));
}

#[test]
fn leaderships_are_handed_on_along_a_path() {
    // 1 leads everything that 2 also holds, 2 leads nothing that 1 holds, 3 is reached through 2 only.
    let mut catalog = cluster(3);
    for (at, placement) in [[1, 2], [1, 2], [2, 3], [1, 2]].iter().enumerate() {
        catalog.apply(&create(&format!("s{at}"), 3, placement));
    }
    begin_all(&mut catalog);
    for limit in [1, 2, 9] {
        let mut catalog = catalog.clone();
        settle(&mut catalog, &alive(1..=3), limit);
        assert_even(&catalog, &alive(1..=3));
    }
}

#[test]
fn replicas_are_exchanged_when_no_order_makes_leaders_even() {
    let mut catalog = cluster(4);
    for n in 0..5 {
        catalog.apply(&create(&format!("one{n}"), 1, &[1]));
        catalog.apply(&create(&format!("three{n}"), 3, &[2, 3, 4]));
    }
    begin_all(&mut catalog);
    assert_eq!(counts(&catalog, &alive(1..=4)).0, [5; 4]);
    settle(&mut catalog, &alive(1..=4), 2);
    assert_even(&catalog, &alive(1..=4));
}

/// Nodes by state, streams by replicas and the nodes that hold them (as a seed).
#[derive(Clone, Debug)]
struct Given {
    states: Vec<(u8, bool)>,
    streams: Vec<(u8, usize, Vec<usize>)>,
    limit: usize,
}

fn any_given() -> impl Strategy<Value = Given> {
    let state = prop_oneof![6 => Just(0u8), 1 => Just(1u8), 1 => Just(2u8)];
    let is_alive = prop_oneof![6 => Just(true), 1 => Just(false)];
    let replicas = || prop_oneof![Just(1u8), Just(3u8), Just(5u8)];
    let stream = (replicas(), 1usize..=5, proptest::collection::vec(any::<usize>(), 5));
    let states = proptest::collection::vec((state, is_alive), 1..8);
    (states, proptest::collection::vec(stream, 0..40), 1usize..20).prop_map(|(states, streams, limit)| Given { states, streams, limit })
}

fn build(given: &Given, is_sound: bool) -> (Catalog, BTreeSet<u64>) {
    let mut catalog = cluster(given.states.len() as u64);
    for (at, (replicas, count, seeds)) in given.streams.iter().enumerate() {
        let mut nodes: Vec<u64> = all(&catalog).into_iter().collect();
        let placement: Vec<u64> = seeds.iter().take((*count).min(nodes.len())).map(|seed| nodes.remove(seed % nodes.len())).collect();
        catalog.apply(&create(&format!("s{at}"), *replicas, &placement));
    }
    begin_all(&mut catalog);
    let mut alive = all(&catalog);
    for (at, (state, is_alive)) in given.states.iter().enumerate().filter(|_| !is_sound) {
        let id = at as u64 + 1;
        set_state(&mut catalog, id, [NodeState::Active, NodeState::Draining, NodeState::Removed][usize::from(*state)]);
        if !is_alive {
            alive.remove(&id);
        }
    }
    (catalog, alive)
}

proptest! {
    #[test]
    fn any_cluster_comes_to_rest(given in any_given()) {
        let (mut catalog, alive) = build(&given, false);
        settle(&mut catalog, &alive, given.limit);
        for stream in catalog.streams.values() {
            let spread = Spread::new(&catalog, &alive, 0);
            let removed = stream.placement.iter().filter(|node| spread.state(**node) == NodeState::Removed).count();
            prop_assert!(removed == 0 || removed == stream.placement.len());
            let replicas = usize::from(stream.settings.replicas);
            prop_assert!(removed > 0 || stream.placement.len() <= replicas);
            let has_candidate = spread.candidate(&stream.placement).is_some();
            prop_assert!(removed > 0 || !has_candidate || stream.placement.len() == replicas);
            let leaves = stream.placement.iter().any(|node| spread.state(*node) == NodeState::Draining);
            prop_assert!(removed > 0 || !has_candidate || !leaves);
        }
        // Everybody well: even.
        for (id, node) in catalog.nodes.clone() {
            if node.state == NodeState::Draining {
                set_state(&mut catalog, id, NodeState::Active);
            }
        }
        let everybody = all(&catalog);
        settle(&mut catalog, &everybody, given.limit.max(2));
        let is_lost = |placement: &[u64]| placement.iter().all(|node| catalog.nodes[node].state == NodeState::Removed);
        if !catalog.streams.values().any(|stream| is_lost(&stream.placement)) {
            assert_even(&catalog, &everybody);
        }
    }

    #[test]
    fn any_sound_cluster_becomes_even(given in any_given()) {
        let (mut catalog, alive) = build(&given, true);
        settle(&mut catalog, &alive, given.limit.max(2));
        assert_even(&catalog, &alive);
    }
}
