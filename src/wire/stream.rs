//! Streams: what a user may set, what a stream looks like, and the requests that act on a whole stream.

use super::{
    number,
    time::{Span, Timestamp},
};
use crate::core::{Discard, Settings, SettingsPatch};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

/// What a user sets: a field left out keeps its value, or its default at creation; `null` takes a bound away.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamSettingsPatch {
    /// 1, 3 or 5. Default: 3 where the cluster has three nodes, else 1.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "number::some_small")]
    #[schema(schema_with = replicas)]
    pub replicas: Option<u8>,
    /// Events older than this are removed.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some")]
    #[schema(schema_with = max_age)]
    pub max_age: Option<Option<Span>>,
    /// Bound of the stream's event bytes.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "number::nullable")]
    #[schema(value_type = Option<u64>, minimum = 1)]
    pub max_bytes: Option<Option<u64>>,
    /// Bound of the stream's number of events.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "number::nullable")]
    #[schema(value_type = Option<u64>, minimum = 1)]
    pub max_events: Option<Option<u64>>,
    /// What happens when a bound is reached: the oldest events make room (`old`), or new ones are rejected (`new`). Default `old`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some")]
    #[schema(schema_with = discard)]
    pub discard: Option<DiscardPolicy>,
    /// How long an event id is remembered, at most a day. Default `2m`; `0s` remembers none.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some")]
    #[schema(schema_with = dedup_window)]
    pub dedup_window: Option<Span>,
    /// Most data bytes of one event.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "number::some")]
    #[schema(nullable = false, minimum = 1, maximum = 1048576)]
    pub max_event_bytes: Option<u64>,
    /// For people; at most 1,024 bytes of UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some")]
    #[schema(nullable = false, max_length = 1024)]
    pub description: Option<String>,
}

/// Reads a field that is there; with `default` for one that is not, `null` and absence stay apart.
fn some<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

fn replicas() -> utoipa::openapi::schema::Object {
    use utoipa::openapi::schema::{ObjectBuilder, Type};
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .enum_values(Some([1, 3, 5]))
        .description(Some("How many nodes hold the stream. Default: 3 where the cluster has three nodes, else 1."))
        .build()
}

/// A span that is not zero; `null` for no bound.
fn max_age() -> utoipa::openapi::schema::Object {
    use utoipa::openapi::schema::{ObjectBuilder, SchemaType, Type};
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
        .pattern(Some("^(?=.*[1-9])([0-9]{1,9}d)?([0-9]{1,9}h)?([0-9]{1,9}m)?([0-9]{1,9}s)?([0-9]{1,9}ms)?$"))
        .description(Some("Events older than this are removed."))
        .examples([serde_json::json!("7d")])
        .build()
}

/// A span of at most a day. The pattern shows the usual way to write one; others, like `90m`, are understood as well.
fn dedup_window() -> utoipa::openapi::schema::Object {
    use utoipa::openapi::schema::{ObjectBuilder, Type};
    ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some("^(0|1d|(?=[0-9])(([01]?[0-9]|2[0-3])h)?([0-5]?[0-9]m)?([0-5]?[0-9]s)?([0-9]{1,3}ms)?)$"))
        .description(Some("How long an event id is remembered, at most a day. Default `2m`; `0s` remembers none. (Spans like `90m` are understood as well.)"))
        .examples([serde_json::json!("2m")])
        .build()
}

fn discard() -> utoipa::openapi::schema::Object {
    use utoipa::openapi::schema::{ObjectBuilder, Type};
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(["old", "new"]))
        .description(Some(
            "What happens when a bound is reached: the oldest events make room (`old`, the default), or new ones are rejected (`new`).",
        ))
        .build()
}

impl From<StreamSettingsPatch> for SettingsPatch {
    fn from(patch: StreamSettingsPatch) -> SettingsPatch {
        SettingsPatch {
            replicas: patch.replicas,
            max_age_ms: patch.max_age.map(|age| age.map(|span| span.0)),
            max_bytes: patch.max_bytes,
            max_events: patch.max_events,
            discard: patch.discard.map(Into::into),
            dedup_window_ms: patch.dedup_window.map(|span| span.0),
            max_event_bytes: patch.max_event_bytes,
            description: patch.description,
        }
    }
}

/// A stream's settings in full.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize, ToSchema)]
pub struct StreamSettings {
    #[schema(schema_with = replicas)]
    pub replicas: u8,
    /// `null`: events are kept however old.
    #[schema(required = true)]
    pub max_age: Option<Span>,
    /// `null`: unbounded.
    #[schema(required = true, minimum = 1)]
    pub max_bytes: Option<u64>,
    /// `null`: unbounded.
    #[schema(required = true, minimum = 1)]
    pub max_events: Option<u64>,
    #[schema(schema_with = discard)]
    pub discard: DiscardPolicy,
    pub dedup_window: Span,
    #[schema(minimum = 1, maximum = 1048576)]
    pub max_event_bytes: u64,
    pub description: String,
}

impl From<&Settings> for StreamSettings {
    fn from(settings: &Settings) -> StreamSettings {
        StreamSettings {
            replicas: settings.replicas,
            max_age: settings.max_age_ms.map(Span),
            max_bytes: settings.max_bytes,
            max_events: settings.max_events,
            discard: settings.discard.into(),
            dedup_window: Span(settings.dedup_window_ms),
            max_event_bytes: settings.max_event_bytes,
            description: settings.description.clone(),
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DiscardPolicy {
    Old,
    New,
}

impl From<DiscardPolicy> for Discard {
    fn from(policy: DiscardPolicy) -> Discard {
        match policy {
            DiscardPolicy::Old => Discard::Old,
            DiscardPolicy::New => Discard::New,
        }
    }
}

impl From<Discard> for DiscardPolicy {
    fn from(discard: Discard) -> DiscardPolicy {
        match discard {
            Discard::Old => DiscardPolicy::Old,
            Discard::New => DiscardPolicy::New,
        }
    }
}

/// A stream with its settings and state.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct Stream {
    #[schema(examples("orders"))]
    pub name: String,
    pub created: Timestamp,
    pub settings: StreamSettings,
    /// The first seq that is still there; `last_seq + 1` when there is none.
    #[schema(minimum = 1)]
    pub first_seq: u64,
    /// The last seq; 0 when there never was an event.
    #[schema(minimum = 0, examples(42))]
    pub last_seq: u64,
    #[schema(minimum = 0, examples(42))]
    pub events: u64,
    #[schema(minimum = 0, examples(11008))]
    pub bytes: u64,
    /// `null` while none leads.
    #[schema(required = true, examples("n2"))]
    pub leader: Option<String>,
    #[schema(minimum = 0)]
    pub term: u64,
    pub replicas: Vec<Replica>,
}

#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct Replica {
    #[schema(examples("n2"))]
    pub node: String,
    pub leader: bool,
    /// Log entries behind the leader; `null` when the leader has not heard of it.
    #[schema(required = true, minimum = 0)]
    pub lag: Option<u64>,
    pub reachable: bool,
    pub state: ReplicaState,
    /// What is wrong with it; left out when nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub why: Option<String>,
}

/// How a replica is.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReplicaState {
    /// It takes part and keeps up.
    Ok,
    /// It takes part and has something to catch up with.
    Behind,
    /// The answering node cannot reach its node.
    Unreachable,
    /// Its data was damaged; it takes no part until it is made anew from the others.
    Rebuilding,
    /// Its data is damaged, and there is no majority to make it anew from.
    Damaged,
}

impl ReplicaState {
    pub fn name(self) -> &'static str {
        match self {
            ReplicaState::Ok => "ok",
            ReplicaState::Behind => "behind",
            ReplicaState::Unreachable => "unreachable",
            ReplicaState::Rebuilding => "rebuilding",
            ReplicaState::Damaged => "damaged",
        }
    }
}

/// Streams in order of name.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct StreamList {
    #[schema(max_items = 1000)]
    pub streams: Vec<StreamSummary>,
    /// Give it as `after` for the rest; left out when this is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub next: Option<String>,
    /// How many streams there are whose names begin with `prefix`, wherever the page begins.
    #[serde(default)]
    #[schema(minimum = 0, examples(12))]
    pub total: u64,
}

/// A stream as the catalog knows it.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct StreamSummary {
    #[schema(examples("orders"))]
    pub name: String,
    pub created: Timestamp,
    pub settings: StreamSettings,
    /// `null` while none is known.
    #[schema(required = true, examples("n2"))]
    pub leader: Option<String>,
    /// The nodes that hold it.
    pub replicas: Vec<String>,
    /// With `state=true`: how it is at the moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub state: Option<StreamState>,
}

/// What `GET /v1/streams/{stream}` says besides the settings.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct StreamState {
    #[schema(minimum = 1)]
    pub first_seq: u64,
    #[schema(minimum = 0, examples(42))]
    pub last_seq: u64,
    #[schema(minimum = 0, examples(42))]
    pub events: u64,
    #[schema(minimum = 0, examples(11008))]
    pub bytes: u64,
    /// `null` while none leads.
    #[schema(required = true, examples("n2"))]
    pub leader: Option<String>,
    #[schema(minimum = 0)]
    pub term: u64,
    pub replicas: Vec<Replica>,
}

/// What to remove: exactly one of the fields.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(min_properties = 1, max_properties = 1, examples(json!({"before_seq": 100})))]
pub struct Purge {
    /// Every event before this one.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "number::some")]
    #[schema(nullable = false, minimum = 0)]
    pub before_seq: Option<u64>,
    /// Every event but the newest so many.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "number::some")]
    #[schema(nullable = false, minimum = 0)]
    pub keep: Option<u64>,
    /// Every event whose subject this filter takes.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some")]
    #[schema(
        nullable = false,
        min_length = 1,
        max_length = 256,
        pattern = "^(([^.*>\\s\\x00-\\x1f\\x7f-\\x9f]+|\\*)(\\.([^.*>\\s\\x00-\\x1f\\x7f-\\x9f]+|\\*)){0,30}(\\.>)?|>)$",
        examples("orders.eu.>")
    )]
    pub subject: Option<String>,
}

/// What a purge removed, and what the stream looks like after it.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct Purged {
    #[schema(minimum = 0, examples(99))]
    pub events: u64,
    #[schema(minimum = 0, examples(25344))]
    pub bytes: u64,
    #[schema(minimum = 1, examples(100))]
    pub first_seq: u64,
    #[schema(minimum = 0, examples(120))]
    pub last_seq: u64,
}

/// Who shall lead; left out, the replica that is furthest.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"node": "n2"})))]
pub struct LeaderRequest {
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some")]
    #[schema(nullable = false, min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9_-][A-Za-z0-9._-]*$", examples("n2"))]
    pub node: Option<String>,
}

/// Who leads now.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct Leader {
    #[schema(examples("orders"))]
    pub stream: String,
    #[schema(examples("n2"))]
    pub leader: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_tell_null_from_absence_and_refuse_the_unknown() {
        let patch: StreamSettingsPatch =
            serde_json::from_str(r#"{"replicas":3,"max_age":null,"max_bytes":10,"dedup_window":"1h30m","discard":"new"}"#).unwrap();
        let patch = SettingsPatch::from(patch);
        assert_eq!((patch.replicas, patch.max_age_ms, patch.max_bytes, patch.max_events), (Some(3), Some(None), Some(Some(10)), None));
        assert_eq!((patch.dedup_window_ms, patch.discard), (Some(5_400_000), Some(Discard::New)));
        for bad in [
            r#"{"replica":3}"#,
            r#"{"replicas":null}"#,
            r#"{"replicas":"3"}"#,
            r#"{"max_age":5}"#,
            r#"{"max_bytes":-1}"#,
            r#"{"discard":"all"}"#,
            "[]",
        ] {
            assert!(serde_json::from_str::<StreamSettingsPatch>(bad).is_err() || bad == "[]", "{bad}");
        }
    }
}
