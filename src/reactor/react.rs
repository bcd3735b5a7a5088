//! [`run`]: a whole program on a reactor of its own (Twisted: `task.react`).

use std::cell::Cell;
use std::process::ExitCode;
use std::rc::Rc;

use super::{Phase, Reactor, SystemEvent};
use crate::deferred::{Deferred, Outcome, Promise, maybe_deferred};
use crate::failure::{Failure, Result, guarded};

/// Makes a reactor, calls `main` on it, and runs the loop until the result of `main` is done
/// (Twisted: `task.react`). For `fn main`: this returns its exit code.
///
/// | end of the program | exit code |
/// |---|---|
/// | `main` succeeded, or [`stop`](Reactor::stop) was called first | 0 |
/// | `main` failed or panicked; the reactor could not be made, or its poller failed | 1, and the failure is on standard error |
/// | SIGINT or SIGTERM stopped the reactor | 128 plus the number of the signal, as in a shell |
///
/// `main` returns a Deferred, a `Result`, a `Result` with a Deferred (so that `?` works on the way
/// to it), or nothing. [`spawn`](Reactor::spawn) turns a future into a Deferred. A server is done
/// when it is told to stop: it returns [`Reactor::when_stopped`]. Afterwards the reactor is
/// [closed](Reactor::close).
///
/// ```no_run
/// use std::process::ExitCode;
/// use ropewalk::endpoints::server_from_string;
/// use ropewalk::interfaces::*;
/// use ropewalk::{Result, Transport};
///
/// struct Echo;
///
/// impl Protocol for Echo {
///     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
///         transport.write(data);
///         Ok(())
///     }
/// }
///
/// fn main() -> ExitCode {
///     ropewalk::run(|reactor| {
///         let stopped = reactor.when_stopped();
///         let listening = server_from_string(reactor, "tcp:8888")?.listen(|_| Some(Echo));
///         Ok(listening.add_callback(|_port| stopped))
///     })
/// }
/// ```
pub fn run<R>(main: impl FnOnce(&Reactor) -> R + 'static) -> ExitCode
where
    R: Outcome + 'static,
    R::Output: Finish,
{
    match Reactor::new().map_err(Failure::from).and_then(|reactor| run_on(&reactor, main)) {
        Ok(code) => code,
        Err(failure) => {
            // The same output as a `main` that returns an error, without a backtrace. Standard
            // error may be closed.
            let _ = guarded(|| eprintln!("Error: {failure}"));
            ExitCode::FAILURE
        }
    }
}

fn run_on<R>(reactor: &Reactor, main: impl FnOnce(&Reactor) -> R + 'static) -> Result<ExitCode>
where
    R: Outcome + 'static,
    R::Output: Finish,
{
    let result = Rc::new(Cell::new(Ok(())));
    let (place, handle) = (Rc::clone(&result), reactor.clone());
    reactor.call_when_running(move || {
        let done = maybe_deferred(|| main(&handle)).add_callback(Finish::finished);
        let finished = done.add_both(move |done| {
            place.set(done);
            // The reactor may be stopping already, and the stop may have ended `main`.
            let _ = handle.stop();
        });
        drop(finished);
    });
    let ran = reactor.run();
    let signal = reactor.exit_signal();
    let closed = reactor.close();
    ran?;
    closed?;
    result.replace(Ok(()))?;
    Ok(signal.and_then(|signal| u8::try_from(128 + signal).ok()).map_or(ExitCode::SUCCESS, ExitCode::from))
}

/// The result of a program that [`run`] runs: nothing, or a Deferred of nothing.
#[diagnostic::on_unimplemented(
    message = "a program can't end with `{Self}`",
    label = "expected `()` or a `Deferred<()>`",
    note = "throw the value away: `deferred.add_callback(|_value| ())`",
    note = "a server runs until it is told to stop: `let stopped = reactor.when_stopped(); deferred.add_callback(|_port| stopped)`"
)]
pub trait Finish: Sized + 'static {
    /// Returns a Deferred that fires when the program is done.
    fn finished(self) -> Deferred<()>;
}

impl Finish for () {
    fn finished(self) -> Deferred<()> {
        Deferred::succeed(())
    }
}

impl Finish for Deferred<()> {
    fn finished(self) -> Deferred<()> {
        self
    }
}

impl Reactor {
    /// Returns a Deferred that fires when the reactor is told to stop, before its ports and
    /// connections are closed: in the `Before` phase of [`SystemEvent::Shutdown`]. For programs
    /// that serve until then: see [`run`].
    ///
    /// It fails with [`Abandoned`](crate::deferred::Abandoned) if the reactor closes without having
    /// been stopped.
    ///
    /// ```
    /// # fn main() -> ropewalk::Result<()> {
    /// let reactor = ropewalk::Reactor::new()?;
    /// let stopped = reactor.when_stopped();
    /// let handle = reactor.clone();
    /// reactor.call_when_running(move || handle.stop().expect("the reactor runs"));
    /// reactor.run()?;
    /// assert!(stopped.is_called());
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn when_stopped(&self) -> Deferred<()> {
        let (promise, stopped) = Promise::new();
        self.add_system_event_trigger(Phase::Before, SystemEvent::Shutdown, move || {
            // The Deferred may have been cancelled meanwhile.
            let _ = promise.callback(());
        });
        stopped
    }
}
