//! Sending a file (Twisted: `twisted.protocols.basic.FileSender`).

use std::cell::Cell;
use std::fmt;
use std::io::{self, ErrorKind, Read};
use std::rc::Rc;

use thiserror::Error;

use crate::deferred::{Cancelled, Deferred, Promise};
use crate::failure::{Failure, Result};
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
}

impl<R: Read + 'static> FileSender<R> {
    /// A sender of all that is left in `reader`.
    pub fn new(reader: R) -> Self {
        Self { reader, piece: PIECE }
    }

    /// How many bytes are read and written at a time; at least one. 64 KiB unless said otherwise.
    pub fn piece(mut self, bytes: usize) -> Self {
        self.piece = bytes.max(1);
        self
    }

    /// Begins to send, as the transport's pull producer (Twisted: `beginFileTransfer`). The Deferred fires with the number of
    /// bytes when the last of them has been written; closing the connection after that loses nothing. Cancelling it stops the
    /// sending, and leaves the connection as it is.
    ///
    /// # Errors
    /// The Deferred fails with a [`ProducerError`](crate::transport::ProducerError) if the transport has a producer or is closed; with what the reader failed
    /// with, which ends the connection as well; and with [`Interrupted`] if the connection is lost first.
    #[track_caller]
    pub fn begin(self, transport: &Transport) -> Deferred<u64> {
        let waiting = Waiting::default();
        let (given_up, producer) = (Rc::clone(&waiting), transport.as_producer());
        let (promise, sent) = Promise::with_canceller(move || {
            // The producer goes before the answer is given, and must not give another.
            let promise = given_up.take();
            producer.unregister();
            if let Some(promise) = promise {
                let _ = promise.errback(Cancelled);
            }
        });
        waiting.set(Some(promise));
        let sending = Sending { reader: self.reader, buffer: vec![0; self.piece], sent: 0, waiting };
        match transport.register_producer(sending, Streaming::Pull) {
            Ok(()) => sent,
            Err(error) => Deferred::fail(error),
        }
    }
}

impl<R> fmt::Debug for FileSender<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSender").field("piece", &self.piece).finish_non_exhaustive()
    }
}

/// The promise, while it is unfired.
type Waiting = Rc<Cell<Option<Promise<u64>>>>;

/// A file that is being sent.
struct Sending<R> {
    reader: R,
    buffer: Vec<u8>,
    sent: u64,
    waiting: Waiting,
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

    fn end(&self, result: Result<u64>) {
        if let Some(promise) = self.waiting.take() {
            // It is unfired, for it was there.
            let _ = promise.complete(result);
        }
    }
}

impl<R: Read + 'static> Producer for Sending<R> {
    fn resume_producing(&mut self, consumer: &Transport) -> Result<()> {
        match self.read() {
            Ok(0) => {
                consumer.unregister_producer();
                self.end(Ok(self.sent));
            }
            Ok(count) => {
                consumer.write(&self.buffer[..count]);
                self.sent += count as u64;
            }
            Err(error) => {
                let failure = Failure::new(error);
                self.end(Err(failure.clone()));
                return Err(failure);
            }
        }
        Ok(())
    }

    fn stop_producing(&mut self, _consumer: &Transport) {
        self.end(Err(Interrupted { sent: self.sent }.into()));
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

/// How much is read and written at a time. 64 KiB: what a socket takes at once; Twisted's 16 KiB would be four times the turns.
const PIECE: usize = 64 * 1024;
