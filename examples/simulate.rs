//! A soak test of the engine on simulated networks, with one seed after another. An echo server and
//! twenty clients meet every kind of fault: latency, slow links, single bytes, short writes,
//! Nagle's algorithm, partitions, resets, peers that send urgent bytes and do not read, descriptors
//! that run out, and backends that misbehave.
//!
//! ```sh
//! cargo run --release --example simulate -- --seeds 10000            # from seed 0 on
//! cargo run --release --example simulate -- --from 4711 --seeds 1    # one seed again
//! ```
//!
//! Each seed checks these invariants:
//!
//! - a client receives a prefix of the bytes that it sent, and nothing else;
//! - a protocol is made once and lost once, last, and no callback runs inside another;
//! - a client receives everything, unless its connection was refused, was reset by the seed, or was
//!   shed by a server without descriptors;
//! - no socket is open at the end.
//!
//! The first seed that breaks one is printed with its trace. The seed alone is enough to replay the
//! run.

use std::cell::{Cell, RefCell};
use std::env;
use std::io::{self, IsTerminal, Write};
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ropewalk::endpoints::{client_from_string, server_from_string};
use ropewalk::error::ConnectionClosed;
use ropewalk::interfaces::*;
use ropewalk::testing::{Conditions, Network, Witness};
use ropewalk::{Failure, Reactor, Result, Transport, for_protocol};

const CLIENTS: usize = 20;

/// Virtual time of a seed. The slowest networks take some minutes of it.
const RUN_LIMIT: Duration = Duration::from_secs(24 * 3600);

const SERVER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        transport.write(data);
        Ok(())
    }
}

/// The result of a client.
#[derive(Default)]
struct Fate {
    heard: Cell<usize>,
    heard_all: Cell<bool>,
    /// True if the seed resets the connection, if connecting failed, or if the server runs out of
    /// descriptors.
    harmed: Cell<bool>,
    over: Cell<bool>,
}

/// Sends a message in pieces, and closes when all of it has come back.
struct Asker {
    message: Rc<Vec<u8>>,
    fate: Rc<Fate>,
    witness: Witness,
}

impl Protocol for Asker {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        for piece in self.message.chunks(self.message.len() / 3 + 1) {
            transport.write(piece);
        }
        Ok(())
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        let heard = self.fate.heard.get();
        if self.message.get(heard..heard + data.len()) != Some(data) {
            self.witness.fault(format!("after {heard} bytes something else came back"));
        }
        self.fate.heard.set(heard + data.len());
        if heard + data.len() == self.message.len() {
            self.fate.heard_all.set(true);
            transport.lose_connection();
        }
        Ok(())
    }

    fn connection_lost(&mut self, _transport: &Transport, reason: &Failure) {
        self.fate.over.set(true);
        // A failed callback is a fault of the engine, whatever the network does.
        if reason.check::<ConnectionClosed>().is_none() {
            self.witness.fault(reason.to_string());
        }
    }
}

/// Runs one seed. Everything that happens is drawn from it.
fn simulate(network: &Network) -> Result<()> {
    let (seed, witness) = (network.seed(), Witness::new());
    let mut draw = Draw(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let server = network.reactor(SERVER);
    network.add_name("echo.example", [SERVER]);
    let description = format!("tcp:7:backlog=8:noDelay={}", draw.below(2));
    let echoes = witness.factory(for_protocol(|_| Echo));
    server_from_string(&server, &description)?.listen(echoes).or_log("listening");
    let mut reactors = vec![server.clone()];
    let mut fates = Vec::new();
    for n in 0..CLIENTS {
        let host: IpAddr = [10, 0, 1, n as u8].into();
        let client = network.reactor(host);
        let fate = Rc::new(Fate::default());
        let message: Rc<Vec<u8>> =
            Rc::new((0..draw.below(400) + 1).map(|place| (place * 31 + n as u64) as u8).collect());
        let description = format!("tcp:echo.example:7:timeout=600:noDelay={}", draw.below(2));
        start(&client, description, &message, &fate, &witness, Duration::from_millis(draw.below(5_000)));
        if draw.below(4) == 0 {
            part(network, &client, host, &mut draw);
        }
        if draw.below(4) == 0 {
            fate.harmed.set(true);
        }
        reactors.push(client);
        fates.push(fate);
    }
    for _ in 0..draw.below(4) {
        intrude(network, &server, &mut draw);
    }
    if draw.below(3) == 0 {
        starve(network, &server, &mut draw);
        // A server without descriptors may drop any client.
        fates.iter().for_each(|fate| fate.harmed.set(true));
    }
    network.run_until(RUN_LIMIT, || {
        witness.check();
        fates.iter().all(|fate| fate.over.get())
    })?;
    let incomplete = fates.iter().position(|fate| !fate.harmed.get() && !fate.heard_all.get());
    assert_eq!(incomplete, None, "an unharmed client did not receive everything");
    for reactor in &reactors {
        reactor.stop()?;
    }
    network.run_for(Duration::from_secs(30))?;
    for reactor in &reactors {
        assert_eq!(network.open_sockets(reactor), 0, "sockets were left open");
    }
    witness.assert_all_lost();
    // A call that still waits to give descriptors back keeps the server.
    Ok(server.close()?)
}

/// Connects a client after a while. If the seed says so, the client resets its connection in the
/// middle.
fn start(
    client: &Reactor,
    description: String,
    message: &Rc<Vec<u8>>,
    fate: &Rc<Fate>,
    witness: &Witness,
    after: Duration,
) {
    let (reactor, message, fate, witness) = (client.clone(), Rc::clone(message), Rc::clone(fate), witness.clone());
    client.call_later(after, move || {
        let (told, failed, noted) = (Rc::clone(&fate), Rc::clone(&fate), witness.clone());
        let factory = witness.factory(for_protocol(move |_| Asker {
            message: Rc::clone(&message),
            fate: Rc::clone(&told),
            witness: noted.clone(),
        }));
        let endpoint = match client_from_string(&reactor, &description) {
            Ok(endpoint) => endpoint,
            Err(error) => unreachable!("the description is right: {error}"),
        };
        let connecting = endpoint.connect(factory).add_callbacks(
            move |connection| {
                if fate.harmed.get() {
                    let transport = connection.transport().clone();
                    reactor.call_later(Duration::from_millis(120), move || transport.abort_connection());
                }
            },
            move |_failure| {
                failed.harmed.set(true);
                failed.over.set(true);
            },
        );
        connecting.or_log("connecting");
    });
}

/// Cuts a client off from the server for a while.
fn part(network: &Network, client: &Reactor, host: IpAddr, draw: &mut Draw) {
    let (parts, heals) = (network.clone(), network.clone());
    let from = Duration::from_millis(draw.below(3_000));
    client.call_later(from, move || parts.partition(host, SERVER));
    client.call_later(from + Duration::from_millis(draw.below(10_000)), move || heals.heal(host, SERVER));
}

/// A hostile peer. It sends a few bytes, one of them urgent. Then it closes or aborts with the
/// answer unread, or ends its direction and stays.
fn intrude(network: &Network, server: &Reactor, draw: &mut Draw) {
    let (after, goes) = (Duration::from_millis(draw.below(4_000)), draw.below(3));
    let intruder = Rc::new(RefCell::new(None));
    let (network, connects, sends) = (network.clone(), Rc::clone(&intruder), Rc::clone(&intruder));
    server.call_later(after, move || drop(connects.replace(Some(network.connect((SERVER, 7).into())))));
    server.call_later(after + Duration::from_millis(400), move || {
        if let Some(peer) = &*sends.borrow() {
            // A peer that is not connected yet, or no longer, sends nothing.
            let _ = peer.write(b"hello").and_then(|_| peer.write_urgent(b'!')).and_then(|_| peer.write(b"there"));
        }
    });
    server.call_later(after + Duration::from_millis(600), move || match intruder.take() {
        Some(peer) if goes == 0 => peer.close(),
        Some(peer) if goes == 1 => peer.abort(),
        // A peer that is not connected has no direction to end.
        Some(peer) => drop(peer.shut_down()),
        None => {}
    });
}

/// Takes descriptors away from the server for a while.
fn starve(network: &Network, server: &Reactor, draw: &mut Draw) {
    let limit = draw.below(8) as usize + 1;
    for (after, limit) in [(1_000, Some(limit)), (4_000, None)] {
        let (network, reactor) = (network.clone(), server.clone());
        server.call_later(Duration::from_millis(after), move || network.limit_descriptors(&reactor, limit));
    }
}

/// Numbers that look random (xorshift).
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Runs a seed, and returns what went wrong.
pub(crate) fn run(seed: u64, traced: bool) -> (Network, std::result::Result<(), String>) {
    let network = Network::with_conditions(seed, Conditions::rough(seed));
    if traced {
        network.keep_trace();
    }
    let ended = catch_unwind(AssertUnwindSafe(|| simulate(&network)));
    let wrong = match ended {
        Ok(Ok(())) => Ok(()),
        Ok(Err(failure)) => Err(failure.to_string()),
        Err(panic) => Err(panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "a panic".to_owned())),
    };
    (network, wrong)
}

fn main() -> ExitCode {
    let (from, seeds) = match arguments() {
        Ok(arguments) => arguments,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::FAILURE;
        }
    };
    let progress = Progress { started: Instant::now(), shown: Cell::new(None), seeds };
    for (done, seed) in (from..from.saturating_add(seeds)).enumerate() {
        let (_, wrong) = run(seed, false);
        if let Err(message) = wrong {
            let (network, _) = run(seed, true);
            println!("\nseed {seed} failed: {message}\n{}", network.trace());
            println!("again: cargo run --release --example simulate -- --from {seed} --seeds 1");
            return ExitCode::FAILURE;
        }
        progress.show(done as u64 + 1);
    }
    let took = progress.started.elapsed();
    println!(
        "{seeds} seeds from {from}, {CLIENTS} connections each: all well, {:.0} seeds a second",
        seeds as f64 / took.as_secs_f64()
    );
    ExitCode::SUCCESS
}

fn arguments() -> std::result::Result<(u64, u64), String> {
    const USAGE: &str = "usage: simulate [--from SEED] [--seeds N]";
    let (mut from, mut seeds) = (0, 1000);
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let place = match &*argument {
            "--from" => &mut from,
            "--seeds" => &mut seeds,
            other => return Err(format!("unknown argument {other:?}; {USAGE}")),
        };
        let value = arguments.next().ok_or_else(|| format!("{argument} needs a number; {USAGE}"))?;
        *place = value.parse().map_err(|error| format!("{argument} {value}: {error}; {USAGE}"))?;
    }
    Ok((from, seeds))
}

/// A line of progress, shown only on a terminal.
struct Progress {
    started: Instant,
    shown: Cell<Option<Instant>>,
    seeds: u64,
}

impl Progress {
    fn show(&self, done: u64) {
        let recent = self.shown.get().is_some_and(|shown| shown.elapsed() < Duration::from_millis(100));
        if !io::stderr().is_terminal() || (recent && done < self.seeds) {
            return;
        }
        self.shown.set(Some(Instant::now()));
        const WIDTH: usize = 40;
        let filled = (done as usize * WIDTH) / self.seeds.max(1) as usize;
        let rate = done as f64 / self.started.elapsed().as_secs_f64().max(0.001);
        let end = if done == self.seeds { "\n" } else { "" };
        // A lost line of progress does no harm.
        let _ = write!(
            io::stderr(),
            "\r[{:<WIDTH$}] {done}/{} {rate:.0} seeds a second{end}",
            "#".repeat(filled),
            self.seeds
        );
    }
}
