//! A stream's bound on its queue ([`QueueLimit`]).
//!
//! | overflow | means | leaves it by |
//! |---|---|---|
//! | none | the queue is within its limit, as far as is known | a write that makes the queue longer than the limit |
//! | `Noted` | such a write was made in this turn | the settling: `Due`, `Paused`, or none if the socket took enough |
//! | `Due` | the protocol is to be called in phase 8 | the call |
//! | `Told` | the protocol was called | a queue of half the limit |
//! | `Paused` | nothing is delivered, even if the protocol resumes | a queue of half the limit |
//!
//! An aborting limit needs no state: the write that would pass it ends the stream.

use super::{Closing, Reading, Stream};
use crate::error::ConnectionClosed;
use crate::failure::Failure;
use crate::transport::queue_limit::{LimitAction, QueueLimit};
use crate::transport::send_queue::CHUNK;
use crate::transport::step::Step;

/// State of a queue above its limit. See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overflow {
    Noted,
    Due,
    Told,
    Paused,
}

impl Stream {
    /// Sets the limit, and compares the queue with it.
    pub(crate) fn set_limit(&mut self, limit: Option<QueueLimit>) {
        (self.limit, self.at_limit) = limit.map_or((0, None), |limit| (limit.bytes(), Some(limit.action())));
        // A write onto an empty queue is compared with the limit only if it may pass it: see
        // `push`.
        let is_tight = limit.is_some_and(|limit| (limit.bytes() as usize) < CHUNK);
        if is_tight || self.extras.is_some() {
            let extras = self.extras.get_or_insert_default();
            (extras.is_tight, extras.overflow) = (is_tight, None);
            self.drop_empty_extras();
        }
        if self.at_limit == Some(LimitAction::Abort) && self.queued_bytes() > self.limit as usize {
            self.abort_over_limit();
        }
        self.note_overflow();
    }

    pub(crate) fn limit(&self) -> Option<QueueLimit> {
        self.at_limit.map(|action| QueueLimit::new(self.limit, action))
    }

    /// Returns `true` if `count` more bytes may be queued. Bytes that would pass an aborting limit
    /// end the stream.
    pub(crate) fn admits(&mut self, count: usize) -> bool {
        if self.at_limit != Some(LimitAction::Abort) {
            return true;
        }
        let unsent = self.queued_bytes().saturating_add(count);
        let admits = unsent <= self.limit as usize;
        if !admits {
            self.abort(over_limit(self.limit, unsent));
        }
        admits
    }

    /// Ends the stream because too many bytes are queued.
    pub(crate) fn abort_over_limit(&mut self) {
        self.abort(over_limit(self.limit, self.queued_bytes()));
    }

    /// Records that the queue is above a limit that does not abort.
    pub(super) fn note_overflow(&mut self) {
        let acts_later = matches!(self.at_limit, Some(LimitAction::Tell | LimitAction::Pause));
        if acts_later && self.queued_bytes() > self.limit as usize {
            self.extras.get_or_insert_default().overflow.get_or_insert(Overflow::Noted);
        }
    }

    /// Compares the limit with the bytes that a settling has left in the queue.
    pub(super) fn limit_step(&mut self, queued: usize) -> Option<Step> {
        let (limit, is_open) = (self.limit as usize, self.states.closing == Closing::No);
        let overflow = self.extras.as_mut()?.overflow.as_mut()?;
        match (*overflow, self.at_limit) {
            (Overflow::Noted, Some(LimitAction::Tell)) if queued > limit && is_open => {
                *overflow = Overflow::Due;
                return Some(Step::TellOfQueue);
            }
            (Overflow::Noted, Some(LimitAction::Pause)) if queued > limit => *overflow = Overflow::Paused,
            (Overflow::Told | Overflow::Paused, _) if queued > limit / 2 => {}
            (Overflow::Due, _) => {}
            _ => self.forget_overflow(),
        }
        None
    }

    /// Takes the notice that `queue_limit_reached` is due. Returns `false` if it is not due any
    /// more.
    pub(crate) fn take_limit_notice(&mut self) -> bool {
        let overflow = self.extras.as_mut().and_then(|extras| extras.overflow.as_mut());
        match overflow {
            Some(overflow @ Overflow::Due) => {
                *overflow = Overflow::Told;
                self.states.closing == Closing::No
            }
            _ => false,
        }
    }

    /// The reading state as the protocol asked for it, or `Paused` while the limit holds bytes
    /// back.
    pub(super) fn reading(&self) -> Reading {
        let is_held = self.extras.as_ref().is_some_and(|extras| extras.overflow == Some(Overflow::Paused));
        match self.states.reading {
            Reading::Open if is_held => Reading::Paused,
            reading => reading,
        }
    }

    /// Clears the overflow: the queue is short again, or gone.
    fn forget_overflow(&mut self) {
        if let Some(extras) = &mut self.extras {
            extras.overflow = None;
            self.drop_empty_extras();
        }
    }
}

fn over_limit(limit: u32, unsent: usize) -> Failure {
    Failure::untraced(ConnectionClosed::QueueLimit { limit, unsent })
}
