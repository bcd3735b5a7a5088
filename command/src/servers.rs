//! A server of one factory on one or more endpoints. It stops at SIGTERM or SIGINT, when its
//! connections have ended or their time is over.

use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use ropewalk::application::{MultiService, Service, StatusService, StreamServerEndpointService, run_service};
use ropewalk::endpoints::server_from_string;
use ropewalk::{Deferred, Factory, Failure, Protocol, Reactor, for_protocol};

use crate::live;
use crate::options::{ServerOptions, ServingOptions};
use crate::program::{self, CommandError};
use crate::protocols::Served;

/// Time beyond the drain that a shutdown may take.
const SHUTDOWN_MARGIN: Duration = Duration::from_secs(5);

/// Runs a server whose connections have the protocols that `build` makes.
pub(crate) fn run<P: Served>(options: &ServerOptions, build: fn() -> P) -> Result<ExitCode, CommandError> {
    serve(&options.serving, &options.descriptions, |_reactor| Ok(for_protocol(move |_| build())))
}

/// Runs a server with a factory for each description.
pub(crate) fn serve<F>(
    options: &ServingOptions,
    descriptions: &[String],
    factory: impl Fn(&Reactor) -> Result<F, CommandError>,
) -> Result<ExitCode, CommandError>
where
    F: Factory,
    F::Protocol: Served,
{
    let shutdown = options.drain.saturating_add(SHUTDOWN_MARGIN);
    let is_live = live::is_shown();
    let reactor = Reactor::builder().observe(is_live).shutdown_timeout(Some(shutdown)).build()?;
    let program = MultiService::new();
    for description in descriptions {
        let endpoint = server_from_string(&reactor, description)?;
        let server = StreamServerEndpointService::new(endpoint, factory(&reactor)?);
        let server = server.drain_with(&reactor, options.drain, |connection| {
            let told = connection.later(Served::finish);
            told.or_log("ending a connection");
        });
        program.add_service(Announced(Rc::new(server)));
    }
    if let Some(path) = &options.status {
        program.add_service(StatusService::at_path(&reactor, path).map_err(Failure::new)?);
    }
    if is_live {
        // The last one to start: its line comes below the addresses.
        program.add_service(live::service(&reactor));
    }
    let on = reactor.clone();
    let result = program::run(&reactor, move || run_service(&on, program));
    if is_live {
        live::end();
    }
    // A signal is the way to stop a server.
    result.map(|_signal| ExitCode::SUCCESS)
}

/// A server that writes its address to standard error when it listens.
struct Announced<P: Protocol>(Rc<StreamServerEndpointService<P>>);

impl<P: Protocol> Service for Announced<P> {
    fn start_service(&self) -> Deferred<()> {
        let server = Rc::clone(&self.0);
        self.0.start_service().add_callback(move |()| {
            if let Some(host) = server.host() {
                eprintln!("listening on {host}");
            }
        })
    }

    fn stop_service(&self) -> Deferred<()> {
        self.0.stop_service()
    }
}
