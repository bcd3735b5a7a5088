//! [`HttpServer`]: hyper's connections on the streams of a reactor, with limits and a drain.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::server::conn::auto;
use ropewalk::endpoints::ServerEndpoint;
use ropewalk::streams::{ByteStream, ClockTimer, LocalExecutor, listen_streams};
use ropewalk::{Clock, Deferred, Port, Reactor};

use super::connections::{ConnectionEnd, HttpConnections, TrackedBody};

/// Number of bytes of an answer that hyper keeps ahead of a slow client, for each stream of HTTP/2
/// or connection of HTTP/1. 64 KiB, as much as the stream below keeps. It also bounds the header of
/// a request of HTTP/1.
const BUFFERED_BYTES: usize = 64 * 1024;

/// Number of requests that a client of HTTP/2 may have under way on one connection. 100, the least
/// that RFC 9113 recommends.
const STREAMS: u32 = 100;

/// The limits of an [`HttpServer`]. The defaults are in parentheses.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HttpLimits {
    /// Number of open connections (1,000). One more is aborted.
    pub connections: usize,
    /// Time that a client of HTTP/1 has for the header of a request, from the end of the answer
    /// before (20 s). So it is also the time that an idle connection of HTTP/1 is kept.
    pub header: Duration,
    /// Time after which a connection without a request under way is finished (60 s). It bounds a
    /// handshake of TLS, a client that sends nothing, and idle connections of HTTP/2.
    pub idle: Duration,
    /// Time in which some piece of a request's or an answer's body has to pass while a request is
    /// under way (60 s). A piece is 64 KiB at most. Then the connection is aborted.
    pub stall: Duration,
    /// Time that an idle connection has to end once it was asked to (5 s). Then it is closed.
    pub finish: Duration,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            connections: 1_000,
            header: Duration::from_secs(20),
            idle: Duration::from_secs(60),
            stall: Duration::from_secs(60),
            finish: Duration::from_secs(5),
        }
    }
}

/// A server of HTTP/1.0, HTTP/1.1 and HTTP/2 on any number of endpoints. A cheap handle.
///
/// The protocol of a connection is HTTP/2 if the client begins with its preface, and HTTP/1
/// otherwise. Over TLS, offer both by ALPN: `tls:FOLDER:protocols=h2,http/1.1`.
#[derive(Clone)]
pub struct HttpServer(Rc<HttpServerInner>);

struct HttpServerInner {
    reactor: Reactor,
    limits: HttpLimits,
    timer: ClockTimer,
    builder: auto::Builder<LocalExecutor>,
    connections: Rc<HttpConnections>,
    ports: RefCell<Vec<Port>>,
    on_failure: FailureReport,
    /// A connection was refused, and none was accepted since.
    is_full: Cell<bool>,
}

impl HttpServer {
    /// Creates a server that listens on nothing yet. `on_failure` is called with a line for each
    /// connection that is refused, or that fails with a request under way, such as by a client that
    /// goes away in the middle of an answer.
    pub fn new(reactor: &Reactor, limits: HttpLimits, on_failure: impl Fn(&dyn fmt::Display) + 'static) -> Self {
        let timer = ClockTimer::new(reactor);
        let mut builder = auto::Builder::new(LocalExecutor::new(reactor.spawner()));
        // A client may end its direction behind its last request, and read the answer.
        let mut http1 = builder.http1();
        http1.timer(timer.clone()).header_read_timeout(limits.header).half_close(true).max_buf_size(BUFFERED_BYTES);
        let mut http2 = builder.http2();
        http2.timer(timer.clone()).max_concurrent_streams(STREAMS).max_send_buf_size(BUFFERED_BYTES);
        Self(Rc::new(HttpServerInner {
            reactor: reactor.clone(),
            limits,
            timer,
            builder,
            connections: Rc::default(),
            ports: RefCell::default(),
            on_failure: Box::new(on_failure),
            is_full: Cell::new(false),
        }))
    }

    /// Listens, and answers each request with the result of `service`. The [drain](Self::drain)
    /// stops the port.
    ///
    /// # Errors
    /// The Deferred fails with a [`ListenError`](ropewalk::error::ListenError).
    pub fn listen<S, F, B>(&self, endpoint: &(impl ServerEndpoint + ?Sized), service: S) -> Deferred<Port>
    where
        S: Fn(Request<TrackedBody<Incoming>>) -> F + 'static,
        F: Future<Output = Response<B>> + 'static,
        B: Body + Unpin + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let (service, server, spawner) = (Rc::new(service), self.clone(), self.0.reactor.spawner().clone());
        let listening = listen_streams(endpoint, move |stream| {
            if let Some(stream) = server.admit(stream) {
                let served = spawner.spawn(server.clone().converse(stream, Rc::clone(&service)));
                served.or_log("serving a connection of HTTP");
            }
        });
        let server = self.clone();
        listening.add_callback(move |port| {
            if server.0.connections.is_draining() {
                port.stop_listening().or_log("stopping to listen");
            } else {
                server.0.ports.borrow_mut().push(port.clone());
            }
            Ok(port)
        })
    }

    /// Number of open connections.
    pub fn open_connections(&self) -> usize {
        self.0.connections.count()
    }

    /// Stops listening, and finishes all connections. Answers that are under way are sent to their
    /// ends, and no further requests are taken: HTTP/2 says so with GOAWAY, HTTP/1 with
    /// `Connection: close`. Connections without a request under way end at once.
    ///
    /// Connections that are open after `at_most` are aborted. The Deferred fires when none is left,
    /// with the number of aborted ones.
    pub fn drain(&self, at_most: Duration) -> Deferred<usize> {
        for port in self.0.ports.take() {
            port.stop_listening().or_log("stopping to listen");
        }
        let drained = self.0.connections.drain();
        let connections = Rc::clone(&self.0.connections);
        let overdue = self.0.reactor.call_later(at_most, move || connections.abort());
        drained.add_both(move |result| {
            // It may have been made already.
            let _ = overdue.cancel();
            result
        })
    }

    /// Aborts a connection above the limit. The first of several is reported.
    fn admit(&self, stream: ByteStream) -> Option<ByteStream> {
        let is_full = self.open_connections() >= self.0.limits.connections;
        let was_full = self.0.is_full.replace(is_full);
        if !is_full {
            return Some(stream);
        }
        if !was_full {
            (self.0.on_failure)(&format_args!("{}: refused: too many connections are open", stream.peer()));
        }
        stream.abort();
        None
    }

    async fn converse<S, F, B>(self, stream: ByteStream, service: Rc<S>)
    where
        S: Fn(Request<TrackedBody<Incoming>>) -> F + 'static,
        F: Future<Output = Response<B>> + 'static,
        B: Body + Unpin + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let Self(server) = &self;
        let (peer, open) = (stream.peer(), server.connections.enter(stream.transport()));
        let activity = Rc::clone(open.activity());
        let service = service_fn(move |request: Request<Incoming>| {
            let under_way = activity.begin();
            let answering = service(request.map(|body| TrackedBody::of_request(body, &activity)));
            async move {
                let answer = answering.await;
                Ok::<_, Infallible>(answer.map(|body| TrackedBody::of_answer(body, under_way)))
            }
        });
        let connection = pin!(server.builder.serve_connection(stream, service));
        let finish = auto::Connection::graceful_shutdown;
        match open.run(connection, &server.timer, &server.limits, finish).await {
            // An idle client may leave in any way: many do not end TLS.
            ConnectionEnd::Done(Err(error)) if open.activity().is_answering() => {
                (server.on_failure)(&format_args!("{peer}: {}", Chain(&*error)));
            }
            ConnectionEnd::Stalled => (server.on_failure)(&format_args!("{peer}: no progress")),
            ConnectionEnd::Done(_) | ConnectionEnd::Idle => {}
        }
    }
}

impl fmt::Debug for HttpServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpServer")
            .field("limits", &self.0.limits)
            .field("open_connections", &self.open_connections())
            .finish_non_exhaustive()
    }
}

/// A function of the program that is told of failures, a line each.
pub(super) type FailureReport = Box<dyn Fn(&dyn fmt::Display)>;

/// An error with its causes, in one line.
struct Chain<'e>(&'e (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
