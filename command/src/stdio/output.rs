//! [`Output`]: bytes for a descriptor.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::mem;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use ropewalk::error::WatchError;
use ropewalk::reactor::{Interest, Watch, WatchCallbacks};
use ropewalk::{Failure, Reactor, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, fstat};

/// Bytes of one write to a pipe or a socket that was reported as writable: such a write does not
/// block (`PIPE_BUF` of Linux).
const PIECE_BYTES: usize = 4096;

/// Bytes written in one callback, so that the network has its turn too.
const BYTES_PER_TURN: usize = 16 * PIECE_BYTES;

/// An event of an [`Output`].
#[derive(Debug)]
pub(crate) enum OutputEvent {
    /// Everything is written.
    Drained,
    /// The descriptor cannot be written to.
    Failed(Failure),
}

/// Writes to a descriptor, whatever it is.
#[derive(Clone)]
pub(crate) struct Output(Rc<Inner>);

/// Handles the events of an output.
type OnEvent = Box<dyn FnMut(OutputEvent)>;

struct Inner {
    reactor: Reactor,
    file: Arc<File>,
    on_event: RefCell<OnEvent>,
    /// Bytes that are not written yet, those of a thread excluded.
    queue: RefCell<Vec<u8>>,
    /// The watch of a pipe or a socket. Anything else is written by threads.
    watch: RefCell<Option<Watch>>,
    /// Number of bytes that a thread writes at present.
    in_thread: Cell<usize>,
    is_over: Cell<bool>,
}

impl Output {
    /// Makes an output to a descriptor.
    ///
    /// # Errors
    /// The descriptor is none, or cannot be watched.
    pub(crate) fn new(
        reactor: &Reactor,
        descriptor: OwnedFd,
        on_event: impl FnMut(OutputEvent) + 'static,
    ) -> Result<Self> {
        let kind = FileType::from_raw_mode(fstat(&descriptor)?.st_mode);
        let output = Self(Rc::new(Inner {
            reactor: reactor.clone(),
            file: Arc::new(File::from(descriptor)),
            on_event: RefCell::new(Box::new(on_event)),
            queue: RefCell::default(),
            watch: RefCell::default(),
            in_thread: Cell::new(0),
            is_over: Cell::new(false),
        }));
        if matches!(kind, FileType::Fifo | FileType::Socket) {
            let watch = output.watch()?;
            drop(output.0.watch.replace(Some(watch)));
        }
        Ok(output)
    }

    fn watch(&self) -> Result<Watch, WatchError> {
        // The watch is part of the object, so its callbacks must not keep it.
        let (write, lost) = (Rc::downgrade(&self.0), Rc::downgrade(&self.0));
        let callbacks = WatchCallbacks::new()
            .on_write(move |_| {
                if let Some(inner) = write.upgrade() {
                    inner.writable();
                }
                Ok(())
            })
            .on_lost(move |reason| {
                if let Some(inner) = lost.upgrade() {
                    inner.fail(reason.clone());
                }
            });
        self.0.reactor.watch(Arc::clone(&self.0.file), Interest::NONE, callbacks)
    }

    /// Queues bytes.
    pub(crate) fn write(&self, data: &[u8]) {
        if self.0.is_over.get() || data.is_empty() {
            return;
        }
        self.0.queue.borrow_mut().extend_from_slice(data);
        if self.0.watch.borrow().is_some() {
            self.0.set_interest(Interest::WRITE);
        } else {
            self.0.write_in_thread();
        }
    }

    /// Number of bytes that are not written yet.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.0.queue.borrow().len() + self.0.in_thread.get()
    }

    /// Drops the queue, and writes nothing more.
    pub(crate) fn stop(&self) {
        self.0.is_over.set(true);
        self.0.queue.borrow_mut().clear();
        drop(self.0.watch.take());
    }
}

impl Inner {
    fn set_interest(&self, interest: Interest) {
        // An error may end the watch before this returns, and that takes it out of its place.
        let handle = self.watch.borrow().as_ref().map(Watch::handle);
        if let Some(Err(error)) = handle.map(|handle| handle.set_interest(interest)) {
            tracing::debug!(%error, "the watch of the output has ended");
        }
    }

    /// Writes from the queue, as long as the descriptor takes a piece.
    fn writable(&self) {
        let mut queue = self.queue.borrow_mut();
        let mut written = 0;
        let result = loop {
            let end = queue.len().min(written + PIECE_BYTES);
            match (&*self.file).write(&queue[written..end]) {
                Ok(count) => written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break Ok(()),
                Err(error) => break Err(error),
            }
            if written == queue.len() || written >= BYTES_PER_TURN || !is_writable(&self.file) {
                break Ok(());
            }
        };
        queue.drain(..written);
        let is_empty = queue.is_empty();
        drop(queue);
        match result {
            Ok(()) if is_empty => {
                self.set_interest(Interest::NONE);
                self.tell(OutputEvent::Drained);
            }
            Ok(()) => {}
            Err(error) => self.fail(error.into()),
        }
    }

    /// Writes the whole queue in a thread, unless one writes already.
    fn write_in_thread(self: &Rc<Self>) {
        if self.is_over.get() || self.in_thread.get() > 0 {
            return;
        }
        let bytes = mem::take(&mut *self.queue.borrow_mut());
        if bytes.is_empty() {
            return self.tell(OutputEvent::Drained);
        }
        self.in_thread.set(bytes.len());
        let (file, weak) = (Arc::clone(&self.file), Rc::downgrade(self));
        let writing = self.reactor.defer_to_thread(move || Ok((&*file).write_all(&bytes)));
        let done = writing.add_both(move |result: Result<io::Result<()>>| {
            if let Some(inner) = weak.upgrade() {
                inner.in_thread.set(0);
                match result.and_then(|written| Ok(written?)) {
                    Ok(()) => inner.write_in_thread(),
                    Err(failure) => inner.fail(failure),
                }
            }
        });
        drop(done);
    }

    fn fail(&self, failure: Failure) {
        self.tell(OutputEvent::Failed(failure));
        self.is_over.set(true);
        self.queue.borrow_mut().clear();
        // A watch that is dropped in its own callback ends there.
        drop(self.watch.take());
    }

    fn tell(&self, event: OutputEvent) {
        if !self.is_over.get() {
            (self.on_event.borrow_mut())(event);
        }
    }
}

/// Returns `true` if a piece can be written without blocking.
fn is_writable(file: &File) -> bool {
    let mut polled = [PollFd::new(file, PollFlags::OUT)];
    // A failed poll leaves the next piece to the next event.
    poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
}
