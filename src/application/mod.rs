//! Services: parts of a program that are started and stopped together (Twisted:
//! `twisted.application.service`, `twisted.application.internet`).
//!
//! | to | use | Twisted's name |
//! |---|---|---|
//! | start and stop several services as one | [`MultiService`] | `MultiService` |
//! | listen while a service runs, and drain its connections at the end | [`StreamServerEndpointService`] | the same |
//! | keep one connection to a server | [`ClientService`], [`Backoff`] | `ClientService`, `backoffPolicy` |
//! | call a function at intervals | [`TimerService`] | `TimerService` |
//! | show the reactor to other programs, on a UNIX socket | [`StatusService`] | |
//! | run a program of services until a signal | [`run_service`] | `twistd`, `startApplication` |
//! | hand ports over to the process that replaces this one | [`hand_over_ports`], [`take_over_ports`] | |
//! | write a service of your own | [`Service`] | `IService` |
//!
//! A service is a cheap handle, and its clones are the same service. Everything here runs on the
//! thread of the clock or reactor that it was made with. No service reads a clock or opens a socket
//! itself, so all of them run on the virtual clock and the simulated network of the test kit.
//!
//! Rules:
//! 1. A service that runs is not started a second time: `start_service` then changes nothing.
//! 2. `stop_service` is fine in every state. Its Deferred fires when the service is at rest.
//! 3. A service may be started again, also while it stops.
//! 4. A failure reaches one place: the Deferred of the call that caused it. Failures without a
//!    caller go to the log.
//! 5. Nothing of a service is borrowed while code of the program runs. A callback may start, stop
//!    and change any service.

mod backoff;
mod client;
mod handover;
mod multi;
mod program;
mod server;
mod status;
mod timer;

use std::rc::Rc;

pub use self::backoff::Backoff;
pub use self::client::{ClientService, ClientServiceBuilder, ClientState};
pub use self::handover::{HandoverError, TakenPorts, hand_over_ports, take_over_ports};
pub use self::multi::{MultiService, NameTaken, NoSuchService, ServiceId};
pub use self::program::run_service;
pub use self::server::StreamServerEndpointService;
pub use self::status::StatusService;
pub use self::timer::TimerService;
use crate::deferred::{Deferred, DeferredList, Listed, Promise};
use crate::failure::Result;

/// A part of a program that is started and stopped (Twisted: `IService`).
///
/// ```
/// use std::cell::Cell;
/// use ropewalk::application::{MultiService, Service};
/// use ropewalk::Deferred;
///
/// /// A service that is ready as soon as it is started.
/// #[derive(Default)]
/// struct Greeter {
///     is_open: Cell<bool>,
/// }
///
/// impl Service for Greeter {
///     fn start_service(&self) -> Deferred<()> {
///         self.is_open.set(true);
///         Deferred::succeed(())
///     }
///
///     fn stop_service(&self) -> Deferred<()> {
///         self.is_open.set(false);
///         Deferred::succeed(())
///     }
/// }
///
/// let program = MultiService::new();
/// program.add_service(Greeter::default());
/// program.start_service().or_log("starting");
/// program.stop_service().or_log("stopping");
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a service",
    note = "write `impl Service for ..` with `start_service` and `stop_service`"
)]
pub trait Service: 'static {
    /// Does the part of the start that needs privileges, such as listening on port 80 (Twisted:
    /// `privilegedStartService`). It is called before `start_service`, and may be left out. The
    /// default does nothing.
    ///
    /// # Errors
    /// The Deferred fails if the service cannot start.
    fn privileged_start_service(&self) -> Deferred<()> {
        Deferred::succeed(())
    }

    /// Starts the service (Twisted: `startService`). The Deferred fires when the service has
    /// started. Twisted's method returns nothing, and its services log a failure.
    ///
    /// # Errors
    /// The Deferred fails if the service cannot start.
    fn start_service(&self) -> Deferred<()>;

    /// Stops the service (Twisted: `stopService`). The Deferred fires when everything that belongs
    /// to it has ended.
    ///
    /// # Errors
    /// The Deferred fails if the end was not an orderly one. The service is stopped nevertheless.
    fn stop_service(&self) -> Deferred<()>;
}

/// Implements the trait for pointers to services.
macro_rules! for_pointers {
    ($($pointer:ty),+) => {$(
        impl<S: Service + ?Sized> Service for $pointer {
            fn privileged_start_service(&self) -> Deferred<()> {
                (**self).privileged_start_service()
            }

            fn start_service(&self) -> Deferred<()> {
                (**self).start_service()
            }

            fn stop_service(&self) -> Deferred<()> {
                (**self).stop_service()
            }
        }
    )+};
}
for_pointers!(Rc<S>, Box<S>);

/// Waits for all of `deferreds`. The result is the first failure in their order. Further failures
/// are reported as unhandled, so that each reaches one place.
#[track_caller]
fn wait_for_all(deferreds: Vec<Deferred<()>>) -> Deferred<()> {
    DeferredList::new(deferreds).into_deferred().add_callback(|listed| {
        let Listed::All(results) = listed else { return Ok(()) };
        let mut failures = results.into_iter().filter_map(Result::err);
        let first = failures.next();
        for failure in failures {
            drop(Deferred::<()>::fail(failure));
        }
        first.map_or(Ok(()), Err)
    })
}

/// Fires the promises of callers that waited for the end of a stop. The first caller gets the
/// result, and the others only learn that it is over.
fn fire_stopped(waiters: Vec<Promise<()>>, result: Result<()>) {
    let mut result = Some(result);
    for waiter in waiters.into_iter().filter(|waiter| !waiter.is_called()) {
        let _ = waiter.complete(result.take().unwrap_or(Ok(())));
    }
    if let Some(Err(failure)) = result {
        drop(Deferred::<()>::fail(failure));
    }
}
