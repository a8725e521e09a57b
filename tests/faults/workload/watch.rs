//! Asks the nodes in turn who leads: for the schedule, and for the invariant that a term has one leader.

use super::shared::Shared;
use crate::cluster::admin::Admin;
use std::sync::Arc;
use std::time::Duration;

const EVERY: Duration = Duration::from_millis(150);

pub async fn run(shared: Arc<Shared>) {
    let admin = Admin::new();
    let mut round = 0;
    while !shared.closing.is_cancelled() {
        let urls = shared.roster.urls();
        let asked: Vec<_> = shared.streams.iter().map(|stream| stream.name.clone()).collect();
        if let Some(url) = (!urls.is_empty()).then(|| urls[round % urls.len()].clone()) {
            for name in asked {
                let Ok(stream) = admin.stream(&url, &name).await else { break };
                if let Some(leader) = &stream.leader {
                    shared.led(&name, stream.term, leader);
                }
            }
        }
        round += 1;
        tokio::time::sleep(EVERY).await;
    }
}
