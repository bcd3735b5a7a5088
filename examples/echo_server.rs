//! An echo server in five components.
//!
//! 1. The **reactor** is the event loop. It waits for the sockets, and stops on Ctrl-C or SIGTERM.
//! 2. An **endpoint**, here made from a string, says where to listen: `tcp:8888`, or the first
//!    argument.
//! 3. The **factory** belongs to the port. It builds a protocol for each connection. Here it also
//!    holds the count of open connections.
//! 4. A **protocol** belongs to one connection, and handles its events.
//! 5. The **transport** is for writing to the connection, and for closing it.
//!
//! One more term is **Deferred**: a result that may take a while. `listen` returns one.
//!
//! Start the server, and then run `cargo run --example echo_client` or `nc localhost 8888`.

use std::cell::Cell;
use std::process::ExitCode;
use std::rc::Rc;

use ropewalk::endpoints::server_from_string;
use ropewalk::interfaces::*;
use ropewalk::{Address, Failure, Result, Transport};

#[derive(Default)]
struct EchoFactory {
    open: Rc<Cell<usize>>,
}

impl Factory for EchoFactory {
    type Protocol = Echo;

    fn build_protocol(&mut self, _peer: &Address) -> Option<Echo> {
        Some(Echo { open: Rc::clone(&self.open) })
    }
}

struct Echo {
    /// Number of open connections, shared by all protocols of the factory.
    open: Rc<Cell<usize>>,
}

impl Protocol for Echo {
    fn connection_made(&mut self, _transport: &Transport) -> Result<()> {
        self.open.set(self.open.get() + 1);
        println!("new connection, {} open", self.open.get());
        Ok(())
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        println!("data: {}", String::from_utf8_lossy(data).escape_debug());
        println!("host: {}, peer: {}", transport.host(), transport.peer());
        transport.write(data);
        // Closes after all written bytes are sent.
        transport.lose_connection();
        Ok(())
    }

    fn connection_lost(&mut self, _transport: &Transport, reason: &Failure) {
        self.open.set(self.open.get() - 1);
        println!("connection lost, {} open: {reason}", self.open.get());
    }
}

fn main() -> ExitCode {
    ropewalk::run(|reactor| {
        let description = std::env::args().nth(1).unwrap_or_else(|| "tcp:8888".to_owned());
        let stopped = reactor.when_stopped();
        let listening = server_from_string(reactor, &description)?.listen(EchoFactory::default());
        // Runs until Ctrl-C. If the server can't listen, this Deferred fails, and the program fails
        // with it.
        Ok(listening.add_callback(|port| {
            println!("listening on {}", port.host());
            stopped
        }))
    })
}
