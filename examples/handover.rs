//! An echo server that replaces itself with a new process, without losing a connection.
//!
//! ```sh
//! cargo run --example handover &        # or: handover tcp:7000
//! nc localhost 8888
//! kill -HUP PROCESS
//! ```
//!
//! On SIGHUP the server starts its executable anew, which may be another version by then. It gives
//! the new process one end of a socket pair as its standard input, and hands the listening socket
//! over on that. Both accept until the new process has started its service. Then the old one stops
//! its own: the port closes, and the last connections have ten seconds to end. If the new process
//! fails, the old one goes on.
//!
//! A service manager can make the socket as well: `handover systemd:domain=INET:index=0`.

use std::cell::Cell;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode, id};
use std::rc::Rc;
use std::time::Duration;

use ropewalk::application::{
    Service, StreamServerEndpointService, TakenPorts, hand_over_ports, run_service, take_over_ports,
};
use ropewalk::endpoints::{AdoptedStreamServerEndpoint, server_from_string};
use ropewalk::interfaces::*;
use ropewalk::reactor::{AdoptOptions, Phase, SIGHUP, SystemEvent};
use ropewalk::{Deferred, Reactor, Result, Transport, for_protocol};

/// The argument of a process that takes over.
const TAKE_OVER: &str = "--take-over";

/// The time that the last connections of an old process have.
const FAREWELL: Duration = Duration::from_secs(10);

struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        transport.write(data);
        Ok(())
    }
}

/// The server: its one service, and a handover at a time.
#[derive(Clone)]
struct Server {
    reactor: Reactor,
    echo: StreamServerEndpointService<Echo>,
    is_handing_over: Rc<Cell<bool>>,
}

impl Server {
    fn new(reactor: &Reactor, endpoint: impl ServerEndpoint + 'static) -> Self {
        // Its peers end their connections themselves.
        let echo = StreamServerEndpointService::new(endpoint, for_protocol(|_| Echo));
        let echo = echo.drain_with(reactor, FAREWELL, |_connection| ());
        Self { reactor: reactor.clone(), echo, is_handing_over: Rc::default() }
    }

    /// Runs the service, and replaces this process at each SIGHUP.
    fn run(&self, service: impl Service) -> Result<Deferred<()>> {
        let server = self.clone();
        let subscription = self.reactor.on_signal(SIGHUP, move || {
            if let Err(failure) = server.replace() {
                eprintln!("cannot hand over: {failure}");
            }
        })?;
        let stopped = run_service(&self.reactor, service).add_callback(move |()| drop(subscription));
        if let Some(host) = self.echo.host() {
            println!("process {} listens on {host}", id());
        }
        Ok(stopped)
    }

    /// Starts the new process, and hands the port over. Stops this one once the new one is ready.
    fn replace(&self) -> Result<()> {
        let Some(port) = self.echo.port().filter(|_| !self.is_handing_over.get()) else { return Ok(()) };
        let (ours, theirs) = UnixStream::pair()?;
        let mut replacement = Command::new(std::env::current_exe()?);
        // The variables of a service manager name this process, and the new one ignores them.
        replacement.arg(TAKE_OVER).stdin(OwnedFd::from(theirs)).spawn()?;
        self.is_handing_over.set(true);
        let server = self.clone();
        let handed = hand_over_ports(&self.reactor, ours, [("echo", port)]).add_both(move |result| {
            server.is_handing_over.set(false);
            if let Err(failure) = result {
                eprintln!("the new process did not take over, process {} goes on: {failure}", id());
                return Ok(());
            }
            let done = || println!("process {} is done", id());
            server.reactor.add_system_event_trigger(Phase::After, SystemEvent::Shutdown, done);
            Ok(server.reactor.stop()?)
        });
        handed.or_log("a handover");
        Ok(())
    }
}

/// Serves at the port that the old process has handed over.
fn serve_taken(reactor: &Reactor, mut ports: TakenPorts) -> Deferred<()> {
    let Some(socket) = ports.take("echo") else { return Deferred::fail("the old process has no such port") };
    let endpoint = AdoptedStreamServerEndpoint::new(reactor, socket).options(AdoptOptions::new().remove_file(true));
    let server = Server::new(reactor, endpoint);
    server.run(ports.ready_after(server.echo.clone())).unwrap_or_else(Deferred::fail)
}

fn serve(reactor: &Reactor) -> Result<Deferred<()>> {
    let description = std::env::args().nth(1).unwrap_or_else(|| "tcp:8888".to_owned());
    if description == TAKE_OVER {
        let (input, reactor) = (std::io::stdin().as_fd().try_clone_to_owned()?, reactor.clone());
        let taking = take_over_ports(&reactor, input);
        return Ok(taking.add_callback(move |ports| serve_taken(&reactor, ports)));
    }
    let server = Server::new(reactor, server_from_string(reactor, &description)?);
    server.run(server.echo.clone())
}

fn main() -> ExitCode {
    ropewalk::run(serve)
}
