//! Leaderships that move: because somebody asks for it, because the spread does, or because their node leaves.

use super::error::{Error, Result};
use super::metrics::HandOver;
use super::remote::{self, method};
use super::stream::{Local, Stream};
use super::{Inner, Node};
use crate::cluster::mesh::{CallError, Lane};
use crate::cluster::{Group, Progress};
use crate::core::catalog::NodeState;
use crate::core::{NodeName, StreamName};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A replica so many entries behind is as good as up to date: it may be handed the leadership.
pub const LAG_MAX: u64 = 16;
/// Longest wait for one that is, and how often it looks.
const CATCH_UP_WAIT: Duration = Duration::from_secs(2);
const CATCH_UP_LOOK: Duration = Duration::from_millis(5);
const MOVE_WAIT: Duration = Duration::from_secs(5);

impl Node {
    /// `None`: whichever other replica is furthest. Gives the new leader, which is preferred from now on.
    pub async fn move_leader(&self, name: &StreamName, to: Option<NodeName>) -> Result<NodeName> {
        let node = &self.inner;
        let stream = node.find_stream(name).await?;
        let to = to.map(|to| node.node_id(&to)).transpose()?;
        let before = stream.placement();
        // Said first, or the leader to be would hand the leadership back to the one preferred so far.
        if let Some(to) = to {
            node.check_successor(&stream, to)?;
            node.prefer(&stream, to).await?;
        }
        let moved = node.move_leader(&stream, to).await;
        if matches!(moved, Err(Error::Conflict(_))) {
            // The leader refused: it is not to follow later what nobody was promised.
            node.place_anew(&stream, stream.placement(), before).await?;
        }
        let leader = moved?;
        node.prefer(&stream, leader).await?;
        Ok(node.node_name(leader))
    }
}

impl Inner {
    /// Refuses a leader to be that cannot take over as far as this node knows; the present leader may know more.
    fn check_successor(&self, stream: &Stream, to: u64) -> Result<()> {
        let drains = self.directory.node(to).is_some_and(|node| node.state != NodeState::Active);
        let leaves = self.is_up(to) && !self.stays(to);
        let why = match () {
            () if !stream.is_held_by(to) => format!("holds no replica of {}", stream.name),
            () if drains || leaves => "is leaving".to_owned(),
            () if !self.is_up(to) => "cannot be reached".to_owned(),
            () if to == self.id && self.is_out(stream.group) => "has a damaged replica".to_owned(),
            () => return Ok(()),
        };
        Err(Error::Conflict(format!("node {} {why}", self.node_name(to))))
    }

    async fn move_leader(self: &Arc<Inner>, stream: &Arc<Stream>, to: Option<u64>) -> Result<u64> {
        let deadline = Instant::now() + MOVE_WAIT;
        let _attends = stream.attend();
        loop {
            self.awake(stream).await;
            let status = self.status(stream).await;
            let Some(leader) = status.leader else { return Err(Error::NoLeader) };
            if Some(leader) == to {
                return Ok(leader);
            }
            let moved = match stream.local() {
                Some(local) if leader == self.id => self.hand_over(&local, to, HandOver::Asked).await,
                _ => self.ask_move(stream, leader, to, deadline).await,
            };
            match moved {
                Err(Error::NoLeader) if Instant::now() < deadline => (),
                // Somebody else was elected in between.
                Ok(leader) if to.is_some_and(|to| to != leader) && Instant::now() < deadline => (),
                moved => return moved,
            }
        }
    }

    async fn ask_move(&self, stream: &Stream, leader: u64, to: Option<u64>, deadline: Instant) -> Result<u64> {
        let mut w = remote::writer(24);
        w.u64(stream.group);
        w.u64(to.unwrap_or(0));
        match self.mesh.call(leader, Lane::Bulk, method::MOVE_LEADER, w.finish(), deadline).await {
            Ok(answer) => Ok(remote::decode_number(answer)?),
            Err(CallError::Refused { code: remote::refusal::REJECTED, message }) => Err(Error::Conflict(message)),
            Err(_) => Err(Error::NoLeader),
        }
    }

    /// At the leader: hands over to `to`, or to whichever reachable voter is furthest.
    pub async fn hand_over(&self, local: &Local, to: Option<u64>, why: HandOver) -> Result<u64> {
        let leadership = local.group.current();
        if leadership.mine.is_none() {
            return Err(Error::NoLeader);
        }
        let to = self.successor(&local.group, to).await?;
        let leader = self.transfer(&local.group, to, MOVE_WAIT).await?;
        self.metrics.handed_over[why as usize].inc();
        Ok(leader)
    }

    /// Hands a group's leadership over, and gives up where the successor goes as well: who is stopped at the same time never takes it.
    pub async fn transfer(&self, group: &Group, to: u64, within: Duration) -> Result<u64> {
        tokio::select! {
            biased;
            moved = group.transfer_leader(to, within) => moved.map_err(|_| Error::NoLeader),
            () = self.until_gone(to) => Err(Error::NoLeader),
        }
    }

    /// Done when the other node cannot be reached, or has said that it leaves.
    async fn until_gone(&self, id: u64) {
        let (mut peers, mut leavers) = (self.mesh.peers(), self.leavers.subscribe());
        loop {
            peers.borrow_and_update();
            leavers.borrow_and_update();
            if !self.stays(id) {
                return;
            }
            tokio::select! {
                _ = peers.changed() => (),
                _ = leavers.changed() => (),
            }
        }
    }

    /// Who is to take over: the reachable voter that is furthest, or `to`, once it is as good as up to date; one with room on its disk
    /// before one without. From the hand-over on the leader takes nothing any more, so somebody who has yet to catch up would hold
    /// everybody up.
    pub async fn successor(&self, group: &Group, to: Option<u64>) -> Result<u64> {
        let deadline = Instant::now() + CATCH_UP_WAIT;
        loop {
            let progress = group.progress().into_iter();
            let voters = progress.filter(|(id, progress)| *id != self.id && progress.voter && self.stays(*id));
            let best = voters
                .filter(|(id, _)| to.is_none_or(|to| to == *id))
                .min_by_key(|(id, progress)| (self.disk.is_short(*id), progress.lag.unwrap_or(u64::MAX)));
            match best {
                None => return Err(Error::Conflict("no other replica is reachable and can vote".into())),
                Some((best, Progress { lag: Some(lag), .. })) if lag <= LAG_MAX => return Ok(best),
                Some(_) if Instant::now() >= deadline => return Err(Error::Conflict("no other replica is up to date".into())),
                Some(_) => tokio::time::sleep(CATCH_UP_LOOK).await,
            }
        }
    }

    /// Makes a replica the preferred leader, so that the leadership stays there.
    async fn prefer(&self, stream: &Stream, leader: u64) -> Result<()> {
        let from = stream.placement();
        if from.first() == Some(&leader) || !from.contains(&leader) {
            return Ok(());
        }
        let to = [leader].into_iter().chain(from.iter().copied().filter(|id| *id != leader)).collect();
        self.place_anew(stream, from, to).await
    }
}
