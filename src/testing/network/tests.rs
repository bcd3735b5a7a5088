//! Tests that the network detects engines, backends and wires that are broken on purpose.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::Duration;

use super::backend::SimulatedBackend;
use super::kernel::{Kernel, Owner, Sharing};
use super::protocol_invariants::ProtocolInvariants;
use super::{Conditions, Network, Peer};
use crate::failure::guarded;
use crate::protocol::Protocol;
use crate::reactor::{Backend, BackendEvent, Completion, Inbox, ListenOptions, PortOptions, Reactor};
use crate::transport::Transport;
use crate::transport::id::Id;
use crate::transport::observer::{Callback, Observer};
use crate::transport::send_queue::BufferPool;
use crate::transport::stream::Stream;

const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const SEED: u64 = 4711;

struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> crate::Result<()> {
        transport.write(data);
        Ok(())
    }
}

/// Returns a network on which a peer of the test is connected to an echo.
fn echoing() -> (Network, Reactor, Peer) {
    let network = Network::new(SEED);
    let reactor = network.reactor(HOST);
    let address = "10.0.0.1:7".parse().expect("an address");
    let factory = |_| Some(Echo);
    drop(reactor.listen_tcp(address, &ListenOptions::new(), factory).expect("a port"));
    let peer = network.connect(address);
    network.settle().expect("it connects");
    (network, reactor, peer)
}

/// Returns the message of a run that must fail.
#[track_caller]
fn complaint(run: impl FnOnce()) -> String {
    guarded(run).expect_err("no fault was detected").message
}

#[track_caller]
fn assert_complains(of: &str, run: impl FnOnce()) {
    let said = complaint(run);
    assert!(said.contains(of) && said.contains("seed 4711"), "{said}");
}

/// I1: a wire that changes, doubles, swaps or loses bytes is detected when they are read, in any
/// program.
#[test]
fn a_wire_that_is_no_wire_is_noticed() {
    type Harm = fn(&mut std::collections::VecDeque<u8>);
    let harms: [Harm; 4] =
        [|it| it[1] ^= 1, |it| it.push_front(b'a'), |it| it.swap(0, 1), |it| it.retain(|byte| *byte != b'a')];
    for harm in harms {
        let (network, _reactor, peer) = echoing();
        peer.write(b"abc").expect("it is sent");
        let harmed = network.0.kernel.borrow_mut().harm(HOST, harm);
        assert!(harmed, "the bytes have arrived");
        assert_complains("reads bytes that differ from", || network.settle().expect("no such error"));
    }
}

/// I1: an end that is reported while bytes before it are missing is detected.
#[test]
fn an_end_before_its_bytes_is_noticed() {
    let (network, _reactor, peer) = echoing();
    peer.write(b"abc").expect("it is sent");
    assert!(network.0.kernel.borrow_mut().harm(HOST, std::collections::VecDeque::clear));
    peer.shut_down().expect("it is open");
    assert_complains("3 bytes before it are missing", || network.settle().expect("no such error"));
}

const ID: Id = Id { slot: 1, generation: 0 };
const PORT: Id = Id { slot: 0, generation: 0 };

/// A backend with one connection, driven by hand as an engine does.
struct Driven {
    kernel: Rc<RefCell<Kernel>>,
    backend: SimulatedBackend,
    pool: BufferPool,
    stream: Stream,
    invariants: ProtocolInvariants,
    peer: Peer,
    inbox: Inbox,
}

impl Driven {
    fn new(conditions: Conditions) -> Self {
        let kernel = Rc::new(RefCell::new(Kernel::new(SEED, conditions)));
        kernel.borrow_mut().add_host(HOST);
        let mut backend = SimulatedBackend::new(Rc::clone(&kernel), Owner(1), HOST);
        let address = std::net::SocketAddr::new(HOST, 7).into();
        backend.listen(PORT, &address, &PortOptions::new()).expect("a port");
        let asked = kernel.borrow_mut().connect(Owner::TEST, HOST, &address, None, Sharing::default());
        let invariants = ProtocolInvariants::new(&kernel, backend.ids());
        let peer = Peer::attempt(&kernel, asked.ok().expect("no limit"));
        let (pool, stream, inbox) = (BufferPool::default(), Stream::new(), Inbox::default());
        let mut this = Self { kernel, backend, pool, stream, invariants, peer, inbox };
        let Some((PORT, BackendEvent::Other(Completion::Accepted(incoming)))) = this.turn() else {
            panic!("no connection arrived")
        };
        this.backend.adopt(ID, incoming.socket).expect("it is taken");
        this.backend.receive(ID, true);
        this
    }

    /// Waits, and returns the first event.
    #[track_caller]
    fn turn(&mut self) -> Option<(Id, BackendEvent)> {
        self.backend.wait(Some(Duration::ZERO)).expect("it does not fail");
        self.next()
    }

    fn write(&mut self, data: &[u8]) {
        self.invariants.written(ID, 0, data);
        self.stream.queue.push(data, &self.pool);
    }

    fn send_now(&mut self, data: &[u8]) -> usize {
        self.invariants.written(ID, 0, data);
        self.backend.send_now(ID, data)
    }

    fn send(&mut self) {
        drop(self.backend.send(ID, self.stream.outgoing(&self.pool)));
    }

    /// Returns the bytes that have arrived at the peer.
    fn read(&mut self) -> Vec<u8> {
        self.kernel.borrow_mut().advance_to(Duration::ZERO);
        self.peer.read()
    }

    fn receive(&mut self) {
        self.peer.write(b"abc").expect("it is open");
        assert!(matches!(self.turn(), Some((ID, BackendEvent::Received))));
        assert_eq!(self.inbox.bytes(), b"abc");
    }

    /// Fetches a completion, which ends the use of the received bytes.
    fn next(&mut self) -> Option<(Id, BackendEvent)> {
        self.backend.next(&mut self.inbox)
    }
}

/// Asserts that a fault of an engine is detected in its next turn.
#[track_caller]
fn assert_noticed(of: &str, breaks: impl FnOnce(&mut Driven)) {
    let mut driven = Driven::new(Conditions::ideal().window(4));
    breaks(&mut driven);
    assert_complains(of, || drop(driven.turn()));
}

#[test]
fn a_sound_engine_is_not_complained_of() {
    let mut driven = Driven::new(Conditions::ideal().window(4));
    driven.receive();
    assert_eq!(driven.send_now(b"abcdef"), 4);
    driven.stream.queue.push(b"ef", &driven.pool);
    driven.write(b"gh");
    drop(driven.next());
    driven.send();
    assert_eq!(driven.read(), b"abcd");
    drop(driven.turn());
    driven.send();
    assert_eq!(driven.read(), b"efgh");
    driven.backend.shut_down_writing(ID);
    driven.backend.close(ID, false);
    drop(driven.turn());
    driven.kernel.borrow().check_faults();
}

/// I1: the bytes waiting in a queue come next, and come once.
#[test]
fn a_queue_that_loses_or_mixes_is_noticed() {
    assert_noticed("2 bytes are gone", |it| {
        it.write(b"abcdef");
        it.send();
        it.stream.queue.clear();
        it.send();
    });
    assert_noticed("bytes that differ from those that waited", |it| {
        it.write(b"abcdef");
        it.send();
        it.stream.queue.clear();
        it.write(b"fe");
        assert_eq!(it.read(), b"abcd");
        drop(it.turn());
        it.send();
    });
    assert_noticed("before others that wait", |it| {
        it.write(b"abcdef");
        it.send();
        it.send_now(b"gh");
    });
    assert_noticed("2 bytes are gone", |it| {
        // The rest of a direct send was not queued.
        it.send_now(b"abcdef");
        it.send();
    });
    assert_noticed("sends after its end", |it| {
        it.backend.shut_down_writing(ID);
        it.write(b"a");
        it.send();
    });
    assert_noticed("sends its end twice", |it| {
        it.backend.shut_down_writing(ID);
        it.backend.shut_down_writing(ID);
    });
}

/// I2, I3: a connection begins once, and no request is made for one that is over.
#[test]
fn a_second_life_is_noticed() {
    assert_noticed("a send for", |it| {
        it.backend.close(ID, false);
        it.write(b"abc");
        it.send();
    });
    assert_noticed("receive for", |it| {
        it.backend.close(ID, false);
        it.backend.receive(ID, true);
    });
    assert_noticed("an end for", |it| {
        it.backend.close(ID, true);
        it.backend.shut_down_writing(ID);
    });
    assert_noticed("a second connection", |it| {
        let asked = it.kernel.borrow_mut().connect(
            Owner::TEST,
            HOST,
            &std::net::SocketAddr::new(HOST, 7).into(),
            None,
            Sharing::default(),
        );
        assert!(asked.is_ok());
        let Some((PORT, BackendEvent::Other(Completion::Accepted(incoming)))) = it.turn() else {
            panic!("no connection arrived")
        };
        it.backend.adopt(ID, incoming.socket).expect("it is taken");
    });
}

/// I3: a backend that reports events after the end is detected.
#[test]
fn news_behind_the_end_are_noticed() {
    assert_noticed("bytes are delivered to", |it| {
        it.peer.shut_down().expect("it is open");
        assert!(matches!(it.turn(), Some((ID, BackendEvent::Other(Completion::EndOfStream)))));
        assert!(it.kernel.borrow_mut().harm(HOST, |it| it.push_back(b'a')));
        assert!(matches!(it.turn(), Some((ID, BackendEvent::Received))));
        drop(it.next());
    });
}

/// I6: while the reactor uses received bytes, nothing is done for any stream, and the loop does not
/// turn.
#[test]
fn whatever_is_done_inside_a_callback_is_noticed() {
    type Does = fn(&mut Driven);
    let all: [(&str, Does); 4] = [
        ("a send inside", Driven::send),
        ("an end inside", |it| it.backend.shut_down_writing(ID)),
        ("receive inside", |it| it.backend.receive(ID, false)),
        ("a turn inside", |it| drop(guarded(|| it.backend.wait(Some(Duration::ZERO))))),
    ];
    for (of, does) in all {
        assert_noticed(of, |it| {
            it.receive();
            does(it);
            drop(it.next());
        });
    }
}

/// Makes callbacks as a joint does, in this order, each after the one before has returned.
fn call(it: &Driven, calls: &[Callback<'_>]) {
    for call in calls {
        it.invariants.calls(ID, 0, *call);
        it.invariants.returned(ID);
    }
}

/// I2, I3: a joint that breaks the order of callbacks is detected.
#[test]
fn callbacks_out_of_order_are_noticed() {
    let all: [(&str, &[Callback<'_>]); 6] = [
        ("before connection_made", &[Callback::WriteLost]),
        ("connection_made came twice", &[Callback::Made, Callback::Made]),
        ("after connection_lost", &[Callback::Made, Callback::Lost, Callback::Lost]),
        ("after connection_lost", &[Callback::Made, Callback::Lost, Callback::WriteLost]),
        ("read_connection_lost came twice", &[Callback::Made, Callback::ReadLost, Callback::ReadLost]),
        ("data_received without data", &[Callback::Made, Callback::Data(b"")]),
    ];
    for (of, calls) in all {
        assert_noticed(of, |it| call(it, calls));
    }
    assert_noticed("data_received after", |it| {
        it.peer.write(b"abc").expect("it is open");
        call(it, &[Callback::Made, Callback::ReadLost, Callback::Data(b"abc")]);
    });
}

/// I6: a callback of any connection inside another is detected.
#[test]
fn a_callback_inside_another_is_noticed() {
    assert_noticed("a callback inside another", |it| {
        it.invariants.calls(ID, 0, Callback::Made);
        it.invariants.calls(Id { slot: 2, ..ID }, 0, Callback::Made);
    });
}

/// I1: a joint that delivers bytes other than those that the other end's protocol has written, or
/// the same bytes twice, is detected, and so is an engine that does not send what its protocol has
/// written.
#[test]
fn unwritten_bytes_are_noticed() {
    for wrong in [&b"abd"[..], b"bc", b"abcc"] {
        assert_noticed("bytes that differ from", |it| {
            it.peer.write(b"abc").expect("it is open");
            call(it, &[Callback::Made, Callback::Data(wrong)]);
        });
    }
    assert_noticed("bytes that differ from", |it| {
        it.peer.write(b"abc").expect("it is open");
        call(it, &[Callback::Made, Callback::Data(b"ab"), Callback::Data(b"ab")]);
    });
    assert_noticed("bytes that differ from", |it| {
        it.invariants.written(ID, 0, b"abc");
        it.stream.queue.push(b"bc", &it.pool);
        it.send();
        it.read();
    });
}

/// I1: an engine that sends bytes its protocol has not written is detected, whatever the other end
/// does with them.
#[test]
fn bytes_that_were_not_written_are_not_sent() {
    assert_noticed("sends bytes that differ from the written ones", |it| {
        it.invariants.written(ID, 0, b"abc");
        it.stream.queue.push(b"abd", &it.pool);
        it.send();
    });
    assert_noticed("sends bytes that differ from the written ones", |it| {
        it.invariants.written(ID, 0, b"ab");
        it.stream.queue.push(b"abc", &it.pool);
        it.send();
    });
}

/// I1: above a layer that both ends have, a protocol is given the bytes that the other wrote there.
/// Above a layer that the other does not have, nothing can be compared. If the other has more
/// layers, the rest is theirs.
#[test]
fn bytes_are_compared_above_the_same_layers() {
    let given = |theirs: usize, level: usize, data: &[u8]| {
        let driven = Driven::new(Conditions::ideal());
        let mut kernel = driven.kernel.borrow_mut();
        let stream = driven.backend.ids().borrow()[&super::backend_invariants::key(ID)];
        let peer = kernel.stream(stream).expect("it is open").peer;
        kernel.writes(peer, 1, b"one");
        kernel.writes(peer, theirs, b"");
        kernel.gives(stream, level, data);
        drop(kernel);
        guarded(|| driven.kernel.borrow().check_faults()).is_ok()
    };
    assert!(given(1, 1, b"one") && !given(1, 1, b"two") && !given(1, 1, b"one more"));
    assert!(given(2, 1, b"one more") && !given(2, 1, b"two") && !given(2, 2, b"one"));
    assert!(given(1, 2, b"anything"), "the other end is its own layer");
    assert!(!given(1, 0, b"one"), "it has read nothing");
}

/// I1: an end that a layer vouches for, while bytes written above it are missing, is detected.
#[test]
fn a_clean_end_above_a_layer_is_held_to_what_was_written() {
    for (read, is_well) in [(&b"abc"[..], true), (b"ab", false)] {
        let driven = Driven::new(Conditions::ideal());
        let mut kernel = driven.kernel.borrow_mut();
        let stream = driven.backend.ids().borrow()[&super::backend_invariants::key(ID)];
        let peer = kernel.stream(stream).expect("it is open").peer;
        kernel.writes(peer, 1, b"abc");
        kernel.gives(stream, 1, read);
        kernel.tells_the_end(stream, 1);
        drop(kernel);
        assert_eq!(guarded(|| driven.kernel.borrow().check_faults()).is_ok(), is_well);
    }
}

/// I5: more bytes under way and unread than the window are detected.
#[test]
fn a_window_that_is_exceeded_is_noticed() {
    assert_noticed("5 bytes under way and unread, with a window of 4", |it| {
        assert!(it.kernel.borrow_mut().harm(HOST, |unread| unread.extend(b"abcd")));
        it.peer.write(b"e").expect("it is open");
    });
}

/// I1: a clean end while written bytes are unsent is detected: the peer would take its bytes for
/// all of them.
#[test]
fn an_end_that_hides_a_loss_is_noticed() {
    type Ends = fn(&mut Driven);
    let ends: [Ends; 2] = [|it| it.backend.close(ID, false), |it| it.backend.shut_down_writing(ID)];
    for end in ends {
        assert_noticed("ends cleanly, but 2 written bytes are unsent", |it| {
            it.write(b"abcdef");
            it.send();
            end(it);
        });
        assert_noticed("ends cleanly, but 2 bytes that waited are unsent", |it| {
            it.write(b"abcdef");
            it.send();
            end(it);
        });
        // No send was tried before.
        assert_noticed("ends cleanly, but 3 written bytes are unsent", |it| {
            it.write(b"abc");
            end(it);
        });
    }
    let mut driven = Driven::new(Conditions::ideal().window(4));
    driven.write(b"abcdef");
    driven.send();
    driven.backend.close(ID, true);
    drop(driven.turn());
    driven.kernel.borrow().check_faults();
}
