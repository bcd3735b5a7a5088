//! Messages of any form: a function says where the first of the received bytes' messages ends.
//! (Twisted has no such receiver.) For the codecs of tokio-util there is `codec.rs`.
//!
//! | the function returns | means |
//! |---|---|
//! | [`Cut::Message`] | the first bytes, so many of them, are a message |
//! | [`Cut::Incomplete`] | more bytes are needed, and it is asked again when any arrive |
//! | [`Cut::Needs`] | so many bytes are needed, and it is asked again when they are there |
//! | an error | the bytes are no message |
//!
//! A function that looks through the bytes of an incomplete message again and again takes quadratic
//! time, up to the limit. One that returns [`Cut::Needs`], as for a length in front, takes linear
//! time.

use std::fmt;
use std::mem;

use thiserror::Error;

use super::receiving::{append, recycle, take_messages};
use crate::failure::{Failure, Result};
use crate::protocol::Protocol;
use crate::transport::Transport;

/// Default of [`FrameReceiver::max_length`]. 16 KiB, as for lines.
const MAX_MESSAGE_BYTES: usize = 16_384;

/// A protocol of messages that a function cuts out of the stream.
///
/// The protocol holds a [`FrameReceiver`], and its `data_received` passes the bytes on to
/// [`receive_frames`](Self::receive_frames). A message that arrived whole is lent from the received
/// chunk, without a copy.
///
/// ```
/// use ropewalk::protocols::{Cut, FrameReceiver, FramedProtocol};
/// use ropewalk::testing::StringTransport;
/// use ropewalk::{Protocol, Result, Transport};
///
/// /// Sends each message back. A message begins with the number of bytes behind it.
/// struct Echo { frames: FrameReceiver }
///
/// impl Echo {
///     fn new() -> Self {
///         Self {
///             frames: FrameReceiver::new(|data| match data {
///                 [length, rest @ ..] if rest.len() >= usize::from(*length) => Ok(Cut::Message(1 + usize::from(*length))),
///                 [length, ..] => Ok(Cut::Needs(1 + usize::from(*length))),
///                 [] => Ok(Cut::Incomplete),
///             }),
///         }
///     }
/// }
///
/// impl Protocol for Echo {
///     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
///         self.receive_frames(transport, data)
///     }
/// }
///
/// impl FramedProtocol for Echo {
///     fn frames(&mut self) -> &mut FrameReceiver {
///         &mut self.frames
///     }
///
///     fn message_received(&mut self, transport: &Transport, message: &[u8]) -> Result<()> {
///         transport.write(&message[1..]);
///         Ok(())
///     }
/// }
///
/// let connection = StringTransport::new().joined(Echo::new());
/// connection.deliver(b"\x04yarn\x02o");
/// connection.deliver(b"f");
/// assert_eq!(connection.string().value(), b"yarnof");
/// ```
pub trait FramedProtocol: Protocol {
    /// Returns the protocol's receiver.
    fn frames(&mut self) -> &mut FrameReceiver;

    /// Called with each message, as it was cut. The slice is borrowed for the call.
    ///
    /// # Errors
    /// An `Err` closes the connection, as that of any callback.
    fn message_received(&mut self, transport: &Transport, message: &[u8]) -> Result<()>;

    /// Called once, with the error of the function that cuts, or with a [`FrameTooLong`]. There is
    /// no next message to find: all further bytes are ignored.
    ///
    /// # Errors
    /// An `Err` closes the connection. The default implementation returns the failure.
    fn frame_broken(&mut self, transport: &Transport, failure: Failure) -> Result<()> {
        let _ = transport;
        Err(failure)
    }

    /// Takes messages out of the bytes that `data_received` was given. Call it from there, with
    /// these bytes; it is not to be implemented. A pause, a close and `start_tls` act at once, in
    /// the middle of a chunk, as in
    /// [`LineProtocol::receive_lines`](super::LineProtocol::receive_lines).
    ///
    /// # Errors
    /// Returns the failure of a callback.
    fn receive_frames(&mut self, transport: &Transport, data: &[u8]) -> Result<()>
    where
        Self: Sized,
    {
        take_messages(transport, data, |rest| take(self, transport, rest))
    }
}

/// The place where the first message of some bytes ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cut {
    /// The message has this many bytes. It is at least one, and no more than there are.
    Message(usize),
    /// The message is incomplete.
    Incomplete,
    /// The message is incomplete, and has at least this many bytes in all.
    Needs(usize),
}

impl From<Option<usize>> for Cut {
    /// `None` is an incomplete message.
    fn from(length: Option<usize>) -> Self {
        length.map_or(Self::Incomplete, Self::Message)
    }
}

/// Returns the place of the first cut.
type Cutter = dyn FnMut(&[u8]) -> Result<Cut>;

/// The state of a receiver of messages: the function that cuts them, the limit, and the bytes of an
/// incomplete message. It belongs to a [`FramedProtocol`].
///
/// At most `max_length` bytes are kept, whatever the peer sends.
pub struct FrameReceiver {
    cutter: Box<Cutter>,
    max_length: usize,
    /// The function is asked again when so many bytes are there.
    needed: usize,
    is_broken: bool,
    partial: Vec<u8>,
}

impl FrameReceiver {
    /// Makes a receiver whose messages `cut` finds, of 16 KiB at most. It is given all bytes from
    /// the beginning of a message on, at least one.
    ///
    /// `cut` returns a [`Cut`], or an `Option` of the message's length.
    ///
    /// ```
    /// use ropewalk::protocols::FrameReceiver;
    ///
    /// let records = FrameReceiver::new(|data| Ok((data.len() >= 512).then_some(512)));
    /// let stanzas = FrameReceiver::new(|data| Ok(data.iter().position(|byte| *byte == 0).map(|end| end + 1)));
    /// # drop((records, stanzas));
    /// ```
    pub fn new<C: Into<Cut>>(mut cut: impl FnMut(&[u8]) -> Result<C> + 'static) -> Self {
        Self {
            cutter: Box::new(move |data| Ok(cut(data)?.into())),
            max_length: MAX_MESSAGE_BYTES,
            needed: 0,
            is_broken: false,
            partial: Vec::new(),
        }
    }

    /// Sets the longest message that is accepted, in bytes.
    pub fn max_length(mut self, bytes: usize) -> Self {
        self.max_length = bytes;
        self
    }

    /// Changes the longest message that is accepted. It holds from the next cut on.
    pub fn set_max_length(&mut self, bytes: usize) {
        self.max_length = bytes;
    }

    /// Returns the length of the first message of `data`. `None` if it is incomplete.
    fn cut(&mut self, data: &[u8]) -> Result<Option<usize>> {
        if data.len() < self.needed {
            return Ok(None);
        }
        // The function sees no more bytes than the limit, in a long chunk too, so that a message is
        // too long in each cut or in none.
        let within = &data[..data.len().min(self.max_length)];
        let too_long = || Failure::untraced(FrameTooLong { limit: self.max_length });
        match if within.is_empty() { Cut::Incomplete } else { (self.cutter)(within)? } {
            Cut::Message(length) if (1..=within.len()).contains(&length) => {
                self.needed = 0;
                Ok(Some(length))
            }
            Cut::Message(length) => Err(Failure::new(BadCut { length, received: within.len() })),
            Cut::Needs(needed) if needed > self.max_length => Err(too_long()),
            Cut::Incomplete | Cut::Needs(_) if data.len() >= self.max_length => Err(too_long()),
            Cut::Incomplete => Ok(None),
            Cut::Needs(needed) => {
                self.needed = needed;
                Ok(None)
            }
        }
    }
}

/// Takes at most one message off the front of `data`. Returns the number of bytes taken.
fn take<P: FramedProtocol>(protocol: &mut P, transport: &Transport, data: &[u8]) -> Result<usize> {
    let frames = protocol.frames();
    if frames.is_broken {
        return Ok(data.len());
    }
    if frames.partial.is_empty() {
        return match frames.cut(data) {
            Ok(Some(length)) => {
                protocol.message_received(transport, &data[..length])?;
                Ok(length)
            }
            Ok(None) => {
                append(&mut frames.partial, data, frames.max_length);
                Ok(data.len())
            }
            Err(failure) => break_off(protocol, transport, failure, data),
        };
    }
    let before = frames.partial.len();
    // If the function has said how many bytes it needs, none is copied that it does not ask for.
    let most = if frames.needed > before { frames.needed } else { frames.max_length };
    let added = data.len().min(most.saturating_sub(before).max(1));
    append(&mut frames.partial, &data[..added], frames.max_length);
    let message = mem::take(&mut frames.partial);
    match frames.cut(&message) {
        // The bytes behind the message are those of the chunk. A function that would have found
        // the end in the earlier bytes, and did not, contradicts itself.
        Ok(Some(length)) if length > before => {
            protocol.message_received(transport, &message[..length])?;
            recycle(&mut protocol.frames().partial, message);
            Ok(length - before)
        }
        Ok(Some(length)) => {
            let failure = Failure::new(BadCut { length, received: before });
            break_off(protocol, transport, failure, data)
        }
        Ok(None) => {
            frames.partial = message;
            Ok(added)
        }
        Err(failure) => break_off(protocol, transport, failure, data),
    }
}

/// Reports an error, after which all bytes are ignored.
#[cold]
fn break_off<P: FramedProtocol>(
    protocol: &mut P,
    transport: &Transport,
    failure: Failure,
    data: &[u8],
) -> Result<usize> {
    protocol.frames().is_broken = true;
    protocol.frame_broken(transport, failure)?;
    Ok(data.len())
}

impl fmt::Debug for FrameReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameReceiver")
            .field("max_length", &self.max_length)
            .field("is_broken", &self.is_broken)
            .field("partial_bytes", &self.partial.len())
            .finish_non_exhaustive()
    }
}

/// A message is longer than the limit of its receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a message is longer than {limit} bytes")]
#[non_exhaustive]
pub struct FrameTooLong {
    /// The limit in bytes.
    pub limit: usize,
}

/// A function that cuts messages has returned an impossible length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a message was cut after {length} bytes, which is no place within {received} bytes for it to end")]
#[non_exhaustive]
pub struct BadCut {
    /// The returned length of a message.
    pub length: usize,
    /// Number of bytes that were there.
    pub received: usize,
}
