//! [`ExitWatch`]: waits for the end of a child process, without a handler of `SIGCHLD`. Other
//! children of the program are not waited for.

use std::any::Any;
use std::cell::RefCell;
use std::io;
use std::rc::{Rc, Weak};

use super::pidfd::ProcessDescriptor;
use crate::error::ProcessError;
use crate::log::error;
use crate::process::{ProcessJoint, ProcessStatus, Signal};
use crate::reactor::Core;
use crate::reactor::interest::Ready;
use crate::reactor::watched::Watched;
use crate::transport::id::Id;

/// See the module.
pub(super) struct ExitWatch {
    core: Weak<Core>,
    id: Id,
    /// `None` once the watch has ended.
    descriptor: RefCell<Option<ProcessDescriptor>>,
    joint: Rc<ProcessJoint>,
}

impl ExitWatch {
    pub(super) fn new(core: Weak<Core>, id: Id, descriptor: ProcessDescriptor, joint: Rc<ProcessJoint>) -> Self {
        Self { core, id, descriptor: RefCell::new(Some(descriptor)), joint }
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<(), ProcessError> {
        match &*self.descriptor.borrow() {
            Some(descriptor) => descriptor.signal(signal),
            None => Err(ProcessError::ExitedAlready),
        }
    }

    /// Takes the status of the process, if it has ended.
    fn take_status(&self) -> Option<ProcessStatus> {
        let taken = self.descriptor.borrow().as_ref()?.take_status();
        taken.unwrap_or_else(|error| {
            error!(pid = self.joint.process().pid(), %error, "the status of a process cannot be taken");
            Some(ProcessStatus::Unknown)
        })
    }

    /// Ends the watch. The descriptor is closed when the backend no longer has it.
    fn end(&self) {
        let (Some(core), Some(descriptor)) = (self.core.upgrade(), self.descriptor.take()) else { return };
        let (id, slot) = (self.id, core.slots.borrow_mut().remove(self.id));
        core.close_source(id, false, descriptor);
        drop(slot);
    }
}

impl Watched for ExitWatch {
    fn ready(self: Rc<Self>, _: Ready) {
        if let Some(status) = self.take_status() {
            self.end();
            self.joint.exited(status);
        }
    }

    /// The backend has lost the descriptor. The process is then not watched any more, but its
    /// status is taken if it has one.
    fn lost(self: Rc<Self>, error: io::Error) {
        let pid = self.joint.process().pid();
        error!(pid, %error, "the end of a process is not watched any more");
        let status = self.take_status().unwrap_or(ProcessStatus::Unknown);
        self.end();
        self.joint.exited(status);
    }

    fn reactor_stopped(self: Rc<Self>) {
        let status = self.take_status();
        self.end();
        match status {
            Some(status) => self.joint.exited(status),
            None => {
                let pid = self.joint.process().pid();
                tracing::warn!(pid, "the reactor stops, and leaves a child process running");
                self.joint.left_running();
            }
        }
    }

    fn into_any(self: Rc<Self>) -> Rc<dyn Any> {
        self
    }
}
