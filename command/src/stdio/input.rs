//! [`Input`]: the bytes of a descriptor.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use ropewalk::error::WatchError;
use ropewalk::reactor::{Interest, Watch, WatchCallbacks};
use ropewalk::{Failure, Reactor, Result};

/// Bytes to read at a time: as many as a pipe holds.
const READ_BYTES: usize = 64 * 1024;

/// An event of an [`Input`].
#[derive(Debug)]
pub(crate) enum InputEvent<'a> {
    /// There are bytes.
    Data(&'a [u8]),
    /// The last byte was read.
    End,
    /// The descriptor cannot be read.
    Failed(Failure),
}

/// Reads a descriptor, whatever it is.
#[derive(Clone)]
pub(crate) struct Input(Rc<Inner>);

/// Handles the events of an input.
type OnEvent = Box<dyn FnMut(InputEvent<'_>)>;

struct Inner {
    reactor: Reactor,
    file: Arc<File>,
    on_event: RefCell<OnEvent>,
    /// The watch of a descriptor that the poller takes.
    watch: RefCell<Option<Watch>>,
    is_paused: Cell<bool>,
    is_over: Cell<bool>,
    /// A thread reads at present.
    in_thread: Cell<bool>,
}

impl Input {
    /// Reads a descriptor from now on.
    ///
    /// # Errors
    /// The descriptor can be neither watched nor read.
    pub(crate) fn new(
        reactor: &Reactor,
        descriptor: OwnedFd,
        on_event: impl FnMut(InputEvent<'_>) + 'static,
    ) -> Result<Self> {
        let input = Self(Rc::new(Inner {
            reactor: reactor.clone(),
            file: Arc::new(File::from(descriptor)),
            on_event: RefCell::new(Box::new(on_event)),
            watch: RefCell::default(),
            is_paused: Cell::new(false),
            is_over: Cell::new(false),
            in_thread: Cell::new(false),
        }));
        match input.watch() {
            Ok(watch) => drop(input.0.watch.replace(Some(watch))),
            Err(WatchError::NotPollable { .. }) => input.0.read_in_thread(),
            Err(error) => return Err(error.into()),
        }
        Ok(input)
    }

    fn watch(&self) -> Result<Watch, WatchError> {
        // The watch is part of the object, so its callbacks must not keep it.
        let (read, lost) = (Rc::downgrade(&self.0), Rc::downgrade(&self.0));
        let mut buffer = vec![0; READ_BYTES];
        let callbacks = WatchCallbacks::new()
            .on_read(move |_| {
                if let Some(inner) = read.upgrade() {
                    let result = read_some(&inner.file, &mut buffer);
                    inner.has_read(result.map(|count| &buffer[..count]));
                }
                Ok(())
            })
            .on_lost(move |reason| {
                if let Some(inner) = lost.upgrade() {
                    inner.end(InputEvent::Failed(reason.clone()));
                }
            });
        self.0.reactor.watch(Arc::clone(&self.0.file), Interest::READ, callbacks)
    }

    /// Stops to read until [`resume`](Self::resume). Bytes that a thread is reading still come.
    pub(crate) fn pause(&self) {
        self.0.is_paused.set(true);
        self.0.set_interest(Interest::NONE);
    }

    /// Reads again.
    pub(crate) fn resume(&self) {
        self.0.is_paused.set(false);
        if self.0.watch.borrow().is_some() {
            self.0.set_interest(Interest::READ);
        } else {
            self.0.read_in_thread();
        }
    }

    /// Stops to read for good.
    pub(crate) fn stop(&self) {
        self.0.is_over.set(true);
        drop(self.0.watch.take());
    }
}

impl Inner {
    fn set_interest(&self, interest: Interest) {
        // An error may end the watch before this returns, and that takes it out of its place.
        let handle = self.watch.borrow().as_ref().map(Watch::handle);
        if let Some(Err(error)) = handle.map(|handle| handle.set_interest(interest)) {
            tracing::debug!(%error, "the watch of the input has ended");
        }
    }

    /// Reads once in a thread, unless one reads already.
    fn read_in_thread(self: &Rc<Self>) {
        if self.is_over.get() || self.is_paused.get() || self.in_thread.replace(true) {
            return;
        }
        let (file, weak) = (Arc::clone(&self.file), Rc::downgrade(self));
        let reading = self.reactor.defer_to_thread(move || {
            let mut buffer = vec![0; READ_BYTES];
            Ok(read_some(&file, &mut buffer).map(|count| {
                buffer.truncate(count);
                buffer
            }))
        });
        let done = reading.add_both(move |result| {
            if let Some(inner) = Weak::upgrade(&weak) {
                inner.in_thread.set(false);
                match result {
                    Ok(Ok(data)) => inner.has_read(Ok(&data)),
                    Ok(Err(error)) => inner.has_read(Err(error)),
                    Err(failure) => inner.end(InputEvent::Failed(failure)),
                }
                inner.read_in_thread();
            }
        });
        drop(done);
    }

    fn has_read(&self, result: io::Result<&[u8]>) {
        match result {
            Ok([]) => self.end(InputEvent::End),
            Ok(data) => self.tell(InputEvent::Data(data)),
            // Another process may read the same terminal or pipe.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => self.end(InputEvent::Failed(error.into())),
        }
    }

    fn end(&self, event: InputEvent<'_>) {
        self.tell(event);
        self.is_over.set(true);
        // A watch that is dropped in its own callback ends there.
        drop(self.watch.take());
    }

    fn tell(&self, event: InputEvent<'_>) {
        if !self.is_over.get() {
            (self.on_event.borrow_mut())(event);
        }
    }
}

fn read_some(mut file: &File, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
