//! Everything may be called from everywhere: random programs that call every public method of the
//! engine from inside every callback and every drop, over the simulated network, whose own checks
//! run along. Nothing may panic, caught or not. A failure names the seed, with which the program
//! can be replayed.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::panic;
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::common::{own_process, seeds};
use ropewalk::deferred::{Pause, Promise};
use ropewalk::interfaces::*;
use ropewalk::task::defer_later;
use ropewalk::testing::{Conditions, Network};
use ropewalk::transport::{Producer, Streaming};
use ropewalk::{
    Address, ConnectOptions, Connection, Deferred, DelayedCall, Failure, ListenOptions, Phase, Port, Reactor, Result,
    SharedFactory, SystemEvent, Transport,
};

/// Programs that are made, each of so many actions, in callbacks so deep.
const SEEDS: u64 = seeds(60, 2_000) as u64;
const ACTIONS: u32 = 400;
const DEEPEST: u32 = 5;

/// The panics so far, caught or not.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

thread_local! {
    /// The program, for closures that cannot hold it because they could go to another thread.
    static CURRENT: RefCell<Option<Program>> = const { RefCell::new(None) };
}

/// A random program, and all that it has in its hands.
#[derive(Clone)]
struct Program(Rc<World>);

struct World {
    random: Cell<u64>,
    left: Cell<u32>,
    depth: Cell<u32>,
    reactors: RefCell<Vec<Reactor>>,
    /// A handle was let go. Others may be kept by what waits in its reactor, which keeps that open.
    let_go: Cell<bool>,
    ports: RefCell<Vec<Port>>,
    transports: RefCell<Vec<Transport>>,
    connections: RefCell<Vec<Connection<Wild>>>,
    shared: RefCell<Vec<SharedFactory<Wild>>>,
    timers: RefCell<Vec<DelayedCall>>,
    deferreds: RefCell<Vec<Deferred<()>>>,
    promises: RefCell<Vec<Promise<()>>>,
    pauses: RefCell<Vec<Pause<()>>>,
}

const HOSTS: [[u8; 4]; 2] = [[10, 0, 0, 1], [10, 0, 0, 2]];

impl Program {
    fn new(seed: u64, network: &Network) -> Self {
        let program = Self(Rc::new(World {
            random: Cell::new(seed),
            left: Cell::new(ACTIONS),
            depth: Cell::new(0),
            reactors: RefCell::new(HOSTS.map(|host| network.reactor(IpAddr::from(host))).into()),
            let_go: Cell::new(false),
            ports: RefCell::default(),
            transports: RefCell::default(),
            connections: RefCell::default(),
            shared: RefCell::default(),
            timers: RefCell::default(),
            deferreds: RefCell::default(),
            promises: RefCell::default(),
            pauses: RefCell::default(),
        }));
        for _ in 0..2 {
            let factory = SharedFactory::new(program.wild());
            program.0.shared.borrow_mut().push(factory);
        }
        program
    }

    /// SplitMix64.
    fn below(&self, limit: usize) -> usize {
        let state = self.0.random.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.0.random.set(state);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }

    fn one_in(&self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn wild(&self) -> Wild {
        Wild(self.clone())
    }

    fn pick<T: Clone>(&self, from: &RefCell<Vec<T>>) -> Option<T> {
        let from = from.borrow();
        if from.is_empty() { None } else { Some(from[self.below(from.len())].clone()) }
    }

    fn take<T>(&self, from: &RefCell<Vec<T>>) -> Option<T> {
        let mut from = from.borrow_mut();
        let count = from.len();
        if count == 0 { None } else { Some(from.swap_remove(self.below(count))) }
    }

    fn keep(&self, deferred: Deferred<()>) {
        let deferred = if self.one_in(2) {
            let wild = self.wild();
            deferred.add_both(move |_| wild.0.act())
        } else {
            deferred.add_errback(|_| Ok(()))
        };
        self.0.deferreds.borrow_mut().push(deferred);
    }

    /// Some actions, if any are left.
    fn act(&self) {
        if self.0.depth.get() == DEEPEST {
            return;
        }
        self.0.depth.set(self.0.depth.get() + 1);
        for _ in 0..1 + self.below(3) {
            let Some(left) = self.0.left.get().checked_sub(1) else { break };
            self.0.left.set(left);
            self.act_once();
        }
        self.0.depth.set(self.0.depth.get() - 1);
    }

    fn act_once(&self) {
        match self.below(10) {
            0 => self.listen_or_connect(),
            1 => self.ask_the_reactor(),
            2 => self.time(),
            3 => self.ask_a_port(),
            4 | 5 => self.ask_a_transport(),
            6 => self.reach_inside(),
            7 => self.ask_a_deferred(),
            8 => self.spawn_or_send(),
            _ => self.look_around(),
        }
    }

    fn reactor(&self) -> Option<Reactor> {
        self.pick(&self.0.reactors)
    }

    fn listen_or_connect(&self) {
        let Some(reactor) = self.reactor() else { return };
        let port = 1 + self.below(3) as u16;
        let address = SocketAddr::from((HOSTS[self.below(2)], port));
        let shared = self.pick(&self.0.shared);
        match (self.below(3), shared) {
            (0, Some(shared)) => {
                let listening =
                    reactor.listen_tcp(SocketAddr::from(([0, 0, 0, 0], port)), &ListenOptions::new(), shared);
                self.0.ports.borrow_mut().extend(listening);
            }
            (0, None) => {}
            (1, Some(shared)) => {
                let program = self.clone();
                let connecting = reactor.connect_tcp(address, &ConnectOptions::new(), shared);
                self.keep(connecting.add_callback(move |connection| {
                    program.0.connections.borrow_mut().push(connection);
                    program.act();
                }));
            }
            _ => {
                let connecting = reactor.connect_tcp(address, &ConnectOptions::new(), self.wild());
                let program = self.clone();
                self.keep(connecting.add_callback(move |connection| {
                    program.0.connections.borrow_mut().push(connection);
                    program.act();
                }));
            }
        }
    }

    fn ask_the_reactor(&self) {
        let Some(reactor) = self.reactor() else { return };
        let wild = self.wild();
        let phase = [Phase::Before, Phase::During, Phase::After][self.below(3)];
        let event = match self.below(3) {
            0 => SystemEvent::Startup,
            1 => SystemEvent::Shutdown,
            _ => SystemEvent::custom("own"),
        };
        match self.below(14) {
            0 | 1 => drop(reactor.call_when_running(move || wild.0.act())),
            2 => drop(reactor.add_system_event_trigger(phase, event, move || wild.0.act())),
            3 => {
                let id = reactor.add_system_event_trigger(phase, event, move || wild.0.act());
                let _ = reactor.remove_system_event_trigger(id);
            }
            4 => {
                let (promise, deferred) = Promise::new();
                self.0.promises.borrow_mut().push(promise);
                reactor.add_system_event_trigger(phase, event, move || {
                    wild.0.act();
                    deferred
                });
            }
            5 => drop(reactor.iterate(Duration::ZERO)),
            6 if self.one_in(4) => drop(reactor.run()),
            7 if self.one_in(6) => drop(reactor.stop()),
            8 if self.one_in(8) => drop(reactor.crash()),
            9 if self.one_in(8) => drop(reactor.close()),
            10 if self.one_in(4) => {
                let gone = self.take(&self.0.reactors);
                self.0.let_go.set(true);
                drop(gone);
            }
            11 | 12 => self.keep(reactor.fire_system_event("own").add_both(move |_| wild.0.act())),
            _ => self.keep(reactor.resolve("localhost", 1).add_both(move |_| wild.0.act())),
        }
    }

    fn time(&self) {
        let delay = Duration::from_millis([0, 1, 20, 3000][self.below(4)]);
        let Some(reactor) = self.reactor() else { return };
        let wild = self.wild();
        match (self.below(6), self.pick(&self.0.timers)) {
            (0, Some(timer)) => drop(timer.cancel()),
            (1, Some(timer)) => drop(timer.reset(delay)),
            (2, Some(timer)) => drop(timer.delay(delay)),
            (3, Some(timer)) => drop(timer.hasten(delay)),
            _ => {
                let timer = reactor.call_later(delay, move || wild.0.act());
                self.0.timers.borrow_mut().push(timer);
            }
        }
    }

    fn ask_a_port(&self) {
        let Some(port) = self.pick(&self.0.ports) else { return self.listen_or_connect() };
        match self.below(4) {
            0 | 1 => self.keep(port.stop_listening()),
            2 => drop(port.start_listening()),
            _ => {
                let gone = self.take(&self.0.ports);
                drop(gone);
            }
        }
    }

    fn ask_a_transport(&self) {
        if let Some(transport) = self.pick(&self.0.transports) {
            self.ask(&transport);
        }
    }

    fn ask(&self, transport: &Transport) {
        match self.below(18) {
            0 | 1 => transport.write(b"a few bytes"),
            2 => transport.write(&[7; 20_000]),
            3 => transport.write_sequence([b"one", b"two"]),
            4 if self.one_in(3) => transport.lose_connection(),
            5 if self.one_in(4) => transport.abort_connection(),
            6 if self.one_in(3) => transport.lose_write_connection(),
            7 => transport.pause_producing(),
            8 | 9 => transport.resume_producing(),
            10 | 11 => {
                let streaming = if self.one_in(2) { Streaming::Push } else { Streaming::Pull };
                let _ = transport.register_producer(self.wild(), streaming);
            }
            12 => transport.unregister_producer(),
            13 => transport.set_write_marks(self.below(100), self.below(30_000)),
            14 => transport.set_close_timeout(Some(Duration::from_secs(1))),
            15 => {
                drop((transport.set_tcp_no_delay(true), transport.tcp_no_delay(), transport.set_tcp_keep_alive(true)))
            }
            16 => {
                if let Some(other) = self.pick(&self.0.transports) {
                    let _ = transport.register_producer(other.as_producer(), Streaming::Push);
                }
            }
            _ => drop((
                transport.queued_bytes(),
                transport.raw_fd(),
                transport.peer_credentials(),
                transport.has_producer(),
            )),
        }
    }

    /// Reaches protocols and factories from outside.
    fn reach_inside(&self) {
        match (self.below(3), self.pick(&self.0.connections), self.pick(&self.0.shared)) {
            (0 | 1, Some(connection), _) => {
                let _ = connection.with(|wild, transport| {
                    wild.0.act();
                    wild.0.ask(transport);
                });
            }
            (_, _, Some(shared)) => {
                let _ = shared.with(|wild| wild.0.act());
            }
            _ => {}
        }
    }

    fn ask_a_deferred(&self) {
        let Some(mut deferred) = self.take(&self.0.deferreds) else { return };
        match self.below(8) {
            0 => deferred.cancel(),
            1 => {
                let pause = deferred.pause();
                self.0.pauses.borrow_mut().push(pause);
            }
            2 => {
                let pause = self.take(&self.0.pauses);
                drop(pause);
            }
            3 => {
                let promise = self.take(&self.0.promises);
                let _ = promise.map(|promise| promise.callback(()));
            }
            4 => {
                let promise = self.take(&self.0.promises);
                drop(promise);
            }
            5 => drop(deferred.take_result()),
            6 => return drop(deferred),
            _ => {
                let wild = self.wild();
                deferred = deferred.add_callback(move |()| wild.0.act());
            }
        }
        self.0.deferreds.borrow_mut().push(deferred);
    }

    fn spawn_or_send(&self) {
        let Some(reactor) = self.reactor() else { return };
        match self.below(6) {
            0 => {
                let (wild, handle) = (self.wild(), reactor.clone());
                self.keep(reactor.spawn(async move {
                    wild.0.act();
                    let _ = defer_later(&handle, Duration::from_millis(1), || Ok(())).await;
                    wild.0.act();
                    Ok(())
                }));
            }
            1 => {
                let (wild, waited) = (self.wild(), self.take(&self.0.deferreds));
                self.keep(reactor.spawn(async move {
                    if let Some(waited) = waited {
                        let _ = waited.await;
                    }
                    wild.0.act();
                    Ok(())
                }));
            }
            2 => drop(reactor.remote().call_from_thread(|_| act_in_current())),
            3 => {
                let wild = self.wild();
                let job = reactor.defer_to_thread(|| {
                    act_in_current();
                    Ok(())
                });
                self.keep(job.add_both(move |_| wild.0.act()));
            }
            4 => {
                let (wild, pool) = (self.wild(), reactor.thread_pool("own", 1));
                let job = pool.defer_to_thread(|| {
                    act_in_current();
                    Ok(())
                });
                self.keep(job.add_both(move |_| wild.0.act()));
                if self.one_in(2) {
                    self.keep(pool.stop());
                }
            }
            _ => reactor.call_in_thread(act_in_current),
        }
    }

    /// Looks at everything there is.
    fn look_around(&self) {
        for reactor in self.0.reactors.borrow().iter() {
            let _ = (reactor.counters(), reactor.is_running(), reactor.delayed_calls(), reactor.exit_signal());
        }
        let world = &self.0;
        let text = format!("{:?}{:?}{:?}", world.reactors.borrow(), world.ports.borrow(), world.transports.borrow());
        let more = format!("{:?}{:?}{:?}", world.connections.borrow(), world.shared.borrow(), world.deferreds.borrow());
        drop((text, more));
    }

    /// Lets go of everything, with nothing more to do.
    fn end(&self) {
        self.0.left.set(0);
        for reactor in self.0.reactors.take() {
            reactor.close().expect("nothing is running");
        }
        // Work that a pause kept back goes on when the pause is dropped, and may add more.
        while !self.0.pauses.borrow().is_empty() {
            drop(self.0.pauses.take());
        }
        drop((self.0.timers.take(), self.0.promises.take(), self.0.deferreds.take()));
        drop((self.0.ports.take(), self.0.transports.take(), self.0.connections.take(), self.0.shared.take()));
    }
}

fn act_in_current() {
    let program = CURRENT.with_borrow(Clone::clone);
    if let Some(program) = program {
        program.act();
    }
}

/// Whatever the engine takes, which acts whenever it is called, and when it is dropped.
struct Wild(Program);

impl Drop for Wild {
    fn drop(&mut self) {
        self.0.act();
    }
}

impl Factory for Wild {
    type Protocol = Self;

    fn build_protocol(&mut self, _: &Address) -> Option<Self> {
        self.0.act();
        (!self.0.one_in(8)).then(|| self.0.wild())
    }

    fn do_start(&mut self) {
        self.0.act();
    }

    fn do_stop(&mut self) {
        self.0.act();
    }
}

impl Wild {
    fn called(&self, transport: &Transport) -> Result<()> {
        self.0.act();
        // Answers to answers would never end.
        if self.0.0.left.get() > 0 {
            self.0.ask(transport);
        }
        if self.0.one_in(20) { Err(Failure::message("of a random program")) } else { Ok(()) }
    }
}

impl Protocol for Wild {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        self.0.0.transports.borrow_mut().push(transport.clone());
        self.called(transport)
    }

    fn data_received(&mut self, transport: &Transport, _: &[u8]) -> Result<()> {
        self.called(transport)
    }

    fn half_close(&self) -> bool {
        self.0.act();
        self.0.one_in(2)
    }

    fn read_connection_lost(&mut self, transport: &Transport) -> Result<()> {
        self.called(transport)
    }

    fn write_connection_lost(&mut self, transport: &Transport) -> Result<()> {
        self.called(transport)
    }

    fn connection_lost(&mut self, transport: &Transport, _: &Failure) {
        let _ = self.called(transport);
    }
}

impl Producer for Wild {
    fn resume_producing(&mut self, consumer: &Transport) -> Result<()> {
        consumer.write(b"produced");
        if self.0.one_in(4) || self.0.0.left.get() == 0 {
            consumer.unregister_producer();
        }
        self.called(consumer)
    }

    fn pause_producing(&mut self, consumer: &Transport) -> Result<()> {
        self.called(consumer)
    }

    fn stop_producing(&mut self, consumer: &Transport) {
        let _ = self.called(consumer);
    }
}

/// Runs one program to its end.
fn run(seed: u64) {
    let conditions = if seed.is_multiple_of(2) { Conditions::ideal() } else { Conditions::rough(seed) };
    let network = Network::with_conditions(seed, conditions);
    let program = Program::new(seed, &network);
    CURRENT.set(Some(program.clone()));
    for _ in 0..40 {
        program.act();
        // A reactor that the program closed or crashed is no error of the network's.
        let _ = network.run_for(Duration::from_millis(10));
    }
    let _ = network.run_for(Duration::from_secs(60));
    program.end();
    CURRENT.set(None);
    let kept = Rc::strong_count(&program.0) - 1;
    assert!(kept == 0 || program.0.let_go.get(), "something of the program is kept {kept} times (seed {seed})");
}

/// Whatever is called from wherever, nothing panics, and nothing is kept in the end.
#[test]
fn anything_may_be_called_from_anywhere() {
    own_process!();
    panic::set_hook(Box::new(|info| {
        PANICS.lock().unwrap_or_else(PoisonError::into_inner).push(info.to_string());
    }));
    let only = std::env::var("ROPEWALK_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = only.map_or(0..SEEDS, |seed| seed..seed + 1);
    for seed in seeds {
        let ended = panic::catch_unwind(|| run(seed));
        let panics = std::mem::take(&mut *PANICS.lock().unwrap_or_else(PoisonError::into_inner));
        if ended.is_err() || !panics.is_empty() {
            let _ = panic::take_hook();
            panic!("seed {seed}: {panics:#?}");
        }
    }
}
