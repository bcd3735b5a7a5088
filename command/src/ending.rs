//! [`Ending`]: the end of a command that has a connection and writes to standard output.

use std::cell::{Cell, OnceCell};
use std::io::ErrorKind;

use ropewalk::deferred::Promise;
use ropewalk::error::ConnectionClosed;
use ropewalk::{Deferred, Failure, Result, Transport};

use crate::stdio::Output;

/// Reports the result of a command once its connection is over and everything is written.
///
/// The first result stays: an error of this side before the end of the connection that it causes.
pub(crate) struct Ending {
    transport: OnceCell<Transport>,
    output: OnceCell<Output>,
    /// The result, once it is known.
    result: Cell<Option<Result<()>>>,
    /// `None` once it has fired.
    promise: Cell<Option<Promise<()>>>,
}

impl Ending {
    /// Makes an end that is to come, and the Deferred of it.
    pub(crate) fn new() -> (Self, Deferred<()>) {
        let (promise, ended) = Promise::new();
        let ending = Self {
            transport: OnceCell::new(),
            output: OnceCell::new(),
            result: Cell::new(None),
            promise: Cell::new(Some(promise)),
        };
        (ending, ended)
    }

    /// Sets the connection, once.
    pub(crate) fn set_transport(&self, transport: &Transport) {
        self.transport.get_or_init(|| transport.clone());
    }

    /// Returns the connection, once it was made.
    pub(crate) fn transport(&self) -> Option<&Transport> {
        self.transport.get()
    }

    /// Sets the output, once.
    pub(crate) fn set_output(&self, output: Output) {
        self.output.get_or_init(|| output);
    }

    /// Returns the output.
    pub(crate) fn output(&self) -> Option<&Output> {
        self.output.get()
    }

    /// Ends the connection for an error of this side.
    pub(crate) fn fail(&self, failure: Failure) {
        self.abort(Err(failure));
    }

    /// Ends the connection because the output cannot be written to. A reader that has closed it has
    /// enough, which is a success.
    pub(crate) fn output_failed(&self, failure: Failure) {
        let is_closed = failure.check::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe);
        self.abort(if is_closed { Ok(()) } else { Err(failure.context("standard output")) });
    }

    /// Records the end of the connection.
    pub(crate) fn lost(&self, reason: &Failure) {
        let result = self.result.take().unwrap_or_else(|| match reason.check() {
            Some(ConnectionClosed::Done) => Ok(()),
            _ => Err(reason.clone()),
        });
        self.result.set(Some(result));
        self.finish();
    }

    /// Reports the result, if nothing is left to be done.
    pub(crate) fn finish(&self) {
        let is_over = self.transport.get().is_none_or(Transport::is_disconnected);
        let is_written = self.output.get().is_none_or(|output| output.queued_bytes() == 0);
        if is_over
            && is_written
            && let Some(result) = self.result.take()
            && let Some(promise) = self.promise.take()
        {
            // A signal may have cancelled it.
            let _ = promise.complete(result);
        }
    }

    fn abort(&self, result: Result<()>) {
        let first = self.result.take().unwrap_or(result);
        self.result.set(Some(first));
        if let Some(output) = self.output.get() {
            output.stop();
        }
        if let Some(transport) = self.transport.get() {
            transport.abort_connection();
        }
    }
}
