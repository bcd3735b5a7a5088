//! Ports of services: their failures, the drain of their connections, and whole programs.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use ropewalk::application::{MultiService, Service, StreamServerEndpointService, run_service};
use ropewalk::deferred::{Cancelled, Promise, unhandled};
use ropewalk::endpoints::{ServerEndpoint, server_from_string};
use ropewalk::error::ListenError;
use ropewalk::interfaces::*;
use ropewalk::protocol::BoxedFactory;
use ropewalk::testing::{MemoryReactor, assert_no_result, failure_result_of, success_result_of};
use ropewalk::{Deferred, Port, Result, Transport, for_protocol};

const SECOND: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(10);

/// Answers each message with itself, and closes after a message once it was told to finish.
#[derive(Default)]
struct Echo {
    is_last: bool,
}

impl Protocol for Echo {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        transport.write(data);
        if self.is_last {
            transport.lose_connection();
        }
        Ok(())
    }
}

fn endpoint(memory: &MemoryReactor) -> Box<dyn ServerEndpoint> {
    server_from_string(memory.reactor(), "tcp:7").unwrap()
}

fn service(memory: &MemoryReactor) -> StreamServerEndpointService<Echo> {
    StreamServerEndpointService::new(endpoint(memory), for_protocol(|_| Echo::default()))
}

/// Serves until its connections have sent one more message.
fn patient_service(memory: &MemoryReactor) -> StreamServerEndpointService<Echo> {
    service(memory).drain_with(memory.reactor(), DEADLINE, |connection| {
        connection.with(|echo, _| echo.is_last = true).unwrap();
    })
}

/// A start listens once, whichever of the two calls it is; a stop closes the port, and leaves its
/// connections alone.
#[test]
fn a_service_listens_while_it_runs() {
    let memory = MemoryReactor::new();
    let service = service(&memory);
    success_result_of(&mut service.stop_service());
    success_result_of(&mut service.privileged_start_service());
    success_result_of(&mut service.start_service());
    assert_eq!(memory.ports().len(), 1);
    assert_eq!(service.host().unwrap().port(), Some(7));
    let peer = memory.connect(7).unwrap();
    let mut stopped = service.stop_service();
    memory.settle().unwrap();
    success_result_of(&mut stopped);
    assert!(memory.ports().is_empty() && service.host().is_none());
    peer.write(b"still here").unwrap();
    memory.settle().unwrap();
    assert_eq!(peer.read(), b"still here");

    success_result_of(&mut service.start_service());
    assert_eq!(memory.ports().len(), 1, "it was started again");
}

/// A port that is taken is a failure of the start, told once; the next start tries again.
#[test]
fn a_port_that_is_taken_is_told() {
    let memory = MemoryReactor::new();
    let (first, second) = (service(&memory), service(&memory));
    success_result_of(&mut first.start_service());
    let ((), unheard) = unhandled::collect(|| {
        let failure = failure_result_of(&mut second.start_service());
        assert!(matches!(failure.check(), Some(ListenError::Bind { .. })), "{failure}");
        success_result_of(&mut second.stop_service());
    });
    assert!(unheard.is_empty());
    drop(first.stop_service());
    memory.settle().unwrap();
    success_result_of(&mut second.start_service());
}

/// Bytes that wait are sent before a drained connection closes, and the stop waits for that.
#[test]
fn a_drain_sends_the_rest() {
    let memory = MemoryReactor::new();
    let service = service(&memory).drain(memory.reactor(), DEADLINE);
    success_result_of(&mut service.start_service());
    let peer = memory.connect(7).unwrap();
    memory.settle().unwrap();
    service.connections().iter().next().unwrap().transport().write(b"goodbye");
    let mut stopped = service.stop_service();
    assert_no_result(&mut stopped);
    memory.settle().unwrap();
    success_result_of(&mut stopped);
    assert_eq!(peer.read(), b"goodbye");
    assert!(peer.is_ended() && !peer.is_reset());
    assert!(service.connections().is_empty());
}

/// Connections that end in time end the drain; the rest is aborted at the deadline, and not before.
#[test]
fn a_drain_has_a_deadline() {
    let memory = MemoryReactor::new();
    let service = patient_service(&memory);
    success_result_of(&mut service.start_service());
    let (quick, silent) = (memory.connect(7).unwrap(), memory.connect(7).unwrap());
    memory.settle().unwrap();
    let (mut stopped, mut again) = (service.stop_service(), service.stop_service());
    memory.settle().unwrap();
    assert!(memory.ports().is_empty(), "nothing is accepted during the drain");
    quick.write(b"one more").unwrap();
    memory.advance(DEADLINE - SECOND).unwrap();
    assert!(quick.is_ended() && !quick.is_reset());
    assert_eq!(quick.read(), b"one more");
    assert!(!silent.is_reset());
    assert_no_result(&mut stopped);
    memory.advance(SECOND).unwrap();
    assert!(silent.is_reset());
    success_result_of(&mut stopped);
    success_result_of(&mut again);
}

/// A start during a drain listens after it; a stop takes that start back.
#[test]
fn a_start_waits_for_the_drain() {
    let memory = MemoryReactor::new();
    let service = patient_service(&memory);
    success_result_of(&mut service.start_service());
    let peer = memory.connect(7).unwrap();
    memory.settle().unwrap();
    let mut stopped = service.stop_service();
    let mut taken_back = service.start_service();
    drop(service.stop_service());
    assert!(failure_result_of(&mut taken_back).check::<Cancelled>().is_some());
    let mut started = service.start_service();
    memory.settle().unwrap();
    assert_no_result(&mut started);
    assert!(memory.ports().is_empty());
    peer.write(b"bye").unwrap();
    memory.settle().unwrap();
    success_result_of(&mut stopped);
    success_result_of(&mut started);
    assert_eq!(memory.ports().len(), 1);
}

/// A `finish` that panics costs its connection, and not the drain.
#[test]
fn a_finish_that_panics_aborts_its_connection() {
    let memory = MemoryReactor::new();
    let service = service(&memory).drain_with(memory.reactor(), DEADLINE, |_| panic!("no idea"));
    success_result_of(&mut service.start_service());
    let peer = memory.connect(7).unwrap();
    memory.settle().unwrap();
    let mut stopped = service.stop_service();
    memory.settle().unwrap();
    success_result_of(&mut stopped);
    assert!(peer.is_reset());
}

/// Listens when the test says so, on the endpoint that it wraps.
#[derive(Debug, Clone)]
struct Slow {
    listening: Rc<RefCell<Option<Promise<()>>>>,
    cancelled: Rc<Cell<bool>>,
    inner: Rc<dyn ServerEndpoint>,
}

impl ServerEndpoint for Slow {
    fn listen_boxed(&self, factory: BoxedFactory) -> Deferred<Port> {
        let (cancelled, inner) = (Rc::clone(&self.cancelled), Rc::clone(&self.inner));
        let (promise, ready) = Promise::with_canceller(move || cancelled.set(true));
        self.listening.replace(Some(promise));
        ready.add_callback(move |()| inner.listen_boxed(factory))
    }
}

/// A stop cancels a start that is under way, and both hear of it.
#[test]
fn a_stop_cancels_a_start() {
    let memory = MemoryReactor::new();
    let slow = Slow { listening: Rc::default(), cancelled: Rc::default(), inner: endpoint(&memory).into() };
    let service = StreamServerEndpointService::new(slow.clone(), for_protocol(|_| Echo::default()));
    let mut started = service.start_service();
    assert_no_result(&mut started);
    success_result_of(&mut service.stop_service());
    assert!(slow.cancelled.get());
    assert!(failure_result_of(&mut started).check::<Cancelled>().is_some());

    let mut started = service.start_service();
    slow.listening.take().unwrap().callback(()).unwrap();
    success_result_of(&mut started);
    assert_eq!(memory.ports().len(), 1);
}

/// A program serves until its reactor is stopped, drains, and only then lets the reactor end.
#[test]
fn a_program_drains_before_its_reactor_stops() {
    let memory = MemoryReactor::new();
    let program = MultiService::new();
    program.add_named_service("echo", patient_service(&memory)).unwrap();
    let mut ended = run_service(memory.reactor(), program.clone());
    let peer = memory.connect(7).unwrap();
    assert_no_result(&mut ended);
    memory.reactor().stop().unwrap();
    memory.settle().unwrap();
    success_result_of(&mut ended);
    assert!(memory.ports().is_empty() && memory.reactor().is_running());
    peer.write(b"the last words").unwrap();
    memory.settle().unwrap();
    assert_eq!(peer.read(), b"the last words");
    assert!(peer.is_ended() && !peer.is_reset());
    assert!(!memory.reactor().is_running() && !program.is_running());
}

/// A program that cannot start says why, and what has started is stopped with the reactor.
#[test]
fn a_program_that_cannot_start_says_why() {
    let memory = MemoryReactor::new();
    let program = MultiService::new();
    let first = service(&memory);
    program.add_service(first.clone());
    program.add_named_service("second", service(&memory)).unwrap();
    let failure = failure_result_of(&mut run_service(memory.reactor(), program));
    assert!(failure.to_string().starts_with("the service \"second\": "), "{failure}");
    assert!(first.host().is_some());
    memory.settle().unwrap();
    memory.reactor().stop().unwrap();
    memory.settle().unwrap();
    assert!(first.host().is_none());
}
