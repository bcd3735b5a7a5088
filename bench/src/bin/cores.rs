//! `cores`: servers with one and with two threads, beside one another, and the spread of
//! connections over the threads of a group.
//!
//! | call | prints |
//! |---|---|
//! | `cores [ROUNDS]` | CPU for an echo and for a short connection, and messages in a second, of each server |
//! | `cores figures ROUNDS` | the same, in lines for `compare`, and `end` |
//! | `cores spread` | the connections that each of four threads gets, by both ways of sharing a port |
//! | `cores serve SERVER` | `ready PORT`, and serves until its parent ends |
//!
//! SERVER is `KIND-THREADS`, such as `mio-2`: `mio` and `io_uring` are groups that hand connections
//! over, `mio-reuse` and `io_uring-reuse` groups with `SO_REUSEPORT`, and `tokio` is tokio's
//! runtime with that many workers.
//!
//! The servers are processes of their own, and no thread is pinned. The load generators are two
//! threads of this process, so they share the cores with the server. CPU is counted as in
//! `compare`: by the scheduler, for all threads of the server, while it sleeps. Windows of all
//! servers alternate, and a figure is the median over the rounds.

use std::convert::Infallible;
use std::env::{args, current_exe};
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use ropewalk::interfaces::*;
use ropewalk::reactor::{PortSharing, ReactorGroup};
use ropewalk::{BackendKind, Transport, for_protocol};
use ropewalk_bench::Result;
use ropewalk_bench::load::{LoadGenerator, StopCondition, Window};
use ropewalk_bench::process::Process;
use ropewalk_bench::results::CoresCost;
use ropewalk_bench::system::{cpu_time, end_with_parent, raise_descriptor_limit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Load generators: one for each core of the machine that the figures are from.
const GENERATORS: usize = 2;

/// Connections of each generator, and those that it has open at a time when they are short.
const CONNECTIONS: usize = 32;
const SHORT_AT_ONCE: usize = 8;

/// Source addresses of a generator, so that short connections do not run out of ports.
const SOURCES: u32 = 16;

const MESSAGE_BYTES: usize = 64;
const WINDOW: Duration = Duration::from_millis(200);
const ROUNDS: usize = 15;
const READY_LIMIT: Duration = Duration::from_secs(10);

/// Size of a connection's buffer in tokio's server, as in the other comparisons.
const BUFFER_BYTES: usize = 16 << 10;

const SERVERS: [&str; 10] = [
    "mio-1",
    "mio-2",
    "mio-reuse-2",
    "io_uring-1",
    "io_uring-2",
    "io_uring-reuse-2",
    "tokio-1",
    "tokio-2",
    "mio-4",
    "tokio-4",
];

/// The threads of a group whose spread is printed, and the numbers of connections.
const SPREAD_THREADS: usize = 4;
const SPREAD_CONNECTIONS: [usize; 4] = [8, 64, 1_000, 5_000];

struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> ropewalk::Result<()> {
        transport.write(data);
        Ok(())
    }
}

/// A server, its load, and its figures so far.
struct Server {
    process: Process,
    generators: Vec<Generator>,
    echoes: Vec<Figures>,
    short: Vec<Figures>,
}

#[derive(Clone, Copy)]
struct Figures {
    /// Nanoseconds of CPU for each message.
    cpu: f64,
    /// Messages in a second.
    rate: f64,
}

/// A load generator on a thread of its own.
struct Generator {
    orders: Sender<Order>,
    windows: Receiver<Result<Window, String>>,
}

#[derive(Clone, Copy)]
enum Order {
    /// Opens the connections that echo.
    Open,
    Echo,
    /// Opens short connections. The others close.
    Short,
}

impl Generator {
    fn start(server: SocketAddr, source: u32) -> Self {
        let ((orders, taken), (done, windows)) = (mpsc::channel(), mpsc::channel());
        thread::spawn(move || {
            let mut load = LoadGenerator::new(server, MESSAGE_BYTES, 1, source);
            for order in taken {
                let result = match &mut load {
                    Ok(load) => execute(load, order).map_err(|error| error.to_string()),
                    Err(error) => Err(error.to_string()),
                };
                if done.send(result).is_err() {
                    return;
                }
            }
        });
        Self { orders, windows }
    }
}

fn execute(load: &mut LoadGenerator, order: Order) -> Result<Window> {
    match order {
        Order::Open => load.grow(CONNECTIONS).map(|()| Window::default()),
        Order::Echo => load.echo(StopCondition::Time(WINDOW), CONNECTIONS),
        Order::Short => load.churn(WINDOW, SHORT_AT_ONCE),
    }
}

impl Server {
    fn start(number: usize, name: &'static str) -> Result<Self> {
        let mut command = Command::new(current_exe()?);
        let mut process = Process::start(name, command.args(["serve", name]))?;
        let line = process.line(READY_LIMIT)?;
        let port: u16 = line.strip_prefix("ready ").ok_or("it is not ready")?.parse()?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let source = |generator: usize| (number * GENERATORS + generator) as u32 * SOURCES;
        let generators = (0..GENERATORS).map(|generator| Generator::start(address, source(generator))).collect();
        Ok(Self { process, generators, echoes: Vec::new(), short: Vec::new() })
    }

    /// Has all generators execute an order at once, and counts the CPU of the server.
    fn window(&self, order: Order) -> Result<Figures> {
        let before = cpu_time(self.process.id())?;
        for generator in &self.generators {
            generator.orders.send(order)?;
        }
        let (mut messages, mut rate) = (0, 0.0);
        for generator in &self.generators {
            let window = generator.windows.recv()??;
            messages += window.messages;
            rate += window.messages as f64 / window.nanoseconds as f64 * 1e9;
        }
        let cpu = cpu_time(self.process.id())? - before;
        Ok(Figures { cpu: cpu as f64 / messages as f64, rate })
    }
}

/// Prints a table for people.
fn print_table(rounds: usize) -> Result<()> {
    println!("| server | CPU for an echo, ns | echoes in a second | CPU for a short connection, ns | in a second |");
    println!("|---|---|---|---|---|");
    for (name, cost) in compare(rounds)? {
        match cost.map(figures) {
            Ok(figures) => println!("| {name} | {} |", figures.map(|it| format!("{it:.0}")).join(" | ")),
            Err(error) => println!("| {name} | missing: {error} | | | |"),
        }
    }
    Ok(())
}

/// Prints lines for the program `compare`.
fn print_figures(rounds: usize) -> Result<()> {
    for (name, cost) in compare(rounds)? {
        match cost.map(figures) {
            Ok(figures) => println!("figures {name} {}", figures.map(|it| it.to_string()).join(" ")),
            Err(error) => println!("missing {name} {}", error.replace('\n', " ")),
        }
    }
    println!("end");
    Ok(())
}

fn figures(cost: CoresCost) -> [f64; 4] {
    [cost.echo, cost.echoes_per_second, cost.connection, cost.connections_per_second]
}

/// Measures all servers. A server that does not start has its error.
fn compare(rounds: usize) -> Result<Vec<(&'static str, Result<CoresCost, String>)>> {
    raise_descriptor_limit()?;
    let started = SERVERS.into_iter().enumerate().map(|(number, name)| (name, Server::start(number, name)));
    let mut servers: Vec<_> = started.collect();
    let count = servers.len();
    for round in 0..rounds {
        for place in 0..count {
            // The order alternates, so that no server always follows the same one.
            let (_, server) = &mut servers[if round % 2 == 0 { place } else { count - 1 - place }];
            let Ok(server) = server else { continue };
            server.window(Order::Open)?;
            server.echoes.push(server.window(Order::Echo)?);
            server.short.push(server.window(Order::Short)?);
        }
    }
    let cost = |server: Server| {
        let (echo, short) = (medians(&server.echoes), medians(&server.short));
        CoresCost {
            echo: echo.cpu,
            echoes_per_second: echo.rate,
            connection: short.cpu,
            connections_per_second: short.rate,
        }
    };
    let costs = servers.into_iter().map(|(name, server)| (name, server.map(cost).map_err(|error| error.to_string())));
    Ok(costs.collect())
}

fn medians(all: &[Figures]) -> Figures {
    let median = |figure: fn(&Figures) -> f64| {
        let mut sorted: Vec<f64> = all.iter().map(figure).collect();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    };
    Figures { cpu: median(|figures| figures.cpu), rate: median(|figures| figures.rate) }
}

fn serve(server: &str) -> Result<Infallible> {
    end_with_parent()?;
    raise_descriptor_limit()?;
    let (kind, threads) = server.rsplit_once('-').ok_or("a server is KIND-THREADS")?;
    let threads = threads.parse()?;
    let backend = if kind.starts_with("io_uring") { BackendKind::IoUring } else { BackendKind::Mio };
    let sharing = if kind.ends_with("-reuse") { PortSharing::ReusePort } else { PortSharing::HandOver };
    match kind {
        "tokio" => serve_tokio(threads),
        "mio" | "io_uring" | "mio-reuse" | "io_uring-reuse" => {
            let builder = ReactorGroup::builder().threads(threads).backend(backend).port_sharing(sharing);
            let group = builder.listen("tcp:0:interface=127.0.0.1", |_| Ok(for_protocol(|_| Echo))).started(|group| {
                println!("ready {}", group.addresses()[0].port().unwrap_or(0));
            });
            Err(format!("the group ended: {:?}", group.run()?).into())
        }
        _ => Err(format!("unknown kind of server: {kind}").into()),
    }
}

fn serve_tokio(threads: usize) -> Result<Infallible> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_io().build()?;
    // The accepting task runs on a worker, as those of the connections do.
    let accepting = runtime.spawn(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        println!("ready {}", listener.local_addr()?.port());
        loop {
            let (mut stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(async move {
                let mut buffer = vec![0; BUFFER_BYTES];
                loop {
                    match stream.read(&mut buffer).await? {
                        0 => return std::io::Result::Ok(()),
                        count => stream.write_all(&buffer[..count]).await?,
                    }
                }
            });
        }
    });
    let Err::<Infallible, std::io::Error>(error) = runtime.block_on(accepting)?;
    Err(error.into())
}

/// Greets, so that a client knows when it is counted.
struct Counted(Arc<AtomicUsize>);

impl Protocol for Counted {
    fn connection_made(&mut self, transport: &Transport) -> ropewalk::Result<()> {
        self.0.fetch_add(1, Ordering::Relaxed);
        transport.write(b"!");
        Ok(())
    }

    fn data_received(&mut self, _transport: &Transport, _data: &[u8]) -> ropewalk::Result<()> {
        Ok(())
    }
}

/// Opens connections that stay open, one after the other, and prints the spread.
fn spread() -> Result<()> {
    raise_descriptor_limit()?;
    println!("| backend | sharing | connections | on each of {SPREAD_THREADS} threads | most, against the mean |");
    println!("|---|---|---|---|---|");
    for backend in [BackendKind::Mio, BackendKind::IoUring] {
        for sharing in [PortSharing::HandOver, PortSharing::ReusePort] {
            for connections in SPREAD_CONNECTIONS {
                let counts = spread_of(backend, sharing, connections)?;
                let most = counts.iter().max().copied().unwrap_or(0) as f64;
                let of_mean = most * SPREAD_THREADS as f64 / connections as f64;
                println!("| {} | {sharing:?} | {connections} | {counts:?} | {of_mean:.2} |", backend.name());
            }
        }
    }
    Ok(())
}

fn spread_of(backend: BackendKind, sharing: PortSharing, connections: usize) -> Result<Vec<usize>> {
    let counts: Arc<Vec<Arc<AtomicUsize>>> = Arc::new((0..SPREAD_THREADS).map(|_| Arc::default()).collect());
    let counted = Arc::clone(&counts);
    let builder = ReactorGroup::builder().threads(SPREAD_THREADS).backend(backend).port_sharing(sharing).signals(false);
    let group = builder.listen("tcp:0:interface=127.0.0.1", move |member| {
        let count = Arc::clone(&counted[member.index()]);
        Ok(for_protocol(move |_| Counted(Arc::clone(&count))))
    });
    let group = group.start()?;
    let address = group.addresses()[0].socket_addr().ok_or("a TCP port has an address")?;
    let mut open = Vec::new();
    for _ in 0..connections {
        let mut stream = TcpStream::connect(address)?;
        stream.read_exact(&mut [0])?;
        open.push(stream);
    }
    Ok(counts.iter().map(|count| count.load(Ordering::Relaxed)).collect())
}

fn run() -> Result<()> {
    let arguments: Vec<String> = args().skip(1).collect();
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => print_table(ROUNDS),
        ["spread"] => spread(),
        ["serve", server] => serve(server).map(|never| match never {}),
        ["figures", rounds] => print_figures(rounds.parse()?),
        [rounds] => print_table(rounds.parse()?),
        _ => Err("usage: cores [ROUNDS] | cores figures ROUNDS | cores spread | cores serve SERVER".into()),
    }
}

fn main() -> ExitCode {
    let Err(error) = run() else { return ExitCode::SUCCESS };
    eprintln!("{error}");
    ExitCode::FAILURE
}
