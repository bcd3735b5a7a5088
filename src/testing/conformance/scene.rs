//! Building blocks of the cases: protocols that act as a case directs and record their callbacks,
//! and the ends of connections between them.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use super::Setting;
use super::link::{self, Begin, Beginning};
use crate::address::Address;
use crate::deferred::Deferred;
use crate::error::{ConnectError, ConnectionClosed};
use crate::failure::{Failure, Result};
use crate::protocol::{Connection, Factory, Protocol};
use crate::reactor::{Port, Reactor};
use crate::task::defer_later;
use crate::testing::Witness;
use crate::testing::witness::{Witnessed, WitnessedFactory};
use crate::transport::Transport;

/// A running case: its setting, a reactor, and a witness of all protocols.
pub(super) struct Scene<'a> {
    pub(super) setting: &'a mut dyn Setting,
    pub(super) reactor: Reactor,
    pub(super) witness: Witness,
}

impl<'a> Scene<'a> {
    pub(super) fn new(setting: &'a mut dyn Setting) -> Self {
        let reactor = setting.reactor();
        Self { setting, reactor, witness: Witness::new() }
    }

    /// Drives all reactors until `done` returns `true`.
    #[track_caller]
    pub(super) fn until(&mut self, mut done: impl FnMut() -> bool) {
        self.setting.drive(&mut done);
        self.witness.check();
    }

    /// Drives all reactors for this time.
    #[track_caller]
    pub(super) fn pass(&mut self, time: Duration) {
        let timer = defer_later(&self.reactor, time, || Ok(()));
        self.until(|| timer.is_called());
    }

    /// Drives all reactors until a few bytes under way have arrived.
    #[track_caller]
    pub(super) fn moment(&mut self) {
        self.pass(self.setting.moment());
    }

    /// Drives all reactors until a Deferred has its result, and takes that.
    #[track_caller]
    pub(super) fn result_of<T>(&mut self, mut deferred: Deferred<T>) -> Result<T> {
        let mut result = None;
        self.until(|| {
            result = deferred.take_result();
            result.is_some()
        });
        result.unwrap_or_else(|| Err(Failure::message("the result is missing")))
    }

    /// Returns `true` if connections run over UNIX sockets.
    pub(super) fn is_unix(&mut self) -> bool {
        self.setting.address().unix().is_some()
    }

    /// Wraps the factory of a port with a witness.
    pub(super) fn serving<F: Factory<Protocol = Role>>(&self, inner: F) -> WitnessedFactory<Beginning<F>> {
        let begin = self.setting.begins().map(|(listened, _)| listened);
        self.witness.factory(Beginning { inner, begin })
    }

    /// Wraps the factory of an attempt with a witness.
    pub(super) fn asking<F: Factory<Protocol = Role>>(&self, inner: F) -> WitnessedFactory<Beginning<F>> {
        let begin = self.setting.begins().map(|(_, connected)| connected);
        self.witness.factory(Beginning { inner, begin })
    }

    /// Listens with a witness.
    #[track_caller]
    pub(super) fn listen(&mut self, factory: impl Factory<Protocol = Role>) -> (Port, Address) {
        let reactor = self.reactor.clone();
        self.listen_on(&reactor, factory)
    }

    #[track_caller]
    pub(super) fn listen_on(&mut self, reactor: &Reactor, factory: impl Factory<Protocol = Role>) -> (Port, Address) {
        let factory = self.serving(factory);
        let listening = link::listen(reactor, &self.setting.address(), factory);
        let port = listening.unwrap_or_else(|error| panic!("can't listen: {error:?}"));
        let address = port.host();
        (port, address)
    }

    /// Connects with a witness.
    pub(super) fn connect(
        &mut self,
        to: &Address,
        factory: impl Factory<Protocol = Role>,
    ) -> Deferred<Connection<Witnessed<Role>>> {
        link::connect(&self.reactor, to, self.asking(factory))
    }

    /// Connects two roles on the scene's reactor. Returns the end that listened, then the one that
    /// connected.
    #[track_caller]
    pub(super) fn pair(&mut self, serving: Role, asking: Role) -> (End, End) {
        let reactor = self.reactor.clone();
        self.pair_on(&reactor, serving, &reactor, asking)
    }

    /// Connects two roles on two reactors.
    #[track_caller]
    pub(super) fn pair_on(&mut self, server: &Reactor, serving: Role, client: &Reactor, asking: Role) -> (End, End) {
        let ends = (serving.end(), asking.end());
        let (port, to) = self.listen_on(server, once(serving));
        let connecting = link::connect(client, &to, self.asking(once(asking)));
        // A role may be made to fail, which its end records.
        drop(connecting.add_both(|_| ()));
        self.until(|| ends.0.is_ready() && ends.1.is_ready());
        drop(port.stop_listening());
        ends
    }

    /// Connects a writer to a paused reader, and writes `plenty` bytes, which is more than the
    /// socket takes. Returns reader and writer.
    #[track_caller]
    pub(super) fn full(&mut self, reader: Role, writer: Role, plenty: usize) -> (End, End) {
        let (reader, writer) = self.pair(reader.does(SeenCall::Made, Transport::pause_producing), writer);
        self.fill(&[&writer], plenty);
        (reader, writer)
    }

    /// Writes `plenty` bytes, which is more than a socket takes, on connections whose peers are
    /// paused, and waits until their sockets are full.
    #[track_caller]
    pub(super) fn fill(&mut self, writers: &[&End], plenty: usize) {
        let body = pattern(plenty);
        writers.iter().for_each(|writer| writer.transport().write(&body));
        let queued = || -> Vec<_> { writers.iter().map(|writer| writer.transport().queued_bytes()).collect() };
        // Sockets may take long to fill.
        let mut before = Vec::new();
        while queued() != before {
            before = queued();
            self.moment();
        }
        assert!(before.iter().all(|queued| *queued > 0), "the case needs a full socket");
    }

    /// Drives all reactors until an abort is reported to its peer. It is a reset: a paused reader
    /// knows of it at once, and gets its report behind the bytes before it. UNIX sockets have none:
    /// there it is an end, known once the peer reads on, which TLS reports as truncation.
    #[track_caller]
    pub(super) fn until_told_of_the_abort(&mut self, end: &End) {
        if !self.is_unix() {
            self.until(|| end.is_over() || end.transport().is_disconnecting());
        }
        end.with_transport(Transport::resume_producing);
        self.until(|| end.is_over());
        match self.setting.begins() {
            _ if !self.is_unix() => end.assert_reset(),
            None => end.assert_done(),
            Some(_) => end.assert_truncated(),
        }
    }

    /// Ends a case: closes all open ends in good order, and checks that every connection was lost
    /// once, and that nothing is watched any more.
    #[track_caller]
    pub(super) fn finish(mut self, ends: &[&End]) {
        for end in ends {
            end.with_transport(Transport::resume_producing);
            end.with_transport(Transport::lose_connection);
        }
        let (reactor, witness) = (self.reactor.clone(), self.witness.clone());
        self.until(|| witness.made() == witness.lost() && reactor.counters().watched == 0);
        self.witness.assert_all_lost();
    }

    /// Ends a case in which so many connections were discarded. All others are over.
    #[track_caller]
    pub(super) fn finish_without(mut self, discarded: usize) {
        let (reactor, witness) = (self.reactor.clone(), self.witness.clone());
        self.until(|| witness.made() == witness.lost() + discarded && reactor.counters().watched == 0);
        assert_eq!(witness.left(), discarded, "protocols were kept");
    }

    /// Ends a case in which each connection was lost or discarded.
    #[track_caller]
    pub(super) fn finish_all_gone(mut self) {
        let (reactor, witness) = (self.reactor.clone(), self.witness.clone());
        self.until(|| witness.made() == witness.lost() + witness.left() && reactor.counters().watched == 0);
    }
}

/// A callback of a protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SeenCall {
    Made,
    Data,
    ReadLost,
    WriteLost,
    QueueLimit,
    Lost,
}

impl SeenCall {
    /// The callbacks that every connection may have without asking for them.
    pub(super) const ALL: [Self; 5] = [Self::Made, Self::Data, Self::ReadLost, Self::WriteLost, Self::Lost];
}

/// The action of a role in a callback. `Data` comes with the bytes.
type Act = Box<dyn FnMut(SeenCall, &Transport, &[u8]) -> Result<()>>;

/// A protocol that records its callbacks, and acts as its case directs.
pub(super) struct Role {
    end: End,
    half_close: bool,
    begin: Option<Begin>,
    act: Act,
}

impl Role {
    pub(super) fn new() -> Self {
        Self { end: End::default(), half_close: false, begin: None, act: Box::new(|_, _, _| Ok(())) }
    }

    /// Returns a role that sends everything back.
    pub(super) fn echo() -> Self {
        Self::new().on(SeenCall::Data, |transport, data| {
            transport.write(data);
            Ok(())
        })
    }

    pub(super) fn half_close(mut self) -> Self {
        self.half_close = true;
        self
    }

    /// Calls `begin` on its transport before anything else.
    pub(super) fn begins(mut self, begin: Option<Begin>) -> Self {
        self.begin = begin;
        self
    }

    /// Adds an action to a callback, after those already there.
    pub(super) fn on(mut self, when: SeenCall, mut act: impl FnMut(&Transport, &[u8]) -> Result<()> + 'static) -> Self {
        let mut before = self.act;
        self.act = Box::new(move |call, transport, data| {
            before(call, transport, data)?;
            if call == when { act(transport, data) } else { Ok(()) }
        });
        self
    }

    /// Adds an action that can't fail.
    pub(super) fn does(self, when: SeenCall, mut act: impl FnMut(&Transport) + 'static) -> Self {
        self.on(when, move |transport, _| {
            act(transport);
            Ok(())
        })
    }

    /// Expects a prefix of these bytes, and nothing else. Records a fault in the witness at once
    /// otherwise.
    pub(super) fn expects(self, all: impl Into<Rc<[u8]>>, witness: &Witness) -> Self {
        let (all, witness, mut seen) = (all.into(), witness.clone(), 0);
        self.on(SeenCall::Data, move |_, data| {
            if all.get(seen..seen + data.len()) != Some(data) {
                witness.fault(format!("after {seen} bytes the received bytes differ from the sent ones"));
            }
            seen += data.len();
            Ok(())
        })
    }

    /// Returns a handle to the role's record.
    pub(super) fn end(&self) -> End {
        self.end.clone()
    }

    fn call(&mut self, call: SeenCall, transport: &Transport, data: &[u8]) -> Result<()> {
        match call {
            SeenCall::Data => self.end.0.chunks.set(self.end.0.chunks.get() + 1),
            call => self.end.0.calls.borrow_mut().push(call),
        }
        (self.act)(call, transport, data)
    }
}

impl Protocol for Role {
    fn half_close(&self) -> bool {
        self.half_close
    }

    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        if let Some(begin) = self.begin.take() {
            begin(transport);
        }
        self.end.0.transport.replace(Some(transport.clone()));
        self.call(SeenCall::Made, transport, b"")
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        self.end.0.received.borrow_mut().extend_from_slice(data);
        self.call(SeenCall::Data, transport, data)
    }

    fn read_connection_lost(&mut self, transport: &Transport) -> Result<()> {
        self.call(SeenCall::ReadLost, transport, b"")
    }

    fn write_connection_lost(&mut self, transport: &Transport) -> Result<()> {
        self.call(SeenCall::WriteLost, transport, b"")
    }

    fn queue_limit_reached(&mut self, transport: &Transport) -> Result<()> {
        self.call(SeenCall::QueueLimit, transport, b"")
    }

    fn connection_lost(&mut self, transport: &Transport, reason: &Failure) {
        self.end.0.reason.replace(Some(reason.clone()));
        // A failure after the end can't be reported.
        let _ = self.call(SeenCall::Lost, transport, b"");
    }
}

/// The record of a role. A cheap handle.
#[derive(Clone, Default)]
pub(super) struct End(Rc<Record>);

#[derive(Default)]
struct Record {
    /// The callbacks without `Data`, of which there may be thousands.
    calls: RefCell<Vec<SeenCall>>,
    chunks: Cell<usize>,
    received: RefCell<Vec<u8>>,
    transport: RefCell<Option<Transport>>,
    reason: RefCell<Option<Failure>>,
}

impl End {
    #[track_caller]
    pub(super) fn transport(&self) -> Transport {
        self.0.transport.borrow().clone().unwrap_or_else(|| panic!("the connection was not made"))
    }

    pub(super) fn with_transport(&self, call: impl FnOnce(&Transport)) {
        let transport = self.0.transport.borrow().clone();
        if let Some(transport) = transport {
            call(&transport);
        }
    }

    pub(super) fn has(&self, call: SeenCall) -> bool {
        self.count(call) > 0
    }

    pub(super) fn count(&self, call: SeenCall) -> usize {
        match call {
            SeenCall::Data => self.0.chunks.get(),
            call => self.0.calls.borrow().iter().filter(|made| **made == call).count(),
        }
    }

    /// Returns the callbacks, without `Data`.
    pub(super) fn calls(&self) -> Vec<SeenCall> {
        self.0.calls.borrow().clone()
    }

    pub(super) fn is_over(&self) -> bool {
        self.has(SeenCall::Lost)
    }

    pub(super) fn received(&self) -> Vec<u8> {
        self.0.received.borrow().clone()
    }

    pub(super) fn count_received(&self) -> usize {
        self.0.received.borrow().len()
    }

    /// Returns the reason of the connection's end: the engine's error.
    #[track_caller]
    pub(super) fn reason(&self) -> Failure {
        self.0.reason.borrow().clone().unwrap_or_else(|| panic!("the connection has not ended"))
    }

    /// Returns `true` if the connection is made and its handshake, if any, is done, or if the
    /// connection has ended.
    pub(super) fn is_ready(&self) -> bool {
        let is_through =
            || self.0.transport.borrow().as_ref().is_some_and(|transport| !transport.stream().is_handshaking());
        self.has(SeenCall::Made) && (self.is_over() || is_through())
    }

    #[track_caller]
    pub(super) fn assert_done(&self) {
        let reason = self.reason();
        assert!(matches!(reason.check(), Some(ConnectionClosed::Done)), "{reason}");
    }

    #[track_caller]
    pub(super) fn assert_truncated(&self) {
        let reason = self.reason();
        assert!(matches!(reason.check(), Some(ConnectionClosed::Truncated)), "{reason}");
    }

    #[track_caller]
    pub(super) fn assert_aborted(&self) {
        let reason = self.reason();
        assert!(matches!(reason.check(), Some(ConnectionClosed::Aborted)), "{reason}");
    }

    #[track_caller]
    pub(super) fn assert_reset(&self) {
        let reason = self.reason();
        assert!(matches!(reason.check(), Some(ConnectionClosed::Reset { .. })), "{reason}");
    }
}

impl fmt::Debug for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = self.0.reason.borrow().as_ref().map(ToString::to_string);
        f.debug_struct("End").field("calls", &self.calls()).field("reason", &reason).finish_non_exhaustive()
    }
}

/// A log of several parties.
#[derive(Clone, Default, Debug)]
pub(super) struct Log(Rc<RefCell<Vec<String>>>);

impl Log {
    pub(super) fn add(&self, what: impl Into<String>) {
        self.0.borrow_mut().push(what.into());
    }

    pub(super) fn all(&self) -> Vec<String> {
        self.0.borrow().clone()
    }

    pub(super) fn len(&self) -> usize {
        self.0.borrow().len()
    }
}

/// Returns a factory for one role. A second connection is refused.
pub(super) fn once(role: Role) -> impl Factory<Protocol = Role> {
    let mut role = Some(role);
    move |_| role.take()
}

/// Returns bytes with a prime period, so that missing, added or moved bytes are detected.
pub(super) fn pattern(length: usize) -> Vec<u8> {
    let period: Vec<u8> = (0..251).collect();
    let mut bytes = period.repeat(length.div_ceil(period.len()));
    bytes.truncate(length);
    bytes
}

/// Returns the error of a failed attempt.
#[track_caller]
pub(super) fn connect_error<T>(result: &Result<T>) -> &ConnectError {
    let Err(failure) = result else { panic!("the attempt succeeded") };
    failure.check().unwrap_or_else(|| panic!("not an error of connecting: {failure}"))
}
