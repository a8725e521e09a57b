//! Streams as a whole: creating, listing, describing and deleting them.

use super::catalog::rejected;
use super::error::{Error, Result};
use super::remote::{self, get_state, method, put_state};
use super::stream::{Local, Stream};
use super::types::{Put, ReplicaInfo, ReplicaState, StreamInfo, StreamSummary};
use super::{Inner, Node};
use crate::cluster::mesh::{Lane, PeerState};
use crate::core::catalog::{Command, NodeState, Outcome, Reject, StreamRecord};
use crate::core::codec::Corrupt;
use crate::core::machine::State;
use crate::core::{NodeName, Settings, SettingsPatch, StreamName, placement};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Longest wait for a stream's leader where the answer only describes.
const STATUS_WAIT: Duration = Duration::from_secs(2);
/// The same for each of many streams at once: one without a leader shall not hold up the others' answer.
const GLANCE_WAIT: Duration = Duration::from_millis(300);
/// Pause before asking again when nothing else tells that it is worth it.
const ASK_PAUSE: Duration = Duration::from_millis(25);
/// A replica so many entries behind its leader keeps up.
pub const LAG_OK: u64 = 64;

impl Node {
    pub async fn put_stream(&self, name: &StreamName, patch: SettingsPatch) -> Result<(Put, StreamInfo)> {
        let put = self.inner.put(name, &patch).await?;
        let stream = self.inner.find_stream(name).await?;
        Ok((put, self.inner.describe(&stream).await))
    }

    /// In order of name, those after `after`, at most `limit`.
    pub async fn list_streams(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<StreamSummary>> {
        // Without a quorum the list is what this node knows.
        let _ = tokio::time::timeout(STATUS_WAIT, self.inner.catch_up_catalog()).await;
        let records: Vec<StreamRecord> = {
            let catalog = self.inner.directory.read();
            let listed = catalog.streams.values().filter(|record| record.name.as_str().starts_with(prefix));
            listed.filter(|record| after.is_none_or(|after| record.name.as_str() > after)).take(limit).cloned().collect()
        };
        Ok(records.iter().map(|record| self.inner.summarize(record)).collect())
    }

    /// How many streams there are whose names begin with `prefix`, as this node knows.
    pub fn count_streams(&self, prefix: &str) -> u64 {
        let catalog = self.inner.directory.read();
        catalog.streams.keys().filter(|name| name.as_str().starts_with(prefix)).count() as u64
    }

    /// The state of each of these streams, all asked at once; `None` for one that was deleted meanwhile.
    pub async fn stream_states(&self, names: impl Iterator<Item = &StreamName>) -> Vec<Option<StreamInfo>> {
        let node = &self.inner;
        let asked = names.map(|name| async move {
            let stream = node.handle(&node.directory.stream(name)?);
            Some(node.describe_within(&stream, GLANCE_WAIT).await)
        });
        futures_util::future::join_all(asked).await
    }

    pub async fn stream_info(&self, name: &StreamName) -> Result<StreamInfo> {
        let stream = self.inner.find_stream(name).await?;
        Ok(self.inner.describe(&stream).await)
    }

    pub async fn delete_stream(&self, name: &StreamName) -> Result<()> {
        self.inner.find_stream(name).await?;
        match self.inner.change_catalog(&Command::DeleteStream { name: name.clone() }).await? {
            // It was there a moment ago: this very command was done before its answer got lost, or somebody else was faster.
            Outcome::Done | Outcome::Rejected(Reject::NoSuchStream) => Ok(()),
            Outcome::Rejected(reject) => Err(rejected(reject, name.as_str())),
            other => Err(Error::Internal(format!("deleting a stream was answered with {other:?}"))),
        }
    }
}

impl Inner {
    /// The stream's handle. A name that is not known here is looked up again after catching up with the catalog.
    pub async fn find_stream(&self, name: &StreamName) -> Result<Arc<Stream>> {
        if let Some(stream) = self.known_stream(name) {
            return Ok(stream);
        }
        if let Some(record) = self.directory.stream(name) {
            return Ok(self.handle(&record));
        }
        self.catch_up_catalog().await?;
        let record = self.directory.stream(name).ok_or_else(|| Error::StreamNotFound(name.clone()))?;
        Ok(self.handle(&record))
    }

    /// The handle of a stream whose record has not changed since it was made: what every publish asks for, without a copy of the record.
    pub fn known_stream(&self, name: &StreamName) -> Option<Arc<Stream>> {
        let catalog = self.directory.read();
        let record = catalog.streams.get(name)?;
        self.stream_of_group(record.group).filter(|stream| *stream.record() == *record)
    }

    /// The one handle of the record's stream on this node, made if need be.
    pub fn handle(&self, record: &StreamRecord) -> Arc<Stream> {
        if let Some(stream) = self.stream_of_group(record.group) {
            stream.update(record);
            return stream;
        }
        let mut streams = self.streams.write().expect("nobody panics while holding it");
        // A stream that has not begun needs its first members.
        let awake = self.sleep_after.is_none() || !record.has_begun();
        streams.entry(record.group).or_insert_with(|| Arc::new(Stream::new(record, awake))).clone()
    }

    pub fn stream_of_group(&self, group: u64) -> Option<Arc<Stream>> {
        self.streams.read().expect("nobody panics while holding it").get(&group).cloned()
    }

    pub async fn create_with_defaults(&self, name: &StreamName) -> Result<()> {
        self.put(name, &SettingsPatch::default()).await.map(|_| ())
    }

    async fn put(&self, name: &StreamName, patch: &SettingsPatch) -> Result<Put> {
        self.catch_up_catalog().await?;
        if let Some(record) = self.directory.stream(name) {
            return self.reconfigure(&record, patch).await;
        }
        let settings = patch.apply(Settings::with_replicas(self.default_replicas()))?;
        let placement = self.place(settings.replicas).ok_or_else(|| self.too_few_nodes(settings.replicas))?;
        let create = Command::CreateStream { name: name.clone(), settings, placement, time: self.clock.now() };
        match self.change_catalog(&create).await? {
            Outcome::StreamCreated { .. } => Ok(Put::Created),
            Outcome::StreamExists { .. } => {
                let record = self.directory.stream(name).ok_or_else(|| Error::StreamNotFound(name.clone()))?;
                self.reconfigure(&record, patch).await
            }
            Outcome::Rejected(reject) => Err(rejected(reject, name.as_str())),
            other => Err(Error::Internal(format!("creating a stream was answered with {other:?}"))),
        }
    }

    /// The nodes for a new stream: reachable ones where there are enough, with room on their disks if possible,
    /// else with a minority that is down for the moment.
    fn place(&self, replicas: u8) -> Option<Vec<u64>> {
        let (catalog, alive) = (self.directory.read(), self.alive());
        let roomy: BTreeSet<u64> = alive.iter().copied().filter(|id| !self.disk.is_short(*id)).collect();
        if let Some(placement) = [&roomy, &alive].into_iter().find_map(|nodes| placement::place(&catalog, nodes, replicas)) {
            return Some(placement);
        }
        let everybody: BTreeSet<u64> = catalog.nodes.keys().copied().collect();
        let mut placement = placement::place(&catalog, &everybody, replicas)?;
        let up = placement.iter().filter(|id| alive.contains(id)).count();
        // Who is up leads.
        placement.sort_by_key(|id| !alive.contains(id));
        (up > usize::from(replicas) / 2).then_some(placement)
    }

    async fn reconfigure(&self, record: &StreamRecord, patch: &SettingsPatch) -> Result<Put> {
        let settings = patch.apply(record.settings.clone())?;
        if settings == record.settings {
            return Ok(Put::Same);
        }
        if settings.replicas > record.settings.replicas && self.active().len() < usize::from(settings.replicas) {
            return Err(self.too_few_nodes(settings.replicas));
        }
        match self.change_catalog(&Command::ChangeStream { name: record.name.clone(), settings }).await? {
            Outcome::Done => Ok(Put::Changed),
            Outcome::Rejected(Reject::NoSuchStream) => Err(Error::StreamNotFound(record.name.clone())),
            Outcome::Rejected(reject) => Err(rejected(reject, record.name.as_str())),
            other => Err(Error::Internal(format!("changing a stream was answered with {other:?}"))),
        }
    }

    fn default_replicas(&self) -> u8 {
        if self.active().len() >= 3 { 3 } else { 1 }
    }

    fn too_few_nodes(&self, replicas: u8) -> Error {
        let (active, alive) = (self.active().len(), self.alive().len());
        Error::Conflict(format!("{replicas} replicas need as many nodes: the cluster has {active}, of which {alive} can be reached"))
    }

    /// The ids of the nodes that take replicas.
    pub fn active(&self) -> BTreeSet<u64> {
        let members = self.directory.members().into_iter();
        members.filter(|node| node.state == NodeState::Active).map(|node| node.id).collect()
    }

    /// The ids of the nodes that this one can reach, itself included.
    pub fn alive(&self) -> BTreeSet<u64> {
        let peers = self.mesh.peers().borrow().clone();
        let connected = peers.iter().filter(|(_, state)| matches!(state, PeerState::Connected { .. })).map(|(id, _)| *id);
        connected.chain([self.id]).collect()
    }

    /// The ids of the other nodes that this one can reach.
    pub fn others_alive(&self) -> impl Iterator<Item = u64> + use<> {
        let me = self.id;
        self.alive().into_iter().filter(move |id| *id != me)
    }

    /// Whether this node can reach the other.
    pub fn is_up(&self, id: u64) -> bool {
        id == self.id || self.mesh.peers().borrow().get(&id).is_some_and(PeerState::is_connected)
    }

    /// Whether the node can be reached and did not say that it leaves; of this one, whether it does not.
    pub fn stays(&self, id: u64) -> bool {
        if id == self.id {
            return !*self.leaving.borrow();
        }
        let leaving = self.leavers.borrow().get(&id).copied();
        matches!(self.mesh.peers().borrow().get(&id), Some(PeerState::Connected { boot, .. }) if leaving != Some(*boot))
    }

    pub fn node_name(&self, id: u64) -> NodeName {
        let known = self.directory.node(id).map(|node| node.name);
        known.unwrap_or_else(|| NodeName::new(&format!("node-{id}")).expect("digits make a name"))
    }

    pub fn node_id(&self, name: &NodeName) -> Result<u64> {
        let members = self.directory.members();
        let found = members.iter().find(|node| node.name == *name);
        found.map(|node| node.id).ok_or_else(|| Error::NodeNotFound(name.to_string()))
    }

    fn summarize(&self, record: &StreamRecord) -> StreamSummary {
        let stream = self.stream_of_group(record.group);
        let leader = stream.and_then(|stream| match self.is_asleep(&stream) {
            true => self.would_lead(&stream),
            false => stream.current().leader,
        });
        StreamSummary {
            name: record.name.clone(),
            settings: record.settings.clone(),
            created: record.created,
            leader: leader.map(|id| self.node_name(id)),
            replicas: record.placement.iter().map(|id| self.node_name(*id)).collect(),
        }
    }

    /// What the stream's leader says of it; without a leader what a replica here says.
    pub async fn describe(self: &Arc<Inner>, stream: &Arc<Stream>) -> StreamInfo {
        self.describe_within(stream, STATUS_WAIT).await
    }

    /// The same, with a wait for the leader of its own.
    async fn describe_within(self: &Arc<Inner>, stream: &Arc<Stream>, wait: Duration) -> StreamInfo {
        let status = self.status_within(stream, wait).await;
        let record = stream.record();
        let alive = self.alive();
        let lag = |id: u64| status.lags.iter().find(|(node, _)| *node == id).and_then(|(_, lag)| *lag);
        let is_far = |id: u64| lag(id).is_none_or(|lag| lag > LAG_OK);
        // Whoever keeps up is whole; of the others only they themselves know why they do not.
        let unsure: Vec<u64> = record.placement.iter().copied().filter(|id| alive.contains(id) && is_far(*id)).collect();
        let answers = self.ask_replicas(&unsure, record.group).await;
        let state = |id: u64| match answers.get(&id) {
            _ if !alive.contains(&id) => (ReplicaState::Unreachable, None),
            None => (ReplicaState::Ok, None),
            Some(None) => (ReplicaState::Unreachable, None),
            Some(Some(answer)) if answer.state != ReplicaState::Ok => (answer.state, Some(answer.why.clone())),
            Some(Some(_)) => (ReplicaState::Behind, None),
        };
        let replica = |id: &u64| {
            let (state, why) = state(*id);
            let leader = status.leader == Some(*id);
            ReplicaInfo { node: self.node_name(*id), leader, lag: lag(*id), reachable: alive.contains(id), state, why }
        };
        // A leader may apply an entry after a follower did, and its follower has shown it to readers.
        let here = stream.local().map(|local| local.replica.current()).filter(|here| here.last_seq > status.state.last_seq);
        let State { first_seq, last_seq, events, bytes, .. } = here.unwrap_or(status.state);
        StreamInfo {
            name: record.name.clone(),
            settings: record.settings.clone(),
            created: record.created,
            first_seq,
            last_seq,
            events,
            bytes,
            leader: status.leader.map(|id| self.node_name(id)),
            term: status.term,
            replicas: record.placement.iter().map(replica).collect(),
        }
    }

    pub async fn status(self: &Arc<Inner>, stream: &Arc<Stream>) -> Status {
        self.status_within(stream, STATUS_WAIT).await
    }

    async fn status_within(self: &Arc<Inner>, stream: &Arc<Stream>, wait: Duration) -> Status {
        let deadline = Instant::now() + wait;
        let mut best = stream.local().map(|local| Status::of(&local)).unwrap_or_else(Status::unknown);
        loop {
            if let Some(asleep) = self.status_asleep(stream) {
                return asleep;
            }
            self.call(stream);
            let seen = stream.current();
            let local = stream.local();
            if let Some(local) = &local
                && local.group.current().mine.is_some()
            {
                return Status::of(local);
            }
            let known = local.and_then(|local| local.group.current().leader);
            let asked = known.map_or_else(|| stream.placement(), |leader| vec![leader]);
            for id in asked.into_iter().filter(|id| *id != self.id) {
                if let Ok(status) = self.ask_status(stream, id, deadline).await {
                    if status.leader == Some(id) {
                        return status;
                    }
                    best = if status.state.last_seq >= best.state.last_seq { status } else { best };
                }
            }
            if Instant::now() >= deadline || self.stop.is_cancelled() {
                return best;
            }
            stream.changed_within(seen, ASK_PAUSE).await;
        }
    }

    /// Whether a leader among the stream's holders says that `id` is not a member any more.
    pub async fn leader_counts_out(&self, stream: &Stream, id: u64) -> bool {
        let deadline = Instant::now() + STATUS_WAIT;
        let alive = self.alive();
        for holder in stream.placement().into_iter().filter(|holder| *holder != self.id && alive.contains(holder)) {
            if let Ok(status) = self.ask_status(stream, holder, deadline).await
                && status.leader == Some(holder)
            {
                return status.lags.iter().all(|(member, _)| *member != id);
            }
        }
        false
    }

    async fn ask_status(&self, stream: &Stream, id: u64, deadline: Instant) -> Result<Status> {
        let body = remote::encode_number(stream.group);
        let answer = self.mesh.call(id, Lane::Bulk, method::STREAM_STATUS, body, deadline).await;
        Ok(Status::decode(answer.map_err(|_| Error::NoLeader)?)?)
    }

    /// Changes where the replicas are to be, and which is preferred, if that is as it was.
    pub async fn place_anew(&self, stream: &Stream, from: Vec<u64>, to: Vec<u64>) -> Result<()> {
        if from == to {
            return Ok(());
        }
        match self.change_catalog(&Command::SetPlacement { group: stream.group, from, to }).await? {
            Outcome::Rejected(reject) => Err(rejected(reject, stream.name.as_str())),
            _ => Ok(()),
        }
    }
}

/// What a replica knows of its stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub state: State,
    pub term: u64,
    pub leader: Option<u64>,
    /// Of each member, as the leader sees it.
    pub lags: Vec<(u64, Option<u64>)>,
}

impl Status {
    pub fn of(local: &Local) -> Status {
        let leadership = local.group.current();
        let progress = local.group.progress();
        Status {
            state: local.replica.current(),
            term: leadership.term,
            leader: leadership.leader,
            lags: progress.into_iter().map(|(id, progress)| (id, progress.lag)).collect(),
        }
    }

    fn unknown() -> Status {
        Status { state: State { first_seq: 1, ..State::default() }, term: 0, leader: None, lags: Vec::new() }
    }

    pub fn encode(&self) -> Bytes {
        let mut w = remote::writer(64);
        put_state(&mut w, &self.state);
        w.varint(self.term);
        w.option(self.leader, |w, leader| w.varint(leader));
        w.varint(self.lags.len() as u64);
        for (id, lag) in &self.lags {
            w.varint(*id);
            w.option(*lag, |w, lag| w.varint(lag));
        }
        w.finish()
    }

    fn decode(bytes: Bytes) -> std::result::Result<Status, Corrupt> {
        let mut r = remote::reader("a stream's status", bytes)?;
        let (state, term, leader) = (get_state(&mut r)?, r.varint()?, r.option(|r| r.varint())?);
        let count = r.count()?;
        let lags = (0..count).map(|_| Ok((r.varint()?, r.option(|r| r.varint())?))).collect::<std::result::Result<_, Corrupt>>()?;
        r.end()?;
        Ok(Status { state, term, leader, lags })
    }
}
