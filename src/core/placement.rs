//! Which nodes hold a stream, and who should lead it: spread evenly, with as few moves as will do.
//!
//! Everything is a function of the catalog and of the nodes that are alive, and gives the same answer for the same input. A node
//! is *usable* when it is active and alive: only such a node gets anything new.
//!
//! `rebalance` works in four steps, and each move of a step brings its measure down, without bringing an earlier one up; so
//! repeating it comes to an end:
//! 1. repair: replicas on nodes that leave, too few or too many replicas;
//! 2. even replicas: the sum of the squares of the nodes' replica counts;
//! 3. even leaders, by other orders of the same replicas: the sum of the squares of the leader counts, then the length of the
//!    shortest path of streams along which a leadership can be handed on;
//! 4. even leaders, by exchanging replicas, where no order can: the sum of the squares of the leader counts.

use super::catalog::{Catalog, NodeState, StreamRecord};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, VecDeque},
};

/// One change of a stream's placement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    pub group: u64,
    pub from: Vec<u64>,
    pub to: Vec<u64>,
}

/// The nodes for a new stream: those with the fewest replicas, the one with the fewest leaderships first.
/// `None` when there are fewer than `replicas` usable (active and alive) nodes.
pub fn place(catalog: &Catalog, alive: &BTreeSet<u64>, replicas: u8) -> Option<Vec<u64>> {
    let mut nodes: Vec<u64> = usable(catalog, alive).collect();
    let mut counts = Counts::default();
    catalog.streams.values().for_each(|stream| counts.count(&stream.placement, 1));
    nodes.sort_by_key(|node| counts.load(*node));
    nodes.truncate(usize::from(replicas));
    if nodes.len() < usize::from(replicas) || nodes.is_empty() {
        return None;
    }
    nodes.sort_by_key(|node| (counts.leads(*node), counts.load(*node)));
    Some(nodes)
}

/// The moves that make the spread even again after nodes came or went or `replicas` changed: at most `limit` of them and one a
/// stream, each replacing, adding or removing one replica or only reordering leaders. Apply them and ask again.
///
/// No moves means that the spread is even: replica counts over usable nodes differ by at most 1, and preferred leaders too.
/// Exceptions: a stream whose group has not begun stays; a stream with a replica that is down stays as it is until that is back or has left, since its remaining
/// replicas are needed where they are; and the last unevenness of leaders may need a pair of moves, so a `limit` of 2.
/// Replicas never move away from a node only because it is down for the moment.
pub fn rebalance(catalog: &Catalog, alive: &BTreeSet<u64>, limit: usize) -> Vec<Move> {
    let mut spread = Spread::new(catalog, alive, limit);
    spread.repair();
    spread.even_replicas();
    if spread.moves.is_empty() {
        spread.reorder_leaders();
    }
    if spread.moves.is_empty() {
        spread.exchange_for_leaders();
    }
    spread.moves
}

/// The active nodes that are alive.
fn usable<'a>(catalog: &'a Catalog, alive: &'a BTreeSet<u64>) -> impl Iterator<Item = u64> + 'a {
    let active = catalog.nodes.iter().filter(|(_, node)| node.state == NodeState::Active);
    active.map(|(id, _)| *id).filter(|id| alive.contains(id))
}

/// What each node holds and leads.
#[derive(Default)]
struct Counts {
    replicas: BTreeMap<u64, usize>,
    leads: BTreeMap<u64, usize>,
}

impl Counts {
    fn count(&mut self, placement: &[u64], more: isize) {
        let add = |counts: &mut BTreeMap<u64, usize>, node: u64| {
            let count = counts.entry(node).or_default();
            *count = count.saturating_add_signed(more);
        };
        placement.iter().for_each(|node| add(&mut self.replicas, *node));
        placement.first().into_iter().for_each(|node| add(&mut self.leads, *node));
    }

    fn replicas(&self, node: u64) -> usize {
        self.replicas.get(&node).copied().unwrap_or(0)
    }

    fn leads(&self, node: u64) -> usize {
        self.leads.get(&node).copied().unwrap_or(0)
    }

    /// Orders nodes by how little they have.
    fn load(&self, node: u64) -> (usize, usize, u64) {
        (self.replicas(node), self.leads(node), node)
    }
}

/// The placements as they will be, and the moves that make them so.
struct Spread<'a> {
    catalog: &'a Catalog,
    alive: &'a BTreeSet<u64>,
    usable: BTreeSet<u64>,
    /// By group.
    placements: BTreeMap<u64, Vec<u64>>,
    counts: Counts,
    moved: BTreeSet<u64>,
    /// Groups that have not begun: their first members stay where they are until they have.
    young: BTreeSet<u64>,
    moves: Vec<Move>,
    limit: usize,
}

impl<'a> Spread<'a> {
    fn new(catalog: &'a Catalog, alive: &'a BTreeSet<u64>, limit: usize) -> Spread<'a> {
        let mut spread = Spread {
            catalog,
            alive,
            usable: usable(catalog, alive).collect(),
            placements: BTreeMap::new(),
            counts: Counts::default(),
            moved: BTreeSet::new(),
            young: catalog.streams.values().filter(|stream| !stream.has_begun()).map(|stream| stream.group).collect(),
            moves: Vec::new(),
            limit,
        };
        for stream in catalog.streams.values() {
            spread.counts.count(&stream.placement, 1);
            spread.placements.insert(stream.group, stream.placement.clone());
        }
        spread
    }

    fn state(&self, node: u64) -> NodeState {
        self.catalog.nodes.get(&node).map_or(NodeState::Removed, |record| record.state)
    }

    fn room(&self) -> usize {
        self.limit.saturating_sub(self.moves.len())
    }

    fn apply(&mut self, group: u64, to: Vec<u64>) {
        let from = self.placements[&group].clone();
        self.counts.count(&from, -1);
        self.counts.count(&to, 1);
        self.placements.insert(group, to.clone());
        self.moved.insert(group);
        self.moves.push(Move { group, from, to });
    }

    /// The usable node with the least that does not hold the stream yet.
    fn candidate(&self, placement: &[u64]) -> Option<u64> {
        self.usable.iter().copied().filter(|node| !placement.contains(node)).min_by_key(|node| self.counts.load(*node))
    }

    fn repair(&mut self) {
        let mut streams: Vec<&StreamRecord> = self.catalog.streams.values().filter(|stream| stream.has_begun()).collect();
        streams.sort_by_key(|stream| stream.group);
        for stream in streams {
            if self.room() == 0 {
                return;
            }
            if let Some(to) = self.repaired(&stream.placement, usize::from(stream.settings.replicas)) {
                self.apply(stream.group, to);
            }
        }
    }

    /// The next step of a placement towards one with so many replicas on nodes that stay.
    fn repaired(&self, placement: &[u64], replicas: usize) -> Option<Vec<u64>> {
        if placement.iter().all(|node| self.state(*node) == NodeState::Removed) {
            return None; // Nobody is left who could hand it on.
        }
        let candidate = self.candidate(placement);
        if let Some(to) = self.led_by_one_that_stays(placement) {
            return Some(to);
        }
        if let Some(removed) = placement.iter().position(|node| self.state(*node) == NodeState::Removed) {
            let replacement = candidate.filter(|_| placement.len() <= replicas);
            return Some(replaced(placement, removed, replacement));
        }
        if placement.len() > replicas {
            return Some(replaced(placement, self.most_dispensable(placement)?, None));
        }
        let candidate = candidate?;
        if placement.len() < replicas {
            return Some([placement, &[candidate]].concat());
        }
        let draining = placement.iter().position(|node| self.state(*node) == NodeState::Draining)?;
        Some(replaced(placement, draining, Some(candidate)))
    }

    /// Another order, when the preferred leader leaves and a usable replica can lead instead.
    fn led_by_one_that_stays(&self, placement: &[u64]) -> Option<Vec<u64>> {
        if self.state(*placement.first()?) == NodeState::Active {
            return None;
        }
        let usable = placement.iter().copied().filter(|node| self.usable.contains(node));
        usable.min_by_key(|node| (self.counts.leads(*node), *node)).map(|leader| led_by(placement, leader))
    }

    /// The position of the replica to give up: one that leaves, else one that is down, else where the most are; the preferred
    /// leader last.
    fn most_dispensable(&self, placement: &[u64]) -> Option<usize> {
        let worth = |at: usize| {
            let node = placement[at];
            let stays = self.state(node) == NodeState::Active;
            (stays, self.alive.contains(&node), at == 0, Reverse(self.counts.replicas(node)), Reverse(node))
        };
        (0..placement.len()).min_by_key(|at| worth(*at))
    }

    /// The streams that may be moved only to make the spread more even.
    fn movable(&self) -> impl Iterator<Item = (u64, &Vec<u64>)> {
        let all = self.placements.iter().map(|(group, placement)| (*group, placement));
        let free = |group: &u64| !self.moved.contains(group) && !self.young.contains(group);
        all.filter(move |(group, placement)| free(group) && placement.iter().all(|node| self.usable.contains(node)))
    }

    fn even_replicas(&mut self) {
        while self.room() > 0 {
            let Some((group, to)) = self.evener_replicas() else { return };
            self.apply(group, to);
        }
    }

    /// A move from a node with many replicas to one with at least two fewer: the fullest and the emptiest that have one.
    fn evener_replicas(&self) -> Option<(u64, Vec<u64>)> {
        let mut nodes: Vec<u64> = self.usable.iter().copied().collect();
        nodes.sort_by_key(|node| self.counts.load(*node));
        for full in nodes.iter().rev() {
            for empty in nodes.iter().take_while(|empty| self.counts.replicas(**empty) + 2 <= self.counts.replicas(*full)) {
                // Its leadership goes with it where that makes the leaders more even too.
                let gives_lead = self.counts.leads(*full) > self.counts.leads(*empty);
                let streams = self.movable().filter(|(_, placement)| placement.contains(full) && !placement.contains(empty));
                let best = streams.min_by_key(|(group, placement)| ((placement[0] == *full) != gives_lead, *group));
                if let Some((group, placement)) = best {
                    let at = placement.iter().position(|node| node == full)?;
                    return Some((group, replaced(placement, at, Some(*empty))));
                }
            }
        }
        None
    }

    fn reorder_leaders(&mut self) {
        while self.room() > 0 {
            let Some(path) = self.shortest_path() else { return };
            // The far end first, so that a path cut short leaves a shorter one. Only the first may be: for it no stream was taken.
            if path.len() > self.room() && !self.moves.is_empty() {
                return;
            }
            for (group, leader) in path.into_iter().rev().take(self.room()) {
                let to = led_by(&self.placements[&group], leader);
                self.apply(group, to);
            }
        }
    }

    /// The shortest way to hand a leadership from a node on to one that leads at least two fewer: streams and their new leaders,
    /// each stream led by the new leader of the one before.
    fn shortest_path(&self) -> Option<Vec<(u64, u64)>> {
        let mut hands_to: BTreeMap<u64, BTreeMap<u64, u64>> = BTreeMap::new();
        for (group, placement) in self.placements.iter().filter(|(group, _)| !self.moved.contains(group)) {
            for next in placement.iter().skip(1).filter(|next| self.usable.contains(next)) {
                hands_to.entry(placement[0]).or_default().entry(*next).or_insert(*group);
            }
        }
        let paths = self.usable.iter().filter_map(|from| self.path_from(*from, &hands_to));
        paths.min_by_key(|path| path.len())
    }

    fn path_from(&self, from: u64, hands_to: &BTreeMap<u64, BTreeMap<u64, u64>>) -> Option<Vec<(u64, u64)>> {
        // The node before, and the stream that it hands on.
        let mut reached: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        let mut queue = VecDeque::from([from]);
        while let Some(node) = queue.pop_front() {
            if self.counts.leads(node) + 2 <= self.counts.leads(from) {
                let mut path = Vec::new();
                let mut end = node;
                while end != from {
                    let (before, group) = reached[&end];
                    path.push((group, end));
                    end = before;
                }
                path.reverse();
                return Some(path);
            }
            for (next, group) in hands_to.get(&node).into_iter().flatten() {
                if *next != from && !reached.contains_key(next) {
                    reached.insert(*next, (node, *group));
                    queue.push_back(*next);
                }
            }
        }
        None
    }

    /// Moves a replica with its leadership to a node that leads at least two fewer, and where the replica counts need it another
    /// replica back. With even replica counts and no path there always is one.
    fn exchange_for_leaders(&mut self) {
        let mut nodes: Vec<u64> = self.usable.iter().copied().collect();
        nodes.sort_by_key(|node| (self.counts.leads(*node), *node));
        for full in nodes.iter().rev() {
            for empty in nodes.iter().take_while(|empty| self.counts.leads(**empty) + 2 <= self.counts.leads(*full)) {
                let Some(there) = self.transfer(*full, *empty, true) else { continue };
                let back = self.transfer(*empty, *full, false);
                match (self.counts.replicas(*full) > self.counts.replicas(*empty), back) {
                    (true, _) if self.room() >= 1 => return self.apply(there.0, there.1),
                    (false, Some(back)) if self.room() >= 2 => {
                        self.apply(there.0, there.1);
                        return self.apply(back.0, back.1);
                    }
                    _ => {}
                }
            }
        }
    }

    /// A move of a replica that `from` leads, or that it does not lead.
    fn transfer(&self, from: u64, to: u64, leads: bool) -> Option<(u64, Vec<u64>)> {
        let fits = |placement: &Vec<u64>| (placement[0] == from) == leads && !placement.contains(&to);
        self.movable().filter(|(_, placement)| fits(placement)).find_map(|(group, placement)| {
            let at = placement.iter().position(|node| *node == from)?;
            Some((group, replaced(placement, at, Some(to))))
        })
    }
}

/// The placement with another node, or none, at a position.
fn replaced(placement: &[u64], at: usize, by: Option<u64>) -> Vec<u64> {
    let node = |(position, node): (usize, &u64)| if position == at { by } else { Some(*node) };
    placement.iter().enumerate().filter_map(node).collect()
}

/// The placement with this member first; the one that was first takes its position.
fn led_by(placement: &[u64], leader: u64) -> Vec<u64> {
    let mut to = placement.to_vec();
    if let Some(at) = to.iter().position(|node| *node == leader) {
        to.swap(0, at);
    }
    to
}

#[cfg(test)]
mod tests;
