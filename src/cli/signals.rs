//! SIGINT, SIGTERM and SIGHUP as one stream of wishes to end.

use super::failure::{Failure, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

pub struct Signals([Signal; 3]);

impl Signals {
    /// From now on these signals end nothing by themselves.
    pub fn new() -> Result<Signals> {
        let listen = |kind| signal(kind).map_err(|error| Failure::new(format!("cannot listen for signals: {error}")));
        Ok(Signals([listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?, listen(SignalKind::hangup())?]))
    }

    /// The next one. Cancel safe.
    pub async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
