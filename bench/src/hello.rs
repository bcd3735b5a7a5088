//! 'Hello, world' over HTTP/1.1 by hyper: the same service on each engine, and its client.
//!
//! Every engine serves a connection with the same hyper, configured in the same way: no timer, no
//! limit, TCP_NODELAY on. Only the stream below and the loop around differ. tokio is the
//! `current_thread` runtime, with hyper-util's adapter for its sockets.

use std::cell::Cell;
use std::convert::Infallible;
use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::rt::{Read as HyperRead, Write as HyperWrite};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use ropewalk::endpoints::TcpServerEndpoint;
use ropewalk::streams::listen_streams;
use ropewalk::{BackendKind, Deferred, Port, Reactor};
use tokio::runtime::Runtime;
use tokio::task::{LocalSet, yield_now};

use crate::Result;
use crate::peers::Missing;
use crate::results::HelloCost;

/// Body of the answer.
const BODY: &[u8] = b"Hello, world";

/// Request of a client. Its headers are those that command-line clients send.
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n";

/// The longest wait for a peer. Arbitrary: a round takes less than a second under valgrind.
const WAIT_LIMIT: Duration = Duration::from_secs(60);

/// Start of the names of the functions in which a loop is turned, for callgrind.
pub const COUNTED: &str = "ropewalk_bench::hello::turn";

/// Engine below hyper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// tokio, with a task of `tokio::spawn` for each connection.
    TokioSpawn,
    /// tokio, with a task of a `LocalSet` for each connection.
    TokioLocal,
    /// Ropewalk on mio.
    Mio,
    /// Ropewalk on `io_uring`.
    IoUring,
}

impl Engine {
    /// All engines, in the order of the tables.
    pub const ALL: [Self; 4] = [Self::TokioSpawn, Self::TokioLocal, Self::Mio, Self::IoUring];

    /// The two forms of tokio.
    pub const TOKIO: [Self; 2] = [Self::TokioSpawn, Self::TokioLocal];

    /// Returns the engine with this name.
    ///
    /// # Errors
    /// Fails if there is none.
    pub fn named(name: &str) -> Result<Self> {
        let known = Self::ALL.into_iter().find(|known| known.to_string() == name);
        known.ok_or_else(|| format!("unknown engine {name}").into())
    }
}

/// Formats the name in tables and arguments.
impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TokioSpawn => "tokio-spawn",
            Self::TokioLocal => "tokio-local-set",
            Self::Mio => "ropewalk-mio",
            Self::IoUring => "ropewalk-io_uring",
        })
    }
}

/// Returns the lower of each figure.
pub fn cheaper(one: &HelloCost, other: &HelloCost) -> HelloCost {
    HelloCost {
        instructions: one.instructions.min(other.instructions),
        system_calls: one.system_calls.zip(other.system_calls).map(|(one, other)| one.min(other)),
        bytes: one.bytes.min(other.bytes),
    }
}

/// A listening server in this process, whose loop runs only when it is turned.
pub struct Server {
    /// Address that it listens on.
    pub address: SocketAddr,
    event_loop: EventLoop,
}

enum EventLoop {
    Spawn(Runtime),
    Local(Runtime, LocalSet),
    Ropewalk { reactor: Reactor, _listening: Deferred<Port> },
}

impl Server {
    /// Listens on a port that the kernel chooses.
    ///
    /// # Errors
    /// Fails if the backend is [`Missing`], or if the server can't listen.
    pub fn new(engine: Engine) -> Result<Self> {
        match engine {
            Engine::TokioSpawn => {
                let runtime = runtime()?;
                let (listener, address) = listener(&runtime)?;
                runtime.spawn(accept(listener, |stream| drop(tokio::spawn(serve(TokioIo::new(stream))))));
                Ok(Self { address, event_loop: EventLoop::Spawn(runtime) })
            }
            Engine::TokioLocal => {
                let (runtime, local) = (runtime()?, LocalSet::new());
                let (listener, address) = listener(&runtime)?;
                let serve_locally = |stream| drop(tokio::task::spawn_local(serve(TokioIo::new(stream))));
                drop(local.spawn_local(accept(listener, serve_locally)));
                Ok(Self { address, event_loop: EventLoop::Local(runtime, local) })
            }
            Engine::Mio => Self::on_ropewalk(BackendKind::Mio),
            Engine::IoUring => Self::on_ropewalk(BackendKind::IoUring),
        }
    }

    fn on_ropewalk(backend: BackendKind) -> Result<Self> {
        let reactor = Reactor::builder().signals(false).backend(backend).build()?;
        if reactor.backend() != backend {
            return Err(Missing(format!("the backend {} is not available here", backend.name())).into());
        }
        let endpoint = TcpServerEndpoint::bind_to(&reactor, "127.0.0.1:0".parse()?);
        let spawner = reactor.spawner().clone();
        let bound = Rc::new(Cell::new(None));
        let place = Rc::clone(&bound);
        let listening = listen_streams(&endpoint, move |stream| spawner.spawn(serve(stream)).or_log("serving"));
        let listening = listening.add_callback(move |port| {
            place.set(port.host().socket_addr());
            Ok(port)
        });
        let address = bound.take().ok_or("the port listens at once")?;
        Ok(Self { address, event_loop: EventLoop::Ropewalk { reactor, _listening: listening } })
    }

    /// Turns the loop without waiting, until the tasks of all ready connections have run.
    pub fn turn(&self) {
        match &self.event_loop {
            EventLoop::Spawn(runtime) => turn_tokio(runtime),
            EventLoop::Local(runtime, local) => turn_tokio_local(runtime, local),
            EventLoop::Ropewalk { reactor, .. } => turn_ropewalk(reactor),
        }
    }

    /// Serves until the process ends. Returns only with an error.
    ///
    /// # Errors
    /// Fails if the loop does.
    pub fn run(self) -> Result<Infallible> {
        match self.event_loop {
            EventLoop::Spawn(runtime) => runtime.block_on(std::future::pending()),
            EventLoop::Local(runtime, local) => runtime.block_on(local.run_until(std::future::pending())),
            EventLoop::Ropewalk { reactor, .. } => reactor.run()?,
        }
        Err("the event loop ended".into())
    }

    /// Turns the loop until `done` returns `true`.
    ///
    /// # Errors
    /// Fails if `done` does, or if it takes too long.
    pub fn turn_until(&self, what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
        let end = Instant::now() + WAIT_LIMIT;
        while Instant::now() < end {
            self.turn();
            if done()? {
                return Ok(());
            }
        }
        Err(format!("no {what} for {WAIT_LIMIT:?}").into())
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

/// A client with a connection that is kept alive.
#[derive(Debug)]
pub struct Client {
    socket: TcpStream,
    /// The received part of an answer.
    received: Vec<u8>,
    system_calls: u64,
}

impl Client {
    /// Connects. Its reads do not wait.
    ///
    /// # Errors
    /// Returns the error of the system call.
    pub fn connect(address: SocketAddr) -> Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, received: Vec::new(), system_calls: 0 })
    }

    /// Returns the number of system calls of this client since it is connected.
    pub fn system_calls(&self) -> u64 {
        self.system_calls
    }

    /// Sends a request.
    ///
    /// # Errors
    /// Returns the error of the system call.
    pub fn ask(&mut self) -> Result<()> {
        self.system_calls += 1;
        Ok(self.socket.write_all(REQUEST)?)
    }

    /// Returns `true` once the answer to the request is here, whole.
    ///
    /// # Errors
    /// Fails if the server closed the connection, or if it answered otherwise than expected.
    pub fn is_answered(&mut self) -> Result<bool> {
        let mut piece = [0; 512];
        self.system_calls += 1;
        match self.socket.read(&mut piece) {
            Ok(0) => return Err("the server closed a connection".into()),
            Ok(count) => self.received.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        if !self.received.ends_with(BODY) {
            return Ok(false);
        }
        if !self.received.starts_with(b"HTTP/1.1 200 OK\r\n") {
            return Err(format!("an answer of {:?}", String::from_utf8_lossy(&self.received)).into());
        }
        self.received.clear();
        Ok(true)
    }
}

/// Serves a connection until its end.
async fn serve(stream: impl HyperRead + HyperWrite + Unpin + 'static) {
    // An error is that of one connection, whose client fails the measurement if it still waits.
    drop(http1::Builder::new().serve_connection(stream, service_fn(hello)).await);
}

async fn hello(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::new(Bytes::from_static(BODY))))
}

fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_io().build()?)
}

fn listener(runtime: &Runtime) -> Result<(tokio::net::TcpListener, SocketAddr)> {
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

async fn accept(listener: tokio::net::TcpListener, serve: impl Fn(tokio::net::TcpStream)) {
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        stream.set_nodelay(true).expect("a TCP socket");
        serve(stream);
    }
}

/// Turns the loop. A yield of the runtime's main future asks the poller, and the tasks run behind
/// the next poll of that future, up to 61 at a time.
#[inline(never)]
fn turn_tokio(runtime: &Runtime) {
    runtime.block_on(yield_three_times());
}

#[inline(never)]
fn turn_tokio_local(runtime: &Runtime, local: &LocalSet) {
    runtime.block_on(local.run_until(yield_three_times()));
}

async fn yield_three_times() {
    yield_now().await;
    yield_now().await;
    yield_now().await;
}

/// Turns the loop once.
#[inline(never)]
fn turn_ropewalk(reactor: &Reactor) {
    reactor.iterate(Duration::ZERO).expect("the event loop turns");
}
