//! A name with several addresses (F47 to F50): who wins, when, and what is left of the others. On
//! the simulated network, where the test answers every attempt, at the time it chooses.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use crate::common::{Log, Script, Watched, scripts};
use ropewalk::deferred::{Canceller, Promise, TimedOut};
use ropewalk::endpoints::{HostnameEndpoint, client_from_string};
use ropewalk::error::{ConnectError, ConnectionClosed};
use ropewalk::interfaces::*;
use ropewalk::reactor::Resolver;
use ropewalk::testing::{Conditions, Network, Peer, PendingAttempt};
use ropewalk::{Address, Connection, Deferred, Failure, ListenOptions, Reactor};

const HOST: &str = "many.example";
const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));
const MS: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_secs(3600);

/// The behaviour of the host at an address. Times count from the attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Host {
    Answers,
    Refuses,
    /// Answers, but not before the next address is tried.
    IsSlow,
    NeverAnswers,
}

const HOSTS: [Host; 4] = [Host::Answers, Host::Refuses, Host::IsSlow, Host::NeverAnswers];

impl Host {
    /// After how many milliseconds something comes of an attempt, and what.
    fn outcome(self) -> (u64, What) {
        match self {
            Self::Answers => (20, What::Answer),
            Self::Refuses => (30, What::Refusal),
            Self::IsSlow => (400, What::Answer),
            Self::NeverAnswers => (30_000, What::Timeout),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Timeout,
    Next,
    Refusal,
    Answer,
}

/// The rules, said once more and in another way: what is to happen, when, and to which of the
/// addresses.
struct Course {
    hosts: Vec<Host>,
    /// When each attempt began that has no outcome yet, and which it is.
    under_way: Vec<(u64, usize)>,
    begun: usize,
    next: Option<u64>,
}

impl Course {
    fn new(hosts: &[Host]) -> Self {
        let mut course = Self { hosts: hosts.to_vec(), under_way: Vec::new(), begun: 0, next: None };
        course.begin(0);
        course
    }

    fn begin(&mut self, now: u64) {
        if self.begun < self.hosts.len() {
            self.under_way.push((now, self.begun));
            self.begun += 1;
            self.next = (self.begun < self.hosts.len()).then_some(now + 250);
        }
    }

    /// The next thing to happen: when, what, and to which address. `None`: it is over.
    fn step(&mut self) -> Option<(u64, What, usize)> {
        let outcomes = self.under_way.iter().map(|&(began, which)| {
            let (after, what) = self.hosts[which].outcome();
            (began + after, what, which)
        });
        let next = self.next.map(|at| (at, What::Next, self.begun));
        let (now, what, which) = outcomes.chain(next).min()?;
        match what {
            What::Next => self.begin(now),
            What::Timeout | What::Refusal => {
                self.under_way.retain(|&(_, other)| other != which);
                self.begin(now);
            }
            What::Answer => {
                self.under_way.clear();
                self.next = None;
            }
        }
        Some((now, what, which))
    }

    fn trying(&self) -> Vec<usize> {
        self.under_way.iter().map(|&(_, which)| which).collect()
    }
}

/// The addresses in the order in which they are to be tried, of alternating families; and as a
/// resolver gives them, which sorts by family.
fn addresses(count: usize) -> (Vec<IpAddr>, Vec<IpAddr>) {
    let address = |which: usize| -> IpAddr {
        let text = if which.is_multiple_of(2) { format!("2001:db8::{which}") } else { format!("198.51.100.{which}") };
        text.parse().unwrap()
    };
    let ordered: Vec<IpAddr> = (0..count).map(address).collect();
    let (v6, v4): (Vec<IpAddr>, Vec<IpAddr>) = ordered.iter().partition(|address| address.is_ipv6());
    (ordered, [v6, v4].concat())
}

/// A client whose every attempt the test answers.
struct Play {
    network: Network,
    client: Reactor,
    log: Log,
    order: Vec<IpAddr>,
    peers: Vec<Peer>,
}

impl Play {
    fn new(hosts: usize) -> Self {
        let network = Network::new(1);
        network.answer_by_hand();
        let client = network.reactor(CLIENT);
        let (order, resolved) = addresses(hosts);
        network.add_name(HOST, resolved);
        Self { network, client, log: Log::default(), order, peers: Vec::new() }
    }

    fn endpoint(&self) -> HostnameEndpoint {
        HostnameEndpoint::new(&self.client, HOST, 80)
    }

    fn connect(&self) -> Deferred<Connection<Script>> {
        let connecting = self.endpoint().connect(Watched::new(&self.log, scripts(&self.log)));
        self.network.settle().unwrap();
        connecting
    }

    /// Which of the addresses are being tried.
    fn trying(&self) -> Vec<usize> {
        let attempts = self.network.attempts();
        let place =
            |attempt: &PendingAttempt| self.order.iter().position(|ip| *ip == attempt.to().ip().unwrap()).unwrap();
        attempts.iter().map(place).collect()
    }

    fn take(&self, which: usize) -> PendingAttempt {
        let to = SocketAddr::new(self.order[which], 80);
        self.network
            .attempts()
            .into_iter()
            .find(|attempt| attempt.to().socket_addr() == Some(to))
            .expect("it is being tried")
    }

    /// Waits for the time of a step of the course, and plays the host's part in it.
    fn act(&mut self, (at, what, which): (u64, What, usize)) {
        let before = self.trying();
        let wait = Duration::from_millis(at) - self.network.now();
        if !wait.is_zero() {
            self.network.run_for(wait - MS).unwrap();
            assert_eq!(self.trying(), before, "nothing happens before its time");
            self.network.run_for(MS).unwrap();
        }
        match what {
            What::Next | What::Timeout => {}
            What::Refusal => self.take(which).refuse(),
            What::Answer => self.peers.extend(self.take(which).accept()),
        }
        self.network.settle().unwrap();
    }

    fn open(&self) -> usize {
        self.network.open_sockets(&self.client)
    }

    /// Nothing comes any more, the factory was stopped as often as it was started, and nothing is
    /// left open.
    #[track_caller]
    fn assert_nothing_is_left(&self) {
        assert_eq!(self.open(), 0);
        self.network.run_for(LONG).unwrap();
        assert!(self.network.attempts().is_empty());
        assert!(self.client.timers().is_empty());
        assert_eq!(self.log.count("start"), self.log.count("stop"));
        assert_eq!(self.client.counters().watched, 0);
    }
}

/// The failure of a Deferred.
#[track_caller]
fn failure_of<T: std::fmt::Debug>(mut deferred: Deferred<T>) -> Failure {
    deferred.take_result().expect("it has its result").expect_err("a failure")
}

#[track_caller]
fn assert_cancelled<T: std::fmt::Debug>(deferred: Deferred<T>) {
    let failure = failure_of(deferred);
    assert!(matches!(failure.check(), Some(ConnectError::ConnectingCancelled { to }) if to == HOST), "{failure}");
}

/// Every combination of what up to four hosts can do.
fn all_hosts() -> impl Iterator<Item = Vec<Host>> {
    (1..=4).flat_map(|count| {
        (0..4_usize.pow(count)).map(move |number| (0..count).map(|at| HOSTS[number / 4_usize.pow(at) % 4]).collect())
    })
}

/// F50: whatever the hosts do, the attempts begin when they are to, the first answer has the only
/// protocol, all other sockets are closed; and if there is no answer, the failure says what became
/// of each.
#[test]
fn every_interleaving() {
    let mut cases = 0;
    for hosts in all_hosts() {
        cases += 1;
        let (mut play, mut course) = (Play::new(hosts.len()), Course::new(&hosts));
        let mut connecting = play.connect();
        let mut end = (0, What::Next, 0);
        while let Some(step) = course.step() {
            assert!(!connecting.is_called(), "{hosts:?}");
            end = step;
            play.act(step);
            assert_eq!(play.trying(), course.trying(), "{hosts:?} after {step:?}");
        }
        let (at, what, winner) = end;
        let result = connecting.take_result().unwrap_or_else(|| panic!("{hosts:?}: it is over"));
        assert_eq!(play.network.now(), Duration::from_millis(at), "{hosts:?}");
        if what == What::Answer {
            let connection = result.unwrap_or_else(|failure| panic!("{hosts:?}: {failure}"));
            assert_eq!(connection.transport().peer().ip(), Some(play.order[winner]), "{hosts:?}");
            assert_eq!((play.open(), play.client.counters().watched), (1, 1), "{hosts:?}");
            play.network.run_for(LONG).unwrap();
            assert_eq!(play.log.all(), ["start", "build", "made"], "{hosts:?}");
            connection.transport().lose_connection();
            play.peers.drain(..).for_each(Peer::close);
            play.network.settle().unwrap();
            assert_eq!((play.log.count("lost"), play.log.count("stop")), (1, 1), "{hosts:?}");
        } else {
            let failure = result.expect_err("nobody answered");
            assert_tried(&failure, &hosts, &play.order);
            assert_eq!(play.log.all(), ["start", "stop"], "{hosts:?}");
        }
        play.assert_nothing_is_left();
    }
    assert_eq!(cases, 4 + 16 + 64 + 256);
}

/// The failure lists every host in its order, with what it did.
#[track_caller]
fn assert_tried(failure: &Failure, hosts: &[Host], order: &[IpAddr]) {
    let Some(ConnectError::AllFailed { to, attempts }) = failure.check() else { panic!("{failure}") };
    assert_eq!((to.as_str(), attempts.len()), (HOST, hosts.len()));
    for ((attempt, host), ip) in attempts.iter().zip(hosts).zip(order) {
        assert_eq!(attempt.address, Address::from(SocketAddr::new(*ip, 80)));
        match (&attempt.error, host) {
            (ConnectError::Refused { .. }, Host::Refuses) => {}
            (ConnectError::NoAnswer { after, .. }, Host::NeverAnswers) => assert_eq!(after.as_secs(), 30),
            (error, host) => panic!("{host:?}: {error}"),
        }
        assert!(failure.to_string().contains(&attempt.address.to_string()), "{failure}");
    }
}

/// Cancelled after any step of any course, it fails at once, every socket is closed, and nothing
/// begins any more.
#[test]
fn cancelled_at_any_moment() {
    for hosts in all_hosts() {
        for steps in 0.. {
            let (mut play, mut course) = (Play::new(hosts.len()), Course::new(&hosts));
            let connecting = play.connect();
            for _ in 0..steps {
                let step = course.step().expect("it goes on");
                play.act(step);
            }
            if connecting.is_called() {
                drop(connecting.add_both(|_| ()));
                break;
            }
            connecting.cancel();
            assert_cancelled(connecting);
            play.assert_nothing_is_left();
            assert!(!play.log.has("build"), "{hosts:?} after {steps}");
        }
    }
}

/// Cancelled while the name is being looked up: nothing is tried, and the factory hears of nothing.
#[test]
fn cancelled_while_resolving() {
    let network = Network::with_conditions(1, Conditions::ideal().names(LONG, LONG));
    let (client, log) = (network.reactor(CLIENT), Log::default());
    network.add_name(HOST, addresses(4).0);
    let connecting = HostnameEndpoint::new(&client, HOST, 80).connect(Watched::new(&log, scripts(&log)));
    network.run_for(MS).unwrap();
    connecting.cancel();
    assert_cancelled(connecting);
    assert!(client.timers().is_empty(), "neither the look-up nor its deadline is left");
    network.run_for(2 * LONG).unwrap();
    assert!(log.all().is_empty());
}

/// The canceller of the Deferred, called from inside a callback of its own connection.
type Place = Rc<RefCell<Option<Canceller>>>;

fn cancel(place: &Place) {
    place.borrow().as_ref().expect("it is there").cancel();
}

/// Cancelled from inside `build_protocol` or `connection_made` of the winner, while others are
/// still tried.
#[test]
fn cancelled_by_the_winner() {
    for in_build in [true, false] {
        let (play, place) = (Play::new(3), Place::default());
        let (cancels, log) = (Rc::clone(&place), play.log.clone());
        let factory = Watched::new(&play.log, move |_| {
            if in_build {
                cancel(&cancels);
            }
            let cancels = Rc::clone(&cancels);
            Some(Script::new(&log).made(move |_| {
                cancel(&cancels);
                Ok(())
            }))
        });
        let connecting = play.endpoint().connect(factory);
        place.replace(Some(connecting.canceller()));
        play.network.run_for(300 * MS).unwrap();
        assert_eq!(play.trying(), [0, 1]);
        let peer = play.take(1).accept().unwrap();
        play.network.settle().unwrap();
        assert_cancelled(connecting);
        assert_eq!(play.log.has("made"), !in_build);
        peer.close();
        play.network.settle().unwrap();
        play.assert_nothing_is_left();
    }
}

/// Two answers in the same turn: one is handed out, and the other host sees the end.
#[test]
fn two_answers_at_once() {
    for second_first in [false, true] {
        let play = Play::new(2);
        let mut connecting = play.connect();
        play.network.run_for(250 * MS).unwrap();
        let (first, second) = if second_first { (1, 0) } else { (0, 1) };
        let (winner, loser) = (play.take(first).accept().unwrap(), play.take(second).accept().unwrap());
        play.network.settle().unwrap();
        let connection = connecting.take_result().expect("an answer").unwrap();
        assert_eq!(connection.transport().peer().ip(), Some(play.order[first]));
        assert_eq!(play.log.all(), ["start", "build", "made"]);
        assert_eq!(play.open(), 1);
        assert!(!winner.is_ended());
        assert!(loser.is_ended() || loser.is_reset());
    }
}

/// An attempt that fails late brings the next one forward, and the quarter of a second counts from
/// that one.
#[test]
fn a_failure_brings_the_next_forward() {
    let play = Play::new(4);
    let connecting = play.connect();
    play.network.run_for(100 * MS).unwrap();
    play.take(0).refuse();
    play.network.run_for(249 * MS).unwrap();
    assert_eq!(play.trying(), [1]);
    play.network.run_for(MS).unwrap();
    assert_eq!(play.trying(), [1, 2]);
    play.take(1).fail(std::io::ErrorKind::HostUnreachable);
    play.network.settle().unwrap();
    assert_eq!(play.trying(), [2, 3]);
    play.take(3).refuse();
    play.take(2).refuse();
    play.network.settle().unwrap();
    let failure = failure_of(connecting);
    let Some(ConnectError::AllFailed { attempts, .. }) = failure.check() else { panic!("{failure}") };
    assert!(matches!(attempts[1].error, ConnectError::Unreachable { .. }), "{failure}");
    let said = "no address of many.example can be reached: [2001:db8::]:80 refused the connection; \
                198.51.100.1:80 is unreachable: host unreachable; [2001:db8::2]:80 refused the connection; \
                198.51.100.3:80 refused the connection";
    assert_eq!(failure.to_string(), said);
    play.assert_nothing_is_left();
}

/// A factory that builds nothing, or panics, ends it: the other addresses are not asked for another
/// opinion.
#[test]
fn a_factory_that_does_not_want_it() {
    for panics in [false, true] {
        let play = Play::new(3);
        let factory = move |_| {
            assert!(!panics, "not this one");
            None::<Script>
        };
        let connecting = play.endpoint().connect(Watched::new(&play.log, factory));
        play.network.run_for(250 * MS).unwrap();
        let peer = play.take(0).accept().unwrap();
        play.network.settle().unwrap();
        let failure = failure_of(connecting);
        assert_eq!(matches!(failure.check(), Some(ConnectError::NoProtocol { .. })), !panics, "{failure}");
        peer.close();
        play.network.settle().unwrap();
        assert_eq!(play.log.all(), ["start", "build", "stop"]);
        play.assert_nothing_is_left();
    }
}

/// A reactor that stops in the middle.
#[test]
fn a_reactor_that_stops() {
    let play = Play::new(3);
    let connecting = play.connect();
    play.network.run_for(260 * MS).unwrap();
    play.client.stop().unwrap();
    play.network.run_for(MS).unwrap();
    let failure = failure_of(connecting);
    assert!(matches!(failure.check(), Some(ConnectError::ReactorStopped { to }) if to == HOST), "{failure}");
    assert_eq!(play.open(), 0);
    assert_eq!(play.log.all(), ["start", "stop"]);
}

/// A limit for all of it together.
#[test]
fn a_limit_for_everything() {
    let play = Play::new(4);
    let endpoint = play.endpoint();
    let connecting = endpoint.connect(scripts(&play.log)).add_timeout(Duration::from_secs(1), &play.client);
    play.network.run_for(999 * MS).unwrap();
    assert_eq!(play.trying(), [0, 1, 2, 3]);
    play.network.run_for(MS).unwrap();
    let failure = failure_of(connecting);
    assert_eq!(failure.check::<TimedOut>().expect("a timeout").after, Duration::from_secs(1));
    play.assert_nothing_is_left();
}

/// The settings of the endpoint are those of the attempts; a delay beyond the RFC's bounds becomes
/// the bound.
#[test]
fn delays_and_timeouts() {
    for (asked, used) in [(0, 10), (10, 10), (90, 90), (2_000, 2_000), (60_000, 2_000)] {
        let play = Play::new(2);
        let endpoint = play.endpoint().attempt_delay(asked * MS).timeout(Duration::from_secs(5));
        let connecting = endpoint.connect(scripts(&play.log));
        play.network.run_for(used * MS - MS).unwrap();
        assert_eq!(play.trying(), [0], "{asked}");
        play.network.run_for(MS).unwrap();
        assert_eq!(play.trying(), [0, 1], "{asked}");
        play.network.run_until(LONG, || connecting.is_called()).unwrap();
        assert_eq!(play.network.now(), used * MS + Duration::from_secs(5));
        drop(failure_of(connecting));
        play.assert_nothing_is_left();
    }
}

/// RFC 8305, section 4: the resolver's first address is tried first, and then the families
/// alternate.
#[test]
fn the_order_of_the_addresses() {
    for (resolved, tried) in [
        ("6a 6b 4a 4b", "6a 4a 6b 4b"),
        ("4a 4b 6a 6b", "4a 6a 4b 6b"),
        ("6a 4a 6b 4b", "6a 4a 6b 4b"),
        ("6a 6b 6c 4a", "6a 4a 6b 6c"),
        ("4a 6a 6b 6c", "4a 6a 6b 6c"),
        ("4a 4b 4c", "4a 4b 4c"),
        ("6b 6a", "6b 6a"),
        ("6a 4a 6a 4a 6b", "6a 4a 6b"),
        ("4a", "4a"),
    ] {
        let network = Network::new(1);
        network.answer_by_hand();
        let client = network.reactor(CLIENT);
        let address = |name: &str| -> IpAddr {
            let text = name.replace('6', "2001:db8::").replace('4', "198.51.100.");
            text.replace('a', "1").replace('b', "2").replace('c', "3").parse().unwrap()
        };
        network.add_name(HOST, resolved.split(' ').map(address));
        let connecting =
            client_from_string(&client, &format!("tcp:{HOST}:80")).unwrap().connect(scripts(&Log::default()));
        for expected in tried.split(' ') {
            network.settle().unwrap();
            let [attempt] = <[_; 1]>::try_from(network.attempts()).expect("one at a time");
            assert_eq!(attempt.to().ip(), Some(address(expected)), "{resolved}");
            attempt.refuse();
        }
        network.settle().unwrap();
        drop(failure_of(connecting));
    }
}

/// F48: of a name with a thousand addresses sixteen are tried, of both families.
#[test]
fn a_thousand_addresses() {
    let network = Network::new(1);
    network.answer_by_hand();
    let (client, log) = (network.reactor(CLIENT), Log::default());
    let v6 = (1..=500).map(|n| format!("2001:db8::{n}").parse().unwrap());
    network.add_name(HOST, v6.chain((0..500).map(|n| format!("198.18.{}.{}", n / 256, n % 256).parse().unwrap())));
    let connecting = HostnameEndpoint::new(&client, HOST, 80).connect(Watched::new(&log, scripts(&log)));
    network.run_for(Duration::from_secs(29)).unwrap();
    let tried = network.attempts();
    assert_eq!((tried.len(), network.open_sockets(&client)), (16, 16));
    assert_eq!(tried.iter().filter(|attempt| attempt.to().ip().is_some_and(|ip| ip.is_ipv6())).count(), 8);
    network.run_until(LONG, || connecting.is_called()).unwrap();
    let failure = failure_of(connecting);
    assert!(matches!(failure.check(), Some(ConnectError::AllFailed { attempts, .. }) if attempts.len() == 16));
    assert_eq!(network.now(), Duration::from_millis(15 * 250 + 30_000));
    assert_eq!(network.open_sockets(&client), 0);
}

/// F47: a resolver that hangs has a deadline of its own. Then the attempt fails, and nothing is
/// left.
#[test]
fn a_resolver_that_hangs() {
    for (timeout, after) in [(None, 30_000), (Some(1_500 * MS), 1_500), (Some(Duration::ZERO), 0)] {
        let network = Network::with_conditions(1, Conditions::ideal().names(LONG, LONG));
        let (client, log) = (network.reactor(CLIENT), Log::default());
        network.add_name(HOST, addresses(4).0);
        let endpoint = HostnameEndpoint::new(&client, HOST, 80);
        let endpoint = timeout.into_iter().fold(endpoint, HostnameEndpoint::lookup_timeout);
        let connecting = endpoint.connect(Watched::new(&log, scripts(&log)));
        network.run_until(LONG, || connecting.is_called()).unwrap();
        assert_eq!(network.now(), Duration::from_millis(after));
        let failure = failure_of(connecting);
        assert!(matches!(failure.check(), Some(ConnectError::Lookup { host, .. }) if host == HOST), "{failure}");
        assert!(failure.to_string().contains("did not answer within"), "{failure}");
        assert!(client.timers().is_empty());
        assert!(log.all().is_empty(), "there was nothing to connect to");
    }
}

/// F48: an answer without addresses, and one that is an error, are failures that say so.
#[test]
fn no_addresses() {
    struct Odd;
    impl Resolver for Odd {
        fn resolve(&self, _: &Reactor, host: &str, _: u16) -> Deferred<Vec<SocketAddr>> {
            match host {
                "empty.example" => Deferred::succeed(Vec::new()),
                "kept.example" => Promise::new().1,
                _ => Deferred::fail("SERVFAIL"),
            }
        }
    }
    let reactor = Reactor::builder().signals(false).resolver(Odd).build().unwrap();
    for (host, said) in [
        ("empty.example", "no address is known for \"empty.example\": the name has no addresses"),
        ("broken.example", "SERVFAIL"),
        ("kept.example", "the operation was abandoned: its promise was dropped before it was fired"),
    ] {
        let connecting = HostnameEndpoint::new(&reactor, host, 80).connect(scripts(&Log::default()));
        assert_eq!(failure_of(connecting).to_string(), said);
    }
    assert!(reactor.timers().is_empty());
}

/// On networks on which everything goes wrong: one connection, one protocol, one socket.
#[test]
fn many_seeds() {
    for seed in 0..300 {
        let network = Network::with_conditions(seed, Conditions::rough(seed));
        let (log, order) = (Log::default(), addresses(4).0);
        let client = network.reactor(CLIENT);
        let serving: Vec<bool> = (0..4).map(|bit| seed >> bit & 1 == 1).collect();
        let served: Vec<(Reactor, Log)> = order.iter().map(|ip| (network.reactor(*ip), Log::default())).collect();
        for (((server, log), ip), serves) in served.iter().zip(&order).zip(&serving) {
            if *serves {
                server.listen_tcp(SocketAddr::new(*ip, 80), &ListenOptions::new(), scripts(log)).unwrap();
            }
        }
        network.add_name(HOST, order.clone());
        let mut connecting = HostnameEndpoint::new(&client, HOST, 80).connect(Watched::new(&log, scripts(&log)));
        network.run_until(LONG, || connecting.is_called()).unwrap();
        let result = connecting.take_result().unwrap();
        network.run_for(Duration::from_secs(60)).unwrap();
        if serving.contains(&true) {
            let connection = result.unwrap_or_else(|failure| panic!("{seed}: {failure}"));
            assert!(serving[order.iter().position(|ip| Some(*ip) == connection.transport().peer().ip()).unwrap()]);
            assert_eq!(log.all(), ["start", "build", "made"], "{seed}");
            assert_eq!(network.open_sockets(&client), 1, "{seed}");
            // Servers may have seen losers come; all of those have gone.
            let came: usize = served.iter().map(|(_, log)| log.count("made")).sum();
            let went: usize = served.iter().map(|(_, log)| log.count("lost")).sum();
            assert_eq!(came - went, 1, "{seed}");
        } else {
            assert_tried(&result.expect_err("nobody listens"), &[Host::Refuses; 4], &order);
            assert_eq!(network.open_sockets(&client), 0, "{seed}");
        }
    }
}

/// The winner of a race is a connection like any other.
#[test]
fn the_winner_lives_on() {
    let play = Play::new(2);
    let reason = Rc::default();
    let script = Script::new(&play.log).reason_into(&reason);
    let mut connecting = play.endpoint().connect(crate::common::once(script));
    play.network.run_for(250 * MS).unwrap();
    let peer = play.take(1).accept().unwrap();
    play.network.settle().unwrap();
    let connection = connecting.take_result().unwrap().unwrap();
    connection.transport().write(b"hello");
    peer.write(b"who is it?").unwrap();
    play.network.settle().unwrap();
    assert_eq!(peer.read(), b"hello");
    assert_eq!(connection.with(|script, _| script.received.borrow().clone()), Ok(b"who is it?".to_vec()));
    peer.abort();
    play.network.settle().unwrap();
    let reason = reason.take().expect("it is over");
    assert!(matches!(reason.check(), Some(ConnectionClosed::Reset { .. })), "{reason}");
    assert_eq!(play.open(), 0);
}
