//! [`Stream`]: the state machine of one connection. It makes no system call and calls no protocol.
//! Requests and events go in, and [`Stream::next_step`] returns the next thing to do.
//!
//! Everything that affects the states lives in this file and those beside it:
//!
//! | file | holds |
//! |---|---|
//! | `next_step.rs` | the slow path of `next_step` |
//! | `sending.rs` | sends and their results |
//! | `held.rs` | bytes that cannot be delivered yet |
//! | `discarded.rs` | an end that skips the states |
//! | `broken.rs` | the time between a fatal error of the network and its delivery |
//! | `one_way.rs` | one direction |
//! | `producing.rs`, `drain_waiter.rs` | producers; a future that waits for a short queue |
//! | `limit.rs` | the limit of the queue |
//! | `layered.rs` | layers |
//! | `policed.rs` | policies |
//!
//! A stream is three small machines:
//!
//! | reading | means | leaves it by |
//! |---|---|---|
//! | `Open` | bytes go to the protocol | pause, lose, end of stream |
//! | `Paused` | bytes are held back (`pauseProducing`) | resume, lose |
//! | `Discarding` | the connection is being lost: bytes are read, so that the peer is not blocked, and dropped | end of stream |
//! | `Ended` | the peer has sent its last byte | never |
//!
//! | writing | means | leaves it by |
//! |---|---|---|
//! | `Open` | writes are queued and sent | `lose_write_connection` |
//! | `Shutting` | as `Open`, and the direction is shut once the queue is empty | empty queue |
//! | `Shut` | writes are ignored | never |
//!
//! | closing | means | ends with |
//! |---|---|---|
//! | `No` | | |
//! | `Draining` | `lose_connection`, or the peer's end: sends writes, then closes | the reason, `Done` by default; the close timeout |
//! | `Broken` | the network is over; earlier bytes are still to be delivered | that error, once they are, or after 1 s of pause |
//! | `Failing` | a callback failed, or the reactor stops: one flush to the socket, then it closes | that failure |
//! | `Dead` | the network is over | that error |
//! | `Aborting` | `abort_connection`, or the close timeout: the queue is dropped, the peer sees a reset | `Aborted`, `CloseTimedOut` |
//! | `Over` | `next_step` has returned `Close`, or the stream was discarded | |
//!
//! A `Draining` stream closes when its queue is empty. The close timeout ends it only if the peer
//! takes no bytes. The flush of a `Failing` stream is what the socket takes at once.
//!
//! A stream may have layers (`layer.rs`). Then the queue here holds sealed bytes, written bytes
//! wait above it, and the reading side is that of the bytes that have passed all layers.
//!
//! A registered producer has a fourth machine, in `producer.rs`. The stream asks it for the notice
//! that is due, and whether a close waits for the producer.
//!
//! Rules:
//! 1. `closing` only moves down its table. The first reason of a state stays.
//! 2. Requests change states and mark the stream as dirty. Nothing is done before the next settling
//!    phase of the reactor's turn, so a request never calls back.
//! 3. When both directions have ended, the connection is over: `Done`.
//! 4. Bytes that arrive while reading is paused are held, in order, with an end of stream behind
//!    them, and delivered on resume. A fatal error of the network is noticed at once, even if a
//!    send met it, and ends the write direction. The protocol gets it behind the bytes that arrived
//!    before (`Broken`), or at once if there are none.
//! 5. A `Draining` stream closes when its queue is empty and no producer holds it. A producer gets
//!    no notice once the stream is past `Draining`.
//! 6. Before a stream with layers closes or shuts the write direction, the layers end that
//!    direction in their own way, behind all written bytes. In a `Failing` stream they do so only
//!    if all written bytes could be sealed, so that a cut stream does not look whole.
//! 7. After a break of the network, a connection that is to end anyway ends in its own way if all
//!    written bytes have left.
//! 8. A connection that was handed over begins unmade: its `connection_made` comes at the end of
//!    the turn, before anything else happens to it.
//! 9. While a layer's handshake is under way, bytes are received for it in every reading state, the
//!    write direction is not shut, and the handshake has a deadline.

mod broken;
mod discarded;
mod drain_waiter;
mod flags;
mod held;
mod layered;
mod limit;
mod next_step;
mod one_way;
mod optional_millis;
mod policed;
mod producing;
mod sending;

use std::time::Duration;

use self::flags::StreamFlags;
use self::held::Held;
use self::limit::Overflow;
use self::optional_millis::OptionalMillis;
use super::drained::DrainWaiter;
use super::layer::Layers;
use super::outgoing::Attached;
use super::policy::stream_policy::StreamPolicy;
use super::producer::Production;
use super::queue_limit::LimitAction;
use super::send_queue::SendQueue;
use super::step::{Delivery, EndNotice, Ending, Step};
use crate::error::ConnectionClosed;
use crate::failure::Failure;

/// Time that a closing connection waits for a peer that takes no bytes. 30 s: long enough for a bad
/// radio link to come back, short enough that a mute peer can't hold a descriptor for ever.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);

/// The states of one connection, its queue, and the reason of its end.
#[derive(Debug)]
pub(crate) struct Stream {
    /// The bytes to be sent, in the form in which they leave: sealed, if there are layers.
    pub(crate) queue: SendQueue,
    states: States,
    flags: StreamFlags,
    /// The deadline that is armed.
    deadline: Deadline,
    /// The action above `limit` queued bytes, if there is a limit.
    at_limit: Option<LimitAction>,
    limit: u32,
    /// Boxed, because few connections ever need any of it.
    extras: Option<Box<Extras>>,
    close_timeout: OptionalMillis,
}

/// The states, in one word, so that they are compared at once.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(4))]
struct States {
    reading: Reading,
    writing: Writing,
    closing: Closing,
    receiving: Receiving,
}

impl States {
    /// The states of a connection that is open in both directions, as most are.
    const OPEN: Self =
        Self { reading: Reading::Open, writing: Writing::Open, closing: Closing::No, receiving: Receiving::On };

    #[inline(always)]
    const fn is_open(self) -> bool {
        self.word() == Self::OPEN.word()
    }

    #[inline(always)]
    const fn word(self) -> u32 {
        u32::from_ne_bytes([self.reading as u8, self.writing as u8, self.closing as u8, self.receiving as u8])
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Reading {
    Open,
    Paused,
    Discarding,
    Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Writing {
    Open,
    Shutting,
    Shut,
}

/// The last request to the backend about receiving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Receiving {
    /// The protocol has not been told of the connection. Everything else waits for that.
    Unmade,
    Untold,
    Off,
    On,
    /// Receive the bytes that arrived before the network was over.
    Rest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum Closing {
    No,
    Draining,
    Broken,
    Failing,
    Dead,
    Aborting,
    Over,
}

/// The event that has to come before the deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deadline {
    None,
    /// The peer takes bytes of a closing connection.
    Close,
    /// The protocol resumes reading on a connection whose network is over.
    Unread,
    /// A layer's handshake is done.
    Handshake,
}

#[derive(Debug, Default)]
struct Extras {
    /// The reason why the stream ends, or has ended. `None`: in the regular way.
    reason: Option<Failure>,
    /// Bytes and an end that came while reading was paused.
    held: Option<Held>,
    /// The state of the registered producer, and its marks.
    production: Option<Production>,
    /// The future that waits for a short queue.
    drain_waiter: Option<DrainWaiter>,
    /// Descriptors that leave with the queue.
    descriptors: Attached,
    /// The layers between the protocol and the network.
    layers: Layers,
    /// The state of a queue above its limit.
    overflow: Option<Overflow>,
    /// The limit is below a chunk, so that every write is compared with it.
    is_tight: bool,
    policy: Option<Box<StreamPolicy>>,
}

impl Stream {
    /// Creates an open connection that the backend is not receiving from yet.
    pub(crate) fn new() -> Self {
        Self {
            queue: SendQueue::default(),
            states: States { receiving: Receiving::Untold, ..States::OPEN },
            flags: StreamFlags::NONE,
            deadline: Deadline::None,
            at_limit: None,
            limit: 0,
            extras: None,
            close_timeout: OptionalMillis::from(Some(CLOSE_TIMEOUT)),
        }
    }

    /// Creates a stream that is over, in the place of one that has moved.
    pub(crate) fn over() -> Self {
        let states = States { reading: Reading::Ended, writing: Writing::Shut, closing: Closing::Over, ..States::OPEN };
        Self { states, ..Self::new() }
    }

    /// Makes `connection_made` the first step of this new stream.
    pub(crate) fn begin_unmade(&mut self) {
        self.states.receiving = Receiving::Unmade;
    }

    /// Returns `true`, once, if `connection_made` is to be called first.
    pub(crate) fn take_unmade(&mut self) -> bool {
        let is_unmade = self.states.receiving == Receiving::Unmade && !self.is_over();
        if is_unmade {
            self.states.receiving = Receiving::Untold;
        }
        is_unmade
    }

    /// Records that the protocol opts in to half-closes (Twisted: `IHalfCloseableProtocol`).
    pub(crate) fn set_half_close(&mut self, half_close: bool) {
        self.flags.set(StreamFlags::HALF_CLOSE, half_close);
    }

    /// Sets the close timeout; `None` waits without limit, as Twisted does.
    pub(crate) fn set_close_timeout(&mut self, timeout: Option<Duration>) {
        self.close_timeout = timeout.into();
    }

    // Requests.

    /// Returns `true` if a write would be sent.
    pub(crate) fn accepts_writes(&self) -> bool {
        let is_ending_layers = self.extras.is_some() && self.layers().is_some_and(|layers| layers.is_ending);
        self.states.closing <= Closing::Draining && self.states.writing != Writing::Shut && !is_ending_layers
    }

    /// Number of bytes, written or sealed, that the operating system has not taken yet.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.queue.len() + self.extras.as_ref().map_or(0, |extras| extras.queued_bytes())
    }

    /// Closes once all written bytes are sent (Twisted: `loseConnection`).
    pub(crate) fn lose(&mut self) {
        if self.states.closing < Closing::Draining {
            self.states.closing = Closing::Draining;
            self.stop_delivering();
        } else if self.states.closing == Closing::Broken {
            self.end_broken();
        }
    }

    /// Closes at once, and drops the queue (Twisted: `abortConnection`).
    pub(crate) fn abort(&mut self, reason: Failure) {
        self.close_with(Closing::Aborting, reason);
    }

    /// Closes because the reactor stops, or a layer failed.
    pub(crate) fn fail(&mut self, reason: Failure) {
        match self.states.closing {
            Closing::Broken => self.end_broken(),
            _ => self.close_with(Closing::Failing, reason),
        }
    }

    /// Closes because a callback failed. The failure is the reason even after an `abort_connection`
    /// of the same callback, or if an error of the network was still to be delivered.
    pub(crate) fn callback_failed(&mut self, failure: Failure) {
        match self.states.closing {
            Closing::Broken => self.close_with(Closing::Dead, failure),
            Closing::Aborting => self.set_reason(failure),
            _ => self.close_with(Closing::Failing, failure),
        }
    }

    /// Shuts the write direction once all written bytes are sent (Twisted: `loseWriteConnection`).
    pub(crate) fn lose_write(&mut self) {
        if self.states.writing == Writing::Open {
            self.states.writing = Writing::Shutting;
        }
    }

    /// Stops delivery until `resume` (Twisted: `pauseProducing`).
    pub(crate) fn pause(&mut self) {
        if self.states.reading == Reading::Open {
            self.states.reading = Reading::Paused;
        }
    }

    /// Delivers again (Twisted: `resumeProducing`).
    pub(crate) fn resume(&mut self) {
        if self.states.reading == Reading::Paused {
            self.states.reading = Reading::Open;
        }
    }

    /// Returns `true` if the protocol has paused reading.
    pub(crate) fn asked_to_pause(&self) -> bool {
        self.states.reading == Reading::Paused
    }

    /// Returns `true` if arriving bytes go to the protocol, now or later.
    pub(crate) fn delivers(&self) -> bool {
        matches!(self.states.closing, Closing::No | Closing::Broken)
    }

    /// Returns `true` if the connection is being lost (Twisted: `disconnecting`).
    pub(crate) fn is_closing(&self) -> bool {
        self.states.closing > Closing::No
    }

    /// Returns `true` if the connection is over (Twisted: `disconnected`).
    pub(crate) fn is_over(&self) -> bool {
        self.states.closing == Closing::Over
    }

    /// Returns `true` if the stream closes with the bytes that can be sent at once.
    pub(crate) fn is_failing(&self) -> bool {
        self.states.closing == Closing::Failing
    }

    /// Returns `true` if the stream closes, or was told to close, without sending its queue.
    #[cfg(feature = "testing")]
    pub(crate) fn is_aborting(&self) -> bool {
        self.states.closing == Closing::Aborting
    }

    /// Returns `true` if a layer can be put on top: both directions are open for its handshake.
    pub(crate) fn takes_layers(&self) -> bool {
        !self.is_closing() && self.accepts_writes() && self.states.reading != Reading::Ended
    }

    /// Returns `true` if the write direction was shut, or will be (Twisted: `_writeDisconnecting`).
    pub(crate) fn is_write_closing(&self) -> bool {
        self.states.writing != Writing::Open
    }

    /// Returns `true` if the peer has sent its last byte, and the protocol was told.
    pub(crate) fn has_read_all(&self) -> bool {
        self.states.reading == Reading::Ended
    }

    /// Returns `true` if reading is paused (Twisted: `producerState`).
    pub(crate) fn is_paused(&self) -> bool {
        self.reading() == Reading::Paused
    }

    // Events.

    /// Decides what to do with received bytes that have passed `level` layers. `Kept` bytes were
    /// held or dropped here.
    #[inline]
    pub(crate) fn received(&mut self, level: usize, data: &[u8]) -> Delivery {
        if self.delivers_plainly() {
            return Delivery::Deliver;
        }
        self.received_slow(level, data)
    }

    /// Returns `true` if received bytes go straight to the protocol.
    #[inline(always)]
    pub(crate) fn delivers_plainly(&self) -> bool {
        self.extras.is_none() && self.states.reading == Reading::Open
    }

    pub(crate) fn received_slow(&mut self, level: usize, data: &[u8]) -> Delivery {
        if let Some(held) = self.held_at(level) {
            held.push(data);
            return Delivery::Kept;
        }
        if level < self.levels() {
            return if self.states.closing > Closing::Broken { Delivery::Kept } else { Delivery::Sealed };
        }
        match self.reading() {
            Reading::Open => self.delivery(),
            Reading::Paused => {
                self.note_first_byte();
                self.new_held(level).push(data);
                Delivery::Kept
            }
            Reading::Discarding | Reading::Ended => Delivery::Kept,
        }
    }

    /// Records the peer's end of stream, behind the bytes that have passed `level` layers.
    pub(crate) fn ended(&mut self, mut level: usize, mut ending: Ending) -> EndNotice {
        if self.states.closing == Closing::Broken {
            self.rest_ended();
            return EndNotice::Silent;
        }
        loop {
            if let Some(held) = self.held_at(level) {
                held.end = Some(ending);
                return EndNotice::Silent;
            }
            let Some(layers) = self.layers_mut() else { break };
            layers.wire_ended |= level == 0;
            let Some(layer) = layers.at(level) else { break };
            let is_ready = layer.is_ready();
            let Some(failure) = layer.end() else { return EndNotice::Silent };
            if !is_ready {
                self.fail(failure);
                return EndNotice::Silent;
            }
            if let Ending::Clean = ending {
                ending = Ending::Cut(failure);
            }
            level += 1;
        }
        match self.reading() {
            Reading::Open => self.end_reading(ending),
            Reading::Paused => {
                self.new_held(level).end = Some(ending);
                EndNotice::Silent
            }
            Reading::Discarding => {
                self.states.reading = Reading::Ended;
                EndNotice::Silent
            }
            Reading::Ended => EndNotice::Silent,
        }
    }

    /// Ends at once for this reason, as after a fatal error of the network.
    #[cfg(feature = "testing")]
    pub(crate) fn dead(&mut self, reason: Failure) {
        self.close_with(Closing::Dead, reason);
    }

    /// Handles a deadline that has passed. Before a close, a peer that took bytes gets the same
    /// time again. A handshake does not: its failure is returned.
    pub(crate) fn deadline_passed(&mut self) -> Option<Failure> {
        let mut late = None;
        match std::mem::replace(&mut self.deadline, Deadline::None) {
            Deadline::None => {}
            Deadline::Unread => self.end_broken(),
            Deadline::Close if self.flags.take(StreamFlags::PROGRESSED) || self.is_throttled() => {}
            Deadline::Close => {
                if let (Closing::Draining, Some(after)) = (self.states.closing, self.close_timeout.into()) {
                    let unsent = self.queued_bytes();
                    self.abort(Failure::untraced(ConnectionClosed::CloseTimedOut { after, unsent }));
                }
            }
            Deadline::Handshake => {
                late = self.layers().and_then(Layers::is_late);
                if let Some(failure) = &late {
                    self.fail(failure.clone());
                }
            }
        }
        late
    }

    /// Returns `true` if a deadline is armed and has not passed.
    pub(crate) fn has_deadline(&self) -> bool {
        self.deadline != Deadline::None
    }

    // Steps.

    /// Marks the stream as dirty. Returns `true` if it was clean.
    pub(crate) fn mark_dirty(&mut self) -> bool {
        !self.flags.replace(StreamFlags::DIRTY, true)
    }

    /// Clears the mark of the dirty list.
    pub(crate) fn clear_dirty(&mut self) {
        self.flags.set(StreamFlags::DIRTY, false);
    }

    /// Returns the next thing to do, or [`Step::Rest`]. The caller does it, reports the result, and
    /// calls again.
    #[inline]
    pub(crate) fn next_step(&mut self) -> Step {
        if let Some(step) = self.next_layered_step() {
            // The slow path changes nothing in such a stream.
            debug_assert_eq!(step, self.next_step_slow(), "both paths take the same steps");
            return step;
        }
        self.next_unlayered_step()
    }

    /// Out of line: the frame of the slow path would cost a stream with layers more than its checks
    /// do.
    #[inline(never)]
    fn next_unlayered_step(&mut self) -> Step {
        if self.is_fast_path() {
            return if self.can_send() { Step::Send } else { Step::Rest };
        }
        self.next_step_slow()
    }

    /// Returns `true` if nothing is to be done: the stream is on the fast path, and its queue is
    /// empty.
    pub(crate) fn is_idle(&self) -> bool {
        self.is_fast_path() && self.queue.is_empty()
    }

    /// Fast path: open in both directions, without [`Extras`], nothing corked. Only the queue can
    /// need work.
    #[inline(always)]
    pub(crate) fn is_fast_path(&self) -> bool {
        self.states.is_open() && self.extras.is_none() && !self.flags.has(StreamFlags::CORKED)
    }

    /// Returns the notice that is due after a shutdown of the write direction: `Tell` if
    /// `write_connection_lost` is to be called.
    pub(crate) fn shut(&self) -> EndNotice {
        if self.flags.has(StreamFlags::HALF_CLOSE) && self.states.closing == Closing::No {
            EndNotice::Tell
        } else {
            EndNotice::Silent
        }
    }

    /// Returns `true` if the write direction is shut.
    pub(crate) fn is_shut(&self) -> bool {
        self.states.writing == Writing::Shut
    }

    /// Takes the reason of the end.
    pub(crate) fn take_reason(&mut self) -> Failure {
        let reason = self.extras.as_mut().and_then(|extras| extras.reason.take());
        reason.unwrap_or_else(ConnectionClosed::done)
    }

    fn set_reason(&mut self, reason: Failure) {
        self.extras.get_or_insert_default().reason = Some(reason);
    }

    fn both_ended(&self) -> bool {
        self.states.reading == Reading::Ended && self.states.writing == Writing::Shut
    }

    fn end_reading(&mut self, ending: Ending) -> EndNotice {
        self.states.reading = Reading::Ended;
        match ending {
            Ending::Clean if self.flags.has(StreamFlags::HALF_CLOSE) => return EndNotice::Tell,
            Ending::Clean => {}
            Ending::Cut(failure) => {
                self.extras.get_or_insert_default().reason.get_or_insert(failure);
            }
        }
        self.lose();
        EndNotice::Silent
    }

    fn stop_delivering(&mut self) {
        if self.held().is_some_and(|held| self.is_for_layer(held)) && self.states.closing <= Closing::Draining {
            // A handshake may have to be completed before written bytes can be sent.
            self.states.reading = Reading::Discarding;
            return;
        }
        let ended = self.take_all_held().is_some_and(|held| held.end.is_some());
        if self.states.reading != Reading::Ended {
            self.states.reading = if ended { Reading::Ended } else { Reading::Discarding };
        }
    }

    fn close_with(&mut self, closing: Closing, reason: Failure) {
        if self.states.closing < closing {
            self.states.closing = closing;
            self.set_reason(reason);
            self.stop_delivering();
        }
    }

    fn drop_queue(&mut self) {
        self.queue.clear();
        if let Some(extras) = &mut self.extras {
            extras.descriptors.clear();
            extras.layers.clear();
            extras.overflow = None;
            if let Some(policy) = &mut extras.policy {
                policy.end();
            }
        }
    }
}

impl Extras {
    fn is_empty(&self) -> bool {
        let is_within = self.overflow.is_none() && !self.is_tight;
        let has_none =
            self.reason.is_none() && self.held.is_none() && self.production.is_none() && self.descriptors.is_empty();
        is_within && has_none && self.drain_waiter.is_none() && self.layers.len() == 0 && self.policy.is_none()
    }

    /// Returns `true` if nothing is to be received for the protocol: held bytes come first, or
    /// received ones are not paid for. A connection that is being lost discards without a rate.
    fn stops_receiving(&self, delivers: bool) -> bool {
        let is_over_rate = || self.policy.as_ref().is_some_and(|policy| delivers && policy.holds_receiving());
        self.held.as_ref().is_some_and(Held::stops_receiving) || is_over_rate()
    }

    /// Number of bytes that wait above the queue: for a layer, or for a rate.
    fn queued_bytes(&self) -> usize {
        self.layers.queued_bytes() + self.policy.as_ref().map_or(0, |policy| policy.waiting_bytes())
    }
}
