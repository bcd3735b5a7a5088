//! [`Stream`]: the state machine of one connection. It makes no system call and calls no protocol: it is told what was
//! asked and what happened, and says what is to be done next ([`Stream::next_step`]). Everything that affects these
//! states lives in this file.
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
//! | `Failing` | a callback failed, or the reactor stops: what the socket takes at once is sent, then it closes | that failure |
//! | `Dead` | the network says it is over | that error |
//! | `Aborting` | `abort_connection`, or the close timeout: the queue is dropped, the peer sees a reset | `Aborted`, `CloseTimedOut` |
//! | `Over` | `next_step` said `Close` | |
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
//!    on resume. An error of the network is not held: it ends the connection at once.
//! 5. A `Draining` stream closes when its queue is empty and no producer holds it. A producer is told nothing once the stream
//!    is past `Draining`.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::producer::{Notice, Producer, ProducerError, Production, Streaming};
use super::send_queue::SendQueue;
use crate::error::ConnectionClosed;
use crate::failure::Failure;

/// How long a closing connection may wait for a peer that takes nothing. 30 s: long enough for a bad radio link to come
/// back, short enough that a mute peer can't hold a descriptor for ever.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);

/// One connection's states, its queue, and why it ended.
#[derive(Debug)]
pub(crate) struct Stream {
    /// What is written and not yet sent.
    pub(crate) queue: SendQueue,
    reading: Reading,
    writing: Writing,
    closing: Closing,
    /// Whether the backend was told to receive.
    receiving: bool,
    /// The last send took less than there was: the backend will say when to go on.
    blocked: bool,
    /// A `Failing` stream has had its one flush.
    flushed: bool,
    /// The close deadline is running.
    deadline: bool,
    /// Bytes left since the close deadline was last looked at.
    progressed: bool,
    /// The protocol opted in to half-closes.
    half_close: bool,
    /// On the reactor's agenda.
    listed: bool,
    reason: Option<Failure>,
    /// Boxed, for few connections ever have any of it.
    extras: Option<Box<Extras>>,
    close_timeout: Millis,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    Open,
    Paused,
    Discarding,
    Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writing {
    Open,
    Shutting,
    Shut,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Closing {
    No,
    Draining,
    Failing,
    Dead,
    Aborting,
    Over,
}

#[derive(Debug, Default)]
struct Extras {
    /// Bytes and an end that came while paused.
    held: Option<Held>,
    /// What is known of a producer.
    production: Option<Production>,
    /// Descriptors that leave with the queue.
    descriptors: Attached,
}

/// Descriptors to be sent, in order, each with the number of bytes that go ahead of it: it leaves with the byte behind those,
/// which is in the queue.
pub(crate) type Attached = VecDeque<(usize, OwnedFd)>;

#[derive(Debug, Default)]
struct Held {
    data: Vec<u8>,
    end: bool,
}

/// What the reactor is to do for a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Send from the queue; then say [`Stream::sent`], [`Stream::blocked`] or [`Stream::broken`].
    Send,
    /// Send the end of our side; [`Stream::shut`] was said already.
    ShutDownWriting,
    /// The producer is to be told something ([`Stream::take_producer`]); the rest waits until then.
    TellProducer,
    /// Start or stop receiving.
    Receive(bool),
    /// Bytes or an end were held back and can be delivered now: take them in the next turn.
    DeliverHeld,
    /// Look again after this time ([`Stream::deadline_passed`]).
    ArmDeadline(Duration),
    /// Close in this way, and tell the protocol.
    Close(CloseMode),
    /// Nothing to do.
    Rest,
}

/// How a descriptor is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CloseMode {
    /// Both sides are done, or the network is: just close.
    Plain,
    /// We are done and the peer may not be: end our side, then read what still comes, within bounds, so that closing does
    /// not destroy with a reset what was sent last.
    Linger,
    /// With a reset.
    Reset,
}

/// What to do with received bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// The protocol's.
    Deliver,
    /// Held or dropped.
    Kept,
}

/// What a closed direction means for the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndNotice {
    /// Tell the protocol: it asked to hear of half-closes.
    Tell,
    /// `connection_lost` will say it.
    Silent,
}

impl Stream {
    /// An open connection that the backend is not yet receiving from.
    pub(crate) fn new() -> Self {
        Self {
            queue: SendQueue::default(),
            reading: Reading::Open,
            writing: Writing::Open,
            closing: Closing::No,
            receiving: false,
            blocked: false,
            flushed: false,
            deadline: false,
            progressed: false,
            half_close: false,
            listed: false,
            reason: None,
            extras: None,
            close_timeout: Millis::from(Some(CLOSE_TIMEOUT)),
        }
    }

    /// Says that the protocol wants to hear of half-closes (Twisted: `IHalfCloseableProtocol`).
    pub(crate) fn set_half_close(&mut self, half_close: bool) {
        self.half_close = half_close;
    }

    /// Sets the close timeout; `None` waits without limit, as Twisted does.
    pub(crate) fn set_close_timeout(&mut self, timeout: Option<Duration>) {
        self.close_timeout = timeout.into();
    }

    // What is asked.

    /// Whether a write would be sent.
    pub(crate) fn accepts_writes(&self) -> bool {
        self.closing <= Closing::Draining && self.writing != Writing::Shut
    }

    /// Whether a write may bypass the queue: nothing is ahead of it, and the socket did not say that it is full.
    pub(crate) fn may_send_directly(&self) -> bool {
        self.queue.is_empty() && !self.blocked
    }

    /// Close once everything written is sent (Twisted: `loseConnection`).
    pub(crate) fn lose(&mut self) {
        if self.closing < Closing::Draining {
            self.closing = Closing::Draining;
            self.stop_delivering();
        }
    }

    /// Close at once, dropping what is queued (Twisted: `abortConnection`).
    pub(crate) fn abort(&mut self, reason: Failure) {
        self.close_with(Closing::Aborting, reason);
    }

    /// Close because a callback failed or the reactor stops.
    pub(crate) fn fail(&mut self, reason: Failure) {
        self.close_with(Closing::Failing, reason);
    }

    /// Shut our side once everything written is sent (Twisted: `loseWriteConnection`).
    pub(crate) fn lose_write(&mut self) {
        if self.writing == Writing::Open {
            self.writing = Writing::Shutting;
        }
    }

    /// Deliver nothing until `resume` (Twisted: `pauseProducing`).
    pub(crate) fn pause(&mut self) {
        if self.reading == Reading::Open {
            self.reading = Reading::Paused;
        }
    }

    /// Deliver again (Twisted: `resumeProducing`).
    pub(crate) fn resume(&mut self) {
        if self.reading == Reading::Paused {
            self.reading = Reading::Open;
        }
    }

    /// Registers a producer.
    pub(crate) fn register(&mut self, producer: Box<dyn Producer>, streaming: Streaming) -> Result<(), ProducerError> {
        self.new_production().register(producer, streaming)
    }

    /// Takes the producer out for good.
    pub(crate) fn unregister(&mut self) -> Option<Box<dyn Producer>> {
        self.production()?.unregister()
    }

    /// Whether a producer is registered.
    pub(crate) fn has_producer(&self) -> bool {
        self.extras.as_ref().and_then(|extras| extras.production.as_ref()).is_some_and(Production::is_registered)
    }

    /// Sets the marks at which a push producer is resumed and paused.
    pub(crate) fn set_marks(&mut self, low: usize, high: usize) {
        self.new_production().set_marks(low, high);
    }

    /// Takes the producer out, to be told this. Nothing if it was unregistered meanwhile, or the stream is past telling.
    pub(crate) fn take_producer(&mut self) -> Option<(Box<dyn Producer>, Notice)> {
        if self.closing > Closing::Draining {
            return None;
        }
        self.production()?.take()
    }

    /// Puts a producer back that was told something. Given back if it was unregistered meanwhile.
    pub(crate) fn put_back(&mut self, producer: Box<dyn Producer>) -> Option<Box<dyn Producer>> {
        match self.production() {
            Some(production) => production.put_back(producer),
            None => Some(producer),
        }
    }

    /// Whether the connection is being lost (Twisted: `disconnecting`).
    pub(crate) fn is_closing(&self) -> bool {
        self.closing > Closing::No
    }

    /// Whether the connection is over (Twisted: `disconnected`).
    pub(crate) fn is_over(&self) -> bool {
        self.closing == Closing::Over
    }

    /// Whether it is being closed, or was told to be, without its queue being sent.
    pub(crate) fn is_aborting(&self) -> bool {
        self.closing == Closing::Aborting
    }

    /// Whether our side was shut, or will be (Twisted: `_writeDisconnecting`).
    pub(crate) fn is_write_closing(&self) -> bool {
        self.writing != Writing::Open
    }

    /// Whether reading is paused (Twisted: `producerState`).
    pub(crate) fn is_paused(&self) -> bool {
        self.reading == Reading::Paused
    }

    // What happened.

    /// Bytes came. `Kept` ones were taken care of.
    pub(crate) fn received(&mut self, data: &[u8]) -> Delivery {
        match self.reading {
            Reading::Open if self.held().is_none() => Delivery::Deliver,
            Reading::Open | Reading::Paused => {
                self.new_held().data.extend_from_slice(data);
                Delivery::Kept
            }
            Reading::Discarding | Reading::Ended => Delivery::Kept,
        }
    }

    /// The peer sent its last byte.
    pub(crate) fn ended(&mut self) -> EndNotice {
        match self.reading {
            Reading::Open if self.held().is_none() => self.end_reading(),
            Reading::Open | Reading::Paused => {
                self.new_held().end = true;
                EndNotice::Silent
            }
            Reading::Discarding => {
                self.reading = Reading::Ended;
                EndNotice::Silent
            }
            Reading::Ended => EndNotice::Silent,
        }
    }

    /// What was held while paused, bytes first, then whether the peer's end is behind them. Nothing if reading was paused
    /// or lost again meanwhile.
    pub(crate) fn take_held(&mut self) -> Option<(Vec<u8>, bool)> {
        if self.reading != Reading::Open {
            return None;
        }
        self.take_all_held().map(|held| (held.data, held.end))
    }

    /// The backend took `count` bytes off the queue (or straight from a write).
    pub(crate) fn sent(&mut self, count: usize) {
        self.progressed |= count > 0;
        if count > 0
            && let Some(production) = self.production()
        {
            production.sent();
        }
    }

    /// The socket is full; the backend will say when it is not.
    pub(crate) fn blocked(&mut self) {
        self.blocked = true;
    }

    /// The socket has room again.
    pub(crate) fn unblocked(&mut self) {
        self.blocked = false;
    }

    /// The network says that it is over.
    pub(crate) fn broken(&mut self, error: io::Error) {
        let reason = ConnectionClosed::from_io(error, self.queue.len());
        self.dead(reason.into());
    }

    /// The same, with the reason as the protocol is to hear it.
    pub(crate) fn dead(&mut self, reason: Failure) {
        self.close_with(Closing::Dead, reason);
    }

    /// The close deadline passed: the peer is given as long again if it took anything.
    pub(crate) fn deadline_passed(&mut self) {
        self.deadline = false;
        if std::mem::take(&mut self.progressed) {
            return;
        }
        if let (Closing::Draining, Some(after)) = (self.closing, self.close_timeout.into()) {
            let unsent = self.queue.len();
            self.abort(ConnectionClosed::CloseTimedOut { after, unsent }.into());
        }
    }

    /// Whether a close deadline was asked for and has not been looked at since.
    pub(crate) fn has_deadline(&self) -> bool {
        self.deadline
    }

    // What is to be done.

    /// Takes note that the reactor's agenda has it; whether it had not before.
    pub(crate) fn list(&mut self) -> bool {
        !std::mem::replace(&mut self.listed, true)
    }

    /// The agenda's entry was taken up.
    pub(crate) fn unlist(&mut self) {
        self.listed = false;
    }

    /// The next thing to do, or [`Step::Rest`]. The caller does it, says what came of it, and asks again.
    pub(crate) fn next_step(&mut self) -> Step {
        match self.closing {
            Closing::No | Closing::Draining => self.next_living_step(),
            Closing::Failing if self.can_send() && !self.flushed => {
                self.flushed = true;
                Step::Send
            }
            Closing::Failing => self.close(self.parting()),
            Closing::Dead => self.close(CloseMode::Plain),
            Closing::Aborting => self.close(CloseMode::Reset),
            Closing::Over => Step::Rest,
        }
    }

    fn next_living_step(&mut self) -> Step {
        if self.can_send() {
            return Step::Send;
        }
        let (queued, mut waits) = (self.queue.len(), false);
        if self.writing != Writing::Shut
            && let Some(production) = self.production()
        {
            if production.notice(queued).is_some() {
                return Step::TellProducer;
            }
            waits = production.holds_close();
        }
        if self.queue.is_empty() && !waits {
            if self.closing == Closing::Draining || self.both_ended() {
                self.reason.get_or_insert_with(|| ConnectionClosed::Done.into());
                return self.close(self.parting());
            }
            if self.writing == Writing::Shutting {
                self.writing = Writing::Shut;
                return Step::ShutDownWriting;
            }
        } else if let (Closing::Draining, false, Some(after)) = (self.closing, self.deadline, self.close_timeout.into())
        {
            self.deadline = true;
            self.progressed = false;
            return Step::ArmDeadline(after);
        }
        let wanted = self.wants_to_receive();
        if self.receiving != wanted {
            self.receiving = wanted;
            return Step::Receive(wanted);
        }
        if self.reading == Reading::Open && self.held().is_some() {
            return Step::DeliverHeld;
        }
        Step::Rest
    }

    /// Whether `write_connection_lost` is to be called after a shut-down.
    pub(crate) fn shut(&self) -> EndNotice {
        if self.half_close && self.closing == Closing::No { EndNotice::Tell } else { EndNotice::Silent }
    }

    /// Whether our side was shut before.
    pub(crate) fn is_shut(&self) -> bool {
        self.writing == Writing::Shut
    }

    /// Why it ended.
    pub(crate) fn take_reason(&mut self) -> Failure {
        self.reason.take().unwrap_or_else(|| ConnectionClosed::Done.into())
    }

    fn held(&self) -> Option<&Held> {
        self.extras.as_ref()?.held.as_ref()
    }

    fn new_held(&mut self) -> &mut Held {
        self.extras.get_or_insert_default().held.get_or_insert_default()
    }

    fn take_all_held(&mut self) -> Option<Held> {
        let held = self.extras.as_mut()?.held.take();
        self.extras.take_if(|extras| extras.production.is_none() && extras.descriptors.is_empty());
        held
    }

    fn production(&mut self) -> Option<&mut Production> {
        self.extras.as_mut()?.production.as_mut()
    }

    fn new_production(&mut self) -> &mut Production {
        self.extras.get_or_insert_default().production.get_or_insert_with(Production::new)
    }

    /// Has a descriptor leave with the next byte that is queued.
    pub(crate) fn attach(&mut self, descriptor: OwnedFd) {
        let ahead = self.queue.len();
        self.extras.get_or_insert_default().descriptors.push_back((ahead, descriptor));
    }

    /// The queue, and the descriptors that leave with it.
    pub(crate) fn outgoing(&mut self) -> (&mut SendQueue, Option<&mut Attached>) {
        (&mut self.queue, self.extras.as_mut().map(|extras| &mut extras.descriptors))
    }

    fn can_send(&self) -> bool {
        !self.queue.is_empty() && !self.blocked
    }

    fn both_ended(&self) -> bool {
        self.reading == Reading::Ended && self.writing == Writing::Shut
    }

    fn wants_to_receive(&self) -> bool {
        let end_is_held = self.held().is_some_and(|held| held.end);
        matches!(self.reading, Reading::Open | Reading::Discarding) && !end_is_held
    }

    fn parting(&self) -> CloseMode {
        if self.reading == Reading::Ended { CloseMode::Plain } else { CloseMode::Linger }
    }

    fn end_reading(&mut self) -> EndNotice {
        self.reading = Reading::Ended;
        if self.half_close {
            return EndNotice::Tell;
        }
        self.lose();
        EndNotice::Silent
    }

    fn stop_delivering(&mut self) {
        let ended = self.take_all_held().is_some_and(|held| held.end);
        if self.reading != Reading::Ended {
            self.reading = if ended { Reading::Ended } else { Reading::Discarding };
        }
    }

    fn close_with(&mut self, closing: Closing, reason: Failure) {
        if self.closing < closing {
            self.closing = closing;
            self.reason = Some(reason);
            self.stop_delivering();
        }
    }

    fn close(&mut self, mode: CloseMode) -> Step {
        self.closing = Closing::Over;
        self.queue.clear();
        if let Some(extras) = &mut self.extras {
            extras.descriptors.clear();
        }
        Step::Close(mode)
    }
}

/// A time limit in milliseconds, or none: in four bytes, for each connection keeps one.
#[derive(Debug, Clone, Copy)]
struct Millis(u32);

impl Millis {
    const NONE: Self = Self(u32::MAX);
}

impl From<Option<Duration>> for Millis {
    /// Rounds up, so that no limit comes early; what is too long (49 days) is none.
    fn from(limit: Option<Duration>) -> Self {
        let millis = limit.map(|limit| limit.as_nanos().div_ceil(1_000_000));
        millis.and_then(|millis| u32::try_from(millis).ok()).map_or(Self::NONE, Self)
    }
}

impl From<Millis> for Option<Duration> {
    fn from(Millis(millis): Millis) -> Self {
        (millis != Millis::NONE.0).then(|| Duration::from_millis(millis.into()))
    }
}
