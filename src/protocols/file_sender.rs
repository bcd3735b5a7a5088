//! Sending a file (Twisted: `twisted.protocols.basic.FileSender`).

use std::cell::Cell;
use std::fmt;
use std::io::{self, ErrorKind, Read};
use std::rc::Rc;
use std::time::Duration;

use thiserror::Error;

use crate::deferred::{Cancelled, Deferred, Promise};
use crate::failure::{Failure, Result};
use crate::time::{Clock, DelayedCall};
use crate::transport::{Producer, Streaming, Transport};

/// Sends all that a reader gives, no faster than the peer takes it (Twisted: `FileSender`). One piece at a time is in memory,
/// whatever the size of the file.
///
/// The reader is read on the reactor's thread. A file of a local disk is what that is for; what may block for long (a pipe, a
/// file on a network) does not belong here.
///
/// ```no_run
/// use std::fs::File;
/// use ropewalk::protocols::FileSender;
/// use ropewalk::{Protocol, Result, Transport};
///
/// /// Sends a file to whoever connects, and closes.
/// struct Download;
///
/// impl Protocol for Download {
///     fn connection_made(&mut self, transport: &Transport) -> Result<()> {
///         let done = transport.clone();
///         let sent = FileSender::new(File::open("ropewalk.txt")?).begin(transport);
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
    piece: usize,
    progress: Box<dyn FnMut(u64)>,
    stall_limit: Option<Duration>,
}

impl<R: Read + 'static> FileSender<R> {
    /// A sender of all that is left in `reader`.
    pub fn new(reader: R) -> Self {
        Self { reader, piece: PIECE, progress: Box::new(|_| {}), stall_limit: None }
    }

    /// How many bytes are read and written at a time; at least one. 64 KiB unless said otherwise.
    pub fn piece(mut self, bytes: usize) -> Self {
        self.piece = bytes.max(1);
        self
    }

    /// Calls `progress` each time the operating system has taken a piece, with the number of bytes that it has taken of the file so far. A
    /// panic ends the connection.
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

    /// Aborts the connection if the peer takes no byte of the file for `limit`: the Deferred fails with [`Stalled`]. There is no limit
    /// unless this is called.
    ///
    /// The queue is looked at four times within the limit, so that a peer has up to a quarter more.
    pub fn stall_limit(mut self, limit: Duration) -> Self {
        self.stall_limit = Some(limit);
        self
    }

    /// Begins to send, as the transport's pull producer (Twisted: `beginFileTransfer`). The Deferred fires with the number of
    /// bytes when the last of them has been written; closing the connection after that loses nothing. Cancelling it stops the
    /// sending, and leaves the connection as it is. So does
    /// [`unregister_producer`](Transport::unregister_producer), with which the Deferred fails with [`Cancelled`].
    ///
    /// # Errors
    /// The Deferred fails with a [`ProducerError`](crate::transport::ProducerError) if the transport has a producer or is closed; with what the reader failed
    /// with, which ends the connection as well; with [`Interrupted`] if the connection is lost first; and with [`Stalled`] if the
    /// [`stall_limit`](Self::stall_limit) is reached.
    #[track_caller]
    pub fn begin(self, transport: &Transport) -> Deferred<u64> {
        let transfer = Rc::new(Transfer::default());
        let (given_up, producer) = (Rc::clone(&transfer), transport.as_producer());
        let (promise, sent) = Promise::with_canceller(move || {
            // The producer goes before the answer is given.
            producer.unregister();
            given_up.end(Err(Cancelled.into()));
        });
        let sending = Sending {
            reader: self.reader,
            buffer: vec![0; self.piece],
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

impl<R> fmt::Debug for FileSender<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSender")
            .field("piece", &self.piece)
            .field("stall_limit", &self.stall_limit)
            .finish_non_exhaustive()
    }
}

/// A file that is being sent, as its producer and the look-out for a stalled peer share it.
#[derive(Default)]
struct Transfer {
    /// There while it is unfired.
    promise: Cell<Option<Promise<u64>>>,
    written: Cell<u64>,
    /// The next look at the queue, if there is a limit.
    look: Cell<Option<DelayedCall>>,
}

impl Transfer {
    fn end(&self, result: Result<u64>) {
        if let Some(look) = self.look.take() {
            // It has been made, if it is the look itself that found the peer stalled.
            let _ = look.cancel();
        }
        if let Some(promise) = self.promise.take() {
            // It is unfired, for it was there.
            let _ = promise.complete(result);
        }
    }

    /// Looks after a quarter of the limit whether bytes of the file have left.
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

/// The producer.
struct Sending<R> {
    reader: R,
    buffer: Vec<u8>,
    progress: Box<dyn FnMut(u64)>,
    transfer: Rc<Transfer>,
}

impl<R: Read> Sending<R> {
    fn read(&mut self) -> io::Result<usize> {
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
        // Told to resume, a pull producer knows that the system has taken everything.
        let written = self.transfer.written.get();
        if written > 0 {
            (self.progress)(written);
        }
        match self.read() {
            Ok(0) => {
                consumer.unregister_producer();
                self.transfer.end(Ok(written));
            }
            Ok(count) => {
                consumer.write(&self.buffer[..count]);
                self.transfer.written.set(written + count as u64);
            }
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

/// A producer that is taken out by the program, with `unregister_producer`, sends no more.
impl<R> Drop for Sending<R> {
    fn drop(&mut self) {
        self.transfer.end(Err(Cancelled.into()));
    }
}

/// The connection was lost before everything was sent (Twisted: an `Exception`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the connection was lost when {sent} bytes had been written")]
#[non_exhaustive]
pub struct Interrupted {
    /// How many bytes had been written to the transport; the peer may have got fewer.
    pub sent: u64,
}

/// The peer took nothing of the file for the whole [`FileSender::stall_limit`], and the connection was aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the peer took nothing of the file for {after:?}, after {sent} bytes")]
#[non_exhaustive]
pub struct Stalled {
    /// How many bytes of the file the operating system had taken; the peer may have got fewer.
    pub sent: u64,
    /// The limit.
    pub after: Duration,
}

/// How often a peer is looked at within the limit for a stall.
const LOOKS: u32 = 4;

/// How much is read and written at a time. 64 KiB: what a socket takes at once; Twisted's 16 KiB would be four times the turns.
const PIECE: usize = 64 * 1024;
