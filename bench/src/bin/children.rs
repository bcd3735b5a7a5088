//! `children ENGINE`: starts child processes by one engine. The engines are `ropewalk` (on the
//! backend that `ROPEWALK_BACKEND` names), `tokio` and `posix_spawn`, which is the standard
//! library's `Command` without an event loop.
//!
//! | line of input | effect | line of output |
//! |---|---|---|
//! | | the engine is ready | `ready`, or `missing REASON` |
//! | `hold MIB` | allocates memory, and writes to it | `held` |
//! | `run NUMBER` | starts `/bin/true` and waits for its end, one after the other | `done` |
//!
//! The children have the standard streams of this program, and no pipes. So a start and an end are
//! all that is measured.

use std::cell::Cell;
use std::io::{BufRead, Write};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use ropewalk::process::{ChildDescriptor, Command, ProcessStatus};
use ropewalk::{ProcessProtocol, ProcessTransport, Reactor};
use ropewalk_bench::Result;
use ropewalk_bench::peers::{Missing, ropewalk_reactor};
use ropewalk_bench::system::end_with_parent;
use tokio::runtime::{Builder, Runtime};

/// A program that does nothing.
const PROGRAM: &str = "/bin/true";

/// The longest wait for the end of a child.
const PATIENCE: Duration = Duration::from_secs(10);

/// The least page of a system.
const PAGE_BYTES: usize = 4096;

enum Engine {
    Ropewalk(Reactor),
    Tokio(Runtime),
    PosixSpawn,
}

impl Engine {
    fn new(name: &str) -> Result<Self> {
        match name {
            "ropewalk" => Ok(Self::Ropewalk(ropewalk_reactor()?)),
            "tokio" => Ok(Self::Tokio(Builder::new_current_thread().enable_all().build()?)),
            "posix_spawn" => Ok(Self::PosixSpawn),
            _ => Err(format!("unknown engine {name}").into()),
        }
    }

    fn run(&self, number: usize) -> Result<()> {
        match self {
            Self::Ropewalk(reactor) => (0..number).try_for_each(|_| run_on_ropewalk(reactor)),
            Self::Tokio(runtime) => runtime.block_on(async {
                for _ in 0..number {
                    check(tokio::process::Command::new(PROGRAM).spawn()?.wait().await?.success())?;
                }
                Ok(())
            }),
            Self::PosixSpawn => {
                (0..number).try_for_each(|_| check(std::process::Command::new(PROGRAM).status()?.success()))
            }
        }
    }
}

fn check(is_success: bool) -> Result<()> {
    if is_success { Ok(()) } else { Err(format!("{PROGRAM} has failed").into()) }
}

/// Records the end of a child.
struct Ended(Rc<Cell<Option<ProcessStatus>>>);

impl ProcessProtocol for Ended {
    fn process_ended(&mut self, _process: &ProcessTransport, status: &ProcessStatus) -> ropewalk::Result<()> {
        self.0.set(Some(*status));
        Ok(())
    }
}

fn run_on_ropewalk(reactor: &Reactor) -> Result<()> {
    let mut command = Command::new(PROGRAM);
    for number in 0..3 {
        command.descriptor(number, ChildDescriptor::Number(number));
    }
    let ended = Rc::<Cell<Option<ProcessStatus>>>::default();
    reactor.spawn_process(&command, Ended(Rc::clone(&ended)))?;
    loop {
        if let Some(status) = ended.get() {
            return check(status.is_success());
        }
        reactor.iterate(PATIENCE)?;
    }
}

fn say(line: &str) -> Result<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{line}")?;
    Ok(output.flush()?)
}

fn run() -> Result<()> {
    end_with_parent()?;
    let engine = Engine::new(&std::env::args().nth(1).ok_or("usage: children ENGINE")?)?;
    // The first child loads what is loaded once.
    engine.run(1)?;
    say("ready")?;
    let mut held = Vec::new();
    for line in std::io::stdin().lock().lines() {
        match line?.split_once(' ') {
            Some(("hold", mebibytes)) => {
                held.resize(mebibytes.parse::<usize>()? << 20, 0_u8);
                held.iter_mut().step_by(PAGE_BYTES).for_each(|byte| *byte = 1);
                say("held")?;
            }
            Some(("run", number)) => {
                engine.run(number.parse()?)?;
                say("done")?;
            }
            _ => return Err("unknown line".into()),
        }
    }
    drop(std::hint::black_box(held));
    Ok(())
}

fn main() -> ExitCode {
    let Err(error) = run() else { return ExitCode::SUCCESS };
    match error.downcast_ref::<Missing>() {
        Some(missing) => println!("missing {missing}"),
        None => eprintln!("{error}"),
    }
    ExitCode::FAILURE
}
