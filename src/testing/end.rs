//! [`End`]: one end of a connection without a socket. It serves a transport and its joint as the
//! reactor does, with two buffers ([`Pipe`]) in place of the kernel's.
//!
//! It keeps the reactor's order: it delivers arrived data to the joint ([`End::take_in`]), then
//! data held back during a pause ([`End::deliver_held`]), carries out requests ([`End::settle`]),
//! and last notifies the protocol of what ended ([`End::tell`]). Nothing is borrowed during a
//! callback.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{OwnedFd, RawFd};
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::VirtualClock;
use crate::address::AddressPair;
use crate::failure::{Failure, Result, guarded_result};
use crate::protocol::{Connection, ErasedJoint, Protocol};
use crate::time::{Clock as _, DelayedCall, Timers};
use crate::transport::context::TransportContext;
use crate::transport::driver::{Credentials, Driver, SocketOption};
use crate::transport::id::Id;
use crate::transport::send_queue::CHUNK;
use crate::transport::settle::{self, Later, Settler};
use crate::transport::step::{CloseMode, LINGER_BYTES, LINGER_TIME};
use crate::transport::stream::Stream;
use crate::transport::{DiscardMode, Transport};

/// The id of a context's only connection.
const ID: Id = Id { slot: 0, generation: 0 };

/// One end: a transport, its simulated socket, and an optional protocol.
pub(super) struct End {
    transport: Transport,
    context: Rc<TransportContext>,
    socket: Rc<EndSocket>,
    timer: Cell<Option<DelayedCall>>,
    /// True while the stream wants bytes.
    receiving: Cell<bool>,
    /// Results of settling, for the phases that follow.
    resumed: Cell<bool>,
    queue_notices: Cell<bool>,
    shut: Cell<bool>,
    closing: Cell<Option<CloseMode>>,
    /// Set by an abort after both ends had been sent: the kernels are done with the connection, so
    /// no reset is sent.
    finished: Cell<bool>,
    lost: RefCell<Option<Failure>>,
}

impl End {
    /// Creates an end whose socket holds at most `room` bytes that the other end has not taken.
    pub(super) fn new(host: SocketAddr, peer: SocketAddr, room: usize, clock: VirtualClock) -> Self {
        let socket = Rc::new(EndSocket::new(room, clock));
        let driver = Rc::downgrade(&socket) as Weak<dyn Driver>;
        let context = Rc::new(TransportContext::new(driver));
        let transport = Transport::new(ID, Rc::clone(&context), AddressPair::new(host.into(), peer.into()));
        transport.mark_dirty();
        Self {
            transport,
            context,
            socket,
            timer: Cell::default(),
            receiving: Cell::new(false),
            resumed: Cell::new(false),
            queue_notices: Cell::new(false),
            shut: Cell::new(false),
            closing: Cell::new(None),
            finished: Cell::new(false),
            lost: RefCell::default(),
        }
    }

    pub(super) fn transport(&self) -> &Transport {
        &self.transport
    }

    pub(super) fn socket(&self) -> &EndSocket {
        &self.socket
    }

    /// Returns the reason of the connection's end, once it has ended.
    pub(super) fn lost(&self) -> Option<Failure> {
        self.lost.borrow().clone()
    }

    /// Returns `true` if the connection was reset, or will be.
    pub(super) fn is_aborted(&self) -> bool {
        self.socket.aborted.get() || self.transport.stream().is_aborting()
    }

    /// Joins a protocol to the transport.
    pub(super) fn put<P: Protocol>(&self, protocol: P) -> Connection<P> {
        let (connection, joint) = Connection::join(protocol, self.transport.clone());
        self.socket.joint.replace(Some(joint));
        connection
    }

    /// Takes a factory's step for the transport, before the protocol's first callback.
    pub(super) fn prepare(&self, step: impl FnOnce(&Transport) -> Result<()>) {
        if let (Err(failure), Some(joint)) = (guarded_result(|| step(&self.transport)), self.joint()) {
            joint.callback_failed("the preparation of a transport", failure);
        }
    }

    /// Makes the protocol's first callback.
    pub(super) fn join(&self) {
        if let Some(joint) = self.joint() {
            // A failure has already become the reason for the connection's end.
            let _ = joint.connection_made();
        }
    }

    fn joint(&self) -> Option<Rc<dyn ErasedJoint>> {
        self.socket.joint.borrow().clone()
    }

    /// Phase 6: takes one event from the peer's pipe, with at most `limit` bytes, and delivers it.
    pub(super) fn take_in(&self, pipe: &RefCell<Pipe>, limit: usize) -> EndArrival {
        match self.socket.state.get() {
            EndState::Open => self.take_in_open(pipe, limit),
            EndState::Lingering(left) => self.take_in_lingering(pipe, left),
            EndState::Closed => {
                let mut pipe = pipe.borrow_mut();
                pipe.reset = false;
                match pipe.drop_bytes() {
                    0 => EndArrival::Nothing,
                    count if self.finished.get() => EndArrival::Dropped(count),
                    count => {
                        self.socket.out.borrow_mut().reset = true;
                        EndArrival::Refused(count)
                    }
                }
            }
        }
    }

    fn take_in_open(&self, pipe: &RefCell<Pipe>, limit: usize) -> EndArrival {
        let (data, ended, reset) = {
            let mut pipe = pipe.borrow_mut();
            let receiving = self.receiving.get();
            let count = if receiving { pipe.bytes.len().min(limit).min(CHUNK) } else { 0 };
            let data: Vec<u8> = pipe.bytes.drain(..count).collect();
            let empty = data.is_empty() && pipe.bytes.is_empty();
            // If nothing is being read, a reset is reported at once; otherwise after the bytes
            // before it.
            let reset = pipe.reset && (empty || !receiving);
            let rest = !pipe.bytes.is_empty();
            let ended = receiving && empty && pipe.ended && !pipe.end_told && !reset;
            pipe.end_told |= ended;
            if reset {
                // A reset leaves an end behind, which follows once the rest has been read.
                (pipe.reset, pipe.ended, pipe.end_told) = (false, true, false);
            }
            (data, ended, reset.then_some(rest))
        };
        let joint = self.joint();
        if let Some(rest) = reset {
            self.transport.update(|stream| stream.broken(io::ErrorKind::ConnectionReset.into(), rest));
            return EndArrival::Reset;
        }
        if ended {
            if let Some(joint) = joint {
                joint.end_of_stream();
            }
            return EndArrival::Ended;
        }
        if data.is_empty() {
            return EndArrival::Nothing;
        }
        if let Some(joint) = joint {
            joint.data_received(&data);
        }
        EndArrival::Data(data)
    }

    /// Drops bytes that arrive after our end, within bounds.
    fn take_in_lingering(&self, pipe: &RefCell<Pipe>, left: usize) -> EndArrival {
        let mut pipe = pipe.borrow_mut();
        let count = pipe.drop_bytes();
        let left = left.saturating_sub(count);
        if pipe.ended || pipe.reset || left == 0 {
            pipe.reset = false;
            self.disarm();
            self.socket.state.set(EndState::Closed);
        } else {
            self.socket.state.set(EndState::Lingering(left));
        }
        if count > 0 { EndArrival::Dropped(count) } else { EndArrival::Nothing }
    }

    /// Finishes phase 6: delivers data that was held back during a pause. Returns `true` if there
    /// was any.
    pub(super) fn deliver_held(&self) -> bool {
        let joint = self.joint();
        match joint {
            Some(joint) if self.resumed.take() => {
                joint.deliver_held();
                true
            }
            _ => false,
        }
    }

    /// Phase 7: carries out the stream's requests. Makes no callbacks. Returns `true` if there was
    /// anything to do.
    pub(super) fn settle(&self) -> bool {
        if self.context.is_clean() {
            return false;
        }
        self.context.take_dirty(Vec::new());
        let mut stream = self.transport.stream();
        stream.clear_dirty();
        settle::settle(&self.transport, &mut stream, &mut &*self)
    }

    /// Moves the queue to the socket, as far as there is room.
    fn send(&self, stream: &mut Stream) {
        while !stream.queue.is_empty() {
            let count = self.socket.take(stream.queue.front());
            stream.queue.advance(count, &self.context.pool);
            stream.sent(count);
            if count == 0 {
                stream.blocked();
                return;
            }
        }
    }

    /// Sends before the settling phase, so that a test can inspect the written bytes.
    pub(super) fn send_ahead(&self) {
        self.send(&mut self.transport.stream());
    }

    /// Unblocks the stream, after the peer has taken bytes from a full socket.
    pub(super) fn room_again(&self) {
        if self.socket.full.take() {
            self.transport.update(Stream::unblocked);
        }
    }

    /// Phase 8: notifies the protocol of what ended. Returns the reason if the connection ended.
    /// After `peer_ended` there may be nothing left to reset.
    pub(super) fn tell(&self, peer_ended: bool) -> Option<Failure> {
        let joint = self.joint();
        if self.queue_notices.take()
            && let Some(joint) = &joint
        {
            joint.tell_of_queue();
        }
        if self.shut.take()
            && let Some(joint) = &joint
        {
            joint.write_connection_lost();
        }
        let mode = self.closing.take().filter(|_| !self.socket.discarded.get())?;
        self.disarm();
        let reason = self.transport.stream().take_reason();
        self.close(mode, peer_ended);
        self.socket.joint.take();
        *self.lost.borrow_mut() = Some(reason.clone());
        if let Some(joint) = joint {
            joint.connection_lost(&reason);
        }
        Some(reason)
    }

    fn close(&self, mode: CloseMode, peer_ended: bool) {
        self.receiving.set(false);
        self.socket.aborted.set(mode == CloseMode::Reset);
        match mode {
            CloseMode::Reset => {
                self.finished.set(self.socket.is_ended() && peer_ended);
                self.socket.out.borrow_mut().reset = !self.finished.get();
                self.socket.state.set(EndState::Closed);
            }
            CloseMode::Plain => {
                self.socket.end();
                self.socket.state.set(EndState::Closed);
            }
            CloseMode::Linger => {
                self.socket.end();
                self.socket.state.set(EndState::Lingering(LINGER_BYTES));
                self.arm(LINGER_TIME, |_, socket| socket.state.set(EndState::Closed));
            }
        }
    }

    fn arm(&self, after: Duration, call: impl FnOnce(&Transport, &EndSocket) + 'static) {
        let (transport, socket) = (self.transport.clone(), Rc::clone(&self.socket));
        self.timer.set(Some(self.socket.clock.call_later(after, move || call(&transport, &socket))));
    }

    fn disarm(&self) {
        if let Some(timer) = self.timer.take() {
            // The timer may have fired already.
            let _ = timer.cancel();
        }
    }
}

impl Settler for &End {
    fn send(&mut self, stream: &mut Stream) -> bool {
        End::send(self, stream);
        false
    }

    fn shut_down_writing(&mut self) {
        self.socket.end();
    }

    fn receive(&mut self, on: bool) {
        self.receiving.set(on);
    }

    fn receive_rest(&mut self) {
        self.receiving.set(true);
    }

    fn arm_deadline(&mut self, after: Duration) {
        self.arm(after, |transport, socket| {
            let joint = socket.joint.borrow().clone();
            match joint {
                Some(joint) => joint.deadline_passed(),
                None => transport.update(|stream| drop(stream.deadline_passed())),
            }
        });
    }

    fn disarm_deadline(&mut self) {
        self.disarm();
    }

    fn leave(&mut self, later: Later) {
        match later {
            Later::DeliverHeld => self.resumed.set(true),
            Later::TellOfQueue => self.queue_notices.set(true),
            Later::TellOfShut => self.shut.set(true),
            Later::Close(mode) => self.closing.set(Some(mode)),
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.disarm();
        self.context.close();
    }
}

/// The result of one [`End::take_in`].
pub(super) enum EndArrival {
    /// There was nothing to take.
    Nothing,
    /// Bytes, already delivered to the joint.
    Data(Vec<u8>),
    /// The end of the peer's stream.
    Ended,
    /// The peer reset the connection.
    Reset,
    /// This many bytes arrived after our end, and were dropped.
    Dropped(usize),
    /// This many bytes arrived after the socket was closed, and are answered with a reset.
    Refused(usize),
}

/// The simulated socket of an [`End`].
pub(super) struct EndSocket {
    /// Bytes sent and not yet taken by the other end.
    pub(super) out: RefCell<Pipe>,
    room: usize,
    /// Set if a send did not fit.
    full: Cell<bool>,
    state: Cell<EndState>,
    /// The connection was reset by this end.
    aborted: Cell<bool>,
    /// The connection was discarded: its protocol is told nothing.
    discarded: Cell<bool>,
    pub(super) options: RefCell<Options>,
    joint: RefCell<Option<Rc<dyn ErasedJoint>>>,
    /// The clock of close timeouts, lingering and the transport's timers.
    pub(super) clock: VirtualClock,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum EndState {
    Open,
    /// Closed on our side. At most this many bytes more are read and dropped.
    Lingering(usize),
    Closed,
}

impl EndSocket {
    fn new(room: usize, clock: VirtualClock) -> Self {
        Self {
            out: RefCell::default(),
            room,
            full: Cell::new(false),
            state: Cell::new(EndState::Open),
            aborted: Cell::new(false),
            discarded: Cell::new(false),
            options: RefCell::default(),
            joint: RefCell::default(),
            clock,
        }
    }

    /// Takes as many bytes as there is room for.
    fn take(&self, data: &[u8]) -> usize {
        let mut out = self.out.borrow_mut();
        let count = data.len().min(self.room.saturating_sub(out.bytes.len()));
        out.bytes.extend(&data[..count]);
        if count < data.len() {
            self.full.set(true);
        }
        count
    }

    fn end(&self) {
        self.out.borrow_mut().ended = true;
    }

    /// Returns `true` if our end was sent.
    pub(super) fn is_ended(&self) -> bool {
        self.out.borrow().ended
    }
}

impl Driver for EndSocket {
    fn passes_descriptors(&self, _id: Id) -> bool {
        false
    }

    /// Always fails: both ends belong to the test.
    fn peer_credentials(&self, _id: Id) -> io::Result<Credentials> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn send_now(&self, _: Id, data: &[u8]) -> usize {
        self.take(data)
    }

    fn set_option(&self, _: Id, option: SocketOption) -> io::Result<()> {
        let mut options = self.options.borrow_mut();
        match option {
            SocketOption::NoDelay(on) => options.no_delay = on,
            SocketOption::KeepAlive(on) => options.keep_alive = on,
            SocketOption::KeepAliveTimes(idle, interval, count) => {
                options.keep_alive_times = Some((idle, interval, count));
            }
            SocketOption::UserTimeout(timeout) => options.user_timeout = Some(timeout),
            SocketOption::QuickAck => {}
        }
        Ok(())
    }

    fn no_delay(&self, _: Id) -> io::Result<bool> {
        Ok(self.options.borrow().no_delay)
    }

    fn keep_alive(&self, _: Id) -> io::Result<bool> {
        Ok(self.options.borrow().keep_alive)
    }

    fn raw_fd(&self, _: Id) -> Option<RawFd> {
        None
    }

    /// Always fails: there is no socket.
    fn duplicate(&self, _: Id, _lasting: bool) -> io::Result<OwnedFd> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn discard(&self, _: Id, mode: DiscardMode) {
        self.discarded.set(true);
        self.state.set(EndState::Closed);
        match mode {
            DiscardMode::End => self.end(),
            DiscardMode::Reset => {
                self.aborted.set(true);
                self.out.borrow_mut().reset = true;
            }
        }
        let joint = self.joint.take();
        if let Some(joint) = joint {
            joint.discard();
        }
    }

    fn above(&self, _: Id, look: &mut dyn FnMut(&dyn Any)) {
        let joint = self.joint.borrow().clone();
        if let Some(joint) = &joint {
            look(joint);
        }
    }

    fn timers(&self) -> Timers {
        self.clock.timers().clone()
    }
}

/// The options that were set. All are off by default, like the system's.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Options {
    pub(super) no_delay: bool,
    pub(super) keep_alive: bool,
    pub(super) keep_alive_times: Option<(Duration, Duration, u32)>,
    pub(super) user_timeout: Option<Duration>,
}

/// One direction: bytes sent and not yet taken. An end or a reset follows the bytes.
#[derive(Default)]
pub(super) struct Pipe {
    pub(super) bytes: VecDeque<u8>,
    pub(super) ended: bool,
    pub(super) reset: bool,
    end_told: bool,
}

impl Pipe {
    fn drop_bytes(&mut self) -> usize {
        let count = self.bytes.len();
        self.bytes.clear();
        count
    }
}
