//! A client service against a whole server on a rough simulated network: starts, stops, lost
//! connections, a server that goes and comes back. A seed says it all.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use crate::common::seeds;
use ropewalk::application::{Backoff, ClientService, ClientState, MultiService, Service, StreamServerEndpointService};
use ropewalk::deferred::unhandled;
use ropewalk::endpoints::{TcpClientEndpoint, TcpServerEndpoint};
use ropewalk::interfaces::*;
use ropewalk::testing::{Conditions, Network};
use ropewalk::{Deferred, Failure, Reactor, Result, Transport, for_protocol};

const SERVER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

const SEEDS: u64 = seeds(50, 2_000) as u64;
const STEPS: u32 = 60;
const HOUR: Duration = Duration::from_secs(3600);

/// Counts the open connections of the client.
struct Counted {
    open: Rc<Cell<usize>>,
    most: Rc<Cell<usize>>,
}

impl Protocol for Counted {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        self.open.set(self.open.get() + 1);
        self.most.set(self.most.get().max(self.open.get()));
        transport.write(b"hello");
        Ok(())
    }

    fn data_received(&mut self, _transport: &Transport, _data: &[u8]) -> Result<()> {
        Ok(())
    }

    fn connection_lost(&mut self, _transport: &Transport, _reason: &Failure) {
        self.open.set(self.open.get() - 1);
    }
}

struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        transport.write(data);
        Ok(())
    }
}

/// The numbers of a seed. Nothing here needs good ones.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn server(reactor: &Reactor) -> StreamServerEndpointService<Echo> {
    let endpoint = TcpServerEndpoint::bind_to(reactor, SocketAddr::new(SERVER, 7));
    StreamServerEndpointService::new(endpoint, for_protocol(|_| Echo)).drain(reactor, Duration::from_secs(2))
}

/// There is never more than one connection, each stop comes to its end, and after the last one
/// nothing is left. A last start connects.
#[test]
fn no_connection_is_lost_track_of_or_doubled() {
    let mut connected = 0;
    for seed in 0..SEEDS {
        let (count, unheard) = unhandled::collect(|| play(seed));
        assert!(unheard.is_empty(), "seed {seed}: {unheard:?}");
        connected += count;
    }
    assert!(connected > SEEDS, "the histories connect more than once each: {connected}");
}

/// Plays the history of a seed. Returns the number of times that the service connected.
fn play(seed: u64) -> u64 {
    let network = Network::with_conditions(seed, Conditions::rough(seed));
    let (far, near) = (network.reactor(SERVER), network.reactor(CLIENT));
    let (open, most, made) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let factory = {
        let (open, most) = (Rc::clone(&open), Rc::clone(&most));
        for_protocol(move |_| Counted { open: Rc::clone(&open), most: Rc::clone(&most) })
    };
    let (backoff, mut draw) = (Backoff::new().seed(seed), Draw(seed));
    let (preparing, rejects) = (Rc::clone(&made), Cell::new(seed));
    let clock = near.clone();
    let endpoint = TcpClientEndpoint::new(&near, SocketAddr::new(SERVER, 7)).timeout(Duration::from_secs(3));
    let client = ClientService::builder(&near, endpoint, factory)
        .retry_policy(move |failures| backoff.delay(failures))
        .prepare_connection(move |_| {
            preparing.set(preparing.get() + 1);
            rejects.set(rejects.get() + 1);
            let is_rejected = rejects.get() % 4 == 0;
            ropewalk::task::defer_later(&clock, Duration::from_millis(300), move || {
                if is_rejected { Err("not you".into()) } else { Ok(()) }
            })
        })
        .build();
    let (program, server) = (MultiService::new(), server(&far));
    program.add_service(client.clone());

    let mut stops: Vec<Deferred<()>> = Vec::new();
    for _ in 0..STEPS {
        match draw.below(8) {
            0 | 1 => program.start_service().or_log("starting"),
            2 => stops.push(program.stop_service()),
            // A port whose address is still taken is no matter here.
            3 | 4 => drop(server.start_service().add_errback(|_| ())),
            5 => drop(server.stop_service()),
            6 => server.connections().iter().for_each(|connection| connection.transport().abort_connection()),
            _ => {}
        }
        // Often no time passes between two events.
        let pause = if draw.below(2) == 0 { Duration::ZERO } else { Duration::from_millis(draw.below(3000)) };
        network.run_for(pause).unwrap();
        assert!(most.get() <= 1, "seed {seed}: {} connections at once", most.get());
    }
    stops.push(program.stop_service());
    network.run_for(HOUR).unwrap();
    assert_eq!((client.state(), open.get()), (ClientState::Stopped, 0), "seed {seed}");
    for mut stop in stops {
        assert!(stop.take_result().is_some_and(|result| result.is_ok()), "seed {seed}: a stop without an end");
    }

    server.start_service().or_log("listening");
    program.start_service().or_log("starting");
    network.run_for(HOUR).unwrap();
    assert_eq!((client.state(), open.get()), (ClientState::Connected, 1), "seed {seed}");
    drop(program.stop_service());
    drop(server.stop_service());
    network.run_for(HOUR).unwrap();
    assert_eq!((open.get(), network.open_sockets(&near)), (0, 0), "seed {seed}");
    made.get()
}
