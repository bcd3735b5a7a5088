//! Echo servers, one in each file. Each sends received bytes back until the process ends.
//!
//! They differ only in the engine. Each listens with the same backlog, turns Nagle's algorithm off
//! on every connection, and sends received bytes with the send function of the engine. If that
//! function may take only a part, the rest is kept, and the connection is not read until the rest
//! is sent. An engine that queues by itself does so.
//!
//! Some have a second server, which answers requests ([`crate::answers`]), and offer both over TLS.

mod calloop;
mod epoll;
mod mio;
mod mio_inline;
mod monoio;
mod ropewalk;
mod tokio;

use std::convert::Infallible;
use std::fmt;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with};

use crate::Result;

pub use self::ropewalk::reactor as ropewalk_reactor;

/// Number of connections that may wait to be accepted.
const BACKLOG: u32 = 4096;

/// Size of a shared read buffer in bytes.
const CHUNK_BYTES: usize = 64 << 10;

/// Size of a connection's own buffer in bytes, for peers that have one for each connection.
const CONNECTION_BUFFER_BYTES: usize = 16 << 10;

/// Task of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Service {
    /// Answers requests, instead of echoing.
    pub answers: bool,
    /// Uses TLS, with a certificate of its own.
    pub tls: bool,
    /// Echoes datagrams of UDP, and has no connections.
    pub datagrams: bool,
}

impl Service {
    /// A plain echo, which every peer offers.
    pub const ECHO: Self = Self { answers: false, tls: false, datagrams: false };

    /// An echo of datagrams.
    pub const DATAGRAMS: Self = Self { datagrams: true, ..Self::ECHO };

    /// Returns the options of `serve` that select this service.
    pub fn flags(self) -> impl Iterator<Item = &'static str> {
        let answers = self.answers.then_some("--answers");
        answers.into_iter().chain(self.tls.then_some("--tls")).chain(self.datagrams.then_some("--datagrams"))
    }
}

/// Error of a peer that is not available on this machine. It is not a failure.
#[derive(Debug)]
pub struct Missing(pub String);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Missing {}

/// Runs the server with this name. Returns only with an error.
///
/// # Errors
/// Fails if the peer is unknown, [`Missing`] or without the service, or if its event loop fails.
pub fn serve(peer: &str, address: SocketAddr, service: Service) -> Result<Infallible> {
    match peer {
        "ropewalk" => ropewalk::serve(address, service),
        "tokio" => tokio::serve(address, service),
        _ if service != Service::ECHO => Err(format!("{peer} offers only a plain echo").into()),
        "epoll-inline" => epoll::serve(address),
        "mio" => mio::serve(address),
        "mio-inline" => mio_inline::serve(address),
        "calloop" => calloop::serve(address),
        "monoio" => monoio::serve(address),
        _ => Err(format!("unknown peer {peer}").into()),
    }
}

/// Reports the port to the parent process.
fn print_ready(address: SocketAddr, detail: &str) -> Result<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "ready {} {detail}", address.port())?;
    Ok(output.flush()?)
}

/// Returns a non-blocking listening socket, for engines that take one.
fn listener(address: SocketAddr) -> Result<TcpListener> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(
        if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 },
        SocketType::STREAM,
        flags,
        None,
    )?;
    rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &address)?;
    listen(&socket, BACKLOG as i32)?;
    Ok(TcpListener::from(socket))
}
