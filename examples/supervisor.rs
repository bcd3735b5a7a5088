//! Keeps a program running: starts it again when it ends, later after each failure in a row.
//!
//! ```sh
//! cargo run --example supervisor -- sh -c 'echo hello; sleep 2; exit 1'
//! ```
//!
//! Each line of the program's output is passed on, behind the number of its process. SIGTERM and
//! SIGINT are passed on as SIGTERM, and the supervisor ends when the program has. A program that
//! does not end within ten seconds is killed.

use std::cell::{Cell, RefCell};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use ropewalk::application::Backoff;
use ropewalk::deferred::Promise;
use ropewalk::interfaces::*;
use ropewalk::process::{Command, ProcessStatus, Signal};
use ropewalk::reactor::{Phase, SystemEvent};
use ropewalk::{Deferred, DelayedCall, ProcessTransport, Reactor, Result};

/// Time that the program has to end after SIGTERM.
const FAREWELL: Duration = Duration::from_secs(10);

/// A program that has run for so long has not failed in a row.
const SETTLED: Duration = Duration::from_secs(10);

/// Bytes of a line. A longer one is passed on in parts.
const LINE_BYTES: usize = 64 * 1024;

struct Supervisor {
    reactor: Reactor,
    command: Command,
    backoff: Backoff,
    failures: Cell<u32>,
    process: RefCell<Option<ProcessTransport>>,
    /// The next start, while there is no process.
    restart: RefCell<Option<DelayedCall>>,
    /// Set while the supervisor stops, and waits for the process.
    stopped: RefCell<Option<Promise<()>>>,
}

impl Supervisor {
    /// Starts the program, now or later. One that cannot be started is tried again, too.
    fn start(self: &Rc<Self>) {
        self.restart.take();
        let run = Run { supervisor: Rc::clone(self), since: self.reactor.seconds(), lines: Default::default() };
        match self.reactor.spawn_process(&self.command, run) {
            Ok(process) => drop(self.process.replace(Some(process))),
            Err(error) => self.start_later(&error.to_string()),
        }
    }

    fn start_later(self: &Rc<Self>, reason: &str) {
        self.failures.set(self.failures.get().saturating_add(1));
        let delay = self.backoff.delay(self.failures.get());
        eprintln!("supervisor: {reason}; next start in {} ms", delay.as_millis());
        let supervisor = Rc::clone(self);
        self.restart.replace(Some(self.reactor.call_later(delay, move || supervisor.start())));
    }

    fn ended(self: &Rc<Self>, since: Duration, status: ProcessStatus) {
        self.process.take();
        if let Some(stopped) = self.stopped.take() {
            eprintln!("supervisor: the program has {status}");
            // The shutdown waits for it.
            let _ = stopped.callback(());
        } else {
            if self.reactor.seconds().saturating_sub(since) >= SETTLED {
                self.failures.set(0);
            }
            self.start_later(&format!("the program has {status}"));
        }
    }

    /// Ends the program, and returns the Deferred of its end.
    fn stop(&self) -> Deferred<()> {
        if let Some(restart) = self.restart.take() {
            // It is due in this turn if it fails, and finds the reactor stopping.
            let _ = restart.cancel();
        }
        let Some(process) = self.process.borrow().clone() else { return Deferred::succeed(()) };
        let (promise, ended) = Promise::new();
        self.stopped.replace(Some(promise));
        if let Err(error) = process.signal(Signal::TERM) {
            eprintln!("supervisor: {error}");
        }
        self.reactor.call_later(FAREWELL, move || {
            if process.is_running() {
                eprintln!("supervisor: the program does not end, and is killed");
                let _ = process.kill();
            }
        });
        ended
    }
}

/// One run of the program.
struct Run {
    supervisor: Rc<Supervisor>,
    since: Duration,
    /// The beginnings of lines that have not ended: of the output, and of the standard error.
    lines: [Vec<u8>; 2],
}

impl Run {
    fn pass_on(process: &ProcessTransport, descriptor: i32, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        if descriptor == 2 { eprintln!("[{}] {text}", process.pid()) } else { println!("[{}] {text}", process.pid()) }
    }
}

impl ProcessProtocol for Run {
    fn connection_made(&mut self, process: &ProcessTransport) -> Result<()> {
        process.close_stdin();
        Ok(())
    }

    fn child_data_received(&mut self, process: &ProcessTransport, descriptor: i32, data: &[u8]) -> Result<()> {
        let line = &mut self.lines[usize::from(descriptor == 2)];
        for piece in data.split_inclusive(|&byte| byte == b'\n') {
            line.extend_from_slice(piece);
            if line.ends_with(b"\n") || line.len() >= LINE_BYTES {
                Self::pass_on(process, descriptor, line.trim_ascii_end());
                line.clear();
            }
        }
        Ok(())
    }

    fn process_ended(&mut self, process: &ProcessTransport, status: &ProcessStatus) -> Result<()> {
        for (descriptor, line) in [1, 2].into_iter().zip(&self.lines).filter(|(_, line)| !line.is_empty()) {
            Self::pass_on(process, descriptor, line);
        }
        self.supervisor.ended(self.since, *status);
        Ok(())
    }
}

fn supervise(reactor: &Reactor) -> Result<Deferred<()>> {
    let mut arguments = std::env::args_os().skip(1);
    let Some(program) = arguments.next() else {
        return Err(ropewalk::Failure::message("usage: supervisor PROGRAM [ARGUMENT..]"));
    };
    let mut command = Command::new(program);
    command.args(arguments);
    let supervisor = Rc::new(Supervisor {
        reactor: reactor.clone(),
        command,
        backoff: Backoff::new().initial_delay(Duration::from_millis(100)).jitter(Duration::from_millis(50)),
        failures: Cell::new(0),
        process: RefCell::default(),
        restart: RefCell::default(),
        stopped: RefCell::default(),
    });
    supervisor.start();
    reactor.add_system_event_trigger(Phase::Before, SystemEvent::Shutdown, move || supervisor.stop());
    Ok(reactor.when_stopped())
}

fn main() -> ExitCode {
    ropewalk::run(supervise)
}
