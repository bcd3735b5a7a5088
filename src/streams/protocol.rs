//! [`StreamProtocol`]: the protocol below a [`ByteStream`]. It keeps received bytes until they are
//! read, and wakes the tasks that wait.

use std::cell::{Ref, RefCell, RefMut};
use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::rc::Rc;
use std::task::{Context, Waker};

use super::byte_stream::ByteStream;
use crate::error::ConnectionClosed;
use crate::failure::{Failure, Result};
use crate::protocol::Protocol;
use crate::transport::Transport;

/// Number of unread bytes at which the peer is made to wait. 64 KiB: what one receive brings at
/// most, so that a reader that keeps up is never behind.
pub(super) const UNREAD_BYTES: usize = 64 * 1024;

/// Number of unread bytes at which it may go on: half, so that a slow reader does not pause and
/// resume with each read.
pub(super) const RESUME_BYTES: usize = UNREAD_BYTES / 2;

/// A protocol that makes a [`ByteStream`] of its connection, and hands it to a function. It works
/// with any factory, so for every way to listen or to connect that has no function of its own here.
///
/// ```
/// use futures::io::{AsyncReadExt, AsyncWriteExt};
/// use ropewalk::streams::StreamProtocol;
/// use ropewalk::testing::{StringTransport, VirtualClock};
///
/// let clock = VirtualClock::new();
/// let spawner = clock.spawner().clone();
/// let protocol = StreamProtocol::new(move |mut stream| {
///     let answered = spawner.spawn(async move {
///         let mut word = [0; 4];
///         stream.read_exact(&mut word).await?;
///         Ok(stream.write_all(&word).await?)
///     });
///     answered.or_log("answering");
/// });
/// let connection = StringTransport::new().joined(protocol);
/// connection.deliver(b"yarn");
/// clock.turn();
/// connection.turn();
/// assert_eq!(connection.string().value(), b"yarn");
/// ```
pub struct StreamProtocol {
    state: Rc<StreamState>,
    on_stream: Option<Box<dyn FnOnce(ByteStream)>>,
    /// `None` before the connection is made.
    transport: Option<Transport>,
}

impl StreamProtocol {
    /// Creates a protocol that calls `on_stream` when the connection is made, in its
    /// `connection_made`. A panic of `on_stream` ends the connection.
    pub fn new(on_stream: impl FnOnce(ByteStream) + 'static) -> Self {
        Self { state: Rc::default(), on_stream: Some(Box::new(on_stream)), transport: None }
    }
}

impl Protocol for StreamProtocol {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        if let Some(on_stream) = self.on_stream.take() {
            self.transport = Some(transport.clone());
            on_stream(ByteStream::new(Rc::clone(&self.state), transport.clone()));
        }
        Ok(())
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        if self.state.keep(transport, data) >= UNREAD_BYTES {
            transport.pause_producing();
        }
        self.state.wake([Waiter::Reader]);
        Ok(())
    }

    fn handshake_completed(&mut self, _transport: &Transport) -> Result<()> {
        self.state.wake([Waiter::Handshake]);
        Ok(())
    }

    fn half_close(&self) -> bool {
        true
    }

    fn read_connection_lost(&mut self, _transport: &Transport) -> Result<()> {
        self.state.change(|facts| facts.is_read_ended = true);
        self.state.wake([Waiter::Reader]);
        Ok(())
    }

    fn write_connection_lost(&mut self, _transport: &Transport) -> Result<()> {
        self.state.change(|facts| facts.is_shut = true);
        self.state.wake([Waiter::Closer]);
        Ok(())
    }

    fn connection_lost(&mut self, _transport: &Transport, reason: &Failure) {
        self.state.end(reason.clone());
    }
}

impl Drop for StreamProtocol {
    /// A protocol that never got `connection_lost`, because its connection was discarded or its
    /// reactor is gone, ends its stream all the same.
    fn drop(&mut self) {
        if self.state.facts().end.is_none() {
            let is_discarded = self.transport.as_ref().is_some_and(Transport::is_disconnected);
            let reason = if is_discarded { ConnectionClosed::Aborted } else { ConnectionClosed::ReactorStopped };
            self.state.end(Failure::untraced(reason));
        }
    }
}

impl fmt::Debug for StreamProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamProtocol").field("made", &self.on_stream.is_none()).finish_non_exhaustive()
    }
}

/// The state that a [`ByteStream`] shares with its protocol. Nothing is borrowed while a waker is
/// called, cloned or dropped: wakers are the program's.
#[derive(Default)]
pub(super) struct StreamState(RefCell<StreamFacts>);

#[derive(Default)]
pub(super) struct StreamFacts {
    /// Received bytes. Without capacity while there are none.
    pub(super) unread: VecDeque<u8>,
    /// The peer has sent its last byte.
    pub(super) is_read_ended: bool,
    /// The stream was closed by its user.
    pub(super) is_closed: bool,
    /// The end of the write direction was sent.
    pub(super) is_shut: bool,
    /// The stream was dropped: nothing is kept any more.
    pub(super) is_dropped: bool,
    /// The reason of the connection's end.
    pub(super) end: Option<Failure>,
    wakers: [Option<Waker>; 3],
}

/// A task that waits. A task that waits to write is known to the transport
/// ([`Transport::poll_drained`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiter {
    Reader,
    Closer,
    Handshake,
}

impl StreamState {
    pub(super) fn facts(&self) -> Ref<'_, StreamFacts> {
        self.0.borrow()
    }

    pub(super) fn facts_mut(&self) -> RefMut<'_, StreamFacts> {
        self.0.borrow_mut()
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut StreamFacts)) {
        change(&mut self.0.borrow_mut());
    }

    /// Keeps received bytes, and returns the number of unread ones.
    fn keep(&self, transport: &Transport, data: &[u8]) -> usize {
        let mut facts = self.0.borrow_mut();
        if !facts.is_dropped {
            if facts.unread.capacity() == 0 {
                facts.unread = transport.take_buffer().into();
            }
            facts.unread.extend(data);
        }
        facts.unread.len()
    }

    /// Keeps the waker of a task, in the place of an earlier one.
    pub(super) fn wait(&self, waiter: Waiter, cx: &Context<'_>) {
        let index = waiter as usize;
        let is_kept = self.0.borrow().wakers[index].as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if !is_kept {
            let waker = cx.waker().clone();
            let old = self.0.borrow_mut().wakers[index].replace(waker);
            drop(old);
        }
    }

    fn wake(&self, waiters: impl IntoIterator<Item = Waiter>) {
        for waiter in waiters {
            let waker = self.0.borrow_mut().wakers[waiter as usize].take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    fn end(&self, reason: Failure) {
        self.change(|facts| facts.end = Some(reason));
        self.wake([Waiter::Reader, Waiter::Closer, Waiter::Handshake]);
    }

    /// Forgets the unread bytes, for good, and the wakers. Returns the buffer.
    pub(super) fn abandon(&self) -> Vec<u8> {
        let mut facts = self.0.borrow_mut();
        facts.is_dropped = true;
        let (buffer, wakers) = (mem::take(&mut facts.unread), mem::take(&mut facts.wakers));
        drop(facts);
        drop(wakers);
        buffer.into()
    }
}
