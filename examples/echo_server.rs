//! An echo server in five components.
//!
//! 1. The **reactor** is the event loop. It waits for the sockets, and stops on Ctrl-C or SIGTERM.
//! 2. An **endpoint**, here made from a string, says where to listen: `tcp:8888`, or the first argument.
//! 3. The **factory** belongs to the port. For each connection it is asked to build a protocol; it counts them.
//! 4. A **protocol** belongs to one connection, and says what is done when something happens to it.
//! 5. The **transport** is what the protocol writes to, and closes.
//!
//! The fifth word to know is **Deferred**: `listen` answers with one, for an answer may take a while.
//!
//! Run it, and then `cargo run --example echo_client`, or `nc localhost 8888`.

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
    /// The connections that are open, counted for all protocols of the factory.
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
        // What was written is sent first.
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
        // Until Ctrl-C. If it can't listen, this fails, and so does the program.
        Ok(listening.add_callback(|port| {
            println!("listening on {}", port.host());
            stopped
        }))
    })
}
