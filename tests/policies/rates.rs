//! Rates on a virtual clock: exact over a long time, smooth, fair, and without a timer where
//! nothing is throttled.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use super::*;
use crate::common::{Log, Script};
use ropewalk::interfaces::*;
use ropewalk::policies::{ConnectionPolicies, Rate};
use ropewalk::testing::{Conditions, Network, Pump, PumpOptions, StringTransport};
use ropewalk::transport::QueueLimit;
use ropewalk::{ConnectOptions, ListenOptions, Transport};

const SERVER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

/// Lets time pass in steps that are shorter than any wait of the test.
fn pass<C: Protocol, S: Protocol>(pump: &Pump<C, S>, time: Duration) {
    let step = Duration::from_millis(5);
    (0..time.as_millis() / step.as_millis()).for_each(|_| pump.advance(step));
}

fn silent() -> Script {
    Script::new(&Log::default())
}

/// Bytes leave at their rate: never more than it permits at any moment, and all of them at the end,
/// to the nanosecond, however they were written.
#[test]
fn written_bytes_keep_to_their_rate() {
    for (per_second, burst, total, pieces) in
        [(1_000, 100, 10_100, 1), (1_000, 1, 5_001, 50), (333, 7, 3_337, 3), (1_000_000, 50_000, 2_050_000, 4)]
    {
        let string = StringTransport::new();
        let rate = Rate::bytes_per_second(per_second).burst(burst);
        ConnectionPolicies::new().send_rate(rate).share().apply(string.transport());
        let connection = string.joined(silent());
        let timers = connection.transport().timers();
        let data: Vec<u8> = (0..total).map(|place: u64| (place % 251) as u8).collect();
        for piece in data.chunks(data.len().div_ceil(pieces)) {
            connection.transport().write(piece);
        }
        assert_eq!(connection.transport().queued_bytes() as u64, total);
        connection.turn();
        let seconds = (total - burst) / per_second;
        let (mut sent, mut last) = (0, 0);
        for tick in 1..=seconds * 100 {
            connection.advance(SECOND / 100);
            sent = connection.string().value().len() as u64;
            let permitted = burst + per_second * tick / 100;
            assert!(sent <= permitted, "{sent} of {permitted} bytes after {tick} ticks");
            assert!(permitted - sent <= (per_second / 50).max(burst).max(1) + 1, "not smooth: {sent} of {permitted}");
            assert!(timers.len() <= 1, "a waiting direction has one timer");
            last = sent;
        }
        assert_eq!((sent, last), (total, total), "{per_second}");
        assert_eq!(connection.string().value(), data);
        assert_eq!(timers.len(), 0, "nothing waits, so there is no timer");
        // After a time of silence, a burst leaves at once, and no more.
        connection.advance(SECOND * 100);
        connection.transport().write(&vec![0; burst as usize + 1]);
        connection.turn();
        assert_eq!(connection.string().value().len() as u64, total + burst);
    }
}

/// Received bytes pause the connection behind them, until they are paid for.
#[test]
fn received_bytes_keep_to_their_rate() {
    let received = Rc::default();
    let reader = silent().into_buffer(&received);
    let pump = PumpOptions::new().room(500).connect(silent(), reader);
    let rate = Rate::bytes_per_second(1_000).burst(500);
    ConnectionPolicies::new().receive_rate(rate).share().apply(pump.server().transport());
    pump.client().transport().write(&[7; 20_000]);
    pump.flush();
    for second in 1..=19_usize {
        pass(&pump, SECOND);
        let so_far = received.borrow().len();
        // A receive of at most 500 bytes is never cut.
        assert!(so_far <= 1_000 * second + 1_000 && so_far >= 1_000 * second, "{so_far} after {second} s");
    }
    pass(&pump, SECOND);
    assert_eq!(received.borrow().len(), 20_000);
    pass(&pump, SECOND);
    assert_eq!(pump.server().transport().timers().len(), 0);
    // Nothing is throttled below the rate.
    pump.client().transport().write(&[7; 400]);
    pump.flush();
    assert_eq!((received.borrow().len(), pump.server().transport().timers().len()), (20_400, 0));
}

/// A close waits for throttled bytes, past the close timeout, and the peer's end behind a pause is
/// not lost.
#[test]
fn a_close_waits_for_throttled_bytes() {
    let (received, reason) = (Rc::default(), Rc::default());
    let reader = silent().into_buffer(&received).reason_into(&reason);
    let pump = PumpOptions::new().connect(reader, silent());
    let policies = ConnectionPolicies::new().send_rate(Rate::bytes_per_second(10).burst(1));
    policies.share().apply(pump.server().transport());
    pump.server().transport().write(&[1; 1_001]);
    pump.server().transport().lose_connection();
    pass(&pump, SECOND * 99);
    assert!(received.borrow().len() < 1_001, "{}", received.borrow().len());
    assert!(reason.borrow().is_none());
    pass(&pump, SECOND * 2);
    assert_eq!(received.borrow().len(), 1_001);
    assert!(matches!(pump.server().lost().unwrap().check(), Some(ConnectionClosed::Done)));
}

/// Throttled bytes are not idleness, for either direction.
#[test]
fn a_throttled_connection_is_not_idle() {
    let policies = ConnectionPolicies::new().idle(SECOND).send_rate(Rate::bytes_per_second(1).burst(1));
    let string = StringTransport::new();
    policies.share().apply(string.transport());
    let connection = string.joined(silent());
    connection.transport().write(b"12345");
    connection.turn();
    connection.advance(Duration::from_millis(4_500));
    assert_eq!((connection.lost().is_none(), connection.string().value().len()), (true, 5));
    connection.advance(SECOND * 2);
    assert_eq!(limit_of(connection.lost()).0, TimeLimit::Idle);
}

/// A total rate is that of all connections of a factory, and each of them gets its part.
#[test]
fn connections_share_a_total_rate() {
    let rate = Rate::bytes_per_second(3_000).burst(30);
    let clock = ropewalk::testing::VirtualClock::new();
    let shared = ConnectionPolicies::new().total_send_rate(rate).share();
    let pumps: Vec<_> = (0..3)
        .map(|_| {
            let received: Rc<RefCell<Vec<u8>>> = Rc::default();
            let pump = PumpOptions::new().clock(&clock).connect(silent().into_buffer(&received), silent());
            shared.apply(pump.server().transport());
            pump.server().transport().write(&[0; 100_000]);
            (pump, received)
        })
        .collect();
    for tick in 1..=500_usize {
        clock.advance(SECOND / 50);
        for (pump, _) in &pumps {
            pump.flush();
        }
        let sent: Vec<_> = pumps.iter().map(|(_, received)| received.borrow().len()).collect();
        let total: usize = sent.iter().sum();
        assert!(total <= 60 * tick + 30, "{sent:?} after {tick} ticks");
        let (most, least) = (sent.iter().max().unwrap(), sent.iter().min().unwrap());
        assert!(most - least <= 120, "{sent:?}: a part is one portion at a time");
    }
    let total: usize = pumps.iter().map(|(_, received)| received.borrow().len()).sum();
    assert!(total >= 60 * 500 - 120, "{total}");
    // The tokens that one has reserved go to the others when it ends.
    pumps[0].0.server().transport().abort_connection();
    for _ in 0..50 {
        clock.advance(SECOND / 50);
        for (pump, _) in &pumps {
            pump.flush();
        }
    }
    let after: usize = pumps.iter().map(|(_, received)| received.borrow().len()).sum();
    assert!(after - total >= 3_000 - 180, "{}", after - total);
}

/// An abort drops throttled bytes; a failed callback and limits of the queue see them.
#[test]
fn throttled_bytes_are_queued_bytes() {
    let policies = ConnectionPolicies::new().send_rate(Rate::bytes_per_second(1).burst(1)).share();
    let string = StringTransport::new();
    policies.apply(string.transport());
    let connection = string.joined(silent());
    connection.transport().set_queue_limit(Some(QueueLimit::abort(10)));
    connection.transport().write(&[0; 10]);
    connection.turn();
    assert_eq!(connection.transport().queued_bytes(), 9);
    connection.transport().write(&[0; 2]);
    connection.turn();
    let reason = connection.lost().unwrap();
    assert!(matches!(reason.check(), Some(ConnectionClosed::QueueLimit { unsent: 11, .. })), "{reason}");

    let string = StringTransport::new();
    policies.apply(string.transport());
    let failing = silent().data(|transport, _| {
        transport.write(b"as far as the socket takes it at once");
        Err(Failure::message("on purpose"))
    });
    let (connection, _) = crate::common::logged(|| {
        let connection = string.joined(failing);
        connection.deliver(b"?");
        connection
    });
    assert!(connection.lost().is_some());
    assert_eq!(connection.string().value(), b"as far as the socket takes it at once");
    // The socket lingers.
    connection.advance(SECOND * 5);
    assert_eq!(connection.transport().timers().len(), 0);
}

/// Producers are paused and resumed by throttled bytes as by a slow peer.
#[test]
fn a_producer_is_paced() {
    struct Steady(Rc<RefCell<Vec<&'static str>>>);
    impl ropewalk::interfaces::Producer for Steady {
        fn resume_producing(&mut self, _transport: &Transport) -> ropewalk::Result<()> {
            self.0.borrow_mut().push("resume");
            Ok(())
        }
        fn pause_producing(&mut self, _transport: &Transport) -> ropewalk::Result<()> {
            self.0.borrow_mut().push("pause");
            Ok(())
        }
        fn stop_producing(&mut self, _transport: &Transport) {
            self.0.borrow_mut().push("stop");
        }
    }
    let string = StringTransport::new();
    let rate = Rate::bytes_per_second(100_000).burst(1_000);
    ConnectionPolicies::new().send_rate(rate).share().apply(string.transport());
    let connection = string.joined(silent());
    let told = Rc::default();
    let steady = Steady(Rc::clone(&told));
    connection.transport().register_producer(steady, ropewalk::transport::Streaming::Push).unwrap();
    connection.transport().write(&[0; 201_000]);
    connection.turn();
    assert_eq!(*told.borrow(), ["pause"]);
    connection.advance(SECOND * 2);
    assert_eq!((&**told.borrow(), connection.string().value().len()), (&["pause", "resume"][..], 201_000));
}

/// On rough networks, a server with rates in both directions gives back every byte of many clients.
#[test]
fn many_seeds() {
    for seed in 0..60 {
        let network = Network::with_conditions(seed, Conditions::rough(seed));
        let (server, client) = (network.reactor(SERVER), network.reactor(CLIENT));
        let policies = ConnectionPolicies::new()
            .idle(SECOND * 600)
            .rate(Rate::bytes_per_second(500 + seed * 97).burst(1 + seed * 3))
            .total_rate(Rate::bytes_per_second(2_000).burst(200));
        let address = SocketAddr::new(SERVER, 7);
        let options = ListenOptions::new().policies(policies);
        server.listen_tcp(address, &options, |_| Some(crate::common::Echo)).unwrap();
        let heard: Vec<_> = (0..3_u8)
            .map(|n| {
                let message: Rc<Vec<u8>> = Rc::new((0..600_u32).map(|place| (place % 253) as u8 ^ n).collect());
                let (heard, sent) = (Rc::<RefCell<Vec<u8>>>::default(), Rc::clone(&message));
                let counted = Rc::clone(&heard);
                let script = silent()
                    .into_buffer(&heard)
                    .made(move |transport| {
                        transport.write(&sent);
                        Ok(())
                    })
                    .data(move |transport, _| {
                        if counted.borrow().len() == 600 {
                            transport.lose_connection();
                        }
                        Ok(())
                    });
                let connecting = client.connect_tcp(address, &ConnectOptions::new(), crate::common::once(script));
                connecting.or_log("connecting");
                (message, heard)
            })
            .collect();
        let is_done = || heard.iter().all(|(message, heard)| heard.borrow().len() == message.len());
        network.run_until(SECOND * 3_600, is_done).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert!(heard.iter().all(|(message, heard)| **message == *heard.borrow()), "seed {seed}");
        network.run_for(SECOND * 10).unwrap();
        for reactor in [&server, &client] {
            reactor.stop().unwrap();
        }
        network.run_for(SECOND * 10).unwrap();
        assert!([&server, &client].iter().all(|reactor| network.open_sockets(reactor) == 0), "seed {seed}");
    }
}
