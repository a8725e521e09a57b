//! openraft's log storage on one group of the store: thin, since the store already keeps order, tail and durability.

use super::encoding;
use super::group::Checked;
use super::types::{Entry, LogId, TypeConfig, Vote, log_id, store_id};
use crate::core::limits;
use crate::store;
use futures_util::{Stream, stream};
use openraft::{
    OptionalSend, RaftLogReader,
    storage::{IOFlushed, LogState, RaftLogStorage},
};
use std::{
    fmt::Debug,
    io,
    ops::{Bound, Range, RangeBounds},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Acquire, Ordering::Release},
    },
};

/// The log of one group, for writing and for reading; clones are the same log.
///
/// - Once it is retired nothing is read or written through it: the group may be another's by then.
#[derive(Clone)]
pub struct Log {
    group: store::Group,
    retired: Arc<AtomicBool>,
}

impl Log {
    pub fn new(group: store::Group) -> Log {
        Log { group, retired: Arc::default() }
    }

    pub fn retire(&self) {
        self.retired.store(true, Release);
    }

    pub fn is_retired(&self) -> bool {
        self.retired.load(Acquire)
    }

    fn group(&self) -> io::Result<&store::Group> {
        match self.is_retired() {
            true => Err(io::Error::other("the group was closed")),
            false => Ok(&self.group),
        }
    }

    /// Some entries from `range.start` on; from memory at once, from disk on a thread that may block.
    pub async fn read(&self, range: Range<u64>, max_bytes: usize) -> io::Result<Vec<Entry>> {
        let group = self.group()?;
        let stored = match group.in_memory(range.start) {
            true => group.read(range, max_bytes),
            false => {
                let group = group.clone();
                let blocking = tokio::task::spawn_blocking(move || group.read(range, max_bytes));
                blocking.await.map_err(io::Error::other)?
            }
        };
        self.group()?;
        stored.map_err(io::Error::other)?.into_iter().map(decode).collect()
    }

    /// Has everything that [`Log::check`] should find written to where it reads.
    pub async fn settle(&self) -> Result<(), store::Error> {
        match self.group.settle() {
            Ok(settled) => settled.await,
            // The check says it.
            Err(store::Error::Fenced { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Reads and checks some of the log; see [`super::Group::check_log`]. Blocks.
    pub fn check(&self, index: u64, max_bytes: usize) -> Result<Checked, store::Error> {
        let mut checked = Checked { next: Some(index), ..Checked::default() };
        while let Some(index) = checked.next.filter(|_| checked.bytes < max_bytes as u64) {
            let slice = match self.group.read_again(index, limits::CHUNK_BYTES_MAX) {
                Err(damage @ (store::Error::Fenced { .. } | store::Error::Broken { .. })) => {
                    return Ok(Checked { next: None, damage: Some(damage.to_string()), ..checked });
                }
                slice => slice?,
            };
            checked.next = slice.map(|slice| slice.next);
            let Some(slice) = slice else { break };
            checked.rows += slice.rows;
            checked.bytes += slice.bytes;
        }
        Ok(checked)
    }

    fn last_index(&self) -> Option<u64> {
        self.group.log_state().last.map(|id| id.index)
    }
}

fn decode(entry: store::Entry) -> io::Result<Entry> {
    let id = log_id(entry.id());
    let payload = encoding::decode_payload(entry.payload).map_err(io::Error::other)?;
    Ok(Entry { log_id: id, payload })
}

fn encode(entry: Entry) -> store::Entry {
    let id = store_id(&entry.log_id);
    store::Entry { index: id.index, term: id.term, leader: id.leader, payload: encoding::encode_payload(&entry.payload) }
}

fn bounds(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start + 1,
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => end + 1,
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

impl RaftLogReader<TypeConfig> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(&mut self, range: RB) -> io::Result<Vec<Entry>> {
        let Range { start, end } = bounds(&range);
        let mut start = start.max(self.group.first_index().unwrap_or(0));
        let mut all = Vec::new();
        while start < end {
            let some = self.read(start..end, usize::MAX).await?;
            let Some(last) = some.last() else { break };
            start = last.log_id.index() + 1;
            all.extend(some);
        }
        Ok(all)
    }

    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let range = bounds(&range);
        let log = self.clone();
        let chunks = stream::try_unfold(range, move |range| {
            let log = log.clone();
            async move {
                if range.start >= range.end {
                    return Ok(None);
                }
                let some = log.read(range.clone(), limits::CHUNK_BYTES_MAX).await?;
                let next = some.last().map(|entry| entry.log_id.index() + 1);
                Ok::<_, io::Error>(next.map(|next| (stream::iter(some.into_iter().map(Ok)), next..range.end)))
            }
        });
        Box::pin(futures_util::TryStreamExt::try_flatten(chunks))
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        self.group.vote().map(encoding::decode_vote).transpose().map_err(io::Error::other)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start..end, limits::APPEND_BYTES_MAX).await
    }
}

impl RaftLogStorage<TypeConfig> for Log {
    type LogReader = Log;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let state = self.group.log_state();
        Ok(LogState { last_purged_log_id: state.purged.map(log_id), last_log_id: state.last.map(log_id) })
    }

    async fn get_log_reader(&mut self) -> Log {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let durable = self.group()?.save_vote(encoding::encode_vote(vote)).map_err(io::Error::other)?;
        durable.await.map_err(io::Error::other)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        if let Some(id) = committed {
            self.group.save_committed(store_id(&id));
        }
        Ok(())
    }

    /// The hint may be ahead of what is in the log when the log lost an unsynced end: then it is cut to the log.
    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        let committed = self.group.committed();
        Ok(committed.filter(|id| Some(id.index) <= self.last_index()).map(log_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<_> = entries.into_iter().map(encode).collect();
        let done = move |result: Result<(), store::Error>| callback.io_completed(result.map_err(io::Error::other));
        self.group()?.append(entries, done).map_err(io::Error::other)
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        self.group()?.truncate_after(last.map(|id| id.index())).map_err(io::Error::other)
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.group()?.purge(store_id(&upto)).map_err(io::Error::other)
    }
}
