//! SIGINT, SIGTERM and SIGHUP as one stream of wishes to end.

use super::failure::{Failure, INTERRUPTED, Result};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How long a command that is interrupted may take for its last words: it may be stuck in writing to whoever does not read.
const LAST_WORDS: Duration = Duration::from_secs(1);

pub struct Signals([Signal; 3]);

impl Signals {
    /// From now on these signals end nothing by themselves.
    pub fn new() -> Result<Signals> {
        let listen = |kind| signal(kind).map_err(|error| Failure::new(format!("cannot listen for signals: {error}")));
        Ok(Signals([listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?, listen(SignalKind::hangup())?]))
    }

    /// Cancelled by the first of them; the process ends by itself should it not do so soon.
    pub fn interruption() -> Result<CancellationToken> {
        let mut signals = Signals::new()?;
        let interrupted = CancellationToken::new();
        let told = interrupted.clone();
        tokio::spawn(async move {
            signals.next().await;
            told.cancel();
            let _ = tokio::time::timeout(LAST_WORDS, signals.next()).await;
            std::process::exit(i32::from(INTERRUPTED));
        });
        Ok(interrupted)
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
