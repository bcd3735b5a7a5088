//! Datagram ports over real sockets, on each backend of the system.

#[path = "../common/mod.rs"]
mod common;

mod batches;
mod callbacks;
mod connected;
mod floods;
mod multicast;
mod offload;
mod options;
mod peers;
mod sending;
mod simulated;
mod unix;

use std::cell::RefCell;
use std::net::{SocketAddr, UdpSocket};
use std::rc::Rc;

use common::*;
use ropewalk::datagram::UdpOptions;
use ropewalk::interfaces::*;
use ropewalk::{Address, BackendKind, DatagramTransport, Reactor, Result};

#[global_allocator]
static ALLOCATOR: common::allocator::Counting = common::allocator::Counting;

/// The local addresses of both families, with port 0.
const LOCAL: [&str; 2] = ["127.0.0.1:0", "[::1]:0"];

/// Runs a test on each backend that the system has.
fn on_each(mut test: impl FnMut(Reactor)) {
    for kind in [BackendKind::Mio, BackendKind::IoUring] {
        match reactor_on(kind) {
            Some(reactor) => test(reactor),
            None => println!("skipped on {kind:?}: {NO_BACKEND}"),
        }
    }
}

type OnDatagram = Box<dyn FnMut(&DatagramTransport, &[u8], &Address) -> Result<()>>;
type OnStart = Box<dyn FnMut(&DatagramTransport) -> Result<()>>;

/// A datagram protocol that logs its callbacks, and calls a closure in some of them.
struct Recorder {
    log: Log,
    started: OnStart,
    received: OnDatagram,
    refused: OnStart,
}

impl Recorder {
    fn new(log: &Log) -> Self {
        Self {
            log: log.clone(),
            started: Box::new(|_| Ok(())),
            received: Box::new(|_, _, _| Ok(())),
            refused: Box::new(|_| Ok(())),
        }
    }

    /// A port that echoes.
    fn echo(log: &Log) -> Self {
        Self::new(log).received(|transport, data, peer| Ok(transport.write(data, peer)?))
    }

    fn started(mut self, call: impl FnMut(&DatagramTransport) -> Result<()> + 'static) -> Self {
        self.started = Box::new(call);
        self
    }

    fn received(mut self, call: impl FnMut(&DatagramTransport, &[u8], &Address) -> Result<()> + 'static) -> Self {
        self.received = Box::new(call);
        self
    }

    fn refused(mut self, call: impl FnMut(&DatagramTransport) -> Result<()> + 'static) -> Self {
        self.refused = Box::new(call);
        self
    }
}

impl DatagramProtocol for Recorder {
    fn start_protocol(&mut self, transport: &DatagramTransport) -> Result<()> {
        self.log.add("started");
        (self.started)(transport)
    }

    fn datagram_received(&mut self, transport: &DatagramTransport, data: &[u8], peer: &Address) -> Result<()> {
        self.log.add(format!("received {}", show(data)));
        (self.received)(transport, data, peer)
    }

    fn truncated_datagram_received(
        &mut self,
        _: &DatagramTransport,
        data: &[u8],
        length: Option<usize>,
        _: &Address,
    ) -> Result<()> {
        self.log.add(format!("truncated {} of {length:?}", show(data)));
        Ok(())
    }

    fn connection_refused(&mut self, transport: &DatagramTransport) -> Result<()> {
        self.log.add("refused");
        (self.refused)(transport)
    }

    fn stop_protocol(&mut self, transport: &DatagramTransport) {
        assert!(!transport.is_listening());
        self.log.add("stopped");
    }
}

/// Shows short data as text, and long data as its length.
fn show(data: &[u8]) -> String {
    if data.len() <= 20 { String::from_utf8_lossy(data).into_owned() } else { format!("{} bytes", data.len()) }
}

/// Makes a port on a local address.
#[track_caller]
fn bind(reactor: &Reactor, address: &str, protocol: Recorder) -> DatagramTransport {
    bind_with(reactor, address, &UdpOptions::new(), protocol)
}

#[track_caller]
fn bind_with(reactor: &Reactor, address: &str, options: &UdpOptions, protocol: Recorder) -> DatagramTransport {
    let address: SocketAddr = address.parse().expect("an address");
    reactor.listen_udp(address, options, protocol).expect("a port")
}

/// Makes a blocking socket of std, as the peer.
#[track_caller]
fn peer_at(address: &str) -> (UdpSocket, Address) {
    let socket = UdpSocket::bind(address).expect("a socket");
    socket.set_read_timeout(Some(LIMIT)).expect("a time limit");
    let address = socket.local_addr().expect("an address").into();
    (socket, address)
}

/// Returns the address of a port for std.
fn address_of(port: &DatagramTransport) -> SocketAddr {
    port.host().socket_addr().expect("a UDP port")
}

/// Receives a datagram on a blocking socket.
#[track_caller]
fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 70_000];
    let (length, from) = socket.recv_from(&mut buffer).expect("a datagram arrives");
    buffer.truncate(length);
    (buffer, from)
}
