//! [`ByteStream`], and its reads and writes in the form that all traits share.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::mem;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::closed::{read_error, write_error};
use super::protocol::{RESUME_BYTES, StreamState, Waiter};
use crate::address::Address;
use crate::failure::Failure;
use crate::transport::Transport;

/// Number of queued bytes at which a writer waits. 64 KiB, as for push producers: a full chunk of
/// the queue, and enough to keep a socket busy for the turn that it takes to wake the writer.
const QUEUED_BYTES: usize = 64 * 1024;

/// Number of bytes that a stream accepts in a row without waiting. Then its task gives way once, so
/// that a peer that reads fast does not hold up the loop. 1 MiB, as much as one settling sends.
const BYTES_IN_A_ROW: usize = 1024 * 1024;

/// A connection as async libraries see one: bytes in and bytes out, which are waited for. From
/// [`connect_stream`](super::connect_stream), [`listen_streams`](super::listen_streams),
/// [`accept_streams`](super::accept_streams) or a [`StreamProtocol`](super::StreamProtocol).
///
/// It has the traits of the enabled features; the [module](super) has the rules. It belongs to the
/// reactor's thread (it is not `Send`).
///
/// ```
/// use futures::io::{AsyncReadExt, AsyncWriteExt};
/// use ropewalk::endpoints::{client_from_string, server_from_string};
/// use ropewalk::streams::{connect_stream, listen_streams};
/// use ropewalk::testing::Network;
///
/// # fn main() -> ropewalk::Result<()> {
/// let network = Network::new(1);
/// let (server, client) = (network.reactor("10.0.0.1".parse()?), network.reactor("10.0.0.2".parse()?));
/// let spawner = server.spawner().clone();
/// let listening = listen_streams(&server_from_string(&server, "tcp:7")?, move |stream| {
///     let echoed = spawner.spawn(async move {
///         let (mut reader, mut writer) = stream.split();
///         futures::io::copy(&mut reader, &mut writer).await?;
///         Ok(writer.close().await?)
///     });
///     echoed.or_log("echoing");
/// });
/// listening.or_log("listening");
///
/// let connecting = connect_stream(&client_from_string(&client, "tcp:10.0.0.1:7")?);
/// let answer = client.spawn(async move {
///     let mut stream = connecting.await?;
///     stream.write_all(b"a rope of yarn").await?;
///     stream.close().await?;
///     let mut answer = String::new();
///     stream.read_to_string(&mut answer).await?;
///     Ok(answer)
/// });
/// network.settle()?;
/// assert_eq!(answer.now_or_never().expect("an answer")?, "a rope of yarn");
/// # Ok(())
/// # }
/// # use futures::FutureExt;
/// ```
#[must_use = "dropping a stream closes its connection"]
pub struct ByteStream {
    state: Rc<StreamState>,
    transport: Transport,
    /// Number of bytes accepted since a write last waited.
    in_a_row: usize,
}

impl ByteStream {
    pub(super) fn new(state: Rc<StreamState>, transport: Transport) -> Self {
        Self { state, transport, in_a_row: 0 }
    }

    /// Returns the transport, for its addresses, its options, and TLS. Do not write through it, or
    /// pause it: the stream does both.
    pub fn transport(&self) -> &Transport {
        &self.transport
    }

    /// Returns the address of this end.
    pub fn host(&self) -> Address {
        self.transport.host()
    }

    /// Returns the address of the other end.
    pub fn peer(&self) -> Address {
        self.transport.peer()
    }

    /// Number of received bytes that were not read.
    pub fn unread_bytes(&self) -> usize {
        self.state.facts().unread.len()
    }

    /// Returns the reason of the connection's end, once it is over.
    pub fn reason(&self) -> Option<Failure> {
        self.state.facts().end.clone()
    }

    /// Waits until the handshake of TLS is done. Ready at once without TLS. Afterwards
    /// `transport().tls_session()` has the negotiated parameters, such as the protocol of ALPN.
    ///
    /// # Errors
    /// The error of a handshake that failed, as a read returns it. `UnexpectedEof` if the
    /// connection ended before.
    pub async fn handshake(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_handshake(cx)).await
    }

    fn poll_handshake(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        if let Some(end) = self.reason() {
            return Poll::Ready(Err(read_error(&end).unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into())));
        }
        if !self.transport.stream().is_handshaking() {
            return Poll::Ready(Ok(()));
        }
        self.state.wait(Waiter::Handshake, cx);
        Poll::Pending
    }

    /// Waits until the operating system has taken all written bytes. Ready as well once the
    /// connection is over; the next write tells of that. A flush does not wait for it.
    pub async fn drained(&self) {
        poll_fn(|cx| self.transport.poll_drained(cx, 0)).await;
    }

    /// Closes the connection at once, and drops the queued bytes
    /// ([`abort_connection`](Transport::abort_connection)).
    pub fn abort(self) {
        self.transport.abort_connection();
    }

    /// Reads at most `room` bytes. None is an end of file, unless `room` is zero.
    pub(super) fn poll_take(
        &mut self,
        cx: &Context<'_>,
        room: usize,
        put: impl FnOnce(&[u8]),
    ) -> Poll<io::Result<usize>> {
        if room == 0 {
            return Poll::Ready(Ok(0));
        }
        let mut facts = self.state.facts_mut();
        if facts.unread.is_empty() {
            drop(facts);
            return self.poll_end(cx);
        }
        let bytes = facts.unread.front(room);
        let count = bytes.len();
        put(bytes);
        let emptied = facts.unread.advance(count);
        let left = facts.unread.len();
        drop(facts);
        if let Some(buffer) = emptied {
            // An idle stream holds no buffer.
            self.transport.give_back(buffer);
        }
        if left <= RESUME_BYTES {
            self.transport.resume_if_paused();
        }
        Poll::Ready(Ok(count))
    }

    /// Returns the end of the read direction, or waits for more bytes.
    fn poll_end(&self, cx: &Context<'_>) -> Poll<io::Result<usize>> {
        let facts = self.state.facts();
        let end = match &facts.end {
            Some(end) => Some(read_error(end)),
            None => facts.is_read_ended.then_some(None),
        };
        drop(facts);
        match end {
            Some(error) => Poll::Ready(error.map_or(Ok(0), Err)),
            None => {
                self.state.wait(Waiter::Reader, cx);
                Poll::Pending
            }
        }
    }

    /// Writes as many bytes of the pieces as the queue has room for.
    pub(super) fn poll_put<'a>(
        &mut self,
        cx: &mut Context<'_>,
        pieces: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> Poll<io::Result<usize>> {
        let mut stream = self.transport.stream();
        let room = if self.state.is_write_ended() { None } else { stream.write_room(QUEUED_BYTES) };
        let Some(room) = room else {
            drop(stream);
            return Poll::Ready(Err(self.write_error()));
        };
        if pieces.clone().all(<[u8]>::is_empty) {
            return Poll::Ready(Ok(0));
        }
        if room == 0 || self.in_a_row >= BYTES_IN_A_ROW {
            drop(stream);
            return self.poll_put_slow(cx, pieces);
        }
        let mut left = room;
        for piece in pieces {
            let part = &piece[..piece.len().min(left)];
            self.transport.write_on(&mut stream, part);
            left -= part.len();
            if left == 0 {
                break;
            }
        }
        let count = room - left;
        self.in_a_row += count;
        Poll::Ready(Ok(count))
    }

    /// Slow path: gives way once, or waits for room in the queue.
    #[cold]
    fn poll_put_slow<'a>(
        &mut self,
        cx: &mut Context<'_>,
        pieces: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> Poll<io::Result<usize>> {
        if mem::take(&mut self.in_a_row) >= BYTES_IN_A_ROW {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let most = self.transport.stream().most_queued_bytes(QUEUED_BYTES);
        if self.transport.poll_drained(cx, most / 2).is_pending() {
            return Poll::Pending;
        }
        // There is room now, or the write direction is over.
        self.poll_put(cx, pieces)
    }

    #[cfg(all(test, feature = "testing"))]
    pub(super) fn buffer_capacity(&self) -> usize {
        self.state.facts().unread.capacity()
    }

    /// Checks that no error is known. Accepted bytes leave by themselves.
    pub(super) fn poll_pushed(&self) -> Poll<io::Result<()>> {
        if self.state.facts().end.is_none() && !self.transport.is_disconnecting() {
            return Poll::Ready(Ok(()));
        }
        let known = self.known_end().as_ref().and_then(read_error);
        Poll::Ready(known.map_or(Ok(()), Err))
    }

    /// Ends the write direction, and waits until that was sent.
    pub(super) fn poll_shut(&mut self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        {
            let facts = self.state.facts();
            if let Some(end) = &facts.end {
                return Poll::Ready(read_error(end).map_or(Ok(()), Err));
            }
            if facts.is_shut {
                return Poll::Ready(Ok(()));
            }
        }
        self.state.change(|facts| facts.is_closed = true);
        self.transport.lose_write_connection();
        self.state.wait(Waiter::Closer, cx);
        Poll::Pending
    }

    /// Returns the error of a write when the write direction is over.
    #[cold]
    fn write_error(&self) -> io::Error {
        let told = self.state.facts().end.as_ref().map(write_error);
        told.unwrap_or_else(|| {
            if self.state.is_write_ended() {
                return io::Error::new(io::ErrorKind::BrokenPipe, "the stream was closed for writing");
            }
            match self.known_end() {
                Some(end) => write_error(&end),
                None => io::Error::new(io::ErrorKind::BrokenPipe, "the connection is closing"),
            }
        })
    }

    /// Returns the reason of the end, if it is decided. The protocol may not have been told of it:
    /// it gets the bytes that arrived before first.
    fn known_end(&self) -> Option<Failure> {
        self.reason().or_else(|| self.transport.stream().end_reason())
    }
}

impl Drop for ByteStream {
    /// Closes the connection once all accepted bytes were sent.
    fn drop(&mut self) {
        let buffer = self.state.abandon();
        self.transport.give_back(buffer);
        self.transport.lose_connection();
    }
}

impl fmt::Debug for ByteStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let facts = self.state.facts();
        f.debug_struct("ByteStream")
            .field("host", &self.host())
            .field("peer", &self.peer())
            .field("unread", &facts.unread.len())
            .field("end", &facts.end)
            .finish_non_exhaustive()
    }
}
