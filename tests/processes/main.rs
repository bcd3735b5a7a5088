//! Child processes, on each backend of the system. Each test starts programs, and so runs in a
//! process of its own.

#[path = "../common/mod.rs"]
mod common;

mod callbacks;
mod callers;
mod descriptors;
mod ends;
mod failures;
mod output;
mod starting;
mod surroundings;
mod systems;
mod terminals;

use std::cell::RefCell;
use std::rc::Rc;

use common::*;
use ropewalk::process::{Command, ProcessStatus};
use ropewalk::{BackendKind, ProcessProtocol, ProcessTransport, Reactor, Result};

#[global_allocator]
static ALLOCATOR: common::allocator::Counting = common::allocator::Counting;

/// Runs a test on each backend that the system has.
fn on_each(mut test: impl FnMut(Reactor)) {
    for kind in [BackendKind::Mio, BackendKind::IoUring] {
        match reactor_on(kind) {
            Some(reactor) => test(reactor),
            None => println!("skipped on {kind:?}: {NO_BACKEND}"),
        }
    }
}

type Call = Box<dyn FnMut(&ProcessTransport) -> Result<()>>;

/// A process protocol that logs its callbacks, keeps the output, and calls closures in some.
struct Recorder {
    log: Log,
    output: Rc<RefCell<Vec<u8>>>,
    errors: Rc<RefCell<Vec<u8>>>,
    status: Rc<RefCell<Option<ProcessStatus>>>,
    made: Call,
    received: Call,
    exited: Call,
    is_ended: bool,
}

/// The parts of a [`Recorder`] that a test keeps.
#[derive(Clone, Default)]
struct Seen {
    log: Log,
    output: Rc<RefCell<Vec<u8>>>,
    errors: Rc<RefCell<Vec<u8>>>,
    status: Rc<RefCell<Option<ProcessStatus>>>,
}

impl Seen {
    fn recorder(&self) -> Recorder {
        Recorder {
            log: self.log.clone(),
            output: Rc::clone(&self.output),
            errors: Rc::clone(&self.errors),
            status: Rc::clone(&self.status),
            made: Box::new(|_| Ok(())),
            received: Box::new(|_| Ok(())),
            exited: Box::new(|_| Ok(())),
            is_ended: false,
        }
    }

    fn text(&self) -> String {
        String::from_utf8(self.output.borrow().clone()).expect("text")
    }

    fn error_text(&self) -> String {
        String::from_utf8(self.errors.borrow().clone()).expect("text")
    }

    fn is_ended(&self) -> bool {
        self.log.has("ended")
    }

    /// The status that `process_ended` was given.
    #[track_caller]
    fn status(&self) -> ProcessStatus {
        self.status.borrow().expect("the process has ended")
    }
}

impl Recorder {
    fn made(mut self, call: impl FnMut(&ProcessTransport) -> Result<()> + 'static) -> Self {
        self.made = Box::new(call);
        self
    }

    fn received(mut self, call: impl FnMut(&ProcessTransport) -> Result<()> + 'static) -> Self {
        self.received = Box::new(call);
        self
    }

    fn exited(mut self, call: impl FnMut(&ProcessTransport) -> Result<()> + 'static) -> Self {
        self.exited = Box::new(call);
        self
    }
}

impl ProcessProtocol for Recorder {
    fn connection_made(&mut self, process: &ProcessTransport) -> Result<()> {
        assert!(process.pid() > 0 && process.is_running());
        self.log.add("made");
        (self.made)(process)
    }

    fn child_data_received(&mut self, process: &ProcessTransport, descriptor: i32, data: &[u8]) -> Result<()> {
        assert!(!self.is_ended && !data.is_empty());
        let place = if descriptor == 2 { &self.errors } else { &self.output };
        place.borrow_mut().extend_from_slice(data);
        (self.received)(process)
    }

    fn child_connection_lost(&mut self, process: &ProcessTransport, descriptor: i32) -> Result<()> {
        assert!(!self.is_ended && process.child(descriptor).is_none());
        self.log.add(format!("lost {descriptor}"));
        Ok(())
    }

    fn process_exited(&mut self, process: &ProcessTransport, status: &ProcessStatus) -> Result<()> {
        assert!(!self.is_ended && !process.is_running());
        assert_eq!(process.status(), Some(*status));
        self.log.add(format!("exited: {status}"));
        (self.exited)(process)
    }

    fn process_ended(&mut self, _: &ProcessTransport, status: &ProcessStatus) -> Result<()> {
        assert!(!self.is_ended);
        self.is_ended = true;
        self.status.replace(Some(*status));
        self.log.add(format!("ended: {status}"));
        Ok(())
    }
}

/// A shell that runs this script.
fn shell(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]);
    command
}

/// Runs a command to its end, with its standard input closed at once.
#[track_caller]
fn run_to_end(reactor: &Reactor, command: &Command) -> Seen {
    let seen = Seen::default();
    let recorder = seen.recorder().made(|process| {
        process.close_stdin();
        Ok(())
    });
    reactor.spawn_process(command, recorder).expect("it starts");
    run_until(reactor, || seen.is_ended());
    seen
}

/// Returns the children of this process that have ended and were not waited for, and those that
/// run.
fn children() -> (usize, usize) {
    let listed = std::fs::read_to_string("/proc/thread-self/children").expect("the list of children");
    let stat = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let states = listed.split_whitespace().map(|pid| stat(pid).rsplit(") ").next().unwrap_or("").starts_with('Z'));
    states.fold((0, 0), |(dead, alive), is_dead| if is_dead { (dead + 1, alive) } else { (dead, alive + 1) })
}
