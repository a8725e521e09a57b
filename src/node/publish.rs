//! Taking a publish: checked, bounded, and handed to its stream's forwarder.

use super::error::{Error, Result};
use super::forwarder::{Forwarder, Submit};
use super::stream::Stream;
use super::types::{Publish, Published};
use super::{Inner, Node};
use crate::core::{NewEvent, Settings, StreamName, limits};
use std::future::Future;
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

/// What an event costs of the node's bound besides its own bytes.
const OVERHEAD_BYTES: u64 = 256;

impl Node {
    /// Publishes and waits for the outcome. Creates the stream where `auto_create_streams` is on.
    pub async fn publish(&self, stream: &StreamName, publish: Publish) -> Result<Published> {
        self.submit(stream, publish).await?.await
    }

    /// The first half of `publish`, for pipelining: when this returns, the request has its place in the order of this node's
    /// requests to the stream; the future gives the outcome. Waits only for room.
    pub async fn submit(
        &self,
        stream: &StreamName,
        publish: Publish,
    ) -> Result<impl Future<Output = Result<Published>> + Send + 'static + use<>> {
        let node = &self.inner;
        if node.stop.is_cancelled() {
            return Err(Error::Draining);
        }
        let bytes = check(&publish.events, None)?;
        let stream = node.stream_for_publish(stream).await?;
        check(&publish.events, Some(&stream.settings()))?;
        if let Some(damage) = node.is_lost(&stream) {
            return Err(damage);
        }
        let Publish { events, expected_last_seq, deadline } = publish;
        let room = timeout_at(deadline, node.room.clone().acquire_many_owned(permits(bytes, &events))).await;
        let room = room.map_err(|_| Error::Overloaded("publishes of all streams"))?.map_err(|_| Error::Draining)?;
        let (done, outcome) = oneshot::channel();
        node.count_publish(events.len(), bytes);
        let forwarder = stream.forwarder(|| Forwarder::start(node, &stream));
        forwarder.submit(Submit { events, expected_last_seq, deadline, done, room }).await?;
        Ok(outcome_of(node.clone(), stream.group, outcome))
    }

    /// The same without waiting: what almost every publish needs, and cheaper than a future. Gives the publish back where there is
    /// anything to wait for, or to be said of it: `submit` does that.
    pub fn try_submit(
        &self,
        stream: &StreamName,
        publish: Publish,
    ) -> std::result::Result<impl Future<Output = Result<Published>> + Send + 'static + use<>, Publish> {
        let node = &self.inner;
        let Some(stream) = node.known_stream(stream).filter(|_| !node.stop.is_cancelled()) else { return Err(publish) };
        let checked = check(&publish.events, None).and_then(|_| check(&publish.events, Some(&stream.settings())));
        let Some(bytes) = checked.ok().filter(|_| node.is_lost(&stream).is_none()) else { return Err(publish) };
        let Ok(room) = node.room.clone().try_acquire_many_owned(permits(bytes, &publish.events)) else { return Err(publish) };
        let (done, outcome) = oneshot::channel();
        let (count, Publish { events, expected_last_seq, deadline }) = (publish.events.len(), publish);
        let forwarder = stream.forwarder(|| Forwarder::start(node, &stream));
        match forwarder.try_submit(Submit { events, expected_last_seq, deadline, done, room }) {
            Ok(()) => {
                node.count_publish(count, bytes);
                Ok(outcome_of(node.clone(), stream.group, outcome))
            }
            Err(Submit { events, expected_last_seq, deadline, .. }) => Err(Publish { events, expected_last_seq, deadline }),
        }
    }
}

/// What a publish holds of the node's bound.
fn permits(bytes: u64, events: &[NewEvent]) -> u32 {
    u32::try_from(bytes + OVERHEAD_BYTES * events.len() as u64).unwrap_or(u32::MAX)
}

fn outcome_of(
    node: Arc<Inner>,
    group: u64,
    outcome: oneshot::Receiver<Result<Published>>,
) -> impl Future<Output = Result<Published>> + Send + 'static {
    let began = Instant::now();
    async move {
        match outcome.await.unwrap_or(Err(Error::OutcomeUnknown)) {
            // Apart: the future of each publish has no room for it.
            Err(error) => Err(Box::pin(node.explain(group, error)).await),
            published => {
                node.metrics.publish_seconds.observe(began.elapsed().as_secs_f64());
                published
            }
        }
    }
}

/// Checks the events against the limits of every stream, and then of this one; gives their bytes.
fn check(events: &[NewEvent], settings: Option<&Settings>) -> Result<u64> {
    if events.is_empty() {
        return Err(Error::Invalid(crate::core::Invalid("a publish has at least one event".into())));
    }
    if events.len() > limits::BATCH_EVENTS_MAX {
        return Err(Error::BatchTooLarge { limit: limits::BATCH_EVENTS_MAX as u64, unit: "events" });
    }
    let limit = settings.map_or(limits::EVENT_BYTES_MAX as u64, |settings| settings.max_event_bytes);
    for event in events {
        let bytes = event.data.len() as u64;
        if bytes > limit {
            return Err(Error::EventTooLarge { bytes, limit });
        }
        if settings.is_none() {
            event.check()?;
        }
    }
    let bytes: u64 = events.iter().map(NewEvent::bytes).sum();
    let data: u64 = events.iter().map(|event| event.data.len() as u64).sum();
    // An event of the largest size has its headers besides; they are bounded by their own limits.
    if data > limits::BATCH_BYTES_MAX as u64 || bytes + 64 * events.len() as u64 > limits::REQUEST_BYTES_MAX as u64 {
        return Err(Error::BatchTooLarge { limit: limits::BATCH_BYTES_MAX as u64, unit: "bytes" });
    }
    Ok(bytes)
}

impl Inner {
    fn count_publish(&self, events: usize, bytes: u64) {
        self.metrics.publish_requests.inc();
        self.metrics.publish_events.inc_by(events as u64);
        self.metrics.publish_bytes.inc_by(bytes);
    }

    async fn stream_for_publish(&self, name: &StreamName) -> Result<Arc<Stream>> {
        match self.find_stream(name).await {
            Err(Error::StreamNotFound(_)) if self.auto_create_streams => {
                self.create_with_defaults(name).await?;
                self.find_stream(name).await
            }
            found => found,
        }
    }
}
