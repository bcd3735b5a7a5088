//! The bound on the bytes that wait for a peer that does not read (F13, A10): what each kind of
//! limit does, exactly where, once, and beside everything else that may go on with a connection.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::Write;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use crate::common::*;
use ropewalk::error::ConnectionClosed;
use ropewalk::interfaces::*;
use ropewalk::protocols::FileSender;
use ropewalk::reactor::{UnixConnectOptions, UnixListenOptions};
use ropewalk::testing::{Conditions, Network, Pump, PumpOptions, StringTransport};
use ropewalk::transport::{LimitAction, QueueLimit, Streaming};
use ropewalk::{BackendKind, ConnectOptions, Failure, ListenOptions, Reactor, Result, Transport};

/// A protocol that counts the callbacks for its queue.
#[derive(Default)]
struct Told {
    log: Log,
    limit: Option<QueueLimit>,
    handles: bool,
}

impl Protocol for Told {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        transport.set_queue_limit(self.limit);
        Ok(())
    }

    fn data_received(&mut self, _transport: &Transport, data: &[u8]) -> Result<()> {
        self.log.add(format!("data {}", data.len()));
        Ok(())
    }

    fn queue_limit_reached(&mut self, transport: &Transport) -> Result<()> {
        self.log.add(format!("limit {}", transport.queued_bytes()));
        if !self.handles {
            return Err(Failure::message("told, and not prepared for it"));
        }
        Ok(())
    }

    fn connection_lost(&mut self, _transport: &Transport, reason: &Failure) {
        self.log.add(format!("lost: {reason}"));
    }
}

/// A reader that is paused, and a writer with this limit, with room for so many bytes between them.
fn pumped(room: usize, limit: QueueLimit) -> (Pump<Script, Told>, Log) {
    let log = Log::default();
    let reader = Script::new(&Log::default()).made(|transport| {
        transport.pause_producing();
        Ok(())
    });
    let writer = Told { log: log.clone(), limit: Some(limit), handles: true };
    let pump = PumpOptions::new().room(room).connect(reader, writer);
    pump.flush();
    (pump, log)
}

/// The numbers of the limit that ended a connection.
#[track_caller]
fn limit_of(reason: &Failure) -> (u32, usize) {
    match reason.check() {
        Some(ConnectionClosed::QueueLimit { limit, unsent }) => (*limit, *unsent),
        _ => panic!("{reason}"),
    }
}

/// The limits that are compared with every write, and those that are compared when a chunk is full.
const LIMITS: [u32; 6] = [0, 1, 150, 65_535, 65_536, 1_000_000];

/// A write may bring the queue to exactly the limit; the byte behind it ends the connection, and is
/// not kept.
#[test]
fn an_aborting_limit_is_exact() {
    for limit in LIMITS {
        for pieces in [1, 3] {
            let string = StringTransport::new();
            let transport = string.transport().clone();
            transport.set_queue_limit(Some(QueueLimit::abort(limit)));
            assert_eq!(transport.queue_limit(), Some(QueueLimit::abort(limit)));
            let piece = limit as usize / pieces;
            // Without the direct way to the socket, which takes all of a large piece here.
            transport.write(b"");
            for _ in 0..pieces {
                vec![0; piece].chunks(8_000).for_each(|chunk| transport.write(chunk));
            }
            vec![0; limit as usize - pieces * piece].chunks(8_000).for_each(|chunk| transport.write(chunk));
            assert_eq!((transport.queued_bytes(), transport.is_disconnecting()), (limit as usize, false), "{limit}");
            transport.write(b"!");
            assert_eq!((transport.queued_bytes(), transport.is_disconnecting()), (limit as usize, true), "{limit}");
            transport.write(b"dropped");
            assert_eq!(transport.queued_bytes(), limit as usize, "{limit}");
            string.turn();
            assert!(string.is_aborted());
        }
    }
}

/// The reason has the numbers, it is logged once, with the peer and the protocol, and the peer sees
/// a reset.
#[test]
fn an_abort_is_told_once() {
    let (reason, lines) = logged(|| {
        let (pump, log) = pumped(10, QueueLimit::abort(100));
        let transport = pump.server().transport().clone();
        transport.write(&[0; 60]);
        pump.flush();
        assert_eq!(transport.queued_bytes(), 50);
        transport.write(&[0; 50]);
        transport.write(&[0; 51]);
        assert!(log.all().is_empty(), "nothing is called inside a write");
        pump.flush();
        assert_eq!(log.count("lost"), 1);
        pump.client().transport().resume_producing();
        pump.flush();
        assert!(matches!(pump.client().lost().unwrap().check(), Some(ConnectionClosed::Reset { .. })));
        pump.server().lost().unwrap()
    });
    assert_eq!(limit_of(&reason), (100, 151));
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("too much is queued") && lines[0].contains("Told"), "{lines:?}");
    assert!(lines[0].contains("peer=10.0.0.2:") && lines[0].contains("151 bytes"), "{lines:?}");
}

/// A telling limit is judged at the end of a turn, tells once, and again after half the limit.
#[test]
fn a_limit_tells_once_for_each_time() {
    let (pump, log) = pumped(10, QueueLimit::tell(100));
    let (writer, reader) = (pump.server().transport().clone(), pump.client().transport().clone());
    writer.write(&[0; 110]);
    pump.flush();
    assert!(log.all().is_empty(), "the socket has taken enough: {:?}", log.all());
    writer.write(&[0; 20]);
    assert!(log.all().is_empty(), "it was told inside a write");
    pump.flush();
    assert_eq!(log.all(), ["limit 120"]);
    writer.write(&[0; 1_000]);
    pump.flush();
    assert_eq!(log.all(), ["limit 120"]);
    // Until 51 are left it is not told again, however often more are written.
    while writer.queued_bytes() > 60 {
        reader.resume_producing();
        pump.pump();
        reader.pause_producing();
        pump.pump();
    }
    assert!(writer.queued_bytes() > 50, "{}", writer.queued_bytes());
    writer.write(&[0; 100]);
    pump.flush();
    assert_eq!(log.all(), ["limit 120"]);
    reader.resume_producing();
    pump.flush();
    assert_eq!(writer.queued_bytes(), 0);
    reader.pause_producing();
    pump.flush();
    writer.write(&[0; 111]);
    pump.flush();
    assert_eq!(log.all(), ["limit 120", "limit 101"]);
    assert!(pump.server().lost().is_none());
}

/// A protocol that does not know of limits loses its connection, as by an aborting limit.
#[test]
fn who_is_not_prepared_is_aborted() {
    let (reason, lines) = logged(|| {
        let reader = Script::new(&Log::default()).made(|transport| {
            transport.pause_producing();
            Ok(())
        });
        let writer = Script::new(&Log::default()).made(|transport| {
            transport.set_queue_limit(Some(QueueLimit::tell(100)));
            transport.write(&[0; 111]);
            Ok(())
        });
        let pump = PumpOptions::new().room(10).connect(reader, writer);
        pump.flush();
        pump.server().lost().expect("it is over")
    });
    assert_eq!(limit_of(&reason), (100, 101));
    assert_eq!(lines.len(), 1, "{lines:?}");
}

/// A callback that fails ends the connection as any other does.
#[test]
fn a_callback_that_fails() {
    let (pump, log) = pumped(10, QueueLimit::tell(100));
    pump.server()
        .connection()
        .with(|told, transport| {
            told.handles = false;
            transport.write(&[0; 200]);
        })
        .unwrap();
    pump.flush();
    assert_eq!(log.all(), ["limit 190", "lost: told, and not prepared for it"]);
}

/// A pausing limit holds back what comes, and gives it when half is left. The protocol's own pause
/// is another, in either order.
#[test]
fn two_reasons_to_pause() {
    for (pauses, resumes_first) in [(false, false), (true, false), (true, true)] {
        let (pump, log) = pumped(10, QueueLimit::pause(100));
        let (writer, reader) = (pump.server().transport().clone(), pump.client().transport().clone());
        writer.write(&[0; 200]);
        pump.flush();
        if pauses {
            writer.pause_producing();
        }
        reader.write(b"hello");
        pump.flush();
        assert!(log.all().is_empty(), "{:?}", log.all());
        if resumes_first {
            writer.resume_producing();
            pump.flush();
            assert!(log.all().is_empty(), "the queue is as long as it was");
        }
        reader.resume_producing();
        pump.flush();
        assert_eq!(writer.queued_bytes(), 0);
        if pauses && !resumes_first {
            assert!(log.all().is_empty(), "the protocol has paused");
            writer.resume_producing();
            pump.flush();
        }
        assert_eq!(log.all(), ["data 5"], "{pauses} {resumes_first}");
    }
}

/// A limit that is taken away, or set to more, lifts its pause; one that is set to less than is
/// queued acts at once.
#[test]
fn limits_that_change() {
    for other in [None, Some(QueueLimit::pause(1_000)), Some(QueueLimit::tell(1_000))] {
        let (pump, log) = pumped(10, QueueLimit::pause(100));
        pump.server().transport().write(&[0; 200]);
        pump.flush();
        pump.client().transport().write(b"hello");
        pump.flush();
        assert!(log.all().is_empty());
        pump.server().transport().set_queue_limit(other);
        assert_eq!(pump.server().transport().queue_limit(), other);
        pump.flush();
        assert_eq!(log.all(), ["data 5"], "{other:?}");
    }
    for (other, expected) in [
        (QueueLimit::tell(50), "limit 190"),
        (QueueLimit::abort(50), "lost: the peer took too little of what was written: 190 bytes"),
    ] {
        let (pump, log) = pumped(10, QueueLimit::abort(1_000));
        pump.server().transport().write(&[0; 200]);
        pump.flush();
        pump.server().transport().set_queue_limit(Some(other));
        pump.flush();
        assert!(log.has(expected), "{:?}", log.all());
    }
}

/// A connection that closes sends what it has, however long that is; a write behind
/// `lose_connection` is bounded, and has no callback.
#[test]
fn closing_with_a_long_queue() {
    for (action, written) in
        [(QueueLimit::abort as fn(u32) -> _, 100), (QueueLimit::pause, 300), (QueueLimit::tell, 300)]
    {
        let (pump, log) = pumped(10, action(100));
        let writer = pump.server().transport().clone();
        writer.write(&[0; 100]);
        writer.write(&vec![0; written - 100]);
        writer.lose_connection();
        pump.flush();
        assert!(log.all().is_empty(), "{:?}", log.all());
        pump.client().transport().resume_producing();
        pump.flush();
        assert_eq!(log.all(), ["lost: the connection was closed cleanly"]);
        assert_eq!(
            pump.client().connection().with(|reader, _| reader.received.borrow().len()),
            Err(ropewalk::error::Unavailable::Gone)
        );
    }
    let (pump, log) = pumped(10, QueueLimit::abort(100));
    pump.server().transport().write(&[0; 100]);
    pump.server().transport().lose_connection();
    pump.server().transport().write(&[0; 100]);
    pump.flush();
    assert!(log.has("lost: the peer took too little"), "{:?}", log.all());
}

/// A half-close waits for the queue as ever, and the end of the peer stays behind what a pause
/// holds back.
#[test]
fn half_closes() {
    let log = Log::default();
    let reader = Script::new(&Log::default()).half_close().made(|transport| {
        transport.pause_producing();
        Ok(())
    });
    let writer = Script::new(&log).half_close().made(|transport| {
        transport.set_queue_limit(Some(QueueLimit::pause(100)));
        transport.write(&[0; 200]);
        transport.lose_write_connection();
        Ok(())
    });
    let pump = PumpOptions::new().room(10).connect(reader, writer);
    pump.flush();
    pump.client().transport().write(b"hello");
    pump.client().transport().lose_write_connection();
    pump.flush();
    assert_eq!(log.all(), ["made"]);
    pump.client().transport().resume_producing();
    pump.flush();
    assert_eq!(log.all(), ["made", "data", "read lost", "write lost", "lost: the connection was closed cleanly"]);
}

/// A network that is over gives what came before it, although the limit held it back.
#[test]
fn a_reset_behind_a_pause_of_the_limit() {
    let (pump, log) = pumped(10, QueueLimit::pause(100));
    pump.server().transport().write(&[0; 200]);
    pump.flush();
    pump.client().transport().write(b"hello");
    pump.flush();
    pump.client().transport().abort_connection();
    pump.flush();
    assert_eq!(log.all().len(), 2, "{:?}", log.all());
    assert_eq!(log.all()[0], "data 5");
    assert!(log.reason().starts_with("the peer reset the connection"), "{}", log.reason());
}

/// A producer is paused at its own mark, before the limit, and a limit ends or pauses one that does
/// not listen.
#[test]
fn beside_producers() {
    let (pump, log) = pumped(10, QueueLimit::tell(100));
    let (writer, other) = (pump.server().transport().clone(), StringTransport::new());
    writer.set_write_marks(0, 50);
    writer.register_producer(other.transport().as_producer(), Streaming::Push).unwrap();
    writer.write(&[0; 80]);
    pump.flush();
    assert!(other.is_paused() && log.all().is_empty());
    writer.write(&[0; 80]);
    pump.flush();
    assert_eq!(log.all(), ["limit 150"]);
    pump.client().transport().resume_producing();
    pump.flush();
    assert!(!other.is_paused());
    // Both at once: the protocol first, and the producer in the turn behind it.
    pump.client().transport().pause_producing();
    pump.flush();
    writer.write(&[0; 200]);
    pump.flush();
    assert!(other.is_paused() && log.count("limit") == 2);
}

/// A file goes to a slow reader under a limit that is above its pieces.
#[test]
fn a_file_under_a_limit() {
    let path = std::env::temp_dir().join(format!("ropewalk-limit-{}", std::process::id()));
    File::create(&path).unwrap().write_all(&vec![7; 500_000]).unwrap();
    let sent = Rc::new(Cell::new(0));
    let (count, file) = (Rc::clone(&sent), File::open(&path).unwrap());
    std::fs::remove_file(&path).unwrap();
    let mut file = Some(file);
    let received = Rc::new(RefCell::new(Vec::new()));
    let writer = Script::new(&Log::default()).made(move |transport| {
        transport.set_queue_limit(Some(QueueLimit::abort(70_000)));
        let count = Rc::clone(&count);
        let sending = FileSender::new(file.take().unwrap()).begin(transport);
        drop(sending.add_callback(move |bytes| count.set(bytes)));
        Ok(())
    });
    let pump = PumpOptions::new().room(1_000).connect(Script::new(&Log::default()).into_buffer(&received), writer);
    pump.flush();
    assert_eq!((sent.get(), received.borrow().len()), (500_000, 500_000));
}

/// Bytes that wait for a handshake count.
#[cfg(feature = "tls")]
#[test]
fn bytes_above_a_handshake_count() {
    let authority = crate::common::certificates::Authority::new();
    let string = StringTransport::new();
    let transport = string.transport().clone();
    transport.set_queue_limit(Some(QueueLimit::abort(1_000)));
    transport.start_tls(authority.client("localhost")).unwrap();
    let hello = transport.queued_bytes();
    assert!(hello > 0);
    transport.write(&vec![0; 1_000 - hello]);
    assert!(!transport.is_disconnecting());
    transport.write(b"!");
    assert!(transport.is_disconnecting());
}

#[test]
fn the_parts_of_a_limit() {
    for (limit, action) in [
        (QueueLimit::tell(7), LimitAction::Tell),
        (QueueLimit::pause(7), LimitAction::Pause),
        (QueueLimit::abort(7), LimitAction::Abort),
    ] {
        assert_eq!((limit.bytes(), limit.action()), (7, action));
    }
    assert_eq!(StringTransport::new().transport().queue_limit(), None);
}

// A hostile peer.

const SERVER: [u8; 4] = [10, 0, 0, 1];

/// Answers every byte with a kilobyte, and remembers the longest queue.
struct Generous {
    longest: Rc<Cell<usize>>,
    log: Log,
}

impl Protocol for Generous {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        for _ in data {
            transport.write(&[0; 1_024]);
            self.longest.set(self.longest.get().max(transport.queued_bytes()));
        }
        Ok(())
    }

    fn connection_lost(&mut self, _transport: &Transport, reason: &Failure) {
        self.log.add(format!("lost: {reason}"));
    }
}

/// Peers that ask and never read, on networks of every kind: with an aborting limit no more is ever
/// queued; with a pausing one no more than the answers to what came in one turn.
#[test]
fn peers_that_never_read() {
    const LIMIT: u32 = 100_000;
    for seed in 0..60 {
        for limit in [QueueLimit::abort(LIMIT), QueueLimit::pause(LIMIT)] {
            let network = Network::with_conditions(seed, Conditions::rough(seed).window(1_024));
            let host = IpAddr::from(SERVER);
            let reactor = network.reactor(host);
            let (longest, log) = (Rc::new(Cell::new(0)), Log::default());
            let (seen, told) = (Rc::clone(&longest), log.clone());
            let factory = move |_| Some(Generous { longest: Rc::clone(&seen), log: told.clone() });
            reactor.listen_tcp((host, 7).into(), &ListenOptions::new().queue_limit(limit), factory).unwrap();
            let peer = network.connect((host, 7).into());
            let aborts = limit.action() == LimitAction::Abort;
            for _ in 0..20 {
                // A reset, or a window that is full, is what is waited for.
                let _ = peer.write(&[1; 100]);
                network.run_for(Duration::from_secs(2)).unwrap();
                if log.is_over() {
                    break;
                }
            }
            let (longest, most) =
                (longest.get(), if aborts { LIMIT as usize } else { LIMIT as usize + 65_536 * 1_024 });
            assert!(longest <= most, "seed {seed}: {longest} bytes were queued");
            assert_eq!(log.is_over(), aborts, "seed {seed}");
            if aborts {
                assert!(log.reason().contains("100000 may be queued"), "seed {seed}: {}", log.reason());
            } else {
                assert!(longest > LIMIT as usize, "seed {seed}: the case needs more requests");
            }
        }
    }
}

/// More than a socket and its peer's take on any system.
const PLENTY: usize = 24_000_000;

/// A client of ours that does not read, and a server with this limit: the log and the transport of
/// the server's side.
fn over_sockets(reactor: &Reactor, unix: bool, limit: QueueLimit) -> (Log, Transport, ropewalk::Connection<Script>) {
    let (log, place) = (Log::default(), Rc::new(RefCell::new(None)));
    let script = Script::new(&log).transport_into(&place);
    let reader = Script::new(&Log::default()).made(|transport| {
        transport.pause_producing();
        Ok(())
    });
    let client = if unix {
        let name = unix_name();
        let options = UnixListenOptions::new().queue_limit(limit);
        drop(reactor.listen_unix(&name, &options, once(script)).unwrap());
        reactor.connect_unix(&name, &UnixConnectOptions::new(), once(reader))
    } else {
        let port = reactor.listen_tcp(loopback(), &ListenOptions::new().queue_limit(limit), once(script)).unwrap();
        reactor.connect_tcp(port.host().socket_addr().unwrap(), &ConnectOptions::new(), once(reader))
    };
    let client = result_of(reactor, client).unwrap();
    run_until(reactor, || place.borrow().is_some());
    let transport: Transport = place.take().unwrap();
    assert_eq!(transport.queue_limit(), Some(limit));
    (log, transport, client)
}

#[test]
fn over_real_sockets() {
    for kind in [BackendKind::Mio, BackendKind::IoUring] {
        for unix in [false, true] {
            let Some(reactor) = reactor_on(kind) else {
                println!("skipped: {NO_BACKEND}");
                continue;
            };
            // Pieces leave turn by turn, so that only what the peer does not take is queued.
            let (log, transport, _client) = over_sockets(&reactor, unix, QueueLimit::abort(1_000_000));
            let mut written = 0;
            while !log.is_over() {
                assert!(written < PLENTY, "the limit was not reached");
                transport.write(&[0; 100_000]);
                assert!(transport.queued_bytes() <= 1_000_000);
                written += 100_000;
                reactor.iterate(Duration::ZERO).unwrap();
            }
            assert!(log.reason().contains("1000000 may be queued"), "{}", log.reason());

            let (log, transport, client) = over_sockets(&reactor, unix, QueueLimit::pause(1_000_000));
            transport.write(&vec![0; PLENTY]);
            settle(&reactor);
            client.transport().write(b"hello");
            settle(&reactor);
            assert_eq!(log.all(), ["made"], "{kind:?}, unix: {unix}");
            client.transport().resume_producing();
            run_until(&reactor, || log.has("data"));
            assert!(transport.queued_bytes() <= 500_000, "{}", transport.queued_bytes());
            client.transport().lose_connection();
            run_until(&reactor, || log.is_over());
        }
    }
}

/// Clients begin with a limit too, and a descriptor that passes it is given back.
#[test]
fn of_clients_and_descriptors() {
    let reactor = reactor();
    let name = unix_name();
    let silent = |_| Some(Script::new(&Log::default()));
    drop(reactor.listen_unix(&name, &UnixListenOptions::new(), silent).unwrap());
    let options = UnixConnectOptions::new().queue_limit(QueueLimit::abort(10));
    let log = Log::default();
    let client = result_of(&reactor, reactor.connect_unix(&name, &options, scripts(&log))).unwrap();
    let descriptor = File::open("/dev/null").unwrap();
    let refused = client.transport().send_file_descriptor(descriptor.into(), &[0; 11]);
    assert!(refused.is_err() && client.transport().is_disconnecting());
    run_until(&reactor, || log.is_over());
    assert!(log.reason().contains("11 bytes were to be sent, and 10 may be queued"), "{}", log.reason());

    let (_port, address) = listen(&reactor, scripts(&Log::default()));
    let options = ConnectOptions::new().queue_limit(QueueLimit::tell(5));
    let client = result_of(&reactor, reactor.connect_tcp(address, &options, scripts(&Log::default()))).unwrap();
    assert_eq!(client.transport().queue_limit(), Some(QueueLimit::tell(5)));
}
