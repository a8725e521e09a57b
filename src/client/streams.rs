//! Streams: made, changed, listed, looked at, purged, removed, handed over.

use super::{Client, call::Call, error::Result, publish::check};
use crate::core::NodeName;
use crate::wire::{
    Leader, LeaderRequest, Purge, Purged, Stream, StreamList, StreamSettingsPatch, StreamSummary, Verification, VerifyRequest,
};
use reqwest::{Method, StatusCode};

/// Streams asked for at a time.
const LIST_PAGE: usize = 1_000;

impl Client {
    /// Creates or reconfigures; tells whether it was created.
    pub async fn put_stream(&self, stream: &str, patch: &StreamSettingsPatch) -> Result<(bool, Stream)> {
        let answer = self.call(&Call::new(Method::PUT, &["v1", "streams", check(stream)?.as_str()]).json(patch)).await?;
        Ok((answer.status == StatusCode::CREATED, answer.parse()?))
    }

    /// All streams whose names begin so, in order.
    pub async fn list_streams(&self, prefix: &str) -> Result<Vec<StreamSummary>> {
        let mut streams = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let mut call = Call::get(&["v1", "streams"]);
            call.query = vec![("limit", LIST_PAGE.to_string())];
            if !prefix.is_empty() {
                call.query.push(("prefix", prefix.to_owned()));
            }
            call.query.extend(after.take().map(|after| ("after", after)));
            let page: StreamList = self.call(&call).await?.parse()?;
            let ended = page.streams.is_empty();
            streams.extend(page.streams);
            match page.next {
                Some(next) if !ended => after = Some(next),
                _ => return Ok(streams),
            }
        }
    }

    pub async fn stream(&self, stream: &str) -> Result<Stream> {
        self.call(&Call::get(&["v1", "streams", check(stream)?.as_str()])).await?.parse()
    }

    /// Deletes the stream and its events.
    pub async fn delete_stream(&self, stream: &str) -> Result<()> {
        self.call(&Call::new(Method::DELETE, &["v1", "streams", check(stream)?.as_str()])).await.map(drop)
    }

    pub async fn purge(&self, stream: &str, purge: &Purge) -> Result<Purged> {
        self.call(&Call::new(Method::POST, &["v1", "streams", check(stream)?.as_str(), "purge"]).json(purge)).await?.parse()
    }

    /// Has the stream's replicas compared; with `read`, every one of them reads its log again as well.
    pub async fn verify(&self, stream: &str, read: bool) -> Result<Verification> {
        let mut call = Call::new(Method::POST, &["v1", "streams", check(stream)?.as_str(), "verify"]).json(&VerifyRequest { read });
        call.repeatable = true;
        self.call(&call).await?.parse()
    }

    /// Hands the stream to this node, or to whichever replica is furthest; gives the new leader.
    pub async fn move_leader(&self, stream: &str, to: Option<&str>) -> Result<String> {
        let node = to.map(NodeName::new).transpose()?.map(|node| node.to_string());
        let call = Call::new(Method::POST, &["v1", "streams", check(stream)?.as_str(), "leader"]).json(&LeaderRequest { node });
        Ok(self.call(&call).await?.parse::<Leader>()?.leader)
    }
}
