//! Ropewalk: a protocol that writes what it is given, and one that answers requests.
//!
//! The backend is the one that `ROPEWALK_BACKEND` names, which the engine itself reads; a server that got another one says that it is
//! missing, for its figures would stand in the wrong row.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;

use ropewalk::protocol::BoxedFactory;
use ropewalk::tls::ServerTls;
use ropewalk::{Failure, ListenOptions, Protocol, Reactor, Transport};

use super::{BACKLOG, Missing, Service, ready};
use crate::answers::{Requests, content};
use crate::{Result, tls};

struct Echo;

impl Protocol for Echo {
    fn connection_made(&mut self, transport: &Transport) -> ropewalk::Result<()> {
        Ok(transport.set_tcp_no_delay(true)?)
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> ropewalk::Result<()> {
        transport.write(data);
        Ok(())
    }
}

/// Leaves Nagle's algorithm as it is by default: an answer that waits for the peer's acknowledgement is to be seen.
struct Answers {
    content: Rc<[u8]>,
    requests: Requests,
}

impl Protocol for Answers {
    fn data_received(&mut self, transport: &Transport, mut data: &[u8]) -> ropewalk::Result<()> {
        while let Some(request) = self.requests.next(&mut data).map_err(|error| Failure::message(error.to_string()))? {
            transport.write_sequence(request.pieces(&self.content));
        }
        Ok(())
    }
}

pub(super) fn serve(address: SocketAddr, service: Service) -> Result<Infallible> {
    let reactor = reactor()?;
    let mut factory = if service.answers {
        let content: Rc<[u8]> = content().into();
        let build = move |_| Some(Answers { content: Rc::clone(&content), requests: Requests::default() });
        BoxedFactory::new(build)
    } else {
        BoxedFactory::new(|_| Some(Echo))
    };
    let mut detail = reactor.backend().name().to_owned();
    if service.tls {
        let (config, certificate) = tls::server()?;
        let tls = ServerTls::from(config);
        factory = factory.prepared(move |transport| Ok(transport.start_tls(&tls)?));
        detail = tls::to_text(&certificate);
    }
    let port = reactor.listen_tcp_boxed(address, &ListenOptions::new().backlog(BACKLOG), factory)?;
    ready(port.host().socket_addr().ok_or("the port is TCP's")?, &detail)?;
    reactor.run()?;
    Err("the loop ended".into())
}

/// A reactor on the backend that is asked for.
///
/// # Errors
/// [`Missing`] if it can't be had.
pub fn reactor() -> Result<Reactor> {
    let reactor = Reactor::builder().signals(false).build()?;
    match std::env::var("ROPEWALK_BACKEND") {
        Ok(asked) if asked != reactor.backend().name() => {
            Err(Missing(format!("the backend {asked} can't be had here")).into())
        }
        _ => Ok(reactor),
    }
}
