//! TLS beside tokio-rustls, in user instructions: what a server spends on a request and on a
//! handshake.
//!
//! `cargo run --release -p ropewalk-bench --bin tls_instructions`
//!
//! | case | one unit | at a time |
//! |---|---|---|
//! | `request` | 64 bytes arrive on an established connection and are sent back | 64 connections |
//! | `handshake` | a connection is accepted, makes a full handshake, is closed by its client, and is over | 8 connections |
//!
//! Both engines have the same configuration of the same rustls: TLS 1.3, no resumption. Ropewalk's
//! servers are listening endpoints with `wrap_server_tls`. tokio's is a `current_thread` runtime
//! with a task for each connection. Clients are rustls alone, in the same thread, and are not
//! counted: callgrind counts in [`Server::turn`] only, which turns the server's loop until it has
//! no work left. The difference of two runs of different lengths leaves out the work that is done
//! once.
//!
//! The program ends with status 1 if a ratio to tokio-rustls is above [`LIMIT`].

use std::cell::Cell;
use std::fmt;
use std::hint::black_box;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ropewalk::endpoints::{ServerEndpointExt, TcpServerEndpoint, wrap_server_tls};
use ropewalk::tls::ServerTls;
use ropewalk::{BackendKind, Deferred, Port, Protocol, Reactor, Transport};
use ropewalk_bench::Result;
use ropewalk_bench::callgrind::Profile;
use ropewalk_bench::peers::Missing;
use ropewalk_bench::tls::NAME;
use rustls::{ClientConfig, ClientConnection, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

/// The largest ratio of instructions to those of tokio-rustls.
const LIMIT: f64 = 1.0;

/// Bytes of a request and of its answer.
const MESSAGE_BYTES: usize = 64;

/// Start of the name of the functions that are counted.
const COUNTED: &str = "tls_instructions::turn";

/// The longest wait for a peer. Arbitrary: a round takes less than a second under valgrind.
const WAIT_LIMIT: Duration = Duration::from_secs(60);

/// The argument with which the program runs a case.
const RUN: &str = "--run";

const CASES: [Case; 2] = [
    Case { name: "request", connections: 64, rounds: [20, 60], run: requests },
    Case { name: "handshake", connections: 8, rounds: [5, 25], run: handshakes },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        [] => compare(),
        [RUN, case, engine, rounds] => run(case, engine, rounds),
        _ => Err("usage: tls_instructions".into()),
    };
    let Err(error) = done else { return ExitCode::SUCCESS };
    match error.downcast_ref::<Missing>() {
        Some(missing) => println!("missing {missing}"),
        None => eprintln!("{error}"),
    }
    ExitCode::FAILURE
}

/// Measures all cases on all engines, and checks the ratios on mio.
fn compare() -> Result<()> {
    let mut failures = Vec::new();
    for case in &CASES {
        let theirs = case.measure(Engine::Tokio)?;
        println!("{} on {}: {theirs:.0} instructions", case.name, Engine::Tokio);
        for engine in [Engine::Mio, Engine::IoUring] {
            let ours = match case.measure(engine) {
                Err(error) if error.is::<Missing>() => {
                    println!("{} on {engine}: skipped: {error}", case.name);
                    continue;
                }
                ours => ours?,
            };
            let ratio = ours / theirs;
            println!("{} on {engine}: {ours:.0} instructions, {ratio:.3} of tokio-rustls", case.name);
            // A ring costs more instructions and fewer system calls, which are not counted here.
            if engine == Engine::Mio && ratio > LIMIT {
                failures.push(format!("{} takes more than {LIMIT} times the instructions of tokio-rustls", case.name));
            }
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n").into()) }
}

/// Runs a case, under valgrind as a rule.
fn run(case: &str, engine: &str, rounds: &str) -> Result<()> {
    let case = CASES.iter().find(|known| known.name == case).ok_or("no such case")?;
    let engine = Engine::ALL.into_iter().find(|known| known.to_string() == engine).ok_or("no such engine")?;
    (case.run)(&Server::new(engine)?, case.connections, rounds.parse()?)
}

/// A thing to count.
struct Case {
    name: &'static str,
    /// Connections of a round, each of which is one unit.
    connections: usize,
    /// Lengths of the two runs.
    rounds: [usize; 2],
    run: fn(&Server, connections: usize, rounds: usize) -> Result<()>,
}

impl Case {
    /// Counts the instructions of one unit.
    ///
    /// # Errors
    /// The backend is [`Missing`], or valgrind fails.
    fn measure(&self, engine: Engine) -> Result<f64> {
        let count = |rounds: usize| {
            let arguments = [RUN, self.name, &engine.to_string(), &rounds.to_string()];
            Profile::of_this_program(&arguments, COUNTED).map(|profile| profile.instructions as f64)
        };
        let [short, long] = self.rounds;
        Ok((count(long)? - count(short)?) / ((long - short) * self.connections) as f64)
    }
}

/// Makes rounds in each of which every client sends a request and is answered.
fn requests(server: &Server, connections: usize, rounds: usize) -> Result<()> {
    let mut clients = server.established(connections)?;
    for _ in 0..rounds {
        for client in &mut clients {
            client.session.writer().write_all(&[7; MESSAGE_BYTES])?;
            client.exchange()?;
        }
        let mut answered = 0;
        server.turn_until("answers", || {
            for client in &mut clients {
                client.exchange()?;
                answered += client.take_plain()?;
            }
            Ok(answered == connections * MESSAGE_BYTES)
        })?;
    }
    Ok(())
}

/// Makes rounds in each of which clients connect, make a handshake and close.
fn handshakes(server: &Server, connections: usize, rounds: usize) -> Result<()> {
    for _ in 0..rounds {
        let mut clients = server.established(connections)?;
        for client in &mut clients {
            client.session.send_close_notify();
            client.exchange()?;
            client.socket.shutdown(std::net::Shutdown::Write)?;
        }
        server.turn_until("ends", || {
            let mut ended = 0;
            for client in &mut clients {
                client.exchange()?;
                ended += usize::from(client.is_ended);
            }
            Ok(ended == connections)
        })?;
    }
    Ok(())
}

/// A client: rustls and a socket.
struct Client {
    socket: TcpStream,
    session: ClientConnection,
    is_ended: bool,
}

impl Client {
    fn new(address: SocketAddr, config: &Arc<ClientConfig>) -> Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let session = ClientConnection::new(Arc::clone(config), NAME.try_into()?)?;
        Ok(Self { socket, session, is_ended: false })
    }

    /// Sends and receives all that can be without waiting.
    fn exchange(&mut self) -> Result<()> {
        while !self.is_ended {
            while self.session.wants_write() {
                self.session.write_tls(&mut self.socket)?;
            }
            match self.session.read_tls(&mut self.socket) {
                Ok(0) => self.is_ended = true,
                Ok(_) => {
                    self.session.process_new_packets()?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Takes the received plaintext. Returns the number of its bytes.
    fn take_plain(&mut self) -> Result<usize> {
        match self.session.reader().read(&mut [0; MESSAGE_BYTES]) {
            Ok(0) => Err("the server has closed a connection".into()),
            Ok(count) => Ok(black_box(count)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(error.into()),
        }
    }
}

/// An engine that serves TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Engine {
    Tokio,
    Mio,
    IoUring,
}

impl Engine {
    const ALL: [Self; 3] = [Self::Tokio, Self::Mio, Self::IoUring];
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tokio => "tokio-rustls",
            Self::Mio => BackendKind::Mio.name(),
            Self::IoUring => BackendKind::IoUring.name(),
        })
    }
}

/// An echo server over TLS, with the configuration of its clients.
struct Server {
    engine: Box<dyn Turn>,
    address: SocketAddr,
    client: Arc<ClientConfig>,
}

/// A loop that can be turned.
trait Turn {
    fn turn(&self);
}

impl Server {
    /// # Errors
    /// The backend is [`Missing`].
    fn new(engine: Engine) -> Result<Self> {
        let (server, certificate) = ropewalk_bench::tls::server()?;
        let client = ropewalk_bench::tls::client(certificate)?;
        let (engine, address) = match engine {
            Engine::Tokio => serve_tokio(server)?,
            Engine::Mio => serve_ropewalk(server, BackendKind::Mio)?,
            Engine::IoUring => serve_ropewalk(server, BackendKind::IoUring)?,
        };
        Ok(Self { engine, address, client })
    }

    /// Returns clients that have made their handshakes.
    fn established(&self, connections: usize) -> Result<Vec<Client>> {
        let clients: Result<Vec<_>> = (0..connections).map(|_| Client::new(self.address, &self.client)).collect();
        let mut clients = clients?;
        self.turn_until("handshakes", || {
            for client in &mut clients {
                client.exchange()?;
            }
            // A client is done one flight before its server.
            Ok(clients.iter().all(|client| !client.session.is_handshaking()))
        })?;
        self.engine.turn();
        Ok(clients)
    }

    fn turn_until(&self, what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
        let end = Instant::now() + WAIT_LIMIT;
        while Instant::now() < end {
            self.engine.turn();
            if done()? {
                return Ok(());
            }
        }
        Err(format!("no {what} for {WAIT_LIMIT:?}").into())
    }
}

struct Ropewalk {
    reactor: Reactor,
    _listening: Deferred<Port>,
}

impl Turn for Ropewalk {
    fn turn(&self) {
        turn_ropewalk(&self.reactor);
    }
}

/// Turns the loop once, without waiting.
#[inline(never)]
fn turn_ropewalk(reactor: &Reactor) {
    reactor.iterate(Duration::ZERO).expect("the loop turns");
}

fn serve_ropewalk(config: Arc<ServerConfig>, backend: BackendKind) -> Result<(Box<dyn Turn>, SocketAddr)> {
    let reactor = Reactor::builder().signals(false).backend(backend).build()?;
    if reactor.backend() != backend {
        return Err(Missing(format!("the backend {} can't be had under valgrind here", backend.name())).into());
    }
    let endpoint = TcpServerEndpoint::bind_to(&reactor, "127.0.0.1:0".parse()?);
    let bound = Rc::new(Cell::new(None));
    let listening = wrap_server_tls(ServerTls::from(config), endpoint).listen(|_| Some(Echo)).add_callback({
        let bound = Rc::clone(&bound);
        move |port| {
            bound.set(port.host().socket_addr());
            Ok(port)
        }
    });
    let address = bound.take().ok_or("the port listens at once")?;
    Ok((Box::new(Ropewalk { reactor, _listening: listening }), address))
}

struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> ropewalk::Result<()> {
        transport.write(data);
        Ok(())
    }
}

struct Tokio(tokio::runtime::Runtime);

impl Turn for Tokio {
    fn turn(&self) {
        turn_tokio(&self.0);
    }
}

/// Turns the loop, without waiting, until the tasks of all ready connections have run. A yield of
/// the runtime's main future asks the poller, and the tasks run behind the next poll of that
/// future, up to 61 at a time.
#[inline(never)]
fn turn_tokio(runtime: &tokio::runtime::Runtime) {
    runtime.block_on(async {
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
    });
}

fn serve_tokio(config: Arc<ServerConfig>) -> Result<(Box<dyn Turn>, SocketAddr)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))?;
    let address = listener.local_addr()?;
    let acceptor = TlsAcceptor::from(config);
    runtime.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            // As Ropewalk does.
            stream.set_nodelay(true).expect("a TCP socket");
            tokio::spawn(echo(stream, acceptor.clone()));
        }
    });
    Ok((Box::new(Tokio(runtime)), address))
}

async fn echo(stream: tokio::net::TcpStream, acceptor: TlsAcceptor) {
    let mut stream = acceptor.accept(stream).await.expect("a handshake");
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer).await.expect("bytes, or an end") {
            0 => break,
            count => stream.write_all(&buffer[..count]).await.expect("room in the socket"),
        }
        stream.flush().await.expect("room in the socket");
    }
    stream.shutdown().await.expect("an open socket");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without valgrind too, each case comes to its end on each engine.
    #[test]
    fn cases_run() {
        for case in &CASES {
            for engine in Engine::ALL {
                match Server::new(engine) {
                    Err(error) if error.is::<Missing>() => println!("{engine}: skipped: {error}"),
                    server => (case.run)(&server.unwrap(), case.connections, 2).unwrap(),
                }
            }
        }
    }
}
