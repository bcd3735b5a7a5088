//! Byte streams for async libraries (Twisted: none; its libraries are protocols). Features `async`,
//! `tokio` and `hyper`, off by default.
//!
//! A [`ByteStream`] is a connection with the traits that such libraries read and write through. It
//! runs over any transport: TCP, UNIX sockets, TLS, the simulated network. The futures of the
//! library run in [`Reactor::spawn`](crate::Reactor::spawn), on the reactor's thread. There is no
//! other runtime.
//!
//! | feature | traits of a `ByteStream` | brings |
//! |---|---|---|
//! | `async` | `AsyncRead`, `AsyncWrite` of futures-io | [`connect_stream`], [`listen_streams`], [`accept_streams`] |
//! | `tokio` | `AsyncRead`, `AsyncWrite` of tokio, without its runtime | `ThreadBound` |
//! | `hyper` | `Read`, `Write` of hyper's `rt` | `LocalExecutor`, `ClockTimer`, `ThreadBound` |
//!
//! # Rules
//!
//! 1. **Writes** are accepted while less than 64 KiB is queued, and then wait until half of it has
//!    left. An accepted byte is sent, even if the stream is dropped. A flush has nothing to do.
//! 2. **Reads** take received bytes from a buffer. While it holds 64 KiB, the peer is made to wait:
//!    a reader that stops costs that much, and one receive. An empty buffer goes back to the
//!    reactor's pool, so an idle stream holds none.
//! 3. **Closing** a stream (`poll_close`, `poll_shutdown`) ends its write direction. It is done
//!    once the end was sent, behind all written bytes.
//! 4. **Dropping** a stream is [`lose_connection`](crate::Transport::lose_connection): accepted
//!    bytes are sent first. [`ByteStream::abort`] drops them.
//! 5. The end of a connection is reported behind the bytes that arrived before it, by every later
//!    call.
//! 6. One task reads and one task writes. The task that polled last is woken.
//!
//! # Errors
//!
//! | end of the connection | reads | writes |
//! |---|---|---|
//! | the peer's end of stream | end of file | go on |
//! | [`Done`] | end of file | `BrokenPipe` |
//! | [`Reset`] | `ConnectionReset` | the same |
//! | [`TcpTimedOut`], [`CloseTimedOut`] | `TimedOut` | the same |
//! | [`Truncated`] | `UnexpectedEof` | the same |
//! | [`Aborted`], [`ReactorStopped`], [`QueueLimit`] | `ConnectionAborted` | the same |
//! | [`Lost`], or another `io::Error` | its own kind | the same |
//! | an error of TLS | `InvalidData` | the same |
//! | any other failure | `Other` | the same |
//!
//! A write after the write direction was closed is a `BrokenPipe`. Each such [`io::Error`] holds a
//! [`StreamClosed`], which has the [`Failure`](crate::Failure).
//!
//! [`io::Error`]: std::io::Error
//! [`Done`]: crate::error::ConnectionClosed::Done
//! [`Reset`]: crate::error::ConnectionClosed::Reset
//! [`TcpTimedOut`]: crate::error::ConnectionClosed::TcpTimedOut
//! [`CloseTimedOut`]: crate::error::ConnectionClosed::CloseTimedOut
//! [`Truncated`]: crate::error::ConnectionClosed::Truncated
//! [`Aborted`]: crate::error::ConnectionClosed::Aborted
//! [`ReactorStopped`]: crate::error::ConnectionClosed::ReactorStopped
//! [`QueueLimit`]: crate::error::ConnectionClosed::QueueLimit
//! [`Lost`]: crate::error::ConnectionClosed::Lost

mod byte_stream;
mod closed;
mod futures_io;
#[cfg(feature = "hyper")]
mod hyper;
mod open;
mod protocol;
#[cfg(all(test, feature = "testing"))]
mod tests;
#[cfg(any(feature = "tokio", feature = "hyper"))]
mod thread_bound;
#[cfg(feature = "tokio")]
mod tokio;
mod unread;

pub use self::byte_stream::ByteStream;
pub use self::closed::StreamClosed;
#[cfg(feature = "hyper")]
pub use self::hyper::{ClockTimer, LocalExecutor};
pub use self::open::{Incoming, accept_streams, connect_stream, listen_streams};
pub use self::protocol::StreamProtocol;
#[cfg(any(feature = "tokio", feature = "hyper"))]
pub use self::thread_bound::ThreadBound;
