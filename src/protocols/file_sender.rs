//! Sending a file (Twisted: `twisted.protocols.basic.FileSender`).

use std::cell::Cell;
use std::fmt;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::time::Duration;

use thiserror::Error;

use crate::deferred::{Cancelled, Deferred, Promise};
use crate::failure::{Failure, Result};
use crate::time::{Clock, DelayedCall};
use crate::transport::file::{FileReport, SystemFile};
use crate::transport::{Producer, Streaming, Transport};

/// Sends the contents of a file or of another reader, no faster than the peer takes them (Twisted:
/// `FileSender`).
///
/// | made by | the bytes |
/// |---|---|
/// | [`file`](Self::file) | go from the system's cache to the socket, if they can: see [`FileRoute`] |
/// | [`new`](Self::new) | are read and written, one piece at a time |
///
/// Order, backpressure, progress and errors are the same. The file is read on the reactor's thread,
/// by the system or by this process. That suits a file on a local disk. A reader that may block for
/// long, such as a pipe or a file on a network, does not belong here.
///
/// ```no_run
/// use std::fs::File;
/// use ropewalk::protocols::FileSender;
/// use ropewalk::{Protocol, Result, Transport};
///
/// /// Sends a file to each client, and closes.
/// struct Download;
///
/// impl Protocol for Download {
///     fn connection_made(&mut self, transport: &Transport) -> Result<()> {
///         let done = transport.clone();
///         let sent = FileSender::file(File::open("ropewalk.txt")?).begin(transport);
///         drop(sent.add_callback(move |count| {
///             println!("{count} bytes sent");
///             done.lose_connection();
///         }));
///         Ok(())
///     }
///
///     fn data_received(&mut self, _transport: &Transport, _data: &[u8]) -> Result<()> {
///         Ok(())
///     }
/// }
/// ```
pub struct FileSender<R> {
    reader: R,
    /// Returns the descriptor whose bytes are those of the reader.
    descriptor: Option<for<'a> fn(&'a R) -> BorrowedFd<'a>>,
    piece: Option<usize>,
    progress: Box<dyn FnMut(u64)>,
    stall_limit: Option<Duration>,
}

impl<R: Read + AsFd + 'static> FileSender<R> {
    /// Makes a sender of the bytes between the position of a file and its end. The system sends
    /// them without their passing through this process (`sendfile`), where it can. Elsewhere they
    /// are read: see [`FileRoute`].
    ///
    /// `file` is a [`File`](std::fs::File), or another reader that keeps no bytes of its descriptor
    /// in a buffer. Its position moves as the bytes are sent.
    ///
    /// A change of the file while it is sent may show in bytes that were sent already: they stay in
    /// the system's cache until the peer has them.
    pub fn file(file: R) -> Self {
        Self { descriptor: Some(R::as_fd), ..Self::new(file) }
    }
}

impl<R: Read + 'static> FileSender<R> {
    /// Makes a sender of the bytes that are left in `reader`, which is read.
    pub fn new(reader: R) -> Self {
        Self { reader, descriptor: None, piece: None, progress: Box::new(|_| {}), stall_limit: None }
    }

    /// Sets the number of bytes to send at a time; at least one. The default is 64 KiB if they are
    /// read, and 1 MiB if the system sends them.
    pub fn piece(mut self, bytes: usize) -> Self {
        self.piece = Some(bytes.max(1));
        self
    }

    /// Returns the way that the bytes would take over this connection, as it is now. A layer, a
    /// rate or a log that comes later changes it, from the next piece on.
    ///
    /// ```
    /// use ropewalk::protocols::{FileRoute, FileSender};
    /// use ropewalk::testing::StringTransport;
    ///
    /// let sender = FileSender::file(std::fs::File::open("Cargo.toml")?);
    /// assert_eq!(sender.route(StringTransport::new().transport()), FileRoute::Read);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn route(&self, transport: &Transport) -> FileRoute {
        match self.system_file(transport) {
            Some(_) if transport.takes_files() => FileRoute::System,
            _ => FileRoute::Read,
        }
    }

    /// Returns the file, if the system can send from it over this connection.
    fn system_file(&self, transport: &Transport) -> Option<SystemFile> {
        let descriptor = self.descriptor?;
        // Without one, for whatever reason, the file is read, which reports its errors.
        transport.system_file(descriptor(&self.reader)).ok()
    }

    /// Calls `progress` each time the operating system has taken a piece. Its argument is the
    /// number of bytes of the file taken so far. A panic ends the connection.
    ///
    /// ```
    /// use std::cell::RefCell;
    /// use std::rc::Rc;
    /// use ropewalk::protocols::FileSender;
    /// use ropewalk::testing::{AccumulatingProtocol, StringTransport};
    ///
    /// let connection = StringTransport::new().joined(AccumulatingProtocol::new());
    /// let seen = Rc::new(RefCell::new(Vec::new()));
    /// let list = Rc::clone(&seen);
    /// let sender = FileSender::new(&b"a rope of yarn"[..]).piece(8).progress(move |sent| list.borrow_mut().push(sent));
    /// sender.begin(connection.transport()).or_log("sending");
    /// connection.turn();
    /// assert_eq!(*seen.borrow(), [8, 14]);
    /// ```
    pub fn progress(mut self, progress: impl FnMut(u64) + 'static) -> Self {
        self.progress = Box::new(progress);
        self
    }

    /// Aborts the connection if the peer takes no byte of the file for `limit`. The Deferred then
    /// fails with [`Stalled`]. Without this call there is no limit.
    ///
    /// The queue is checked four times within the limit, so a stall may last up to a quarter
    /// longer.
    pub fn stall_limit(mut self, limit: Duration) -> Self {
        self.stall_limit = Some(limit);
        self
    }

    /// Starts sending, as the transport's pull producer (Twisted: `beginFileTransfer`). The
    /// Deferred fires with the number of bytes when the last of them has been written. Closing the
    /// connection after that loses nothing.
    ///
    /// Cancelling the Deferred stops the sending, and leaves the connection as it is. So does
    /// [`unregister_producer`](Transport::unregister_producer), with which the Deferred fails with
    /// [`Cancelled`].
    ///
    /// # Errors
    /// The Deferred fails with
    /// - a [`ProducerError`](crate::transport::ProducerError) if the transport has a producer or is
    ///   closed;
    /// - the error of the reader, which ends the connection as well;
    /// - [`Interrupted`] if the connection is lost first;
    /// - [`Stalled`] if the [`stall_limit`](Self::stall_limit) is reached.
    #[track_caller]
    pub fn begin(self, transport: &Transport) -> Deferred<u64> {
        let transfer = Rc::new(Transfer::default());
        let (given_up, producer) = (Rc::clone(&transfer), transport.as_producer());
        let (promise, sent) = Promise::with_canceller(move || {
            // The producer is removed before the Deferred fires.
            producer.unregister();
            given_up.end(Err(Cancelled.into()));
        });
        let sending = Sending {
            system: self.system_file(transport),
            report: None,
            reader: self.reader,
            piece: self.piece,
            buffer: Vec::new(),
            progress: self.progress,
            transfer: Rc::clone(&transfer),
        };
        match transport.register_producer(sending, Streaming::Pull) {
            Ok(()) => {
                transfer.promise.set(Some(promise));
                if let Some(limit) = self.stall_limit {
                    transfer.watch(transport.clone(), limit, Stretch { taken: 0, looks: 0 });
                }
                sent
            }
            Err(error) => Deferred::fail(error),
        }
    }
}

/// The way of a file's bytes to the peer. From [`FileSender::route`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileRoute {
    /// The system moves them from its cache to the socket: a regular file over TCP, on Linux.
    System,
    /// They are read and written: over TLS, a UNIX socket, a pipe or a simulated network, on other
    /// systems, at a [rate](crate::policies), with a log of traffic, and if the sender was not made
    /// by [`FileSender::file`]. So are the bytes of a file system from which the system can't send,
    /// and those of a program that SIGPIPE would end, which `sendfile` raises if the peer is gone.
    Read,
}

impl<R> fmt::Debug for FileSender<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSender")
            .field("piece", &self.piece)
            .field("stall_limit", &self.stall_limit)
            .finish_non_exhaustive()
    }
}

/// The state of a file that is being sent, shared by its producer and the check for a stalled peer.
#[derive(Default)]
struct Transfer {
    /// `None` once it has fired.
    promise: Cell<Option<Promise<u64>>>,
    written: Cell<u64>,
    /// The next check of the queue, if there is a limit.
    look: Cell<Option<DelayedCall>>,
}

impl Transfer {
    fn end(&self, result: Result<u64>) {
        if let Some(look) = self.look.take() {
            // It cannot be cancelled if it is the check that found the peer stalled.
            let _ = look.cancel();
        }
        if let Some(promise) = self.promise.take() {
            // The promise is taken when it fires, so this one is unfired.
            let _ = promise.complete(result);
        }
    }

    /// Checks after a quarter of the limit that bytes of the file have left.
    fn watch(self: &Rc<Self>, transport: Transport, limit: Duration, quiet: Stretch) {
        let (transfer, clock) = (Rc::clone(self), transport.timers().clone());
        let look = clock.call_later(limit / LOOKS, move || {
            let taken = transfer.written.get().saturating_sub(transport.queued_bytes() as u64);
            let quiet = if taken > quiet.taken {
                Stretch { taken, looks: 0 }
            } else {
                Stretch { looks: quiet.looks + 1, ..quiet }
            };
            if quiet.looks < LOOKS {
                transfer.watch(transport, limit, quiet);
            } else {
                transfer.end(Err(Stalled { sent: taken, after: limit }.into()));
                transport.abort_connection();
            }
        });
        self.look.set(Some(look));
    }
}

/// A time in which no byte of the file left.
#[derive(Clone, Copy)]
struct Stretch {
    taken: u64,
    looks: u32,
}

/// The producer that writes the file, or has the system send it.
struct Sending<R> {
    /// Present while the system sends from the file.
    system: Option<SystemFile>,
    /// The outcome of the last piece that the system was to send.
    report: Option<FileReport>,
    reader: R,
    piece: Option<usize>,
    /// Allocated for the first read.
    buffer: Vec<u8>,
    progress: Box<dyn FnMut(u64)>,
    transfer: Rc<Transfer>,
}

impl<R: Read> Sending<R> {
    /// Counts the bytes of the last piece that the system did not send as not written.
    fn settle_piece(&mut self) {
        let Some(cut) = self.report.take().and_then(|report| report.take()) else { return };
        let written = &self.transfer.written;
        written.set(written.get().saturating_sub(cut.missing as u64));
        if cut.is_refused {
            self.system = None;
        }
    }

    /// Has the system send a piece. Returns its length. `None`: a piece is to be read. At the end
    /// of the file that finds the end, or the bytes of a file whose size the system does not know.
    fn write_from_system(&mut self, consumer: &Transport) -> Option<usize> {
        let file = self.system.as_ref()?;
        let left = consumer.bytes_left(file).ok()?;
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(self.piece.unwrap_or(SYSTEM_PIECE));
        if count == 0 {
            return None;
        }
        self.report = Some(consumer.write_file(file, count)?);
        Some(count)
    }

    /// Reads and writes a piece. Returns its length, which is zero at the end of the file.
    fn write_from_reader(&mut self, consumer: &Transport) -> io::Result<usize> {
        let count = self.read()?;
        consumer.write(&self.buffer[..count]);
        Ok(count)
    }

    fn read(&mut self) -> io::Result<usize> {
        self.buffer.resize(self.piece.unwrap_or(PIECE), 0);
        loop {
            match self.reader.read(&mut self.buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

impl<R: Read + 'static> Producer for Sending<R> {
    fn resume_producing(&mut self, consumer: &Transport) -> Result<()> {
        // A pull producer is resumed when the operating system has taken everything.
        self.settle_piece();
        let written = self.transfer.written.get();
        if written > 0 {
            (self.progress)(written);
        }
        let piece = match self.write_from_system(consumer) {
            Some(count) => Ok(count),
            None => self.write_from_reader(consumer),
        };
        match piece {
            Ok(0) => {
                consumer.unregister_producer();
                self.transfer.end(Ok(written));
            }
            Ok(count) => self.transfer.written.set(written + count as u64),
            Err(error) => {
                let failure = Failure::new(error);
                self.transfer.end(Err(failure.clone()));
                return Err(failure);
            }
        }
        Ok(())
    }

    fn stop_producing(&mut self, _consumer: &Transport) {
        self.transfer.end(Err(Interrupted { sent: self.transfer.written.get() }.into()));
    }
}

/// Ends the transfer if the program removes the producer with `unregister_producer`.
impl<R> Drop for Sending<R> {
    fn drop(&mut self) {
        self.transfer.end(Err(Cancelled.into()));
    }
}

/// The connection was lost before the whole file was sent (Twisted: an `Exception`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the connection was lost when {sent} bytes had been written")]
#[non_exhaustive]
pub struct Interrupted {
    /// Number of bytes written to the transport. The peer may have received fewer.
    pub sent: u64,
}

/// The peer took no byte of the file for the whole [`FileSender::stall_limit`], and the connection
/// was aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the peer took nothing of the file for {after:?}, after {sent} bytes")]
#[non_exhaustive]
pub struct Stalled {
    /// Number of bytes of the file taken by the operating system. The peer may have received fewer.
    pub sent: u64,
    /// The limit.
    pub after: Duration,
}

/// Checks for a stall within the limit.
const LOOKS: u32 = 4;

/// Bytes to read and write at a time. 64 KiB is what a socket takes at once. Twisted's 16 KiB would
/// need four times the turns.
const PIECE: usize = 64 * 1024;

/// Bytes of which the system is to send at a time. 1 MiB: as many as leave in one turn.
const SYSTEM_PIECE: usize = 1024 * 1024;
