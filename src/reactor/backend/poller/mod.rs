//! [`Poller`]: mio's poller and its events. On Linux, rustix waits on the poller's descriptor. The
//! call of rustix stands in the frame of the loop, while mio's stands in a frame of its own
//! (`any.rs` gives the reason). Everything else is mio's on every system.

#[cfg(any(target_os = "linux", target_os = "android"))]
mod epoll;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod portable;

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Poll, Token, Waker};

#[cfg(any(target_os = "linux", target_os = "android"))]
use self::epoll::Events;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
use self::portable::Events;
use super::reported::Readiness;
use crate::transport::id::Id;

/// The token of the waker: no slot has this number.
const WAKE: Token = Token(usize::MAX);
/// The token of the fine timer.
const FINE: Token = Token(usize::MAX - 1);
/// The token of the poller of foreign descriptors. Smaller tokens are those of sources.
const NESTED: Token = Token(usize::MAX - 2);

/// mio's poller and its events: see the module.
pub(super) struct Poller {
    poll: Poll,
    events: Events,
    /// The nested poller had events.
    nested_had_events: bool,
}

impl Poller {
    /// Makes a poller that takes so many events per wait.
    pub(super) fn new(events: usize) -> io::Result<Self> {
        Ok(Self { poll: Poll::new()?, events: Events::with_capacity(events), nested_had_events: false })
    }

    /// Makes the waker of this poller.
    pub(super) fn make_waker(&self) -> io::Result<Arc<Waker>> {
        Ok(Arc::new(Waker::new(self.poll.registry(), WAKE)?))
    }

    /// Returns another descriptor of the poller. It is readable while there are events that no
    /// [`wait`](Self::wait) has taken.
    pub(super) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.poll.registry().as_fd().try_clone_to_owned()
    }

    pub(super) fn register(&self, id: Id, descriptor: RawFd, interest: Interest) -> io::Result<()> {
        self.poll.registry().register(&mut SourceFd(&descriptor), token(id), interest)
    }

    pub(super) fn reregister(&self, id: Id, descriptor: RawFd, interest: Interest) -> io::Result<()> {
        self.poll.registry().reregister(&mut SourceFd(&descriptor), token(id), interest)
    }

    pub(super) fn deregister(&self, descriptor: RawFd) -> io::Result<()> {
        self.poll.registry().deregister(&mut SourceFd(&descriptor))
    }

    /// Registers the timer that ends a wait. It reports no other event.
    pub(super) fn register_timer(&self, timer: &impl AsRawFd) -> io::Result<()> {
        self.poll.registry().register(&mut SourceFd(&timer.as_raw_fd()), FINE, Interest::READABLE)
    }

    /// Waits for the events of another poller too. [`take_nested`](Self::take_nested) reports them.
    pub(super) fn register_nested(&self, nested: &Self) -> io::Result<()> {
        self.poll.registry().register(&mut SourceFd(&nested.descriptor()), NESTED, Interest::READABLE)
    }

    /// Returns `true` if the nested poller had events since the last call.
    pub(super) fn take_nested(&mut self) -> bool {
        std::mem::take(&mut self.nested_had_events)
    }

    /// Returns the descriptor of the poller, which is readable when there are events.
    pub(super) fn descriptor(&self) -> RawFd {
        self.poll.as_raw_fd()
    }

    /// Discards the last events, and waits for more. An interrupted wait is an error without
    /// events.
    #[inline(always)]
    pub(super) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.events.wait(&mut self.poll, timeout)
    }

    /// Returns `true` if the last wait ended without events.
    pub(super) fn is_silent(&self) -> bool {
        self.events.is_empty()
    }

    /// Returns `true` if the last wait may have left events behind. A host that is told of edges is
    /// not told of these again.
    pub(super) fn is_full(&self) -> bool {
        self.events.is_full()
    }

    /// Returns the next source with an event, and its readiness. It stays the next.
    #[inline(always)]
    pub(super) fn peek(&mut self) -> Option<(Id, Readiness)> {
        loop {
            let (token, readiness) = self.events.peek()?;
            if token < NESTED {
                return Some((id(token), readiness));
            }
            self.nested_had_events |= token == NESTED;
            self.events.skip();
        }
    }

    /// Moves on to the next event.
    #[inline(always)]
    pub(super) fn skip(&mut self) {
        self.events.skip();
    }

    /// Takes the next source with an event, and its readiness.
    pub(super) fn next(&mut self) -> Option<(Id, Readiness)> {
        let next = self.peek()?;
        self.skip();
        Some(next)
    }
}

#[cfg(not(target_pointer_width = "64"))]
compile_error!("ropewalk needs 64-bit tokens: a slot and a generation of 32 bits each");

fn token(id: Id) -> Token {
    Token(((id.generation as usize) << 32) | id.slot as usize)
}

#[inline(always)]
fn id(token: Token) -> Id {
    Id { slot: token.0 as u32, generation: (token.0 >> 32) as u32 }
}
