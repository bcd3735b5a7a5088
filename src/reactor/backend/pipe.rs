//! [`PolledPipe`]: a connection over one or two descriptors that are not one socket: the ends of
//! pipes, a terminal, the two standard streams. They are polled for readiness, edge-triggered, on
//! mio and on io_uring.
//!
//! | end | reads and writes |
//! |---|---|
//! | of this process alone | nonblocking: the flag is set here |
//! | a socket | by calls that do not wait, in any mode |
//! | a shared pipe, a terminal to read | only when `poll(2)` reports it ready, in pieces of `PIPE_BUF` bytes |
//! | any other that is shared | in a thread: see `pipe_threads.rs` |
//!
//! A shared descriptor keeps its flags, because they belong to the open file, and so to every
//! process that has it: a shell, the other programs of a pipeline. Another process that reads the
//! same pipe or terminal may take the bytes between the `poll` and the read. That read waits.
//!
//! The ends have one id at the poller. So an error or a hang-up that it reports belongs to either,
//! and `poll(2)` tells which. A writing end without a reader is the loss of the connection. On a
//! terminal, a hang-up is told by the reading end.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use super::pipe_threads::{EndError, WritingThread, read_in_thread};
use super::poller::Poller;
use super::reported::Readiness;
use super::socket::{self, Receive, Send};
use super::table::Requeue;
use super::{BackendEvent, Completion, Inbox, Progress};
use crate::transport::id::Id;
use crate::transport::outgoing::{Outgoing, SendMode};
use crate::transport::send_queue::{BufferPool, CHUNK, MAX_SLICES, SendQueue};

/// Bytes of one write to a shared pipe that was reported as writable: such a write does not wait
/// (`PIPE_BUF` of Linux; 512 is the least that POSIX allows).
const PIECE_BYTES: usize = if cfg!(any(target_os = "linux", target_os = "android")) { 4096 } else { 512 };

/// Bytes sent per connection and turn. 1 MiB, as for sockets.
const SEND_BYTES: usize = 16 * CHUNK;

/// The descriptors of a connection that is no socket. They may be duplicates of one.
#[derive(Debug)]
pub(crate) struct PipeEnds {
    pub(crate) read: Option<OwnedFd>,
    pub(crate) write: Option<OwnedFd>,
    /// Other processes have the same open files, so that the flags must stay as they are.
    pub(crate) is_shared: bool,
    /// Set for both ends of a child process. Bytes that it does not read are dropped, and are not
    /// the loss of the connection. An error that is set when it exits stands behind its output.
    pub(crate) of_child: Option<EndError>,
}

/// See the module.
pub(super) struct PolledPipe {
    read: Option<PipeEnd>,
    write: Option<PipeEnd>,
    /// Writes in the place of `write`.
    thread: Option<WritingThread>,
    /// There may be bytes, or an end.
    is_readable: bool,
    /// There may be room.
    is_writable: bool,
    /// The poller has reported an error or a hang-up, of one of the ends.
    is_in_doubt: bool,
    is_receiving: bool,
    /// Bytes that arrived before the loss of the writing end, and are still to be read. The stream
    /// ends behind them, though other processes may go on to write.
    rest: Option<usize>,
    /// The end of the input was read.
    has_ended: bool,
    /// A send waits for room.
    is_blocked: bool,
    /// Bytes without a reader are dropped: see [`PipeEnds::of_child`].
    may_drop: bool,
    /// There is no reader any more, and written bytes are dropped.
    is_dropping: bool,
}

/// One end, and the way in which it is read or written.
struct PipeEnd {
    descriptor: OwnedFd,
    access: Access,
    /// The place of an error in that of the end, if a thread reads or a child writes.
    error: Option<EndError>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Nonblocking,
    Socket,
    Shared,
}

// Pipes are few beside sockets: their code is kept out of the loop's.
impl PolledPipe {
    /// Makes a source of descriptors that are yet to be registered. They become nonblocking, unless
    /// they are shared.
    ///
    /// # Errors
    /// The system's: a descriptor is not open.
    pub(super) fn new(ends: PipeEnds) -> io::Result<Self> {
        let is_shared = ends.is_shared;
        let mut read = ends.read.map(|end| PipeEnd::reading(end, is_shared)).transpose()?;
        let may_drop = ends.of_child.is_some();
        if let (Some(read), Some(error)) = (&mut read, ends.of_child) {
            read.error = Some(error);
        }
        let (mut write, mut thread) = (None, None);
        match ends.write {
            Some(end) if is_shared && !is_flow(&end)? => thread = Some(WritingThread::new(end)?),
            Some(end) => write = Some(PipeEnd::new(end, is_shared)?),
            None => {}
        }
        Ok(Self {
            read,
            write,
            thread,
            // The poller reports the readiness that an end has when it is registered.
            is_readable: false,
            is_writable: false,
            is_in_doubt: false,
            is_receiving: false,
            rest: None,
            has_ended: false,
            is_blocked: false,
            may_drop,
            is_dropping: false,
        })
    }

    /// Returns the descriptor to be polled for reading, until the source is closed.
    pub(super) fn reading_end(&self) -> Option<BorrowedFd<'_>> {
        self.read.as_ref().map(|end| end.descriptor.as_fd())
    }

    /// Returns the descriptor to be polled for the progress of sends, until it is closed. `true`:
    /// for room. `false`: for reading, since a thread writes.
    pub(super) fn writing_end(&self) -> Option<(BorrowedFd<'_>, bool)> {
        let own = self.write.as_ref().map(|end| (end.descriptor.as_fd(), true));
        own.or_else(|| self.thread.as_ref().map(|thread| (thread.bell(), false)))
    }

    /// Closes the writing end, which is not polled any more: the peer's input ends.
    pub(super) fn close_writing_end(&mut self) {
        (self.write, self.thread) = (None, None);
    }

    /// Records the readiness that the poller reported for either end.
    #[inline(never)]
    pub(super) fn note(&mut self, readiness: Readiness) {
        self.is_readable |= readiness.has(Readiness::READABLE);
        self.is_writable |= readiness.has(Readiness::WRITABLE);
        self.is_in_doubt |= readiness.has(Readiness::HUNG_UP) || readiness.has(Readiness::GONE);
    }

    /// Starts or stops receiving. Returns `true` if there may be something to receive.
    #[inline(never)]
    pub(super) fn set_receiving(&mut self, on: bool) -> bool {
        self.is_receiving = on;
        on && self.is_readable
    }

    /// Starts to read the bytes that arrived before the loss of the writing end.
    #[inline(never)]
    pub(super) fn receive_rest(&mut self) {
        (self.is_receiving, self.is_readable) = (true, true);
        if self.rest.is_none() {
            self.rest = Some(self.read.as_ref().map_or(0, PipeEnd::bytes_there));
        }
    }

    /// Returns the next event, and when to visit the source again.
    #[inline(never)]
    pub(super) fn next(&mut self, inbox: &mut Inbox) -> (Option<BackendEvent>, Requeue) {
        if self.is_blocked && self.is_writable {
            self.is_blocked = false;
            return (Some(Completion::SendReady.into()), Requeue::Now);
        }
        if let Some((in_flight, result)) = self.thread.as_mut().and_then(WritingThread::take_done) {
            return (Some(BackendEvent::Returned(in_flight, result)), Requeue::Now);
        }
        if std::mem::take(&mut self.is_in_doubt) && self.write.as_ref().is_some_and(PipeEnd::has_lost_reader) {
            if self.may_drop {
                self.is_dropping = true;
                let is_waiting = std::mem::take(&mut self.is_blocked);
                return (is_waiting.then(|| Completion::SendReady.into()), Requeue::Now);
            }
            let rest = self.read.is_some() && !self.has_ended;
            let error = io::ErrorKind::BrokenPipe.into();
            return (Some(Completion::Broken { error, rest }.into()), Requeue::Now);
        }
        if self.is_receiving && self.is_readable {
            return self.receive(inbox);
        }
        (None, Requeue::No)
    }

    fn receive(&mut self, inbox: &mut Inbox) -> (Option<BackendEvent>, Requeue) {
        let rest = self.rest;
        let received = match &self.read {
            Some(end) if !self.has_ended && rest != Some(0) => {
                let room = inbox.room().0;
                let most = rest.map_or(room.len(), |rest| rest.min(room.len()));
                end.read(&mut room[..most])
            }
            _ if rest.is_some() => Receive::End,
            _ => Receive::Empty,
        };
        match received {
            // A terminal and a pipe of packets return less than there is.
            Receive::Full(filled) | Receive::Bytes(filled) => {
                self.rest = rest.map(|rest| rest - filled);
                inbox.fill(filled);
                (Some(BackendEvent::Received), Requeue::NextTurn)
            }
            Receive::End => self.end(),
            Receive::Empty if rest.is_some() => self.end(),
            Receive::Empty => {
                self.is_readable = false;
                (None, Requeue::No)
            }
            Receive::Starved => (None, Requeue::NextTurn),
            Receive::Failed(error) => {
                (self.is_readable, self.has_ended) = (false, true);
                (Some(Completion::Broken { error, rest: false }.into()), Requeue::No)
            }
        }
    }

    fn end(&mut self) -> (Option<BackendEvent>, Requeue) {
        (self.is_readable, self.has_ended) = (false, true);
        (Some(Completion::EndOfStream.into()), Requeue::No)
    }

    /// Sends from the front of a queue. A full pipe waits for room, which the next edge reports.
    pub(super) fn send(&mut self, outgoing: Outgoing<'_>) -> io::Result<Progress> {
        let Outgoing { queue, pool, mode, .. } = outgoing;
        if let Some(thread) = &self.thread {
            if mode == SendMode::Last {
                // Nothing waits for a thread then.
                return Ok(Progress::Blocked(0));
            }
            if let Some(in_flight) = queue.lend()
                && let Err(refused) = thread.write(in_flight)
            {
                queue.take_back(refused, 0, pool);
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            return Ok(Progress::Blocked(0));
        }
        let end = self.write.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut sent = 0;
        if self.is_dropping {
            return Ok(drop_queued(queue, pool));
        }
        while !queue.is_empty() && sent < SEND_BYTES {
            match end.write_queue(queue) {
                Send::Bytes(count) => {
                    queue.advance(count, pool);
                    sent += count;
                }
                Send::Full => {
                    (self.is_blocked, self.is_writable) = (true, false);
                    return Ok(Progress::Blocked(sent));
                }
                Send::Starved => return Ok(Progress::Starved(sent)),
                Send::Failed(_) if self.may_drop => {
                    self.is_dropping = true;
                    return Ok(drop_queued(queue, pool));
                }
                Send::Failed(error) => return Err(error),
            }
        }
        Ok(Progress::Advanced(sent))
    }

    /// Writes bytes that are in no queue, as many as the pipe takes at once. Returns their number.
    /// An error comes again with the next send.
    #[inline(never)]
    pub(super) fn send_now(&mut self, data: &[u8]) -> usize {
        match self.write.as_ref().map(|end| end.write(data)) {
            Some(Send::Bytes(count)) => count,
            _ => 0,
        }
    }
}

impl PipeEnd {
    /// Makes the reading end of a descriptor, or of a thread that reads it.
    fn reading(descriptor: OwnedFd, is_shared: bool) -> io::Result<Self> {
        if is_shared && !is_flow(&descriptor)? && !is_pollable(&descriptor)? {
            let (socket, error) = read_in_thread(descriptor)?;
            return Ok(Self { descriptor: socket, access: Access::Socket, error: Some(error) });
        }
        Self::new(descriptor, is_shared)
    }

    fn new(descriptor: OwnedFd, is_shared: bool) -> io::Result<Self> {
        let access = match file_type(&descriptor)? {
            FileType::Socket => Access::Socket,
            _ if is_shared => Access::Shared,
            _ => {
                let flags = rustix::fs::fcntl_getfl(&descriptor)?;
                rustix::fs::fcntl_setfl(&descriptor, flags | OFlags::NONBLOCK)?;
                Access::Nonblocking
            }
        };
        Ok(Self { descriptor, access, error: None })
    }

    fn read(&self, buffer: &mut [u8]) -> Receive {
        match self.access {
            Access::Socket => {
                let received = socket::receive(self.descriptor.as_fd(), buffer);
                return if matches!(received, Receive::End) { self.end() } else { received };
            }
            Access::Shared if !self.is_ready(PollFlags::IN) => return Receive::Empty,
            Access::Shared | Access::Nonblocking => {}
        }
        loop {
            return match rustix::io::read(&self.descriptor, &mut *buffer) {
                Ok(0) => self.end(),
                Ok(count) => Receive::Bytes(count),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => Receive::Empty,
                Err(Errno::NOBUFS | Errno::NOMEM) => Receive::Starved,
                // The other side of a terminal is closed.
                Err(Errno::IO) if self.is_device() => self.end(),
                Err(error) => Receive::Failed(error.into()),
            };
        }
    }

    /// Returns the end of the input, or the error that stands in its place.
    fn end(&self) -> Receive {
        self.error.as_ref().and_then(EndError::take).map_or(Receive::End, Receive::Failed)
    }

    fn write_queue(&self, queue: &SendQueue) -> Send {
        match self.access {
            Access::Socket => socket::send_queue(self.descriptor.as_fd(), queue, None),
            Access::Nonblocking if !queue.is_single() => {
                let mut slices = [io::IoSlice::new(&[]); MAX_SLICES];
                let filled = queue.slices(&mut slices);
                sort_written(|| rustix::io::writev(&self.descriptor, &slices[..filled]))
            }
            Access::Nonblocking | Access::Shared => self.write(queue.front()),
        }
    }

    fn write(&self, data: &[u8]) -> Send {
        match self.access {
            Access::Socket => socket::send(self.descriptor.as_fd(), data),
            Access::Shared if !self.is_ready(PollFlags::OUT) => Send::Full,
            Access::Shared => {
                let piece = &data[..data.len().min(PIECE_BYTES)];
                sort_written(|| rustix::io::write(&self.descriptor, piece))
            }
            Access::Nonblocking => sort_written(|| rustix::io::write(&self.descriptor, data)),
        }
    }

    /// Returns the number of bytes that can be read now, and the highest if the system does not
    /// say: then all are read until there is none.
    fn bytes_there(&self) -> usize {
        let bytes = rustix::io::ioctl_fionread(&self.descriptor).ok();
        bytes.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(usize::MAX)
    }

    /// Returns `true` if the next call does not wait: the end is ready, or fails.
    fn is_ready(&self, wanted: PollFlags) -> bool {
        self.polled(wanted).intersects(wanted | PollFlags::HUP | PollFlags::ERR)
    }

    /// Returns `true` if written bytes would have no reader.
    fn has_lost_reader(&self) -> bool {
        let polled = self.polled(PollFlags::OUT);
        polled.contains(PollFlags::ERR) || polled.contains(PollFlags::HUP) && !self.is_device()
    }

    fn polled(&self, wanted: PollFlags) -> PollFlags {
        let mut asked = [PollFd::new(&self.descriptor, wanted)];
        match rustix::event::poll(&mut asked, Some(&Timespec::default())) {
            Ok(_) => asked[0].revents(),
            // Out of memory. The next edge, or the next send, asks again.
            Err(_) => PollFlags::empty(),
        }
    }

    fn is_device(&self) -> bool {
        file_type(&self.descriptor).is_ok_and(|kind| kind == FileType::CharacterDevice)
    }
}

/// Drops bytes that have no reader.
fn drop_queued(queue: &mut SendQueue, pool: &BufferPool) -> Progress {
    let dropped = queue.len();
    queue.advance(dropped, pool);
    Progress::Advanced(dropped)
}

fn file_type(descriptor: &OwnedFd) -> rustix::io::Result<FileType> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(descriptor)?.st_mode))
}

/// Returns `true` for a pipe or a socket.
fn is_flow(descriptor: &OwnedFd) -> rustix::io::Result<bool> {
    Ok(matches!(file_type(descriptor)?, FileType::Fifo | FileType::Socket))
}

/// Returns `true` if the system's poller takes the descriptor. It refuses regular files and
/// `/dev/null`. A ring would report them as ready for ever.
fn is_pollable(descriptor: &OwnedFd) -> io::Result<bool> {
    let trial = Poller::new(1)?;
    match trial.register(Id { slot: 0, generation: 0 }, descriptor.as_raw_fd(), mio::Interest::READABLE) {
        Ok(()) => Ok(true),
        Err(error) if Errno::from_io_error(&error) == Some(Errno::PERM) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Repeats a write until it is not interrupted, and sorts its result.
fn sort_written(mut write: impl FnMut() -> rustix::io::Result<usize>) -> Send {
    loop {
        return match write() {
            Ok(count) => Send::Bytes(count),
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => Send::Full,
            Err(Errno::NOBUFS | Errno::NOMEM) => Send::Starved,
            Err(error) => Send::Failed(error.into()),
        };
    }
}
