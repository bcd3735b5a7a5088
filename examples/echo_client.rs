//! Ten clients of an echo server, each with a factory of its own.
//!
//! 1. The **reactor** is the event loop; the first answer stops it.
//! 2. An **endpoint**, here made from a string, says where to connect: `tcp:localhost:8888`, or the first argument.
//! 3. A **factory** builds the protocol for a connection once there is one. A closure will do.
//! 4. The **protocol** greets when its connection is made, and prints the answer.
//! 5. The **transport** is what it writes to.
//!
//! `connect` answers with a **Deferred**: here only its failures matter, one line each. If nobody answers, the exit status
//! is 1.

use std::cell::Cell;
use std::process::ExitCode;
use std::rc::Rc;

use ropewalk::endpoints::client_from_string;
use ropewalk::interfaces::*;
use ropewalk::{Failure, Reactor, Result, Transport, for_protocol};

const CLIENTS: usize = 10;

struct Greeter {
    number: usize,
    reactor: Reactor,
    answered: Rc<Cell<bool>>,
}

impl Protocol for Greeter {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        transport.write(format!("hello, I am client {}", self.number).as_bytes());
        Ok(())
    }

    fn data_received(&mut self, _transport: &Transport, data: &[u8]) -> Result<()> {
        println!("client {} was answered: {}", self.number, String::from_utf8_lossy(data));
        if !self.answered.replace(true) {
            self.reactor.stop()?;
        }
        Ok(())
    }
}

fn main() -> Result<ExitCode> {
    let description = std::env::args().nth(1).unwrap_or_else(|| "tcp:localhost:8888".to_owned());
    let reactor = Reactor::new()?;
    let answered = Rc::new(Cell::new(false));
    let failures = Rc::new(Cell::new(0));

    for number in 1..=CLIENTS {
        let endpoint = client_from_string(&reactor, &description)?;
        let (handle, first) = (reactor.clone(), Rc::clone(&answered));
        let factory = for_protocol(move |_| Greeter { number, reactor: handle.clone(), answered: Rc::clone(&first) });

        let (handle, failures, answered) = (reactor.clone(), Rc::clone(&failures), Rc::clone(&answered));
        let connecting = endpoint.connect(factory).add_callbacks(
            |_connection| Ok(()),
            move |failure: Failure| {
                if answered.get() {
                    // The reactor stopped meanwhile.
                    return Ok(());
                }
                eprintln!("client {number} could not connect: {failure}");
                failures.set(failures.get() + 1);
                if failures.get() == CLIENTS { Ok(handle.stop()?) } else { Ok(()) }
            },
        );
        connecting.or_log("stopping");
    }

    reactor.run()?;
    Ok(if answered.get() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
