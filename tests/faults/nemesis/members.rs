//! Nodes that come and go for good while the load goes on.

use super::act::{CHANGE_WAIT, JOINED_MAX, Nemesis};
use crate::cluster::Result;
use std::time::{Duration, Instant};
use tokio::time::sleep;

impl Nemesis {
    /// A new node joins; where enough have, the one that joined last leaves for good.
    pub async fn join_or_leave(&mut self) -> Result<Option<String>> {
        let members = self.cluster.members();
        if members.len() < self.began_with + JOINED_MAX {
            let node = self.cluster.place()?;
            self.cluster.start(node)?;
            return Ok(Some(format!("{} joins", self.names(&[node]))));
        }
        if !self.make_whole().await {
            return Ok(None);
        }
        let Some(&node) = members.last() else { return Ok(None) };
        let Some(url) = self.someone(node) else { return Ok(None) };
        let name = self.cluster.nodes[node].name.clone();
        self.admin.drain(&url, &name).await?;
        self.until_removed(&url, &name).await?;
        self.cluster.kill(&[node]).await;
        self.cluster.forget(node);
        self.whole = false;
        Ok(Some(format!("{name} drained and removed")))
    }

    /// A node dies with its disk; it is removed, and another one takes its place.
    pub async fn replace(&mut self, node: usize) -> Result<Option<String>> {
        if !self.make_whole().await {
            return Ok(None);
        }
        let Some(url) = self.someone(node) else { return Ok(None) };
        let name = self.cluster.nodes[node].name.clone();
        self.whole = false;
        self.cluster.kill(&[node]).await;
        self.until_removed(&url, &name).await?;
        self.cluster.forget(node);
        let new = self.cluster.place()?;
        self.cluster.start(new)?;
        Ok(Some(format!("{name} by {}", self.names(&[new]))))
    }

    async fn until_removed(&self, url: &str, name: &str) -> Result<()> {
        let began = Instant::now();
        loop {
            match self.admin.remove(url, name).await {
                Ok(()) => return Ok(()),
                Err(why) if began.elapsed() > CHANGE_WAIT => return Err(format!("{name} could not be removed: {why}")),
                Err(_) => sleep(Duration::from_millis(200)).await,
            }
        }
    }
}
