//! A proxy: it connects each client of one endpoint to another endpoint, and reads each side no
//! faster than the other side takes the bytes.
//!
//! ```sh
//! cargo run --example proxy -- tcp:8000 tcp:localhost:8888
//! cargo run --example proxy -- unix:/run/user/1000/door tcp:example.com:80
//! ```
//!
//! An end of stream is passed on as an end of stream, so that requests which end with one get their
//! answer. If one connection breaks, the proxy aborts the other.

use std::cell::RefCell;
use std::env;
use std::process::ExitCode;
use std::rc::Rc;

use ropewalk::endpoints::{client_from_string, connect_protocol, server_from_string};
use ropewalk::error::ConnectionClosed;
use ropewalk::interfaces::*;
use ropewalk::transport::Streaming;
use ropewalk::{Deferred, Failure, Result, Transport, bail, for_protocol};

/// The transport of the other side, while it is connected.
type Other = Rc<RefCell<Option<Transport>>>;

/// One side of the proxy. Bytes received here are written to the other side.
struct Side {
    other: Other,
    /// The endpoint to connect to. Only the client's side has one.
    target: Option<Rc<dyn ClientEndpoint>>,
    connecting: Option<Deferred<()>>,
}

impl Side {
    fn other(&self, request: impl FnOnce(&Transport)) {
        if let Some(other) = &*self.other.borrow() {
            request(other);
        }
    }
}

impl Protocol for Side {
    fn half_close(&self) -> bool {
        true
    }

    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        let Some(target) = self.target.take() else { return Ok(()) };
        // Nothing is read until the other side can take it.
        transport.pause_producing();
        let back = Self { other: Rc::new(RefCell::new(Some(transport.clone()))), target: None, connecting: None };
        let (front, closing, place) = (transport.clone(), transport.clone(), Rc::clone(&self.other));
        let connecting = connect_protocol(&*target, back)
            .add_callback(move |connection| {
                let back = connection.transport().clone();
                front.register_producer(back.as_producer(), Streaming::Push)?;
                back.register_producer(front.as_producer(), Streaming::Push)?;
                place.replace(Some(back));
                front.resume_producing();
                Ok(())
            })
            .add_errback(move |failure| {
                if !closing.is_disconnected() {
                    eprintln!("{} gets no connection: {failure}", closing.peer());
                    closing.lose_connection();
                }
            });
        self.connecting = Some(connecting);
        Ok(())
    }

    fn data_received(&mut self, _transport: &Transport, data: &[u8]) -> Result<()> {
        self.other(|other| other.write(data));
        Ok(())
    }

    fn read_connection_lost(&mut self, _transport: &Transport) -> Result<()> {
        self.other(Transport::lose_write_connection);
        Ok(())
    }

    fn connection_lost(&mut self, _transport: &Transport, reason: &Failure) {
        if let Some(connecting) = self.connecting.take() {
            connecting.cancel();
        }
        let in_order = matches!(reason.check(), Some(ConnectionClosed::Done));
        self.other(|other| if in_order { other.lose_connection() } else { other.abort_connection() });
    }
}

fn main() -> ExitCode {
    ropewalk::run(|reactor| {
        let arguments: Vec<String> = env::args().skip(1).collect();
        let [from, to] = &*arguments else {
            bail!("usage: proxy SERVER-ENDPOINT CLIENT-ENDPOINT");
        };
        let target: Rc<dyn ClientEndpoint> = client_from_string(reactor, to)?.into();
        let factory =
            for_protocol(move |_| Side { other: Other::default(), target: Some(Rc::clone(&target)), connecting: None });
        let stopped = reactor.when_stopped();
        Ok(server_from_string(reactor, from)?.listen(factory).add_callback(|port| {
            println!("listening on {}", port.host());
            stopped
        }))
    })
}
