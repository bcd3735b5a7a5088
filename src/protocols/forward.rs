//! Port forwarding: joins each accepted connection to a connection that it makes (Twisted:
//! `twisted.protocols.portforward`: `ProxyFactory`, `ProxyServer`, `ProxyClient`).
//!
//! | one side | the other side |
//! |---|---|
//! | receives bytes | writes them; while more than the high mark is queued, the first side is not read |
//! | receives the end of its peer's stream | shuts its write direction, behind all bytes |
//! | ends in order | drains, and closes |
//! | is reset, aborted or cut | is aborted |
//! | can't be made | is closed, with the reason why |
//!
//! Until the outward connection is made, the inward one is paused. At most one received chunk is
//! held meanwhile. The system's buffers hold the rest, until the peer has to wait. On a port with
//! TLS, the outward connection begins when the handshake is complete.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;

use crate::address::Address;
use crate::deferred::Deferred;
use crate::endpoints::{ClientEndpoint, connect_protocol};
use crate::error::ConnectionClosed;
use crate::failure::{Failure, Result};
use crate::log::error;
use crate::protocol::{Factory, Protocol};
use crate::transport::{Streaming, Transport};

/// Forwards each connection to another endpoint (Twisted: `ProxyFactory`).
///
/// ```no_run
/// use std::process::ExitCode;
///
/// use ropewalk::endpoints::{client_from_string, server_from_string};
/// use ropewalk::interfaces::*;
/// use ropewalk::protocols::ForwardFactory;
///
/// fn main() -> ExitCode {
///     ropewalk::run(|reactor| {
///         let factory = ForwardFactory::new(client_from_string(reactor, "tcp:localhost:8888")?);
///         let stopped = reactor.when_stopped();
///         Ok(server_from_string(reactor, "tcp:8000")?.listen(factory).add_callback(|_port| stopped))
///     })
/// }
/// ```
pub struct ForwardFactory {
    target: Rc<Target>,
    marks: Option<(usize, usize)>,
    max_open: Option<usize>,
    counters: ForwardCounters,
}

/// Returns the endpoint for an accepted connection.
type Target = dyn Fn(&Transport) -> Result<Rc<dyn ClientEndpoint>>;

impl ForwardFactory {
    /// Forwards every connection to this endpoint.
    pub fn new(endpoint: impl ClientEndpoint + 'static) -> Self {
        let endpoint: Rc<dyn ClientEndpoint> = Rc::new(endpoint);
        Self::choosing(move |_| Ok(Rc::clone(&endpoint)))
    }

    /// Asks `target` for the endpoint of each connection. An error ends the connection.
    ///
    /// ```
    /// use std::rc::Rc;
    /// use ropewalk::endpoints::{ClientEndpoint, HaproxyClientEndpoint};
    /// use ropewalk::haproxy::ProxyHeader;
    /// use ropewalk::protocols::ForwardFactory;
    ///
    /// /// Tells the server the address of each client.
    /// fn named(server: Rc<dyn ClientEndpoint>) -> ForwardFactory {
    ///     ForwardFactory::choosing(move |client| {
    ///         let header = ProxyHeader::proxied(client.peer(), client.host());
    ///         Ok(Rc::new(HaproxyClientEndpoint::new(Rc::clone(&server)).header(header)))
    ///     })
    /// }
    /// ```
    pub fn choosing(target: impl Fn(&Transport) -> Result<Rc<dyn ClientEndpoint>> + 'static) -> Self {
        Self { target: Rc::new(target), marks: None, max_open: None, counters: ForwardCounters::default() }
    }

    /// Sets the numbers of queued bytes at which the other side is read again, and at which it is
    /// not read any more; see [`Transport::set_write_marks`]. In each direction a connection queues
    /// at most `high` bytes and a received chunk, of 64 KiB at most.
    pub fn write_marks(mut self, low: usize, high: usize) -> Self {
        self.marks = Some((low, high));
        self
    }

    /// Sets the most connections that are forwarded at a time. Others are refused, and closed at
    /// once. There is no limit by default.
    pub fn max_open(mut self, connections: usize) -> Self {
        self.max_open = Some(connections);
        self
    }

    /// Returns the counters of all connections of this factory.
    pub fn counters(&self) -> ForwardCounters {
        self.counters.clone()
    }
}

impl Factory for ForwardFactory {
    type Protocol = ForwardServer;

    fn build_protocol(&mut self, _peer: &Address) -> Option<ForwardServer> {
        if self.max_open.is_some_and(|most| self.counters.open() >= most) {
            self.counters.0.refused.set(self.counters.refused() + 1);
            return None;
        }
        let open = OpenForward::count(&self.counters);
        let link = Rc::new(Link { marks: self.marks, counters: self.counters.clone(), ..Link::default() });
        Some(ForwardServer { link, target: Rc::clone(&self.target), connecting: None, _open: open })
    }
}

impl fmt::Debug for ForwardFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForwardFactory")
            .field("marks", &self.marks)
            .field("max_open", &self.max_open)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

/// The counters of a [`ForwardFactory`]. A cheap handle.
#[derive(Debug, Clone, Default)]
pub struct ForwardCounters(Rc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    open: Cell<usize>,
    accepted: Cell<u64>,
    refused: Cell<u64>,
    failed: Cell<u64>,
    sent: Cell<u64>,
    returned: Cell<u64>,
}

impl ForwardCounters {
    /// Number of accepted connections that are open now.
    pub fn open(&self) -> usize {
        self.0.open.get()
    }

    /// Number of connections that were accepted, without those refused.
    pub fn accepted(&self) -> u64 {
        self.0.accepted.get()
    }

    /// Number of connections that were refused because too many were open.
    pub fn refused(&self) -> u64 {
        self.0.refused.get()
    }

    /// Number of accepted connections whose outward connection could not be made.
    pub fn failed(&self) -> u64 {
        self.0.failed.get()
    }

    /// Number of bytes forwarded to the targets.
    pub fn sent_bytes(&self) -> u64 {
        self.0.sent.get()
    }

    /// Number of bytes forwarded from the targets back to the clients.
    pub fn returned_bytes(&self) -> u64 {
        self.0.returned.get()
    }
}

/// Counts an accepted connection as open while it exists.
struct OpenForward(ForwardCounters);

impl OpenForward {
    fn count(counters: &ForwardCounters) -> Self {
        counters.0.open.set(counters.open() + 1);
        counters.0.accepted.set(counters.accepted() + 1);
        Self(counters.clone())
    }
}

impl Drop for OpenForward {
    fn drop(&mut self) {
        self.0.0.open.set(self.0.open() - 1);
    }
}

/// The state that the two sides of a forwarded connection share.
#[derive(Default)]
struct Link {
    /// The inward and the outward side, while they are connected.
    inward: RefCell<Option<Transport>>,
    outward: RefCell<Option<Transport>>,
    marks: Option<(usize, usize)>,
    sent: Cell<u64>,
    returned: Cell<u64>,
    counters: ForwardCounters,
}

impl Link {
    /// Joins the two sides: each is read no faster than the other takes the bytes.
    fn join(&self, inward: &Transport, outward: &Transport) -> Result<()> {
        if let Some((low, high)) = self.marks {
            inward.set_write_marks(low, high);
            outward.set_write_marks(low, high);
        }
        inward.register_producer(outward.as_producer(), Streaming::Push)?;
        outward.register_producer(inward.as_producer(), Streaming::Push)?;
        self.outward.replace(Some(outward.clone()));
        inward.resume_producing();
        Ok(())
    }

    fn count_sent(&self, bytes: usize) {
        add(&self.sent, bytes);
        add(&self.counters.0.sent, bytes);
    }

    fn count_returned(&self, bytes: usize) {
        add(&self.returned, bytes);
        add(&self.counters.0.returned, bytes);
    }
}

fn add(counter: &Cell<u64>, bytes: usize) {
    counter.set(counter.get().saturating_add(bytes as u64));
}

/// Calls `request` with a side that is connected.
fn with_side(side: &RefCell<Option<Transport>>, request: impl FnOnce(&Transport)) {
    let transport = side.borrow().clone();
    if let Some(transport) = transport {
        request(&transport);
    }
}

/// Passes the end of one side's peer on to the other side.
fn pass_end(other: &Transport) {
    // The side that has ended produces nothing more, and must not hold up the shutdown.
    other.unregister_producer();
    other.lose_write_connection();
}

/// Ends one side because the other one is over.
fn pass_loss(other: &Transport, reason: &Failure) {
    other.unregister_producer();
    match reason.check() {
        Some(ConnectionClosed::Done) => other.lose_connection(),
        _ => other.abort_connection(),
    }
}

/// The protocol of an accepted connection that is forwarded (Twisted: `ProxyServer`). From a
/// [`ForwardFactory`].
pub struct ForwardServer {
    link: Rc<Link>,
    target: Rc<Target>,
    connecting: Option<Deferred<()>>,
    _open: OpenForward,
}

impl ForwardServer {
    /// Number of bytes forwarded to the target.
    pub fn sent_bytes(&self) -> u64 {
        self.link.sent.get()
    }

    /// Number of bytes forwarded from the target back to the client.
    pub fn returned_bytes(&self) -> u64 {
        self.link.returned.get()
    }

    /// Returns the transport of the outward connection, once it is made.
    pub fn outward(&self) -> Option<Transport> {
        self.link.outward.borrow().clone()
    }

    /// Begins the outward connection.
    fn connect(&mut self, transport: &Transport) -> Result<()> {
        let endpoint = (self.target)(transport)?;
        let (front, counters) = (transport.clone(), self.link.counters.clone());
        let connecting = connect_protocol(&*endpoint, ForwardClient { link: Rc::clone(&self.link) });
        self.connecting = Some(connecting.add_callback(|_| ()).add_errback(move |failure| {
            // A cancelled attempt belongs to a connection that is over.
            if !front.is_disconnecting() {
                error!(peer = %front.peer(), %failure, "a connection can't be forwarded, and is closed");
                add(&counters.0.failed, 1);
                front.update(|stream| stream.fail(failure));
            }
        }));
        Ok(())
    }
}

impl Protocol for ForwardServer {
    fn half_close(&self) -> bool {
        true
    }

    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        // Nothing is read until the other side can take it.
        transport.pause_producing();
        self.link.inward.replace(Some(transport.clone()));
        // A client that fails its handshake does not reach the target.
        if transport.stream().is_handshaking() { Ok(()) } else { self.connect(transport) }
    }

    fn handshake_completed(&mut self, transport: &Transport) -> Result<()> {
        if self.connecting.is_none() { self.connect(transport) } else { Ok(()) }
    }

    fn data_received(&mut self, _transport: &Transport, data: &[u8]) -> Result<()> {
        self.link.count_sent(data.len());
        with_side(&self.link.outward, |outward| outward.write(data));
        Ok(())
    }

    fn read_connection_lost(&mut self, _transport: &Transport) -> Result<()> {
        with_side(&self.link.outward, pass_end);
        Ok(())
    }

    fn connection_lost(&mut self, _transport: &Transport, reason: &Failure) {
        self.link.inward.take();
        if let Some(connecting) = self.connecting.take() {
            connecting.cancel();
        }
        with_side(&self.link.outward, |outward| pass_loss(outward, reason));
    }
}

impl fmt::Debug for ForwardServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForwardServer")
            .field("sent_bytes", &self.sent_bytes())
            .field("returned_bytes", &self.returned_bytes())
            .finish_non_exhaustive()
    }
}

/// The protocol of the outward connection (Twisted: `ProxyClient`).
struct ForwardClient {
    link: Rc<Link>,
}

impl Protocol for ForwardClient {
    fn half_close(&self) -> bool {
        true
    }

    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        let inward = self.link.inward.borrow().clone();
        match inward {
            Some(inward) if !inward.is_disconnecting() => self.link.join(&inward, transport),
            _ => {
                transport.abort_connection();
                Ok(())
            }
        }
    }

    fn data_received(&mut self, _transport: &Transport, data: &[u8]) -> Result<()> {
        self.link.count_returned(data.len());
        with_side(&self.link.inward, |inward| inward.write(data));
        Ok(())
    }

    fn read_connection_lost(&mut self, _transport: &Transport) -> Result<()> {
        with_side(&self.link.inward, pass_end);
        Ok(())
    }

    fn connection_lost(&mut self, _transport: &Transport, reason: &Failure) {
        self.link.outward.take();
        with_side(&self.link.inward, |inward| pass_loss(inward, reason));
    }
}
