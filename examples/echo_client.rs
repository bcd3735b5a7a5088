//! Ten clients of an echo server, each with a factory of its own.
//!
//! 1. The **reactor** is the event loop. The first answer stops it.
//! 2. An **endpoint**, here made from a string, says where to connect: `tcp:localhost:8888`, or the
//!    first argument.
//! 3. A **factory** builds the protocol for a connection once it is established. A closure is
//!    enough.
//! 4. The **protocol** sends a greeting when its connection is made, and prints the answer.
//! 5. The **transport** carries the greeting.
//!
//! `connect` returns a **Deferred**, and so does `greet`: it fires when the client has its answer.
//! `race` waits for the first of them, and fails if all of them fail. Then the exit status is 1,
//! and the failures are on standard error.

use std::process::ExitCode;

use ropewalk::deferred::{Promise, race};
use ropewalk::endpoints::client_from_string;
use ropewalk::interfaces::*;
use ropewalk::{Deferred, Failure, Reactor, Result, Transport, for_protocol};

const CLIENTS: usize = 10;

struct Greeter {
    number: usize,
    answered: Option<Promise<()>>,
}

impl Protocol for Greeter {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        transport.write(format!("hello, I am client {}", self.number).as_bytes());
        Ok(())
    }

    fn data_received(&mut self, _transport: &Transport, data: &[u8]) -> Result<()> {
        println!("client {} was answered: {}", self.number, String::from_utf8_lossy(data));
        if let Some(answered) = self.answered.take() {
            // Another client may have been first.
            let _ = answered.callback(());
        }
        Ok(())
    }

    fn connection_lost(&mut self, _transport: &Transport, reason: &Failure) {
        if let Some(answered) = self.answered.take() {
            let _ = answered.errback(reason.clone());
        }
    }
}

/// Starts a client. The Deferred fires when the client has its answer.
fn greet(reactor: &Reactor, description: &str, number: usize) -> Result<Deferred<()>> {
    let (promise, answered) = Promise::new();
    let mut promise = Some(promise);
    let factory = for_protocol(move |_| Greeter { number, answered: promise.take() });
    Ok(client_from_string(reactor, description)?.connect(factory).add_callback(|_connection| answered))
}

fn main() -> ExitCode {
    ropewalk::run(|reactor| {
        let description = std::env::args().nth(1).unwrap_or_else(|| "tcp:localhost:8888".to_owned());
        let clients = (1..=CLIENTS).map(|number| greet(reactor, &description, number)).collect::<Result<Vec<_>>>()?;
        Ok(race(clients).add_callback(|(_first, ())| ()))
    })
}
