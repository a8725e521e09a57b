//! Groups that come to rest and wake, over real sockets.

use super::*;
use crate::cluster::testing::{Line, Mesh3, NEVER_SILENT, SILENT};
use tokio::time::{sleep, timeout};

/// A group comes to rest soon, and no election begins by itself within a test's patience.
const PATIENT: Timers = Timers { heartbeat: 50, election_min: 60_000, election_max: 61_000, rest_after: Some(REST_AFTER) };
const QUICK: Timers = Timers { heartbeat: 50, election_min: 200, election_max: 350, rest_after: Some(REST_AFTER) };
const REST_AFTER: u64 = 100;
const GROUP: u64 = 5;

async fn at_rest(mesh: &Mesh3) {
    mesh.until("the group rests everywhere", || mesh.members.iter().all(|member| member.group(GROUP).is_at_rest())).await;
}

/// Longer than everything that could wake a group or begin an election.
async fn a_while(timers: &Timers) {
    sleep(Duration::from_millis(4 * timers.election_max + 4 * REST_AFTER)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_rests_wakes_with_a_command_and_rests_again() {
    let mesh = Mesh3::start(3, &[GROUP], QUICK, NEVER_SILENT, &[]).await;
    for round in ["one", "two"] {
        at_rest(&mesh).await;
        assert!(mesh.member(1).propose(GROUP, round).await);
        mesh.until("everybody has it", || mesh.members.iter().all(|member| member.kept(GROUP).last().is_some_and(|kept| kept == round)))
            .await;
    }
    at_rest(&mesh).await;
    a_while(&QUICK).await;
    assert_eq!((mesh.member(1).group(GROUP).current().term, mesh.causes()), (1, (0, 0, 0)));
    at_rest(&mesh).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_at_rest_elects_when_its_leader_is_lost() {
    let mut mesh = Mesh3::start(3, &[GROUP], PATIENT, NEVER_SILENT, &[]).await;
    at_rest(&mesh).await;
    mesh.kill(1).await;
    let leader = mesh.leader_everywhere(GROUP, |leader| leader != 1).await;
    assert!(mesh.member(leader).propose(GROUP, "on").await);
    assert_eq!(mesh.causes(), (1, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handing_over_that_fails_leaves_nobody_at_rest() {
    let mesh = Mesh3::start(3, &[GROUP], QUICK, NEVER_SILENT, &[]).await;
    at_rest(&mesh).await;
    // Node 3 does not get the call to take over, and its leader is silent from then on.
    mesh.line(1, 3, Line::Silent);
    assert!(mesh.member(1).group(GROUP).transfer_leader(3, Duration::from_millis(100)).await.is_err());
    let leader = mesh.leader_everywhere(GROUP, |leader| leader != 1).await;
    mesh.line(1, 3, Line::Open);
    assert!(mesh.member(leader).propose(GROUP, "on").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_comes_to_a_verdict_the_timers_do() {
    // Followers 2 and 3 do not hear each other, so neither has a majority; their ticks begin again for when they do.
    let mut mesh = Mesh3::start(3, &[GROUP], QUICK, NEVER_SILENT, &[]).await;
    at_rest(&mesh).await;
    mesh.between(2, 3, Line::Closed);
    mesh.kill(1).await;
    a_while(&QUICK).await;
    mesh.until("both are awake", || mesh.members.iter().all(|member| !member.group(GROUP).is_at_rest())).await;
    mesh.between(2, 3, Line::Open);
    let leader = mesh.leader_everywhere(GROUP, |leader| leader != 1).await;
    assert!(mesh.member(leader).propose(GROUP, "on").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_back_unseats_nobody() {
    let mesh = Mesh3::start(3, &[GROUP], QUICK, SILENT, &[]).await;
    for line in [Line::Closed, Line::Silent] {
        at_rest(&mesh).await;
        for other in [1, 2] {
            mesh.between(3, other, line);
        }
        mesh.until("it is alone", || mesh.member(3).mesh.peers().borrow().values().all(|peer| !peer.is_connected())).await;
        mesh.until("and awake", || !mesh.member(3).group(GROUP).is_at_rest()).await;
        a_while(&QUICK).await;
        for other in [1, 2] {
            mesh.between(3, other, Line::Open);
        }
        at_rest(&mesh).await;
        assert_eq!(mesh.causes(), (0, 0, 0), "the leader had its majority all the time");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_closes_the_group_is_missed_at_the_next_roll() {
    let mut mesh = Mesh3::start(3, &[GROUP], QUICK, NEVER_SILENT, &[]).await;
    at_rest(&mesh).await;
    // Its node lives on, so no peer sees anything.
    mesh.member(1).groups.abandon(GROUP).await;
    let alone = mesh.members.remove(0);
    let leader = mesh.leader_everywhere(GROUP, |leader| leader != 1).await;
    assert!(mesh.member(leader).propose(GROUP, "on").await);
    alone.mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_node_was_removed_is_missed() {
    let mut mesh = Mesh3::start(3, &[GROUP], QUICK, NEVER_SILENT, &[]).await;
    at_rest(&mesh).await;
    for id in [2, 3] {
        let other = 5 - id;
        let address = mesh.wires[&(id, other)].address.to_string();
        mesh.member(id).mesh.set_peers([(other, address)].into());
    }
    let removed = mesh.members.remove(0);
    let leader = mesh.leader_everywhere(GROUP, |leader| leader != 1).await;
    assert!(mesh.member(leader).propose(GROUP, "on").await);
    removed.mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_an_older_build_nothing_rests() {
    let mesh = Mesh3::start(3, &[GROUP], QUICK, NEVER_SILENT, &[3]).await;
    let rested = async {
        while !mesh.members.iter().any(|member| member.group(GROUP).is_at_rest()) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(Duration::from_millis(10 * REST_AFTER), rested).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_about_an_election_wakes_the_leader() {
    let mesh = Mesh3::start(3, &[GROUP], QUICK, NEVER_SILENT, &[]).await;
    at_rest(&mesh).await;
    // It has heard nothing for long, and has ticks: as if it had begun anew.
    mesh.member(3).group(GROUP).wake();
    mesh.until("it was heard", || !mesh.member(1).group(GROUP).is_at_rest()).await;
    at_rest(&mesh).await;
    assert_eq!((mesh.member(1).group(GROUP).current().term, mesh.causes()), (1, (0, 0, 0)));
}
