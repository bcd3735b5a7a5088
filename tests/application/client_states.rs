//! Each state of a client service, and each event in it: the next state, the attempts, the sockets.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use crate::common::logs::logged;
use ropewalk::application::{Backoff, ClientService, ClientState, Service};
use ropewalk::deferred::{Cancelled, Promise, unhandled};
use ropewalk::endpoints::TcpClientEndpoint;
use ropewalk::error::ConnectError;
use ropewalk::interfaces::*;
use ropewalk::testing::{MemoryReactor, Peer, assert_no_result, failure_result_of, success_result_of};
use ropewalk::{ConnectOptions, Deferred, Result, Transport, for_protocol};

/// The delay after the first failure.
const DELAY: Duration = Duration::from_secs(10);

/// Answers each message with itself.
pub(crate) struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        transport.write(data);
        Ok(())
    }
}

/// A client service alone with its peer, which the test plays.
pub(crate) struct Stage {
    pub(crate) memory: MemoryReactor,
    pub(crate) service: ClientService<Echo>,
    /// The preparation that is under way.
    preparation: Rc<RefCell<Option<Promise<()>>>>,
    pub(crate) peer: RefCell<Option<Peer>>,
}

impl Stage {
    /// A service whose preparation ends when the test says so, with a delay of `delay` for each
    /// failure in a row.
    pub(crate) fn new(delay: Duration) -> Self {
        let memory = MemoryReactor::new();
        let server: SocketAddr = ([198, 51, 100, 7], 80).into();
        let endpoint = TcpClientEndpoint::new(memory.reactor(), server).options(ConnectOptions::new().timeout(None));
        let preparation = Rc::new(RefCell::new(None));
        let place = Rc::clone(&preparation);
        let service = ClientService::builder(memory.reactor(), endpoint, for_protocol(|_| Echo))
            .retry_policy(move |failures| delay * failures)
            .prepare_connection(move |_| {
                let (promise, prepared) = Promise::new();
                place.replace(Some(promise));
                prepared
            })
            .build();
        Self { memory, service, preparation, peer: RefCell::default() }
    }

    pub(crate) fn settle(&self) {
        self.memory.settle().unwrap();
    }

    pub(crate) fn start(&self) {
        success_result_of(&mut self.service.start_service());
    }

    pub(crate) fn accept(&self) {
        let peer = self.memory.attempts().remove(0).accept().expect("the attempt was not given up");
        self.peer.replace(Some(peer));
        self.settle();
    }

    pub(crate) fn refuse(&self) {
        self.memory.attempts().remove(0).refuse();
        self.settle();
    }

    /// Ends the preparation, without a turn of the loop after it.
    pub(crate) fn prepared(&self, result: Result<()>) {
        let promise = self.preparation.take().expect("a preparation is under way");
        promise.complete(result).unwrap();
    }

    /// Returns the number of open sockets, without those that are only read after their end.
    pub(crate) fn open_sockets(&self) -> usize {
        self.memory.reactor().end_lingering();
        self.settle();
        self.memory.network().open_sockets(self.memory.reactor())
    }
}

/// A state, and the way to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    Initial,
    Connecting,
    Preparing,
    Rejected,
    Connected,
    Waiting,
    Disconnecting,
    Restarting,
    Stopped,
}

impl From {
    pub(crate) const ALL: [Self; 9] = [
        Self::Initial,
        Self::Connecting,
        Self::Preparing,
        Self::Rejected,
        Self::Connected,
        Self::Waiting,
        Self::Disconnecting,
        Self::Restarting,
        Self::Stopped,
    ];

    pub(crate) fn reach(self) -> Stage {
        let stage = Stage::new(DELAY);
        let before = match self {
            Self::Initial => return stage,
            Self::Preparing | Self::Waiting => Self::Connecting,
            Self::Rejected | Self::Connected => Self::Preparing,
            Self::Disconnecting => Self::Connected,
            Self::Restarting => Self::Disconnecting,
            Self::Connecting | Self::Stopped => Self::Initial,
        };
        let stage = before.reach();
        match self {
            Self::Initial => {}
            Self::Connecting | Self::Restarting => stage.start(),
            Self::Preparing => stage.accept(),
            Self::Rejected => stage.prepared(Err("not you".into())),
            Self::Connected => stage.prepared(Ok(())),
            Self::Waiting => stage.refuse(),
            Self::Disconnecting | Self::Stopped => drop(stage.service.stop_service()),
        }
        stage
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Nothing,
    Start,
    Stop,
    StopThenStart,
    Refused,
    PeerCloses,
    PeerAborts,
    Prepared,
    NotPrepared,
    DelayPasses,
}

/// Plays an event. Returns the Deferred of a stop.
fn play(stage: &Stage, event: Event) -> Option<Deferred<()>> {
    match event {
        Event::Nothing => {}
        Event::Start => stage.start(),
        Event::Stop => return Some(stage.service.stop_service()),
        Event::StopThenStart => {
            let stopped = stage.service.stop_service();
            stage.start();
            return Some(stopped);
        }
        Event::Refused => stage.refuse(),
        Event::PeerCloses => stage.peer.take().expect("there is a peer").close(),
        Event::PeerAborts => stage.peer.take().expect("there is a peer").abort(),
        Event::Prepared => stage.prepared(Ok(())),
        Event::NotPrepared => stage.prepared(Err("not you".into())),
        Event::DelayPasses => stage.memory.advance(DELAY).unwrap(),
    }
    None
}

/// The table: a state, an event, the state at once and when the network is quiet again, the number
/// of attempts that then wait for an answer, and of failures.
#[test]
fn every_event_in_every_state() {
    use ClientState as To;
    use Event::*;
    let table = [
        (From::Initial, Nothing, To::Initial, To::Initial, 0, 0),
        (From::Initial, Start, To::Connecting, To::Connecting, 1, 0),
        (From::Initial, Stop, To::Stopped, To::Stopped, 0, 0),
        (From::Initial, StopThenStart, To::Connecting, To::Connecting, 1, 0),
        (From::Initial, DelayPasses, To::Initial, To::Initial, 0, 0),
        (From::Connecting, Nothing, To::Connecting, To::Connecting, 1, 0),
        (From::Connecting, Start, To::Connecting, To::Connecting, 1, 0),
        (From::Connecting, Stop, To::Stopped, To::Stopped, 0, 0),
        (From::Connecting, StopThenStart, To::Connecting, To::Connecting, 1, 0),
        (From::Connecting, Refused, To::Waiting, To::Waiting, 0, 1),
        (From::Connecting, DelayPasses, To::Connecting, To::Connecting, 1, 0),
        (From::Preparing, Nothing, To::Connecting, To::Connecting, 0, 0),
        (From::Preparing, Start, To::Connecting, To::Connecting, 0, 0),
        (From::Preparing, Stop, To::Disconnecting, To::Stopped, 0, 0),
        (From::Preparing, StopThenStart, To::Restarting, To::Connecting, 1, 0),
        (From::Preparing, PeerCloses, To::Connecting, To::Waiting, 0, 1),
        (From::Preparing, PeerAborts, To::Connecting, To::Waiting, 0, 1),
        (From::Preparing, Prepared, To::Connected, To::Connected, 0, 0),
        (From::Preparing, NotPrepared, To::Rejected, To::Waiting, 0, 1),
        (From::Rejected, Nothing, To::Rejected, To::Waiting, 0, 1),
        (From::Rejected, Start, To::Rejected, To::Waiting, 0, 1),
        (From::Rejected, Stop, To::Disconnecting, To::Stopped, 0, 0),
        (From::Rejected, StopThenStart, To::Restarting, To::Connecting, 1, 0),
        (From::Rejected, PeerAborts, To::Rejected, To::Waiting, 0, 1),
        (From::Rejected, DelayPasses, To::Connecting, To::Connecting, 1, 1),
        (From::Connected, Nothing, To::Connected, To::Connected, 0, 0),
        (From::Connected, Start, To::Connected, To::Connected, 0, 0),
        (From::Connected, Stop, To::Disconnecting, To::Stopped, 0, 0),
        (From::Connected, StopThenStart, To::Restarting, To::Connecting, 1, 0),
        (From::Connected, PeerCloses, To::Connected, To::Waiting, 0, 1),
        (From::Connected, PeerAborts, To::Connected, To::Waiting, 0, 1),
        (From::Waiting, Nothing, To::Waiting, To::Waiting, 0, 1),
        (From::Waiting, Start, To::Waiting, To::Waiting, 0, 1),
        (From::Waiting, Stop, To::Stopped, To::Stopped, 0, 1),
        (From::Waiting, StopThenStart, To::Connecting, To::Connecting, 1, 0),
        (From::Waiting, DelayPasses, To::Connecting, To::Connecting, 1, 1),
        (From::Disconnecting, Nothing, To::Disconnecting, To::Stopped, 0, 0),
        (From::Disconnecting, Start, To::Restarting, To::Connecting, 1, 0),
        (From::Disconnecting, Stop, To::Disconnecting, To::Stopped, 0, 0),
        (From::Disconnecting, StopThenStart, To::Restarting, To::Connecting, 1, 0),
        (From::Disconnecting, PeerAborts, To::Disconnecting, To::Stopped, 0, 0),
        (From::Disconnecting, DelayPasses, To::Stopped, To::Stopped, 0, 0),
        (From::Restarting, Nothing, To::Restarting, To::Connecting, 1, 0),
        (From::Restarting, Start, To::Restarting, To::Connecting, 1, 0),
        (From::Restarting, Stop, To::Disconnecting, To::Stopped, 0, 0),
        (From::Restarting, StopThenStart, To::Restarting, To::Connecting, 1, 0),
        (From::Restarting, PeerCloses, To::Restarting, To::Connecting, 1, 0),
        (From::Stopped, Nothing, To::Stopped, To::Stopped, 0, 0),
        (From::Stopped, Start, To::Connecting, To::Connecting, 1, 0),
        (From::Stopped, Stop, To::Stopped, To::Stopped, 0, 0),
        (From::Stopped, StopThenStart, To::Connecting, To::Connecting, 1, 0),
        (From::Stopped, DelayPasses, To::Stopped, To::Stopped, 0, 0),
    ];
    for (from, event, at_once, later, attempts, failures) in table {
        let case = format!("{from:?}, {event:?}");
        let ((), unheard) = unhandled::collect(|| {
            let stage = from.reach();
            let stopped = play(&stage, event);
            assert_eq!(stage.service.state(), at_once, "{case}: at once");
            stage.settle();
            assert_eq!(stage.service.state(), later, "{case}: later");
            assert_eq!(stage.memory.attempts().len(), attempts, "{case}: attempts");
            assert_eq!(stage.service.failures(), failures, "{case}: failures");
            let has_socket = matches!(later, To::Connecting | To::Connected);
            assert_eq!(stage.open_sockets(), usize::from(has_socket), "{case}: sockets");
            if let Some(mut stopped) = stopped {
                success_result_of(&mut stopped);
            }
        });
        assert!(unheard.is_empty(), "{case}: {unheard:?}");
    }
}

/// A caller that allows two failures hears of the second, with its cause; one without a limit
/// waits on; each hears once.
#[test]
fn a_caller_is_told_after_its_number_of_failures() {
    let stage = Stage::new(DELAY);
    let (mut patient, mut second) = (stage.service.when_connected(None), stage.service.when_connected(Some(2)));
    let mut first = [Some(0), Some(1)].map(|limit| stage.service.when_connected(limit));
    stage.start();
    stage.refuse();
    for first in &mut first {
        let failure = failure_result_of(first);
        assert!(matches!(failure.check(), Some(ConnectError::Refused { .. })), "{failure}");
    }
    assert_no_result(&mut second);
    stage.memory.advance(DELAY).unwrap();
    stage.accept();
    stage.prepared(Err("wrong password".into()));
    stage.settle();
    assert_eq!(failure_result_of(&mut second).to_string(), "wrong password");
    assert_no_result(&mut patient);
    stage.memory.advance(DELAY * 2).unwrap();
    stage.accept();
    stage.prepared(Ok(()));
    let connection = success_result_of(&mut patient);
    connection.transport().write(b"at last");
    stage.settle();
    assert_eq!(stage.peer.borrow().as_ref().unwrap().read(), b"at last");
}

/// A stop ends the wait of every caller, and later callers fail at once; a caller that has given up
/// is left alone.
#[test]
fn a_stop_ends_the_wait_for_a_connection() {
    let stage = Stage::new(DELAY);
    stage.start();
    let (mut waits, gave_up) = (stage.service.when_connected(None), stage.service.when_connected(Some(1)));
    gave_up.cancel();
    let mut stopped = stage.service.stop_service();
    success_result_of(&mut stopped);
    for mut cancelled in
        [waits.take_result().map(Deferred::with_result).unwrap(), stage.service.when_connected(None), gave_up]
    {
        assert!(failure_result_of(&mut cancelled).check::<Cancelled>().is_some());
    }
}

/// A caller that waits while a connection closes gets the next one, if a start comes in time.
#[test]
fn a_restart_keeps_its_callers() {
    let stage = From::Restarting.reach();
    let mut waits = stage.service.when_connected(None);
    stage.settle();
    stage.accept();
    stage.prepared(Ok(()));
    success_result_of(&mut waits);
}

/// Bytes that were written before a stop are sent; a rejected connection is aborted.
#[test]
fn a_stop_sends_the_rest_and_a_rejection_does_not() {
    let stage = From::Connected.reach();
    stage.service.connection().unwrap().transport().write(b"QUIT");
    let mut stopped = stage.service.stop_service();
    assert_no_result(&mut stopped);
    stage.settle();
    success_result_of(&mut stopped);
    let peer = stage.peer.take().unwrap();
    assert_eq!(peer.read(), b"QUIT");
    assert!(peer.is_ended() && !peer.is_reset());

    let stage = From::Rejected.reach();
    stage.settle();
    assert!(stage.peer.take().unwrap().is_reset());
}

/// A callback of `when_connected` may stop the service, and a stop's callback may start it.
#[test]
fn callbacks_stop_and_start_their_service() {
    let stage = From::Preparing.reach();
    let (stopping, starting) = (stage.service.clone(), stage.service.clone());
    let again = stage
        .service
        .when_connected(None)
        .add_callback(move |_| stopping.stop_service().add_callback(move |()| starting.start_service()));
    stage.prepared(Ok(()));
    assert_eq!(stage.service.state(), ClientState::Disconnecting);
    stage.settle();
    assert_eq!(stage.service.state(), ClientState::Connecting);
    assert_eq!(stage.memory.attempts().len(), 1);
    assert!(again.is_called());
}

/// A policy that panics costs a minute, and nothing else. One that stops its service is obeyed.
#[test]
fn a_policy_may_panic_or_stop_its_service() {
    let memory = MemoryReactor::new();
    let endpoint = || TcpClientEndpoint::new(memory.reactor(), ([198, 51, 100, 7], 80).into());
    let panics = ClientService::builder(memory.reactor(), endpoint(), for_protocol(|_| Echo))
        .retry_policy(|_| panic!("no idea"))
        .build();
    success_result_of(&mut panics.start_service());
    memory.attempts().remove(0).refuse();
    memory.advance(Duration::from_secs(59)).unwrap();
    assert_eq!(panics.state(), ClientState::Waiting);
    memory.advance(Duration::from_secs(1)).unwrap();
    assert_eq!(panics.state(), ClientState::Connecting);
    drop(panics.stop_service());

    let myself = Rc::new(RefCell::new(None::<ClientService<Echo>>));
    let place = Rc::clone(&myself);
    let stops = ClientService::builder(memory.reactor(), endpoint(), for_protocol(|_| Echo))
        .retry_policy(move |_| {
            let service = place.borrow().clone().unwrap();
            success_result_of(&mut service.stop_service());
            DELAY
        })
        .build();
    myself.replace(Some(stops.clone()));
    success_result_of(&mut stops.start_service());
    memory.attempts().remove(0).refuse();
    memory.advance(DELAY * 2).unwrap();
    assert_eq!(stops.state(), ClientState::Stopped);
    assert!(memory.attempts().is_empty());
    myself.take();
}

/// A preparation may stop its service, and is then cancelled, although it returns later.
#[test]
fn a_preparation_may_stop_its_service() {
    let memory = MemoryReactor::new();
    let endpoint = TcpClientEndpoint::new(memory.reactor(), ([198, 51, 100, 7], 80).into());
    let myself = Rc::new(RefCell::new(None::<ClientService<Echo>>));
    let (place, stopped) = (Rc::clone(&myself), Rc::new(RefCell::new(None)));
    let (stopping, (_never, prepared)) = (Rc::clone(&stopped), Promise::new());
    let prepared = RefCell::new(Some(prepared));
    let service = ClientService::builder(memory.reactor(), endpoint, for_protocol(|_| Echo))
        .prepare_connection(move |_| {
            let service = place.take().unwrap();
            stopping.replace(Some(service.stop_service()));
            prepared.take().unwrap()
        })
        .build();
    myself.replace(Some(service.clone()));
    success_result_of(&mut service.start_service());
    let peer = memory.attempts().remove(0).accept().unwrap();
    memory.settle().unwrap();
    success_result_of(&mut stopped.take().unwrap());
    assert_eq!(service.state(), ClientState::Stopped);
    assert!(peer.is_reset());
}

/// A running service lives on without handles, and ends with its reactor.
#[test]
fn a_service_without_handles_goes_on_until_its_reactor_closes() {
    let Stage { memory, service, .. } = From::Waiting.reach();
    let mut waits = service.when_connected(None);
    drop(service);
    memory.advance(DELAY).unwrap();
    assert_eq!(memory.attempts().len(), 1);
    memory.reactor().close().unwrap();
    memory.settle().unwrap();
    assert!(waits.take_result().is_some_and(|result| result.is_err()), "its promise is gone");
}

/// The delays are Twisted's, the jitter comes from the seed, and odd settings do not panic.
#[test]
fn delays_grow_as_twisteds_and_jitter_follows_the_seed() {
    let plain = Backoff::new().jitter(Duration::ZERO);
    let millis = (1..=13).map(|failures| plain.delay(failures).as_millis());
    let expected = [1500, 2250, 3375, 5062, 7593, 11390, 17085, 25628, 38443, 57665, 60000, 60000, 60000];
    assert!(millis.eq(expected), "{:?}", Vec::from_iter((1..=13).map(|n| plain.delay(n))));
    assert_eq!(plain.delay(u32::MAX), Duration::from_secs(60));

    let draw = |seed| {
        let backoff = Backoff::new().seed(seed);
        Vec::from_iter((1..=20).map(|_| backoff.delay(50) - Duration::from_secs(60)))
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
    assert!(draw(3).iter().all(|part| *part <= Duration::from_secs(1)));
    assert!(draw(3).iter().any(|part| *part > Duration::from_millis(500)));

    for factor in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
        assert_eq!(plain.clone().factor(factor).delay(7), Duration::from_secs(60), "a factor of {factor}");
    }
    assert_eq!(plain.clone().factor(1.0).delay(7), Duration::from_secs(1));
    assert_eq!(plain.jitter(Duration::MAX).max_delay(Duration::MAX).factor(1e300).delay(9).max(DELAY), Duration::MAX);
}

/// The first failed attempt in a row is a warning, with its endpoint and its cause. The others are
/// not. A connection, and a start, begin a new row.
#[test]
fn the_first_failure_in_a_row_is_a_warning() {
    let stage = Stage::new(DELAY);
    let warned = |expected: &[&str], act: &dyn Fn()| {
        let ((), lines) = logged(act);
        assert_eq!(lines.len(), expected.len(), "{lines:?}");
        for (line, cause) in lines.iter().zip(expected) {
            assert!(line.contains("an attempt of a client service failed"), "{line}");
            assert!(line.contains("198.51.100.7") && line.contains(cause), "{line}");
        }
    };
    let again = || stage.memory.advance(DELAY * 10).unwrap();
    stage.start();
    warned(&["refused"], &|| stage.refuse());
    again();
    warned(&[], &|| stage.refuse());
    again();
    stage.accept();
    warned(&[], &|| stage.prepared(Err("wrong password".into())));
    again();
    stage.accept();
    stage.prepared(Ok(()));
    // A connection that was lost is no failed attempt.
    warned(&[], &|| {
        stage.peer.take().unwrap().close();
        stage.settle();
    });
    again();
    warned(&["refused"], &|| stage.refuse());
    success_result_of(&mut stage.service.stop_service());
    stage.start();
    warned(&["refused"], &|| stage.refuse());
}
