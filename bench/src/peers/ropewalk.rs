//! Ropewalk: a protocol that writes what it is given.
//!
//! The backend is the one that `ROPEWALK_BACKEND` names, which the engine itself reads; a server that got another one says that it is
//! missing, for its figures would stand in the wrong row.

use std::convert::Infallible;
use std::net::SocketAddr;

use ropewalk::{Address, ListenOptions, Protocol, Reactor, Transport};

use super::{BACKLOG, Missing, ready};
use crate::Result;

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

pub(super) fn serve(address: SocketAddr) -> Result<Infallible> {
    let reactor = reactor()?;
    let options = ListenOptions::new().backlog(BACKLOG);
    let port = reactor.listen_tcp(address, &options, |_: &Address| Some(Echo))?;
    ready(port.host().socket_addr().ok_or("the port is TCP's")?, reactor.backend().name())?;
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
