//! Producers and consumers: their calls and the order of these, closes that wait for them, and
//! backpressure: that a peer which does not read costs bounded memory. On the simulated network, so
//! that the size of every window is known.

use std::cell::{Cell, RefCell};
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use crate::common::{Log, Script};
use ropewalk::deferred::Cancelled;
use ropewalk::protocols::{FileSender, Interrupted, Stalled};
use ropewalk::testing::{Conditions, Network, Peer};
use ropewalk::transport::{Producer, ProducerError, Streaming};
use ropewalk::{Clock, ListenOptions, Reactor, Result, Transport};

const HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

/// Number of bytes that the network holds for a peer that does not read.
const WINDOW: usize = 1000;

/// Logs its calls, and writes the given pieces.
struct Logged {
    log: Log,
    /// The sizes of the pieces that each resume writes.
    pieces: Vec<usize>,
}

impl Producer for Logged {
    fn resume_producing(&mut self, consumer: &Transport) -> Result<()> {
        self.log.add("resume");
        if let Some(piece) = self.pieces.pop() {
            consumer.write(&vec![1; piece]);
        }
        Ok(())
    }

    fn pause_producing(&mut self, _consumer: &Transport) -> Result<()> {
        self.log.add("pause");
        Ok(())
    }

    fn stop_producing(&mut self, _consumer: &Transport) {
        self.log.add("stop");
    }
}

/// A server whose only connection is played by a peer on the other side.
struct Fixture {
    network: Network,
    log: Log,
    transport: Transport,
    peer: Peer,
    _server: Reactor,
}

impl Fixture {
    fn new() -> Self {
        let network = Network::with_conditions(1, Conditions::ideal().window(WINDOW));
        let server = network.reactor(HOST);
        let (log, place) = (Log::default(), Rc::new(RefCell::new(None)));
        let (told, kept) = (log.clone(), Rc::clone(&place));
        let to = SocketAddr::new(HOST, 7);
        let factory = move |_| Some(Script::new(&told).transport_into(&kept));
        server.listen_tcp(to, &ListenOptions::new(), factory).unwrap();
        let peer = network.connect(to);
        network.settle().unwrap();
        let transport = place.borrow_mut().take().expect("it is connected");
        Self { network, log, transport, peer, _server: server }
    }

    fn register(&self, streaming: Streaming, pieces: &[usize]) {
        let producer = Logged { log: self.log.clone(), pieces: pieces.iter().rev().copied().collect() };
        self.transport.register_producer(producer, streaming).unwrap();
        self.settle();
    }

    fn settle(&self) {
        self.network.settle().unwrap();
    }

    /// The calls that producers have had so far.
    fn told(&self) -> Vec<String> {
        self.log.all().into_iter().filter(|entry| ["pause", "resume", "stop"].contains(&&**entry)).collect()
    }

    /// Reads until nothing more comes.
    fn drain(&self) -> usize {
        let mut read = 0;
        loop {
            let count = self.peer.read().len();
            if count == 0 {
                return read;
            }
            read += count;
            self.settle();
        }
    }
}

/// A push producer is left alone up to the high mark, paused once above it, and resumed when
/// everything has been sent.
#[test]
fn a_push_producer_is_paused_and_resumed_at_the_marks() {
    let it = Fixture::new();
    it.register(Streaming::Push, &[]);
    it.transport.write(&[1; WINDOW]);
    it.transport.write(&vec![1; 64 * 1024]);
    it.settle();
    assert_eq!(it.told(), [""; 0], "exactly the mark");
    it.transport.write(&[1]);
    it.settle();
    assert_eq!(it.told(), ["pause"]);
    it.transport.write(&[1; 5000]);
    it.settle();
    assert_eq!(it.told(), ["pause"], "once");
    assert_eq!(it.drain(), WINDOW + 64 * 1024 + 1 + 5000);
    assert_eq!(it.told(), ["pause", "resume"]);
}

/// The marks can be set, before a producer is registered and after.
#[test]
fn marks_can_be_set() {
    let it = Fixture::new();
    it.transport.set_write_marks(100, 300);
    it.register(Streaming::Push, &[]);
    it.transport.write(&[1; WINDOW + 301]);
    it.settle();
    assert_eq!(it.told(), ["pause"]);
    assert!(it.peer.read().len() <= WINDOW);
    it.settle();
    assert_eq!(it.transport.queued_bytes(), 0);
    assert_eq!(it.told(), ["pause", "resume"]);
    it.transport.set_write_marks(0, 0);
    it.transport.write(&[1; WINDOW]);
    it.settle();
    assert_eq!(it.told(), ["pause", "resume", "pause"]);
}

/// A pull producer is asked at once, and again each time everything has been sent; not while
/// something is queued, nor for ever if it writes nothing.
#[test]
fn a_pull_producer_is_asked_when_the_queue_is_empty() {
    let it = Fixture::new();
    it.register(Streaming::Pull, &[100, 200, WINDOW * 2, 50]);
    assert_eq!(it.told(), ["resume"; 3], "the third piece waits for the peer");
    assert_eq!(it.drain(), 100 + 200 + WINDOW * 2 + 50);
    assert_eq!(it.told(), ["resume"; 5], "the fifth time it wrote nothing");
    it.transport.write(b"x");
    it.settle();
    assert_eq!(it.told(), ["resume"; 6]);
}

/// A second producer is refused, and so is one for a transport that is closed.
#[test]
fn who_is_refused() {
    let it = Fixture::new();
    it.register(Streaming::Push, &[]);
    let another = || Logged { log: Log::default(), pieces: Vec::new() };
    let refused = it.transport.register_producer(another(), Streaming::Pull);
    assert_eq!(refused, Err(ProducerError::AlreadyRegistered));
    assert!(it.transport.has_producer());
    it.transport.unregister_producer();
    it.transport.unregister_producer();
    assert!(!it.transport.has_producer());
    it.transport.abort_connection();
    it.settle();
    assert_eq!(it.transport.register_producer(another(), Streaming::Pull), Err(ProducerError::Disconnected));
}

/// A producer that is refused is dropped where its `Drop` can use the transport.
#[test]
fn a_refused_producer_may_use_the_transport_when_it_is_dropped() {
    struct Parting(Transport);
    impl Drop for Parting {
        fn drop(&mut self) {
            self.0.write(b"refused");
        }
    }
    impl Producer for Parting {
        fn resume_producing(&mut self, _: &Transport) -> Result<()> {
            Ok(())
        }
        fn stop_producing(&mut self, _: &Transport) {}
    }
    let it = Fixture::new();
    it.register(Streaming::Push, &[]);
    let refused = it.transport.register_producer(Parting(it.transport.clone()), Streaming::Push);
    assert_eq!((refused, it.transport.queued_bytes()), (Err(ProducerError::AlreadyRegistered), 7));
}

/// A close waits for a pull producer, until it is unregistered, and all that it wrote arrives.
#[test]
fn a_close_waits_for_a_pull_producer() {
    let it = Fixture::new();
    it.register(Streaming::Pull, &[WINDOW, WINDOW, WINDOW]);
    it.transport.lose_connection();
    it.settle();
    assert_eq!(it.drain(), WINDOW * 3);
    assert!(!it.log.is_over());
    it.transport.unregister_producer();
    it.settle();
    assert!(it.log.is_over() && it.peer.is_ended());
    assert_eq!(it.told().last().unwrap(), "resume", "nobody is left to be stopped");
}

/// A close waits for a push producer that is paused, asks it once more, and sends what it then
/// writes; one that is not paused is stopped.
#[test]
fn a_close_and_a_push_producer() {
    let it = Fixture::new();
    it.transport.set_write_marks(0, 10);
    it.register(Streaming::Push, &[7]);
    it.transport.write(&[1; WINDOW + 50]);
    it.settle();
    it.transport.lose_connection();
    it.settle();
    assert_eq!(it.told(), ["pause"]);
    assert_eq!(it.drain(), WINDOW + 50 + 7);
    assert_eq!(it.told(), ["pause", "resume", "stop"]);
    assert!(it.log.is_over());

    let it = Fixture::new();
    it.register(Streaming::Push, &[]);
    it.transport.lose_connection();
    it.settle();
    assert_eq!(it.told(), ["stop"]);
    assert!(it.log.is_over());
}

/// A producer that holds a close and writes nothing is waited for no longer than the close timeout
/// (Twisted waits for ever).
#[test]
fn a_producer_that_never_ends_is_given_up() {
    let it = Fixture::new();
    it.register(Streaming::Pull, &[]);
    it.transport.lose_connection();
    it.network.run_for(Duration::from_secs(29)).unwrap();
    assert!(!it.log.is_over());
    it.network.run_for(Duration::from_secs(2)).unwrap();
    assert!(it.log.reason().contains("took nothing"), "{}", it.log.reason());
    assert_eq!(it.told(), ["resume", "stop"]);
}

/// Whatever ends a connection, its producer is stopped, once, before the protocol hears of it.
#[test]
fn a_lost_connection_stops_its_producer_first() {
    for how in 0..3 {
        let it = Fixture::new();
        it.register(Streaming::Pull, &[]);
        let Fixture { network, log, transport, peer, _server: server } = it;
        match how {
            0 => transport.abort_connection(),
            1 => peer.abort(),
            _ => server.stop().unwrap(),
        }
        network.settle().unwrap();
        network.run_for(Duration::from_secs(1)).unwrap();
        let ends: Vec<_> = log.all().into_iter().filter(|entry| entry == "stop" || entry.starts_with("lost")).collect();
        assert_eq!(ends.len(), 2, "{ends:?}");
        assert_eq!(ends[0], "stop");
    }
}

/// The peer's end does not cut off a producer: who sends a request and then its end gets all of the
/// answer.
#[test]
fn the_peers_end_does_not_cut_a_producer_off() {
    let it = Fixture::new();
    let sent = FileSender::new(io::repeat(7).take(10_000)).begin(&it.transport);
    it.peer.shut_down().unwrap();
    it.settle();
    assert_eq!(it.drain(), 10_000);
    assert!(sent.is_called() && it.log.is_over());
}

/// Shutting our side waits for a pull producer too.
#[test]
fn a_half_close_waits_for_a_pull_producer() {
    let it = Fixture::new();
    let sent = FileSender::new(io::repeat(7).take(5_000)).begin(&it.transport);
    it.transport.lose_write_connection();
    it.settle();
    assert!(!it.peer.is_ended());
    assert_eq!(it.drain(), 5_000);
    assert!(sent.is_called() && it.peer.is_ended());
    assert!(!it.log.is_over(), "the other direction is open");
}

/// A producer that fails, or panics, ends the consumer's connection with that; it is stopped all
/// the same.
#[test]
fn a_producer_that_fails() {
    struct Fails(Log, bool);
    impl Producer for Fails {
        fn resume_producing(&mut self, _consumer: &Transport) -> Result<()> {
            if self.1 {
                panic!("out of yarn");
            }
            Err(ropewalk::Failure::message("out of yarn"))
        }
        fn stop_producing(&mut self, _consumer: &Transport) {
            self.0.add("stop");
        }
    }
    for panics in [false, true] {
        let it = Fixture::new();
        it.transport.register_producer(Fails(it.log.clone(), panics), Streaming::Pull).unwrap();
        it.settle();
        assert!(it.log.reason().contains("out of yarn"), "{}", it.log.reason());
        assert!(it.log.has("stop"));
    }
}

/// A producer may do anything to its own consumer from inside of its callbacks: unregister itself,
/// register another, write, close and abort.
#[test]
fn everything_may_be_done_from_inside() {
    type Act = Box<dyn FnOnce(&Transport)>;
    struct Acts(Option<Act>, Log);
    impl Producer for Acts {
        fn resume_producing(&mut self, consumer: &Transport) -> Result<()> {
            if let Some(act) = self.0.take() {
                act(consumer);
            }
            Ok(())
        }
        fn stop_producing(&mut self, consumer: &Transport) {
            consumer.write(b"too late");
            consumer.unregister_producer();
            self.1.add("stop");
        }
    }
    let run = |act: Act| {
        let it = Fixture::new();
        it.transport.register_producer(Acts(Some(act), it.log.clone()), Streaming::Pull).unwrap();
        it.settle();
        it
    };
    let it = run(Box::new(|consumer| consumer.unregister_producer()));
    assert!(!it.transport.has_producer() && it.told().is_empty());
    let it = run(Box::new(|consumer| {
        consumer.unregister_producer();
        let next = Logged { log: Log::default(), pieces: vec![5] };
        consumer.register_producer(next, Streaming::Pull).unwrap();
    }));
    assert_eq!(it.drain(), 5);
    let it = run(Box::new(|consumer| {
        consumer.write(b"last");
        consumer.lose_connection();
        consumer.unregister_producer();
    }));
    assert_eq!(it.peer.read(), b"last");
    assert!(it.log.is_over());
    let it = run(Box::new(Transport::abort_connection));
    assert!(it.peer.is_reset());
    assert_eq!(it.told(), ["stop"]);
}

/// A file is sent whole, a piece at a time, as fast as the peer reads: no more than a piece is ever
/// queued.
#[test]
fn a_file_is_sent_with_back_pressure() {
    let it = Fixture::new();
    let data: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    let mut sent = FileSender::new(io::Cursor::new(data.clone())).piece(4096).begin(&it.transport);
    let mut heard = Vec::new();
    while heard.len() < data.len() {
        it.settle();
        assert!(it.transport.queued_bytes() <= 4096);
        let came = it.peer.read();
        assert!(!came.is_empty(), "it stopped at {}", heard.len());
        heard.extend(came);
    }
    it.settle();
    assert_eq!(sent.take_result().unwrap().unwrap(), 1_000_000);
    assert!(heard == data && !it.transport.has_producer());
}

/// Sending a file fails when the connection is lost, when the reader fails (which ends the
/// connection), and when there is a producer; cancelling it leaves the connection as it is.
#[test]
fn sending_a_file_can_fail() {
    fn fails(mut sent: ropewalk::Deferred<u64>) -> ropewalk::Failure {
        sent.take_result().expect("a result").unwrap_err()
    }
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _buffer: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }
    let endless = || FileSender::new(io::repeat(1)).piece(100);

    let it = Fixture::new();
    let (sent, refused) = (endless().begin(&it.transport), endless().begin(&it.transport));
    assert_eq!(fails(refused).check::<ProducerError>(), Some(&ProducerError::AlreadyRegistered));
    it.settle();
    it.transport.abort_connection();
    it.settle();
    assert!(fails(sent).check::<Interrupted>().unwrap().sent > 0);

    let it = Fixture::new();
    let sent = FileSender::new(Broken).begin(&it.transport);
    it.settle();
    assert!(fails(sent).check::<io::Error>().is_some());
    assert!(it.log.is_over());

    let it = Fixture::new();
    let sent = endless().begin(&it.transport);
    it.settle();
    sent.cancel();
    assert!(fails(sent).check::<Cancelled>().is_some());
    it.drain();
    assert!(!it.log.is_over() && !it.transport.has_producer());
    it.transport.write(b"still here");
    it.settle();
    assert!(it.peer.read().ends_with(b"still here"));
}

/// The reported progress is the number of bytes that the system has taken: it grows with each
/// piece, to the length of the file.
#[test]
fn the_progress_of_a_file() {
    let it = Fixture::new();
    let seen = Rc::new(RefCell::new(Vec::new()));
    let list = Rc::clone(&seen);
    let sender = FileSender::new(io::repeat(7).take(10 * WINDOW as u64 + 1)).piece(WINDOW);
    let sent = sender.progress(move |sent| list.borrow_mut().push(sent)).begin(&it.transport);
    it.settle();
    // One piece is on its way, and the next waits for room.
    assert_eq!(*seen.borrow(), [1000]);
    assert_eq!(it.drain(), 10 * WINDOW + 1);
    let expected: Vec<u64> = (1..=10).map(|n| n * WINDOW as u64).chain([10 * WINDOW as u64 + 1]).collect();
    assert_eq!(*seen.borrow(), expected);
    assert!(sent.is_called());

    let it = Fixture::new();
    let sent = FileSender::new(io::repeat(7)).progress(|_| panic!("out of patience")).piece(100).begin(&it.transport);
    it.settle();
    assert!(it.log.reason().contains("out of patience"), "{}", it.log.reason());
    assert!(sent.is_called());
    sent.or_log("sending");
}

/// A peer that takes a little in every stretch of the limit is waited for, however slow it is; one
/// that takes nothing for the limit is cut off, no earlier than that and at most a quarter later,
/// and the Deferred says why.
#[test]
fn a_stalled_peer_is_cut_off() {
    let limit = Duration::from_secs(20);
    let it = Fixture::new();
    let sender = FileSender::new(io::repeat(7)).piece(10 * WINDOW).stall_limit(limit);
    let mut sent = sender.begin(&it.transport);
    for _ in 0..20 {
        it.settle();
        it.network.run_for(limit * 9 / 10).unwrap();
        assert!(!sent.is_called() && !it.log.is_over());
        assert_eq!(it.peer.read().len(), WINDOW);
    }
    it.settle();
    it.network.run_for(limit).unwrap();
    assert!(!sent.is_called() && !it.log.is_over());
    it.network.run_for(limit / 4).unwrap();
    let failure = sent.take_result().expect("a result").unwrap_err();
    let stalled = failure.check::<Stalled>().expect("a stall");
    assert_eq!((stalled.sent, stalled.after), (21 * WINDOW as u64, limit));
    assert!(it.log.is_over());
}

/// With the end of a transfer, good or bad, no look at the queue is left on the clock.
#[test]
fn a_transfer_that_is_over_is_not_looked_after() {
    let ends: [fn(&Fixture, &ropewalk::Deferred<u64>); 4] = [
        |it, _| assert!(it.drain() > 0),
        |_, sent| sent.cancel(),
        |it, _| it.transport.unregister_producer(),
        |it, _| it.transport.abort_connection(),
    ];
    for end in ends {
        let it = Fixture::new();
        let before = it.transport.timers().delayed_calls().len();
        let sender = FileSender::new(io::repeat(7).take(5_000)).stall_limit(Duration::from_secs(1));
        let sent = sender.begin(&it.transport);
        it.settle();
        assert_eq!(it.transport.timers().delayed_calls().len(), before + 1);
        end(&it, &sent);
        it.settle();
        assert!(sent.is_called());
        assert_eq!(it.transport.timers().delayed_calls().len(), before);
        sent.add_errback(|_| Ok(0)).or_log("sending");
    }
}

/// Two coupled transports carry everything both ways, hold no more than the marks and a chunk, and
/// end together.
#[test]
fn a_proxy_with_back_pressure() {
    const BYTES: usize = 20_000;
    const HIGH: usize = 2000;
    let network = Network::with_conditions(5, Conditions::ideal().window(WINDOW));
    let reactor = network.reactor(HOST);
    let ends: Rc<RefCell<Vec<Transport>>> = Rc::default();
    let reasons = Rc::new(Cell::new(0));
    for port in [1, 2] {
        let (ends, reasons) = (Rc::clone(&ends), Rc::clone(&reasons));
        let factory = move |_| {
            let (ends, all, reasons) = (Rc::clone(&ends), Rc::clone(&ends), Rc::clone(&reasons));
            let number = port - 1;
            Some(
                Script::new(&Log::default())
                    .made(move |transport| {
                        transport.set_write_marks(0, HIGH);
                        ends.borrow_mut().push(transport.clone());
                        if let [one, other] = &**ends.borrow() {
                            one.register_producer(other.as_producer(), Streaming::Push)?;
                            other.register_producer(one.as_producer(), Streaming::Push)?;
                        }
                        Ok(())
                    })
                    .data(move |_, data| {
                        all.borrow()[1 - number].write(data);
                        Ok(())
                    })
                    .lost(move |_| reasons.set(reasons.get() + 1)),
            )
        };
        let address = SocketAddr::new(HOST, port as u16);
        reactor.listen_tcp(address, &ListenOptions::new(), factory).unwrap();
    }
    let one = network.connect(SocketAddr::new(HOST, 1));
    network.settle().unwrap();
    let other = network.connect(SocketAddr::new(HOST, 2));
    network.settle().unwrap();
    let (mut sent, mut heard, mut taken) = (0, 0, 1);
    // The other side is not read: soon nothing more is taken at this one.
    while taken > 0 {
        taken = one.write(&vec![1; BYTES - sent]).unwrap();
        sent += taken;
        network.settle().unwrap();
    }
    assert!(sent <= HIGH + 3 * WINDOW, "{sent}");
    assert!(ends.borrow()[1].queued_bytes() <= HIGH + WINDOW, "{}", ends.borrow()[1].queued_bytes());
    for _ in 0..BYTES / 100 {
        sent += one.write(&vec![1; BYTES - sent]).unwrap();
        heard += other.read().len();
        network.settle().unwrap();
    }
    assert_eq!(heard, BYTES, "it stopped");
    one.close();
    network.settle().unwrap();
    assert!(other.is_ended());
    other.close();
    network.run_for(Duration::from_secs(10)).unwrap();
    assert_eq!(reasons.get(), 2);
}
