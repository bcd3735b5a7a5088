//! A server and ten clients in one process, on one reactor and a port that the system chooses.
//!
//! 1. The **reactor** is the event loop. All code below runs on it, one callback at a time.
//! 2. An **endpoint** says where to listen or to connect. The server's is made from a string, the
//!    clients' from the number of the server's port.
//! 3. A **factory** builds a protocol for each connection. Here the factories are closures.
//! 4. A **protocol** handles the events of one connection. `Echo` answers. `Greeter` sends a
//!    greeting, and counts the answers.
//! 5. A **transport** carries the bytes. It closes once all written bytes are sent.
//!
//! `listen` and `connect` return a **Deferred**. The program exits when all ten clients have an
//! answer.

use std::cell::Cell;
use std::process::ExitCode;
use std::rc::Rc;

use ropewalk::endpoints::{HostnameEndpoint, server_from_string};
use ropewalk::interfaces::*;
use ropewalk::{Port, Reactor, Result, Transport, for_protocol};

const CLIENTS: usize = 10;

struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        transport.write(data);
        transport.lose_connection();
        Ok(())
    }
}

struct Greeter {
    number: usize,
    reactor: Reactor,
    answers: Rc<Cell<usize>>,
}

impl Protocol for Greeter {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        transport.write(format!("hello, I am client {}", self.number).as_bytes());
        Ok(())
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        println!("{} answers: {}", transport.peer(), String::from_utf8_lossy(data));
        self.answers.set(self.answers.get() + 1);
        if self.answers.get() == CLIENTS {
            self.reactor.stop()?;
        }
        Ok(())
    }
}

fn connect_all(reactor: &Reactor, port: &Port) -> Result<()> {
    let host = port.host();
    println!("listening on {host}");
    let number = host.port().ok_or("a TCP port has a number")?;
    let answers = Rc::new(Cell::new(0));
    for number_of_client in 1..=CLIENTS {
        let (reactor, answers) = (reactor.clone(), Rc::clone(&answers));
        let endpoint = HostnameEndpoint::new(&reactor, "localhost", number);
        let factory = for_protocol(move |_| Greeter {
            number: number_of_client,
            reactor: reactor.clone(),
            answers: Rc::clone(&answers),
        });
        endpoint.connect(factory).or_log("connecting");
    }
    Ok(())
}

/// Starts the server, and the clients once it listens.
pub(crate) fn start(reactor: &Reactor) -> Result<()> {
    let handle = reactor.clone();
    server_from_string(reactor, "tcp:0:interface=127.0.0.1")?
        .listen(for_protocol(|_| Echo))
        .add_callback(move |port| connect_all(&handle, &port))
        .or_log("listening");
    Ok(())
}

fn main() -> ExitCode {
    ropewalk::run(|reactor| {
        start(reactor)?;
        Ok(reactor.when_stopped())
    })
}
