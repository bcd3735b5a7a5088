//! [`FileBody`]: bytes of a file, read in the reactor's threads, a piece at a time, as fast as the
//! client takes them.

use std::fs::File;
use std::future::Future;
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use ropewalk::{Deferred, Failure, Reactor};

/// Number of bytes that are read at a time. 64 KiB: as much as a stream queues.
const PIECE_BYTES: u64 = 64 * 1024;

/// A part of a file as the body of an answer.
///
/// A file that became shorter since it was opened is an error, which ends the connection or the
/// stream of HTTP/2: its length was announced.
pub struct FileBody {
    reactor: Reactor,
    file: Arc<File>,
    /// The offset of the next byte.
    next: u64,
    /// Number of bytes to come.
    left: u64,
    reading: Option<Deferred<Vec<u8>>>,
}

impl FileBody {
    pub(super) fn new(reactor: &Reactor, file: File, first: u64, count: u64) -> Self {
        Self { reactor: reactor.clone(), file: Arc::new(file), next: first, left: count, reading: None }
    }

    fn read(&self) -> Deferred<Vec<u8>> {
        let (file, first, count) = (Arc::clone(&self.file), self.next, self.left.min(PIECE_BYTES));
        self.reactor.defer_to_thread(move || {
            let mut piece = vec![0; count as usize];
            file.read_exact_at(&mut piece, first)?;
            Ok(piece)
        })
    }
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let mut reading = match self.reading.take() {
            Some(reading) => reading,
            None => self.read(),
        };
        let Poll::Ready(piece) = Pin::new(&mut reading).poll(cx) else {
            self.reading = Some(reading);
            return Poll::Pending;
        };
        let piece = piece.map_err(as_error)?;
        self.next += piece.len() as u64;
        self.left -= piece.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(piece.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

impl std::fmt::Debug for FileBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileBody").field("next", &self.next).field("left", &self.left).finish_non_exhaustive()
    }
}

/// Returns a failure as an error for hyper, which knows no failures.
fn as_error(failure: Failure) -> io::Error {
    io::Error::other(failure.to_string())
}
