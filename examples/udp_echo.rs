//! An echo server over UDP, and a client that asks it three times.
//!
//! 1. `reactor.listen_udp` binds a port, and calls a **datagram protocol** for each datagram.
//! 2. The **datagram transport** sends: `write` to any address, and `write_to_peer` once the port
//!    is connected.
//! 3. Datagrams get lost, even on one host if a buffer is full. So the client asks again after a
//!    second without an answer.
//!
//! The client stops the program when it has three answers. With an address as the argument, such as
//! `127.0.0.1:8888`, the server runs alone until Ctrl-C.

use std::cell::Cell;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use ropewalk::datagram::UdpOptions;
use ropewalk::interfaces::*;
use ropewalk::{Address, DatagramTransport, Reactor, Result};

/// Questions that the client asks.
const QUESTIONS: usize = 3;

/// Time to wait for an answer before the question is sent again.
const PATIENCE: Duration = Duration::from_secs(1);

struct Echo;

impl DatagramProtocol for Echo {
    fn datagram_received(&mut self, transport: &DatagramTransport, data: &[u8], peer: &Address) -> Result<()> {
        println!("server: {} bytes from {peer}", data.len());
        transport.write(data, peer)?;
        Ok(())
    }
}

struct Client {
    reactor: Reactor,
    server: Address,
    /// Number of answers, shared with the timer.
    answers: Rc<Cell<usize>>,
}

/// Sends the present question, and again after each [`PATIENCE`] until the program ends.
fn ask(reactor: &Reactor, transport: &DatagramTransport, answers: &Rc<Cell<usize>>) {
    if let Err(error) = transport.write_to_peer(question(answers.get()).as_bytes()) {
        println!("client: {error}");
    }
    let (again, transport, answers) = (reactor.clone(), transport.clone(), Rc::clone(answers));
    reactor.call_later(PATIENCE, move || ask(&again, &transport, &answers));
}

fn question(answers: usize) -> String {
    format!("question {}", answers + 1)
}

impl DatagramProtocol for Client {
    fn start_protocol(&mut self, transport: &DatagramTransport) -> Result<()> {
        transport.connect(&self.server)?;
        ask(&self.reactor, transport, &self.answers);
        Ok(())
    }

    fn datagram_received(&mut self, transport: &DatagramTransport, data: &[u8], _peer: &Address) -> Result<()> {
        // A question that was asked twice has two answers.
        if data != question(self.answers.get()).as_bytes() {
            return Ok(());
        }
        println!("client: answer to {}", String::from_utf8_lossy(data));
        self.answers.set(self.answers.get() + 1);
        if self.answers.get() == QUESTIONS {
            return Ok(self.reactor.stop()?);
        }
        transport.write_to_peer(question(self.answers.get()).as_bytes())?;
        Ok(())
    }

    fn connection_refused(&mut self, _transport: &DatagramTransport) -> Result<()> {
        println!("client: there is no server");
        Ok(self.reactor.stop()?)
    }
}

fn main() -> ExitCode {
    ropewalk::run(|reactor| {
        let given: Option<SocketAddr> = std::env::args().nth(1).map(|text| text.parse()).transpose()?;
        let address = given.unwrap_or_else(|| ([127, 0, 0, 1], 0).into());
        let server = reactor.listen_udp(address, &UdpOptions::new(), Echo)?.host();
        println!("server: listening on {server}");
        if given.is_none() {
            let client = Client { reactor: reactor.clone(), server, answers: Rc::default() };
            reactor.listen_udp(address, &UdpOptions::new(), client)?;
        }
        Ok(reactor.when_stopped())
    })
}
