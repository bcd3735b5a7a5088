//! The codecs of tokio-util as receivers of messages (feature `codec`). A codec reads from a buffer
//! of its own, so each byte is copied into it once; [`FrameReceiver`](super::FrameReceiver) lends
//! messages without a copy.

use std::error::Error;
use std::fmt;

use bytes::BytesMut;
use tokio_util::codec::{Decoder, Encoder};

use super::FrameTooLong;
use crate::failure::{Failure, Result};
use crate::protocol::Protocol;
use crate::transport::Transport;

/// Default of [`CodecReceiver::max_length`]. 64 KiB: a codec has limits of its own, and this one is
/// only the bound of those without.
const MAX_ITEM_BYTES: usize = 64 * 1024;

/// A protocol of the items of a codec of tokio-util, such as `LinesCodec` or
/// `LengthDelimitedCodec`.
///
/// The protocol holds a [`CodecReceiver`], and its `data_received` passes the bytes on to
/// [`receive_items`](Self::receive_items).
///
/// ```
/// use ropewalk::protocols::{CodecProtocol, CodecReceiver};
/// use ropewalk::testing::StringTransport;
/// use ropewalk::{Protocol, Result, Transport};
/// use tokio_util::codec::LinesCodec;
///
/// /// Answers each line in upper case.
/// struct Shout { lines: CodecReceiver<LinesCodec> }
///
/// impl Protocol for Shout {
///     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
///         self.receive_items(transport, data)
///     }
/// }
///
/// impl CodecProtocol for Shout {
///     type Codec = LinesCodec;
///
///     fn codec(&mut self) -> &mut CodecReceiver<LinesCodec> {
///         &mut self.lines
///     }
///
///     fn item_received(&mut self, transport: &Transport, line: String) -> Result<()> {
///         self.lines.send(transport, line.to_uppercase())
///     }
/// }
///
/// let connection = StringTransport::new().joined(Shout { lines: CodecReceiver::new(LinesCodec::new()) });
/// connection.deliver(b"hello\nwor");
/// connection.deliver(b"ld\n");
/// assert_eq!(connection.string().value(), b"HELLO\nWORLD\n");
/// ```
pub trait CodecProtocol: Protocol {
    /// The codec.
    type Codec: Decoder<Error: Error + Send + Sync + 'static>;

    /// Returns the protocol's receiver.
    fn codec(&mut self) -> &mut CodecReceiver<Self::Codec>;

    /// Called with each item.
    ///
    /// # Errors
    /// An `Err` closes the connection, as that of any callback.
    fn item_received(&mut self, transport: &Transport, item: <Self::Codec as Decoder>::Item) -> Result<()>;

    /// Called with an error of the codec, or with a [`FrameTooLong`]. The default implementation
    /// returns the failure, which closes the connection. If the connection stays open, the codec is
    /// asked for the next item, which only some codecs can find.
    ///
    /// # Errors
    /// An `Err` closes the connection.
    fn codec_failed(&mut self, transport: &Transport, failure: Failure) -> Result<()> {
        let _ = transport;
        Err(failure)
    }

    /// Takes items out of the bytes that `data_received` was given. Call it from there, with these
    /// bytes; it is not to be implemented. A pause and a close act at once, in the middle of a
    /// chunk, as in [`LineProtocol::receive_lines`](super::LineProtocol::receive_lines). After
    /// `start_tls` the bytes behind the item belong to the handshake.
    ///
    /// # Errors
    /// Returns the failure of a callback.
    fn receive_items(&mut self, transport: &Transport, data: &[u8]) -> Result<()>
    where
        Self: Sized,
    {
        let level = transport.levels();
        self.codec().buffer.extend_from_slice(data);
        while take(self, transport, false)? {
            if !transport.takes_more(level) {
                transport.keep_rest(level, self.codec().give_back(data));
                break;
            }
        }
        self.codec().release();
        Ok(())
    }

    /// Takes the items that the end of the stream completes, such as a last line without a line
    /// feed. A protocol with [`half_close`](Protocol::half_close) may call it from
    /// `read_connection_lost`; it is not to be implemented.
    ///
    /// # Errors
    /// Returns the failure of a callback.
    fn receive_last_items(&mut self, transport: &Transport) -> Result<()>
    where
        Self: Sized,
    {
        while take(self, transport, true)? {}
        Ok(())
    }
}

/// The state of a receiver of a codec's items: the codec, the limit, and the bytes of an incomplete
/// item. It belongs to a [`CodecProtocol`].
///
/// At most `max_length` bytes are kept between two chunks, whatever the peer sends and the codec
/// does.
pub struct CodecReceiver<C> {
    codec: C,
    max_length: usize,
    buffer: BytesMut,
    /// Number of bytes that the codec has taken since the last item.
    taken: usize,
}

impl<C> CodecReceiver<C> {
    /// Makes a receiver of the items of `codec`, of 64 KiB at most.
    pub fn new(codec: C) -> Self {
        Self { codec, max_length: MAX_ITEM_BYTES, buffer: BytesMut::new(), taken: 0 }
    }

    /// Sets the longest item that is accepted, in bytes as they are received. It bounds the memory
    /// of codecs that have no limit themselves.
    pub fn max_length(mut self, bytes: usize) -> Self {
        self.max_length = bytes;
        self
    }

    /// Returns the codec.
    pub fn codec(&self) -> &C {
        &self.codec
    }

    /// Returns the codec, to change its options.
    pub fn codec_mut(&mut self) -> &mut C {
        &mut self.codec
    }

    /// Encodes an item, and writes it.
    ///
    /// # Errors
    /// Returns the error of the codec. Nothing is written then.
    pub fn send<I>(&mut self, transport: &Transport, item: I) -> Result<()>
    where
        C: Encoder<I, Error: Error + Send + Sync + 'static>,
    {
        let mut encoded = BytesMut::new();
        self.codec.encode(item, &mut encoded)?;
        transport.write(&encoded);
        Ok(())
    }

    /// Takes the bytes back that are left of a chunk. A codec that looks ahead may have left bytes
    /// of earlier chunks too, which stay here.
    fn give_back<'a>(&mut self, data: &'a [u8]) -> &'a [u8] {
        let count = self.buffer.len().min(data.len());
        self.buffer.truncate(self.buffer.len() - count);
        &data[data.len() - count..]
    }

    /// Frees a large buffer that holds nothing.
    fn release(&mut self) {
        if self.buffer.is_empty() && self.buffer.capacity() > KEPT_BYTES {
            self.buffer = BytesMut::new();
        }
    }
}

impl<C: Decoder<Error: Error + Send + Sync + 'static>> CodecReceiver<C> {
    /// Returns the next item, if it is complete.
    fn next(&mut self, is_end: bool) -> Result<Option<C::Item>> {
        let before = self.buffer.len();
        let decoded =
            if is_end { self.codec.decode_eof(&mut self.buffer) } else { self.codec.decode(&mut self.buffer) };
        self.taken = self.taken.saturating_add(before.saturating_sub(self.buffer.len()));
        let item = decoded.inspect_err(|_| self.taken = 0)?;
        // An item within the limit is one in each cut, and a longer one in none.
        let length = if item.is_some() { self.taken } else { self.taken.saturating_add(self.buffer.len()) };
        if length > self.max_length {
            (self.taken, self.buffer) = (0, BytesMut::new());
            return Err(Failure::untraced(FrameTooLong { limit: self.max_length }));
        }
        if item.is_some() {
            self.taken = 0;
        }
        Ok(item)
    }
}

/// Takes one item, or reports an error. Returns `false` if there is nothing more to take.
fn take<P: CodecProtocol>(protocol: &mut P, transport: &Transport, is_end: bool) -> Result<bool> {
    let before = protocol.codec().buffer.len();
    match protocol.codec().next(is_end) {
        Ok(Some(item)) => protocol.item_received(transport, item)?,
        Ok(None) => return Ok(false),
        Err(failure) => {
            protocol.codec_failed(transport, failure)?;
            // A codec that has taken nothing would fail in the same way for ever.
            return Ok(protocol.codec().buffer.len() < before);
        }
    }
    Ok(true)
}

impl<C: fmt::Debug> fmt::Debug for CodecReceiver<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CodecReceiver")
            .field("codec", &self.codec)
            .field("max_length", &self.max_length)
            .field("buffered_bytes", &self.buffer.len())
            .finish_non_exhaustive()
    }
}

/// Capacity that an empty buffer keeps. 4 KiB, as that of the other receivers.
const KEPT_BYTES: usize = 4096;
