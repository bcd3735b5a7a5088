//! [`Ending`]: the end of a command that has a connection, and a console: the connection over
//! standard input and output.

use std::cell::{Cell, OnceCell};

use ropewalk::deferred::Promise;
use ropewalk::error::ConnectionClosed;
use ropewalk::{Deferred, Failure, Result, Transport};

/// Reports the result of a command once its connection is over, and everything is written to the
/// console.
///
/// The first result stays: an error of this side before the end of the connection that it causes.
pub(crate) struct Ending {
    transport: OnceCell<Transport>,
    console: OnceCell<Transport>,
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
            console: OnceCell::new(),
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

    /// Sets the console, once.
    pub(crate) fn set_console(&self, console: &Transport) {
        self.console.get_or_init(|| console.clone());
    }

    /// Returns the console, once it was joined.
    pub(crate) fn console(&self) -> Option<&Transport> {
        self.console.get()
    }

    /// Records the end of the connection. The console ends behind the bytes that are still to be
    /// written.
    pub(crate) fn lost(&self, reason: &Failure) {
        self.record(|| match reason.check() {
            Some(ConnectionClosed::Done) => Ok(()),
            _ => Err(reason.clone()),
        });
        if let Some(console) = self.console() {
            console.unregister_producer();
            console.lose_connection();
        }
        self.finish();
    }

    /// Records the end of the console. If it comes first, it is an error of this side, and ends the
    /// connection. A reader that has closed the output has enough, which is a success.
    pub(crate) fn console_lost(&self, reason: &Failure) {
        // The command is over already, and has a result of its own.
        if let Some(ConnectionClosed::ReactorStopped) = reason.check() {
            return;
        }
        self.record(|| match reason.check() {
            Some(ConnectionClosed::Done | ConnectionClosed::Reset { .. }) => Ok(()),
            _ => Err(reason.clone().context("standard input and output")),
        });
        if let Some(transport) = self.transport() {
            transport.abort_connection();
        }
        self.finish();
    }

    fn record(&self, result: impl FnOnce() -> Result<()>) {
        let first = self.result.take().unwrap_or_else(result);
        self.result.set(Some(first));
    }

    /// Reports the result, if nothing is left to be done.
    fn finish(&self) {
        let is_over = |end: &OnceCell<Transport>| end.get().is_none_or(Transport::is_disconnected);
        if is_over(&self.transport)
            && is_over(&self.console)
            && let Some(result) = self.result.take()
            && let Some(promise) = self.promise.take()
        {
            // A signal may have cancelled it.
            let _ = promise.complete(result);
        }
    }
}
