//! `pending BYTES`: writes BYTES at a time to a connection whose peer does not read.
//!
//! Each line of the input is the number of bytes that the queue is to hold. The program writes
//! until it holds them, turns the event loop, and prints `pending QUEUED MEMORY`: the bytes that
//! the transport reports as queued, and the growth of the memory of the process since the start.

use std::cell::RefCell;
use std::io::{BufRead, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use ropewalk::{ListenOptions, Protocol, Reactor, Transport};
use ropewalk_bench::Result;
use ropewalk_bench::peers::{Missing, ropewalk_reactor};
use ropewalk_bench::system::{Core, end_with_parent, pin, private_memory};

/// Slot for the transport, filled once the connection is made.
type TransportSlot = Rc<RefCell<Option<Transport>>>;

struct Writer(TransportSlot);

impl Protocol for Writer {
    fn connection_made(&mut self, transport: &Transport) -> ropewalk::Result<()> {
        *self.0.borrow_mut() = Some(transport.clone());
        Ok(())
    }

    fn data_received(&mut self, _: &Transport, _: &[u8]) -> ropewalk::Result<()> {
        Ok(())
    }
}

fn run() -> Result<()> {
    end_with_parent()?;
    pin(Core::Server)?;
    let piece = vec![7; std::env::args().nth(1).ok_or("usage: pending BYTES")?.parse()?];
    let reactor = ropewalk_reactor()?;
    let slot = TransportSlot::default();
    let factory = Rc::clone(&slot);
    let port = reactor
        .listen_tcp("127.0.0.1:0".parse()?, &ListenOptions::new(), move |_| Some(Writer(Rc::clone(&factory))))?;
    let peer_that_does_not_read = TcpStream::connect(port.host().socket_addr().ok_or("the port has no TCP address")?)?;
    turn_until(&reactor, || slot.borrow().is_some())?;
    let transport = slot.borrow().clone().ok_or("the connection was not made")?;
    // From here on, the buffers of the socket are full.
    fill(&reactor, &transport, &piece, 64 << 10)?;
    let (queued, memory) = (transport.queued_bytes() as u64, private_memory(std::process::id())?);
    for line in std::io::stdin().lock().lines() {
        fill(&reactor, &transport, &piece, line?.trim().parse()?)?;
        let more = private_memory(std::process::id())?.saturating_sub(memory) + queued;
        let mut output = std::io::stdout().lock();
        writeln!(output, "pending {} {more}", transport.queued_bytes())?;
        output.flush()?;
    }
    drop(peer_that_does_not_read);
    Ok(())
}

fn turn_until(reactor: &Reactor, done: impl Fn() -> bool) -> Result<()> {
    for _ in 0..1000 {
        reactor.iterate(Duration::from_millis(10))?;
        if done() {
            return Ok(());
        }
    }
    Err("the event loop turned 1,000 times without the expected result".into())
}

/// Writes until at least `bytes` bytes stay queued after a turn of the event loop.
fn fill(reactor: &Reactor, transport: &Transport, piece: &[u8], bytes: usize) -> Result<()> {
    turn_until(reactor, || {
        let full = transport.queued_bytes() >= bytes;
        while transport.queued_bytes() < bytes {
            transport.write(piece);
        }
        full
    })
}

fn main() -> ExitCode {
    let Err(error) = run() else { return ExitCode::SUCCESS };
    match error.downcast_ref::<Missing>() {
        Some(missing) => println!("missing {missing}"),
        None => eprintln!("{error}"),
    }
    ExitCode::FAILURE
}
