//! Datagram ports on a simulated network: its answers, its conditions, and an exchange over a bad
//! one.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::Duration;

use super::*;
use crate::common::seeds;
use ropewalk::datagram::MulticastInterface;
use ropewalk::error::{DatagramError, ListenError};
use ropewalk::testing::{Conditions, Network};
use ropewalk::time::Clock;

const ONE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));

/// The time after which a question is asked again.
const RETRY: Duration = Duration::from_millis(500);

/// Questions that wait for an answer at one time.
const AT_ONCE: u32 = 50;

/// Asks questions with numbers, again while there is no answer.
struct Asker {
    reactor: Reactor,
    server: Address,
    asked: Cell<u32>,
    count: u32,
    answers: RefCell<BTreeMap<u32, u32>>,
    retries: Cell<u64>,
}

impl Asker {
    fn ask_next(self: &Rc<Self>, transport: &DatagramTransport) {
        let number = self.asked.get();
        if number < self.count {
            self.asked.set(number + 1);
            self.ask(transport, number);
        }
    }

    fn ask(self: &Rc<Self>, transport: &DatagramTransport, number: u32) {
        // A full queue is like a loss: the question is asked again.
        let _ = transport.write(&number.to_be_bytes(), &self.server);
        let (asker, again) = (Rc::clone(self), transport.clone());
        self.reactor.call_later(RETRY, move || {
            if !asker.answers.borrow().contains_key(&number) {
                asker.retries.set(asker.retries.get() + 1);
                asker.ask(&again, number);
            }
        });
    }
}

/// Runs an exchange of so many questions. Returns the number of repeated ones, and the trace.
fn exchange(seed: u64, count: u32, conditions: Conditions) -> (u64, u64) {
    let network = Network::with_conditions(seed, conditions);
    let (server, client) = (network.reactor(ONE), network.reactor(OTHER));
    let answer = |transport: &DatagramTransport, data: &[u8], peer: &Address| {
        let number = u32::from_be_bytes(data.try_into()?);
        let answer = [number.to_be_bytes(), (!number).to_be_bytes()].concat();
        Ok(transport.write(&answer, peer)?)
    };
    let port = server.listen_udp("0.0.0.0:53".parse().unwrap(), &UdpOptions::new(), Silent(answer)).expect("a port");
    let asker = Rc::new(Asker {
        reactor: client.clone(),
        server: SocketAddr::new(ONE, 53).into(),
        asked: Cell::new(0),
        count,
        answers: RefCell::default(),
        retries: Cell::new(0),
    });
    let heard = Rc::clone(&asker);
    let receive = move |transport: &DatagramTransport, data: &[u8], peer: &Address| {
        assert_eq!(*peer, heard.server);
        let (number, answer) = data.split_at(4);
        let [number, answer] = [number, answer].map(|word| u32::from_be_bytes(word.try_into().unwrap()));
        if heard.answers.borrow_mut().insert(number, answer).is_none() {
            heard.ask_next(transport);
        }
        Ok(())
    };
    let asking = client.listen_udp("0.0.0.0:0".parse().unwrap(), &UdpOptions::new(), Silent(receive)).expect("a port");
    (0..AT_ONCE).for_each(|_| asker.ask_next(&asking));
    let day = Duration::from_secs(24 * 60 * 60);
    network.run_until(day, || asker.answers.borrow().len() == count as usize).expect("every question has its answer");
    let answers = asker.answers.borrow();
    assert!(answers.iter().all(|(number, answer)| *answer == !number), "an answer belongs to another question");
    let stops = [port.stop_listening(), asking.stop_listening()];
    network.run_until(day, || stops.iter().all(|stop| stop.is_called())).expect("the ports stop");
    assert_eq!((network.open_sockets(&server), network.open_sockets(&client)), (0, 0));
    (asker.retries.get(), network.fingerprint())
}

/// A protocol without a log.
struct Silent<F>(F);

impl<F: FnMut(&DatagramTransport, &[u8], &Address) -> Result<()> + 'static> DatagramProtocol for Silent<F> {
    fn datagram_received(&mut self, transport: &DatagramTransport, data: &[u8], peer: &Address) -> Result<()> {
        (self.0)(transport, data, peer)
    }
}

/// With loss, copies and reordering, each question gets its answer. A seed gives the same trace
/// each time, and another seed another one.
#[test]
fn each_question_gets_its_answer() {
    let bad = || {
        let latency = (Duration::from_millis(1), Duration::from_millis(40));
        let conditions = Conditions::ideal().latency(latency.0, latency.1);
        conditions.datagram_loss(100).datagram_duplicates(100).datagram_reordering(200, Duration::from_millis(300))
    };
    let count = seeds(10_000, 100_000);
    let (retries, trace) = exchange(1, count, bad());
    assert!(retries > u64::from(count) / 10, "{retries} retries: too few datagrams were lost");
    assert_eq!(exchange(1, count, bad()), (retries, trace));
    assert_ne!(exchange(2, count, bad()).1, trace);
}

/// On rough networks too, whose backends misbehave.
#[test]
fn rough_networks_answer_too() {
    for seed in 0..u64::from(seeds(12, 200)) {
        exchange(seed, 100, Conditions::rough(seed));
    }
}

/// Makes a host with a port that logs what it receives.
fn host_with_port(
    network: &Network,
    host: impl Into<IpAddr>,
    options: &UdpOptions,
) -> (Log, DatagramTransport, Reactor) {
    let host = host.into();
    let (log, reactor) = (Log::default(), network.reactor(host));
    let port = bind_with(&reactor, EVERYWHERE[usize::from(host.is_ipv6())], options, Recorder::new(&log));
    (log, port, reactor)
}

/// All addresses of a host, for each family.
const EVERYWHERE: [&str; 2] = ["0.0.0.0:9", "[::]:9"];

/// A group reaches its members: on other hosts unless the TTL is 0, on its own with loop-back.
#[test]
fn a_group_reaches_its_members() {
    a_group_reaches("239.255.0.1", ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    a_group_reaches("ff12::77", ["fd00::1", "fd00::2", "fd00::3"]);
}

fn a_group_reaches(group: &str, hosts: [&str; 3]) {
    let network = Network::new(1);
    let options = UdpOptions::new().reuse_address(true);
    let group: IpAddr = group.parse().unwrap();
    let [(own, sender, reactor), (other, member, _other), (outside, _port, _outside)] =
        hosts.map(|host| host_with_port(&network, host.parse::<IpAddr>().unwrap(), &options));
    let second = Log::default();
    let shared = bind_with(&reactor, EVERYWHERE[usize::from(group.is_ipv6())], &options, Recorder::new(&second));
    for port in [&sender, &member, &shared] {
        port.join_group(group, &MulticastInterface::Default).expect("it joins");
        assert!(matches!(port.join_group(group, &MulticastInterface::Default), Err(DatagramError::Group { .. })));
    }
    let to = SocketAddr::new(group, 9).into();
    let send = |data: &[u8]| {
        sender.write(data, &to).expect("it is sent");
        network.settle().expect("it arrives");
    };
    send(b"all");
    sender.set_multicast_ttl(0).expect("it is set");
    send(b"own");
    sender.set_multicast_ttl(1).expect("it is set");
    sender.set_multicast_loopback(false).expect("it is set");
    send(b"others");
    member.leave_group(group, &MulticastInterface::Default).expect("it leaves");
    send(b"none");
    for log in [&own, &second] {
        assert_eq!(log.all(), ["started", "received all", "received own"]);
    }
    assert_eq!(other.all(), ["started", "received all", "received others"]);
    assert_eq!(outside.all(), ["started"]);
    let unknown = sender.join_group(group, &MulticastInterface::Index(7));
    assert!(matches!(unknown, Err(DatagramError::Group { .. })), "{unknown:?}");
}

/// A broadcast needs a permission, and reaches every host.
#[test]
fn a_broadcast_reaches_every_host() {
    let network = Network::new(1);
    let (first, port, _one) = host_with_port(&network, [10, 0, 0, 1], &UdpOptions::new());
    let (second, _port, _two) = host_with_port(&network, [10, 0, 0, 2], &UdpOptions::new());
    let all: Address = SocketAddr::from(([255; 4], 9)).into();
    assert!(matches!(port.write(b"early", &all), Err(DatagramError::Send { .. })));
    port.set_broadcast_allowed(true).expect("it is set");
    port.write(b"all", &all).expect("it is sent");
    network.settle().expect("it arrives");
    assert_eq!([first.all(), second.all()], [["started", "received all"]; 2]);
}

/// Addresses of datagrams: in use, of another host, and apart from those of TCP.
#[test]
fn addresses_belong_to_hosts() {
    let network = Network::new(1);
    let (_log, port, reactor) = host_with_port(&network, [10, 0, 0, 1], &UdpOptions::new());
    let refused = |address: &str| {
        let address = address.parse().unwrap();
        let refused = reactor.listen_udp(address, &UdpOptions::new(), Recorder::new(&Log::default()));
        let Err(ListenError::Bind { source, .. }) = refused else { panic!("{address}: {refused:?}") };
        source.kind()
    };
    assert_eq!(refused("10.0.0.1:9"), std::io::ErrorKind::AddrInUse);
    assert_eq!(refused("10.0.0.2:0"), std::io::ErrorKind::AddrNotAvailable);
    reactor.listen_tcp("0.0.0.0:9".parse().unwrap(), &ropewalk::ListenOptions::new(), |_| Some(Nothing)).expect("TCP");
    assert_eq!(network.datagram_ports(&reactor), [port.host()]);
    network.limit_descriptors(&reactor, Some(2));
    assert!(
        reactor.listen_udp("0.0.0.0:0".parse().unwrap(), &UdpOptions::new(), Recorder::new(&Log::default())).is_err()
    );
    network.settle().expect("the reactor turns");
}

struct Nothing;

impl Protocol for Nothing {
    fn data_received(&mut self, _: &ropewalk::Transport, _: &[u8]) -> Result<()> {
        Ok(())
    }
}

/// Long datagrams are refused or lost, partitions drop, and so does a full receive buffer. The
/// trace says so.
#[test]
fn the_trace_tells_the_fate_of_each_datagram() {
    let conditions = Conditions::ideal().refuse_datagrams_above(2_000).lose_datagrams_above(1_000);
    let network = Network::with_conditions(1, conditions);
    network.keep_trace();
    let options = UdpOptions::new().receive_buffer_bytes(1_000);
    let (log, port, _reactor) = host_with_port(&network, [10, 0, 0, 1], &options);
    let peer = network.datagram_peer(SocketAddr::new(OTHER, 0)).expect("a peer");
    let to = SocketAddr::new(ONE, 9);
    assert!(peer.send_to(&[0; 2_001], to).is_err());
    peer.send_to(&[0; 1_001], to).expect("it is sent, and lost");
    network.partition(ONE, OTHER);
    peer.send_to(b"parted", to).expect("it is sent, and dropped");
    network.settle().expect("it is dropped");
    network.heal(ONE, OTHER);
    port.pause_receiving();
    for _ in 0..3 {
        peer.send_to(&[0; 900], to).expect("it is sent");
    }
    peer.send_to(b"x", SocketAddr::new(ONE, 10)).expect("it is sent, and nothing is there");
    network.settle().expect("they arrive");
    port.resume_receiving();
    network.settle().expect("they are delivered");
    assert_eq!(log.all(), ["started", "received 900 bytes", "received 900 bytes"]);
    let trace = network.trace();
    for (fate, count) in
        [(" lost", 1), ("10.0.0.1:9 parted", 1), ("is full", 1), ("no socket", 1), ("take ", 2), ("arrive ", 2)]
    {
        assert_eq!(trace.matches(fate).count(), count, "{fate:?}:\n{trace}");
    }
}

/// A full send buffer queues datagrams, which leave in order when there is room. A queue that is
/// full too is an error.
#[test]
fn a_full_send_buffer_queues() {
    let network = Network::with_conditions(1, Conditions::ideal().bandwidth(Some(1_000)));
    let (log, receiver, _reactor) = host_with_port(&network, [10, 0, 0, 1], &UdpOptions::new());
    let reactor = network.reactor(OTHER);
    let options = UdpOptions::new().send_buffer_bytes(500).queue_limit(10_000);
    let port = bind_with(&reactor, "0.0.0.0:0", &options, Recorder::new(&Log::default()));
    let to: Address = SocketAddr::new(ONE, receiver.host().port().unwrap()).into();
    let numbers: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    let sent = numbers.iter().take_while(|number| port.write(number.as_bytes(), &to).is_ok()).count();
    assert!(sent < 100 || port.queued_bytes() > 0, "nothing was queued");
    assert!(port.queued_bytes() > 0 && port.queued_bytes() <= 10_000);
    let day = Duration::from_secs(24 * 60 * 60);
    network.run_until(day, || log.count("received") == sent).expect("they arrive");
    let expected: Vec<_> = numbers[..sent].iter().map(|number| format!("received {number}")).collect();
    assert_eq!(log.all()[1..], expected);
    assert_eq!(port.queued_bytes(), 0);
    port.set_queue_limit(0);
    let full = (0..100).find_map(|_| port.write(&[0; 100], &to).err());
    assert!(matches!(full, Some(DatagramError::QueueFull { .. })), "{full:?}");
}

/// The simulated network and the system give the same answers to odd requests.
#[test]
fn odd_requests_have_the_answers_of_the_system() {
    on_each(|reactor| odd_requests(&reactor, &|| settle(&reactor)));
    let network = Network::new(1);
    let reactor = network.reactor(ONE);
    odd_requests(&reactor, &|| network.settle().expect("the network settles"));
}

fn odd_requests(reactor: &Reactor, settle: &dyn Fn()) {
    let log = Log::default();
    let inet = |address: &str| Address::from(address.parse::<SocketAddr>().expect("an address"));
    let echo = bind(reactor, "127.0.0.1:0", Recorder::echo(&log));
    let number = echo.host().port().expect("a UDP port");
    // Port 0 is none.
    let refused = echo.write(b"", &inet("127.0.0.1:0")).expect_err("it is refused");
    assert!(
        matches!(&refused, DatagramError::Send { source, .. } if source.kind() == std::io::ErrorKind::InvalidInput)
    );
    // The unspecified address is that of this host, for a write and for a peer.
    let answers = Log::default();
    let port = bind(reactor, "0.0.0.0:0", Recorder::new(&answers));
    port.write(b"one", &inet(&format!("0.0.0.0:{number}"))).expect("it is sent");
    port.connect(&inet(&format!("0.0.0.0:{number}"))).expect("it has a peer");
    assert_eq!(port.host(), inet(&format!("127.0.0.1:{}", port.host().port().expect("a UDP port"))));
    port.write_to_peer(b"two").expect("it is sent");
    settle();
    assert_eq!(answers.all(), ["started", "received one", "received two"]);
    // A datagram is not too long for a small buffer that is empty.
    let small = bind_with(reactor, "127.0.0.1:0", &UdpOptions::new().send_buffer_bytes(1), Recorder::new(&log));
    small.write(&[0; 60_000], &echo.host()).expect("it is sent");
    // Interfaces that do not exist, and those that mean the default.
    let code = |result: Result<(), DatagramError>| match result {
        Err(DatagramError::Group { source, .. } | DatagramError::SocketOption { source, .. }) => source.raw_os_error(),
        other => panic!("{other:?}"),
    };
    let (no_device, not_available) = (Some(19), Some(99));
    let nowhere = [MulticastInterface::Index(999), MulticastInterface::Address([203, 0, 113, 9].into())];
    let group = "239.255.0.7".parse().expect("a group");
    for interface in nowhere {
        assert_eq!(code(port.join_group(group, &interface)), no_device);
        assert_eq!(code(port.leave_group(group, &interface)), not_available);
        assert_eq!(code(port.set_outgoing_interface(&interface)), not_available);
    }
    port.set_outgoing_interface(&MulticastInterface::Address([0, 0, 0, 0].into())).expect("the default");
    let six = bind(reactor, "[::]:0", Recorder::new(&log));
    let group = "ff02::1:7".parse().expect("a group");
    assert_eq!(code(six.leave_group(group, &MulticastInterface::Index(999))), not_available);
    assert_eq!(code(six.set_outgoing_interface(&MulticastInterface::Index(999))), no_device);
    six.join_group(group, &MulticastInterface::Index(1)).expect("it joins");
    six.leave_group(group, &MulticastInterface::Default).expect("it leaves the first that it has joined");
    assert_eq!(code(six.leave_group(group, &MulticastInterface::Default)), not_available);
}

/// A port of both families reaches IPv4 peers, connected or not.
#[test]
fn a_port_of_both_families_reaches_both() {
    let network = Network::new(1);
    let reactor = network.reactor(ONE);
    let logs = [Log::default(), Log::default()];
    let both = bind(&reactor, "[::]:0", Recorder::new(&logs[0]));
    let old = bind(&reactor, "127.0.0.1:0", Recorder::echo(&logs[1]));
    both.write(b"one", &old.host()).expect("it is sent");
    network.settle().expect("it comes back");
    both.connect(&old.host()).expect("it connects");
    both.write_to_peer(b"two").expect("it is sent");
    network.settle().expect("it comes back");
    assert!(logs.iter().all(|log| log.all() == ["started", "received one", "received two"]), "{logs:?}");
    assert_eq!(both.host().ip(), Some(Ipv4Addr::LOCALHOST.into()));
}
