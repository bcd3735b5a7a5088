//! Cases about requests made inside callbacks, and about callbacks that fail.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use super::link;
use super::scene::{End, Log, Role, SeenCall, once, pattern};
use super::{Scene, Setting};
use crate::address::Address;
use crate::deferred::Promise;
use crate::error::{ConnectionClosed, Unavailable};
use crate::failure::{Failure, Panicked, Result};
use crate::protocol::Connection;
use crate::reactor::Reactor;
use crate::testing::witness::Witnessed;
use crate::time::Clock;
use crate::transport::{Producer, Streaming, Transport};

/// The moment at which a request is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    In(SeenCall),
    /// In a callback of the Deferred that `connect_tcp` returned.
    Connected,
    /// In the turn after `connection_made`.
    Timer,
    /// In a callback of a Deferred that fires inside `data_received`.
    DeferredInData,
}

const MOMENTS: [Moment; 8] = [
    Moment::In(SeenCall::Made),
    Moment::Connected,
    Moment::Timer,
    Moment::In(SeenCall::Data),
    Moment::DeferredInData,
    Moment::In(SeenCall::ReadLost),
    Moment::In(SeenCall::WriteLost),
    Moment::In(SeenCall::Lost),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    Write,
    WriteMuch,
    WriteSequence,
    Lose,
    Abort,
    LoseWrite,
    Pause,
    Resume,
    PauseAndResume,
    SetCloseTimeout,
    Options,
    Look,
    Listen,
    Connect,
    LoseAndAbort,
    EndBoth,
    /// A push producer that is registered and unregistered, twice.
    Produce,
    /// A pull producer that writes a few bytes, and is done.
    Pull,
    SendDescriptor,
    /// Through the connection's own handle.
    WithItself,
    /// Through the handle of another connection, to an echo.
    WithAnother,
}

const REQUESTS: [Request; 21] = [
    Request::Write,
    Request::WriteMuch,
    Request::WriteSequence,
    Request::Lose,
    Request::Abort,
    Request::LoseWrite,
    Request::Pause,
    Request::Resume,
    Request::PauseAndResume,
    Request::SetCloseTimeout,
    Request::Options,
    Request::Look,
    Request::Listen,
    Request::Connect,
    Request::LoseAndAbort,
    Request::EndBoth,
    Request::Produce,
    Request::Pull,
    Request::SendDescriptor,
    Request::WithItself,
    Request::WithAnother,
];

/// A few bytes. More would take long on a network that cuts to single bytes.
const FEW: &[u8] = b"few";

/// Enough bytes that a write is offered to the socket at once.
const MUCH: usize = 20_000;

/// Number of bytes on networks where that would take long.
const LESS: usize = 200;

/// Duration of a pause.
const SHORT: Duration = Duration::from_millis(1);

/// F19.
pub(super) fn every_request_can_be_made_in_every_callback(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    let (other, echo) = (Role::new(), Role::echo());
    let (other_end, echo_end) = (other.end(), echo.end());
    let another = connected(&mut scene, echo, other);
    for moment in MOMENTS {
        for request in REQUESTS {
            request_in_callback(&mut scene, moment, request, &another);
        }
    }
    scene.until(|| other_end.count_received() == MOMENTS.len() * FEW.len());
    scene.finish(&[&other_end, &echo_end]);
}

/// The handle of a connection, with the protocol's type.
type Handle = Connection<Witnessed<Role>>;

#[track_caller]
fn connected(scene: &mut Scene<'_>, serving: Role, asking: Role) -> Handle {
    let (port, to) = scene.listen(once(serving));
    let connecting = scene.connect(&to, once(asking));
    let connection = scene.result_of(connecting).unwrap_or_else(|failure| panic!("{failure}"));
    drop(port.stop_listening());
    connection
}

fn request_in_callback(scene: &mut Scene<'_>, moment: Moment, request: Request, another: &Handle) {
    let case = format!("{request:?} in {moment:?}");
    let cell = Rc::new(Square {
        moment,
        request,
        reactor: scene.reactor.clone(),
        much: pattern(if scene.setting.big() < MUCH { LESS } else { MUCH }),
        listen_at: scene.setting.address(),
        begins: scene.setting.begins().is_some(),
        itself: RefCell::default(),
        another: another.clone(),
        passed: Cell::new(false),
        made: Cell::new(false),
    });
    let peer = Role::new().half_close().does(SeenCall::Made, |transport| {
        transport.write(FEW);
        transport.lose_write_connection();
    });
    let mut member = Role::new().half_close();
    for call in SeenCall::ALL {
        let cell = Rc::clone(&cell);
        member = member.does(call, move |transport| cell.at(Moment::In(call), transport));
    }
    let shared = Rc::clone(&cell);
    let member = member.does(SeenCall::Made, move |transport| {
        let (cell, timed) = (Rc::clone(&shared), transport.clone());
        shared.reactor.call_later(Duration::ZERO, move || cell.at(Moment::Timer, &timed));
    });
    let shared = Rc::clone(&cell);
    let member = member.on(SeenCall::Data, move |transport, _| {
        let (promise, deferred) = Promise::new();
        let (cell, inner) = (Rc::clone(&shared), transport.clone());
        drop(deferred.add_callback(move |()| cell.at(Moment::DeferredInData, &inner)));
        Ok(promise.callback(())?)
    });
    let member = member.does(SeenCall::ReadLost, Transport::lose_write_connection);

    let (member_end, peer_end) = (member.end(), peer.end());
    let (port, to) = scene.listen(once(peer));
    let connected = Rc::clone(&cell);
    let connecting = scene.connect(&to, once(member));
    drop(connecting.add_callback(move |connection| {
        connected.itself.replace(Some(connection.clone()));
        connected.at(Moment::Connected, connection.transport());
    }));
    let member = member_end;
    scene.until(|| member.is_over() && peer_end.is_over());
    drop(port.stop_listening());
    assert!(cell.made.get(), "{case}: the request was not made, failed, or panicked");
    assert_eq!(
        (member.calls().first(), member.calls().last()),
        (Some(&SeenCall::Made), Some(&SeenCall::Lost)),
        "{case}"
    );
    let reason = member.reason();
    let aborted = matches!(request, Request::Abort | Request::LoseAndAbort) && moment != Moment::In(SeenCall::Lost);
    match reason.check() {
        Some(ConnectionClosed::Aborted) => assert!(aborted, "{case}"),
        Some(ConnectionClosed::Done) => assert!(!aborted, "{case}"),
        _ => panic!("{case}: {reason}"),
    }
    if !aborted {
        let sent =
            if matches!(moment, Moment::In(SeenCall::WriteLost | SeenCall::Lost)) { vec![] } else { cell.sent() };
        assert!(peer_end.received() == sent, "{case}: {} bytes arrived", peer_end.count_received());
    }
}

/// One cell of the table of moments and requests.
struct Square {
    moment: Moment,
    request: Request,
    reactor: Reactor,
    much: Vec<u8>,
    listen_at: Address,
    /// Set if something was begun on the transport.
    begins: bool,
    itself: RefCell<Option<Handle>>,
    another: Handle,
    /// Set if a descriptor was sent, with a few bytes.
    passed: Cell<bool>,
    made: Cell<bool>,
}

impl Square {
    /// Makes the request once, at its moment.
    fn at(&self, moment: Moment, transport: &Transport) {
        if moment != self.moment || self.made.get() {
            return;
        }
        match self.request {
            Request::Write => transport.write(FEW),
            Request::WriteMuch => {
                // A part is queued, and a part may be offered to the socket at once.
                transport.write(FEW);
                transport.write(&self.much);
            }
            Request::WriteSequence => transport.write_sequence([FEW, b"", &self.much]),
            Request::Lose => transport.lose_connection(),
            Request::Abort => transport.abort_connection(),
            Request::LoseWrite => transport.lose_write_connection(),
            Request::Pause => {
                transport.pause_producing();
                let resumed = transport.clone();
                self.reactor.call_later(SHORT, move || resumed.resume_producing());
            }
            Request::Resume => transport.resume_producing(),
            Request::PauseAndResume => {
                transport.pause_producing();
                transport.resume_producing();
            }
            Request::SetCloseTimeout => transport.set_close_timeout(Some(Duration::from_secs(3600))),
            Request::Options => {
                let is_over = transport.is_disconnected();
                let set = transport.set_tcp_no_delay(true).and_then(|()| transport.set_tcp_keep_alive(true));
                // Other sockets than TCP's may accept or refuse the options of an open connection.
                let is_refused_rightly = is_over || self.listen_at.unix().is_some();
                if (set.is_ok() && is_over) || (set.is_err() && !is_refused_rightly) {
                    return;
                }
            }
            Request::Look => {
                let ends = (transport.host(), transport.peer(), transport.queued_bytes(), transport.raw_fd());
                let loop_ = (self.reactor.counters(), self.reactor.is_running());
                if format!("{transport:?} {ends:?} {loop_:?}").is_empty() {
                    return;
                }
            }
            Request::Listen => {
                let listening = link::listen(&self.reactor, &self.listen_at, builds_nothing);
                let Ok(port) = listening else { return };
                drop(port.stop_listening());
            }
            Request::Connect => {
                let attempt = link::connect(&self.reactor, &self.listen_at, builds_nothing);
                attempt.cancel();
                drop(attempt.add_both(|_| ()));
            }
            Request::LoseAndAbort => {
                transport.lose_connection();
                transport.abort_connection();
            }
            Request::EndBoth => {
                transport.lose_write_connection();
                transport.lose_connection();
            }
            Request::Produce => {
                for _ in 0..2 {
                    let registered = transport.register_producer(Once, Streaming::Push).is_ok();
                    if registered != transport.has_producer() {
                        return;
                    }
                    transport.unregister_producer();
                }
            }
            Request::Pull => {
                // Refused if nothing can be written any more.
                let _ = transport.register_producer(Once, Streaming::Pull);
            }
            Request::SendDescriptor => {
                let Ok((reader, _writer)) = std::io::pipe() else { return };
                let may_write = !matches!(self.moment, Moment::In(SeenCall::WriteLost | SeenCall::Lost));
                // Descriptors pass neither over TCP, nor on a backend without descriptors, nor over
                // TLS.
                let passes = self.listen_at.unix().is_some() && transport.raw_fd().is_some() && !self.begins;
                let sent = transport.send_file_descriptor(reader.into(), FEW).is_ok();
                self.passed.set(sent);
                if sent != (passes && may_write) {
                    return;
                }
            }
            Request::WithItself => {
                let itself = self.itself.borrow().clone();
                let reached = itself.map(|itself| itself.with(|_, transport| transport.write(b"")));
                if reached != self.reaches_itself() {
                    return;
                }
            }
            Request::WithAnother => {
                if self.another.with(|_, transport| transport.write(FEW)).is_err() {
                    return;
                }
            }
        }
        self.made.set(true);
    }

    /// Returns the bytes that the peer gets from the request.
    fn sent(&self) -> Vec<u8> {
        match self.request {
            Request::Write | Request::Pull => FEW.to_vec(),
            Request::WriteMuch | Request::WriteSequence => [FEW, &self.much].concat(),
            Request::SendDescriptor if self.passed.get() => FEW.to_vec(),
            _ => Vec::new(),
        }
    }

    /// Returns the expected result of a call through the connection's own handle.
    fn reaches_itself(&self) -> Option<Result<(), Unavailable>> {
        match self.moment {
            // The handle does not exist yet.
            Moment::In(SeenCall::Made) => None,
            Moment::Connected | Moment::Timer => Some(Ok(())),
            Moment::In(SeenCall::Lost) => Some(Err(Unavailable::Gone)),
            Moment::In(_) | Moment::DeferredInData => Some(Err(Unavailable::Busy)),
        }
    }
}

/// A producer of a few bytes.
struct Once;

impl Producer for Once {
    fn resume_producing(&mut self, consumer: &Transport) -> Result<()> {
        consumer.write(FEW);
        consumer.unregister_producer();
        Ok(())
    }

    fn stop_producing(&mut self, _consumer: &Transport) {}
}

fn builds_nothing(_: Address) -> Option<Role> {
    None
}

/// F18.
pub(super) fn a_failing_callback_ends_its_own_connection_only(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    let (echo, other) = scene.pair(Role::echo(), Role::new());
    for place in SeenCall::ALL {
        for panics in [false, true] {
            for serving in [false, true] {
                fails(&mut scene, place, panics, serving);
                answers(&mut scene, &other);
            }
        }
    }
    scene.finish(&[&echo, &other]);
}

fn fails(scene: &mut Scene<'_>, place: SeenCall, panics: bool, serving: bool) {
    let case = format!("in {place:?}, by a panic: {panics}, serving: {serving}");
    let failing = Role::new().half_close().does(SeenCall::ReadLost, Transport::lose_write_connection);
    let failing = failing.on(place, move |_, _| if panics { panic!("on purpose") } else { on_purpose() });
    let peer = Role::new().half_close().does(SeenCall::Made, |transport| {
        transport.write(FEW);
        transport.lose_write_connection();
    });
    let (failing, peer) = if serving {
        scene.pair(failing, peer)
    } else {
        let (peer, failing) = scene.pair(peer, failing);
        (failing, peer)
    };
    scene.until(|| failing.is_over() && peer.is_over());
    let mut expected: Vec<SeenCall> = SeenCall::ALL.into_iter().filter(|call| *call != SeenCall::Data).collect();
    if place != SeenCall::Lost {
        expected.retain(|call| *call == SeenCall::Lost || (*call as u8) <= place as u8);
    }
    assert_eq!(failing.calls(), expected, "{case}");
    assert!(failing.count(SeenCall::Data) <= 1 || place != SeenCall::Data, "{case}");
    if place == SeenCall::Lost {
        failing.assert_done();
    } else {
        let reason = failing.reason();
        let is_it = match reason.check::<Panicked>() {
            Some(panic) => panics && panic.message == "on purpose",
            None => !panics && reason.to_string() == "on purpose",
        };
        assert!(is_it, "{case}: {reason}");
    }
}

fn on_purpose() -> Result<()> {
    Err(Failure::message("on purpose"))
}

/// Checks that an echo goes on.
#[track_caller]
fn answers(scene: &mut Scene<'_>, asking: &End) {
    let before = asking.count_received();
    asking.transport().write(b"?");
    scene.until(|| asking.count_received() == before + 1);
}

pub(super) fn failing_calls_harm_nobody(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    let (echo, other) = scene.pair(Role::echo(), Role::new());
    let log = Log::default();

    let first = log.clone();
    scene.reactor.call_later(Duration::ZERO, move || {
        first.add("timer");
        panic!("on purpose");
    });
    let second = log.clone();
    scene.reactor.call_later(Duration::ZERO, move || second.add("timer"));
    scene.until(|| log.len() == 2);
    answers(&mut scene, &other);

    // Can't fail: the reactor that makes the calls exists.
    let _ = scene.reactor.remote().call_from_thread(|_| panic!("on purpose"));
    answers(&mut scene, &other);

    let (promise, deferred) = Promise::<()>::new();
    let third = log.clone();
    let failing = deferred.add_callback(|()| -> () { panic!("on purpose") });
    drop(failing.add_both(move |result: Result<()>| {
        third.add(if result.is_err() { "told" } else { "not told" });
    }));
    scene.reactor.call_later(Duration::ZERO, move || drop(promise.callback(())));
    scene.until(|| log.len() == 3);
    assert_eq!(log.all(), ["timer", "timer", "told"]);
    answers(&mut scene, &other);

    let future = scene.reactor.spawn(async { on_purpose() });
    assert!(scene.result_of(future).is_err());
    answers(&mut scene, &other);

    let job = scene.reactor.defer_to_thread(on_purpose);
    assert!(scene.result_of(job).is_err());
    answers(&mut scene, &other);
    scene.finish(&[&echo, &other]);
}

pub(super) fn a_protocol_is_reached_from_outside(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    let (role, peer) = (Role::new().half_close(), Role::new().half_close());
    let (end, peer_end) = (role.end(), peer.end());
    let connection = connected(&mut scene, peer, role);
    assert_eq!(connection.with(|_, transport| transport.write(FEW)), Ok(()));
    scene.until(|| peer_end.count_received() == FEW.len());
    peer_end.transport().lose_write_connection();
    scene.until(|| end.has(SeenCall::ReadLost));
    assert_eq!(connection.with(|_, transport| transport.lose_connection()), Ok(()));
    scene.until(|| end.is_over() && peer_end.is_over());
    assert_eq!(connection.with(|_, _| ()), Err(Unavailable::Gone));
    scene.finish(&[]);
}
