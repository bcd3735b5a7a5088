//! The time limit of a client service's stop, on virtual time.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use ropewalk::application::{ClientService, ClientServiceBuilder, ClientState, Service};
use ropewalk::deferred::Promise;
use ropewalk::endpoints::TcpClientEndpoint;
use ropewalk::testing::{MemoryReactor, Peer, assert_no_result, success_result_of};
use ropewalk::{Clock, ConnectOptions, Deferred, for_protocol};

use super::client_states::{Echo, From};

/// The default limit.
const LIMIT: Duration = Duration::from_secs(30);

/// More than a peer takes that reads once in ten seconds.
const MUCH: usize = 16 << 20;

/// A service with a connection, and its peer.
struct Scene {
    memory: MemoryReactor,
    service: ClientService<Echo>,
    peer: Peer,
}

impl Scene {
    /// Starts a service with these settings, and accepts its connection.
    fn new(settings: impl FnOnce(ClientServiceBuilder<Echo>) -> ClientServiceBuilder<Echo>) -> Self {
        let memory = MemoryReactor::new();
        let server: SocketAddr = ([198, 51, 100, 7], 80).into();
        let endpoint = TcpClientEndpoint::new(memory.reactor(), server).options(ConnectOptions::new().timeout(None));
        let service = settings(ClientService::builder(memory.reactor(), endpoint, for_protocol(|_| Echo))).build();
        success_result_of(&mut service.start_service());
        let peer = memory.attempts().remove(0).accept().expect("the attempt was not given up");
        memory.settle().unwrap();
        Self { memory, service, peer }
    }

    /// Stops the service while its peer reads slowly.
    fn stop_slowly(&self) -> Deferred<()> {
        self.service.connection().expect("it is ready").transport().write(&vec![b'x'; MUCH]);
        let stopped = self.service.stop_service();
        self.memory.settle().unwrap();
        stopped
    }

    /// Lets ten seconds pass. The peer reads a little, so that no close timeout passes.
    fn ten_seconds(&self) {
        assert!(!self.peer.read().is_empty(), "the peer has bytes to read");
        self.memory.advance(Duration::from_secs(10)).unwrap();
    }
}

/// A peer that takes its bytes slowly holds a stop up for the limit, and no longer: the connection
/// is aborted.
#[test]
fn a_slow_peer_is_cut_off_at_the_limit() {
    let scene = Scene::new(|builder| builder);
    let mut stopped = scene.stop_slowly();
    for _ in 0..2 {
        scene.ten_seconds();
        assert_eq!(scene.service.state(), ClientState::Disconnecting);
    }
    scene.memory.advance(Duration::from_millis(9_999)).unwrap();
    let mut again = scene.service.stop_service();
    assert_no_result(&mut stopped);
    scene.memory.advance(Duration::from_millis(1)).unwrap();
    success_result_of(&mut stopped);
    success_result_of(&mut again);
    assert!(scene.service.state() == ClientState::Stopped && scene.peer.is_reset());
    assert_eq!(scene.memory.reactor().timers().len(), 0);
}

/// A start during such a stop connects at the limit, and no earlier: there are never two
/// connections.
#[test]
fn a_restart_waits_for_the_limit() {
    let scene = Scene::new(|builder| builder.stop_timeout(Some(Duration::from_secs(20))));
    let mut stopped = scene.stop_slowly();
    success_result_of(&mut scene.service.start_service());
    scene.ten_seconds();
    assert_eq!((scene.service.state(), scene.memory.attempts().len()), (ClientState::Restarting, 0));
    scene.ten_seconds();
    success_result_of(&mut stopped);
    assert_eq!((scene.service.state(), scene.memory.attempts().len()), (ClientState::Connecting, 1));
    assert!(scene.peer.is_reset());
}

/// Without a limit a stop waits as long as the peer goes on reading.
#[test]
fn a_stop_without_a_limit_waits() {
    let scene = Scene::new(|builder| builder.stop_timeout(None));
    let mut stopped = scene.stop_slowly();
    for _ in 0..6 {
        scene.ten_seconds();
    }
    assert_no_result(&mut stopped);
    scene.peer.abort();
    scene.memory.settle().unwrap();
    success_result_of(&mut stopped);
}

/// A preparation that goes on after its cancellation is not waited for at the limit. Its late
/// result changes nothing.
#[test]
fn a_preparation_that_does_not_end_is_left_behind() {
    let farewell: Rc<RefCell<Option<Promise<()>>>> = Rc::default();
    let place = Rc::clone(&farewell);
    let scene = Scene::new(move |builder| {
        builder.prepare_connection(move |_| {
            let place = Rc::clone(&place);
            let (promise, prepared) = Promise::<()>::new();
            place.replace(Some(promise));
            prepared.add_errback(move |_cancelled| {
                let (promise, farewell) = Promise::new();
                place.replace(Some(promise));
                farewell
            })
        })
    });
    assert_eq!(scene.service.state(), ClientState::Connecting);
    let mut stopped = scene.service.stop_service();
    scene.memory.settle().unwrap();
    assert!(scene.peer.is_reset(), "the connection is aborted at once");
    scene.memory.advance(LIMIT - Duration::from_millis(1)).unwrap();
    assert_no_result(&mut stopped);
    scene.memory.advance(Duration::from_millis(1)).unwrap();
    success_result_of(&mut stopped);
    assert_eq!(scene.service.state(), ClientState::Stopped);
    success_result_of(&mut scene.service.start_service());
    farewell.take().expect("it was kept").callback(()).unwrap();
    scene.memory.settle().unwrap();
    assert_eq!((scene.service.state(), scene.memory.attempts().len()), (ClientState::Connecting, 1));
}

/// A stop from any state that ends in time leaves no timer, and a later connection is not cut off
/// by its limit.
#[test]
fn a_stop_in_time_leaves_no_timer() {
    for from in From::ALL {
        let stage = from.reach();
        let mut stopped = stage.service.stop_service();
        stage.settle();
        success_result_of(&mut stopped);
        assert_eq!(stage.open_sockets(), 0, "{from:?}");
        assert_eq!(stage.memory.reactor().timers().len(), 0, "{from:?}");
        stage.start();
        stage.accept();
        stage.prepared(Ok(()));
        stage.memory.advance(LIMIT * 2).unwrap();
        assert_eq!(stage.service.state(), ClientState::Connected, "{from:?}");
    }
}
