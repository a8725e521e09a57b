//! The mesh over real sockets on loopback. Every wait is for a condition, bounded by `PATIENCE`.

use super::frame::{Frame, Inbox};
use super::handshake::{self, Local};
use super::*;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

/// Methods of the test's handler.
const ECHO: u16 = 1;
const REFUSE: u16 = 2;
const DROP: u16 = 3;
const HOLD: u16 = 4;
const NOTE: u16 = 5;
const WHO: u16 = 6;
const TOO_LARGE: u16 = 7;
const PANIC: u16 = 8;

struct Tester {
    held: Mutex<Vec<(Bytes, Reply)>>,
    noted: Mutex<Vec<Bytes>>,
    holds: watch::Sender<usize>,
}

impl Tester {
    fn new() -> Arc<Tester> {
        Arc::new(Tester { held: Mutex::default(), noted: Mutex::default(), holds: watch::Sender::new(0) })
    }

    fn release(&self) -> usize {
        let held = std::mem::take(&mut *self.held.lock().unwrap());
        held.into_iter().map(|(body, reply)| reply.ok(body)).count()
    }
}

impl Handler for Tester {
    fn handle(&self, from: Peer, method: u16, body: Bytes, reply: Reply) {
        match method {
            ECHO => reply.ok(body),
            REFUSE => reply.refuse(42, "not today"),
            HOLD => {
                self.held.lock().unwrap().push((body, reply));
                self.holds.send_modify(|holds| *holds += 1);
            }
            NOTE => {
                self.noted.lock().unwrap().push(body.clone());
                reply.ok(body);
            }
            WHO => reply.ok(format!("{} {} {:?}", from.node, from.boot, from.lane).into()),
            TOO_LARGE => reply.ok(vec![0; BODY_BYTES_MAX + 1].into()),
            PANIC => panic!("as asked"),
            _ => drop(reply),
        }
    }
}

struct Node {
    mesh: Mesh,
    address: SocketAddr,
    tester: Arc<Tester>,
}

fn member(node: NodeId) -> Identity {
    Identity { cluster: 77, node, boot: 1, version: "test".into() }
}

fn options() -> Options {
    Options { redial_max: Duration::from_millis(200), ..Options::new(Secret::new("secret")) }
}

async fn start_at(address: &str, identity: Identity, options: Options) -> Node {
    let listener = TcpListener::bind(address).await.unwrap();
    let (address, tester) = (listener.local_addr().unwrap(), Tester::new());
    Node { mesh: Mesh::start(listener, identity, options, tester.clone()), address, tester }
}

async fn start(identity: Identity, options: Options) -> Node {
    start_at("127.0.0.1:0", identity, options).await
}

fn peers(of: &[(NodeId, SocketAddr)]) -> BTreeMap<NodeId, String> {
    of.iter().map(|(node, address)| (*node, address.to_string())).collect()
}

async fn wait_for(mesh: &Mesh, node: NodeId, wanted: impl Fn(&PeerState) -> bool) -> PeerState {
    let mut states = mesh.peers();
    let found = timeout(PATIENCE, states.wait_for(|states| states.get(&node).is_some_and(&wanted))).await;
    let last = mesh.peers().borrow().clone();
    found.unwrap_or_else(|_| panic!("node {node} stayed {last:?}")).unwrap()[&node].clone()
}

async fn connected(mesh: &Mesh, node: NodeId) -> PeerState {
    wait_for(mesh, node, PeerState::is_connected).await
}

async fn down(mesh: &Mesh, node: NodeId, wanted: impl Fn(&DownReason) -> bool) -> PeerState {
    wait_for(mesh, node, |state| matches!(state, PeerState::Down { reason, .. } if wanted(reason))).await
}

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

/// Node 1 connected to node 2.
async fn pair_with(options: Options) -> (Node, Node) {
    let (one, two) = (start(member(1), options.clone()).await, start(member(2), options).await);
    one.mesh.set_peers(peers(&[(1, one.address), (2, two.address)]));
    two.mesh.set_peers(peers(&[(1, one.address), (2, two.address)]));
    connected(&one.mesh, 2).await;
    connected(&two.mesh, 1).await;
    (one, two)
}

async fn pair() -> (Node, Node) {
    pair_with(options()).await
}

/// A dialler without a mesh, after its handshake.
async fn raw_dial(address: SocketAddr, node: NodeId) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let (options, identity) = (options(), member(node));
    let local = Local { secret: &options.secret, identity: &identity, versions: handshake::VERSIONS };
    handshake::dial(&mut stream, &mut Inbox::new(), &local, 0, Lane::Consensus).await.unwrap();
    stream
}

/// An acceptor without a mesh: takes both lanes of a dialler and does nothing more with them.
async fn raw_accept(listener: &TcpListener, node: NodeId) -> Vec<TcpStream> {
    let (options, identity) = (options(), member(node));
    let local = Local { secret: &options.secret, identity: &identity, versions: handshake::VERSIONS };
    let mut streams = Vec::new();
    while streams.len() < 2 {
        let (mut stream, _) = listener.accept().await.unwrap();
        handshake::accept(&mut stream, &mut Inbox::new(), &local).await.unwrap();
        streams.push(stream);
    }
    streams
}

async fn closed_by_peer(mut stream: TcpStream) {
    let mut rest = Vec::new();
    // A reset is a close as well.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("the peer closes it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_answered_on_either_lane_and_way() {
    let (one, two) = pair().await;
    for lane in Lane::ALL {
        let reply = one.mesh.call(2, lane, ECHO, "hello".into(), soon()).await;
        assert_eq!(reply, Ok("hello".into()));
        assert_eq!(two.mesh.call(1, lane, WHO, Bytes::new(), soon()).await, Ok(format!("2 1 {lane:?}").into()));
    }
    let refused = one.mesh.call(2, Lane::Bulk, REFUSE, Bytes::new(), soon()).await;
    assert_eq!(refused, Err(CallError::Refused { code: 42, message: "not today".into() }));
    let dropped = one.mesh.call(2, Lane::Bulk, DROP, Bytes::new(), soon()).await;
    assert!(matches!(dropped, Err(CallError::Refused { code: code::DROPPED, .. })), "{dropped:?}");
    assert_eq!(one.mesh.call(3, Lane::Bulk, ECHO, Bytes::new(), soon()).await, Err(NotSent::UnknownPeer(3).into()));
    let expired = one.mesh.call(2, Lane::Bulk, ECHO, Bytes::new(), Instant::now()).await;
    assert_eq!(expired, Err(NotSent::Expired.into()));
    assert_eq!(one.mesh.counters().calls_sent.load(Relaxed), 4);
    one.mesh.stop().await;
    assert_eq!(one.mesh.call(2, Lane::Bulk, ECHO, Bytes::new(), soon()).await, Err(NotSent::Stopping.into()));
    two.mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_pipelined_calls_arrive_in_order() {
    let (one, two) = pair().await;
    let body = |n: u64| Bytes::copy_from_slice(&n.to_le_bytes());
    let replies: Vec<PendingReply> = (0..10_000).map(|n| one.mesh.send_call(2, Lane::Consensus, NOTE, body(n), soon()).unwrap()).collect();
    for (n, reply) in replies.into_iter().enumerate() {
        assert_eq!(reply.await.unwrap(), body(n as u64));
    }
    assert_eq!(*two.tester.noted.lock().unwrap(), (0..10_000).map(body).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_may_fill_a_frame_and_no_more() {
    let (one, _two) = pair().await;
    let body = Bytes::from(vec![7; BODY_BYTES_MAX]);
    assert_eq!(one.mesh.call(2, Lane::Bulk, ECHO, body.clone(), soon()).await, Ok(body));
    let larger = Bytes::from(vec![7; BODY_BYTES_MAX + 1]);
    let refused = one.mesh.call(2, Lane::Bulk, ECHO, larger, soon()).await;
    assert_eq!(refused, Err(NotSent::TooLarge(BODY_BYTES_MAX + 1).into()));
    let reply = one.mesh.call(2, Lane::Bulk, TOO_LARGE, Bytes::new(), soon()).await;
    assert!(matches!(reply, Err(CallError::Refused { code: code::REPLY_TOO_LARGE, .. })), "{reply:?}");
}

#[tokio::test]
async fn a_late_reply_is_dropped_and_hurts_nothing() {
    let (one, two) = pair().await;
    let late = one.mesh.call(2, Lane::Bulk, HOLD, "late".into(), Instant::now() + Duration::from_millis(30)).await;
    assert_eq!(late, Err(CallError::Timeout));
    two.tester.holds.subscribe().wait_for(|holds| *holds == 1).await.unwrap();
    assert_eq!(two.tester.release(), 1);
    assert_eq!(one.mesh.call(2, Lane::Bulk, ECHO, "next".into(), soon()).await, Ok("next".into()));
    assert_eq!(one.mesh.counters().calls_timed_out.load(Relaxed), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consensus_is_answered_while_bulk_is_saturated() {
    let (one, two) = pair_with(Options { queue_bytes_max: 4 << 20, ..options() }).await;
    let body = Bytes::from(vec![1; 1 << 20]);
    let mut replies = Vec::new();
    // The callee holds its 64 MiB and reads no further; then the sockets fill, then the queue.
    let full = loop {
        let patient = Instant::now() + Duration::from_millis(500);
        match one.mesh.send_call_with_room(2, Lane::Bulk, HOLD, body.clone(), patient).await {
            Ok(reply) => replies.push(reply),
            Err(error) => break error,
        }
    };
    assert_eq!(full, NotSent::Expired.into());
    let now = one.mesh.send_call(2, Lane::Bulk, HOLD, body.clone(), soon()).err();
    assert_eq!(now, Some(NotSent::Overloaded.into()));
    assert!(one.mesh.counters().calls_overloaded.load(Relaxed) >= 1);
    assert_eq!(one.mesh.call(2, Lane::Consensus, ECHO, "vote".into(), soon()).await, Ok("vote".into()));
    assert!(connected(&one.mesh, 2).await.is_connected());
    let all = replies.len();
    let releasing = async {
        let mut holds = two.tester.holds.subscribe();
        let mut released = 0;
        while released < all {
            released += two.tester.release();
            let seen = *holds.borrow_and_update();
            if released == seen && released < all {
                holds.changed().await.unwrap();
            }
        }
    };
    timeout(PATIENCE, releasing).await.unwrap();
    for reply in replies {
        // Those at the front have waited for the whole of it.
        assert!(matches!(reply.await, Ok(_) | Err(CallError::Timeout)));
    }
}

#[tokio::test]
async fn a_forgotten_call_frees_its_place() {
    let (one, two) = pair_with(Options { calls_max: 2, ..options() }).await;
    let hold = || one.mesh.send_call(2, Lane::Bulk, HOLD, Bytes::new(), soon());
    let (first, _second) = (hold().unwrap(), hold().unwrap());
    assert_eq!(hold().err(), Some(NotSent::Overloaded.into()));
    let waiting = one.mesh.send_call_with_room(2, Lane::Bulk, ECHO, "in turn".into(), soon());
    let (reply, ()) = tokio::join!(waiting, async { drop(first) });
    assert_eq!(reply.unwrap().await, Ok("in turn".into()));
    assert_eq!(one.mesh.counters().calls_overloaded.load(Relaxed), 1);
    two.mesh.stop().await;
}

#[test]
fn a_mesh_is_called_from_another_runtime_than_its_own() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (consensus, web) = (runtime(), runtime());
    let (one, two) = consensus.block_on(async { (start(member(1), options()).await, start(member(2), options()).await) });
    one.mesh.set_peers(peers(&[(2, two.address)]));
    let reply = web.block_on(async {
        connected(&one.mesh, 2).await;
        one.mesh.call(2, Lane::Bulk, ECHO, "across".into(), soon()).await
    });
    assert_eq!(reply, Ok("across".into()));
    web.block_on(one.mesh.stop());
}

/// A handler that panics ends that connection, not the mesh.
#[tokio::test]
async fn a_panic_in_a_handler_costs_its_connection_only() {
    let (one, _two) = pair().await;
    let begin = Instant::now();
    assert_eq!(one.mesh.call(2, Lane::Bulk, PANIC, Bytes::new(), soon()).await, Err(CallError::Lost));
    // Down may be over before anybody looked, so it is the beginning of the new connection that counts.
    wait_for(&one.mesh, 2, |state| matches!(state, PeerState::Connected { since, .. } if *since > begin)).await;
    assert_eq!(one.mesh.call(2, Lane::Bulk, ECHO, "well".into(), soon()).await, Ok("well".into()));
}

#[tokio::test]
async fn whoever_does_not_belong_stays_down_and_is_told_why() {
    let two = start(member(2), options()).await;
    let stranger = Options { secret: Secret::new("guess"), ..options() };
    let cases = [
        (member(1), stranger, 2, "secret differs"),
        (Identity { cluster: 78, ..member(1) }, options(), 2, "another cluster"),
        (member(1), options(), 3, "this is node 2, not node 3"),
    ];
    for (identity, options, wanted, why) in cases {
        let one = start(identity, options).await;
        one.mesh.set_peers(peers(&[(wanted, two.address)]));
        down(&one.mesh, wanted, |reason| matches!(reason, DownReason::Rejected(said) if said.contains(why))).await;
        assert_eq!(one.mesh.call(wanted, Lane::Bulk, ECHO, Bytes::new(), soon()).await, Err(NotSent::Down.into()));
        one.mesh.stop().await;
    }
    assert!(two.mesh.counters().rejects.load(Relaxed) >= 3);
    assert_eq!(two.mesh.counters().calls_received.load(Relaxed), 0);
}

#[tokio::test]
async fn a_peer_of_another_protocol_version_is_rejected() {
    let one = start(member(1), options()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    one.mesh.set_peers(peers(&[(2, listener.local_addr().unwrap())]));
    let (options, identity) = (options(), member(2));
    let newer = async {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let local = Local { secret: &options.secret, identity: &identity, versions: 2..=3 };
            handshake::accept(&mut stream, &mut Inbox::new(), &local).await.err().expect("it is refused");
        }
    };
    tokio::select! {
        _ = down(&one.mesh, 2, |reason| matches!(reason, DownReason::Rejected(said) if said.contains("protocol version"))) => (),
        () = newer => unreachable!(),
    }
}

#[tokio::test]
async fn garbage_costs_its_own_connection_only() {
    let (one, two) = pair().await;
    let mut unknown = TcpStream::connect(two.address).await.unwrap();
    unknown.write_all(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n").await.unwrap();
    closed_by_peer(unknown).await;
    let mut type_99 = raw_dial(two.address, 3).await;
    type_99.write_all(&[1, 0, 0, 0, 99]).await.unwrap();
    closed_by_peer(type_99).await;
    let mut oversized = raw_dial(two.address, 3).await;
    oversized.write_all(&[0xff, 0xff, 0xff, 0xff, 1]).await.unwrap();
    closed_by_peer(oversized).await;
    let mut wrong_side = raw_dial(two.address, 3).await;
    wrong_side.write_all(&Frame::Ok { id: 1, body: Bytes::new() }.head()).await.unwrap();
    closed_by_peer(wrong_side).await;
    // The count follows the close by a moment; a call behind it sees it.
    assert_eq!(one.mesh.call(2, Lane::Bulk, ECHO, "well".into(), soon()).await, Ok("well".into()));
    assert_eq!(one.mesh.counters().disconnects.load(Relaxed), 0);
    two.mesh.stop().await;
    assert_eq!(two.mesh.counters().garbage.load(Relaxed), 4);
}

#[tokio::test]
async fn a_stranger_that_says_nothing_is_closed_in_time() {
    let two = start(member(2), Options { handshake_timeout: Duration::from_millis(100), ..options() }).await;
    closed_by_peer(TcpStream::connect(two.address).await.unwrap()).await;
}

#[tokio::test]
async fn a_half_open_peer_is_silent_and_its_calls_are_lost() {
    let one = start(member(1), Options { silent_after: Duration::from_millis(200), ..options() }).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    one.mesh.set_peers(peers(&[(2, listener.local_addr().unwrap())]));
    let streams = raw_accept(&listener, 2).await;
    connected(&one.mesh, 2).await;
    let call = one.mesh.send_call(2, Lane::Consensus, ECHO, "anybody?".into(), soon()).unwrap();
    down(&one.mesh, 2, |reason| *reason == DownReason::Silent).await;
    assert_eq!(call.await, Err(CallError::Lost));
    drop(streams);
}

#[tokio::test]
async fn a_broken_connection_keeps_what_left_and_what_did_not_apart() {
    let one = start(member(1), options()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    one.mesh.set_peers(peers(&[(2, listener.local_addr().unwrap())]));
    let streams = raw_accept(&listener, 2).await;
    connected(&one.mesh, 2).await;
    // More than the sockets take, so the last ones stay in the queue.
    let body = Bytes::from(vec![1; 1 << 20]);
    let calls: Vec<PendingReply> = (0..40).map(|_| one.mesh.send_call(2, Lane::Bulk, ECHO, body.clone(), soon()).unwrap()).collect();
    // Let the writer begin: the first call is on its way when the acceptor sees its first bytes.
    for stream in &streams {
        stream.readable().await.unwrap();
    }
    let mut head = [0; 4096];
    while streams.iter().all(|stream| !matches!(stream.try_read(&mut head), Ok(read) if read > 1000)) {
        tokio::task::yield_now().await;
    }
    drop(streams);
    let mut errors = Vec::new();
    for call in calls {
        errors.push(call.await.unwrap_err());
    }
    let lost = errors.iter().take_while(|error| **error == CallError::Lost).count();
    assert!(lost > 0 && lost < errors.len(), "{lost}");
    assert!(errors[lost..].iter().all(|error| *error == NotSent::Down.into()));
    assert_eq!(one.mesh.counters().calls_lost.load(Relaxed), lost as u64);
}

#[tokio::test]
async fn a_restarted_peer_is_connected_again() {
    let (one, two) = pair().await;
    let held = one.mesh.send_call(2, Lane::Bulk, HOLD, Bytes::new(), soon()).unwrap();
    two.tester.holds.subscribe().wait_for(|holds| *holds == 1).await.unwrap();
    two.mesh.stop().await;
    assert_eq!(held.await, Err(CallError::Lost));
    down(&one.mesh, 2, |reason| *reason == DownReason::Refused).await;
    let again = start_at(&two.address.to_string(), Identity { boot: 2, ..member(2) }, options()).await;
    let state = wait_for(&one.mesh, 2, PeerState::is_connected).await;
    assert!(matches!(state, PeerState::Connected { boot: 2, .. }), "{state:?}");
    assert_eq!(one.mesh.call(2, Lane::Consensus, ECHO, "back".into(), soon()).await, Ok("back".into()));
    again.mesh.stop().await;
    assert_eq!(one.mesh.counters().connects.load(Relaxed), 2);
}

#[tokio::test]
async fn a_refused_dial_is_down_at_once_and_keeps_its_beginning() {
    let one = start(member(1), options()).await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let begin = Instant::now();
    one.mesh.set_peers(peers(&[(2, nobody)]));
    let PeerState::Down { since: first, .. } = one.mesh.peers().borrow()[&2].clone() else { panic!("it is up") };
    let state = down(&one.mesh, 2, |reason| *reason == DownReason::Refused).await;
    assert_eq!(state, PeerState::Down { since: first, reason: DownReason::Refused });
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn peers_come_and_go_as_they_are_named() {
    let (one, two) = pair().await;
    let three = start(member(3), options()).await;
    let held = one.mesh.send_call(2, Lane::Bulk, HOLD, Bytes::new(), soon()).unwrap();
    one.mesh.set_peers(peers(&[(3, three.address)]));
    assert_eq!(held.await, Err(CallError::Lost));
    assert!(!one.mesh.peers().borrow().contains_key(&2));
    connected(&one.mesh, 3).await;
    // Another address is another link, even for a node that was known.
    one.mesh.set_peers(peers(&[(3, two.address)]));
    down(&one.mesh, 3, |reason| matches!(reason, DownReason::Rejected(_))).await;
    one.mesh.set_peers(peers(&[(2, two.address), (3, three.address)]));
    connected(&one.mesh, 2).await;
    connected(&one.mesh, 3).await;
}

#[tokio::test]
async fn a_node_joins_by_address_and_becomes_a_member() {
    let one = start(member(1), options()).await;
    let two = start(Identity::joining("new"), options()).await;
    one.mesh.set_peers(peers(&[(2, two.address)]));
    down(&one.mesh, 2, |reason| matches!(reason, DownReason::Rejected(said) if said.contains("not joined"))).await;
    two.mesh.set_peers(peers(&[(1, one.address), (2, two.address)]));
    let who = two.mesh.call_address(&one.address.to_string(), WHO, Bytes::new(), soon()).await;
    assert_eq!(who, Ok("0 0 Bulk".into()));
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let refused = two.mesh.call_address(&nobody.to_string(), WHO, Bytes::new(), soon()).await;
    assert_eq!(refused, Err(NotSent::Unreachable(DownReason::Refused).into()));
    two.mesh.set_identity(member(2));
    connected(&two.mesh, 1).await;
    connected(&one.mesh, 2).await;
    assert!(!two.mesh.peers().borrow().contains_key(&2));
    two.mesh.stop().await;
    one.mesh.stop().await;
}

#[tokio::test]
async fn the_round_trip_is_measured_and_an_idle_pair_stays_connected() {
    let (one, _two) =
        pair_with(Options { silent_after: Duration::from_millis(150), ping_every: Duration::from_millis(20), ..options() }).await;
    let measured = async {
        let mut received = one.mesh.counters().frames_received.load(Relaxed);
        // Several times `silent_after` of nothing but signs of life, then a round trip must be known.
        let enough = received + 60;
        while received < enough {
            tokio::task::yield_now().await;
            received = one.mesh.counters().frames_received.load(Relaxed);
        }
    };
    timeout(PATIENCE, measured).await.unwrap();
    let state = one.mesh.peers().borrow()[&2].clone();
    assert!(matches!(state, PeerState::Connected { rtt_us: 1.., .. }), "{state:?}");
    assert_eq!(one.mesh.counters().disconnects.load(Relaxed), 0);
}
