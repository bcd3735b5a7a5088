//! Datagram ports on UNIX sockets: names, files and locks, full receivers, and peers that are gone.

use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use std::{fs, thread};

use super::*;
use ropewalk::address::{UnixAddress, UnixAddressError};
use ropewalk::datagram::{MulticastInterface, UnixDatagramOptions};
use ropewalk::error::{ConnectDatagramError, DatagramError, ListenError};
use ropewalk::for_protocol;
use ropewalk::reactor::UnixListenOptions;
use ropewalk::testing::{Conditions, Network};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// A folder of its own for a test, removed at its end.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Self {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let name = format!("ropewalk-datagrams-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a folder");
        Self(path)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(super) fn address(&self, name: &str) -> UnixAddress {
        UnixAddress::path(self.path(name)).expect("an address")
    }

    /// Makes a blocking socket of std, as the peer.
    fn peer(&self, name: &str) -> UnixDatagram {
        let socket = UnixDatagram::bind(self.path(name)).expect("a socket");
        socket.set_read_timeout(Some(LIMIT)).expect("a time limit");
        socket
    }

    fn is_empty(&self) -> bool {
        fs::read_dir(&self.0).expect("a folder").next().is_none()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[track_caller]
pub(super) fn listen_unix(reactor: &Reactor, address: &UnixAddress, protocol: Recorder) -> DatagramTransport {
    reactor.listen_unix_datagram(address, &UnixDatagramOptions::new(), protocol).expect("a port")
}

fn abstract_name(name: &str) -> UnixAddress {
    UnixAddress::abstract_name(format!("ropewalk-{}-{name}", std::process::id())).expect("a name")
}

#[track_caller]
fn received(socket: &UnixDatagram) -> Vec<u8> {
    let mut buffer = vec![0; 70_000];
    let length = socket.recv(&mut buffer).expect("a datagram arrives");
    buffer.truncate(length);
    buffer
}

/// Sends from a port to a peer until that is full and a datagram waits. Returns their number.
fn fill(port: &DatagramTransport, to: &Address) -> usize {
    let (before, mut sent) = (port.queued_bytes(), 0);
    while port.queued_bytes() == before {
        port.write(sent.to_string().as_bytes(), to).expect("it is sent, or queued");
        sent += 1;
        assert!(sent < 100_000, "the receiver is never full");
    }
    sent
}

/// Datagrams of any length come back from a path and from an abstract name, each once and whole.
/// The peer's address is the one that it has bound.
#[test]
fn datagrams_come_back() {
    on_each(|reactor| {
        let folder = Folder::new();
        for server in [folder.address("server"), abstract_name("server")] {
            let log = Log::default();
            let port = listen_unix(&reactor, &server, Recorder::echo(&log));
            assert_eq!((port.host(), port.peer()), (server.clone().into(), None));
            let seen = Rc::<RefCell<Vec<Address>>>::default();
            let own = Rc::clone(&seen);
            let client = Recorder::new(&log).received(move |_, _, peer| {
                own.borrow_mut().push(peer.clone());
                Ok(())
            });
            let client = listen_unix(&reactor, &folder.address("client"), client);
            for length in [0, 1, 60_000] {
                client.write(&vec![7; length], &port.host()).expect("it is sent");
            }
            run_until(&reactor, || seen.borrow().len() == 3);
            assert_eq!(*seen.borrow(), vec![port.host(); 3]);
            let shown = ["", "\u{7}", "60000 bytes"].map(|data| format!("received {data}"));
            assert_eq!(log.all()[2..], [&shown[..], &shown[..]].concat());
            assert_eq!((port.counts().sent, client.counts().received), (3, 3));
            for port in [port, client] {
                result_of(&reactor, port.stop_listening()).expect("it stops");
            }
        }
        assert!(folder.is_empty(), "a file is left");
    });
}

/// A peer without a name is heard, and cannot be answered.
#[test]
fn an_unnamed_peer_cannot_be_answered() {
    on_each(|reactor| {
        let (folder, log) = (Folder::new(), Log::default());
        let answers = log.clone();
        let protocol = Recorder::new(&log).received(move |transport, data, peer| {
            assert!(peer.unix().is_some_and(UnixAddress::is_unnamed));
            let error = transport.write(data, peer).expect_err("it has no name");
            assert!(matches!(error, DatagramError::Unnamed { .. }), "{error}");
            answers.add("no answer");
            Ok(())
        });
        let port = listen_unix(&reactor, &folder.address("server"), protocol);
        let peer = UnixDatagram::unbound().expect("a socket");
        peer.send_to(b"hello", folder.path("server")).expect("it is sent");
        run_until(&reactor, || log.has("no answer"));
        let unnamed = reactor.listen_unix_datagram(
            &UnixAddress::unnamed(),
            &UnixDatagramOptions::new(),
            Recorder::new(&Log::default()),
        );
        let unnamed = unnamed.expect("a port that only sends");
        unnamed.write(b"hello", &port.host()).expect("it is sent");
        run_until(&reactor, || log.count("no answer") == 2);
        let other = SocketAddr::from(([127, 0, 0, 1], 9)).into();
        for error in [port.write(b"", &other), bind(&reactor, LOCAL[0], Recorder::new(&log)).write(b"", &port.host())] {
            assert!(matches!(error, Err(DatagramError::WrongFamily { .. })), "{error:?}");
        }
    });
}

/// The file of a port has exactly the mode that was asked for, and goes with the port, also with a
/// reactor that closes.
#[test]
fn the_file_has_its_mode_and_goes_with_its_port() {
    on_each(|reactor| {
        let (folder, log) = (Folder::new(), Log::default());
        for (options, expected) in [
            (UnixDatagramOptions::new(), 0o666),
            (UnixDatagramOptions::new().mode(0o600), 0o600),
            (UnixDatagramOptions::new().mode(0o777), 0o777),
        ] {
            let at = folder.address("server");
            let port = reactor.listen_unix_datagram(&at, &options, Recorder::new(&log)).expect("a port");
            let file = fs::metadata(folder.path("server")).expect("a file");
            assert!(file.file_type().is_socket());
            assert_eq!(file.permissions().mode() & 0o7777, expected);
            let stopped = port.stop_listening();
            assert!(!folder.path("server").exists(), "it is gone before the Deferred fires");
            result_of(&reactor, stopped).expect("it stops");
        }
        let failing = Recorder::new(&log).started(|_| Err("no".into()));
        let options = UnixDatagramOptions::new().want_pid(true);
        let failed = reactor.listen_unix_datagram(&folder.address("server"), &options, failing);
        assert!(matches!(failed, Err(ListenError::Protocol(_))), "{failed:?}");
        assert!(folder.is_empty(), "a failed start leaves a file");
        let at = folder.address("server");
        let _port = reactor.listen_unix_datagram(&at, &options, Recorder::new(&log)).expect("a port");
        assert!(folder.path("server.lock").exists() && folder.path("server").exists());
        reactor.close().expect("it closes");
        assert!(folder.is_empty(), "a closed reactor leaves a file");
    });
}

/// A path that is taken is an error, and nothing is removed: without a lock in any case, with one
/// while its holder lives. The socket of a dead process is replaced, and a file of another kind is
/// not.
#[test]
fn a_taken_path_is_an_error() {
    on_each(|reactor| {
        let (folder, log) = (Folder::new(), Log::default());
        let at = folder.address("server");
        let listen = |options: &UnixDatagramOptions| reactor.listen_unix_datagram(&at, options, Recorder::new(&log));
        let is_in_use = |result: Result<DatagramTransport, ListenError>| match result {
            Err(ListenError::Bind { source, .. }) => source.kind() == ErrorKind::AddrInUse,
            other => panic!("{other:?}"),
        };
        drop(folder.peer("server"));
        let (open, locked) = (UnixDatagramOptions::new(), UnixDatagramOptions::new().want_pid(true));
        assert!(is_in_use(listen(&open)), "a dead socket without a lock");
        assert!(folder.path("server").exists());
        let port = listen(&locked).expect("a dead socket is replaced");
        assert!(matches!(listen(&locked), Err(ListenError::Locked { .. })));
        assert!(is_in_use(listen(&open)));
        let peer = folder.peer("peer");
        peer.send_to(b"it lives", folder.path("server")).expect("it is sent");
        run_until(&reactor, || log.has("received it lives"));
        result_of(&reactor, port.stop_listening()).expect("it stops");
        // Its holder is dead.
        fs::write(folder.path("server.lock"), "999999999").expect("a lock");
        drop(folder.peer("server"));
        let port = listen(&locked).expect("a stale lock is taken over");
        result_of(&reactor, port.stop_listening()).expect("it stops");
        assert!(!folder.path("server").exists() && !folder.path("server.lock").exists());
        fs::write(folder.path("server"), "a text").expect("a file");
        assert!(is_in_use(listen(&locked)), "a text is no socket");
        assert!(folder.path("server").exists() && !folder.path("server.lock").exists());
        let long = UnixAddress::path("x".repeat(108));
        assert!(matches!(long, Err(UnixAddressError::TooLong { length: 108, .. })), "{long:?}");
        let nowhere = reactor.listen_unix_datagram(&folder.address("none/server"), &open, Recorder::new(&log));
        assert!(matches!(&nowhere, Err(ListenError::Bind { source, .. }) if source.kind() == ErrorKind::NotFound));
    });
}

/// A datagram that is longer than the port takes is told as such, and one that is longer than the
/// send buffer is an error of the write.
#[test]
fn long_datagrams_are_told() {
    on_each(|reactor| {
        let (folder, log) = (Folder::new(), Log::default());
        let options = UnixDatagramOptions::new().max_packet_bytes(4).send_buffer_bytes(16_384);
        let port =
            reactor.listen_unix_datagram(&folder.address("server"), &options, Recorder::new(&log)).expect("a port");
        let peer = folder.peer("peer");
        for data in ["1234", "12345", ""] {
            peer.send_to(data.as_bytes(), folder.path("server")).expect("it is sent");
        }
        run_until(&reactor, || log.has("received "));
        let whole = if cfg!(target_os = "linux") { "Some(5)" } else { "None" };
        assert_eq!(log.all()[1..], ["received 1234", &format!("truncated 1234 of {whole}"), "received "]);
        assert_eq!(port.counts().truncated, 1);
        let to = folder.address("peer").into();
        let error = port.write(&[0; 100_000], &to).expect_err("it is too long");
        assert!(matches!(error, DatagramError::MessageTooLong { length: 100_000, .. }), "{error}");
        assert!(port.send_buffer_bytes().expect("an option") >= 16_384);
        for error in [
            port.join_group("239.255.0.1".parse().expect("a group"), &MulticastInterface::Default).err(),
            port.multicast_ttl().err(),
        ] {
            assert!(matches!(error, Some(DatagramError::Group { .. } | DatagramError::SocketOption { .. })));
        }
    });
}

/// F59: a full receiver holds up its own datagrams alone. They wait within the limit of the queue,
/// and arrive in order when it reads.
#[test]
fn a_full_receiver_holds_up_no_other() {
    on_each(|reactor| {
        let folder = Folder::new();
        let port = listen_unix(&reactor, &folder.address("server"), Recorder::new(&Log::default()));
        let (slow, quick) = (folder.peer("slow"), folder.peer("quick"));
        let (to_slow, to_quick) = (folder.address("slow").into(), folder.address("quick").into());
        let mut sent = fill(&port, &to_slow);
        for _ in 0..100 {
            port.write(sent.to_string().as_bytes(), &to_slow).expect("it is queued");
            sent += 1;
        }
        settle(&reactor);
        port.write(b"at once", &to_quick).expect("it is sent");
        assert_eq!(received(&quick), b"at once", "a slow receiver holds it up");
        port.set_queue_limit(port.queued_bytes());
        let error = port.write(b"", &to_slow).expect_err("the queue is full");
        assert!(matches!(error, DatagramError::QueueFull { .. }), "{error}");
        port.write(b"still", &to_quick).expect("it is sent");
        assert_eq!(received(&quick), b"still");
        let reader = thread::spawn(move || {
            for number in 0..sent {
                assert_eq!(received(&slow), number.to_string().as_bytes());
            }
        });
        run_beside(&reactor, reader);
        assert_eq!((port.queued_bytes(), port.counts().sent), (0, sent as u64 + 2));
    });
}

/// A receiver that others have filled reports no room to us. It is asked again after a while.
#[test]
fn a_receiver_that_others_fill_is_asked_again() {
    on_each(|reactor| {
        let folder = Folder::new();
        let port = listen_unix(&reactor, &folder.address("server"), Recorder::new(&Log::default()));
        let (slow, other) = (folder.peer("slow"), folder.peer("other"));
        other.set_nonblocking(true).expect("an option");
        let mut filled = 0;
        while other.send_to(b"other", folder.path("slow")).is_ok() {
            filled += 1;
        }
        port.write(b"ours", &folder.address("slow").into()).expect("it is queued");
        settle(&reactor);
        assert_eq!(port.counts().sent, 0);
        (0..filled).for_each(|_| assert_eq!(received(&slow), b"other"));
        run_until(&reactor, || port.counts().sent == 1);
        assert_eq!(received(&slow), b"ours");
    });
}

/// The queue of a receiver that is gone is dropped and counted. Others are sent.
#[test]
fn the_queue_of_a_receiver_that_is_gone_is_dropped() {
    on_each(|reactor| {
        let folder = Folder::new();
        let port = listen_unix(&reactor, &folder.address("server"), Recorder::new(&Log::default()));
        let (slow, gone) = (folder.peer("slow"), folder.peer("gone"));
        let sent = fill(&port, &folder.address("slow").into());
        let to_gone = folder.address("gone").into();
        fill(&port, &to_gone);
        port.write(b"another", &to_gone).expect("it is queued");
        let sent_before = port.counts().sent;
        drop(gone);
        fs::remove_file(folder.path("gone")).expect("it was there");
        run_until(&reactor, || port.counts().failed == 2);
        assert!(port.queued_bytes() > 0, "the other receiver is full still");
        let reader = thread::spawn(move || {
            (0..sent).for_each(|number| assert_eq!(received(&slow), number.to_string().as_bytes()));
        });
        run_beside(&reactor, reader);
        run_until(&reactor, || port.queued_bytes() == 0);
        assert_eq!(port.counts().sent, sent_before + 1);
        let error = port.write(b"late", &to_gone).expect_err("there is no file");
        assert!(matches!(&error, DatagramError::Send { source, .. } if source.kind() == ErrorKind::NotFound));
    });
}

/// A connected port receives from its peer alone, waits for its room, and is told when it is gone.
/// It reaches the next socket of that name.
#[test]
fn a_connected_port_outlives_its_peer() {
    on_each(|reactor| {
        let (folder, log) = (Folder::new(), Log::default());
        let (to, from) = (folder.address("peer"), folder.address("client"));
        let peer = folder.peer("peer");
        let options = UnixDatagramOptions::new().mode(0o600);
        let port = reactor.connect_unix_datagram(&to, &from, &options, Recorder::new(&log)).expect("a port");
        assert_eq!((port.host(), port.peer()), (from.clone().into(), Some(to.clone().into())));
        let mode = fs::metadata(folder.path("client")).expect("a file").permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        peer.send_to(b"hello", folder.path("client")).expect("it is sent");
        run_until(&reactor, || log.has("received hello"));
        let stranger = folder.peer("stranger");
        let refused = stranger.send_to(b"strange", folder.path("client")).expect_err("it is connected");
        assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
        let error = port.write(b"", &folder.address("stranger").into()).expect_err("it has a peer");
        assert!(matches!(error, DatagramError::OtherPeer { .. }), "{error}");
        let sent = fill(&port, &to.clone().into());
        settle(&reactor);
        assert!(port.queued_bytes() > 0);
        let reader = thread::spawn(move || {
            (0..sent).for_each(|number| assert_eq!(received(&peer), number.to_string().as_bytes()));
        });
        run_beside(&reactor, reader);
        run_until(&reactor, || port.queued_bytes() == 0);
        // The peer is closed, and its file is there still.
        let error = port.write_to_peer(b"lost").expect_err("there is no socket");
        assert!(matches!(&error, DatagramError::Send { source, .. } if source.kind() == ErrorKind::ConnectionRefused));
        run_until(&reactor, || log.has("refused"));
        fs::remove_file(folder.path("peer")).expect("it was there");
        let error = port.write_to_peer(b"lost").expect_err("there is no file");
        assert!(matches!(&error, DatagramError::Send { source, .. } if source.kind() == ErrorKind::NotFound));
        run_until(&reactor, || log.count("refused") == 2);
        let next = folder.peer("peer");
        port.write_to_peer(b"again").expect("it is sent");
        assert_eq!(received(&next), b"again");
        assert_eq!((log.count("refused"), port.counts().sent), (2, sent as u64 + 1));
    });
}

/// A peer that ends while datagrams wait for it: they are dropped and counted, and the protocol is
/// told.
#[test]
fn a_peer_that_ends_takes_its_queue_along() {
    on_each(|reactor| {
        let (folder, log) = (Folder::new(), Log::default());
        let (to, peer) = (folder.address("peer"), folder.peer("peer"));
        let (unnamed, options) = (UnixAddress::unnamed(), UnixDatagramOptions::new());
        let port = reactor.connect_unix_datagram(&to, &unnamed, &options, Recorder::new(&log)).expect("a port");
        assert!(port.host().unix().is_some_and(UnixAddress::is_unnamed));
        fill(&port, &to.into());
        port.write_to_peer(b"second").expect("it is queued");
        drop(peer);
        run_until(&reactor, || log.has("refused"));
        assert_eq!((port.queued_bytes(), port.counts().failed), (0, 2));
        assert!(port.is_listening());
    });
}

/// A peer that cannot be had is an error of the call. The protocol is not started, and no file is
/// left.
#[test]
fn a_port_that_cannot_be_connected_is_an_error() {
    on_each(|reactor| {
        let (folder, log) = (Folder::new(), Log::default());
        let from = folder.address("client");
        let connect = |to: &UnixAddress| {
            let options = UnixDatagramOptions::new().want_pid(true);
            reactor.connect_unix_datagram(to, &from, &options, Recorder::new(&log))
        };
        let kind = |to: &UnixAddress| match connect(to) {
            Err(ConnectDatagramError::Connect(DatagramError::Connect { source, .. })) => source.kind(),
            other => panic!("{other:?}"),
        };
        assert_eq!(kind(&folder.address("none")), ErrorKind::NotFound);
        drop(folder.peer("dead"));
        assert_eq!(kind(&folder.address("dead")), ErrorKind::ConnectionRefused);
        assert_eq!(kind(&abstract_name("none")), ErrorKind::ConnectionRefused);
        let _stream = std::os::unix::net::UnixListener::bind(folder.path("stream")).expect("a listener");
        let error = connect(&folder.address("stream")).expect_err("it is a stream");
        assert!(matches!(error, ConnectDatagramError::Connect(DatagramError::Connect { .. })), "{error}");
        let error = connect(&UnixAddress::unnamed()).expect_err("it has no name");
        assert!(matches!(error, ConnectDatagramError::Connect(DatagramError::Unnamed { .. })), "{error}");
        let _peer = folder.peer("peer");
        let failing = Recorder::new(&log).started(|_| Err("no".into()));
        let options = UnixDatagramOptions::new();
        let error = reactor.connect_unix_datagram(&folder.address("peer"), &from, &options, failing);
        assert!(matches!(error, Err(ConnectDatagramError::Listen(ListenError::Protocol(_)))), "{error:?}");
        assert!(!folder.path("client").exists() && !folder.path("client.lock").exists());
        assert_eq!(log.all(), ["started"]);
    });
}

/// Streams and datagrams share the paths of a host, and no abstract names: on the simulated network
/// as well.
#[test]
fn streams_have_the_same_paths_and_other_names() {
    struct Ignores;
    impl Protocol for Ignores {
        fn data_received(&mut self, _: &ropewalk::Transport, _: &[u8]) -> Result<()> {
            Ok(())
        }
    }
    let check = |reactor: &Reactor, turn: &dyn Fn()| {
        let (folder, log) = (Folder::new(), Log::default());
        let (path, other, name) = (folder.address("one"), folder.address("other"), abstract_name("shared"));
        let listen = |at| reactor.listen_unix(at, &UnixListenOptions::new(), for_protocol(|_| Ignores));
        let bind = |at| reactor.listen_unix_datagram(at, &UnixDatagramOptions::new(), Recorder::new(&log));
        let is_in_use = |refused: Option<ListenError>| match refused {
            Some(ListenError::Bind { source, .. }) => source.kind() == ErrorKind::AddrInUse,
            other => panic!("{other:?}"),
        };
        let port = bind(&path).expect("a port");
        assert!(is_in_use(listen(&path).err()));
        let _listener = listen(&other).expect("a listener");
        assert!(is_in_use(bind(&other).err()));
        let (_port, _listener) = (bind(&name).expect("a port"), listen(&name).expect("a listener"));
        let stopped = port.stop_listening();
        while !stopped.is_called() {
            turn();
        }
        listen(&path).expect("the path is free again");
    };
    on_each(|reactor| check(&reactor, &|| reactor.iterate(LIMIT).expect("the loop turns")));
    let network = Network::new(1);
    check(&network.reactor([10, 0, 0, 1].into()), &|| network.settle().expect("it stops"));
}

/// The simulated network has UNIX sockets for datagrams, with Linux' answers: names belong to a
/// host, a full receiver holds up its own datagrams, and a peer that is gone refuses.
#[test]
fn a_simulated_host_has_unix_sockets() {
    let network = Network::new(1);
    let (one, other) = (network.reactor([10, 0, 0, 1].into()), network.reactor([10, 0, 0, 2].into()));
    let [server, client] = ["server", "client"].map(abstract_name);
    let (log, answers) = (Log::default(), Log::default());
    let port = listen_unix(&one, &server, Recorder::echo(&log));
    let taken = one.listen_unix_datagram(&server, &UnixDatagramOptions::new(), Recorder::new(&log));
    assert!(matches!(&taken, Err(ListenError::Bind { source, .. }) if source.kind() == ErrorKind::AddrInUse));
    let away = other.connect_unix_datagram(&server, &client, &UnixDatagramOptions::new(), Recorder::new(&log));
    assert!(matches!(away, Err(ConnectDatagramError::Connect(DatagramError::Connect { .. }))), "{away:?}");
    let options = UnixDatagramOptions::new().max_packet_bytes(3);
    let asker = one.connect_unix_datagram(&server, &client, &options, Recorder::new(&answers)).expect("a port");
    for data in ["one", "", "three"] {
        asker.write_to_peer(data.as_bytes()).expect("it is sent");
    }
    network.settle().expect("they arrive");
    assert_eq!(answers.all(), ["started", "received one", "received ", "truncated thr of Some(5)"]);
    assert_eq!(log.all(), ["started", "received one", "received ", "received three"]);
    assert_eq!(network.datagram_ports(&one), [port.host(), asker.host()]);
    port.pause_receiving();
    let many = 30;
    (0..many).for_each(|_| asker.write_to_peer(b"x").expect("it is sent, or queued"));
    network.settle().expect("it is driven");
    assert!(asker.queued_bytes() > 0, "the receiver is not full");
    port.resume_receiving();
    network.settle().expect("they arrive");
    assert_eq!((log.count("received x"), answers.count("received x"), asker.queued_bytes()), (many, many, 0));
    drop(port.stop_listening());
    network.settle().expect("it stops");
    let error = asker.write_to_peer(b"lost").expect_err("there is no socket");
    assert!(matches!(&error, DatagramError::Send { source, .. } if source.kind() == ErrorKind::ConnectionRefused));
    network.settle().expect("it is told");
    assert_eq!(answers.count("refused"), 1);
    let again = listen_unix(&one, &server, Recorder::new(&log));
    asker.write_to_peer(b"again").expect("it is sent");
    network.settle().expect("it arrives");
    assert!(log.has("received again"));
    for stopped in [again.stop_listening(), asker.stop_listening()] {
        network.settle().expect("they stop");
        assert!(stopped.is_called());
    }
    assert_eq!(network.open_sockets(&one), 0);
}

/// Each datagram arrives, in order, on simulated hosts whose sockets are full for no reason and
/// whose receives are short.
#[test]
fn a_rough_host_loses_no_unix_datagram() {
    for seed in 0..u64::from(seeds(20, 300)) {
        let network = Network::with_conditions(seed, Conditions::rough(seed));
        let reactor = network.reactor([10, 0, 0, 1].into());
        let (log, client) = (Log::default(), Log::default());
        let port = listen_unix(&reactor, &abstract_name("server"), Recorder::echo(&log));
        let asking = listen_unix(&reactor, &abstract_name("client"), Recorder::new(&client));
        let sent: Vec<String> = (0..100).map(|number| number.to_string()).collect();
        for data in &sent {
            asking.write(data.as_bytes(), &port.host()).expect("it is sent, or queued");
        }
        let hour = Duration::from_secs(3600);
        network.run_until(hour, || client.count("received") == 100).expect("they come back");
        let expected: Vec<String> = sent.iter().map(|data| format!("received {data}")).collect();
        assert_eq!((&log.all()[1..], &client.all()[1..]), (&expected[..], &expected[..]), "seed {seed}");
    }
}

/// Descriptors at their limit are an error that leaves no file, and the port can be made later.
#[test]
fn a_lack_of_descriptors_is_an_error() {
    own_process!();
    on_each(|reactor| {
        let (folder, log) = (Folder::new(), Log::default());
        let options = UnixDatagramOptions::new().want_pid(true);
        let listen = || reactor.listen_unix_datagram(&folder.address("server"), &options, Recorder::new(&log));
        let peer = folder.peer("peer");
        let before = descriptors();
        for spare in [0, 1] {
            let mut taken = Vec::new();
            let limit = getrlimit(Resource::Nofile);
            let current = Some(before as u64 + 8);
            setrlimit(Resource::Nofile, Rlimit { current, maximum: limit.maximum }).expect("the soft limit");
            while let Ok(one) = peer.try_clone() {
                taken.push(one);
            }
            taken.truncate(taken.len() - spare);
            let result = listen();
            setrlimit(Resource::Nofile, limit).expect("the soft limit");
            drop(taken);
            // With one descriptor there is a socket, and none for the lock.
            let Err(ListenError::Bind { .. }) = result else { panic!("{spare} spare: {result:?}") };
            assert!(!folder.path("server").exists());
        }
        assert_eq!(descriptors(), before);
        let port = listen().expect("a port");
        peer.send_to(b"hello", folder.path("server")).expect("it is sent");
        run_until(&reactor, || log.has("received hello"));
        result_of(&reactor, port.stop_listening()).expect("it stops");
    });
}
