//! A reactor for one command, and the end of the process.

use std::cell::Cell;
use std::io::{self, ErrorKind, Write as _};
use std::process::ExitCode;
use std::rc::Rc;

use ropewalk::deferred::{Outcome, maybe_deferred};
use ropewalk::endpoints::DescriptionError;
use ropewalk::error::ReactorError;
use ropewalk::reactor::Finish;
use ropewalk::{Failure, Reactor};

use crate::describe::pointer;

/// The reason why a command did not succeed.
#[derive(Debug)]
pub(crate) enum CommandError {
    /// A description with an error: wrong usage, with exit code 2.
    Description(DescriptionError),
    /// Any other failure, with exit code 1.
    Failed(Failure),
}

impl CommandError {
    /// Writes the error to standard error, and returns the exit code.
    pub(crate) fn report(self) -> ExitCode {
        match self {
            Self::Description(error) => {
                eprintln!("{}", pointer::show(&error));
                ExitCode::from(2)
            }
            Self::Failed(failure) => {
                eprintln!("ropewalk: {failure}");
                ExitCode::FAILURE
            }
        }
    }
}

impl From<DescriptionError> for CommandError {
    fn from(error: DescriptionError) -> Self {
        Self::Description(error)
    }
}

impl From<Failure> for CommandError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<ReactorError> for CommandError {
    fn from(error: ReactorError) -> Self {
        Self::Failed(error.into())
    }
}

/// Runs `reactor` until the Deferred of `main` has a result, or until a signal. Returns the signal
/// that ended it, if one did: the result of `main` is of no interest then.
///
/// # Errors
/// The failure of `main`, of the reactor, or of its end.
pub(crate) fn run<R>(reactor: &Reactor, main: impl FnOnce() -> R + 'static) -> Result<Option<i32>, CommandError>
where
    R: Outcome + 'static,
    R::Output: Finish,
{
    let result = Rc::new(Cell::new(Ok(())));
    let (place, stopping) = (Rc::clone(&result), reactor.clone());
    reactor.call_when_running(move || {
        let done = maybe_deferred(main).add_callback(Finish::finished).add_both(move |done| {
            place.set(done);
            // A signal may have stopped it, and that ended `main`.
            let _ = stopping.stop();
        });
        drop(done);
    });
    let ran = reactor.run();
    let signal = reactor.exit_signal();
    let closed = reactor.close();
    ran?;
    closed?;
    if signal.is_none() {
        result.replace(Ok(()))?;
    }
    Ok(signal)
}

/// Writes a text to standard output. A reader that has enough is no failure.
///
/// # Errors
/// Any other failure to write.
pub(crate) fn print(text: &str) -> Result<(), CommandError> {
    let mut output = io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::new(error).context("standard output").into())
        }
        _ => Ok(()),
    }
}

/// Returns the exit code of a command that a signal may have ended, as shells have it.
pub(crate) fn code_of(signal: Option<i32>) -> ExitCode {
    signal.and_then(|signal| u8::try_from(128 + signal).ok()).map_or(ExitCode::SUCCESS, ExitCode::from)
}
