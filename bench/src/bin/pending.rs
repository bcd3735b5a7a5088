//! `pending BYTES`: a connection whose peer does not read, and that is written to, BYTES at a time.
//!
//! Each line of its input is how many bytes are to wait in the queue. It writes until there are so many, lets the loop turn, and prints
//! `pending QUEUED MEMORY`: what the transport says that it has queued, and how much more memory the process has than at first.

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

/// Where the transport is left when the connection is there.
type Place = Rc<RefCell<Option<Transport>>>;

struct Writer(Place);

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
    let place = Place::default();
    let factory = Rc::clone(&place);
    let port = reactor
        .listen_tcp("127.0.0.1:0".parse()?, &ListenOptions::new(), move |_| Some(Writer(Rc::clone(&factory))))?;
    let silent = TcpStream::connect(port.host().socket_addr().ok_or("the port is TCP's")?)?;
    turn_until(&reactor, || place.borrow().is_some())?;
    let transport = place.borrow().clone().ok_or("there is a connection")?;
    // What the socket itself takes is full from here on.
    fill(&reactor, &transport, &piece, 64 << 10)?;
    let (queued, memory) = (transport.queued_bytes() as u64, private_memory(std::process::id())?);
    for line in std::io::stdin().lock().lines() {
        fill(&reactor, &transport, &piece, line?.trim().parse()?)?;
        let more = private_memory(std::process::id())?.saturating_sub(memory) + queued;
        let mut output = std::io::stdout().lock();
        writeln!(output, "pending {} {more}", transport.queued_bytes())?;
        output.flush()?;
    }
    drop(silent);
    Ok(())
}

fn turn_until(reactor: &Reactor, done: impl Fn() -> bool) -> Result<()> {
    for _ in 0..1000 {
        reactor.iterate(Duration::from_millis(10))?;
        if done() {
            return Ok(());
        }
    }
    Err("the loop turns, and nothing happens".into())
}

/// Writes until at least so many bytes wait, although the loop turns.
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
