//! [`ProcessJoint`], between a process protocol and its transport.
//!
//! Only this file calls a [`ProcessProtocol`]:
//!
//! 1. the protocol is called only while the joint holds it, and `process_ended` takes it out;
//! 2. each call is guarded: an `Err` or a panic is logged, and the process goes on;
//! 3. no borrow of the protocol is held outside of a call;
//! 4. `process_ended` follows the exit and the end of each pipe, in whatever order they come.

use std::cell::RefCell;
use std::io;

use super::protocol::ProcessProtocol;
use super::state::ProcessState;
use super::status::ProcessStatus;
use super::transport::ProcessTransport;
use crate::failure::{Result, drop_guarded, guarded_result};
use crate::log::error;

/// A process protocol joined to its transport.
pub(crate) struct ProcessJoint {
    process: ProcessTransport,
    protocol: RefCell<Option<Box<dyn ProcessProtocol>>>,
}

impl ProcessJoint {
    pub(crate) fn new(process: ProcessTransport, protocol: Box<dyn ProcessProtocol>) -> Self {
        Self { process, protocol: RefCell::new(Some(protocol)) }
    }

    pub(crate) fn process(&self) -> &ProcessTransport {
        &self.process
    }

    /// Makes the first call.
    pub(crate) fn connection_made(&self) {
        self.call("connection_made", |protocol, process| protocol.connection_made(process));
    }

    /// Delivers bytes of a pipe.
    pub(crate) fn data_received(&self, descriptor: i32, data: &[u8]) {
        self.call("child_data_received", |protocol, process| protocol.child_data_received(process, descriptor, data));
    }

    /// Tells of the end of a pipe, once.
    pub(crate) fn pipe_lost(&self, descriptor: i32) {
        if !self.state().pipe_lost(descriptor) {
            return;
        }
        self.call("child_connection_lost", |protocol, process| protocol.child_connection_lost(process, descriptor));
        self.end_if_over();
    }

    /// Tells of the exit, once.
    pub(crate) fn exited(&self, status: ProcessStatus) {
        if !self.state().exited(status) {
            return;
        }
        self.call("process_exited", |protocol, process| protocol.process_exited(process, &status));
        self.end_if_over();
        self.close_pipes_later();
    }

    /// Records that the reactor has stopped before the process.
    pub(crate) fn left_running(&self) {
        if self.state().exited(ProcessStatus::LeftRunning) {
            self.end_if_over();
        }
    }

    /// Drops the protocol of a process that did not start. Nothing is called.
    pub(crate) fn discard(&self) {
        let protocol = self.protocol.borrow_mut().take();
        drop_guarded("a process protocol", protocol);
    }

    /// Closes the pipes that are left open after the exit, once their time is over. The output that
    /// is in them is delivered first: it may be that of the process itself.
    fn close_pipes_later(&self) {
        let state = self.state();
        let (Some(grace), false, Ok(driver)) = (state.pipe_grace(), state.has_ended(), state.driver()) else { return };
        let process = self.process.clone();
        let close = move || {
            for pipe in process.state().transports() {
                pipe.update(|stream| stream.broken(io::ErrorKind::TimedOut.into(), true));
            }
        };
        state.set_grace_timer(driver.call_later(grace, Box::new(close)));
    }

    /// Makes the last call, and drops the protocol, if the process has exited and no pipe is open.
    fn end_if_over(&self) {
        let Some(status) = self.state().take_end() else { return };
        self.call("process_ended", |protocol, process| protocol.process_ended(process, &status));
        self.discard();
    }

    fn state(&self) -> &ProcessState {
        self.process.state()
    }

    fn call(
        &self,
        callback: &'static str,
        call: impl FnOnce(&mut dyn ProcessProtocol, &ProcessTransport) -> Result<()>,
    ) {
        let mut place = self.protocol.borrow_mut();
        let Some(protocol) = place.as_mut() else { return };
        let result = guarded_result(|| call(&mut **protocol, &self.process));
        drop(place);
        if let Err(failure) = result {
            let backtrace = failure.backtrace().map(tracing::field::display);
            error!(pid = self.process.pid(), %failure, backtrace, "{callback} failed; the process goes on");
        }
    }
}

impl Drop for ProcessJoint {
    /// A protocol is left only if its process did not start, or its reactor was dropped in a forked
    /// child.
    fn drop(&mut self) {
        drop_guarded("a process protocol", self.protocol.get_mut().take());
    }
}
