//! The start of a child process.
//!
//! Each step that can fail for want of descriptors comes before the child, so that a process which
//! has begun to run is only killed again if the poller refuses its descriptor:
//!
//! | step | on failure |
//! |---|---|
//! | 1. a descriptor of this process keeps the place of the child's | nothing to undo |
//! | 2. pipes are made, and joined to the reactor | pipes are discarded |
//! | 3. a child with its descriptor, in the kept place; its steps up to its exec | the same; the child has ended |
//! | 4. the child's descriptor is watched | the same; the child is killed, and waited for |
//! | 5. `connection_made` | is logged |

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::rc::{Rc, Weak};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use super::exec::{self, Mapping};
use super::exit::ExitWatch;
use super::pidfd::ProcessDescriptor;
use super::{pipe, terminal};
use crate::error::{AdoptError, ConnectError, LoopWaits, ProcessError, SpawnError, SpawnStep};
use crate::process::{
    ChildDescriptor, Command, PipeDirection, ProcessDriver, ProcessJoint, ProcessProtocol, ProcessState,
    ProcessTransport, Settings, Signal, WindowSize,
};
use crate::reactor::interest::Interest;
use crate::reactor::watched::Watched;
use crate::reactor::{Core, Reactor, Slot};
use crate::time::{Clock, DelayedCall};
use crate::transport::DiscardMode;
use crate::transport::id::Id;

impl Reactor {
    /// Starts a program as a child process, and calls `protocol` for its output and its end
    /// (Twisted: `spawnProcess`).
    ///
    /// When this returns, the program runs, and the protocol's `connection_made` was called. The
    /// child has the descriptors of the command and no others: none of the engine or of the program
    /// leaks into it. It blocks and ignores no signal.
    ///
    /// Until the reactor stops, the engine waits for the end of the process and takes its status,
    /// so that no zombie is left. A reactor that stops leaves the process running, as Twisted does,
    /// and closes its pipes; a process that ends later is a zombie until this process ends.
    ///
    /// This blocks until the program was loaded.
    ///
    /// ```
    /// use ropewalk::interfaces::*;
    /// use ropewalk::process::{Command, ProcessStatus};
    /// use ropewalk::{ProcessTransport, Reactor, Result};
    ///
    /// struct Sorted(Reactor);
    ///
    /// impl ProcessProtocol for Sorted {
    ///     fn connection_made(&mut self, process: &ProcessTransport) -> Result<()> {
    ///         process.write(b"b\na\n")?;
    ///         process.close_stdin();
    ///         Ok(())
    ///     }
    ///
    ///     fn child_data_received(&mut self, _: &ProcessTransport, descriptor: i32, data: &[u8]) -> Result<()> {
    ///         assert_eq!((descriptor, data), (1, &b"a\nb\n"[..]));
    ///         Ok(())
    ///     }
    ///
    ///     fn process_ended(&mut self, _: &ProcessTransport, status: &ProcessStatus) -> Result<()> {
    ///         assert!(status.is_success());
    ///         self.0.stop()?;
    ///         Ok(())
    ///     }
    /// }
    ///
    /// # fn main() -> Result<()> {
    /// let reactor = Reactor::new()?;
    /// reactor.spawn_process(&Command::new("sort"), Sorted(reactor.clone()))?;
    /// reactor.run()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`SpawnError`]: there is no such program or working directory, the system refuses the user,
    /// or there are too many descriptors or processes. Then no process is left, no descriptor, and
    /// the protocol was not called.
    pub fn spawn_process(
        &self,
        command: &Command,
        protocol: impl ProcessProtocol,
    ) -> Result<ProcessTransport, SpawnError> {
        self.0.spawn_process(command.settings(), Box::new(protocol))
    }
}

/// A process that is about to start.
pub(super) struct Start<'a> {
    settings: &'a Settings,
    id: Id,
    pub(super) joint: Rc<ProcessJoint>,
}

impl Start<'_> {
    pub(super) fn setup(&self, step: SpawnStep, source: io::Error) -> SpawnError {
        SpawnError::Setup { program: self.settings.program.to_string_lossy().into_owned(), step, source }
    }
}

impl Core {
    pub(super) fn spawn_process(
        self: &Rc<Self>,
        settings: &Settings,
        protocol: Box<dyn ProcessProtocol>,
    ) -> Result<ProcessTransport, SpawnError> {
        self.may_spawn(settings)?;
        let id = self.slots.borrow_mut().insert(Slot::Reserved);
        let driver: Weak<Self> = Rc::downgrade(self);
        let process = ProcessTransport::new(ProcessState::new(driver, id, settings.pipe_grace));
        let joint = Rc::new(ProcessJoint::new(process.clone(), protocol));
        let start = Start { settings, id, joint };
        if let Err(error) = self.start(&start) {
            self.slots.borrow_mut().remove(id);
            for transport in process.state().transports() {
                transport.discard(DiscardMode::End);
            }
            start.joint.discard();
            return Err(error);
        }
        // The loop must not be entered meanwhile: it would call the protocol again.
        let entered = self.context.enter();
        start.joint.connection_made();
        drop(entered);
        Ok(process)
    }

    /// Checks that the reactor starts processes, and that the descriptors of this process which the
    /// child is to share are open. The engine opens its own later, which may have these numbers.
    pub(super) fn may_spawn(&self, settings: &Settings) -> Result<(), SpawnError> {
        if self.is_closed() || self.run.is_closing() {
            return Err(SpawnError::ReactorStopped);
        }
        if !self.is_ours() {
            return Err(SpawnError::ForkedChild);
        }
        if self.settings.backend.is_none() {
            return Err(SpawnError::Unsupported);
        }
        let shared = settings.descriptors.values().filter_map(|descriptor| match descriptor {
            ChildDescriptor::Number(number) => Some(*number),
            _ => None,
        });
        for number in shared {
            exec::check_open(number).map_err(|source| {
                let program = settings.program.to_string_lossy().into_owned();
                SpawnError::Setup { program, step: SpawnStep::Pipes, source }
            })?;
        }
        Ok(())
    }

    /// Takes the steps up to the watch. The caller undoes the ones that were taken.
    fn start(self: &Rc<Self>, start: &Start<'_>) -> Result<(), SpawnError> {
        let kept = ProcessDescriptor::of_this_process().map_err(|error| match error.kind() {
            io::ErrorKind::Unsupported => SpawnError::Unsupported,
            _ => start.setup(SpawnStep::Watch, error),
        })?;
        let mappings = self.open_descriptors(start)?;
        let (pid, descriptor) = exec::start(start.settings, mappings, kept)?;
        start.joint.process().state().started(pid);
        self.watch_exit(start, ProcessDescriptor::of_child(descriptor))
            .map_err(|error| start.setup(SpawnStep::Watch, error))
    }

    /// Opens everything that the child is to have, and joins our ends of pipes to the reactor.
    fn open_descriptors(self: &Rc<Self>, start: &Start<'_>) -> Result<Vec<Mapping>, SpawnError> {
        let terminal = start.settings.terminal;
        let mut mappings = match terminal {
            Some(size) => self.open_terminal(start, size)?,
            None => Vec::with_capacity(start.settings.descriptors.len()),
        };
        for (&number, descriptor) in &start.settings.descriptors {
            // The standard streams are the terminal then.
            if terminal.is_some() && (0..=2).contains(&number) {
                continue;
            }
            if number < 0 {
                return Err(start.setup(SpawnStep::Descriptors, io::ErrorKind::InvalidInput.into()));
            }
            let source = self.open_descriptor(start, number, descriptor);
            let source = source.map_err(|error| start.setup(SpawnStep::Pipes, error))?;
            mappings.push(Mapping { number, source });
        }
        Ok(mappings)
    }

    /// Returns the object for a descriptor of the child, or `None` if it is to be closed.
    fn open_descriptor(
        self: &Rc<Self>,
        start: &Start<'_>,
        number: i32,
        descriptor: &ChildDescriptor,
    ) -> io::Result<Option<OwnedFd>> {
        let ((ours, theirs), direction) = match descriptor {
            ChildDescriptor::Closed => return Ok(None),
            ChildDescriptor::Null => {
                let flags = OFlags::RDWR | OFlags::CLOEXEC;
                return Ok(Some(rustix::fs::open("/dev/null", flags, Mode::empty())?));
            }
            ChildDescriptor::Shared(shared) => return shared.try_clone().map(Some),
            ChildDescriptor::Number(own) => return exec::duplicate(*own).map(Some),
            ChildDescriptor::Read => (pipe::to_read()?, PipeDirection::Read),
            ChildDescriptor::Write => (pipe::to_write()?, PipeDirection::Write),
        };
        let transport = self.join_pipe(ours, &start.joint, number).map_err(system_error)?;
        start.joint.process().state().add_pipe(number, direction, transport);
        Ok(Some(theirs))
    }

    /// Watches for the end of a process, now or when the loop no longer waits. One that is not
    /// watched is killed.
    fn watch_exit(self: &Rc<Self>, start: &Start<'_>, descriptor: ProcessDescriptor) -> io::Result<()> {
        let (id, number) = (start.id, descriptor.as_raw_fd());
        let watched = self.backend_for_request().map(|mut backend| backend.watch(id, number, Interest::READ));
        if let Ok(Err(error)) = watched {
            descriptor.kill_and_wait()?;
            return Err(error);
        }
        let watch = Rc::new(ExitWatch::new(Rc::downgrade(self), id, descriptor, Rc::clone(&start.joint)));
        if let Some(slot) = self.slots.borrow_mut().get_mut(id) {
            *slot = Slot::Watched(Rc::clone(&watch) as Rc<dyn Watched>);
        }
        if let Err(LoopWaits) = watched {
            self.when_awake(move |core| {
                // The reactor may have left the process meanwhile.
                if core.exit_watch(id).is_some() {
                    let watched = core.backend.borrow_mut().watch(id, number, Interest::READ);
                    if let Err(error) = watched {
                        watch.lost(error);
                    }
                }
            });
        }
        Ok(())
    }

    fn exit_watch(&self, id: Id) -> Option<Rc<ExitWatch>> {
        let watched = match self.slots.borrow().get(id)? {
            Slot::Watched(watched) => Rc::clone(watched),
            _ => return None,
        };
        watched.into_any().downcast().ok()
    }
}

impl ProcessDriver for Core {
    fn signal(&self, id: Id, signal: Signal) -> Result<(), ProcessError> {
        if self.is_forked_child() {
            return Err(ProcessError::ForkedChild);
        }
        self.exit_watch(id).ok_or(ProcessError::ExitedAlready)?.signal(signal)
    }

    fn set_window_size(&self, terminal: BorrowedFd<'_>, size: WindowSize) -> io::Result<()> {
        terminal::resize(terminal, size)
    }

    fn call_later(&self, delay: Duration, call: Box<dyn FnOnce()>) -> DelayedCall {
        self.timers.call_later(delay, call)
    }
}

/// Returns the system's error of a pipe that was not taken over.
pub(super) fn system_error(error: ConnectError) -> io::Error {
    match error {
        ConnectError::Adopt(AdoptError::System(error)) => error,
        other => io::Error::other(other),
    }
}
