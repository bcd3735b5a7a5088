//! [`Builder::on_ring`]: a function of the program for the rings of other threads
//! ([`Remote::ring`](super::Remote::ring)).

use std::fmt;
use std::rc::Rc;

use super::{Builder, Reactor};

impl Builder {
    /// Calls `call` in phase 1 of a turn, behind the calls from other threads, if there was a
    /// [ring](super::Remote::ring) since the last time (Twisted: the waker's `doRead`, and
    /// `runUntilCurrent` for the queue of `callFromThread`).
    ///
    /// - It is called on the reactor's thread, with nothing borrowed, and may do anything that a
    ///   call from a thread may. A panic is logged.
    /// - However many rings there were, it is called once. So it takes all that is queued. A ring
    ///   that comes meanwhile is for the next turn.
    /// - A program puts its data where `call` looks, and rings behind that.
    /// - A second call replaces the function of the first.
    ///
    /// [`Remote::ring`](super::Remote::ring) has an example.
    pub fn on_ring(mut self, call: impl Fn(&Reactor) + 'static) -> Self {
        self.on_ring = Some(OnRing(Rc::new(call)));
        self
    }
}

/// The function.
#[derive(Clone)]
pub(super) struct OnRing(Rc<dyn Fn(&Reactor)>);

impl OnRing {
    pub(super) fn call(&self, reactor: &Reactor) {
        (self.0)(reactor);
    }
}

impl fmt::Debug for OnRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnRing").finish_non_exhaustive()
    }
}
