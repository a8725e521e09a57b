//! Comparing a stream's replicas: the request, and what is said of each.

use super::number;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How to compare.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"read": false})))]
pub struct VerifyRequest {
    /// Whether every replica also reads its whole log from disk again and checks every checksum. It takes as long as that takes.
    #[serde(default)]
    pub read: bool,
}

/// A stream's replicas, compared at one place of its log.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct Verification {
    #[schema(examples("orders"))]
    pub stream: String,
    /// The stream's last seq where they were compared.
    #[schema(minimum = 0, examples(42))]
    pub at_seq: u64,
    /// The log's entry there.
    #[schema(minimum = 0, examples(44))]
    pub index: u64,
    /// The rolling hash of all entries up to there; `null` where the leader's replica is older than hashes.
    #[schema(required = true, pattern = "^[0-9a-f]{32}$")]
    pub hash: Option<String>,
    #[schema(examples("n2"))]
    pub leader: String,
    pub replicas: Vec<ReplicaCheck>,
}

/// What is known of one replica.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct ReplicaCheck {
    #[schema(examples("n2"))]
    pub node: String,
    /// Whether the others were compared with it.
    pub leader: bool,
    pub result: Agreement,
    /// Log entries that it has still to apply to be there.
    #[schema(minimum = 0, examples(0))]
    pub behind: u64,
    /// Its rolling hash there; `null` where it has none.
    #[schema(required = true, pattern = "^[0-9a-f]{32}$")]
    pub hash: Option<String>,
    /// The last entry that is known to be the same, of a replica that is different.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "number::some")]
    #[schema(nullable = false, minimum = 0)]
    pub same_through: Option<u64>,
    /// The first entry that is known to be different.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "number::some")]
    #[schema(nullable = false, minimum = 0)]
    pub differs_from: Option<u64>,
    /// Why it is not identical, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub detail: Option<String>,
    /// What reading its log found, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub read: Option<Reread>,
}

/// `behind`: it did not come as far within two seconds. `unknown`: it or the leader began with data of a build without rolling hashes.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Agreement {
    Identical,
    Behind,
    Different,
    Unreachable,
    Unknown,
}

/// What reading a replica's whole log found.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct Reread {
    /// Whether all of it was read, and every checksum was right.
    pub ok: bool,
    /// Log entries that were read and are whole.
    #[schema(minimum = 0)]
    pub rows: u64,
    /// Their bytes.
    #[schema(minimum = 0)]
    pub bytes: u64,
    /// What is damaged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub damage: Option<String>,
    /// Why it was not read to its end, where nothing is known to be damaged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub stopped: Option<String>,
}
