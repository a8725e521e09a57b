//! Whole groups over real sockets, with links that can be cut one by one. The groups' own timers are too slow to matter where a test
//! does not say otherwise, so whatever happens was done by evidence.

use super::*;
use crate::cluster::testing::{Dice, Line, Member, Mesh3, NEVER_SILENT, PATIENCE, SILENT};
use crate::cluster::{Elected, Timers};
use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;
use tokio::time::{sleep, timeout};

/// No election by itself within the test's patience.
const NEVER: Timers = Timers { heartbeat: 100, election_min: 60_000, election_max: 61_000, rest_after: None };
const QUICK: Timers = Timers { heartbeat: 50, election_min: 200, election_max: 350, rest_after: None };

#[tokio::test(flavor = "multi_thread")]
async fn the_groups_of_a_lost_node_elect_at_once() {
    let groups: Vec<u64> = (0..20).collect();
    let mut mesh = Mesh3::start(3, &groups, NEVER, NEVER_SILENT, &[]).await;
    mesh.kill(1).await;
    let mut leaders = BTreeSet::new();
    for group in groups {
        let leader = mesh.leader_everywhere(group, |leader| leader != 1).await;
        assert!(mesh.member(leader).propose(group, "on").await);
        leaders.insert(leader);
    }
    assert_eq!(leaders.len(), 2, "the groups are spread over those who are left");
    assert_eq!(mesh.causes(), (20, 0, 0));
    let took = mesh.members.iter().map(|member| member.groups.elections().last_failover_us.load(Relaxed)).max().unwrap();
    assert!(took > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_link_alone_unseats_nobody() {
    let mesh = Mesh3::start(3, &[5], NEVER, SILENT, &[]).await;
    for line in [Line::Closed, Line::Silent] {
        mesh.between(1, 2, line);
        mesh.until("the follower sees the leader down", || !mesh.member(2).mesh.peers().borrow()[&1].is_connected()).await;
        // Longer than all rounds.
        let mut leadership = mesh.member(3).group(5).leadership();
        let changed = timeout(ROUNDS.iter().sum::<Duration>() + COUNTS, leadership.wait_for(|now| now.leader != Some(1))).await;
        assert!(changed.is_err(), "a leader with a majority was unseated");
        assert!(mesh.member(1).propose(5, "on").await);
        mesh.between(1, 2, Line::Open);
        mesh.until("the follower has what it missed", || mesh.member(2).kept(5) == mesh.member(1).kept(5)).await;
        mesh.until("it sees the leader again", || mesh.member(2).mesh.peers().borrow()[&1].is_connected()).await;
    }
    assert_eq!(mesh.causes(), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_the_longest_log_takes_over() {
    let groups: Vec<u64> = (1..=6).collect();
    let mut mesh = Mesh3::start(3, &groups, NEVER, NEVER_SILENT, &[]).await;
    // Node 2 gets nothing any more, but sees that node 1 lives.
    mesh.line(1, 2, Line::Closed);
    mesh.until("the leader cannot reach it", || !mesh.member(1).mesh.peers().borrow()[&2].is_connected()).await;
    for group in &groups {
        assert!(mesh.member(1).propose(*group, "only at two").await);
    }
    mesh.kill(1).await;
    for group in groups {
        mesh.leader_everywhere(group, |leader| leader == 3).await;
        mesh.until("nothing is lost", || mesh.members.iter().all(|member| member.kept(group) == ["only at two"])).await;
    }
    assert_eq!(mesh.causes(), (6, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_leader_is_replaced_and_does_not_disturb_when_it_is_back() {
    let mesh = Mesh3::start(3, &[5], NEVER, SILENT, &[]).await;
    assert!(mesh.member(1).propose(5, "a").await);
    for other in [2, 3] {
        mesh.between(1, other, Line::Silent);
    }
    let other = |member: &Member| member.id != 1 && member.leads(5);
    mesh.until("another leads", || mesh.members.iter().any(other)).await;
    let leader = mesh.members.iter().find(|member| other(member)).unwrap();
    assert!(leader.propose(5, "b").await);
    let term = leader.group(5).current().term;
    for other in [2, 3] {
        mesh.between(1, other, Line::Open);
    }
    mesh.leader_everywhere(5, |id| id == leader.id).await;
    mesh.until("the old leader has everything", || mesh.member(1).kept(5) == ["a", "b"]).await;
    assert!(leader.propose(5, "c").await);
    assert_eq!((leader.group(5).current().term, mesh.causes()), (term, (1, 0, 0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_an_older_build_the_timers_decide() {
    let mut mesh = Mesh3::start(3, &[5], QUICK, NEVER_SILENT, &[3]).await;
    let protocol = |from: u64, to: u64| match mesh.member(from).mesh.peers().borrow()[&to] {
        PeerState::Connected { protocol, .. } => protocol,
        _ => 0,
    };
    assert_eq!((protocol(1, 2), protocol(1, 3), protocol(3, 1)), (3, 1, 1));
    mesh.kill(1).await;
    let leader = mesh.leader_everywhere(5, |leader| leader != 1).await;
    assert!(mesh.member(leader).propose(5, "on").await);
    assert_eq!((mesh.causes().0, mesh.causes().2 > 0), (0, true));
}

/// Links break, fall silent and heal at random while commands are proposed wherever somebody leads. Repeat a run with
/// `EVERMESH_SEED=… cargo test --lib evidence::tests::links_at_random`.
#[tokio::test(flavor = "multi_thread")]
async fn links_at_random_lose_nothing() {
    let seed = std::env::var("EVERMESH_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| getrandom::u64().unwrap());
    eprintln!("EVERMESH_SEED={seed}");
    let mut dice = Dice(seed);
    const GROUP: u64 = 5;
    let mesh = Mesh3::start(5, &[GROUP], QUICK, SILENT, &[]).await;
    let mut leaders = BTreeSet::new();
    let (mut proposed, mut acknowledged) = (0, Vec::new());
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end {
        let (one, two) = (1 + dice.below(5), 1 + dice.below(5));
        match dice.below(6) {
            0 | 1 if one != two => mesh.between(one, two, [Line::Closed, Line::Silent][dice.below(2) as usize]),
            2 => (1..=5).filter(|other| *other != one).for_each(|other| mesh.between(one, other, Line::Closed)),
            3 => (1..=5).filter(|other| *other != one).for_each(|other| mesh.between(one, other, Line::Silent)),
            _ => mesh.wires.values().for_each(|wire| wire.heal()),
        }
        let pause = Instant::now() + Duration::from_millis(50 + dice.below(400));
        if dice.below(3) == 0 {
            sleep_until(pause).await;
        }
        while Instant::now() < pause {
            for member in mesh.members.iter().filter(|member| member.leads(GROUP)) {
                proposed += 1;
                let command = proposed.to_string();
                if let Ok(true) = timeout(Duration::from_millis(100), member.propose(GROUP, &command)).await {
                    acknowledged.push(command);
                }
            }
            sleep(Duration::from_millis(2)).await;
        }
    }
    mesh.wires.values().for_each(|wire| wire.heal());
    let leader = mesh.leader_everywhere(GROUP, |_| true).await;
    for member in &mesh.members {
        let mut elected = member.elected.lock().unwrap();
        while let Ok(Elected { term, .. }) = elected.try_recv() {
            assert!(leaders.insert((term, member.id)), "{} was elected twice in term {term}", member.id);
        }
    }
    mesh.until("the end is taken", || mesh.members.iter().any(|member| member.leads(GROUP))).await;
    let last = async {
        while !mesh.member(leader).propose(GROUP, "last").await && mesh.member(leader).leads(GROUP) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, last).await.expect("a healed group takes commands");
    mesh.until("everybody has the same log", || {
        let logs: BTreeSet<Vec<String>> = mesh.members.iter().map(|member| member.kept(GROUP)).collect();
        logs.len() == 1
    })
    .await;
    let kept = mesh.member(leader).kept(GROUP);
    for command in &acknowledged {
        assert_eq!(kept.iter().filter(|one| *one == command).count(), 1, "{command} was acknowledged");
    }
    eprintln!("{} of {proposed} acknowledged, {} elections, by cause {:?}", acknowledged.len(), leaders.len(), mesh.causes());
    assert!(!acknowledged.is_empty());
}
