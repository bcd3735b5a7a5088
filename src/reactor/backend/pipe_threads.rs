//! Threads for descriptors that the poller refuses, or whose calls may wait: regular files,
//! devices, and terminals as output, which a key can stop.
//!
//! | direction | how |
//! |---|---|
//! | input | a thread passes the bytes to a pair of sockets, whose other end is polled; their buffer is the backpressure |
//! | output | a thread writes one chunk at a time, which is in flight meanwhile, and rings when it is done |
//!
//! A thread ends with its connection. One that waits in a call ends behind that call, and keeps its
//! own descriptor until then. Another program may have made a terminal nonblocking, and its flags
//! stay as they are: then the thread waits in `poll(2)`.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::transport::send_queue::InFlight;

/// Bytes read at a time. 64 KiB, as for sockets.
const READ_BYTES: usize = 64 * 1024;

/// The place of an error behind the last byte of an input: of a reading thread, or of a child
/// process.
#[derive(Debug, Clone, Default)]
pub(crate) struct EndError(Arc<Mutex<Option<io::Error>>>);

impl EndError {
    /// Sets the error, before the input ends.
    pub(crate) fn set(&self, error: io::Error) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).replace(error);
    }

    /// Takes the error. `None`: the input has ended.
    pub(super) fn take(&self) -> Option<io::Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Reads `input` in a thread. Returns the socket that has its bytes, and the place of an error that
/// stands behind them.
///
/// # Errors
/// There is no thread, or no descriptor.
pub(super) fn read_in_thread(input: OwnedFd) -> io::Result<(OwnedFd, EndError)> {
    let (ours, theirs) = UnixStream::pair()?;
    let error = EndError::default();
    let place = error.clone();
    let read = move || {
        if let Err(error) = pass_on(&File::from(input), &theirs) {
            place.set(error);
        }
        // `theirs` is closed behind the error, which the reactor looks for at the end.
        drop(theirs);
    };
    thread::Builder::new().name("ropewalk-input".to_owned()).spawn(read)?;
    Ok((ours.into(), error))
}

/// Passes all bytes on. A closed connection is an end, not an error.
fn pass_on(mut input: &File, mut to: &UnixStream) -> io::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match input.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                if to.write_all(&buffer[..count]).is_err() {
                    return Ok(());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A thread that writes chunks.
pub(super) struct WritingThread {
    chunks: Sender<InFlight>,
    done: Receiver<(InFlight, io::Result<usize>)>,
    /// Has a byte for each chunk that is done.
    bell: PipeReader,
}

impl WritingThread {
    /// Starts a thread that writes to `output`.
    ///
    /// # Errors
    /// There is no thread, or no descriptor.
    pub(super) fn new(output: OwnedFd) -> io::Result<Self> {
        let (chunks, to_write) = channel();
        let (written, done) = channel();
        let (bell, rope) = io::pipe()?;
        let write = move || write_chunks(&File::from(output), &to_write, &written, &rope);
        thread::Builder::new().name("ropewalk-output".to_owned()).spawn(write)?;
        Ok(Self { chunks, done, bell })
    }

    /// Returns the descriptor that becomes readable when a chunk is done.
    pub(super) fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// Writes a chunk, which comes back with [`take_done`](Self::take_done).
    pub(super) fn write(&self, chunk: InFlight) -> Result<(), InFlight> {
        self.chunks.send(chunk).map_err(|refused| refused.0)
    }

    /// Takes a chunk that is done, with the number of its written bytes.
    pub(super) fn take_done(&mut self) -> Option<(InFlight, io::Result<usize>)> {
        let done = self.done.try_recv().ok()?;
        // The byte was written before the bell was polled, or follows at once. Without it, the
        // thread is gone, and rings no more.
        let _ = self.bell.read(&mut [0]);
        Some(done)
    }
}

fn write_chunks(
    output: &File,
    to_write: &Receiver<InFlight>,
    written: &Sender<(InFlight, io::Result<usize>)>,
    mut rope: &PipeWriter,
) {
    while let Ok(chunk) = to_write.recv() {
        let result = write_all(output, chunk.bytes());
        // The connection may be over.
        if written.send((chunk, result)).is_err() || rope.write_all(&[0]).is_err() {
            return;
        }
    }
}

/// Writes all bytes, and waits for room where the descriptor does not. Returns their number, or
/// that of the bytes before an error: the next write has the error again.
fn write_all(mut output: &File, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while written < bytes.len() {
        let error = match output.write(&bytes[written..]) {
            Ok(0) => io::ErrorKind::WriteZero.into(),
            Ok(count) => {
                written += count;
                continue;
            }
            Err(error) => error,
        };
        match error.kind() {
            io::ErrorKind::Interrupted => {}
            io::ErrorKind::WouldBlock => match poll(&mut [PollFd::new(output, PollFlags::OUT)], None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            },
            _ if written > 0 => return Ok(written),
            _ => return Err(error),
        }
    }
    Ok(written)
}
