//! The simulated network: whole programs on it, what goes wrong, and that a seed says it all.

mod common;

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use common::{Log, Script};
use ropewalk::endpoints::{TcpClientEndpoint, client_from_string, server_from_string};
use ropewalk::error::{ConnectError, ConnectionClosed};
use ropewalk::interfaces::*;
use ropewalk::testing::{Conditions, Network, SimulationError};
use ropewalk::{Address, ConnectOptions, Deferred, Failure, ListenOptions, Port, Reactor, Result, Transport};

const MINUTE: Duration = Duration::from_secs(60);

fn server_host() -> IpAddr {
    [10, 0, 0, 1].into()
}

fn client_host() -> IpAddr {
    [10, 0, 0, 2].into()
}

struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        transport.write(data);
        Ok(())
    }
}

/// Sends a message, and closes when all of it has come back.
struct Asker {
    message: Vec<u8>,
    heard: Rc<RefCell<Vec<u8>>>,
    ended: Rc<Cell<usize>>,
}

impl Protocol for Asker {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        transport.write(&self.message);
        Ok(())
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        let mut heard = self.heard.borrow_mut();
        heard.extend_from_slice(data);
        assert!(self.message.starts_with(&heard), "something else came back");
        if heard.len() == self.message.len() {
            transport.lose_connection();
        }
        Ok(())
    }

    fn connection_lost(&mut self, _transport: &Transport, reason: &Failure) {
        assert!(matches!(reason.check(), Some(ConnectionClosed::Done)), "{reason}");
        self.ended.set(self.ended.get() + 1);
    }
}

/// An echo server and so many clients, each on a host of its own, until all have been answered.
fn echo(seed: u64, conditions: Conditions, clients: usize) -> (Network, Result<()>) {
    let network = Network::with_conditions(seed, conditions);
    let result = echo_on(&network, clients);
    (network, result)
}

fn echo_on(network: &Network, clients: usize) -> Result<()> {
    let server = network.reactor(server_host());
    network.name("echo.example", [server_host()]);
    drop(server_from_string(&server, "tcp:7:backlog=3")?.listen(|_: &Address| Some(Echo)));
    let ended = Rc::new(Cell::new(0));
    let mut reactors = vec![server];
    for n in 0..clients {
        let client = network.reactor([10, 0, 1, n as u8].into());
        let (heard, ended) = (Rc::default(), Rc::clone(&ended));
        let message: Vec<u8> = (0..300).map(|place| (place * 7 + n) as u8).collect();
        let factory = move |_: &Address| {
            Some(Asker { message: message.clone(), heard: Rc::clone(&heard), ended: Rc::clone(&ended) })
        };
        drop(client_from_string(&client, "tcp:echo.example:7")?.connect(factory));
        reactors.push(client);
    }
    network.run_until(Duration::from_secs(3600), || ended.get() == clients)?;
    for reactor in &reactors {
        reactor.stop()?;
    }
    network.run_for(Duration::from_secs(10))?;
    assert!(reactors.iter().all(|reactor| !reactor.is_running()));
    assert!(reactors.iter().all(|reactor| network.open_sockets(reactor) == 0), "sockets were left open");
    Ok(())
}

/// On an ideal network an echo takes no time, and everything is as over real sockets.
#[test]
fn an_echo_on_an_ideal_network() {
    let (network, result) = echo(1, Conditions::ideal(), 3);
    result.unwrap();
    assert_eq!(network.now(), Duration::from_secs(10), "the time that the test waited at the end");
}

/// The same program works on every network, however bad, and a seed says which one it was.
#[test]
fn an_echo_for_many_seeds() {
    for seed in 0..300 {
        let (network, result) = echo(seed, Conditions::rough(seed), 3);
        result.unwrap_or_else(|failure| panic!("seed {seed}: {failure} at {:?}", network.now()));
    }
}

/// The same seed gives the same trace, byte for byte, and another seed another.
#[test]
fn a_seed_says_it_all() {
    let traced = |seed| {
        let network = Network::with_conditions(seed, Conditions::rough(5));
        network.keep_trace();
        echo_on(&network, 4).unwrap();
        (network.trace(), network.fingerprint())
    };
    let (first, again, other) = (traced(5), traced(5), traced(6));
    assert!(first.0.lines().count() > 20);
    assert_eq!(first, again);
    assert_ne!(first.1, other.1);
}
