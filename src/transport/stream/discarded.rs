//! A stream that is discarded: it is over at once, whatever its state, and without a reason to
//! tell.

use std::task::Waker;

use super::{Closing, Deadline, Reading, Stream, StreamFlags, Writing};

impl Stream {
    /// Ends the stream. Returns the waker of a future that waits for a short queue, and everything
    /// else that belongs to the program or to its layers. Drop that while nothing is borrowed.
    pub(crate) fn discard(&mut self) -> (Option<Waker>, impl Sized + use<>) {
        (self.states.closing, self.states.reading, self.states.writing) =
            (Closing::Over, Reading::Ended, Writing::Shut);
        self.deadline = Deadline::None;
        self.flags.take(StreamFlags::CORKED);
        self.queue.clear();
        let waiter = self.take_drain_waiter();
        (waiter, self.extras.take())
    }
}
