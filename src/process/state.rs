//! [`ProcessState`]: one child process, without I/O.
//!
//! | life | the process | signals | next |
//! |---|---|---|---|
//! | `Starting` | does not exist yet | refused | `Running` |
//! | `Running` | runs | sent | `Exited` |
//! | `Exited` | has exited, or was left | refused | `Ended`, once no pipe is open |
//! | `Ended` | as before; the last callback was made | refused | |
//!
//! A pipe is open from the start until its transport is told of its end.

use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::command::WindowSize;
use super::driver::ProcessDriver;
use super::signal::Signal;
use super::status::ProcessStatus;
use crate::error::ProcessError;
use crate::time::DelayedCall;
use crate::transport::Transport;
use crate::transport::id::Id;

/// See the module.
pub(crate) struct ProcessState {
    driver: Weak<dyn ProcessDriver>,
    id: Id,
    pid: Cell<u32>,
    life: Cell<Life>,
    /// The open pipes, by the child's descriptors.
    pipes: RefCell<Vec<ChildPipe>>,
    pipe_grace: Option<Duration>,
    /// Closes the pipes when that time is over.
    grace_timer: Cell<Option<DelayedCall>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Starting,
    Running,
    Exited(ProcessStatus),
    Ended(ProcessStatus),
}

/// The direction of a pipe, as the program sees it.
#[derive(Debug)]
pub(crate) enum PipeDirection {
    Read,
    Write,
    /// A terminal, in the place of the three standard streams, with a descriptor to set its size.
    Terminal(OwnedFd),
}

/// An open pipe.
struct ChildPipe {
    descriptor: i32,
    direction: PipeDirection,
    transport: Transport,
}

impl ChildPipe {
    /// Returns `true` if this is the pipe of a descriptor of the child.
    fn is_at(&self, descriptor: i32) -> bool {
        match self.direction {
            PipeDirection::Terminal(_) => (0..=2).contains(&descriptor),
            PipeDirection::Read | PipeDirection::Write => self.descriptor == descriptor,
        }
    }
}

impl ProcessState {
    pub(crate) fn new(driver: Weak<dyn ProcessDriver>, id: Id, pipe_grace: Option<Duration>) -> Self {
        Self {
            driver,
            id,
            pid: Cell::new(0),
            life: Cell::new(Life::Starting),
            pipes: RefCell::default(),
            pipe_grace,
            grace_timer: Cell::default(),
        }
    }

    pub(crate) fn add_pipe(&self, descriptor: i32, direction: PipeDirection, transport: Transport) {
        self.pipes.borrow_mut().push(ChildPipe { descriptor, direction, transport });
    }

    /// Returns the transports of all open pipes.
    pub(crate) fn transports(&self) -> Vec<Transport> {
        self.pipes.borrow().iter().map(|pipe| pipe.transport.clone()).collect()
    }

    /// The process runs.
    pub(crate) fn started(&self, pid: u32) {
        self.pid.set(pid);
        self.life.set(Life::Running);
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid.get()
    }

    /// Returns `true` until the exit was noticed.
    pub(super) fn is_running(&self) -> bool {
        self.life.get() == Life::Running
    }

    pub(super) fn status(&self) -> Option<ProcessStatus> {
        match self.life.get() {
            Life::Starting | Life::Running => None,
            Life::Exited(status) | Life::Ended(status) => Some(status),
        }
    }

    /// Records the exit. Returns `false` if it was recorded before.
    pub(super) fn exited(&self, status: ProcessStatus) -> bool {
        let is_first = self.is_running();
        if is_first {
            self.life.set(Life::Exited(status));
        }
        is_first
    }

    /// Forgets a pipe that is closed. Returns `false` if it was closed before, and while the
    /// process does not exist.
    pub(super) fn pipe_lost(&self, descriptor: i32) -> bool {
        let mut pipes = self.pipes.borrow_mut();
        let count = pipes.len();
        pipes.retain(|pipe| pipe.descriptor != descriptor);
        count != pipes.len() && self.life.get() != Life::Starting
    }

    /// Returns the status, once, if nothing is to come any more.
    pub(super) fn take_end(&self) -> Option<ProcessStatus> {
        match self.life.get() {
            Life::Exited(status) if self.pipes.borrow().is_empty() => {
                self.life.set(Life::Ended(status));
                if let Some(timer) = self.grace_timer.take() {
                    // It may be the one that has closed the pipes.
                    let _ = timer.cancel();
                }
                Some(status)
            }
            _ => None,
        }
    }

    /// Returns `true` once the last callback is due or was made.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.life.get(), Life::Ended(_))
    }

    pub(super) fn set_grace_timer(&self, timer: DelayedCall) {
        self.grace_timer.set(Some(timer));
    }

    pub(super) fn pipe_grace(&self) -> Option<Duration> {
        self.pipe_grace
    }

    pub(super) fn driver(&self) -> Result<Rc<dyn ProcessDriver>, ProcessError> {
        self.driver.upgrade().ok_or(ProcessError::ReactorStopped)
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<(), ProcessError> {
        match self.status() {
            Some(ProcessStatus::LeftRunning) => Err(ProcessError::ReactorStopped),
            Some(_) => Err(ProcessError::ExitedAlready),
            None => self.driver()?.signal(self.id, signal),
        }
    }

    /// Returns `true` if a terminal is open in the place of pipes.
    pub(super) fn has_terminal(&self) -> bool {
        self.pipes.borrow().iter().any(|pipe| matches!(pipe.direction, PipeDirection::Terminal(_)))
    }

    pub(super) fn set_window_size(&self, size: WindowSize) -> Result<(), ProcessError> {
        let driver = self.driver()?;
        let pipes = self.pipes.borrow();
        let terminal = pipes.iter().find_map(|pipe| match &pipe.direction {
            PipeDirection::Terminal(terminal) => Some(terminal),
            PipeDirection::Read | PipeDirection::Write => None,
        });
        let terminal = terminal.ok_or(ProcessError::NoTerminal)?;
        driver.set_window_size(terminal.as_fd(), size).map_err(ProcessError::WindowSize)
    }

    pub(super) fn transport(&self, descriptor: i32) -> Option<Transport> {
        let pipes = self.pipes.borrow();
        pipes.iter().find(|pipe| pipe.is_at(descriptor)).map(|pipe| pipe.transport.clone())
    }

    /// Returns the transport of a pipe that can be written to.
    pub(super) fn writable(&self, descriptor: i32) -> Result<Transport, ProcessError> {
        let pipes = self.pipes.borrow();
        match pipes.iter().find(|pipe| pipe.is_at(descriptor)) {
            None => Err(ProcessError::NoPipe { descriptor }),
            Some(pipe) if matches!(pipe.direction, PipeDirection::Read) => {
                Err(ProcessError::NotWritable { descriptor })
            }
            Some(pipe) if pipe.transport.is_disconnecting() => Err(ProcessError::NoPipe { descriptor }),
            Some(pipe) => Ok(pipe.transport.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::os::fd::BorrowedFd;

    use super::*;
    use crate::time::{Clock, Timers};

    /// Records the signals that it is to send.
    #[derive(Default)]
    struct Signals(RefCell<Vec<i32>>);

    impl ProcessDriver for Signals {
        fn signal(&self, _id: Id, signal: Signal) -> Result<(), ProcessError> {
            self.0.borrow_mut().push(signal.number());
            Ok(())
        }

        fn set_window_size(&self, _terminal: BorrowedFd<'_>, _size: WindowSize) -> io::Result<()> {
            Ok(())
        }

        fn call_later(&self, delay: Duration, call: Box<dyn FnOnce()>) -> DelayedCall {
            Timers::new(|| Duration::ZERO).call_later(delay, call)
        }
    }

    fn starting() -> (Rc<Signals>, ProcessState) {
        let driver = Rc::<Signals>::default();
        let weak: Weak<Signals> = Rc::downgrade(&driver);
        (driver, ProcessState::new(weak, Id { slot: 0, generation: 0 }, None))
    }

    /// Each step of the table: the life, the status, and the answer to a signal.
    #[test]
    fn a_life_has_one_exit_and_one_end() {
        let (driver, state) = starting();
        assert!(!state.is_running() && state.status().is_none() && state.take_end().is_none());
        assert!(!state.exited(ProcessStatus::Exited(0)), "a process that does not exist has no exit");
        state.started(7);
        assert!(state.is_running() && state.pid() == 7 && state.take_end().is_none());
        assert!(state.signal(Signal::TERM).is_ok());
        assert!(state.exited(ProcessStatus::Exited(3)));
        assert!(!state.exited(ProcessStatus::Exited(4)), "the first status stays");
        assert!(!state.is_running());
        assert!(matches!(state.signal(Signal::TERM), Err(ProcessError::ExitedAlready)));
        assert_eq!(state.take_end(), Some(ProcessStatus::Exited(3)));
        assert_eq!(state.take_end(), None, "the end is told once");
        assert_eq!(state.status(), Some(ProcessStatus::Exited(3)));
        assert!(matches!(state.signal(Signal::KILL), Err(ProcessError::ExitedAlready)));
        assert_eq!(*driver.0.borrow(), [15]);
    }

    /// A process that was left, and one whose reactor is gone, are out of reach.
    #[test]
    fn a_process_without_its_reactor_is_out_of_reach() {
        let (driver, state) = starting();
        state.started(7);
        assert!(state.exited(ProcessStatus::LeftRunning));
        assert!(matches!(state.signal(Signal::TERM), Err(ProcessError::ReactorStopped)));
        assert_eq!(state.take_end(), Some(ProcessStatus::LeftRunning));
        let (gone, state) = starting();
        state.started(7);
        drop(gone);
        assert!(matches!(state.signal(Signal::TERM), Err(ProcessError::ReactorStopped)));
        let size = WindowSize::new(24, 80);
        assert!(matches!(state.set_window_size(size), Err(ProcessError::ReactorStopped)));
        assert!(driver.0.borrow().is_empty());
    }

    /// Requests for pipes and a terminal that are not there.
    #[test]
    fn a_process_without_pipes_refuses_bytes() {
        let (_driver, state) = starting();
        state.started(7);
        assert!(matches!(state.writable(0), Err(ProcessError::NoPipe { descriptor: 0 })));
        assert!(state.transport(1).is_none() && state.transports().is_empty() && !state.has_terminal());
        assert!(!state.pipe_lost(1), "there was no such pipe");
        assert!(matches!(state.set_window_size(WindowSize::new(24, 80)), Err(ProcessError::NoTerminal)));
    }
}
