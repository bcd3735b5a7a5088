//! The simulated network: whole programs on it, what goes wrong, and that a seed says it all.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::common::{Log, Script};
use ropewalk::deferred::Promise;
use ropewalk::endpoints::{HostnameEndpoint, client_from_string, server_from_string};
use ropewalk::error::{ConnectError, ConnectionClosed, OwnThread, ReactorError};
use ropewalk::interfaces::*;
use ropewalk::reactor::{Phase, SystemEvent};
use ropewalk::task::defer_later;
use ropewalk::testing::{Conditions, MemoryReactor, Network, SimulationError};
use ropewalk::{ConnectOptions, Connection, Deferred, Failure, ListenOptions, Reactor, Result, Transport};

const HOUR: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);

const SERVER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

fn echo_address() -> SocketAddr {
    SocketAddr::new(SERVER, 7)
}

fn fails<T>(mut deferred: Deferred<T>) -> Failure {
    match deferred.take_result().expect("a result") {
        Ok(_) => panic!("a failure was expected"),
        Err(failure) => failure,
    }
}

struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        transport.write(data);
        Ok(())
    }
}

/// A reactor on `SERVER` that echoes on port 7.
fn echo_server(network: &Network) -> Reactor {
    let server = network.reactor(SERVER);
    server.listen_tcp(echo_address(), &ListenOptions::new(), |_| Some(Echo)).unwrap();
    server
}

fn connect(client: &Reactor, to: SocketAddr, log: &Log) -> Deferred<Connection<Script>> {
    let log = log.clone();
    client.connect_tcp(to, &ConnectOptions::new(), move |_| Some(Script::new(&log)))
}

/// Sends a message, and closes when all of it has come back.
struct Asker {
    message: Vec<u8>,
    heard: Vec<u8>,
    ended: Rc<Cell<usize>>,
}

impl Protocol for Asker {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        transport.write(&self.message);
        Ok(())
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        self.heard.extend_from_slice(data);
        assert!(self.message.starts_with(&self.heard), "something else came back");
        if self.heard.len() == self.message.len() {
            transport.lose_connection();
        }
        Ok(())
    }

    fn connection_lost(&mut self, _transport: &Transport, reason: &Failure) {
        assert!(matches!(reason.check(), Some(ConnectionClosed::Done)), "{reason}");
        self.ended.set(self.ended.get() + 1);
    }
}

/// An echo server and so many clients, each on a host of its own, until all have been answered and
/// everything is closed.
fn echo(network: &Network, clients: usize) -> Result<()> {
    let server = network.reactor(SERVER);
    network.add_name("echo.example", [SERVER]);
    drop(server_from_string(&server, "tcp:7:backlog=3")?.listen(|_| Some(Echo)));
    let ended = Rc::new(Cell::new(0));
    let mut reactors = vec![server];
    for n in 0..clients {
        let client = network.reactor([10, 0, 1, n as u8].into());
        let ended = Rc::clone(&ended);
        let message: Vec<u8> = (0..100).map(|place| (place * 7 + n) as u8).collect();
        let factory = move |_| Some(Asker { message: message.clone(), heard: Vec::new(), ended: Rc::clone(&ended) });
        drop(client_from_string(&client, "tcp:echo.example:7")?.connect(factory));
        reactors.push(client);
    }
    network.run_until(HOUR, || ended.get() == clients)?;
    for reactor in &reactors {
        reactor.stop()?;
    }
    network.run_for(SECOND * 10)?;
    assert!(reactors.iter().all(|reactor| !reactor.is_running()));
    assert!(reactors.iter().all(|reactor| network.open_sockets(reactor) == 0), "sockets were left open");
    Ok(())
}

/// On an ideal network an echo takes no time, and everything is as over real sockets.
#[test]
fn an_echo_on_an_ideal_network() {
    let network = Network::new(1);
    echo(&network, 3).unwrap();
    assert_eq!(network.now(), SECOND * 10, "the time that the test waited at the end");
}

/// The same program works on every network, however bad, and a seed says which one it was.
#[test]
fn an_echo_for_many_seeds() {
    for seed in 0..100 {
        let network = Network::with_conditions(seed, Conditions::rough(seed));
        echo(&network, 3).unwrap_or_else(|failure| panic!("seed {seed}: {failure} at {:?}", network.now()));
    }
}

/// The same seed gives the same trace, byte for byte, and another seed another.
#[test]
fn a_seed_says_it_all() {
    let traced = |seed| {
        let network = Network::with_conditions(seed, Conditions::rough(5));
        network.keep_trace();
        echo(&network, 4).unwrap();
        (network.trace(), network.fingerprint())
    };
    let (first, again, other) = (traced(5), traced(5), traced(6));
    assert!(first.0.lines().count() > 20);
    assert_eq!(first, again);
    assert_ne!(first.1, other.1);
}

/// A trace is the same in every process: this one was written down. It changes only when the
/// network does.
#[test]
fn a_trace_is_the_same_everywhere() {
    let network = Network::with_conditions(42, Conditions::ideal().latency(SECOND / 100, SECOND / 10));
    network.keep_trace();
    echo(&network, 1).unwrap();
    let lines: Vec<_> = network.trace().lines().map(str::to_owned).collect();
    assert!(lines[0].ends_with("0.000000000 listen 0.0.0.0:7 on 10.0.0.1"), "{}", lines[0]);
    assert_eq!(network.fingerprint(), EXPECTED, "{}", lines.join("\n"));
}

const EXPECTED: u64 = 15631805625753432033;

/// One reactor with a server and a client on it can simply be run, and its timers take no time.
#[test]
fn one_reactor_is_simply_run() {
    let network = Network::with_conditions(3, Conditions::ideal().latency(SECOND, SECOND));
    let reactor = echo_server(&network);
    let ended = Rc::new(Cell::new(0));
    let (told, handle) = (Rc::clone(&ended), reactor.clone());
    let client = HostnameEndpoint::new(&reactor, "localhost", 7);
    reactor.listen_tcp("127.0.0.1:8".parse().unwrap(), &ListenOptions::new(), |_| Some(Echo)).unwrap();
    drop(client);
    let asker = move |_| Some(Asker { message: b"hello".to_vec(), heard: Vec::new(), ended: Rc::clone(&told) });
    drop(client_from_string(&reactor, "tcp:localhost:8").unwrap().connect(asker));
    reactor.call_later(HOUR, move || handle.stop().unwrap());
    reactor.run().unwrap();
    assert_eq!(ended.get(), 1);
    assert!(network.now() >= HOUR && network.now() < HOUR + SECOND * 60);
}

/// A run that would wait for ever says so, with the seed, and so does what drives several reactors.
#[test]
fn waiting_for_nothing_is_an_error() {
    let network = Network::new(77);
    let error = network.reactor(SERVER).run().unwrap_err();
    assert!(matches!(error, ReactorError::Poll(_)), "{error}");
    assert!(Failure::new(error).to_string().contains("seed 77"));
    let network = Network::new(78);
    let reactor = network.reactor(SERVER);
    let error = network.run_until(HOUR, || false).unwrap_err();
    assert!(matches!(error, SimulationError::Stuck { seed: 78, .. }), "{error}");
    reactor.call_later(HOUR * 2, || {});
    let error = network.run_until(HOUR, || false).unwrap_err();
    assert!(matches!(error, SimulationError::TooLong { seed: 78, .. }), "{error}");
}

/// A program that always asks for more at once does not hang the test: no time passes, and the test
/// gets an error.
#[test]
fn time_that_stands_still_is_an_error() {
    fn again(reactor: &Reactor) {
        let next = reactor.clone();
        reactor.call_later(Duration::ZERO, move || again(&next));
    }
    let network = Network::new(79);
    let reactor = network.reactor(SERVER);
    again(&reactor);
    let error = network.run_until(HOUR, || false).unwrap_err();
    assert!(matches!(error, SimulationError::Standing { seed: 79, now: Duration::ZERO }), "{error}");
    assert!(matches!(network.run_for(SECOND), Err(SimulationError::Standing { .. })));
}

/// F33: a shutdown waits for a trigger as long as it may, which is 60 s, and no longer.
#[test]
fn a_shutdown_trigger_that_hangs() {
    let network = Network::new(80);
    let (reactor, log) = (echo_server(&network), Log::default());
    let client = network.reactor(CLIENT);
    let _connection = connect(&client, echo_address(), &log);
    let (_promise, hanging) = Promise::<()>::new();
    reactor.add_system_event_trigger(Phase::Before, SystemEvent::Shutdown, move || hanging);
    network.run_until(SECOND, || log.has("made")).unwrap();
    let stopped = network.now();
    reactor.stop().unwrap();
    network.run_for(SECOND * 59).unwrap();
    assert!(!log.is_over(), "it did not wait");
    network.run_until(SECOND * 2, || log.is_over()).unwrap();
    assert_eq!(network.now() - stopped, SECOND * 60);
}

/// Latency and bandwidth are kept to: what is sent arrives when it must.
#[test]
fn latency_and_bandwidth() {
    let conditions = Conditions::ideal().latency(SECOND, SECOND).bandwidth(Some(1000));
    let network = Network::with_conditions(1, conditions);
    let log = Log::default();
    let (server, told) = (network.reactor(SERVER), log.clone());
    let factory = move |_| Some(Script::new(&told));
    server.listen_tcp(echo_address(), &ListenOptions::new(), factory).unwrap();
    let peer = network.connect(echo_address());
    network.run_until(HOUR, || log.has("made")).unwrap();
    assert_eq!(network.now(), SECOND);
    network.run_until(HOUR, || peer.is_connected()).unwrap();
    assert_eq!(network.now(), SECOND * 2);
    peer.write(&[1; 5000]).unwrap();
    network.run_until(HOUR, || log.has("data")).unwrap();
    assert_eq!(network.now(), SECOND * 8, "five seconds to send, one under way");
}

/// An address without a listener refuses, and a host that is not there is unreachable.
#[test]
fn nobody_there() {
    let network = Network::new(1);
    let (_server, client) = (network.reactor(SERVER), network.reactor(CLIENT));
    let log = Log::default();
    let refused = connect(&client, SocketAddr::new(SERVER, 9), &log);
    let unreachable = connect(&client, "203.0.113.9:9".parse().unwrap(), &log);
    network.settle().unwrap();
    assert!(matches!(fails(refused).check(), Some(ConnectError::Refused { .. })));
    assert!(matches!(fails(unreachable).check(), Some(ConnectError::Unreachable { .. })));
    assert_eq!(network.open_sockets(&client), 0);
}

/// Two programs of one host cannot listen on the same port, two hosts can; an address that is not
/// the host's is refused.
#[test]
fn addresses_belong_to_hosts() {
    let network = Network::new(1);
    let (one, other) = (network.reactor(SERVER), network.reactor(CLIENT));
    let listen = |reactor: &Reactor, address: &str| {
        reactor.listen_tcp(address.parse().unwrap(), &ListenOptions::new(), |_| Some(Echo))
    };
    let port = listen(&one, "0.0.0.0:80").unwrap();
    assert!(listen(&one, "10.0.0.1:80").is_err(), "in use");
    assert!(listen(&one, "10.0.0.2:81").is_err(), "not ours");
    listen(&other, "10.0.0.2:80").unwrap();
    drop(port.stop_listening());
    network.settle().unwrap();
    listen(&one, "10.0.0.1:80").unwrap();
    let free = listen(&one, "0.0.0.0:0").unwrap();
    assert_ne!(free.host().port(), Some(0));
}

/// While two hosts are cut off nothing gets through, attempts run into their timeout, and
/// afterwards everything arrives.
#[test]
fn a_partition_and_its_end() {
    let network = Network::with_conditions(1, Conditions::ideal().latency(SECOND / 10, SECOND / 5));
    let (_server, client) = (echo_server(&network), network.reactor(CLIENT));
    let log = Log::default();
    let mut connecting = connect(&client, echo_address(), &log);
    network.run_until(HOUR, || connecting.is_called()).unwrap();
    let connection = connecting.take_result().unwrap().unwrap();
    network.partition(SERVER, CLIENT);
    connection.transport().write(b"held up");
    let late = connect(&client, echo_address(), &Log::default());
    network.run_for(SECOND * 31).unwrap();
    assert!(!log.has("data"));
    assert!(matches!(fails(late).check(), Some(ConnectError::NoAnswer { .. })));
    network.heal(CLIENT, SERVER);
    network.run_until(SECOND * 5, || log.has("data")).unwrap();
}

/// A peer that does not read fills the window; what the program writes after that stays with it
/// until the peer reads on.
#[test]
fn a_peer_that_does_not_read() {
    let network = Network::with_conditions(1, Conditions::ideal().window(100));
    let server = network.reactor(SERVER);
    let transport: Rc<RefCell<Option<Transport>>> = Rc::default();
    let place = Rc::clone(&transport);
    let factory = move |_| {
        let place = Rc::clone(&place);
        Some(Script::new(&Log::default()).made(move |transport| {
            place.replace(Some(transport.clone()));
            transport.write(&[7; 1000]);
            Ok(())
        }))
    };
    server.listen_tcp(echo_address(), &ListenOptions::new(), factory).unwrap();
    let peer = network.connect(echo_address());
    network.settle().unwrap();
    let queued = || transport.borrow().as_ref().unwrap().queued_bytes();
    assert_eq!(queued(), 900);
    let mut read = 0;
    while read < 1000 {
        let count = peer.read().len();
        assert!((1..=100).contains(&count), "{count}");
        read += count;
        network.settle().unwrap();
    }
    assert_eq!(queued(), 0);
}

/// A peer's close is an end of stream, its abort a reset; ours are the same to it, and a close with
/// something unread is a reset.
#[test]
fn closes_and_resets() {
    let network = Network::new(1);
    let log = Log::default();
    let (server, told) = (network.reactor(SERVER), log.clone());
    let factory = move |_| Some(Script::new(&told));
    server.listen_tcp(echo_address(), &ListenOptions::new(), factory).unwrap();
    let open = || {
        let peer = network.connect(echo_address());
        network.settle().unwrap();
        assert!(peer.is_connected());
        peer
    };
    open().close();
    network.settle().unwrap();
    assert!(log.reason().contains("cleanly"), "{}", log.reason());
    for how in ["abort", "close with something unread"] {
        let log_before = log.count("lost");
        let peer = open();
        if how == "abort" {
            peer.abort();
        } else {
            network.settle().unwrap();
            peer.write(b"x").unwrap();
            peer.abort();
        }
        network.settle().unwrap();
        assert_eq!(log.count("lost"), log_before + 1);
    }
    assert!(log.all().iter().any(|entry| entry.contains("reset")), "{:?}", log.all());
    let peer = open();
    peer.shut_down().unwrap();
    network.settle().unwrap();
    assert!(peer.is_ended());
    assert!(peer.write(b"too late").is_err());
}

/// A reactor without descriptors sheds those who wait, and accepts again when there are some.
#[test]
fn running_out_of_descriptors() {
    let network = Network::new(1);
    let server = echo_server(&network);
    network.limit_descriptors(&server, Some(2));
    let first = network.connect(echo_address());
    network.settle().unwrap();
    let shed: Vec<_> = (0..5).map(|_| network.connect(echo_address())).collect();
    network.settle().unwrap();
    assert!(shed.iter().all(|peer| peer.is_ended() && !peer.is_reset()), "accepted and closed, with nothing unread");
    assert_eq!(server.counters().shed, 5);
    first.close();
    network.run_for(SECOND * 10).unwrap();
    let again = network.connect(echo_address());
    network.settle().unwrap();
    again.write(b"there?").unwrap();
    network.settle().unwrap();
    assert_eq!(again.read(), b"there?");
}

/// Names are the network's: unknown ones fail, those with several addresses are tried in turn, and
/// they may be slow.
#[test]
fn names_are_the_networks() {
    let network = Network::with_conditions(1, Conditions::ideal().names(SECOND, SECOND));
    let (_server, client) = (echo_server(&network), network.reactor(CLIENT));
    network.add_name("Echo.Example", ["203.0.113.1".parse().unwrap(), SERVER]);
    let unknown = client.resolve("nowhere.example", 1);
    let endpoint = client_from_string(&client, "tcp:echo.example:7").unwrap();
    let connecting = endpoint.connect(|_| Some(Echo));
    network.run_until(HOUR, || unknown.is_called() && connecting.is_called()).unwrap();
    assert_eq!(network.now(), SECOND);
    assert!(matches!(fails(unknown).check(), Some(ConnectError::Lookup { .. })));
    drop(connecting.add_callback(|connection| {
        assert_eq!(connection.transport().peer(), echo_address().into());
    }));
}

/// Jobs for threads run on the one thread, after the time that the seed says, in no time at all;
/// they can't wait for the reactor, and can be cancelled.
#[test]
fn jobs_take_virtual_time() {
    let network = Network::with_conditions(9, Conditions::ideal().jobs(SECOND, SECOND * 2));
    let reactor = network.reactor(SERVER);
    let remote = reactor.remote();
    let mut done = reactor.defer_to_thread(|| Ok(6 * 7));
    let waits = reactor.defer_to_thread(move || remote.blocking_call_from_thread(|_| ()));
    let cancelled = reactor.defer_to_thread(|| -> Result<()> { panic!("it was cancelled") });
    cancelled.cancel();
    network.run_until(HOUR, || done.is_called() && waits.is_called()).unwrap();
    assert!((SECOND..=SECOND * 2).contains(&network.now()));
    assert_eq!(done.take_result().unwrap().unwrap(), 42);
    assert!(fails(waits).check::<OwnThread>().is_some());
    assert!(fails(cancelled).check::<ropewalk::deferred::Cancelled>().is_some());
}

/// A job that is cancelled, or that its reactor gives up, is dropped at once and never done.
#[test]
fn jobs_that_are_given_up_are_dropped() {
    struct Held(Arc<AtomicUsize>);
    impl Drop for Held {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    for cancels in [true, false] {
        let network = Network::with_conditions(9, Conditions::ideal().jobs(SECOND, SECOND));
        let reactor = network.reactor(SERVER);
        let (dropped, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let jobs = [(); 3].map(|()| {
            let (held, done) = (Held(Arc::clone(&dropped)), Arc::clone(&done));
            reactor.defer_to_thread(move || {
                let _held = &held;
                done.fetch_add(1, Ordering::SeqCst);
                Ok(())
            })
        });
        network.run_for(SECOND / 2).unwrap();
        if cancels {
            jobs.iter().for_each(Deferred::cancel);
        } else {
            reactor.close().unwrap();
        }
        assert_eq!(dropped.load(Ordering::SeqCst), 3, "cancels {cancels}");
        network.run_for(SECOND).unwrap();
        assert_eq!(done.load(Ordering::SeqCst), 0, "cancels {cancels}");
        jobs.into_iter().for_each(|job| drop(fails(job)));
    }
}

/// Futures run on it like everything else.
#[test]
fn futures_on_virtual_time() {
    let network = Network::new(1);
    let reactor = network.reactor(SERVER);
    let handle = reactor.clone();
    let mut answer = reactor.spawn(async move {
        defer_later(&handle, HOUR, || Ok(())).await?;
        Ok(handle.seconds())
    });
    network.run_until(HOUR * 2, || answer.is_called()).unwrap();
    assert_eq!(answer.take_result().unwrap().unwrap(), HOUR);
}

/// A reactor that is dropped leaves nothing open, and closes its connections as a stop does.
#[test]
fn a_reactor_that_goes_closes_its_connections() {
    let network = Network::new(1);
    let server = echo_server(&network);
    let peer = network.connect(echo_address());
    network.settle().unwrap();
    drop(server);
    network.settle().unwrap();
    assert!(peer.is_ended() && !peer.is_reset());
    let late = network.connect(echo_address());
    network.settle().unwrap();
    assert!(late.write(b"x").is_err());
}

/// The memory reactor records a program's ports and attempts, and the test plays all peers.
#[test]
fn the_test_plays_everybody_else() {
    let memory = MemoryReactor::new();
    let reactor = memory.reactor();
    reactor.listen_tcp("0.0.0.0:7".parse().unwrap(), &ListenOptions::new(), |_| Some(Echo)).unwrap();
    assert_eq!(memory.ports(), ["0.0.0.0:7".parse::<SocketAddr>().unwrap().into()]);
    let peer = memory.connect(7).unwrap();
    peer.write(b"hello").unwrap();
    memory.settle().unwrap();
    assert_eq!(peer.read(), b"hello");

    let (log, elsewhere) = (Log::default(), SocketAddr::from(([198, 51, 100, 1], 80)));
    let (accepted, refused) = (connect(reactor, elsewhere, &log), connect(reactor, elsewhere, &log));
    let (late, cancelled) = (connect(reactor, elsewhere, &log), connect(reactor, elsewhere, &log));
    let mut attempts = memory.attempts();
    assert_eq!(attempts.iter().map(|attempt| attempt.to().socket_addr()).collect::<Vec<_>>(), [Some(elsewhere); 4]);
    let _peer = attempts.remove(0).accept().unwrap();
    attempts.remove(0).refuse();
    cancelled.cancel();
    assert!(attempts.remove(1).accept().is_none(), "it was given up");
    memory.advance(SECOND * 30).unwrap();
    assert!(matches!(fails(refused).check(), Some(ConnectError::Refused { .. })));
    assert!(matches!(fails(late).check(), Some(ConnectError::NoAnswer { .. })));
    assert!(matches!(fails(cancelled).check(), Some(ConnectError::ConnectingCancelled { .. })));
    assert!(accepted.is_called() && log.has("made"));
    assert!(memory.attempts().is_empty());
}
