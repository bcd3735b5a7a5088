//! The events of epoll: rustix waits for them on the descriptor of mio's poller.

use std::io;
use std::time::Duration;

use mio::{Poll, Token};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{Event, wait};
use rustix::event::{PollFlags, Timespec};

use crate::reactor::backend::reported::Readiness;

/// The events of the last wait, and the number of them that were handed over.
pub(super) struct Events {
    events: Vec<Event>,
    taken: usize,
}

impl Events {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self { events: Vec::with_capacity(capacity), taken: 0 }
    }

    #[inline(always)]
    pub(super) fn wait(&mut self, poll: &mut Poll, timeout: Option<Duration>) -> io::Result<()> {
        self.events.clear();
        self.taken = 0;
        let timeout = timeout.map(|timeout| Timespec {
            // This fits, because no wait is longer than `LONGEST_WAIT`.
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: timeout.subsec_nanos().into(),
        });
        wait(poll.registry(), spare_capacity(&mut self.events), timeout.as_ref())?;
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Returns `true` if the last wait took as many events as it could, so that more may be there.
    pub(super) fn is_full(&self) -> bool {
        self.events.len() == self.events.capacity()
    }

    #[inline(always)]
    pub(super) fn skip(&mut self) {
        self.taken += 1;
    }

    #[inline(always)]
    pub(super) fn peek(&self) -> Option<(Token, Readiness)> {
        let event = self.events.get(self.taken)?;
        let (flags, data) = (event.flags, event.data);
        // The bits are the same as those of `poll`.
        Some((Token(data.u64() as usize), Readiness::of(PollFlags::from_bits_retain(flags.bits() as u16))))
    }
}
