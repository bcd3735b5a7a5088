//! [`TrafficLog`]: a record of the bytes of a connection (Twisted: `TrafficLoggingFactory`,
//! `SpewingFactory` with a name for each connection).
//!
//! A written piece is recorded while the stream is borrowed, and a subscriber or a function of the
//! program may do anything. So records of writes wait until nothing is borrowed: for the next
//! received bytes, or for a timer of the next turn. Their order is that of the calls.

use std::cell::{Cell, RefCell};
use std::fmt::{self, Write as _};
use std::rc::Rc;
use std::time::Duration;

use crate::address::Address;
use crate::failure::guarded;
use crate::log::error;
use crate::time::{Clock, Timers};

/// The default limit of the bytes in a record. 256: a few lines of text, or a screen of hex.
const EXCERPT_BYTES: usize = 256;

/// Direction of recorded bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrafficDirection {
    /// The bytes went to the protocol.
    Received,
    /// The protocol wrote the bytes.
    Written,
}

/// Bytes that a protocol was given, or that it wrote, as a function of the program gets them.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct TrafficRecord<'a> {
    /// The address of the other end.
    pub peer: &'a Address,
    /// The direction.
    pub direction: TrafficDirection,
    /// Number of bytes.
    pub length: usize,
    /// The first of the bytes: all of them, if the limit of the log allows.
    pub excerpt: &'a [u8],
}

/// The form of the bytes in an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrafficFormat {
    /// As text, with escapes for everything that is not printable ASCII.
    Text,
    /// As pairs of hexadecimal digits.
    Hex,
}

impl TrafficFormat {
    /// Returns the bytes in this form.
    ///
    /// ```
    /// use ropewalk::policies::TrafficFormat;
    ///
    /// assert_eq!(TrafficFormat::Text.show(b"GET /\r\n"), r"GET /\r\n");
    /// assert_eq!(TrafficFormat::Hex.show(b"GET"), "47 45 54");
    /// ```
    pub fn show(self, bytes: &[u8]) -> String {
        match self {
            Self::Text => bytes.escape_ascii().to_string(),
            Self::Hex => bytes.iter().enumerate().fold(String::new(), |mut shown, (place, byte)| {
                let gap = if place == 0 { "" } else { " " };
                // Writing to a string cannot fail.
                let _ = write!(shown, "{gap}{byte:02x}");
                shown
            }),
        }
    }
}

/// A log of the bytes that protocols are given and write: those of the protocol, above TLS.
///
/// Events go to [`tracing`](https://docs.rs/tracing), with the target `ropewalk::traffic` and the
/// level DEBUG. Received bytes are logged before the protocol has them. Written bytes are logged
/// before the next received ones, and in the next turn at the latest. Bytes that a receiver leaves
/// behind a pause are logged again when it gets them again. The writes of a connection's
/// last turn are not logged if the reactor is closed in that turn.
///
/// ```
/// use std::cell::Cell;
/// use std::rc::Rc;
/// use ropewalk::policies::{TrafficDirection, TrafficFormat, TrafficLog};
///
/// let events = TrafficLog::events(TrafficFormat::Hex).excerpt(64);
///
/// let received = Rc::new(Cell::new(0));
/// let sum = received.clone();
/// let counted = TrafficLog::function(move |record| {
///     if record.direction == TrafficDirection::Received {
///         sum.set(sum.get() + record.length);
///     }
/// });
/// # drop((events, counted));
/// ```
#[derive(Clone)]
pub struct TrafficLog {
    sink: TrafficSink,
    excerpt: usize,
}

#[derive(Clone)]
enum TrafficSink {
    Events(TrafficFormat),
    Function(Rc<dyn Fn(&TrafficRecord<'_>)>),
}

impl TrafficLog {
    /// Logs to `tracing`.
    pub fn events(format: TrafficFormat) -> Self {
        Self { sink: TrafficSink::Events(format), excerpt: EXCERPT_BYTES }
    }

    /// Calls a function with each record, on the reactor's thread, while no callback of a protocol
    /// runs on account of these bytes. A panic of the function is logged, and changes nothing.
    pub fn function(call: impl Fn(&TrafficRecord<'_>) + 'static) -> Self {
        Self { sink: TrafficSink::Function(Rc::new(call)), excerpt: EXCERPT_BYTES }
    }

    /// Sets the number of bytes that a record has at most. The default is 256.
    #[must_use]
    pub fn excerpt(self, bytes: usize) -> Self {
        Self { excerpt: bytes, ..self }
    }

    fn emit(&self, record: &TrafficRecord<'_>) {
        let emitted = guarded(|| match &self.sink {
            TrafficSink::Function(call) => call(record),
            TrafficSink::Events(format) => {
                let TrafficRecord { peer, direction, length, .. } = record;
                let bytes = format.show(record.excerpt);
                tracing::debug!(target: "ropewalk::traffic", %peer, ?direction, length, %bytes, "bytes of a connection");
            }
        });
        if let Err(panic) = emitted {
            error!(peer = %record.peer, %panic, "a log of traffic failed");
        }
    }
}

impl fmt::Debug for TrafficLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrafficLog").field("excerpt", &self.excerpt).finish_non_exhaustive()
    }
}

/// The log of one connection.
pub(crate) struct Traffic {
    log: TrafficLog,
    peer: RefCell<Address>,
    timers: Timers,
    /// Records of writes that were not emitted yet: their lengths and excerpts.
    written: RefCell<Vec<(usize, Vec<u8>)>>,
    is_scheduled: Cell<bool>,
}

impl Traffic {
    pub(crate) fn new(log: TrafficLog, peer: Address, timers: Timers) -> Rc<Self> {
        let peer = RefCell::new(peer);
        Rc::new(Self { log, peer, timers, written: RefCell::default(), is_scheduled: Cell::new(false) })
    }

    pub(crate) fn set_peer(&self, peer: Address) {
        self.peer.replace(peer);
    }

    /// Records a write. Calls nothing.
    pub(crate) fn note_written(self: &Rc<Self>, data: &[u8]) {
        self.written.borrow_mut().push((data.len(), self.excerpt(data).to_vec()));
        if !self.is_scheduled.replace(true) {
            let traffic = Rc::clone(self);
            self.timers.call_later(Duration::ZERO, move || {
                traffic.is_scheduled.set(false);
                traffic.flush();
            });
        }
    }

    /// Emits the records of writes, and then one of received bytes. Nothing may be borrowed.
    pub(crate) fn received(&self, data: &[u8]) {
        self.flush();
        self.emit(TrafficDirection::Received, data.len(), self.excerpt(data));
    }

    fn flush(&self) {
        for (length, excerpt) in self.written.take() {
            self.emit(TrafficDirection::Written, length, &excerpt);
        }
    }

    fn emit(&self, direction: TrafficDirection, length: usize, excerpt: &[u8]) {
        let peer = self.peer.borrow().clone();
        self.log.emit(&TrafficRecord { peer: &peer, direction, length, excerpt });
    }

    fn excerpt<'a>(&self, data: &'a [u8]) -> &'a [u8] {
        &data[..data.len().min(self.log.excerpt)]
    }
}
