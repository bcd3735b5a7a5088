//! Netstrings: `5:hello,` (Twisted: `twisted.protocols.basic.NetstringReceiver`).
//!
//! The syntax is strict: decimal digits without leading zeros or signs, a colon, the bytes, a
//! comma. A length is refused at the digit that takes it above the limit, so no length is ever too
//! large for its type.

use std::fmt;
use std::mem;

use thiserror::Error;

use super::receiving::{append, recycle, take_messages};
use crate::failure::Result;
use crate::protocol::Protocol;
use crate::transport::Transport;

/// Default of [`NetstringReceiver::max_length`], which is Twisted's.
const MAX_STRING_BYTES: usize = 99_999;

/// A protocol of netstrings (Twisted: `NetstringReceiver`).
///
/// The protocol holds a [`NetstringReceiver`], and its `data_received` passes the bytes on to
/// [`receive_netstrings`](Self::receive_netstrings). A string that arrived whole is lent from the
/// received chunk, without a copy.
///
/// ```
/// use ropewalk::protocols::{NetstringProtocol, NetstringReceiver};
/// use ropewalk::testing::StringTransport;
/// use ropewalk::{Protocol, Result, Transport};
///
/// /// Sends each string back.
/// #[derive(Default)]
/// struct Echo { strings: NetstringReceiver }
///
/// impl Protocol for Echo {
///     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
///         self.receive_netstrings(transport, data)
///     }
/// }
///
/// impl NetstringProtocol for Echo {
///     fn netstrings(&mut self) -> &mut NetstringReceiver {
///         &mut self.strings
///     }
///
///     fn string_received(&mut self, transport: &Transport, string: &[u8]) -> Result<()> {
///         self.strings.send_string(transport, string);
///         Ok(())
///     }
/// }
///
/// let connection = StringTransport::new().joined(Echo::default());
/// connection.deliver(b"4:yarn,2:of");
/// connection.deliver(b",01:x,");
/// assert_eq!(connection.string().value(), b"4:yarn,2:of,");
/// assert!(connection.lost().is_some(), "a leading zero is no netstring");
/// ```
pub trait NetstringProtocol: Protocol {
    /// Returns the protocol's receiver.
    fn netstrings(&mut self) -> &mut NetstringReceiver;

    /// Called with the contents of each netstring (Twisted: `stringReceived`). The slice is
    /// borrowed for the call.
    ///
    /// # Errors
    /// An `Err` closes the connection, as that of any callback.
    fn string_received(&mut self, transport: &Transport, string: &[u8]) -> Result<()>;

    /// Called once, when the peer has sent something that is no netstring, or too long a one
    /// (Twisted: `brokenPeer` is set). The default implementation closes the connection. There is
    /// no next netstring to find: all further bytes are ignored.
    ///
    /// # Errors
    /// An `Err` closes the connection.
    fn netstring_broken(&mut self, transport: &Transport, error: NetstringError) -> Result<()> {
        let _ = error;
        transport.lose_connection();
        Ok(())
    }

    /// Takes netstrings out of the bytes that `data_received` was given. Call it from there, with
    /// these bytes; it is not to be implemented. A pause, a close and `start_tls` act at once, in
    /// the middle of a chunk, as in
    /// [`LineProtocol::receive_lines`](super::LineProtocol::receive_lines).
    ///
    /// # Errors
    /// Returns the failure of a callback.
    fn receive_netstrings(&mut self, transport: &Transport, data: &[u8]) -> Result<()>
    where
        Self: Sized,
    {
        take_messages(transport, data, |rest| take(self, transport, rest))
    }
}

/// The state of a receiver of netstrings: the limit, and an incomplete netstring (Twisted: the
/// attributes of `NetstringReceiver`). It belongs to a [`NetstringProtocol`].
///
/// At most `max_length` bytes are kept, whatever the peer sends.
pub struct NetstringReceiver {
    max_length: usize,
    place: Place,
    /// The received bytes of an incomplete string.
    partial: Vec<u8>,
}

/// The place in a netstring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In the length, of which these digits were read.
    Length(Option<usize>),
    /// In the string, which has this length, or in front of its comma.
    String(usize),
    Broken,
}

impl NetstringReceiver {
    /// Makes a receiver of netstrings of 99,999 bytes at most, as Twisted's.
    pub fn new() -> Self {
        Self { max_length: MAX_STRING_BYTES, place: Place::Length(None), partial: Vec::new() }
    }

    /// Sets the longest string that is accepted, in bytes (Twisted: `MAX_LENGTH`).
    pub fn max_length(mut self, bytes: usize) -> Self {
        self.max_length = bytes;
        self
    }

    /// Changes the longest string that is accepted. It holds from the next digit on.
    pub fn set_max_length(&mut self, bytes: usize) {
        self.max_length = bytes;
    }

    /// Returns `true` if the peer has sent something that is no netstring (Twisted: `brokenPeer`).
    pub fn is_broken(&self) -> bool {
        self.place == Place::Broken
    }

    /// Writes a netstring (Twisted: `sendString`).
    pub fn send_string(&self, transport: &Transport, string: &[u8]) {
        let length = string.len().to_string();
        transport.write_sequence([length.as_bytes(), b":", string, b","]);
    }

    /// Reads digits up to the colon. Returns the number of bytes read.
    fn read_length(&mut self, data: &[u8]) -> Result<usize, NetstringError> {
        let mut length = match self.place {
            Place::Length(length) => length,
            _ => None,
        };
        for (place, byte) in data.iter().enumerate() {
            length = match (byte, length) {
                (b':', Some(length)) => {
                    self.place = Place::String(length);
                    return Ok(place + 1);
                }
                (b'0'..=b'9', Some(0)) => return Err(NetstringError::LeadingZero),
                (b'0'..=b'9', so_far) => Some(self.with_digit(so_far.unwrap_or(0), byte - b'0')?),
                _ => return Err(NetstringError::NoLength),
            };
        }
        self.place = Place::Length(length);
        Ok(data.len())
    }

    fn with_digit(&self, length: usize, digit: u8) -> Result<usize, NetstringError> {
        let length = length.checked_mul(10).and_then(|length| length.checked_add(usize::from(digit)));
        length.filter(|length| *length <= self.max_length).ok_or(NetstringError::TooLong { limit: self.max_length })
    }
}

/// Takes the rest of a length, or at most one string, off the front of `data`. Returns the number
/// of bytes taken.
fn take<P: NetstringProtocol>(protocol: &mut P, transport: &Transport, data: &[u8]) -> Result<usize> {
    let strings = protocol.netstrings();
    let mut start = 0;
    if let Place::Length(_) = strings.place {
        match strings.read_length(data) {
            Ok(taken) => start = taken,
            Err(error) => return break_off(protocol, transport, error, data),
        }
    }
    let Place::String(length) = strings.place else { return Ok(data.len()) };
    let rest = &data[start..];
    let missing = length.saturating_sub(strings.partial.len());
    let Some(comma) = rest.get(missing) else {
        append(&mut strings.partial, rest, length);
        return Ok(data.len());
    };
    if *comma != b',' {
        return break_off(protocol, transport, NetstringError::NoComma, data);
    }
    strings.place = Place::Length(None);
    if strings.partial.is_empty() {
        protocol.string_received(transport, &rest[..missing])?;
    } else {
        let mut string = mem::take(&mut strings.partial);
        append(&mut string, &rest[..missing], length);
        protocol.string_received(transport, &string)?;
        recycle(&mut protocol.netstrings().partial, string);
    }
    Ok(start + missing + 1)
}

/// Reports an error, after which all bytes are ignored.
#[cold]
fn break_off<P: NetstringProtocol>(
    protocol: &mut P,
    transport: &Transport,
    error: NetstringError,
    data: &[u8],
) -> Result<usize> {
    let strings = protocol.netstrings();
    strings.place = Place::Broken;
    strings.partial = Vec::new();
    protocol.netstring_broken(transport, error)?;
    Ok(data.len())
}

impl Default for NetstringReceiver {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for NetstringReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetstringReceiver")
            .field("max_length", &self.max_length)
            .field("place", &self.place)
            .field("partial_bytes", &self.partial.len())
            .finish_non_exhaustive()
    }
}

/// The reason why received bytes are no netstring (Twisted: `NetstringParseError`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NetstringError {
    /// A byte is neither a digit nor the colon behind digits.
    #[error("a netstring begins with its length and a colon")]
    NoLength,
    /// A digit follows a zero in front.
    #[error("the length of a netstring has a leading zero")]
    LeadingZero,
    /// The length is above the limit.
    #[error("a netstring is longer than {limit} bytes")]
    TooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// Another byte stands in the place of the comma.
    #[error("a netstring does not end with a comma")]
    NoComma,
}
