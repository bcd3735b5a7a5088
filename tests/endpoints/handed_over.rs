//! Sockets that are handed over: adopted ports and connections, the endpoints `fd:` and `systemd:`,
//! and a port that goes from one process to another while peers connect. On each backend.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::*;
use ropewalk::address::{AddressFamily, UnixAddress};
use ropewalk::endpoints::{AdoptedStreamServerEndpoint, server_from_string};
use ropewalk::error::{AdoptError, ConnectError, InheritedError, ListenError, NotAdopted};
use ropewalk::interfaces::*;
use ropewalk::reactor::{AdoptOptions, ListenFds, UnixListenOptions};
use ropewalk::testing::Network;
use ropewalk::{Address, BackendKind, Reactor, Result};

/// A reactor on each backend that the system has for us.
fn reactors() -> Vec<Reactor> {
    [BackendKind::Mio, BackendKind::IoUring].into_iter().filter_map(reactor_on).collect()
}

fn is_nonblocking(descriptor: impl AsFd) -> bool {
    rustix::fs::fcntl_getfl(descriptor).unwrap().contains(rustix::fs::OFlags::NONBLOCK)
}

fn is_close_on_exec(descriptor: impl AsFd) -> bool {
    rustix::io::fcntl_getfd(descriptor).unwrap().contains(rustix::io::FdFlags::CLOEXEC)
}

/// A duplicate that child programs would inherit.
fn inheritable(descriptor: impl AsFd) -> OwnedFd {
    rustix::io::dup(descriptor).unwrap()
}

/// A peer sends something, and gets it back.
pub(super) fn answers(reactor: &Reactor, mut peer: impl Read + Write + Send + 'static) {
    let asking = thread::spawn(move || {
        peer.write_all(b"hello").unwrap();
        let mut heard = [0; 5];
        peer.read_exact(&mut heard).unwrap();
        heard
    });
    assert_eq!(run_beside(reactor, asking), *b"hello");
}

/// Waits until the address is free. A process that another test starts has a copy of each
/// descriptor until it executes its program.
#[track_caller]
pub(super) fn gets_free(address: SocketAddr) {
    let until = Instant::now() + LIMIT;
    while let Err(error) = TcpListener::bind(address) {
        assert!(Instant::now() < until, "{error}");
        thread::yield_now();
    }
}

fn adopted_port(reactor: &Reactor, descriptor: impl Into<OwnedFd>) -> ropewalk::Port {
    reactor.adopt_stream_port(descriptor, &AdoptOptions::new(), echoes(&Log::default())).unwrap()
}

/// TCP and UNIX; peers that came before the adoption are served as well.
#[test]
fn a_port_is_adopted() {
    for reactor in reactors() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let early = dial(address);
        let port = adopted_port(&reactor, inheritable(&listener));
        assert_eq!(port.host(), address.into());
        assert!(port.with_descriptor(|ours| is_nonblocking(ours) && is_close_on_exec(ours)).unwrap());
        answers(&reactor, early);
        answers(&reactor, dial(address));

        let folder = Folder::new();
        let port = adopted_port(&reactor, UnixListener::bind(folder.socket()).unwrap());
        assert_eq!(port.host(), UnixAddress::path(folder.socket()).unwrap().into());
        answers(&reactor, UnixStream::connect(folder.socket()).unwrap());
    }
}

/// Once it has stopped there is no socket to listen on again, and the address is free with the last
/// descriptor.
#[test]
fn an_adopted_port_stops_once() {
    for reactor in reactors() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let log = Log::default();
        let options = AdoptOptions::new();
        let port = reactor.adopt_stream_port(listener, &options, Watched::new(&log, echoes(&log))).unwrap();
        assert_eq!(log.all(), ["start"]);
        let waiting = dial(address);
        result_of(&reactor, port.stop_listening()).unwrap();
        assert_eq!(log.all(), ["start", "build", "made", "stop"]);
        gets_free(address);
        drop(waiting);
        let again = port.start_listening().unwrap_err();
        assert!(matches!(again, ListenError::Adopt(AdoptError::Taken)), "{again}");
        assert!(port.duplicate().is_err() && port.leave_socket_file().is_err());
    }
}

/// A connection of TCP, UNIX sockets and a socket pair: it is joined to a protocol at the end of a
/// turn.
#[test]
fn a_connection_is_adopted() {
    for reactor in reactors() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp = dial(listener.local_addr().unwrap());
        let (accepted, _) = listener.accept().unwrap();
        let folder = Folder::new();
        let unix_listener = UnixListener::bind(folder.socket()).unwrap();
        let unix = UnixStream::connect(folder.socket()).unwrap();
        let (accepted_unix, _) = unix_listener.accept().unwrap();
        let (one, other) = UnixStream::pair().unwrap();
        let ends: [(OwnedFd, Box<dyn Peer>); 3] =
            [(accepted.into(), Box::new(tcp)), (accepted_unix.into(), Box::new(unix)), (one.into(), Box::new(other))];
        for (ours, mut peer) in ends {
            let log = Log::default();
            peer.write_all(b"early").unwrap();
            let factory = Watched::new(&log, echoes(&log));
            let adopting = reactor.adopt_stream_connection(ours, &AdoptOptions::new(), factory).unwrap();
            assert!(log.all().is_empty(), "nothing is called inside: {:?}", log.all());
            let connection = result_of(&reactor, adopting).unwrap();
            assert_eq!(log.all()[..2], ["build", "made"], "the factory neither starts nor stops");
            let mut heard = [0; 5];
            let reading = thread::spawn(move || {
                peer.read_exact(&mut heard).unwrap();
                (heard, peer)
            });
            let (heard, peer) = run_beside(&reactor, reading);
            assert_eq!(heard, *b"early");
            connection.transport().lose_connection();
            run_until(&reactor, || log.is_over());
            drop(peer);
            assert!(!log.has("stop"));
        }
        run_until(&reactor, || reactor.counters().watched == 0);
    }
}

trait Peer: Read + Write + Send {}
impl<T: Read + Write + Send> Peer for T {}

/// A stream of megabytes in each direction arrives whole on an adopted TCP connection, which was
/// nonblocking before.
#[test]
fn an_adopted_connection_carries_much() {
    const BYTES: usize = 8 << 20;
    for reactor in reactors() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = dial(listener.local_addr().unwrap());
        let (accepted, _) = listener.accept().unwrap();
        accepted.set_nonblocking(true).unwrap();
        let adopting =
            reactor.adopt_stream_connection(accepted, &AdoptOptions::new(), echoes(&Log::default())).unwrap();
        let _connection = result_of(&reactor, adopting).unwrap();
        let mut writing = peer.try_clone().unwrap();
        let sender = thread::spawn(move || {
            let data: Vec<u8> = (0..BYTES).map(|n| (n % 251) as u8).collect();
            writing.write_all(&data).unwrap();
            writing.shutdown(std::net::Shutdown::Write).unwrap();
            data
        });
        let receiver = thread::spawn(move || {
            let (mut all, mut peer) = (Vec::new(), peer);
            peer.read_to_end(&mut all).unwrap();
            all
        });
        let all = run_beside(&reactor, receiver);
        assert!(all == sender.join().unwrap(), "{} bytes came back", all.len());
    }
}

fn refused_as_port(reactor: &Reactor, descriptor: impl Into<OwnedFd>) -> (OwnedFd, AdoptError) {
    let descriptor = descriptor.into();
    let number = descriptor.as_raw_fd();
    let refused = reactor.adopt_stream_port(descriptor, &AdoptOptions::new(), echoes(&Log::default()));
    match refused.unwrap_err() {
        NotAdopted { descriptor, error: ListenError::Adopt(error), .. } => {
            assert_eq!(descriptor.as_raw_fd(), number, "the descriptor is given back");
            (descriptor, error)
        }
        other => panic!("{other:?}"),
    }
}

fn refused_as_connection(reactor: &Reactor, descriptor: impl Into<OwnedFd>) -> (OwnedFd, AdoptError) {
    let descriptor = descriptor.into();
    let number = descriptor.as_raw_fd();
    let refused = reactor.adopt_stream_connection(descriptor, &AdoptOptions::new(), echoes(&Log::default()));
    match refused.unwrap_err() {
        NotAdopted { descriptor, error: ConnectError::Adopt(error), .. } => {
            assert_eq!(descriptor.as_raw_fd(), number, "the descriptor is given back");
            (descriptor, error)
        }
        other => panic!("{other:?}"),
    }
}

/// Each kind of descriptor that is something else is given back, with its own error.
#[test]
fn what_is_no_port_or_connection_is_given_back() {
    for reactor in reactors() {
        let file = File::open("/dev/null").unwrap();
        assert!(matches!(refused_as_port(&reactor, inheritable(&file)).1, AdoptError::NotASocket));
        assert!(matches!(refused_as_connection(&reactor, file).1, AdoptError::NotASocket));
        let (reader, _writer) = std::io::pipe().unwrap();
        assert!(matches!(refused_as_connection(&reactor, reader).1, AdoptError::NotASocket));

        let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(matches!(refused_as_port(&reactor, datagrams).1, AdoptError::NotAStream));
        let (unix_datagrams, _other) = UnixDatagram::pair().unwrap();
        assert!(matches!(refused_as_connection(&reactor, unix_datagrams).1, AdoptError::NotAStream));

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (listener, error) = refused_as_connection(&reactor, listener);
        assert!(matches!(error, AdoptError::Listening));
        assert!(!is_nonblocking(&listener), "the mode of a refused socket is left alone");
        let connected = dial(address);
        assert!(matches!(refused_as_port(&reactor, connected).1, AdoptError::NotListening));
        let (one, _other) = UnixStream::pair().unwrap();
        assert!(matches!(refused_as_port(&reactor, one).1, AdoptError::NotListening));
        let fresh = tcp_socket();
        let (fresh, error) = refused_as_port(&reactor, fresh);
        assert!(matches!(error, AdoptError::NotListening));
        assert!(matches!(refused_as_connection(&reactor, fresh).1, AdoptError::NotConnected));

        let ipv6 = AdoptOptions::new().family(AddressFamily::Inet6);
        let refused = reactor.adopt_stream_port(listener, &ipv6, echoes(&Log::default())).unwrap_err();
        let ListenError::Adopt(AdoptError::WrongFamily { expected, found }) = refused.error else {
            panic!("{refused:?}")
        };
        assert_eq!((expected, found), (AddressFamily::Inet6, AddressFamily::Inet));
        // A descriptor that came back is as good as before.
        let port = adopted_port(&reactor, refused.descriptor);
        answers(&reactor, dial(port.host().socket_addr().unwrap()));
    }
}

/// A socket of a family that is not ours.
#[cfg(target_os = "linux")]
#[test]
fn a_family_that_is_not_ours() {
    use rustix::net::{AddressFamily as Family, SocketFlags, SocketType};
    let Ok(socket) = rustix::net::socket_with(Family::VSOCK, SocketType::STREAM, SocketFlags::CLOEXEC, None) else {
        return println!("skipped: the system has no VSOCK");
    };
    let (_, error) = refused_as_port(&reactor(), socket);
    assert!(matches!(error, AdoptError::UnsupportedFamily { family: 40 }), "{error:?}");
}

/// A factory that builds nothing, or panics, or whose caller has cancelled: the socket is closed,
/// and nothing is left.
#[test]
fn an_adoption_that_comes_to_nothing_closes_the_socket() {
    for reactor in reactors() {
        let pair = || {
            let (ours, peer) = UnixStream::pair().unwrap();
            peer.set_read_timeout(Some(LIMIT)).unwrap();
            (ours, peer)
        };
        let is_closed = |mut peer: UnixStream| assert_eq!(peer.read(&mut [0]).unwrap(), 0);
        let options = AdoptOptions::new();

        let (ours, peer) = pair();
        let adopting = reactor.adopt_stream_connection(ours, &options, |_| None::<Echo>).unwrap();
        let failure = result_of(&reactor, adopting).unwrap_err();
        assert!(matches!(failure.check(), Some(ConnectError::NoProtocol { .. })), "{failure}");
        is_closed(peer);

        let (ours, peer) = pair();
        fn panics(_: Address) -> Option<Echo> {
            panic!("no protocol here")
        }
        let adopting = reactor.adopt_stream_connection(ours, &options, panics).unwrap();
        assert!(result_of(&reactor, adopting).unwrap_err().to_string().contains("no protocol here"));
        is_closed(peer);

        let (ours, peer) = pair();
        let log = Log::default();
        let adopting = reactor.adopt_stream_connection(ours, &options, echoes(&log)).unwrap();
        adopting.cancel();
        assert!(result_of(&reactor, adopting).is_err());
        settle(&reactor);
        is_closed(peer);
        assert!(log.all().is_empty(), "{:?}", log.all());
        assert_eq!(reactor.counters().watched, 0);

        let (ours, peer) = pair();
        let adopting = reactor.adopt_stream_connection(ours, &options, echoes(&log)).unwrap();
        reactor.close().unwrap();
        let failure = result_now(adopting).unwrap_err();
        assert!(matches!(failure.check(), Some(ConnectError::ReactorStopped { .. })), "{failure}");
        is_closed(peer);
        let (ours, _peer) = pair();
        let refused = reactor.adopt_stream_connection(ours, &options, echoes(&log)).unwrap_err();
        assert!(matches!(refused.error, ConnectError::ReactorStopped { .. }));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let refused = reactor.adopt_stream_port(listener, &options, echoes(&log)).unwrap_err();
        assert!(matches!(refused.error, ListenError::ReactorGone));
    }
}

pub(super) fn result_now<T>(mut deferred: ropewalk::Deferred<T>) -> Result<T> {
    deferred.take_result().expect("it has fired")
}

/// `do_start` panics: the descriptor comes back, and `do_stop` is not called.
#[test]
fn a_factory_that_does_not_start() {
    struct Broken;
    impl Factory for Broken {
        type Protocol = Echo;
        fn build_protocol(&mut self, _peer: &Address) -> Option<Echo> {
            Some(Echo)
        }
        fn do_start(&mut self) {
            panic!("not today");
        }
        fn do_stop(&mut self) {
            unreachable!("it did not start");
        }
    }
    for reactor in reactors() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let refused = reactor.adopt_stream_port(listener, &AdoptOptions::new(), Broken).unwrap_err();
        assert!(matches!(refused.error, ListenError::Factory(_)), "{refused:?}");
        assert_eq!(reactor.counters().watched, 0);
        adopted_port(&reactor, refused.descriptor);
    }
}

/// The simulated network has no descriptors, and says so.
#[test]
fn a_simulated_network_adopts_nothing() {
    let network = Network::new(1);
    let reactor = network.reactor("10.0.0.1".parse().unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    assert!(matches!(refused_as_port(&reactor, listener).1, AdoptError::Unsupported));
    let (ours, _peer) = UnixStream::pair().unwrap();
    assert!(matches!(refused_as_connection(&reactor, ours).1, AdoptError::Unsupported));
    let (port, _) = listen(&reactor, echoes(&Log::default()));
    for error in [port.duplicate().unwrap_err(), port.leave_socket_file().unwrap_err()] {
        assert_eq!(error.kind(), std::io::ErrorKind::Unsupported);
    }
}

/// Two reactors accept from one queue. A closed one does not wake its poller any more, whatever
/// comes to the other.
#[test]
fn a_duplicate_accepts_on_its_own() {
    for first in reactors() {
        for second in reactors() {
            let (port, address) = listen(&first, echoes(&Log::default()));
            answers(&first, dial(address));
            let other = adopted_port(&second, port.duplicate().unwrap());
            assert_eq!(other.host(), port.host());
            answers(&first, dial(address));
            answers(&second, dial(address));
            answers(&first, dial(address));
            result_of(&first, port.stop_listening()).unwrap();
            let stale = first.counters().stale_events;
            for _ in 0..3 {
                answers(&second, dial(address));
                settle(&first);
            }
            assert_eq!(first.counters().stale_events, stale, "the poller has kept the descriptor");
            let elapsed = Instant::now();
            first.iterate(Duration::from_millis(20)).unwrap();
            assert!(elapsed.elapsed() >= Duration::from_millis(20), "the loop spins");
            result_of(&second, other.stop_listening()).unwrap();
            gets_free(address);
        }
    }
}

/// A reactor that stops, and `abort_listening`, leave the waiting connections to the other
/// descriptor.
#[test]
fn a_stop_leaves_the_queue_to_the_other() {
    for reactor in reactors() {
        for abort in [true, false] {
            let old = reactor_on(reactor.backend()).unwrap();
            let (port, address) = listen(&old, echoes(&Log::default()));
            let duplicate = port.duplicate().unwrap();
            settle(&old);
            let waiting = dial(address);
            if abort {
                drop(port.abort_listening());
            } else {
                old.close().unwrap();
            }
            let _port = adopted_port(&reactor, duplicate);
            answers(&reactor, waiting);
        }
    }
}

/// The file of a UNIX socket is removed by the port that made it, unless it leaves it; the new one
/// only if it was told to.
#[test]
fn the_file_of_a_unix_socket() {
    for reactor in reactors() {
        let (folder, log) = (Folder::new(), Log::default());
        let at = UnixAddress::path(folder.socket()).unwrap();
        let make = || reactor.listen_unix(&at, &UnixListenOptions::new(), echoes(&log)).unwrap();

        let (old, kept) = (make(), AdoptOptions::new());
        let new = reactor.adopt_stream_port(old.duplicate().unwrap(), &kept, echoes(&log)).unwrap();
        result_of(&reactor, old.stop_listening()).unwrap();
        assert!(!folder.socket().exists(), "the port that made the file removes it");
        result_of(&reactor, new.stop_listening()).unwrap();

        let (old, removes) = (make(), AdoptOptions::new().remove_file(true));
        let new = reactor.adopt_stream_port(old.duplicate().unwrap(), &removes, echoes(&log)).unwrap();
        old.leave_socket_file().unwrap();
        result_of(&reactor, old.stop_listening()).unwrap();
        answers(&reactor, UnixStream::connect(folder.socket()).unwrap());
        result_of(&reactor, new.stop_listening()).unwrap();
        assert!(!folder.socket().exists(), "the new port removes the file if it was told to");

        let old = make();
        let new = reactor.adopt_stream_port(old.duplicate().unwrap(), &kept, echoes(&log)).unwrap();
        old.leave_socket_file().unwrap();
        result_of(&reactor, old.stop_listening()).unwrap();
        result_of(&reactor, new.stop_listening()).unwrap();
        assert!(folder.socket().exists(), "by default an adopted port removes nothing");
        std::fs::remove_file(folder.socket()).unwrap();

        // Another socket of that name is not ours to remove.
        let old = make();
        let new = reactor.adopt_stream_port(old.duplicate().unwrap(), &removes, echoes(&log)).unwrap();
        old.leave_socket_file().unwrap();
        std::fs::rename(folder.socket(), folder.socket().with_extension("old")).unwrap();
        let _foreign = UnixListener::bind(folder.socket()).unwrap();
        result_of(&reactor, new.stop_listening()).unwrap();
        assert!(folder.socket().exists(), "a file of another socket stays");
        result_of(&reactor, old.stop_listening()).unwrap();
        std::fs::remove_file(folder.socket()).unwrap();

        let locked = reactor.listen_unix(&at, &UnixListenOptions::new().want_pid(true), echoes(&log)).unwrap();
        assert_eq!(locked.leave_socket_file().unwrap_err().kind(), std::io::ErrorKind::ResourceBusy);
        result_of(&reactor, locked.stop_listening()).unwrap();
        assert!(!folder.socket().exists());
    }
}

/// The descriptor of an open connection, for options; a closed one has none.
#[test]
fn the_descriptor_of_a_connection() {
    for reactor in reactors() {
        let (port, address) = listen(&reactor, echoes(&Log::default()));
        let connecting = connect(&reactor, address, once(Script::new(&Log::default())));
        let transport = result_of(&reactor, connecting).unwrap().transport().clone();
        let ttl = transport.with_descriptor(|socket| rustix::net::sockopt::ip_ttl(socket).unwrap()).unwrap();
        let duplicate = TcpStream::from(transport.duplicate().unwrap());
        assert!(duplicate.ttl().unwrap() == ttl && is_close_on_exec(&duplicate));
        assert_eq!(Address::from(duplicate.local_addr().unwrap()), transport.host());
        transport.lose_connection();
        run_until(&reactor, || transport.is_disconnected());
        let stale = reactor.counters().stale_events;
        run_until(&reactor, || reactor.counters().watched == 1);
        drop(duplicate);
        settle(&reactor);
        assert_eq!(reactor.counters().stale_events, stale);
        assert_eq!(transport.duplicate().unwrap_err().kind(), std::io::ErrorKind::NotConnected);
        assert!(transport.with_descriptor(|_| ()).is_err());
        drop(port);
    }
}

/// An endpoint of a given descriptor listens once. If that fails, it keeps the descriptor.
#[test]
fn an_endpoint_listens_once() {
    let reactor = reactor();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ipv6 = AdoptOptions::new().family(AddressFamily::Inet6);
    let endpoint = AdoptedStreamServerEndpoint::new(&reactor, listener).options(ipv6);
    for _ in 0..2 {
        let failure = result_now(endpoint.listen(|_| Echo)).unwrap_err();
        let wrong = matches!(failure.check(), Some(ListenError::Adopt(AdoptError::WrongFamily { .. })));
        assert!(wrong, "{failure}");
    }
    let endpoint = endpoint.options(AdoptOptions::new());
    let port = result_now(endpoint.listen(|_| Echo)).unwrap();
    answers(&reactor, dial(port.host().socket_addr().unwrap()));
    let failure = result_now(endpoint.listen(|_| Echo)).unwrap_err();
    assert!(matches!(failure.check(), Some(ListenError::Adopt(AdoptError::Taken))), "{failure}");
}

/// Descriptions: each argument, and each mistake with its place.
#[test]
fn descriptions_of_inherited_sockets() {
    let reactor = reactor();
    for fine in [
        "fd:3",
        "FD:number=3:domain=INET",
        "fd:3:UNIX:queueLimit=100:atQueueLimit=tell",
        "systemd:domain=INET:index=0",
        "systemd:INET6:0",
        "systemd:UNIX:name=web:noDelay=0",
        "SYSTEMD:name=web",
    ] {
        assert!(server_from_string(&reactor, fine).is_ok(), "{fine}");
    }
    for (text, place, message) in [
        ("fd:", 3, "expected a whole number"),
        ("fd:-1", 3, "expected a whole number"),
        ("fd:2147483648", 3, "expected a whole number"),
        ("fd:3:domain=IPX", 12, "expected INET, INET6 or UNIX"),
        ("systemd:domain=INET", 19, "exactly one of index and name"),
        ("systemd:INET:0:web", 18, "exactly one of index and name"),
        ("systemd:index=x", 14, "expected a whole number"),
        ("systemd:index=0:reusePort=1", 16, "reusePort"),
    ] {
        let error = server_from_string(&reactor, text).err().unwrap_or_else(|| panic!("{text} is fine"));
        assert_eq!(error.position(), place, "{error}");
        assert!(error.to_string().contains(message), "{error}");
    }
}

/// This process was started by no service manager, and has inherited no such descriptor.
#[test]
fn without_a_service_manager() {
    let reactor = reactor();
    let failure_of = |text: &str| {
        let failure = result_now(server_from_string(&reactor, text).unwrap().listen(|_| Echo)).unwrap_err();
        match failure.check() {
            Some(ListenError::Inherited(error)) => error.clone(),
            _ => panic!("{failure}"),
        }
    };
    assert_eq!(failure_of("systemd:index=0"), InheritedError::NonePassed);
    assert_eq!(ListenFds::of_process(), Err(InheritedError::NonePassed));
    assert_eq!(failure_of("fd:1"), InheritedError::StandardStream { number: 1 });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let number = listener.as_raw_fd();
    assert_eq!(failure_of(&format!("fd:{number}")), InheritedError::NotInherited { number });
    assert!(!is_nonblocking(&listener), "nothing was done to it");
    // Far beyond what a test opens.
    assert_eq!(failure_of("fd:1000000"), InheritedError::NotOpen { number: 1_000_000 });
}

/// A folder of its own for a test, removed at its end.
pub(super) struct Folder(std::path::PathBuf);

impl Folder {
    pub(super) fn new() -> Self {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let name = format!("ropewalk-handed-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(super) fn socket(&self) -> std::path::PathBuf {
        self.0.join("socket")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
