//! A server of static files by hyper, over HTTP/1 and HTTP/2, on a reactor.

mod drain;
mod files;

use std::path::PathBuf;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::server::conn::auto;
use ropewalk::endpoints::ServerEndpoint;
use ropewalk::streams::{ByteStream, ClockTimer, LocalExecutor, listen_streams};
use ropewalk::{Deferred, Port, Reactor};

pub use self::drain::Drain;
use self::files::Files;

/// Time that a client has to send the header of a request: 10 s.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves the files below `root`, to every connection of `endpoint`. The protocol is HTTP/2 if the
/// client begins with its preface, and HTTP/1 otherwise; over TLS, offer both by ALPN.
///
/// `drain` ends the connections, when the program wants to stop: each finishes the requests that it
/// has, and closes.
pub fn serve(
    reactor: &Reactor,
    endpoint: &(impl ServerEndpoint + ?Sized),
    root: impl Into<PathBuf>,
    drain: &Drain,
) -> Deferred<Port> {
    let files = Rc::new(Files::new(reactor, root.into()));
    let (executor, timer) = (LocalExecutor::new(reactor.spawner()), ClockTimer::new(reactor));
    let mut builder = auto::Builder::new(executor);
    builder.http1().timer(timer.clone()).header_read_timeout(HEADER_TIMEOUT);
    builder.http2().timer(timer);
    let (builder, spawner, drain) = (Rc::new(builder), reactor.spawner().clone(), drain.clone());
    listen_streams(endpoint, move |stream| {
        let served = spawner.spawn(converse(Rc::clone(&builder), stream, Rc::clone(&files), drain.clone()));
        served.or_log("serving a connection");
    })
}

async fn converse(builder: Rc<auto::Builder<LocalExecutor>>, stream: ByteStream, files: Rc<Files>, drain: Drain) {
    let peer = stream.peer();
    let service = service_fn(move |request| {
        let files = Rc::clone(&files);
        async move { files.answer(&request).await }
    });
    let connection = pin!(builder.serve_connection(stream, service));
    // Clients that go away in the middle are no fault of this program.
    if let Err(error) = drain.watch(connection, |connection| connection.graceful_shutdown()).await {
        println!("{peer}: {error}");
    }
}
