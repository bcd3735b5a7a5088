//! A simulated network with virtual time, on which whole programs run unchanged: hosts, a reactor
//! on each, and every fault between them, drawn from a seed.

mod backend;
mod backend_invariants;
mod conditions;
mod datagram_peer;
mod descriptor;
mod expected;
mod kernel;
mod peer;
mod protocol_invariants;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use thiserror::Error;

use self::backend::SimulatedBackend;
pub use self::conditions::Conditions;
pub use self::datagram_peer::DatagramPeer;
pub use self::descriptor::VirtualDescriptor;
use self::kernel::{Kernel, Owner, Sharing};
pub use self::peer::{Peer, PendingAttempt};
use self::protocol_invariants::ProtocolInvariants;
use crate::address::Address;
use crate::datagram::DatagramSocketOptions;
use crate::deferred::Deferred;
use crate::error::ReactorError;
use crate::reactor::{Reactor, Resolver, WeakReactor};
use crate::task::defer_later;
use crate::time::Clock;

/// A simulated network: reactors on hosts, peers played by the test, and virtual time. A cheap
/// handle.
///
/// A run is deterministic: the same program with the same seed does the same in every process and
/// on every machine. [`trace`](Self::trace) and [`fingerprint`](Self::fingerprint) show it. Time
/// advances only when nothing else can happen first, so a simulated minute takes no real minute.
///
/// [Run](Reactor::run) a single reactor directly. The network drives several at once, with
/// [`run_until`](Self::run_until), [`run_for`](Self::run_for) and [`settle`](Self::settle). Each
/// reactor then has one run, which lasts until it is stopped.
///
/// The network checks its invariants after every turn of every reactor, and panics with the seed if
/// one is broken:
///
/// - bytes are sent as they were written, and read as they were sent;
/// - an end without a reset follows all of them;
/// - the reactor makes no impossible request to its backend;
/// - nothing is done for a connection inside its `data_received`;
/// - the watched sockets are the open ones;
/// - windows are kept;
/// - a datagram is received unchanged, and no more often than the network has made copies;
/// - time does not go back.
///
/// It checks more at every callback of every protocol:
///
/// - the bytes are the next that this end has read, and with TLS on both sides the next that the
///   other protocol has written;
/// - a protocol is made once, and lost once and last;
/// - no callback comes inside another.
///
/// If one side has TLS and the other has not, each is checked against its own bytes.
///
/// ```
/// use std::time::Duration;
/// use ropewalk::endpoints::{client_from_string, server_from_string};
/// use ropewalk::interfaces::*;
/// use ropewalk::testing::{Conditions, Network};
/// use ropewalk::{Result, Transport};
///
/// struct Echo;
///
/// impl Protocol for Echo {
///     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
///         transport.write(data);
///         Ok(())
///     }
/// }
///
/// # fn main() -> Result<()> {
/// let network = Network::with_conditions(7, Conditions::rough(7));
/// let (server, client) = (network.reactor("10.0.0.1".parse()?), network.reactor("10.0.0.2".parse()?));
/// network.add_name("echo.example", ["10.0.0.1".parse()?]);
/// drop(server_from_string(&server, "tcp:7")?.listen(|_| Some(Echo)));
/// let connecting = client_from_string(&client, "tcp:echo.example:7")?.connect(|_| Some(Echo));
/// network.run_until(Duration::from_secs(60), || connecting.is_called())?;
/// # drop(connecting.add_both(|_| ()));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Network(Rc<NetworkInner>);

struct NetworkInner {
    kernel: Rc<RefCell<Kernel>>,
    reactors: RefCell<Vec<Driven>>,
    /// A time, and the number of rounds in which all reactors had turns at it.
    rounds: Cell<(Duration, u32)>,
}

/// Maximum number of rounds of turns at one time. Time advances when nothing has work left, so a
/// program that always has some, such as a timer that sets another without delay, would stop it for
/// ever. The limit is far above the rounds of any transfer that is not cut into single bytes.
const ROUNDS: u32 = 1_000_000;

/// A reactor and the progress of its run.
struct Driven {
    reactor: WeakReactor,
    owner: Owner,
    stage: NetworkStage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum NetworkStage {
    /// Not driven by the network yet.
    New,
    Running,
    /// Stopped, and not driven any more.
    Over,
}

impl Network {
    /// Creates an ideal network: no latency, no limits, no faults.
    pub fn new(seed: u64) -> Self {
        Self::with_conditions(seed, Conditions::ideal())
    }

    /// Creates a network under the given conditions.
    pub fn with_conditions(seed: u64, conditions: Conditions) -> Self {
        let kernel = Rc::new(RefCell::new(Kernel::new(seed, conditions)));
        Self(Rc::new(NetworkInner { kernel, reactors: RefCell::default(), rounds: Cell::default() }))
    }

    /// Creates a reactor on the host with this address. Its time, names and sockets are the
    /// network's.
    ///
    /// Its jobs for threads run on the reactor's own thread, once a time drawn from the seed has
    /// passed. So a job must not wait for the reactor: in a job `blocking_call_from_thread` fails
    /// with [`OwnThread`](crate::error::OwnThread).
    pub fn reactor(&self, host: IpAddr) -> Reactor {
        let host = host.to_canonical();
        let owner = Owner(self.0.reactors.borrow().len() as u32 + 1);
        self.0.kernel.borrow_mut().add_host(host);
        let backend = SimulatedBackend::new(Rc::clone(&self.0.kernel), owner, host);
        let resolver = Names { kernel: Rc::clone(&self.0.kernel) };
        let kernel = Rc::clone(&self.0.kernel);
        let reactor = Reactor::builder()
            .signals(false)
            .resolver(resolver)
            .simulate_jobs(move || kernel.borrow_mut().job_time())
            .observed(ProtocolInvariants::new(&self.0.kernel, backend.ids()))
            .build_on(Box::new(backend));
        self.0.reactors.borrow_mut().push(Driven { reactor: reactor.downgrade(), owner, stage: NetworkStage::New });
        reactor
    }

    /// Returns the virtual time.
    pub fn now(&self) -> Duration {
        self.0.kernel.borrow().now
    }

    /// Returns the seed.
    pub fn seed(&self) -> u64 {
        self.0.kernel.borrow().seed
    }

    /// Drives all reactors until `done` returns `true`, for at most this much virtual time.
    ///
    /// # Errors
    /// [`SimulationError`]: the time is over, nothing is left that could happen, time stands still,
    /// or a reactor failed. All but the last name the seed.
    pub fn run_until(&self, at_most: Duration, mut done: impl FnMut() -> bool) -> Result<(), SimulationError> {
        let until = self.now().saturating_add(at_most);
        while !done() {
            if self.turn_all()? {
                continue;
            }
            let next = self.next_happening();
            let (now, seed) = (self.now(), self.seed());
            match next {
                None => return Err(SimulationError::Stuck { now, seed }),
                Some(next) if next > until => return Err(SimulationError::TooLong { at_most, seed }),
                Some(next) => self.0.kernel.borrow_mut().advance_to(next),
            }
        }
        Ok(())
    }

    /// Drives all reactors for this much virtual time.
    ///
    /// # Errors
    /// [`SimulationError::Reactor`], [`SimulationError::Standing`].
    pub fn run_for(&self, time: Duration) -> Result<(), SimulationError> {
        let until = self.now().saturating_add(time);
        loop {
            if self.turn_all()? {
                continue;
            }
            match self.next_happening() {
                Some(next) if next <= until => self.0.kernel.borrow_mut().advance_to(next),
                _ => break,
            }
        }
        self.0.kernel.borrow_mut().advance_to(until);
        self.turn_all().map(drop)
    }

    /// Drives all reactors until nothing is under way. Does not wait for pending timers.
    ///
    /// # Errors
    /// [`SimulationError::Reactor`], [`SimulationError::Standing`].
    pub fn settle(&self) -> Result<(), SimulationError> {
        loop {
            if self.turn_all()? {
                continue;
            }
            let next = self.0.kernel.borrow().next_event();
            match next {
                Some(next) => self.0.kernel.borrow_mut().advance_to(next),
                None => return Ok(()),
            }
        }
    }

    /// Runs a turn of every reactor with work to do. Returns `false` if none had any.
    fn turn_all(&self) -> Result<bool, SimulationError> {
        let now = self.now();
        let (moment, rounds) = self.0.rounds.get();
        let rounds = if moment == now { rounds } else { 0 };
        if rounds == ROUNDS {
            return Err(SimulationError::Standing { now, seed: self.seed() });
        }
        self.0.kernel.borrow().check_faults();
        self.0.kernel.borrow_mut().advance_to(now);
        let mut turned = false;
        let count = self.0.reactors.borrow().len();
        for place in 0..count {
            let (reactor, owner, stage) = {
                let driven = &self.0.reactors.borrow()[place];
                (driven.reactor.upgrade(), driven.owner, driven.stage)
            };
            let Some(reactor) = reactor.filter(|it| stage != NetworkStage::Over && !it.is_closed()) else { continue };
            let begins = stage == NetworkStage::New;
            if begins {
                reactor.begin_simulated()?;
                self.set_stage(place, NetworkStage::Running);
            }
            let is_due = reactor.timers().next_deadline().is_some_and(|at| at <= self.now());
            let is_ready = self.0.kernel.borrow().is_ready(owner);
            if begins || is_due || is_ready || reactor.is_busy() {
                if !reactor.step_simulated(Some(Duration::ZERO))? {
                    self.set_stage(place, NetworkStage::Over);
                }
                turned = true;
                self.check(&reactor, owner);
            }
        }
        self.0.rounds.set((now, rounds + u32::from(turned)));
        Ok(turned)
    }

    /// Panics if an invariant does not hold after a turn.
    fn check(&self, reactor: &Reactor, owner: Owner) {
        let kernel = self.0.kernel.borrow();
        kernel.check();
        let (watched, seed) = (reactor.counters().watched, kernel.seed);
        let open = kernel.open(owner) + kernel.watches(owner);
        assert_eq!(watched, open, "a reactor watches {watched} sockets, and has {open} open (seed {seed})");
    }

    fn set_stage(&self, place: usize, stage: NetworkStage) {
        self.0.reactors.borrow_mut()[place].stage = stage;
    }

    /// Returns the time of the next event or timer.
    fn next_happening(&self) -> Option<Duration> {
        let reactors = self.0.reactors.borrow();
        let driven = reactors.iter().filter(|driven| driven.stage != NetworkStage::Over);
        let timers = driven.filter_map(|driven| driven.reactor.upgrade()?.timers().next_deadline());
        timers.chain(self.0.kernel.borrow().next_event()).min()
    }

    /// Adds the addresses of a name. `localhost` has one on every host.
    pub fn add_name(&self, name: &str, addresses: impl IntoIterator<Item = IpAddr>) {
        self.0.kernel.borrow_mut().add_name(name, addresses.into_iter().collect());
    }

    /// Cuts two hosts off from each other. Packets under way between them wait.
    pub fn partition(&self, one: IpAddr, other: IpAddr) {
        self.0.kernel.borrow_mut().partition(one.to_canonical(), other.to_canonical());
    }

    /// Ends a [`partition`](Self::partition).
    pub fn heal(&self, one: IpAddr, other: IpAddr) {
        self.0.kernel.borrow_mut().heal(one.to_canonical(), other.to_canonical());
    }

    /// Limits the number of open sockets of a reactor, lingering ones included. At the limit the
    /// reactor is out of descriptors: listening and connecting fail with `EMFILE`, and connections
    /// in a backlog are shed.
    pub fn limit_descriptors(&self, reactor: &Reactor, limit: Option<usize>) {
        if let Some(owner) = self.owner(reactor) {
            self.0.kernel.borrow_mut().set_limit(owner, limit);
        }
    }

    /// Returns the number of open sockets of a reactor.
    pub fn open_sockets(&self, reactor: &Reactor) -> usize {
        self.owner(reactor).map_or(0, |owner| self.0.kernel.borrow().open(owner))
    }

    fn owner(&self, reactor: &Reactor) -> Option<Owner> {
        let reactors = self.0.reactors.borrow();
        reactors.iter().find(|driven| driven.reactor.upgrade().is_some_and(|it| it.is(reactor))).map(|it| it.owner)
    }

    /// Returns the addresses on which a reactor listens, the oldest first.
    pub fn ports(&self, reactor: &Reactor) -> Vec<Address> {
        let owner = self.owner(reactor);
        owner.map_or_else(Vec::new, |owner| self.0.kernel.borrow().listening(owner))
    }

    /// Returns the addresses of a reactor's datagram ports: those of UDP, the oldest first, then
    /// those of UNIX sockets.
    pub fn datagram_ports(&self, reactor: &Reactor) -> Vec<Address> {
        let owner = self.owner(reactor);
        owner.map_or_else(Vec::new, |owner| self.0.kernel.borrow().datagram_ports(owner))
    }

    /// Binds a datagram socket that the test plays, on the host of this address, which is made if
    /// there is none. Port 0 lets the network choose a port.
    ///
    /// # Errors
    /// `AddrInUse`: another datagram socket has the address.
    pub fn datagram_peer(&self, address: SocketAddr) -> io::Result<DatagramPeer> {
        let mut kernel = self.0.kernel.borrow_mut();
        kernel.add_host(address.ip());
        let bound = kernel.bind_datagrams(Owner::TEST, address.ip(), &address.into(), &DatagramSocketOptions::new());
        let (socket, bound, _) = bound?;
        Ok(DatagramPeer::new(&self.0.kernel, socket, bound.socket_addr().unwrap_or(address)))
    }

    /// Makes a descriptor that any reactor of this network can [watch](Reactor::watch). It is not
    /// ready.
    pub fn descriptor(&self) -> VirtualDescriptor {
        VirtualDescriptor::new(&self.0.kernel)
    }

    /// Connects to a reactor's port, as a peer that the test plays. The peer has a host of its own,
    /// 192.0.2.1.
    pub fn connect(&self, to: SocketAddr) -> Peer {
        let host = IpAddr::from([192, 0, 2, 1]);
        let mut kernel = self.0.kernel.borrow_mut();
        kernel.add_host(host);
        let Ok(attempt) = kernel.connect(Owner::TEST, host, &to.into(), None, Sharing::default()) else {
            unreachable!("the test has no limit of descriptors, and asks for no address of its own");
        };
        Peer::attempt(&self.0.kernel, attempt)
    }

    /// Makes further attempts of reactors to connect wait for the test's answer: see
    /// [`attempts`](Self::attempts).
    pub fn answer_by_hand(&self) {
        self.0.kernel.borrow_mut().attempts_wait = true;
    }

    /// Returns the attempts that wait for an answer, the oldest first.
    pub fn attempts(&self) -> Vec<PendingAttempt> {
        let attempts = self.0.kernel.borrow().attempts();
        attempts.into_iter().map(|(attempt, to)| PendingAttempt::new(&self.0.kernel, attempt, to)).collect()
    }

    /// Starts to keep the trace as text.
    pub fn keep_trace(&self) {
        self.0.kernel.borrow_mut().keep_trace();
    }

    /// Returns the events on the network since [`keep_trace`](Self::keep_trace), a line each.
    pub fn trace(&self) -> String {
        self.0.kernel.borrow().trace().join("\n")
    }

    /// Returns a hash of all events on the network. The same events give the same number. Other
    /// events hardly ever do.
    pub fn fingerprint(&self) -> u64 {
        self.0.kernel.borrow().fingerprint()
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").field("seed", &self.seed()).field("now", &self.now()).finish_non_exhaustive()
    }
}

/// The reason for which a simulation did not reach its goal.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SimulationError {
    /// Nothing is under way and no timer is set, so the awaited event never comes.
    #[error("nothing is left that could happen, at {now:?} (seed {seed})")]
    Stuck {
        /// The virtual time.
        now: Duration,
        /// The seed.
        seed: u64,
    },
    /// The awaited event took too much virtual time.
    #[error("it did not happen within {at_most:?} of virtual time (seed {seed})")]
    TooLong {
        /// The limit.
        at_most: Duration,
        /// The seed.
        seed: u64,
    },
    /// Time stands still: the reactors had so much work at one time that it will never end.
    /// Something always requests more without delay.
    #[error("time stands still at {now:?}: the reactors never run out of work (seed {seed})")]
    Standing {
        /// The virtual time.
        now: Duration,
        /// The seed.
        seed: u64,
    },
    /// A reactor failed.
    #[error("a reactor failed")]
    Reactor(#[from] ReactorError),
}

/// Resolves the network's names.
struct Names {
    kernel: Rc<RefCell<Kernel>>,
}

impl Resolver for Names {
    fn resolve(&self, reactor: &Reactor, host: &str, port: u16) -> Deferred<Vec<SocketAddr>> {
        let (found, after) = self.kernel.borrow_mut().look_up(host);
        let addresses: Vec<_> = found.into_iter().map(|address| SocketAddr::new(address, port)).collect();
        defer_later(reactor, after, move || Ok(addresses))
    }
}
