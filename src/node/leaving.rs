//! A node that goes by itself: it says so, hands its leaderships over, finishes what came in, and closes. Each step is bounded in time.

use super::Inner;
use super::error::Error;
use super::metrics::HandOver;
use super::remote::{self, method};
use crate::cluster::{Group, mesh::Lane};
use crate::core::limits;
use futures_util::{StreamExt, stream};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Longest handing over of all leaderships at a graceful stop.
const HAND_OVER: Duration = Duration::from_secs(5);
/// Longest wait for the outcomes of publishes at a graceful stop.
const FINISH: Duration = Duration::from_secs(3);
/// Longest telling the peers that this node leaves.
const GOODBYE: Duration = Duration::from_millis(500);
/// Leaderships handed over at a time.
const HAND_OVER_AT_A_TIME: usize = 32;

impl Inner {
    /// Leaves, finishes what came in, stops and joins everything.
    pub async fn end(self: Arc<Inner>) {
        self.leave().await;
        self.finish_publishes().await;
        self.stop.cancel();
        self.tasks.close();
        let _ = timeout(HAND_OVER, self.tasks.wait()).await;
        let groups: Vec<Group> = self.groups.all();
        stream::iter(groups).for_each_concurrent(HAND_OVER_AT_A_TIME, |group| async move { group.close().await }).await;
        self.mesh.stop().await;
        let store = self.store.clone();
        let closed = match store.is_stepped() {
            true => Ok(store.close()),
            false => tokio::task::spawn_blocking(move || store.close()).await,
        };
        if let Ok(Err(error)) = closed {
            tracing::warn!(%error, "the store did not close cleanly");
        }
    }

    /// The leaderships first, so that nobody who is sent elsewhere finds a stream without a leader there.
    pub async fn leave(&self) {
        self.say_goodbye().await;
        let handed_over = timeout(HAND_OVER, self.hand_over_everything()).await.is_ok();
        if !handed_over {
            tracing::warn!("not every leadership was handed over in time: the others elect");
        }
        self.depart();
    }

    /// This node leaves, and nothing changes that any more.
    pub fn depart(&self) {
        self.departs.store(true, Relaxed);
        self.tell_leaving(true);
    }

    /// Tells everybody here who waits for it whether this node leaves, readers included.
    pub fn tell_leaving(&self, leaves: bool) {
        let leaves = || leaves || self.departs.load(Relaxed);
        if self.leaving.send_if_modified(|leaving| std::mem::replace(leaving, leaves()) != *leaving) {
            let streams = self.streams.read().expect("nobody panics while holding it");
            streams.values().filter_map(|stream| stream.local()).for_each(|local| local.replica.nudge());
        }
    }

    /// Waits until every publish that was admitted has its outcome; admits no more.
    async fn finish_publishes(&self) {
        // Whoever has all the room knows that nobody else has any; those who come now wait behind it, and are refused.
        if timeout(FINISH, self.room.acquire_many(limits::PENDING_BYTES_MAX as u32)).await.is_err() {
            tracing::warn!("publishes were still without an outcome when the time to stop was up");
        }
        self.room.close();
    }

    /// Tells the peers not to hand anything over to this node any more. Without it they might, and then elect once more.
    async fn say_goodbye(&self) {
        let peers: Vec<u64> = self.others_alive().collect();
        let deadline = Instant::now() + GOODBYE;
        let say = |id| async move {
            if let Err(error) = self.mesh.call(id, Lane::Bulk, method::LEAVING, remote::encode_number(self.id), deadline).await {
                tracing::debug!(node = id, %error, "a peer was not told that this node leaves");
            }
        };
        stream::iter(peers).for_each_concurrent(HAND_OVER_AT_A_TIME, say).await;
    }

    async fn hand_over_everything(&self) {
        let streams: Vec<_> = self.streams.read().expect("nobody panics while holding it").values().cloned().collect();
        let led = streams.iter().filter_map(|stream| stream.local()).filter(|local| local.group.current().mine.is_some());
        let led: Vec<_> = led.collect();
        let hand_over = |local| async move {
            if let Err(error) = self.hand_over(&local, None, HandOver::Stop).await
                && !matches!(error, Error::Conflict(_))
            {
                tracing::debug!(group = local.group.id(), %error, "the leadership was not handed over");
            }
        };
        stream::iter(led).for_each_concurrent(HAND_OVER_AT_A_TIME, hand_over).await;
        self.hand_over_catalog().await;
    }

    pub async fn hand_over_catalog(&self) {
        let Some(catalog) = self.catalog.get().filter(|catalog| catalog.current().mine.is_some()) else { return };
        if let Ok(to) = self.successor(&catalog, None).await {
            let _ = self.transfer(&catalog, to, HAND_OVER).await;
        }
    }
}
