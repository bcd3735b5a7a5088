//! [`StreamPolicy`]: the policies of one stream. It calls no protocol: the stream asks it for times
//! and portions, and its timers mark the stream as dirty.
//!
//! **Limits of time** have one timer for a connection. Bytes only leave the time of their arrival
//! behind. The timer compares it with the limits, and is set for the next of them. So a busy
//! connection moves no timer, and a limit of a minute costs one call in a minute.
//!
//! **Rates.** A direction that has taken more than its buckets hold waits for a timer. Receiving is
//! paused behind the bytes that have passed. Written bytes wait in a queue above the stream's own,
//! from which portions go down. Without a rate, there is no such timer and no such queue.
//!
//! | a portion of written bytes | means | leaves it by |
//! |---|---|---|
//! | none | no byte waits, or none was asked for | the settling: `granted`, or `reserved` in debt |
//! | `reserved` | its tokens are taken, and not paid for | the timer: `granted` |
//! | `granted` | it may go down | the settling |

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::rate::Bucket;
use super::traffic::Traffic;
use crate::address::Address;
use crate::error::{ConnectionClosed, TimeLimit};
use crate::failure::Failure;
use crate::time::{Clock, DelayedCall, Timers};
use crate::transport::send_queue::{BufferPool, CHUNK, SendQueue};

/// The limits of time of a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TimeLimits {
    pub(crate) idle: Option<Duration>,
    pub(crate) receive: Option<Duration>,
    pub(crate) first_byte: Option<Duration>,
    pub(crate) lifetime: Option<Duration>,
}

impl TimeLimits {
    /// Returns the shorter limit of each kind.
    pub(crate) fn and(self, other: Self) -> Self {
        let shorter = |one: Option<Duration>, other: Option<Duration>| one.into_iter().chain(other).min();
        Self {
            idle: shorter(self.idle, other.idle),
            receive: shorter(self.receive, other.receive),
            first_byte: shorter(self.first_byte, other.first_byte),
            lifetime: shorter(self.lifetime, other.lifetime),
        }
    }
}

/// A timer of a stream's policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PolicyTimer {
    /// A limit of time may have passed.
    Limits,
    /// The debt of received bytes is paid.
    Receive,
    /// The debt of a portion of written bytes is paid.
    Send,
}

/// Calls the stream about a timer.
pub(crate) type PolicyWake = Rc<dyn Fn(PolicyTimer)>;

/// The parts of a policy that are added to a stream.
#[derive(Default)]
pub(crate) struct PolicyParts {
    pub(crate) limits: TimeLimits,
    pub(crate) receive: Vec<Rc<Bucket>>,
    pub(crate) send: Vec<Rc<Bucket>>,
    pub(crate) traffic: Option<Rc<Traffic>>,
}

/// See the module.
pub(crate) struct StreamPolicy {
    timers: Timers,
    wake: Rc<RefCell<PolicyWake>>,
    limits: TimeLimits,
    begun_at: Duration,
    received_at: Duration,
    sent_at: Duration,
    /// No byte for the protocol has arrived yet.
    awaits_first: bool,
    next_limit: Option<DelayedCall>,
    receive: Direction,
    send: Direction,
    /// Written bytes above the stream's queue.
    waiting: SendQueue,
    granted: usize,
    reserved: usize,
    traffic: Vec<Rc<Traffic>>,
}

/// One direction: its buckets, and the timer of a debt.
#[derive(Default)]
struct Direction {
    buckets: Vec<Rc<Bucket>>,
    timer: Option<DelayedCall>,
}

impl Direction {
    /// Takes the tokens of `count` bytes. Returns the time until every debt is paid.
    fn take(&self, count: usize, now: Duration) -> Duration {
        self.buckets.iter().map(|bucket| bucket.take(count, now)).max().unwrap_or_default()
    }

    fn portion(&self, now: Duration) -> usize {
        self.buckets.iter().map(|bucket| bucket.portion(now)).min().unwrap_or(usize::MAX)
    }

    fn is_held(&self) -> bool {
        self.timer.is_some()
    }

    fn cancel(&mut self) {
        cancel(self.timer.take());
    }
}

impl StreamPolicy {
    /// Makes the policies of a connection that begins now. They are empty.
    pub(crate) fn new(timers: Timers, wake: PolicyWake) -> Self {
        let now = timers.seconds();
        Self {
            timers,
            wake: Rc::new(RefCell::new(wake)),
            limits: TimeLimits::default(),
            begun_at: now,
            received_at: now,
            sent_at: now,
            awaits_first: true,
            next_limit: None,
            receive: Direction::default(),
            send: Direction::default(),
            waiting: SendQueue::default(),
            granted: 0,
            reserved: 0,
            traffic: Vec::new(),
        }
    }

    /// Adds policies. All limits, rates and logs apply together.
    pub(crate) fn add(&mut self, parts: PolicyParts) {
        self.limits = self.limits.and(parts.limits);
        self.receive.buckets.extend(parts.receive);
        self.send.buckets.extend(parts.send);
        self.traffic.extend(parts.traffic);
        cancel(self.next_limit.take());
        // A limit of zero has passed: the timer of the next turn says so.
        let now = self.timers.seconds();
        self.schedule_limits(self.first_limit(now, false).map_or(Duration::MAX, |(due, ..)| due), now);
    }

    /// Follows the stream into another handle, with other addresses. The timers that run go on.
    pub(crate) fn follow(&self, wake: PolicyWake, peer: &Address) {
        self.wake.replace(wake);
        self.traffic.iter().for_each(|traffic| traffic.set_peer(peer.clone()));
    }

    // Limits of time.

    /// Handles the timer. Returns the reason to close if a limit has passed.
    ///
    /// While reading is paused, it cannot be known what the peer has sent.
    pub(crate) fn limit_passed(&mut self, is_paused: bool) -> Option<Failure> {
        self.next_limit = None;
        let now = self.timers.seconds();
        let (due, limit, after) = self.first_limit(now, is_paused)?;
        if due <= now {
            return Some(Failure::untraced(ConnectionClosed::TimeLimit { limit, after }));
        }
        self.schedule_limits(due, now);
        None
    }

    /// Returns the limit that passes first if nothing happens: the moment, the kind, the length. A
    /// direction that waits for its rate is not idle.
    fn first_limit(&self, now: Duration, is_paused: bool) -> Option<(Duration, TimeLimit, Duration)> {
        let received_at = if self.receive.is_held() { now } else { self.received_at };
        let sent_at = if self.is_throttled() { now } else { self.sent_at };
        let first_byte = self.limits.first_byte.filter(|_| self.awaits_first);
        let limits = [
            (self.limits.idle, TimeLimit::Idle, received_at.max(sent_at)),
            (self.limits.receive, TimeLimit::Receive, if is_paused { now } else { received_at }),
            (first_byte, TimeLimit::FirstByte, if is_paused { now } else { self.begun_at }),
            (self.limits.lifetime, TimeLimit::Lifetime, self.begun_at),
        ];
        let due = limits.into_iter().filter_map(|(after, limit, since)| {
            let after = after?;
            Some((since.saturating_add(after), limit, after))
        });
        due.min_by_key(|(due, ..)| *due)
    }

    fn schedule_limits(&mut self, due: Duration, now: Duration) {
        if due < Duration::MAX {
            self.next_limit = self.schedule(PolicyTimer::Limits, due.saturating_sub(now));
        }
    }

    /// Schedules a timer. `None`: the clock is gone.
    fn schedule(&self, timer: PolicyTimer, after: Duration) -> Option<DelayedCall> {
        let wake = Rc::clone(&self.wake);
        let call = self.timers.call_later(after, move || {
            let wake = Rc::clone(&wake.borrow());
            wake(timer);
        });
        call.active().then_some(call)
    }

    /// Records that a byte for the protocol has arrived.
    pub(crate) fn note_first_byte(&mut self) {
        self.awaits_first = false;
    }

    /// Records that the system took bytes.
    pub(crate) fn note_sent(&mut self) {
        self.sent_at = self.timers.seconds();
    }

    // Received bytes.

    /// Records received bytes, as they came from the network. Returns `true` if receiving is to
    /// pause.
    pub(crate) fn note_arrival(&mut self, count: usize) -> bool {
        let now = self.timers.seconds();
        self.received_at = now;
        let debt = self.receive.take(count, now);
        if debt.is_zero() {
            return false;
        }
        // Bytes may arrive behind a pause: the debt is longer now.
        self.receive.cancel();
        self.receive.timer = self.schedule(PolicyTimer::Receive, debt);
        true
    }

    /// Returns `true` if receiving is paused.
    pub(crate) fn holds_receiving(&self) -> bool {
        self.receive.is_held()
    }

    pub(crate) fn receive_debt_paid(&mut self) {
        self.receive.timer = None;
    }

    // Written bytes.

    /// Returns the queue of written bytes that wait, if the direction has a rate.
    pub(crate) fn wire(&mut self) -> Option<&mut SendQueue> {
        if self.send.buckets.is_empty() { None } else { Some(&mut self.waiting) }
    }

    /// Returns `true` if written bytes wait here.
    pub(crate) fn paces(&self) -> bool {
        !self.send.buckets.is_empty()
    }

    pub(crate) fn waiting_bytes(&self) -> usize {
        self.waiting.len()
    }

    /// Returns `true` if written bytes wait for their rate, and not for the peer.
    pub(crate) fn is_throttled(&self) -> bool {
        self.send.is_held()
    }

    /// Asks for the next portion. Returns `true` if one may go down.
    pub(crate) fn grant(&mut self) -> bool {
        if self.granted > 0 || self.reserved > 0 || self.waiting.is_empty() {
            return self.granted > 0;
        }
        let now = self.timers.seconds();
        let count = self.waiting.len().min(CHUNK).min(self.send.portion(now));
        let debt = self.send.take(count, now);
        if !debt.is_zero() {
            self.send.timer = self.schedule(PolicyTimer::Send, debt);
        }
        if self.send.is_held() {
            self.reserved = count
        } else {
            self.granted = count
        }
        self.granted > 0
    }

    pub(crate) fn send_debt_paid(&mut self) {
        self.send.timer = None;
        self.granted += std::mem::take(&mut self.reserved);
    }

    /// Moves the granted portion to the stream's queue. Returns `false` if there was none.
    pub(crate) fn release(&mut self, queue: &mut SendQueue, pool: &BufferPool) -> bool {
        let granted = std::mem::take(&mut self.granted);
        self.move_down(granted, queue, pool);
        granted > 0
    }

    /// Ends the rate of written bytes: all that wait may go at once. The stream ends.
    pub(crate) fn release_all(&mut self) -> bool {
        self.give_back();
        self.send.buckets.clear();
        self.granted = self.waiting.len();
        self.granted > 0
    }

    fn move_down(&mut self, count: usize, queue: &mut SendQueue, pool: &BufferPool) {
        let mut left = count.min(self.waiting.len());
        while left > 0 {
            let front = self.waiting.front();
            let piece = front.len().min(left);
            queue.push(&front[..piece], pool);
            self.waiting.advance(piece, pool);
            left -= piece;
        }
    }

    /// Drops the bytes that wait, as an abort does.
    fn drop_waiting(&mut self) {
        self.give_back();
        self.granted = 0;
        self.waiting.clear();
    }

    /// Gives back the tokens of a portion that was not paid for.
    fn give_back(&mut self) {
        self.send.cancel();
        let reserved = std::mem::take(&mut self.reserved);
        self.send.buckets.iter().for_each(|bucket| bucket.give_back(reserved));
    }

    // Traffic.

    /// Records a write.
    pub(crate) fn note_written(&self, data: &[u8]) {
        self.traffic.iter().for_each(|traffic| traffic.note_written(data));
    }

    pub(crate) fn has_traffic(&self) -> bool {
        !self.traffic.is_empty()
    }

    /// Returns the logs that are to have received bytes.
    pub(crate) fn traffic(&self) -> Vec<Rc<Traffic>> {
        self.traffic.clone()
    }

    /// Ends all timers: the connection is over.
    pub(crate) fn end(&mut self) {
        self.drop_waiting();
        self.receive.cancel();
        cancel(self.next_limit.take());
    }
}

impl Drop for StreamPolicy {
    fn drop(&mut self) {
        self.end();
    }
}

impl std::fmt::Debug for StreamPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let waiting = self.waiting.len();
        f.debug_struct("StreamPolicy").field("limits", &self.limits).field("waiting", &waiting).finish_non_exhaustive()
    }
}

fn cancel(call: Option<DelayedCall>) {
    if let Some(call) = call {
        // It may be the timer that runs now.
        let _ = call.cancel();
    }
}
