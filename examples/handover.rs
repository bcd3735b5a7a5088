//! An echo server that replaces itself with a new process, without losing a connection.
//!
//! ```sh
//! cargo run --example handover &        # or: handover tcp:7000
//! nc localhost 8888
//! kill -HUP PROCESS
//! ```
//!
//! On SIGHUP the server starts its executable anew, which may be another version by then. It gives
//! the new process one end of a socket pair as its standard input, and sends it the listening
//! socket over that. Both accept until the new process says that it is ready. Then the old one
//! stops listening, serves its last connections to their end, and leaves. If the new process fails,
//! the old one goes on.
//!
//! A service manager can make the socket as well: `handover systemd:domain=INET:index=0`.

use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode, id};
use std::rc::Rc;

use ropewalk::endpoints::server_from_string;
use ropewalk::interfaces::*;
use ropewalk::reactor::{AdoptOptions, SIGHUP};
use ropewalk::{Connections, Deferred, Failure, Port, Reactor, Result, Transport};

/// The argument of a process that takes over.
const TAKE_OVER: &str = "--take-over";

struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        transport.write(data);
        Ok(())
    }
}

/// The parts of the server that its callbacks share.
#[derive(Clone)]
struct Server {
    reactor: Reactor,
    /// The open connections.
    connections: Connections<Echo>,
    port: Rc<RefCell<Option<Port>>>,
}

impl Server {
    fn new(reactor: &Reactor) -> Self {
        Self { reactor: reactor.clone(), connections: Connections::new(), port: Rc::default() }
    }

    fn listens(&self, port: Port) {
        println!("process {} listens on {}", id(), port.host());
        self.port.replace(Some(port));
    }

    /// Starts the new process, and sends it the port.
    fn replace(&self) -> Result<()> {
        // A second SIGHUP finds no port.
        let Some(port) = self.port.take() else { return Ok(()) };
        if let Err(failure) = self.hand_over(&port) {
            self.port.replace(Some(port));
            return Err(failure);
        }
        Ok(())
    }

    fn hand_over(&self, port: &Port) -> Result<()> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut replacement = Command::new(std::env::current_exe()?);
        // The variables of a service manager name this process, and the new one ignores them.
        replacement.arg(TAKE_OVER).stdin(OwnedFd::from(theirs)).spawn()?;
        let mut control = Some(OldSide { server: self.clone(), port: port.clone(), is_ready: false });
        let adopted = self.reactor.adopt_stream_connection(ours, &AdoptOptions::new(), move |_| control.take())?;
        adopted.or_log("a handover");
        Ok(())
    }

    /// Stops listening, and the reactor when the last connection is over.
    fn retire(&self, port: &Port) {
        // A UNIX socket's file is the new process's from here on.
        if let Err(error) = port.leave_socket_file() {
            eprintln!("the socket's file goes with this process: {error}");
        }
        let (connections, reactor) = (self.connections.clone(), self.reactor.clone());
        let stopped = port.stop_listening().add_callback(move |()| connections.when_empty());
        let ended = stopped.add_callback(move |()| {
            println!("process {} is done", id());
            Ok(reactor.stop()?)
        });
        ended.or_log("retiring");
    }
}

/// The old process's end of the socket pair.
struct OldSide {
    server: Server,
    port: Port,
    is_ready: bool,
}

impl Protocol for OldSide {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        transport.send_file_descriptor(self.port.duplicate()?, b"p")?;
        Ok(())
    }

    fn data_received(&mut self, transport: &Transport, _data: &[u8]) -> Result<()> {
        self.is_ready = true;
        transport.lose_connection();
        self.server.retire(&self.port);
        Ok(())
    }

    fn connection_lost(&mut self, _transport: &Transport, reason: &Failure) {
        if !self.is_ready {
            eprintln!("the new process did not take over, process {} goes on: {reason}", id());
            self.server.port.replace(Some(self.port.clone()));
        }
    }
}

/// The new process's end.
struct NewSide {
    server: Server,
}

impl Protocol for NewSide {
    fn data_received(&mut self, _transport: &Transport, _data: &[u8]) -> Result<()> {
        Ok(())
    }

    fn file_descriptor_received(&mut self, transport: &Transport, descriptor: OwnedFd) -> Result<()> {
        let factory = self.server.connections.track(|_| Echo);
        let options = AdoptOptions::new().remove_file(true);
        let port = self.server.reactor.adopt_stream_port(descriptor, &options, factory)?;
        self.server.listens(port);
        transport.write(b"ready");
        Ok(())
    }

    fn connection_lost(&mut self, _transport: &Transport, reason: &Failure) {
        if self.server.port.borrow().is_none() {
            eprintln!("no port came: {reason}");
            // It runs: this is one of its callbacks.
            let _ = self.server.reactor.stop();
        }
    }
}

fn serve(reactor: &Reactor) -> Result<Deferred<()>> {
    let server = Server::new(reactor);
    let hung_up = server.clone();
    let subscription = reactor.on_signal(SIGHUP, move || {
        if let Err(failure) = hung_up.replace() {
            eprintln!("cannot hand over: {failure}");
        }
    })?;
    let stopped = reactor.when_stopped().add_callback(move |()| {
        drop(subscription);
        Ok(())
    });
    let description = std::env::args().nth(1).unwrap_or_else(|| "tcp:8888".to_owned());
    if description == TAKE_OVER {
        let mut side = Some(NewSide { server });
        let input = std::io::stdin().as_fd().try_clone_to_owned()?;
        let adopted = reactor.adopt_stream_connection(input, &AdoptOptions::new(), move |_| side.take())?;
        return Ok(adopted.add_callback(move |_| stopped));
    }
    let listening = server_from_string(reactor, &description)?.listen(server.connections.track(|_| Echo));
    Ok(listening.add_callback(move |port| {
        server.listens(port);
        stopped
    }))
}

fn main() -> ExitCode {
    ropewalk::run(serve)
}
