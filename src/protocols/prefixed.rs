//! Strings with their length in front, in 8, 16 or 32 bits (Twisted:
//! `twisted.protocols.basic.Int8StringReceiver`, `Int16StringReceiver`, `Int32StringReceiver`).
//!
//! The length is big-endian, and compared with the limit before any byte of the string is kept. No
//! memory is reserved for a length that was only announced.

use std::fmt;
use std::mem;

use thiserror::Error;

use super::receiving::{append, recycle, take_messages};
use crate::failure::Result;
use crate::protocol::Protocol;
use crate::transport::Transport;

/// Default of [`IntNStringReceiver::max_length`], which is Twisted's.
const MAX_STRING_BYTES: usize = 99_999;

/// A protocol of strings with their length in front (Twisted: `IntNStringReceiver`).
///
/// The protocol holds an [`IntNStringReceiver`], and its `data_received` passes the bytes on to
/// [`receive_strings`](Self::receive_strings). A string that arrived whole is lent from the
/// received chunk, without a copy.
///
/// ```
/// use ropewalk::protocols::{IntNStringProtocol, IntNStringReceiver};
/// use ropewalk::testing::StringTransport;
/// use ropewalk::{Protocol, Result, Transport};
///
/// /// Sends each string back.
/// struct Echo { strings: IntNStringReceiver }
///
/// impl Protocol for Echo {
///     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
///         self.receive_strings(transport, data)
///     }
/// }
///
/// impl IntNStringProtocol for Echo {
///     fn strings(&mut self) -> &mut IntNStringReceiver {
///         &mut self.strings
///     }
///
///     fn string_received(&mut self, transport: &Transport, string: &[u8]) -> Result<()> {
///         Ok(self.strings.send_string(transport, string)?)
///     }
/// }
///
/// let connection = StringTransport::new().joined(Echo { strings: IntNStringReceiver::int16() });
/// connection.deliver(b"\0\x04yarn\0\x02o");
/// connection.deliver(b"f");
/// assert_eq!(connection.string().value(), b"\0\x04yarn\0\x02of");
/// ```
pub trait IntNStringProtocol: Protocol {
    /// Returns the protocol's receiver.
    fn strings(&mut self) -> &mut IntNStringReceiver;

    /// Called with each string, without its length (Twisted: `stringReceived`). The slice is
    /// borrowed for the call.
    ///
    /// # Errors
    /// An `Err` closes the connection, as that of any callback.
    fn string_received(&mut self, transport: &Transport, string: &[u8]) -> Result<()>;

    /// Called when a string of more than [`max_length`](IntNStringReceiver::max_length) bytes is
    /// announced, with its length (Twisted: `lengthLimitExceeded`). The default implementation
    /// closes the connection. If the connection stays open, the string is skipped.
    ///
    /// # Errors
    /// An `Err` closes the connection.
    fn length_limit_exceeded(&mut self, transport: &Transport, length: u32) -> Result<()> {
        let _ = length;
        transport.lose_connection();
        Ok(())
    }

    /// Takes strings out of the bytes that `data_received` was given. Call it from there, with
    /// these bytes; it is not to be implemented. A pause, a close and `start_tls` act at once, in
    /// the middle of a chunk, as in
    /// [`LineProtocol::receive_lines`](super::LineProtocol::receive_lines).
    ///
    /// # Errors
    /// Returns the failure of a callback.
    fn receive_strings(&mut self, transport: &Transport, data: &[u8]) -> Result<()>
    where
        Self: Sized,
    {
        take_messages(transport, data, |rest| take(self, transport, rest))
    }
}

/// The state of a receiver of strings with their length in front: the limit, and the bytes of an
/// incomplete string (Twisted: the attributes of `IntNStringReceiver`). It belongs to an
/// [`IntNStringProtocol`].
///
/// At most `max_length` bytes and a length are kept, whatever the peer sends.
pub struct IntNStringReceiver {
    /// Bytes of a length.
    prefix: usize,
    max_length: usize,
    /// Number of bytes to skip, of a string that is too long.
    skipped: u32,
    /// The received bytes of an incomplete string, with its length.
    partial: Vec<u8>,
}

impl IntNStringReceiver {
    /// Makes a receiver of strings whose length has 8 bits (Twisted: `Int8StringReceiver`).
    pub fn int8() -> Self {
        Self::with_prefix(1)
    }

    /// Makes a receiver of strings whose length has 16 bits (Twisted: `Int16StringReceiver`).
    pub fn int16() -> Self {
        Self::with_prefix(2)
    }

    /// Makes a receiver of strings whose length has 32 bits (Twisted: `Int32StringReceiver`).
    pub fn int32() -> Self {
        Self::with_prefix(4)
    }

    fn with_prefix(prefix: usize) -> Self {
        Self { prefix, max_length: MAX_STRING_BYTES, skipped: 0, partial: Vec::new() }
    }

    /// Sets the longest string that is accepted, in bytes (Twisted: `MAX_LENGTH`). The default is
    /// 99,999.
    pub fn max_length(mut self, bytes: usize) -> Self {
        self.max_length = bytes;
        self
    }

    /// Changes the longest string that is accepted. It holds from the next string on.
    pub fn set_max_length(&mut self, bytes: usize) {
        self.max_length = bytes;
    }

    /// Writes a string with its length in front (Twisted: `sendString`).
    ///
    /// # Errors
    /// [`StringTooLong`] if the length does not fit into its bits. Nothing is written then.
    pub fn send_string(&self, transport: &Transport, string: &[u8]) -> Result<(), StringTooLong> {
        let most = self.most_sent();
        let length = u32::try_from(string.len()).ok().filter(|length| *length <= most);
        let Some(length) = length else {
            return Err(StringTooLong { length: string.len(), most });
        };
        let bytes = length.to_be_bytes();
        transport.write_sequence([&bytes[bytes.len() - self.prefix..], string]);
        Ok(())
    }

    /// The largest length that fits into the prefix.
    fn most_sent(&self) -> u32 {
        u32::MAX >> (u32::BITS - 8 * self.prefix as u32)
    }

    /// Reads the length at the front of a string. `None` if it is incomplete.
    fn length_of(&self, string: &[u8]) -> Option<u32> {
        let prefix = string.get(..self.prefix)?;
        Some(prefix.iter().fold(0, |length, byte| length << 8 | u32::from(*byte)))
    }

    fn is_too_long(&self, length: u32) -> bool {
        usize::try_from(length).map_or(true, |length| length > self.max_length)
    }
}

/// Takes at most one string off the front of `data`. Returns the number of bytes taken.
fn take<P: IntNStringProtocol>(protocol: &mut P, transport: &Transport, data: &[u8]) -> Result<usize> {
    let strings = protocol.strings();
    if strings.skipped > 0 {
        let taken = u32::try_from(data.len()).unwrap_or(u32::MAX).min(strings.skipped);
        strings.skipped -= taken;
        return Ok(taken as usize);
    }
    if !strings.partial.is_empty() {
        return take_partial(protocol, transport, data);
    }
    let prefix = strings.prefix;
    match strings.length_of(data) {
        Some(length) if strings.is_too_long(length) => {
            strings.skipped = length;
            protocol.length_limit_exceeded(transport, length)?;
            Ok(prefix)
        }
        Some(length) if data.len() - prefix >= length as usize => {
            let end = prefix + length as usize;
            protocol.string_received(transport, &data[prefix..end])?;
            Ok(end)
        }
        _ => {
            append(&mut strings.partial, data, strings.max_length.saturating_add(prefix));
            Ok(data.len())
        }
    }
}

/// Takes bytes of a string that has begun in an earlier chunk: first its length, then the string.
fn take_partial<P: IntNStringProtocol>(protocol: &mut P, transport: &Transport, data: &[u8]) -> Result<usize> {
    let strings = protocol.strings();
    let (prefix, most) = (strings.prefix, strings.max_length.saturating_add(strings.prefix));
    let mut taken = prefix.saturating_sub(strings.partial.len()).min(data.len());
    append(&mut strings.partial, &data[..taken], most);
    let Some(length) = strings.length_of(&strings.partial) else { return Ok(taken) };
    if taken > 0 && strings.is_too_long(length) {
        strings.partial.clear();
        strings.skipped = length;
        protocol.length_limit_exceeded(transport, length)?;
        return Ok(taken);
    }
    let missing = (prefix + length as usize).saturating_sub(strings.partial.len());
    let more = &data[taken..][..missing.min(data.len() - taken)];
    append(&mut strings.partial, more, most);
    taken += more.len();
    if more.len() == missing {
        let string = mem::take(&mut strings.partial);
        protocol.string_received(transport, &string[prefix..])?;
        recycle(&mut protocol.strings().partial, string);
    }
    Ok(taken)
}

impl fmt::Debug for IntNStringReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IntNStringReceiver")
            .field("bits", &(8 * self.prefix))
            .field("max_length", &self.max_length)
            .field("partial_bytes", &self.partial.len())
            .finish_non_exhaustive()
    }
}

/// A string is longer than its length can express (Twisted: `StringTooLongError`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a string of {length} bytes cannot be sent: its length has room for {most}")]
#[non_exhaustive]
pub struct StringTooLong {
    /// Number of bytes of the string.
    pub length: usize,
    /// The longest string that can be sent.
    pub most: u32,
}
