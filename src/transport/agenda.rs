//! [`Agenda`]: the list of connections that have something to be done, and the way down to their sockets for the few
//! questions that can't wait for the end of the turn. It is all that a transport knows of the reactor.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::Transport;
use super::send_queue::Spares;
use crate::time::Timers;

/// Names one thing that a reactor watches: a place in its table, and a generation, so that what is said of an earlier
/// tenant of the same place is recognised as stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Id {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// Who is at the other end of a UNIX socket: the process that connected, or listened, when it did so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Credentials {
    /// The process; another one may have its number by now.
    pub pid: i32,
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// What a socket can be asked at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SocketOption {
    NoDelay(bool),
    KeepAlive(bool),
    /// Idle time before the first probe, time between probes, probes before giving up.
    KeepAliveTimes(Duration, Duration, u32),
    /// How long sent bytes may stay unacknowledged.
    UserTimeout(Duration),
    /// Acknowledges what was received at once, instead of waiting for an answer to go with it.
    QuickAck,
}

/// What a reactor does for its transports between two settlings. Nothing here calls a protocol.
pub(crate) trait Driver {
    /// Hands the socket what it takes at once, without queueing; 0 where it takes nothing or fails (the settling phase will
    /// meet the error again). The system waits for what is written behind it, until the settling phase.
    fn send_now(&self, id: Id, data: &[u8]) -> usize;
    /// Sets an option of the socket.
    fn set_option(&self, id: Id, option: SocketOption) -> io::Result<()>;
    /// Whether Nagle's algorithm is off.
    fn no_delay(&self, id: Id) -> io::Result<bool>;
    /// Whether keep-alive is on.
    fn keep_alive(&self, id: Id) -> io::Result<bool>;
    /// Whether descriptors can be sent with bytes.
    fn passes_descriptors(&self, id: Id) -> bool;
    /// Who is at the other end of a UNIX socket.
    fn peer_credentials(&self, id: Id) -> io::Result<Credentials>;
    /// The descriptor.
    fn raw_fd(&self, id: Id) -> Option<RawFd>;
    /// Shows `look` what stands above the transport, and was built by a room above this one.
    fn above(&self, id: Id, look: &mut dyn FnMut(&dyn Any));
    /// The timers that go with the connection.
    fn timers(&self) -> Timers;
}

/// A callback of a protocol, for who watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call<'a> {
    Made,
    Data(&'a [u8]),
    Descriptor,
    HandshakeCompleted,
    ReadLost,
    WriteLost,
    QueueLimit,
    Lost,
}

impl Call<'_> {
    /// The method of `Protocol`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Made => "connection_made",
            Self::Data(_) => "data_received",
            Self::Descriptor => "file_descriptor_received",
            Self::HandshakeCompleted => "handshake_completed",
            Self::ReadLost => "read_connection_lost",
            Self::WriteLost => "write_connection_lost",
            Self::QueueLimit => "queue_limit_reached",
            Self::Lost => "connection_lost",
        }
    }
}

/// Watches what passes between transports and their protocols: the test kit, where a network looks after its reactors. Nothing
/// of it may call back.
pub(crate) trait Watch {
    /// A protocol above so many layers has written this, and it will be sent.
    fn written(&self, id: Id, level: usize, data: &[u8]);
    /// A stream has so many layers now.
    fn layered(&self, id: Id, levels: usize);
    /// A protocol above so many layers is about to be called.
    fn calls(&self, id: Id, level: usize, call: Call<'_>);
    /// The call is over, however it ended.
    fn returned(&self, id: Id);
}

/// A call that waits until the protocol of a connection is free.
type Waiting = (Id, Box<dyn FnOnce()>);

/// Shared by a reactor and all its transports.
pub(crate) struct Agenda {
    due: RefCell<Vec<Transport>>,
    /// There is nobody any more who would do what is due: the list keeps no transport, which would keep the list.
    is_closed: Cell<bool>,
    pub(crate) spares: Spares,
    pub(crate) driver: Weak<dyn Driver>,
    pub(crate) watch: Option<Rc<dyn Watch>>,
    /// How many protocols are reached from outside at present.
    entered: Cell<usize>,
    /// What is to be done when none is any more.
    postponed: Cell<Option<Box<dyn FnOnce()>>>,
    /// There are calls that wait for a protocol: looked at behind each callback.
    has_waiting: Cell<bool>,
    waiting: RefCell<VecDeque<Waiting>>,
}

impl Agenda {
    pub(crate) fn new(driver: Weak<dyn Driver>, watch: Option<Rc<dyn Watch>>) -> Self {
        Self {
            due: RefCell::default(),
            is_closed: Cell::new(false),
            spares: Spares::default(),
            driver,
            watch,
            entered: Cell::new(0),
            postponed: Cell::default(),
            has_waiting: Cell::new(false),
            waiting: RefCell::default(),
        }
    }

    /// A protocol is reached from outside: until the guard is dropped nothing may call protocols.
    pub(crate) fn enter(&self) -> Entered<'_> {
        self.entered.set(self.entered.get() + 1);
        Entered(self)
    }

    /// Whether protocols are reached from outside at present.
    pub(crate) fn is_entered(&self) -> bool {
        self.entered.get() > 0
    }

    /// Has something done when no protocol is reached from outside any more.
    pub(crate) fn postpone(&self, call: impl FnOnce() + 'static) {
        self.postponed.set(Some(Box::new(call)));
    }

    /// Keeps a call until the protocol of a connection is free.
    pub(crate) fn wait(&self, id: Id, call: Box<dyn FnOnce()>) {
        self.waiting.borrow_mut().push_back((id, call));
        self.has_waiting.set(true);
    }

    /// True if calls wait for any protocol.
    #[inline]
    pub(crate) fn has_waiting(&self) -> bool {
        self.has_waiting.get()
    }

    /// True if calls wait for the protocol of this connection.
    pub(crate) fn has_waiting_for(&self, id: Id) -> bool {
        self.waiting.borrow().iter().any(|(of, _)| *of == id)
    }

    /// The first call that waits for the protocol of this connection.
    pub(crate) fn next_waiting(&self, id: Id) -> Option<Box<dyn FnOnce()>> {
        let mut waiting = self.waiting.borrow_mut();
        let first = waiting.iter().position(|(of, _)| *of == id)?;
        let (_, call) = waiting.remove(first)?;
        self.has_waiting.set(!waiting.is_empty());
        Some(call)
    }

    /// Puts a connection on the list. The connection keeps itself from being on it twice.
    #[inline(always)]
    pub(crate) fn add(&self, transport: &Transport) {
        if !self.is_closed.get() {
            self.due.borrow_mut().push(transport.clone());
        }
    }

    /// Nothing is done about transports any more.
    pub(crate) fn close(&self) {
        self.is_closed.set(true);
        drop(self.due.take());
    }

    /// Whether nothing is to be done.
    pub(crate) fn is_empty(&self) -> bool {
        self.due.borrow().is_empty()
    }

    /// Takes the list, leaving `empty` (which keeps its capacity) for what is added meanwhile.
    pub(crate) fn take(&self, empty: Vec<Transport>) -> Vec<Transport> {
        self.due.replace(empty)
    }
}

/// Says that a protocol is reached from outside, until it is dropped. From [`Agenda::enter`].
pub(crate) struct Entered<'a>(&'a Agenda);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.entered.set(self.0.entered.get() - 1);
        if !self.0.is_entered()
            && let Some(call) = self.0.postponed.take()
        {
            call();
        }
    }
}
