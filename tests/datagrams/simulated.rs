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
    let count = seeds(2_000, 100_000);
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
