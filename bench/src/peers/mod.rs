//! Echo servers, one a file: what comes is sent back, until the process ends.
//!
//! They differ in nothing but the engine: each listens with the same backlog, turns Nagle's algorithm off at every connection, and sends
//! what it has received with the call that the engine has for that. Where that call may take less than all of it, the rest is kept, and the
//! connection is not read until it has gone; an engine that queues by itself is left to do so.
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

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 4096;

/// How much is read at once, where the program says so.
const CHUNK: usize = 64 << 10;

/// What a peer that has a buffer for every connection gives each.
const OWN_CHUNK: usize = 16 << 10;

/// A server's task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Service {
    /// Answers requests, instead of sending back what comes.
    pub answers: bool,
    /// Speaks TLS, with a certificate of its own.
    pub tls: bool,
}

impl Service {
    /// A plain echo, which every peer offers.
    pub const ECHO: Self = Self { answers: false, tls: false };

    /// The options of `serve` that ask for it.
    pub fn flags(self) -> impl Iterator<Item = &'static str> {
        let answers = self.answers.then_some("--answers");
        answers.into_iter().chain(self.tls.then_some("--tls"))
    }
}

/// A peer can't be had here, which is nobody's fault.
#[derive(Debug)]
pub struct Missing(pub String);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Missing {}

/// Runs the server of this name, and never returns without an error.
///
/// # Errors
/// There is no such peer, it does not offer the service, it is [`Missing`], or its loop failed.
pub fn serve(peer: &str, address: SocketAddr, service: Service) -> Result<Infallible> {
    match peer {
        "ropewalk" => ropewalk::serve(address, service),
        "tokio" => tokio::serve(address, service),
        _ if service != Service::ECHO => Err(format!("{peer} offers a plain echo alone").into()),
        "epoll-inline" => epoll::serve(address),
        "mio" => mio::serve(address),
        "mio-inline" => mio_inline::serve(address),
        "calloop" => calloop::serve(address),
        "monoio" => monoio::serve(address),
        _ => Err(format!("no peer is called {peer}").into()),
    }
}

/// Tells whoever started this process where it listens.
fn ready(address: SocketAddr, detail: &str) -> Result<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "ready {} {detail}", address.port())?;
    Ok(output.flush()?)
}

/// A listening socket that does not block, for engines that take one.
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
