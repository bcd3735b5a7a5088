//! Lines (Twisted: `twisted.protocols.basic.LineReceiver` and `LineOnlyReceiver`).
//!
//! | mode | a step takes | and calls |
//! |---|---|---|
//! | lines | a line with its delimiter | `line_received` |
//! | lines | the first bytes of a line that is too long, up to the limit | `line_length_exceeded` |
//! | skipping | bytes up to the next delimiter | nothing |
//! | raw | as many bytes as `raw_data_received` returns | `raw_data_received` |
//!
//! There is no receiver for lines alone: raw mode costs nothing while it is not set.
//!
//! An incomplete line is kept, and only new bytes are searched. A line is too long as soon as its
//! limit and a delimiter's length have arrived, wherever the chunks were cut.

use std::borrow::Cow;
use std::fmt;
use std::mem;

use memchr::memchr_iter;
use thiserror::Error;

use super::receiving::{append, recycle, take_messages};
use crate::failure::Result;
use crate::protocol::Protocol;
use crate::transport::Transport;

/// Default of [`LineReceiver::max_length`], which is Twisted's.
const MAX_LINE_BYTES: usize = 16_384;

/// A protocol of lines (Twisted: `LineReceiver`, `LineOnlyReceiver`).
///
/// The protocol holds a [`LineReceiver`], and its `data_received` passes the bytes on to
/// [`receive_lines`](Self::receive_lines). A line that arrived whole is lent from the received
/// chunk, without a copy.
///
/// A callback may pause reading, close the connection, switch to raw mode or start TLS. The next
/// byte is treated accordingly, even if it is in the same chunk: see
/// [`receive_lines`](Self::receive_lines).
///
/// ```
/// use ropewalk::protocols::{LineProtocol, LineReceiver};
/// use ropewalk::testing::StringTransport;
/// use ropewalk::{Protocol, Result, Transport};
///
/// /// Answers each line in upper case.
/// #[derive(Default)]
/// struct Shout { lines: LineReceiver }
///
/// impl Protocol for Shout {
///     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
///         self.receive_lines(transport, data)
///     }
/// }
///
/// impl LineProtocol for Shout {
///     fn lines(&mut self) -> &mut LineReceiver {
///         &mut self.lines
///     }
///
///     fn line_received(&mut self, transport: &Transport, line: &[u8]) -> Result<()> {
///         self.lines.send_line(transport, &line.to_ascii_uppercase());
///         Ok(())
///     }
/// }
///
/// let connection = StringTransport::new().joined(Shout::default());
/// connection.deliver(b"hello\r\nwor");
/// connection.deliver(b"ld\r\n");
/// assert_eq!(connection.string().value(), b"HELLO\r\nWORLD\r\n");
/// ```
pub trait LineProtocol: Protocol {
    /// Returns the protocol's receiver.
    fn lines(&mut self) -> &mut LineReceiver;

    /// Called with each line, without its delimiter (Twisted: `lineReceived`). The slice is
    /// borrowed for the call.
    ///
    /// # Errors
    /// An `Err` closes the connection, as that of any callback.
    fn line_received(&mut self, transport: &Transport, line: &[u8]) -> Result<()>;

    /// Called with received bytes in raw mode (Twisted: `rawDataReceived`). Returns the number of
    /// bytes taken. If it is less than all, the others come next, in the mode that is set by then:
    /// [`set_line_mode`](LineReceiver::set_line_mode) makes them lines (Twisted:
    /// `setLineMode(extra)`).
    ///
    /// # Errors
    /// An `Err` closes the connection. The default implementation returns
    /// [`LineError::RawData`], for a protocol that never sets raw mode.
    ///
    /// ```
    /// use ropewalk::protocols::{LineProtocol, LineReceiver};
    /// use ropewalk::testing::StringTransport;
    /// use ropewalk::{Protocol, Result, Transport};
    ///
    /// /// Reads a number of bytes that a line announces.
    /// #[derive(Default)]
    /// struct Upload { lines: LineReceiver, left: usize }
    ///
    /// impl Protocol for Upload {
    ///     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
    ///         self.receive_lines(transport, data)
    ///     }
    /// }
    ///
    /// impl LineProtocol for Upload {
    ///     fn lines(&mut self) -> &mut LineReceiver {
    ///         &mut self.lines
    ///     }
    ///
    ///     fn line_received(&mut self, _transport: &Transport, line: &[u8]) -> Result<()> {
    ///         self.left = std::str::from_utf8(line)?.parse()?;
    ///         self.lines.set_raw_mode();
    ///         Ok(())
    ///     }
    ///
    ///     fn raw_data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<usize> {
    ///         let taken = data.len().min(self.left);
    ///         transport.write(&data[..taken]);
    ///         self.left -= taken;
    ///         if self.left == 0 {
    ///             self.lines.set_line_mode();
    ///         }
    ///         Ok(taken)
    ///     }
    /// }
    ///
    /// let connection = StringTransport::new().joined(Upload::default());
    /// connection.deliver(b"4\r\nyarn2\r\nof");
    /// assert_eq!(connection.string().value(), b"yarnof");
    /// ```
    fn raw_data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<usize> {
        let _ = (transport, data);
        Err(LineError::RawData.into())
    }

    /// Called once for each line of more than [`max_length`](LineReceiver::max_length) bytes, with
    /// its first `max_length` bytes (Twisted: `lineLengthExceeded`). The default implementation
    /// closes the connection. If the connection stays open, the rest of the line is skipped.
    ///
    /// # Errors
    /// An `Err` closes the connection.
    fn line_length_exceeded(&mut self, transport: &Transport, start: &[u8]) -> Result<()> {
        let _ = start;
        transport.lose_connection();
        Ok(())
    }

    /// Takes lines out of the bytes that `data_received` was given. Call it from there, with these
    /// bytes; it is not to be implemented.
    ///
    /// After each callback the transport is looked at. Once reading is paused, nothing more is
    /// taken. The transport keeps the rest, and delivers it to `data_received` on resuming, before
    /// any other byte and before the peer's end. Once the connection closes, the rest is dropped.
    /// After `start_tls` the rest belongs to the handshake, and never becomes lines.
    ///
    /// Bytes from elsewhere, such as those that the protocol has unpacked, may be passed in only if
    /// no callback pauses: the transport would deliver the rest as if it had come from the peer.
    ///
    /// # Errors
    /// Returns the failure of a callback. [`LineError::NothingTaken`] if `raw_data_received`
    /// returns zero and neither leaves raw mode nor pauses.
    fn receive_lines(&mut self, transport: &Transport, data: &[u8]) -> Result<()>
    where
        Self: Sized,
    {
        take_messages(transport, data, |rest| take(self, transport, rest))
    }
}

/// The state of a receiver of lines: delimiter, limit, mode, and the bytes of an incomplete line
/// (Twisted: the attributes of `LineReceiver`). It belongs to a [`LineProtocol`].
///
/// At most `max_length` bytes and a delimiter are kept, whatever the peer sends. A lone CR or LF is
/// no delimiter unless it was set as one.
pub struct LineReceiver {
    delimiter: Cow<'static, [u8]>,
    max_length: usize,
    mode: Mode,
    /// Bytes that were received and not taken: the start of an incomplete line.
    partial: Vec<u8>,
    /// The mode or the delimiter was changed since the partial bytes were searched.
    is_unsearched: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Lines,
    /// The rest of a line that was too long is dropped.
    Skipping,
    Raw,
}

impl LineReceiver {
    /// Makes a receiver of lines that end with CR LF, of 16,384 bytes at most, as Twisted's.
    pub fn new() -> Self {
        Self::ending_with(b"\r\n")
    }

    /// Makes a receiver of lines that end with LF alone. A CR before it is part of the line.
    pub fn newline() -> Self {
        Self::ending_with(b"\n")
    }

    fn ending_with(delimiter: &'static [u8]) -> Self {
        Self {
            delimiter: delimiter.into(),
            max_length: MAX_LINE_BYTES,
            mode: Mode::Lines,
            partial: Vec::new(),
            is_unsearched: false,
        }
    }

    /// Sets the longest line that is accepted, in bytes without the delimiter (Twisted:
    /// `MAX_LENGTH`).
    pub fn max_length(mut self, bytes: usize) -> Self {
        self.max_length = bytes;
        self
    }

    /// Changes the longest line that is accepted. It holds from the next bytes on.
    pub fn set_max_length(&mut self, bytes: usize) {
        self.max_length = bytes;
    }

    /// Changes the delimiter (Twisted: `delimiter`). It holds from the next byte on that is not
    /// part of a received line.
    ///
    /// # Errors
    /// [`LineError::EmptyDelimiter`] if there is no byte in it. The old one stays.
    pub fn set_delimiter(&mut self, delimiter: impl Into<Cow<'static, [u8]>>) -> Result<(), LineError> {
        let delimiter = delimiter.into();
        if delimiter.is_empty() {
            return Err(LineError::EmptyDelimiter);
        }
        self.delimiter = delimiter;
        self.search_again();
        Ok(())
    }

    /// Delivers all that follows to `raw_data_received` (Twisted: `setRawMode`).
    ///
    /// Outside of the callbacks, the bytes of an incomplete line may be waiting. They are delivered
    /// with the next bytes that arrive.
    pub fn set_raw_mode(&mut self) {
        self.mode = Mode::Raw;
        self.search_again();
    }

    /// Takes lines out of all that follows (Twisted: `setLineMode`).
    pub fn set_line_mode(&mut self) {
        if self.mode == Mode::Raw {
            self.mode = Mode::Lines;
            self.search_again();
        }
    }

    /// Returns `true` in raw mode (Twisted: `line_mode` is false).
    pub fn is_raw(&self) -> bool {
        self.mode == Mode::Raw
    }

    /// Takes the bytes of an incomplete line out of the receiver (Twisted: `clearLineBuffer`).
    pub fn clear_line_buffer(&mut self) -> Vec<u8> {
        self.is_unsearched = false;
        mem::take(&mut self.partial)
    }

    /// Writes a line and the delimiter (Twisted: `sendLine`). A delimiter within `line` is not
    /// looked for: the peer would see several lines.
    pub fn send_line(&self, transport: &Transport, line: &[u8]) {
        transport.write_sequence([line, &self.delimiter]);
    }

    fn search_again(&mut self) {
        self.is_unsearched = !self.partial.is_empty();
    }

    /// Returns the number of bytes of `data` up to the end of the first delimiter, which may begin
    /// in the partial bytes.
    fn find_end(&self, data: &[u8]) -> Option<usize> {
        let (last, front) = self.delimiter.split_last()?;
        memchr_iter(*last, data).map(|place| place + 1).find(|end| {
            let before = &data[..end - 1];
            match front.len().checked_sub(before.len()) {
                None | Some(0) => before.ends_with(front),
                Some(missing) => front.ends_with(before) && self.partial.ends_with(&front[..missing]),
            }
        })
    }

    /// Decides what the next step takes.
    fn next(&self, data: &[u8]) -> Next {
        if self.mode == Mode::Raw {
            return Next::Raw;
        }
        let received = self.partial.len().saturating_add(data.len());
        let end = self.find_end(data);
        let length = end.map(|end| self.partial.len() + end - self.delimiter.len());
        match (self.mode, end, length) {
            (Mode::Skipping, Some(end), _) => Next::Skipped(end),
            (Mode::Skipping, None, _) => Next::Skip,
            (Mode::Lines, Some(end), Some(length)) if length <= self.max_length => Next::Line { length, end },
            (Mode::Lines, None, _) if received < self.max_length.saturating_add(self.delimiter.len()) => {
                Next::Incomplete
            }
            _ => Next::TooLong,
        }
    }

    /// Drops bytes in the middle of a line, except for those that may begin its delimiter.
    fn skip(&mut self, data: &[u8]) {
        let kept = self.delimiter.len() - 1;
        self.partial.extend_from_slice(&data[data.len().saturating_sub(kept)..]);
        let dropped = self.partial.len().saturating_sub(kept);
        self.partial.drain(..dropped);
    }
}

/// The bytes that the next step of a receiver takes.
#[derive(Debug)]
enum Next {
    Raw,
    /// A line of `length` bytes, whose delimiter ends at `end`.
    Line {
        length: usize,
        end: usize,
    },
    Incomplete,
    TooLong,
    /// The delimiter of a skipped line ends here.
    Skipped(usize),
    Skip,
}

/// Takes one message off the front of `data`. Returns the number of bytes taken.
fn take<P: LineProtocol>(protocol: &mut P, transport: &Transport, data: &[u8]) -> Result<usize> {
    let lines = protocol.lines();
    if !lines.is_unsearched {
        return take_searched(protocol, transport, data);
    }
    // The partial bytes come first, as a chunk of their own.
    let earlier = lines.clear_line_buffer();
    let taken = take_searched(protocol, transport, &earlier)?;
    if let Some(rest @ [_, ..]) = earlier.get(taken..) {
        let lines = protocol.lines();
        lines.partial.extend_from_slice(rest);
        lines.is_unsearched = true;
    }
    Ok(0)
}

fn take_searched<P: LineProtocol>(protocol: &mut P, transport: &Transport, data: &[u8]) -> Result<usize> {
    let lines = protocol.lines();
    // A mode that was set meanwhile applies even to this chunk.
    match lines.next(data) {
        Next::Raw => take_raw(protocol, transport, data),
        Next::Line { length, end } if lines.partial.is_empty() => {
            protocol.line_received(transport, &data[..length])?;
            Ok(end)
        }
        Next::Line { length, end } => {
            let mut line = mem::take(&mut lines.partial);
            let missing = length.saturating_sub(line.len());
            append(&mut line, &data[..missing], length);
            line.truncate(length);
            protocol.line_received(transport, &line)?;
            recycle(&mut protocol.lines().partial, line);
            Ok(end)
        }
        Next::Incomplete => {
            let most = lines.max_length.saturating_add(lines.delimiter.len());
            append(&mut lines.partial, data, most);
            Ok(data.len())
        }
        Next::TooLong => take_too_long(protocol, transport, data),
        Next::Skipped(end) => {
            lines.mode = Mode::Lines;
            lines.partial.clear();
            Ok(end)
        }
        Next::Skip => {
            lines.skip(data);
            Ok(data.len())
        }
    }
}

fn take_raw<P: LineProtocol>(protocol: &mut P, transport: &Transport, data: &[u8]) -> Result<usize> {
    let taken = protocol.raw_data_received(transport, data)?;
    if taken == 0 && protocol.lines().is_raw() && transport.takes_more(transport.levels()) {
        return Err(LineError::NothingTaken.into());
    }
    Ok(taken)
}

/// Takes the first bytes of a line that is too long. Those behind the limit are skipped.
#[cold]
fn take_too_long<P: LineProtocol>(protocol: &mut P, transport: &Transport, data: &[u8]) -> Result<usize> {
    let lines = protocol.lines();
    lines.mode = Mode::Skipping;
    let mut start = mem::take(&mut lines.partial);
    let taken = lines.max_length.saturating_sub(start.len()).min(data.len());
    if start.len() > lines.max_length {
        lines.partial = start.split_off(lines.max_length);
    }
    start.extend_from_slice(&data[..taken]);
    protocol.line_length_exceeded(transport, &start)?;
    Ok(taken)
}

impl Default for LineReceiver {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for LineReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LineReceiver")
            .field("delimiter", &self.delimiter.escape_ascii().to_string())
            .field("max_length", &self.max_length)
            .field("mode", &self.mode)
            .field("partial_bytes", &self.partial.len())
            .finish_non_exhaustive()
    }
}

/// A mistake in the use of a [`LineReceiver`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LineError {
    /// The delimiter has no byte.
    #[error("the delimiter of lines is empty")]
    EmptyDelimiter,
    /// Raw mode was set, and the protocol has no `raw_data_received` (Twisted: a
    /// `NotImplementedError`).
    #[error("raw data was received by a protocol without raw_data_received")]
    RawData,
    /// `raw_data_received` returned zero, in raw mode and without a pause.
    #[error("raw_data_received took no byte, and neither left raw mode nor paused")]
    NothingTaken,
}
