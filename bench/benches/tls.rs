//! TLS over the loopback interface, beside tokio-rustls: bytes a second on one connection, and full
//! handshakes a second.
//!
//! `cargo bench -p ropewalk-bench --bench tls [-- --rounds N]`
//!
//! Both engines have the same configuration of the same TLS library, one thread for the server and
//! one for the client, and write 64 KiB at a time. Connections are closed in good order: both ends
//! of TLS and both ends of TCP. The engines alternate, so that a change of the machine's speed
//! affects both. The ratio of a round is that of its two halves, and the printed figures are
//! medians. CPU seconds are those of the whole process.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ropewalk::endpoints::{
    ClientEndpoint, ClientEndpointExt, ServerEndpointExt, TcpClientEndpoint, TcpServerEndpoint, wrap_client_tls,
    wrap_server_tls,
};
use ropewalk::tls::{ClientTls, ServerTls};
use ropewalk::transport::{Producer, Streaming};
use ropewalk::{Failure, Protocol, Reactor, Result, Transport};
use ropewalk_bench::tls::NAME;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const WRITE_BYTES: usize = 64 * 1024;

/// Number of bytes that half a round sends, and number of handshakes that it makes.
const BYTES: usize = 1 << 30;
const HANDSHAKES: usize = 2000;

/// Number of handshakes in progress at a time.
const HANDSHAKES_AT_ONCE: usize = 8;

/// TLS configurations for both engines.
#[derive(Clone)]
struct Configs {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

fn configs() -> Configs {
    let (server, certificate) = ropewalk_bench::tls::server().expect("a certificate");
    // Every handshake of this client is a full one.
    let client = ropewalk_bench::tls::client(certificate).expect("a certificate");
    Configs { server, client }
}

/// Time that half a round took, in seconds.
#[derive(Clone, Copy)]
struct Cost {
    wall: f64,
    cpu: f64,
}

fn cost(work: impl FnOnce()) -> Cost {
    let (begun, cpu) = (Instant::now(), cpu_time());
    work();
    Cost { wall: begun.elapsed().as_secs_f64(), cpu: (cpu_time() - cpu).as_secs_f64() }
}

/// Returns the CPU time of all threads of this process (Linux: fields 14 and 15 of
/// `/proc/self/stat`, in ticks of 10 ms).
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let after_name = stat.rsplit(") ").next().expect("a name in parentheses");
    let ticks: u64 = after_name.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(10 * ticks)
}

mod ours {
    use super::*;

    struct Sink {
        left: usize,
    }

    impl Protocol for Sink {
        fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
            self.left = self.left.saturating_sub(data.len());
            if self.left == 0 {
                transport.lose_connection();
            }
            Ok(())
        }
    }

    struct Source {
        reactor: Reactor,
        left: usize,
    }

    struct ChunkProducer(usize, Rc<[u8]>);

    impl Producer for ChunkProducer {
        fn resume_producing(&mut self, consumer: &Transport) -> Result<()> {
            consumer.write(&self.1);
            self.0 = self.0.saturating_sub(self.1.len());
            if self.0 == 0 {
                consumer.unregister_producer();
            }
            Ok(())
        }

        fn stop_producing(&mut self, _consumer: &Transport) {}
    }

    impl Protocol for Source {
        fn connection_made(&mut self, transport: &Transport) -> Result<()> {
            Ok(transport.register_producer(ChunkProducer(self.left, vec![7; WRITE_BYTES].into()), Streaming::Pull)?)
        }

        fn data_received(&mut self, _: &Transport, _: &[u8]) -> Result<()> {
            Ok(())
        }

        fn connection_lost(&mut self, _: &Transport, _: &Failure) {
            self.reactor.stop().expect("the reactor runs");
        }
    }

    /// Starts a server in a thread. It stops once its last connection is closed.
    fn serve(configs: &Configs, bytes: usize, connections: usize) -> (SocketAddr, thread::JoinHandle<()>) {
        let (address_sender, address_receiver) = std::sync::mpsc::channel();
        let tls = ServerTls::from(Arc::clone(&configs.server));
        let server = thread::spawn(move || {
            let reactor = Reactor::builder().signals(false).build().expect("a poller");
            let left = Rc::new(Cell::new(connections));
            let factory = {
                let reactor = reactor.clone();
                move |_| {
                    Some(CountedSink { inner: Sink { left: bytes }, left: Rc::clone(&left), reactor: reactor.clone() })
                }
            };
            let endpoint = wrap_server_tls(tls, TcpServerEndpoint::bind_to(&reactor, ([127, 0, 0, 1], 0).into()));
            let listening = endpoint.listen(factory).add_callback(move |port| {
                address_sender
                    .send(port.host().socket_addr().expect("a TCP port"))
                    .expect("the main thread waits for the address");
                Ok(port)
            });
            reactor.run().expect("the reactor runs");
            drop(listening);
        });
        (address_receiver.recv().expect("the server listens"), server)
    }

    struct CountedSink {
        inner: Sink,
        left: Rc<Cell<usize>>,
        reactor: Reactor,
    }

    impl Protocol for CountedSink {
        fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
            self.inner.data_received(transport, data)
        }

        fn connection_lost(&mut self, _: &Transport, _: &Failure) {
            self.left.set(self.left.get() - 1);
            if self.left.get() == 0 {
                self.reactor.stop().expect("the reactor runs");
            }
        }
    }

    fn client(configs: &Configs, reactor: &Reactor, to: SocketAddr) -> impl ClientEndpoint + use<> {
        let tls = ClientTls::from_rustls(Arc::clone(&configs.client), NAME).expect("a name");
        wrap_client_tls(tls, TcpClientEndpoint::new(reactor, to))
    }

    pub(super) fn bulk(configs: &Configs) {
        let (to, server) = serve(configs, BYTES, 1);
        let reactor = Reactor::builder().signals(false).build().expect("a poller");
        let mut source = Some(Source { reactor: reactor.clone(), left: BYTES });
        drop(client(configs, &reactor, to).connect(move |_| source.take()));
        reactor.run().expect("the reactor runs");
        server.join().expect("the task did not panic");
    }

    struct HandshakeClient {
        reactor: Reactor,
        endpoint: Rc<dyn ClientEndpoint>,
        left: Rc<Cell<usize>>,
    }

    impl HandshakeClient {
        fn begin(reactor: &Reactor, endpoint: &Rc<dyn ClientEndpoint>, left: &Rc<Cell<usize>>) {
            let (reactor, next, left) = (reactor.clone(), Rc::clone(endpoint), Rc::clone(left));
            let client = Self { reactor, endpoint: next, left };
            drop(ropewalk::endpoints::connect_protocol(&**endpoint, client));
        }
    }

    impl Protocol for HandshakeClient {
        fn handshake_completed(&mut self, transport: &Transport) -> Result<()> {
            transport.lose_connection();
            Ok(())
        }

        fn data_received(&mut self, _: &Transport, _: &[u8]) -> Result<()> {
            Ok(())
        }

        fn connection_lost(&mut self, _: &Transport, _: &Failure) {
            self.left.set(self.left.get() - 1);
            match self.left.get() {
                0 => self.reactor.stop().expect("the reactor runs"),
                left if left >= HANDSHAKES_AT_ONCE => Self::begin(&self.reactor, &self.endpoint, &self.left),
                _ => {}
            }
        }
    }

    pub(super) fn handshakes(configs: &Configs) {
        let (to, server) = serve(configs, 1, HANDSHAKES);
        let reactor = Reactor::builder().signals(false).build().expect("a poller");
        let endpoint: Rc<dyn ClientEndpoint> = Rc::new(client(configs, &reactor, to));
        let left = Rc::new(Cell::new(HANDSHAKES));
        for _ in 0..HANDSHAKES_AT_ONCE {
            HandshakeClient::begin(&reactor, &endpoint, &left);
        }
        reactor.run().expect("the reactor runs");
        server.join().expect("the task did not panic");
    }
}

mod tokios {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime")
    }

    fn serve(configs: &Configs, bytes: usize, connections: usize) -> (SocketAddr, thread::JoinHandle<()>) {
        let (address_sender, address_receiver) = std::sync::mpsc::channel();
        let acceptor = TlsAcceptor::from(Arc::clone(&configs.server));
        let server = thread::spawn(move || {
            let runtime = runtime();
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
                address_sender
                    .send(listener.local_addr().expect("an address"))
                    .expect("the main thread waits for the address");
                let mut tasks = Vec::new();
                for _ in 0..connections {
                    let (stream, _) = listener.accept().await.expect("a connection");
                    let acceptor = acceptor.clone();
                    tasks.push(tokio::task::spawn_local(async move {
                        let mut stream = acceptor.accept(stream).await.expect("a handshake");
                        let (mut buffer, mut left) = (vec![0; WRITE_BYTES], bytes);
                        while left > 0 {
                            match stream.read(&mut buffer).await.expect("bytes") {
                                0 => break,
                                count => left = left.saturating_sub(count),
                            }
                        }
                        // A client that has already closed is no error.
                        drop(stream.shutdown().await);
                    }));
                }
                for task in tasks {
                    task.await.expect("the task did not panic");
                }
            });
        });
        (address_receiver.recv().expect("the server listens"), server)
    }

    pub(super) fn bulk(configs: &Configs) {
        let (to, server) = serve(configs, BYTES, 1);
        let connector = TlsConnector::from(Arc::clone(&configs.client));
        runtime().block_on(async {
            let stream = tokio::net::TcpStream::connect(to).await.expect("the server listens");
            let mut stream = connector.connect(NAME.try_into().expect("a name"), stream).await.expect("a handshake");
            let (piece, mut left) = (vec![7; WRITE_BYTES], BYTES);
            while left > 0 {
                stream.write_all(&piece).await.expect("the server reads");
                left = left.saturating_sub(WRITE_BYTES);
            }
            stream.flush().await.expect("the server reads");
            assert_eq!(stream.read(&mut [0; 1]).await.expect("an end"), 0);
        });
        server.join().expect("the task did not panic");
    }

    pub(super) fn handshakes(configs: &Configs) {
        let (to, server) = serve(configs, 1, HANDSHAKES);
        let connector = TlsConnector::from(Arc::clone(&configs.client));
        let (runtime, local) = (runtime(), tokio::task::LocalSet::new());
        local.block_on(&runtime, async {
            let left = Rc::new(Cell::new(HANDSHAKES));
            let tasks: Vec<_> = (0..HANDSHAKES_AT_ONCE)
                .map(|_| {
                    let (left, connector) = (Rc::clone(&left), connector.clone());
                    tokio::task::spawn_local(async move {
                        while left.get() > 0 {
                            left.set(left.get() - 1);
                            let stream = tokio::net::TcpStream::connect(to).await.expect("the server listens");
                            let name = NAME.try_into().expect("a name");
                            let mut stream = connector.connect(name, stream).await.expect("a handshake");
                            stream.shutdown().await.expect("the connection is open");
                            // As the client of Ropewalk does, so that late bytes of the server are
                            // not answered with a reset.
                            while stream.read(&mut [0; 1024]).await.expect("an end") > 0 {}
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.expect("the task did not panic");
            }
        });
        server.join().expect("the task did not panic");
    }
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

fn compare(what: &str, unit: &str, amount: f64, rounds: usize, ours: impl Fn(), theirs: impl Fn()) {
    // Warm-up.
    ours();
    theirs();
    let mut results = Vec::new();
    for round in 1..=rounds {
        eprint!("\r{what}: round {round} of {rounds} ");
        // The engine that begins alternates.
        let pair = if round % 2 == 0 {
            let first = cost(&ours);
            (first, cost(&theirs))
        } else {
            let first = cost(&theirs);
            (cost(&ours), first)
        };
        results.push(pair);
    }
    eprintln!();
    let of = |pick: &dyn Fn(&(Cost, Cost)) -> f64| median(results.iter().map(pick).collect());
    println!("{what}, {rounds} rounds");
    println!("  ropewalk      {:10.1} {unit}/s   {:.2} s of CPU", amount / of(&|it| it.0.wall), of(&|it| it.0.cpu));
    println!("  tokio-rustls  {:10.1} {unit}/s   {:.2} s of CPU", amount / of(&|it| it.1.wall), of(&|it| it.1.cpu));
    println!(
        "  ratio         {:10.2}            {:.2}",
        of(&|it| it.1.wall / it.0.wall),
        of(&|it| it.0.cpu / it.1.cpu)
    );
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let after = arguments.iter().position(|argument| argument == "--rounds").map(|at| at + 1);
    let rounds =
        after.and_then(|at| arguments.get(at)).map_or(11, |rounds| rounds.parse().expect("a number of rounds"));
    let configs = configs();
    let mebibytes = (BYTES >> 20) as f64;
    compare("bytes", "MiB", mebibytes, rounds, || ours::bulk(&configs), || tokios::bulk(&configs));
    let count = HANDSHAKES as f64;
    compare("full handshakes", "", count, rounds, || ours::handshakes(&configs), || tokios::handshakes(&configs));
}
