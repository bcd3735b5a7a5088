//! The events of mio's poller, where it is not epoll.

use std::io;
use std::time::Duration;

use mio::event::Event;
use mio::{Poll, Token};

use crate::reactor::backend::readiness::Edge;

/// The events of the last wait that were not handed over, the last of them first.
pub(super) struct Events {
    events: mio::Events,
    said: Vec<(Token, Edge)>,
}

impl Events {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self { events: mio::Events::with_capacity(capacity), said: Vec::with_capacity(capacity) }
    }

    pub(super) fn wait(&mut self, poll: &mut Poll, timeout: Option<Duration>) -> io::Result<()> {
        self.said.clear();
        poll.poll(&mut self.events, timeout)?;
        self.said.extend(self.events.iter().map(|event| (event.token(), edge(event))));
        self.said.reverse();
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    pub(super) fn peek(&self) -> Option<(Token, Edge)> {
        self.said.last().copied()
    }

    pub(super) fn skip(&mut self) {
        self.said.pop();
    }
}

fn edge(event: &Event) -> Edge {
    let hung_up = event.is_read_closed() || event.is_error();
    Edge::NONE
        .with(Edge::READABLE, event.is_readable() || hung_up)
        .with(Edge::WRITABLE, event.is_writable())
        .with(Edge::HUNG_UP, hung_up)
        .with(Edge::FAILED, event.is_error())
        .with(Edge::URGENT, event.is_priority())
        .with(Edge::GONE, event.is_write_closed())
}
