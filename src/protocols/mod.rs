//! Protocols, and parts of protocols, that many programs need (Twisted: `twisted.protocols`).
//!
//! | purpose | type | Twisted's name |
//! |---|---|---|
//! | receive lines, and raw data between them | [`LineProtocol`], [`LineReceiver`] | `basic.LineReceiver`, `basic.LineOnlyReceiver` |
//! | receive netstrings | [`NetstringProtocol`], [`NetstringReceiver`] | `basic.NetstringReceiver` |
//! | receive strings with their length in front | [`IntNStringProtocol`], [`IntNStringReceiver`] | `basic.IntNStringReceiver` |
//! | receive messages that a function cuts | [`FramedProtocol`], [`FrameReceiver`] | |
//! | receive the items of a codec of tokio-util (feature `codec`) | `CodecProtocol`, `CodecReceiver` | |
//! | send a file, no faster than the peer reads | [`FileSender`] | `basic.FileSender` |
//! | forward connections to another endpoint | [`ForwardFactory`] | `portforward.ProxyFactory` |
//!
//! `IntNStringReceiver` stands for `Int8StringReceiver`, `Int16StringReceiver` and
//! `Int32StringReceiver` as well.
//!
//! A receiver is two things: a value that holds the limits and the incomplete message, and a trait
//! with the callbacks for messages. A program's protocol owns the value and implements the trait
//! beside [`Protocol`](crate::Protocol), whose other callbacks stay its own. Twisted's receivers
//! are base classes instead.
//!
//! Each receiver gives the same callbacks for any cut of its input. It takes linear time, keeps no
//! more than one message within its limit, and copies no message that arrived whole.

#[cfg(feature = "codec")]
mod codec;
mod file_sender;
mod forward;
mod frames;
mod lines;
mod netstrings;
mod prefixed;
mod receiving;

#[cfg(feature = "codec")]
pub use self::codec::{CodecProtocol, CodecReceiver};
pub use self::file_sender::{FileRoute, FileSender, Interrupted, Stalled};
pub use self::forward::{ForwardCounters, ForwardFactory, ForwardServer};
pub use self::frames::{BadCut, Cut, FrameReceiver, FrameTooLong, FramedProtocol};
pub use self::lines::{LineError, LineProtocol, LineReceiver};
pub use self::netstrings::{NetstringError, NetstringProtocol, NetstringReceiver};
pub use self::prefixed::{IntNStringProtocol, IntNStringReceiver, StringTooLong};
