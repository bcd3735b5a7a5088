//! The events of mio's poller on systems without epoll.

use std::io;
use std::time::Duration;

use mio::event::Event;
use mio::{Poll, Token};

use crate::reactor::backend::reported::Readiness;

/// The events of the last wait that were not handed over yet, in reverse order.
pub(super) struct Events {
    events: mio::Events,
    queue: Vec<(Token, Readiness)>,
    capacity: usize,
}

impl Events {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self { events: mio::Events::with_capacity(capacity), queue: Vec::with_capacity(capacity), capacity }
    }

    pub(super) fn wait(&mut self, poll: &mut Poll, timeout: Option<Duration>) -> io::Result<()> {
        self.queue.clear();
        poll.poll(&mut self.events, timeout)?;
        self.queue.extend(self.events.iter().map(|event| (event.token(), readiness(event))));
        self.queue.reverse();
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Returns `true` if the last wait took as many events as it could, so that more may be there.
    pub(super) fn is_full(&self) -> bool {
        self.capacity == self.events.iter().count()
    }

    pub(super) fn peek(&self) -> Option<(Token, Readiness)> {
        self.queue.last().copied()
    }

    pub(super) fn skip(&mut self) {
        self.queue.pop();
    }
}

fn readiness(event: &Event) -> Readiness {
    let hung_up = event.is_read_closed() || event.is_error();
    Readiness::NONE
        .with(Readiness::READABLE, event.is_readable() || hung_up)
        .with(Readiness::WRITABLE, event.is_writable())
        .with(Readiness::HUNG_UP, hung_up)
        .with(Readiness::FAILED, event.is_error())
        .with(Readiness::URGENT, event.is_priority())
        .with(Readiness::GONE, event.is_write_closed())
}
