//! Floods of datagrams: budgets, fairness, memory.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::*;

/// F59, A3: a port that floods itself with datagrams, empty or not, does not starve another port or
/// a timer. In one turn it delivers no more than its budget.
#[test]
fn a_flood_leaves_others_their_turns() {
    for data in [&b""[..], &[1; 32], &[1; 30_000]] {
        on_each(|reactor| {
            let log = Log::default();
            let in_turn = Rc::new(Cell::new((0, 0)));
            let (counted, watched) = (Rc::clone(&in_turn), reactor.clone());
            let quiet = bind(&reactor, LOCAL[0], Recorder::new(&log));
            // Each datagram is answered by another one to the same port: the socket is never empty.
            let protocol = Recorder::new(&Log::default()).received(move |transport, data, peer| {
                let turn = watched.counters().turns;
                let (last, count) = counted.get();
                let count = if last == turn { count + 1 } else { 1 };
                assert!(count <= 128 && count * data.len() <= 256 * 1024 + 30_000, "{count} in a turn");
                counted.set((turn, count));
                // The buffer may be full at times.
                let _ = transport.write(data, peer);
                Ok(())
            });
            let loud = bind(&reactor, LOCAL[0], protocol);
            for _ in 0..6 {
                loud.write(data, &loud.host()).expect("it is sent");
            }
            let is_due = Rc::new(Cell::new(false));
            let timer = Rc::clone(&is_due);
            let _timer = reactor.call_later(Duration::from_millis(1), move || timer.set(true));
            quiet.write(b"quiet", &quiet.host()).expect("it is sent");
            let before = loud.counts().received;
            run_until(&reactor, || log.has("received quiet") && is_due.get() && loud.counts().received > before + 300);
            let stopped = loud.stop_listening();
            result_of(&reactor, stopped).expect("it stops");
        });
    }
}

/// Receiving and sending allocate nothing per datagram.
#[test]
fn a_datagram_allocates_nothing() {
    own_process!();
    struct Echo(Rc<Cell<u64>>);
    impl DatagramProtocol for Echo {
        fn datagram_received(&mut self, transport: &DatagramTransport, data: &[u8], peer: &Address) -> Result<()> {
            self.0.set(self.0.get() + 1);
            transport.write(data, peer)?;
            Ok(())
        }
    }
    on_each(|reactor| {
        let count = Rc::new(Cell::new(0));
        let port = reactor.listen_udp(loopback(), &UdpOptions::new(), Echo(Rc::clone(&count))).expect("a port");
        for _ in 0..4 {
            port.write(&[3; 500], &port.host()).expect("it is sent");
        }
        let rounds = |most: u64| {
            while count.get() < most {
                reactor.iterate(Duration::from_millis(5)).expect("the loop turns");
            }
        };
        rounds(1_000);
        let before = allocator::allocations();
        rounds(11_000);
        let made = allocator::allocations() - before;
        assert!(made < 100, "{made} allocations for 10,000 datagrams");
    });
}

/// Datagrams beyond the system's buffer are lost, and the port goes on.
#[test]
fn an_overrun_port_goes_on() {
    on_each(|reactor| {
        let log = Log::default();
        let port = bind_with(&reactor, LOCAL[0], &UdpOptions::new().receive_buffer_bytes(8192), Recorder::new(&log));
        for _ in 0..1_000 {
            port.write(&[0; 1000], &port.host()).expect("the network loses it silently");
        }
        run_until(&reactor, || log.has("received"));
        settle(&reactor);
        assert!(log.count("received") < 1_000);
        port.write(b"after", &port.host()).expect("it is sent");
        run_until(&reactor, || log.has("received after"));
    });
}

/// Many ports of one reactor each get their own datagram.
#[test]
fn many_ports_are_served() {
    on_each(|reactor| {
        let log = Log::default();
        let ports: Vec<_> = (0..200).map(|_| bind(&reactor, LOCAL[0], Recorder::new(&log))).collect();
        for port in &ports {
            port.write(b"one", &port.host()).expect("it is sent");
        }
        run_until(&reactor, || log.count("received one") == ports.len());
    });
}
