//! A program of services (Twisted: `startApplication`, `twistd`).

use std::rc::Rc;

use super::Service;
use crate::deferred::{Deferred, maybe_deferred};
use crate::log::error;
use crate::reactor::{Phase, Reactor, SystemEvent};

/// Starts `service`, and stops it when the reactor is told to stop: by SIGTERM, by SIGINT or by
/// [`Reactor::stop`] (Twisted: `startApplication`). It is the body of a program under
/// [`ropewalk::run`](crate::run), which gives the exit code.
///
/// 1. `privileged_start_service` is called, then `start_service`. If one of them fails, the
///    Deferred fails, and the program ends with that failure. The services that have started are
///    stopped.
/// 2. A service manager is told that the program is ready: `READY=1` of systemd, for a unit with
///    `Type=notify`. The Deferred fires when the reactor is told to stop.
/// 3. A service manager is told that the program stops: `STOPPING=1`. `stop_service` is called
///    before the reactor closes ports and connections. The reactor waits for its Deferred, so that
///    a [draining](super::StreamServerEndpointService::drain) service lets its connections end. A
///    failure of the stop is logged.
/// 4. A second signal ends the program at once. So does the
///    [time limit](crate::reactor::Builder::shutdown_timeout) of the shutdown: one minute, unless
///    the reactor was built with another.
///
/// ```no_run
/// use std::process::ExitCode;
/// use std::time::Duration;
/// use ropewalk::application::{MultiService, StreamServerEndpointService, run_service};
/// use ropewalk::endpoints::server_from_string;
/// use ropewalk::interfaces::*;
/// use ropewalk::{Result, Transport, for_protocol};
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
///         let echo = StreamServerEndpointService::new(server_from_string(reactor, "tcp:8888")?, for_protocol(|_| Echo))
///             .drain(reactor, Duration::from_secs(10));
///         let program = MultiService::new();
///         program.add_named_service("echo", echo)?;
///         Ok(run_service(reactor, program))
///     })
/// }
/// ```
#[track_caller]
pub fn run_service(reactor: &Reactor, service: impl Service) -> Deferred<()> {
    let service = Rc::new(service);
    let stopped = reactor.when_stopped();
    let (to_stop, stopping) = (Rc::clone(&service), reactor.clone());
    reactor.add_system_event_trigger(Phase::Before, SystemEvent::Shutdown, move || {
        notify(&stopping, "STOPPING=1");
        to_stop.stop_service()
    });
    let ready = reactor.clone();
    let privileged = maybe_deferred(|| service.privileged_start_service());
    privileged.add_callback(move |()| service.start_service()).add_callback(move |()| {
        notify(&ready, "READY=1");
        stopped
    })
}

/// Tells the service manager, if there is one. A program that it does not hear runs nevertheless.
fn notify(reactor: &Reactor, state: &str) {
    if let Err(error) = reactor.notify_service_manager(state) {
        error!("the service manager was not told {state}: {error}");
    }
}
