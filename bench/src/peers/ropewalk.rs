//! Ropewalk: a protocol that echoes, and one that answers requests.
//!
//! The engine itself reads the backend from `ROPEWALK_BACKEND`. A server that got another backend
//! prints that it is missing, because its figures would be in the wrong row.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;

use ropewalk::datagram::UdpOptions;
use ropewalk::interfaces::DatagramProtocol;
use ropewalk::protocol::BoxedFactory;
use ropewalk::tls::ServerTls;
use ropewalk::{Address, DatagramTransport, Failure, ListenOptions, Protocol, Reactor, Transport};

use super::{BACKLOG, Missing, Service, print_ready};
use crate::answers::{RequestDecoder, content};
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

/// Keeps the default of Nagle's algorithm, so that an answer that waits for an acknowledgement of
/// the peer becomes visible.
struct Answers {
    content: Rc<[u8]>,
    requests: RequestDecoder,
}

impl Protocol for Answers {
    fn data_received(&mut self, transport: &Transport, mut data: &[u8]) -> ropewalk::Result<()> {
        while let Some(request) = self.requests.next(&mut data).map_err(|error| Failure::message(error.to_string()))? {
            transport.write_sequence(request.pieces(&self.content));
        }
        Ok(())
    }
}

/// Echoes datagrams.
struct DatagramEcho;

impl DatagramProtocol for DatagramEcho {
    fn datagram_received(
        &mut self,
        transport: &DatagramTransport,
        data: &[u8],
        peer: &Address,
    ) -> ropewalk::Result<()> {
        Ok(transport.write(data, peer)?)
    }
}

pub(super) fn serve(address: SocketAddr, service: Service) -> Result<Infallible> {
    let reactor = reactor()?;
    if service.datagrams {
        let port = reactor.listen_udp(address, &UdpOptions::new().collect_writes(true), DatagramEcho)?;
        print_ready(port.host().socket_addr().ok_or("the port has no UDP address")?, reactor.backend().name())?;
        reactor.run()?;
        return Err("the event loop ended".into());
    }
    let mut factory = if service.answers {
        let content: Rc<[u8]> = content().into();
        let build = move |_| Some(Answers { content: Rc::clone(&content), requests: RequestDecoder::default() });
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
    print_ready(port.host().socket_addr().ok_or("the port has no TCP address")?, &detail)?;
    reactor.run()?;
    Err("the event loop ended".into())
}

/// Returns a reactor on the requested backend.
///
/// # Errors
/// Fails with [`Missing`] if the backend is not available.
pub fn reactor() -> Result<Reactor> {
    let reactor = Reactor::builder().signals(false).build()?;
    match std::env::var("ROPEWALK_BACKEND") {
        Ok(asked) if asked != reactor.backend().name() => {
            Err(Missing(format!("the backend {asked} is not available here")).into())
        }
        _ => Ok(reactor),
    }
}
