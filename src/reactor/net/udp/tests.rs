//! Datagram ports under faults that the kernel does not produce on request: full sockets,
//! shortages, and calls that fail. Each test orders faults for the next calls of a kind on its
//! thread.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::address::{Address, UnixAddress};
use crate::datagram::{DatagramProtocol, DatagramTransport, UdpOptions, UnixDatagramOptions};
use crate::error::DatagramError;
use crate::failure::Result;
use crate::reactor::backend::socket::faults::{Fault, SystemCall, left, plan};
use crate::reactor::{BackendKind, Reactor};

/// Time limit after which a test fails. A passing test never waits for it.
const LIMIT: Duration = Duration::from_secs(30);

type Log = Rc<RefCell<Vec<String>>>;

/// Records datagrams.
struct Recorder(Log);

impl DatagramProtocol for Recorder {
    fn datagram_received(&mut self, _: &DatagramTransport, data: &[u8], _: &Address) -> Result<()> {
        self.0.borrow_mut().push(String::from_utf8_lossy(data).into_owned());
        Ok(())
    }
}

/// Runs a test with a port, on each backend of this system.
fn on_each(test: impl FnMut(&Reactor, &DatagramTransport, &Log)) {
    on_each_with(&UdpOptions::new(), test);
}

/// Runs a test with a port that has these options.
fn on_each_with(options: &UdpOptions, mut test: impl FnMut(&Reactor, &DatagramTransport, &Log)) {
    for kind in [BackendKind::Mio, BackendKind::IoUring] {
        let reactor = Reactor::builder().backend(kind).signals(false).build().expect("a poller");
        let log = Log::default();
        let address = "127.0.0.1:0".parse().expect("an address");
        let port = reactor.listen_udp(address, options, Recorder(Rc::clone(&log))).expect("a port");
        test(&reactor, &port, &log);
        assert_eq!((left(SystemCall::SendDatagram), left(SystemCall::ReceiveDatagram)), (0, 0), "faults are left");
    }
}

fn write(port: &DatagramTransport, data: &str) -> Result<(), DatagramError> {
    port.write(data.as_bytes(), &port.host())
}

/// Turns the loop until these datagrams have arrived.
#[track_caller]
fn expect(reactor: &Reactor, log: &Log, datagrams: &[&str]) {
    let until = Instant::now() + LIMIT;
    while log.borrow().len() < datagrams.len() {
        assert!(Instant::now() < until, "{:?} have arrived", log.borrow());
        reactor.iterate(Duration::from_millis(5)).expect("the loop turns");
    }
    assert_eq!(*log.borrow(), datagrams);
}

fn fail(call: SystemCall, errors: &[Errno]) {
    plan(call, errors.iter().copied().map(Fault::Fails));
}

/// F59: a full socket queues datagrams, which leave in order and with their boundaries when it has
/// room. One that comes meanwhile does not overtake them.
#[test]
fn a_full_socket_queues_datagrams_in_order() {
    on_each(|reactor, port, log| {
        fail(SystemCall::SendDatagram, &[Errno::AGAIN]);
        for data in ["one", "", "three"] {
            write(port, data).expect("it is queued");
        }
        assert_eq!((port.queued_bytes(), port.counts().sent), (3 * 64 + 8, 0));
        expect(reactor, log, &["one", "", "three"]);
        assert_eq!((port.queued_bytes(), port.counts().sent), (0, 3));
        write(port, "four").expect("it is sent");
        expect(reactor, log, &["one", "", "three", "four"]);
    });
}

/// More datagrams than one call takes leave in several.
#[test]
fn a_long_queue_leaves_in_batches() {
    on_each(|reactor, port, log| {
        fail(SystemCall::SendDatagram, &[Errno::AGAIN]);
        let all: Vec<String> = (0..200).map(|number| number.to_string()).collect();
        for data in &all {
            write(port, data).expect("it is queued");
        }
        expect(reactor, log, &all.iter().map(String::as_str).collect::<Vec<_>>());
    });
}

/// The queue is bounded: a datagram beyond the limit is an error, and the queued ones arrive.
#[test]
fn a_full_queue_refuses_a_datagram() {
    on_each(|reactor, port, log| {
        port.set_queue_limit(2 * 64 + 6);
        fail(SystemCall::SendDatagram, &[Errno::AGAIN]);
        write(port, "one").expect("it is queued");
        write(port, "two").expect("it is queued");
        for late in ["three", ""] {
            let error = write(port, late).expect_err("the queue is full");
            assert!(matches!(error, DatagramError::QueueFull { queued: 134, limit: 134 }), "{error}");
        }
        expect(reactor, log, &["one", "two"]);
        assert_eq!((port.counts().queue_full, port.counts().sent), (2, 2));
        write(port, "four").expect("there is room");
        expect(reactor, log, &["one", "two", "four"]);
    });
}

/// A system without memory is asked again after a while, in both directions.
#[test]
fn a_shortage_is_waited_for() {
    on_each(|reactor, port, log| {
        fail(SystemCall::SendDatagram, &[Errno::NOBUFS, Errno::NOMEM]);
        write(port, "one").expect("it is queued");
        write(port, "two").expect("it is queued");
        expect(reactor, log, &["one", "two"]);
        fail(SystemCall::ReceiveDatagram, &[Errno::NOMEM, Errno::IO]);
        write(port, "three").expect("it is sent");
        expect(reactor, log, &["one", "two", "three"]);
    });
}

/// The system's own limit of the length is an error of the write. In the queue it concerns one
/// datagram, which is dropped and counted, and so does any other error.
#[test]
fn a_datagram_that_the_system_refuses_concerns_no_other() {
    on_each(|reactor, port, log| {
        fail(SystemCall::SendDatagram, &[Errno::MSGSIZE, Errno::NETUNREACH]);
        let error = write(port, "long").expect_err("it is too long");
        assert!(matches!(error, DatagramError::MessageTooLong { length: 4, .. }), "{error}");
        let error = write(port, "lost").expect_err("there is no route");
        assert!(matches!(error, DatagramError::Send { .. }), "{error}");
        fail(SystemCall::SendDatagram, &[Errno::AGAIN, Errno::MSGSIZE, Errno::PERM]);
        for data in ["one", "two", "three"] {
            write(port, data).expect("it is queued");
        }
        expect(reactor, log, &["three"]);
        assert_eq!((port.counts().failed, port.counts().sent, port.queued_bytes()), (2, 1, 0));
    });
}

/// A run that a path or a device does not take leaves as single datagrams, and none of them is
/// lost. A datagram that is no run is refused for itself.
#[test]
fn a_run_that_is_not_taken_leaves_one_by_one() {
    let options = UdpOptions::new().segmentation_offload(true);
    for error in [Errno::INVAL, Errno::MSGSIZE, Errno::IO] {
        on_each_with(&options, |reactor, port, log| {
            fail(SystemCall::SendDatagram, &[Errno::AGAIN, error]);
            for data in ["one", "two", "six", "at"] {
                write(port, data).expect("it is queued");
            }
            expect(reactor, log, &["one", "two", "six", "at"]);
            assert_eq!((port.counts().failed, port.counts().sent), (0, 4));
        });
        on_each_with(&options, |reactor, port, log| {
            fail(SystemCall::SendDatagram, &[Errno::AGAIN, error]);
            write(port, "alone").expect("it is queued");
            write(port, "longer").expect("it is queued");
            expect(reactor, log, &["longer"]);
            assert_eq!((port.counts().failed, port.counts().sent), (1, 1));
        });
    }
}

/// Interrupted calls are repeated.
#[test]
fn an_interrupted_call_is_repeated() {
    on_each(|reactor, port, log| {
        fail(SystemCall::SendDatagram, &[Errno::INTR, Errno::INTR, Errno::AGAIN, Errno::INTR]);
        fail(SystemCall::ReceiveDatagram, &[Errno::INTR]);
        write(port, "one").expect("it is queued");
        expect(reactor, log, &["one"]);
    });
}

/// A refusal that the socket reports in place of a send belongs to an earlier datagram: the present
/// one is sent. A peer that refuses each time is an error in the end.
#[test]
fn a_refusal_does_not_swallow_the_next_datagram() {
    on_each(|reactor, port, log| {
        fail(SystemCall::SendDatagram, &[Errno::CONNREFUSED]);
        write(port, "one").expect("it is sent");
        expect(reactor, log, &["one"]);
        fail(SystemCall::SendDatagram, &[Errno::CONNREFUSED; 4]);
        let error = write(port, "lost").expect_err("it is refused each time");
        assert!(matches!(error, DatagramError::Send { .. }), "{error}");
    });
}

/// A stop drops the queue, and an event of the old socket harms nothing.
#[test]
fn a_stop_drops_the_queue() {
    on_each(|reactor, port, log| {
        fail(SystemCall::SendDatagram, &[Errno::AGAIN]);
        write(port, "one").expect("it is queued");
        let stopped = port.stop_listening();
        assert_eq!(port.queued_bytes(), 0);
        for _ in 0..5 {
            reactor.iterate(Duration::ZERO).expect("the loop turns");
        }
        assert!(stopped.is_called() && log.borrow().is_empty());
    });
}

/// A datagram that is written while the loop waits between the program's hooks is queued. It is
/// sent when the wait is over, which the write ends.
#[test]
fn a_write_during_the_wait_is_sent_behind_it() {
    for kind in [BackendKind::Mio, BackendKind::IoUring] {
        let shared = Rc::<RefCell<Option<DatagramTransport>>>::default();
        let (seen, hook) = (Log::default(), Rc::clone(&shared));
        let results = Rc::clone(&seen);
        let before = move || {
            let Some(port) = hook.take() else { return };
            let connected = port.connect(&port.host()).is_err();
            let written = [write(&port, "one"), write(&port, "two")].iter().all(Result::is_ok);
            results.borrow_mut().push(format!("{written} {connected} {}", port.queued_bytes()));
        };
        let builder = Reactor::builder().backend(kind).signals(false).around_wait(before, || ());
        let reactor = builder.build().expect("a poller");
        let log = Log::default();
        let address = "127.0.0.1:0".parse().expect("an address");
        let port = reactor.listen_udp(address, &UdpOptions::new(), Recorder(Rc::clone(&log))).expect("a port");
        shared.replace(Some(port));
        let begun = Instant::now();
        reactor.iterate(LIMIT).expect("the loop turns");
        assert!(begun.elapsed() < LIMIT, "the write did not end the wait");
        expect(&reactor, &log, &["one", "two"]);
        assert_eq!(*seen.borrow(), ["true true 134"]);
    }
}

/// F59: a port that collects its writes asks a system without memory once. Its queue waits then,
/// and the writes that find no room are refused.
#[test]
fn a_shortage_ends_the_collecting_of_writes() {
    struct Many(Log);
    impl DatagramProtocol for Many {
        fn datagram_received(&mut self, transport: &DatagramTransport, data: &[u8], peer: &Address) -> Result<()> {
            self.0.borrow_mut().push(String::from_utf8_lossy(data).into_owned());
            if data == b"go" {
                let refused = (0..20).filter(|number| transport.write(&[b'0' + number % 10], peer).is_err()).count();
                self.0.borrow_mut().push(format!("{refused} refused, {} faults", left(SystemCall::SendDatagram)));
            }
            Ok(())
        }
    }
    for kind in [BackendKind::Mio, BackendKind::IoUring] {
        let reactor = Reactor::builder().backend(kind).signals(false).build().expect("a poller");
        let log = Log::default();
        let address = "127.0.0.1:0".parse().expect("an address");
        let options = UdpOptions::new().collect_writes(true).queue_limit(3 * 65);
        let port = reactor.listen_udp(address, &options, Many(Rc::clone(&log))).expect("a port");
        write(&port, "go").expect("it is sent");
        fail(SystemCall::SendDatagram, &[Errno::NOBUFS, Errno::NOBUFS]);
        expect(&reactor, &log, &["go", "17 refused, 1 faults", "0", "1", "2"]);
        assert_eq!((left(SystemCall::SendDatagram), port.counts().queue_full), (0, 17));
    }
}

/// Writes each datagram to its own port again, with a number that falls to zero.
struct Passing;

impl DatagramProtocol for Passing {
    fn datagram_received(&mut self, transport: &DatagramTransport, data: &[u8], _: &Address) -> Result<()> {
        if let [first, rest @ ..] = data
            && *first > b'0'
        {
            transport.write(&[&[first - 1], rest].concat(), &transport.host())?;
        }
        Ok(())
    }
}

/// Turns the loop until a port has received so many datagrams. Returns the number of turns.
#[track_caller]
fn turns_for(reactor: &Reactor, port: &DatagramTransport, datagrams: u64) -> u64 {
    let (before, until) = (reactor.counters().turns, Instant::now() + LIMIT);
    while port.counts().received < datagrams {
        assert!(Instant::now() < until, "{:?} have arrived", port.counts());
        reactor.iterate(Duration::from_millis(5)).expect("the loop turns");
    }
    reactor.counters().turns - before
}

/// Several datagrams at a time are followed up in the same turn, and one alone is not. Over UNIX
/// sockets, a datagram is there when its write returns.
#[test]
fn several_datagrams_are_followed_up() {
    for kind in [BackendKind::Mio, BackendKind::IoUring] {
        let reactor = Reactor::builder().backend(kind).signals(false).build().expect("a poller");
        let name = format!("ropewalk-followed-{}-{}", std::process::id(), kind.name());
        let address = UnixAddress::abstract_name(name).expect("a name");
        let port = reactor.listen_unix_datagram(&address, &UnixDatagramOptions::new(), Passing).expect("a port");
        write(&port, "9a").expect("it is sent");
        write(&port, "9b").expect("it is sent");
        assert!(turns_for(&reactor, &port, 20) < 5, "each round has taken a turn");
        write(&port, "9").expect("it is sent");
        // The ring may report a socket several times in a turn.
        let alone = turns_for(&reactor, &port, 30);
        assert!(alone >= 10 || kind == BackendKind::IoUring, "a datagram alone was followed up");
    }
}

/// Collected datagrams leave before the port asks for more.
#[test]
fn collected_datagrams_leave_before_others_are_received() {
    for kind in [BackendKind::Mio, BackendKind::IoUring] {
        let reactor = Reactor::builder().backend(kind).signals(false).build().expect("a poller");
        let options = UdpOptions::new().collect_writes(true);
        let port = reactor.listen_udp("127.0.0.1:0".parse().unwrap(), &options, Passing).expect("a port");
        write(&port, "9a").expect("it is sent");
        write(&port, "9b").expect("it is sent");
        turns_for(&reactor, &port, 20);
        assert_eq!((port.queued_bytes(), port.counts().sent), (0, 20));
    }
}
