//! Which nodes hold a stream, and who should lead it: spread evenly, with as few moves as will do.

use super::catalog::Catalog;
use std::collections::BTreeSet;

/// One change of a stream's placement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move { pub group: u64, pub from: Vec<u64>, pub to: Vec<u64> }

/// The nodes for a new stream: those with the fewest replicas, the one with the fewest leaderships first.
/// `None` when there are fewer than `replicas` usable (active and alive) nodes.
pub fn place(catalog: &Catalog, alive: &BTreeSet<u64>, replicas: u8) -> Option<Vec<u64>> { todo!("core") }

/// The moves that make the spread even again after nodes came or went or `replicas` changed: at most `limit` of them, each replacing,
/// adding or removing one replica or only reordering leaders. No moves means that the spread is even: replica counts over active nodes
/// differ by at most 1, and preferred leaders too. Replicas never move away from a node only because it is down for the moment.
pub fn rebalance(catalog: &Catalog, alive: &BTreeSet<u64>, limit: usize) -> Vec<Move> { todo!("core") }
