//! [`Stream`]: the state machine of one connection. It makes no system call and calls no protocol: it is told what was
//! asked and what happened, and says what is to be done next ([`Stream::next_step`]). Everything that affects these
//! states lives in this file and those beside it (`held.rs`, of what is held back, `broken.rs`, of what comes behind a fatal error, and
//! `producing.rs`, of producers, `limit.rs`, of the queue's limit, `layered.rs`, for streams that have layers).
//!
//! A stream is three small machines:
//!
//! | reading | means | leaves it by |
//! |---|---|---|
//! | `Open` | bytes go to the protocol | pause, lose, end of stream |
//! | `Paused` | bytes are kept back (`pauseProducing`) | resume, lose |
//! | `Discarding` | the connection is being lost: bytes are read, so that the peer is not blocked, and dropped | end of stream |
//! | `Ended` | the peer has sent its last byte | never |
//!
//! | writing | means | leaves it by |
//! |---|---|---|
//! | `Open` | writes are queued and sent | `lose_write_connection` |
//! | `Shutting` | the same, and once the queue is empty the direction is shut | empty queue |
//! | `Shut` | writes are ignored | never |
//!
//! | closing | means | ends with |
//! |---|---|---|
//! | `No` | | |
//! | `Draining` | `lose_connection`, or the peer's end of stream: closes when the queue is empty; writes until then are sent | the reason, by default `Done`; the close timeout if the peer takes nothing |
//! | `Broken` | the network is over, but bytes that arrived before are still to be delivered | that error, when they were delivered, or when reading has been paused for a second |
//! | `Failing` | a callback failed, or the reactor stops: what the socket takes at once is sent, then it closes | that failure |
//! | `Dead` | the network says it is over | that error |
//! | `Aborting` | `abort_connection`, or the close timeout: the queue is dropped, the peer sees a reset | `Aborted`, `CloseTimedOut` |
//! | `Over` | `next_step` said `Close` | |
//!
//! A stream may have layers (`layer.rs`): then the queue here holds what is sealed, what was written waits above it, and the reading
//! side is that of the bytes that have passed all layers.
//!
//! A producer that is registered has a fourth machine, in `producer.rs`; this one asks it what it is to be told, and whether a
//! close waits for it.
//!
//! Rules:
//! 1. `closing` only moves down its table; the first reason of a state stays.
//! 2. Requests change states and mark the stream as having something to do; nothing is done before the next settling
//!    phase of the reactor's turn. So a request never calls back.
//! 3. When both directions have ended, the connection is over: `Done`.
//! 4. Bytes that arrive while reading is paused are held, in order, with an end of stream behind them, and delivered
//!    on resume. A fatal error of the network is known at once, also one that a send met, and ends our direction; the protocol
//!    is told of it behind the bytes that arrived before (`Broken`), or at once where there are none.
//! 5. A `Draining` stream closes when its queue is empty and no producer holds it. A producer is told nothing once the stream
//!    is past `Draining`.
//! 6. Before a stream with layers closes or shuts our direction, they end it in their way, behind everything that was written. A `Failing`
//!    stream does so only if all of that could be sealed, so that what is cut short does not look whole.
//! 7. A break of the network ends a connection that is to end anyway in its own way, if all that was written has left.
//! 8. While a layer's handshake is under way bytes are received for it, whatever the reading side says, our direction is not shut, and
//!    it has a deadline.

mod broken;
mod flags;
mod held;
mod layered;
mod limit;
mod optional_millis;
mod producing;

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use self::flags::StreamFlags;
use self::held::Held;
use self::limit::Overflow;
use self::optional_millis::OptionalMillis;
use super::layer::Layers;
use super::outgoing::{Attached, Outgoing, SendMode};
use super::producer::Production;
use super::queue_limit::LimitAction;
use super::send_queue::{BufferPool, InFlight, SendQueue};
use super::step::{CloseMode, Delivery, EndNotice, Ending, Step};
use crate::error::ConnectionClosed;
use crate::failure::Failure;

/// How long a closing connection may wait for a peer that takes nothing. 30 s: long enough for a bad radio link to come
/// back, short enough that a mute peer can't hold a descriptor for ever.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);

/// One connection's states, its queue, and why it ended.
#[derive(Debug)]
pub(crate) struct Stream {
    /// What is to be sent, as it is sent.
    pub(crate) queue: SendQueue,
    states: States,
    flags: StreamFlags,
    /// The deadline that is running.
    deadline: Deadline,
    /// The action above `limit` queued bytes, if there is a limit.
    at_limit: Option<LimitAction>,
    limit: u32,
    /// Boxed, for few connections ever have any of it.
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
    /// Those of a connection that is open in both directions, as most are.
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

/// What the backend was told of receiving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Receiving {
    Untold,
    Off,
    On,
    /// What arrived before the network was over.
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

/// What a deadline is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deadline {
    None,
    /// That the peer takes something, while the connection is closing.
    Close,
    /// That the protocol resumes, of a connection whose network is over.
    Unread,
    /// That a layer's handshake is done.
    Handshake,
}

#[derive(Debug, Default)]
struct Extras {
    /// Why the stream ends, or has ended. None: as it should.
    reason: Option<Failure>,
    /// Bytes and an end that came while paused.
    held: Option<Held>,
    /// What is known of a producer.
    production: Option<Production>,
    /// Descriptors that leave with the queue.
    descriptors: Attached,
    /// What stands between the protocol and the network.
    layers: Layers,
    /// The state of a queue above its limit.
    overflow: Option<Overflow>,
    /// The limit is below a chunk, so that every write is compared with it.
    is_tight: bool,
}

impl Stream {
    /// An open connection that the backend is not yet receiving from.
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

    /// Says that the protocol wants to hear of half-closes (Twisted: `IHalfCloseableProtocol`).
    pub(crate) fn set_half_close(&mut self, half_close: bool) {
        self.flags.set(StreamFlags::HALF_CLOSE, half_close);
    }

    /// Sets the close timeout; `None` waits without limit, as Twisted does.
    pub(crate) fn set_close_timeout(&mut self, timeout: Option<Duration>) {
        self.close_timeout = timeout.into();
    }

    // What is asked.

    /// Whether a write would be sent.
    pub(crate) fn accepts_writes(&self) -> bool {
        let is_ending_layers = self.extras.is_some() && self.layers().is_some_and(|layers| layers.is_ending);
        self.states.closing <= Closing::Draining && self.states.writing != Writing::Shut && !is_ending_layers
    }

    /// Whether a write may bypass the queue: nothing is ahead of it, and the socket did not say that it is full.
    pub(crate) fn may_send_directly(&self) -> bool {
        self.queue.is_empty() && !self.flags.has(StreamFlags::BLOCKED) && self.layers().is_none()
    }

    /// Queues bytes, unless that passes a limit which ends the stream.
    pub(crate) fn push(&mut self, data: &[u8], pool: &BufferPool) {
        if !data.is_empty() && self.admits(data.len()) {
            self.push_above(data, pool);
            self.note_overflow();
        }
    }

    /// Bytes written, or made of what was written, that the operating system has not taken yet.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.queue.len() + self.layers().map_or(0, Layers::queued_bytes)
    }

    /// Close once everything written is sent (Twisted: `loseConnection`).
    pub(crate) fn lose(&mut self) {
        if self.states.closing < Closing::Draining {
            self.states.closing = Closing::Draining;
            self.stop_delivering();
        } else if self.states.closing == Closing::Broken {
            self.end_broken();
        }
    }

    /// Close at once, dropping what is queued (Twisted: `abortConnection`).
    pub(crate) fn abort(&mut self, reason: Failure) {
        self.close_with(Closing::Aborting, reason);
    }

    /// Close because the reactor stops, or a layer failed.
    pub(crate) fn fail(&mut self, reason: Failure) {
        match self.states.closing {
            Closing::Broken => self.end_broken(),
            _ => self.close_with(Closing::Failing, reason),
        }
    }

    /// Close because a callback failed. Its failure is the reason also behind an `abort_connection` of the same callback, and
    /// behind an error of the network that was still to be told.
    pub(crate) fn callback_failed(&mut self, failure: Failure) {
        match self.states.closing {
            Closing::Broken => self.close_with(Closing::Dead, failure),
            Closing::Aborting => self.set_reason(failure),
            _ => self.close_with(Closing::Failing, failure),
        }
    }

    /// Shut our side once everything written is sent (Twisted: `loseWriteConnection`).
    pub(crate) fn lose_write(&mut self) {
        if self.states.writing == Writing::Open {
            self.states.writing = Writing::Shutting;
        }
    }

    /// Deliver nothing until `resume` (Twisted: `pauseProducing`).
    pub(crate) fn pause(&mut self) {
        if self.states.reading == Reading::Open {
            self.states.reading = Reading::Paused;
        }
    }

    /// Deliver again (Twisted: `resumeProducing`).
    pub(crate) fn resume(&mut self) {
        if self.states.reading == Reading::Paused {
            self.states.reading = Reading::Open;
        }
    }

    /// Whether what arrives is the protocol's, now or later.
    pub(crate) fn delivers(&self) -> bool {
        matches!(self.states.closing, Closing::No | Closing::Broken)
    }

    /// Whether the connection is being lost (Twisted: `disconnecting`).
    pub(crate) fn is_closing(&self) -> bool {
        self.states.closing > Closing::No
    }

    /// Whether the connection is over (Twisted: `disconnected`).
    pub(crate) fn is_over(&self) -> bool {
        self.states.closing == Closing::Over
    }

    /// Whether it is being closed with what can be sent at once.
    pub(crate) fn is_failing(&self) -> bool {
        self.states.closing == Closing::Failing
    }

    /// Whether it is being closed, or was told to be, without its queue being sent.
    #[cfg(feature = "testing")]
    pub(crate) fn is_aborting(&self) -> bool {
        self.states.closing == Closing::Aborting
    }

    /// Whether a layer can be put on top: both directions are there for its handshake.
    pub(crate) fn takes_layers(&self) -> bool {
        !self.is_closing() && self.accepts_writes() && self.states.reading != Reading::Ended
    }

    /// Whether our side was shut, or will be (Twisted: `_writeDisconnecting`).
    #[cfg(feature = "testing")]
    pub(crate) fn is_write_closing(&self) -> bool {
        self.states.writing != Writing::Open
    }

    /// Whether reading is paused (Twisted: `producerState`).
    #[cfg(feature = "testing")]
    pub(crate) fn is_paused(&self) -> bool {
        self.reading() == Reading::Paused
    }

    // What happened.

    /// Bytes came that have passed so many layers. `Kept` ones were taken care of.
    #[inline]
    pub(crate) fn received(&mut self, level: usize, data: &[u8]) -> Delivery {
        if self.extras.is_none() && self.states.reading == Reading::Open {
            return Delivery::Deliver;
        }
        self.received_slow(level, data)
    }

    fn received_slow(&mut self, level: usize, data: &[u8]) -> Delivery {
        if let Some(held) = self.held_at(level) {
            held.data.extend_from_slice(data);
            return Delivery::Kept;
        }
        if level < self.levels() {
            return if self.states.closing > Closing::Broken { Delivery::Kept } else { Delivery::Sealed };
        }
        match self.reading() {
            Reading::Open => Delivery::Deliver,
            Reading::Paused => {
                self.new_held(level).data.extend_from_slice(data);
                Delivery::Kept
            }
            Reading::Discarding | Reading::Ended => Delivery::Kept,
        }
    }

    /// The peer sent its last byte, of those that have passed so many layers.
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

    /// The socket took `count` bytes straight from a write, and keeps them for what follows.
    pub(crate) fn sent_directly(&mut self, count: usize) {
        if count > 0 {
            self.flags.add(StreamFlags::CORKED);
        }
        self.sent(count);
    }

    /// Takes the mark that the socket keeps bytes which nothing follows: it is to send them.
    pub(crate) fn take_corked(&mut self) -> bool {
        self.flags.take(StreamFlags::CORKED) && self.queue.is_empty()
    }

    /// The backend took `count` bytes off the queue.
    pub(crate) fn sent(&mut self, count: usize) {
        if count > 0 {
            self.flags.add(StreamFlags::PROGRESSED);
            if let Some(production) = self.production() {
                production.sent();
            }
        }
    }

    /// A chunk of the queue is back from who sent it, with what came of that. `false`: the system lacked memory for it, and it
    /// is to be tried again in a while.
    #[inline]
    pub(crate) fn returned(&mut self, in_flight: InFlight, result: io::Result<usize>, pool: &BufferPool) -> bool {
        self.queue.take_back(in_flight, *result.as_ref().unwrap_or(&0), pool);
        match result {
            Ok(count) => {
                self.sent(count);
                self.unblocked();
            }
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory => return false,
            Err(error) => self.broken(error, true),
        }
        true
    }

    /// The socket is full, or has a chunk to send; the backend will say when it has not.
    pub(crate) fn blocked(&mut self) {
        self.flags.add(StreamFlags::BLOCKED);
    }

    /// The socket has room again. What it has to send already comes back first.
    pub(crate) fn unblocked(&mut self) {
        self.flags.set(StreamFlags::BLOCKED, self.queue.is_lent());
    }

    /// Ends at once, for this reason, as if the network had said so.
    #[cfg(feature = "testing")]
    pub(crate) fn dead(&mut self, reason: Failure) {
        self.close_with(Closing::Dead, reason);
    }

    /// The deadline passed. A peer that takes nothing of what is to be sent before a close is given as long again if it took
    /// anything; a handshake is not, and its failure is returned.
    pub(crate) fn deadline_passed(&mut self) -> Option<Failure> {
        let mut late = None;
        match std::mem::replace(&mut self.deadline, Deadline::None) {
            Deadline::None => {}
            Deadline::Unread => self.end_broken(),
            Deadline::Close if self.flags.take(StreamFlags::PROGRESSED) => {}
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

    /// Whether a deadline was asked for and has not passed since.
    pub(crate) fn has_deadline(&self) -> bool {
        self.deadline != Deadline::None
    }

    // What is to be done.

    /// Marks the stream as dirty. Returns `true` if it was clean.
    pub(crate) fn mark_dirty(&mut self) -> bool {
        !self.flags.replace(StreamFlags::DIRTY, true)
    }

    /// Removes the mark of the dirty list.
    pub(crate) fn clear_dirty(&mut self) {
        self.flags.set(StreamFlags::DIRTY, false);
    }

    /// The next thing to do, or [`Step::Rest`]. The caller does it, says what came of it, and asks again.
    pub(crate) fn next_step(&mut self) -> Step {
        if self.is_fast_path() {
            return if self.can_send() { Step::Send } else { Step::Rest };
        }
        self.next_step_slow()
    }

    fn next_step_slow(&mut self) -> Step {
        match self.states.closing {
            Closing::No | Closing::Draining => self.next_living_step(),
            Closing::Broken => self.next_broken_step(),
            Closing::Failing if self.queue.is_empty() && self.has_layers_to_end() => self.end_layers(),
            Closing::Failing if self.can_send() && !self.flags.has(StreamFlags::FLUSHED) => {
                // With layers there is more to come: what is sealed when this has left.
                let is_all = self.layers().is_none_or(|layers| layers.is_ending);
                self.flags.set(StreamFlags::FLUSHED, is_all);
                Step::Send
            }
            // What is given up must not look like the end of it.
            Closing::Failing if self.has_more_to_say() => self.close(CloseMode::Reset),
            Closing::Failing => self.close(self.close_mode()),
            Closing::Dead => self.close(CloseMode::Plain),
            Closing::Aborting => self.close(CloseMode::Reset),
            Closing::Over => Step::Rest,
        }
    }

    /// Whether nothing is to be done for it: as usual, and nothing queued.
    pub(crate) fn is_idle(&self) -> bool {
        self.is_fast_path() && self.queue.is_empty()
    }

    /// Fast path: there is nothing to it but its queue.
    #[inline(always)]
    pub(crate) fn is_fast_path(&self) -> bool {
        self.states.is_open() && self.extras.is_none() && !self.flags.has(StreamFlags::CORKED)
    }

    fn next_living_step(&mut self) -> Step {
        if self.can_send() {
            // A large piece was sealed when it was written; the rest is sealed now, so that all of it leaves together.
            return if self.can_seal_behind() { Step::Seal } else { Step::Send };
        }
        if self.can_seal() {
            return Step::Seal;
        }
        if let Some(step) = self.handshake_step() {
            return step;
        }
        let (queued, mut waits) = (self.queued_bytes(), false);
        if let Some(step) = self.limit_step(queued) {
            return step;
        }
        if self.states.writing != Writing::Shut
            && let Some(production) = self.production()
        {
            if production.notice(queued).is_some() {
                return Step::TellOfQueue;
            }
            waits = production.holds_close();
        }
        if queued == 0 && !waits {
            let over = self.states.closing == Closing::Draining || self.both_ended();
            let shuts = self.states.writing == Writing::Shutting && !self.is_handshaking();
            if (over || shuts) && self.has_layers_to_end() {
                return self.end_layers();
            }
            if over {
                return self.close(self.close_mode());
            }
            if shuts {
                self.states.writing = Writing::Shut;
                return Step::ShutDownWriting;
            }
        } else if let (Closing::Draining, Deadline::None, Some(after)) =
            (self.states.closing, self.deadline, self.close_timeout.into())
        {
            self.deadline = Deadline::Close;
            self.flags.set(StreamFlags::PROGRESSED, false);
            return Step::ArmDeadline(after);
        }
        let wanted = if self.wants_to_receive() { Receiving::On } else { Receiving::Off };
        if std::mem::replace(&mut self.states.receiving, wanted) != wanted {
            return Step::Receive(wanted == Receiving::On);
        }
        if self.held_is_due() {
            return Step::DeliverHeld;
        }
        Step::Rest
    }

    /// Whether `write_connection_lost` is to be called after a shut-down.
    pub(crate) fn shut(&self) -> EndNotice {
        if self.flags.has(StreamFlags::HALF_CLOSE) && self.states.closing == Closing::No {
            EndNotice::Tell
        } else {
            EndNotice::Silent
        }
    }

    /// Whether our side was shut before.
    pub(crate) fn is_shut(&self) -> bool {
        self.states.writing == Writing::Shut
    }

    /// Why it ended.
    pub(crate) fn take_reason(&mut self) -> Failure {
        let reason = self.extras.as_mut().and_then(|extras| extras.reason.take());
        reason.unwrap_or_else(ConnectionClosed::done)
    }

    fn set_reason(&mut self, reason: Failure) {
        self.extras.get_or_insert_default().reason = Some(reason);
    }

    /// Has a descriptor leave with the next byte that is queued.
    pub(crate) fn attach(&mut self, descriptor: OwnedFd) {
        let ahead = self.queue.len();
        self.extras.get_or_insert_default().descriptors.push_back((ahead, descriptor));
    }

    /// The queue, and how it is to be sent.
    #[inline]
    pub(crate) fn outgoing<'a>(&'a mut self, pool: &'a BufferPool) -> Outgoing<'a> {
        let mode = match self.states.closing {
            Closing::No if self.states.writing == Writing::Open => SendMode::Gather,
            Closing::Failing => SendMode::Last,
            _ => SendMode::Flush,
        };
        let descriptors = self.extras.as_mut().map(|extras| &mut extras.descriptors);
        Outgoing { queue: &mut self.queue, descriptors, mode, pool }
    }

    /// Whether something is queued that the backend would take.
    #[inline]
    pub(crate) fn can_send(&self) -> bool {
        !self.queue.is_empty() && !self.flags.has(StreamFlags::BLOCKED)
    }

    fn both_ended(&self) -> bool {
        self.states.reading == Reading::Ended && self.states.writing == Writing::Shut
    }

    fn wants_to_receive(&self) -> bool {
        let end_is_held = self.held().is_some_and(|held| held.end.is_some());
        let open = matches!(self.reading(), Reading::Open | Reading::Discarding) && !end_is_held;
        match self.layers() {
            // Behind the peer's end of a layer there is that of the network, which says more.
            Some(layers) => {
                !layers.wire_ended && (open || self.states.reading == Reading::Ended || self.is_handshaking())
            }
            None => open,
        }
    }

    /// Whether anything that was written, or that a producer has still to write, is missing from what was sent.
    fn has_more_to_say(&self) -> bool {
        // What waits for a handshake is part of nothing that the peer knows.
        let unsent = if self.is_handshaking() { self.queue.len() } else { self.queued_bytes() };
        unsent > 0 || self.holds_close()
    }

    fn close_mode(&self) -> CloseMode {
        let ended = self.layers().map_or(self.states.reading == Reading::Ended, |layers| layers.wire_ended);
        if ended { CloseMode::Plain } else { CloseMode::Linger }
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
            // A handshake may have to be done before what was written can be sent.
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

    fn close(&mut self, mode: CloseMode) -> Step {
        self.states.closing = Closing::Over;
        self.drop_queue();
        Step::Close(mode)
    }

    fn drop_queue(&mut self) {
        self.queue.clear();
        if let Some(extras) = &mut self.extras {
            extras.descriptors.clear();
            extras.layers.clear();
            extras.overflow = None;
        }
    }
}

impl Extras {
    fn is_empty(&self) -> bool {
        let is_within = self.overflow.is_none() && !self.is_tight;
        let has_none =
            self.reason.is_none() && self.held.is_none() && self.production.is_none() && self.descriptors.is_empty();
        is_within && has_none && self.layers.len() == 0
    }
}
