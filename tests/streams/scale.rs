//! Ten thousand connections in one process: all are served, and what one of them costs in memory.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use crate::common::allocator::live_in_process;
use crate::common::*;
use ropewalk::interfaces::*;
use ropewalk::{ListenOptions, Reactor, Result, Transport};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The number of connections that the tests ask for.
const CONNECTIONS: usize = 10_000;

/// Descriptors that are neither end of a connection: the standard streams, listeners, pollers, what
/// the test runner has.
const OTHERS: usize = 100;

/// The most that one idle end of a connection may take, without its socket: bytes of live
/// allocations.
const ALLOWED: usize = 300;

/// Echoes.
struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        transport.write(data);
        Ok(())
    }
}

/// Number of connections that one table of descriptors can hold an end of, at the hard limit.
fn connections() -> usize {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("up to the hard limit");
    let descriptors = limit.maximum.map_or(usize::MAX, |limit| limit as usize);
    let fitting = descriptors.saturating_sub(OTHERS);
    if fitting < CONNECTIONS {
        println!("LESS THAN ASKED FOR: {descriptors} descriptors are allowed, enough for {fitting} connections only");
    }
    fitting.min(CONNECTIONS)
}

/// Kilobytes of this process's own that were written to, as the system counts them.
fn private_dirty() -> usize {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").expect("/proc");
    let line = rollup.lines().find_map(|line| line.strip_prefix("Private_Dirty:")).expect("a line of its own");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// An order to a peer with many blocking sockets. It answers each with a unit.
enum Order {
    /// Have this many connections, each of which was answered once.
    Have(usize),
    /// Write to all.
    Ask,
    /// Read from all.
    Answers,
}

struct Peer {
    orders: Sender<Order>,
    done: Receiver<()>,
    thread: JoinHandle<()>,
}

impl Peer {
    /// `next` makes one more connection.
    fn start(room: usize, mut next: impl FnMut() -> TcpStream + Send + 'static) -> Self {
        let (orders, given) = channel();
        let (report, done) = channel();
        let mut streams = Vec::with_capacity(room);
        let ready = report.clone();
        let thread = thread::spawn(move || {
            own_descriptors();
            ready.send(()).unwrap();
            for order in given {
                match order {
                    Order::Have(count) => {
                        let first = streams.len();
                        while streams.len() < count {
                            let stream = next();
                            stream.set_read_timeout(Some(LIMIT)).unwrap();
                            stream.set_nodelay(true).unwrap();
                            streams.push(stream);
                        }
                        ask(&streams[first..]);
                        read_answers(&streams[first..]);
                    }
                    Order::Ask => ask(&streams),
                    Order::Answers => read_answers(&streams),
                }
                report.send(()).unwrap();
            }
        });
        done.recv_timeout(LIMIT).unwrap();
        Self { orders, done, thread }
    }

    /// Has it done while the loop turns.
    fn order(&self, reactor: &Reactor, order: Order) {
        self.orders.send(order).unwrap();
        run_until(reactor, || self.done.try_recv().is_ok());
        settle(reactor);
    }

    /// Has it done while the loop does not turn.
    fn order_asleep(&self, order: Order) {
        self.orders.send(order).unwrap();
        self.done.recv_timeout(LIMIT).unwrap();
    }

    fn end(self) {
        drop(self.orders);
        self.thread.join().unwrap();
    }
}

/// Gives this thread a table of descriptors of its own, so that the other ends do not count against
/// the reactor's limit.
#[allow(unsafe_code, reason = "a table of descriptors per thread has no safe interface")]
fn own_descriptors() {
    // SAFETY: this thread goes on using only what it has, or opens, in its own table; what it owns
    // is closed in that one, and nothing here or in another thread relies on a descriptor that is
    // opened or closed in the other table from now on.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FILES) }.expect("a table of its own");
}

/// A different byte for each neighbour.
fn message(n: usize) -> [u8; 1] {
    [(n % 251) as u8]
}

fn ask(streams: &[TcpStream]) {
    for (n, mut stream) in streams.iter().enumerate() {
        stream.write_all(&message(n)).unwrap();
    }
}

fn read_answers(streams: &[TcpStream]) {
    for (n, mut stream) in streams.iter().enumerate() {
        let mut answer = [0];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, message(n), "connection {n}");
    }
}

/// Brings the peer's connections up in two steps, measures between and around them, and gives the
/// live bytes of an end. `grow` has the reactor's side grow to so many connections, together with
/// the peer's.
fn measure(what: &str, count: usize, mut grow: impl FnMut(usize)) -> usize {
    let fifth = count / 5;
    // The first has the reactor make what it makes once.
    grow(1);
    let live = live_in_process();
    grow(fifth);
    let few = private_dirty();
    grow(count);
    let (many, live) = (private_dirty(), live_in_process() - live);
    let each = live / (count - 1);
    let slope = many.saturating_sub(few) * 1024 / (count - fifth);
    println!("{what}: {count} connections, {each} live bytes each ({live} in all),");
    println!("    {slope} bytes of private dirty memory each between {fifth} and {count} ({few} and {many} kB)");
    each
}

/// F36: a server with ten thousand connections answers each; what an idle one costs is printed, and
/// limited. When all of them have something to say at once, all are answered.
#[test]
#[ignore = "10,000 connections; run: cargo test --release --test streams scale:: -- --ignored --nocapture"]
fn ten_thousand_connections_of_a_server() {
    own_process!();
    let count = connections();
    let reactor = reactor();
    let options = ListenOptions::new().backlog(1024);
    let port = reactor.listen_tcp(loopback(), &options, |_| Some(Echo)).unwrap();
    let address = port.host().socket_addr().unwrap();
    let peer = Peer::start(count, move || TcpStream::connect(address).unwrap());
    let each = measure("server", count, |count| peer.order(&reactor, Order::Have(count)));
    assert_eq!(reactor.counters().watched, count + 1);

    peer.order_asleep(Order::Ask);
    let turns = reactor.counters().turns;
    let remote = reactor.remote();
    thread::spawn(move || remote.call_from_thread(|_| ())).join().unwrap().unwrap();
    peer.order(&reactor, Order::Answers);
    println!("    all ready at once: all answered, after {} turns", reactor.counters().turns - turns);
    let counters = reactor.counters();
    assert_eq!((counters.accepted, counters.shed, counters.stale_events), (count as u64, 0, 0));
    peer.end();
    run_until(&reactor, || reactor.counters().watched == 1);
    assert!(each <= ALLOWED, "{each} bytes for an idle end of a connection");
}

/// The other end: ten thousand outgoing connections of one reactor.
#[test]
#[ignore = "10,000 connections; run: cargo test --release --test streams scale:: -- --ignored --nocapture"]
fn ten_thousand_connections_of_a_client() {
    own_process!();
    let count = connections();
    let reactor = reactor();
    let listener = TcpListener::bind(loopback()).unwrap();
    let address = listener.local_addr().unwrap();
    let peer = Peer::start(count, move || listener.accept().unwrap().0);
    let (begun, made) = (Cell::new(0), Rc::new(Cell::new(0)));
    let more = |reactor: &Reactor, to: SocketAddr, count: usize| {
        // As many at a time as fit the queue of a listener that knows no better.
        while begun.get() < count && begun.get() - made.get() < 64 {
            begun.set(begun.get() + 1);
            let made = Rc::clone(&made);
            let connecting = connect(reactor, to, |_| Some(Echo));
            drop(connecting.add_callback(move |_| made.set(made.get() + 1)));
        }
    };
    let each = measure("client", count, |count| {
        peer.orders.send(Order::Have(count)).unwrap();
        run_until(&reactor, || {
            more(&reactor, address, count);
            peer.done.try_recv().is_ok()
        });
        settle(&reactor);
    });
    assert_eq!((made.get(), reactor.counters().watched), (count, count));
    assert!(reactor.timers().is_empty(), "the timers of attempts stayed");
    peer.end();
    run_until(&reactor, || reactor.counters().watched == 0);
    assert!(each <= ALLOWED, "{each} bytes for an idle end of a connection");
}
