//! Streams from endpoints: connecting, and listening.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::mem;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::byte_stream::ByteStream;
use super::protocol::StreamProtocol;
use crate::address::Address;
use crate::deferred::Deferred;
use crate::endpoints::{ClientEndpoint, ServerEndpoint, ServerEndpointExt, connect_protocol};
use crate::failure::Failure;
use crate::protocol::Factory;
use crate::reactor::Port;

/// Connects, and makes a [`ByteStream`] of the connection. Cancelling the Deferred aborts the
/// attempt. Over TLS it fires before the handshake is done; see [`ByteStream::handshake`].
///
/// # Errors
/// The Deferred fails with a [`ConnectError`](crate::error::ConnectError).
///
/// ```
/// use futures::io::{AsyncReadExt, AsyncWriteExt};
/// use ropewalk::endpoints::client_from_string;
/// use ropewalk::streams::connect_stream;
/// use ropewalk::{Deferred, Reactor, Result};
///
/// fn banner(reactor: &Reactor, server: &str) -> Result<Deferred<String>> {
///     let connecting = connect_stream(&client_from_string(reactor, server)?);
///     Ok(reactor.spawn(async move {
///         let mut stream = connecting.await?;
///         stream.write_all(b"QUIT\r\n").await?;
///         let mut banner = String::new();
///         stream.read_to_string(&mut banner).await?;
///         Ok(banner)
///     }))
/// }
/// ```
pub fn connect_stream<E: ClientEndpoint + ?Sized>(endpoint: &E) -> Deferred<ByteStream> {
    let made = Rc::new(Cell::new(None));
    let place = Rc::clone(&made);
    let protocol = StreamProtocol::new(move |stream| place.set(Some(stream)));
    connect_protocol(endpoint, protocol).add_callback(move |_| {
        // An endpoint of the program's may fire before it has made the connection.
        made.take().ok_or_else(|| Failure::message("the endpoint has made no connection"))
    })
}

/// Listens, and calls `serve` with a [`ByteStream`] of each connection. Spawn a future of it there:
/// `serve` is a callback, in which nothing is waited for. A panic of `serve` ends that connection.
///
/// # Errors
/// The Deferred fails with a [`ListenError`](crate::error::ListenError).
///
/// ```
/// use futures::io::AsyncWriteExt;
/// use ropewalk::endpoints::server_from_string;
/// use ropewalk::streams::listen_streams;
/// use ropewalk::{Deferred, Port, Reactor, Result};
///
/// fn greet(reactor: &Reactor) -> Result<Deferred<Port>> {
///     let spawner = reactor.spawner().clone();
///     let endpoint = server_from_string(reactor, "tcp:0:interface=127.0.0.1")?;
///     Ok(listen_streams(&endpoint, move |mut stream| {
///         let greeted = spawner.spawn(async move { Ok(stream.write_all(b"good evening\n").await?) });
///         greeted.or_log("greeting");
///     }))
/// }
/// ```
pub fn listen_streams<E: ServerEndpoint + ?Sized>(
    endpoint: &E,
    serve: impl Fn(ByteStream) + 'static,
) -> Deferred<Port> {
    let serve = Rc::new(serve);
    endpoint.listen(move |_: Address| {
        let serve = Rc::clone(&serve);
        StreamProtocol::new(move |stream| serve(stream))
    })
}

/// Listens, and keeps a [`ByteStream`] of each connection until it is taken from [`Incoming`].
///
/// At most `waiting` streams are kept (at least one). Then the port [stops
/// accepting](Port::pause_accepting) until one is taken, and further peers wait in the system's
/// queue. A port that can't do so (in a group that hands connections over, or of an endpoint that
/// has not returned it yet) closes a connection beyond that, and logs it (WARN), once until there
/// is room again. A stream that waits costs at most its unread bytes.
///
/// # Errors
/// The Deferred fails with a [`ListenError`](crate::error::ListenError).
///
/// ```
/// use futures::io::AsyncWriteExt;
/// use ropewalk::endpoints::server_from_string;
/// use ropewalk::streams::accept_streams;
/// use ropewalk::{Deferred, Reactor, Result};
///
/// fn greet(reactor: &Reactor) -> Result<Deferred<()>> {
///     let listening = accept_streams(&server_from_string(reactor, "tcp:0:interface=127.0.0.1")?, 128);
///     Ok(reactor.spawn(async move {
///         let mut incoming = listening.await?;
///         while let Some(mut stream) = incoming.accept().await {
///             stream.write_all(b"one at a time\n").await?;
///         }
///         Ok(())
///     }))
/// }
/// ```
pub fn accept_streams<E: ServerEndpoint + ?Sized>(endpoint: &E, waiting: usize) -> Deferred<Incoming> {
    let queue = Rc::new(RefCell::new(AcceptQueue { limit: waiting.max(1), ..AcceptQueue::default() }));
    let factory = AcceptFactory(Rc::clone(&queue));
    endpoint.listen(factory).add_callback(|port| {
        queue.borrow_mut().port = Some(port.clone());
        AcceptQueue::pause_if_full(&queue);
        Ok(Incoming { port, queue })
    })
}

/// The streams of a listening port, in the order of their connections. From [`accept_streams`].
///
/// Dropped, it stops listening, and closes the streams that wait. For a `Stream` of the futures
/// crate: `stream::poll_fn(move |cx| incoming.poll_accept(cx))`.
#[must_use = "dropping it stops listening"]
pub struct Incoming {
    port: Port,
    queue: Rc<RefCell<AcceptQueue>>,
}

impl Incoming {
    /// Waits for the next stream. `None` once the port has stopped and no stream is left.
    pub async fn accept(&mut self) -> Option<ByteStream> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// Takes the next stream, or keeps the task's waker until there is one. `None` as in
    /// [`accept`](Self::accept).
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<ByteStream>> {
        {
            let mut queue = self.queue.borrow_mut();
            if let Some(stream) = queue.streams.pop_front() {
                queue.is_over_limit = false;
                let paused = queue.port.clone().filter(|_| mem::take(&mut queue.is_paused));
                drop(queue);
                if let Some(port) = paused {
                    port.hold_for_queue(false);
                }
                return Poll::Ready(Some(stream));
            }
            if queue.is_stopped {
                return Poll::Ready(None);
            }
        }
        // Wakers are the program's: nothing is borrowed while one is cloned or dropped.
        let waker = cx.waker().clone();
        let old = self.queue.borrow_mut().waker.replace(waker);
        drop(old);
        Poll::Pending
    }

    /// Returns the port, for its address, and to stop it.
    pub fn port(&self) -> &Port {
        &self.port
    }

    /// Number of streams that wait.
    pub fn waiting(&self) -> usize {
        self.queue.borrow().streams.len()
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let left = {
            let mut queue = self.queue.borrow_mut();
            queue.is_stopped = true;
            (mem::take(&mut queue.streams), queue.waker.take())
        };
        drop(left);
        self.port.abort_listening().or_log("stopping to listen");
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").field("port", &self.port).field("waiting", &self.waiting()).finish()
    }
}

/// The streams that wait to be taken.
#[derive(Default)]
struct AcceptQueue {
    streams: VecDeque<ByteStream>,
    limit: usize,
    /// The port, once it listens.
    port: Option<Port>,
    /// The port accepts nothing until there is room.
    is_paused: bool,
    /// A connection was refused, and none was taken since.
    is_over_limit: bool,
    /// The port has stopped, or its `Incoming` was dropped.
    is_stopped: bool,
    waker: Option<Waker>,
}

impl AcceptQueue {
    /// Stops accepting if there is no room for another stream.
    fn pause_if_full(queue: &RefCell<Self>) {
        let port = {
            let queue = queue.borrow();
            queue.port.clone().filter(|_| queue.streams.len() >= queue.limit)
        };
        if let Some(port) = port {
            queue.borrow_mut().is_paused = port.hold_for_queue(true);
        }
    }
}

struct AcceptFactory(Rc<RefCell<AcceptQueue>>);

impl AcceptFactory {
    fn wake(queue: &RefCell<AcceptQueue>) {
        let waker = queue.borrow_mut().waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Factory for AcceptFactory {
    type Protocol = StreamProtocol;

    fn build_protocol(&mut self, peer: &Address) -> Option<StreamProtocol> {
        {
            let mut queue = self.0.borrow_mut();
            if queue.is_stopped {
                return None;
            }
            if queue.streams.len() >= queue.limit {
                if !mem::replace(&mut queue.is_over_limit, true) {
                    let waiting = queue.limit;
                    tracing::warn!(%peer, waiting, "a connection is refused: too many wait to be accepted");
                }
                return None;
            }
        }
        let queue = Rc::clone(&self.0);
        Some(StreamProtocol::new(move |stream| {
            queue.borrow_mut().streams.push_back(stream);
            AcceptQueue::pause_if_full(&queue);
            Self::wake(&queue);
        }))
    }

    fn do_start(&mut self) {
        self.0.borrow_mut().is_stopped = false;
    }

    fn do_stop(&mut self) {
        self.0.borrow_mut().is_stopped = true;
        Self::wake(&self.0);
    }
}
