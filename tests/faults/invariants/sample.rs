//! Small histories for the invariants' tests.

use crate::history::{NodeLog, Op, Outcome, Stored, StreamHistory};
use crate::value::Value;

pub fn value(counter: u64) -> Value {
    Value::new(1, counter)
}

/// Acknowledged at `seq`; in time, one after the other by `counter`.
pub fn acked(counter: u64, seq: u64) -> Op {
    Op {
        stream: 0,
        lane: 0,
        first: value(counter),
        count: 1,
        invoked_us: 10 * counter,
        done_us: 10 * counter + 5,
        expected: None,
        outcome: Outcome::Acked { seq },
    }
}

pub fn with(op: Op, outcome: Outcome) -> Op {
    Op { outcome, ..op }
}

pub fn log(counters: &[u64]) -> NodeLog {
    let events = counters.iter().map(|counter| Stored { value: Some(value(*counter)), hash: *counter }).collect();
    NodeLog { node: "n1".into(), events }
}

pub fn history(ops: &[Op], counters: &[u64]) -> StreamHistory {
    StreamHistory { name: "s".into(), ops: ops.to_vec(), repeats: Vec::new(), logs: vec![log(counters)] }
}
