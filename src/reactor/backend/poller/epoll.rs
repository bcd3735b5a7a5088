//! What epoll says, waited for by rustix on the descriptor of mio's poller.

use std::io;
use std::time::Duration;

use mio::{Poll, Token};
use rustix::event::epoll::{Event, EventData, EventFlags, wait};
use rustix::event::{PollFlags, Timespec};
use rustix::io::Errno;

use crate::reactor::backend::readiness::Edge;

/// What epoll said last, and how much of it was handed over.
pub(super) struct Events {
    events: Box<[Event]>,
    filled: usize,
    taken: usize,
}

impl Events {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        let none = Event { flags: EventFlags::empty(), data: EventData::new_u64(0) };
        Self { events: vec![none; capacity].into_boxed_slice(), filled: 0, taken: 0 }
    }

    #[inline(always)]
    pub(super) fn wait(&mut self, poll: &mut Poll, timeout: Option<Duration>) -> io::Result<()> {
        (self.filled, self.taken) = (0, 0);
        let timeout = timeout.map(|timeout| Timespec {
            // It fits, for no wait is longer than `LONGEST_WAIT`.
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: timeout.subsec_nanos().into(),
        });
        match wait(poll.registry(), &mut *self.events, timeout.as_ref()) {
            Ok(filled) => self.filled = filled,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.filled == 0
    }

    #[inline(always)]
    pub(super) fn peek(&self) -> Option<Token> {
        let event = self.events[..self.filled].get(self.taken)?;
        let data = event.data;
        Some(Token(data.u64() as usize))
    }

    #[inline(always)]
    pub(super) fn next(&mut self) -> Option<(Token, Edge)> {
        let event = self.events[..self.filled].get(self.taken)?;
        self.taken += 1;
        let (flags, data) = (event.flags, event.data);
        // The bits are those of `poll`.
        Some((Token(data.u64() as usize), Edge::of(PollFlags::from_bits_retain(flags.bits() as u16))))
    }
}
