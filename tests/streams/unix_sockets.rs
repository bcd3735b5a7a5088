//! UNIX sockets: paths and abstract names, the file that a listening one leaves and its lock, who
//! is at the other end, and their endpoints; over the kernel's, and on the simulated network.

use std::cell::RefCell;
use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::common::*;
use ropewalk::address::{UnixAddress, UnixAddressError};
use ropewalk::endpoints::{client_from_string, quote_string_argument, server_from_string};
use ropewalk::error::{ConnectError, ListenError};
use ropewalk::interfaces::*;
use ropewalk::reactor::{AdoptOptions, UnixConnectOptions, UnixListenOptions};
use ropewalk::testing::{Conditions, Network};
use ropewalk::{Address, BackendKind, Deferred, Failure, Port, Reactor, Transport};

/// A folder of its own for a test, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let name = format!("ropewalk-unix-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("socket")
    }

    fn lock(&self) -> PathBuf {
        self.0.join("socket.lock")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn address(path: impl Into<PathBuf>) -> UnixAddress {
    UnixAddress::path(path).unwrap()
}

fn listen(reactor: &Reactor, at: &UnixAddress, options: &UnixListenOptions, log: &Log) -> Result<Port, ListenError> {
    reactor.listen_unix(at, options, echoes(log))
}

/// Connects, sends something, and waits for it to come back.
fn ask(reactor: &Reactor, to: &UnixAddress) -> Result<(Transport, String), Failure> {
    let (log, buffer, place) = (Log::default(), Rc::default(), Rc::new(RefCell::new(None)));
    let script = Script::new(&log).into_buffer(&buffer).transport_into(&place);
    let script = script.made(|transport| {
        transport.write(b"hello");
        Ok(())
    });
    let connecting = reactor.connect_unix(to, &UnixConnectOptions::new(), once(script));
    let connection = result_of(reactor, connecting)?;
    run_until(reactor, || buffer.borrow().len() == 5);
    let heard = String::from_utf8(buffer.take()).unwrap();
    Ok((connection.transport().clone(), heard))
}

fn fails<T>(reactor: &Reactor, deferred: Deferred<T>) -> Failure {
    match result_of(reactor, deferred) {
        Ok(_) => panic!("a failure was expected"),
        Err(failure) => failure,
    }
}

/// A socket with a path: both ends know its name, as far as they have one; the file goes with the
/// port.
#[test]
fn an_echo_over_a_path() {
    let (folder, reactor) = (Folder::new(), reactor());
    let at = address(folder.socket());
    let port = listen(&reactor, &at, &UnixListenOptions::new(), &Log::default()).unwrap();
    assert_eq!(port.host(), Address::from(at.clone()));
    assert!(fs::metadata(folder.socket()).unwrap().file_type().is_socket());
    let (transport, heard) = ask(&reactor, &at).unwrap();
    assert_eq!(heard, "hello");
    assert_eq!(transport.peer(), at.clone().into());
    assert!(transport.host().unix().unwrap().is_unnamed());
    assert_eq!((transport.peer().ip(), transport.peer().port()), (None, None));
    let stopped = port.stop_listening();
    assert!(!folder.socket().exists(), "it is gone before the Deferred fires");
    result_of(&reactor, stopped).unwrap();
    assert!(
        fails(&reactor, reactor.connect_unix(&at, &UnixConnectOptions::new(), echoes(&Log::default())))
            .check::<ConnectError>()
            .is_some()
    );
}

/// An abstract name leaves nothing in the file system, and may have any byte in it.
#[test]
fn an_echo_over_an_abstract_name() {
    let reactor = reactor();
    let name = format!("ropewalk\0test {} \u{ff}", std::process::id());
    let at = UnixAddress::abstract_name(&name).unwrap();
    let port = listen(&reactor, &at, &UnixListenOptions::new().want_pid(true), &Log::default()).unwrap();
    assert_eq!(port.host().unix().unwrap().as_abstract_name(), Some(name.as_bytes()));
    assert_eq!(ask(&reactor, &at).unwrap().1, "hello");
}

/// The file's permissions are those that were asked for, whatever the umask; 0o666 unless said
/// otherwise.
#[test]
fn the_mode_is_exact() {
    let (folder, reactor) = (Folder::new(), reactor());
    for (options, expected) in [
        (UnixListenOptions::new(), 0o666),
        (UnixListenOptions::new().mode(0o600), 0o600),
        (UnixListenOptions::new().mode(0o777), 0o777),
    ] {
        let port = listen(&reactor, &address(folder.socket()), &options, &Log::default()).unwrap();
        let mode = fs::metadata(folder.socket()).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, expected);
        result_of(&reactor, port.stop_listening()).unwrap();
    }
}

/// Without a lock a path that is taken is an error, with a listener or without; nothing is removed.
#[test]
fn a_path_that_is_taken_is_an_error() {
    let (folder, reactor) = (Folder::new(), reactor());
    let at = address(folder.socket());
    drop(std::os::unix::net::UnixListener::bind(folder.socket()).unwrap());
    let error = listen(&reactor, &at, &UnixListenOptions::new(), &Log::default()).unwrap_err();
    assert!(matches!(error, ListenError::Bind { .. }), "{error}");
    assert!(folder.socket().exists());
    let nowhere = address(folder.0.join("no such folder/socket"));
    let error = listen(&reactor, &nowhere, &UnixListenOptions::new(), &Log::default()).unwrap_err();
    assert!(matches!(error, ListenError::Bind { .. }), "{error}");
}

/// With a lock the socket of a dead process is replaced, that of a live one is not, and a file that
/// is no socket stays.
#[test]
fn a_lock_says_who_lives() {
    let (folder, reactor) = (Folder::new(), reactor());
    let (at, locked) = (address(folder.socket()), UnixListenOptions::new().want_pid(true));
    drop(std::os::unix::net::UnixListener::bind(folder.socket()).unwrap());
    let port = listen(&reactor, &at, &locked, &Log::default()).unwrap();
    assert!(folder.lock().exists());
    let error = listen(&reactor, &at, &locked, &Log::default()).unwrap_err();
    assert!(matches!(error, ListenError::Locked { .. }), "{error}");
    assert_eq!(ask(&reactor, &at).unwrap().1, "hello");
    result_of(&reactor, port.stop_listening()).unwrap();
    assert!(!folder.socket().exists() && !folder.lock().exists());
    result_of(&reactor, {
        port.start_listening().unwrap();
        port.stop_listening()
    })
    .unwrap();

    fs::write(folder.socket(), "precious").unwrap();
    let error = listen(&reactor, &at, &locked, &Log::default()).unwrap_err();
    assert!(matches!(error, ListenError::Bind { .. }), "{error}");
    assert_eq!(fs::read_to_string(folder.socket()).unwrap(), "precious");
    assert!(!folder.lock().exists(), "the lock was given back");
}

/// A client may require the lock to be held: it does not connect to a listener that only left a
/// file.
#[test]
fn a_client_may_look_at_the_lock() {
    let (folder, reactor) = (Folder::new(), reactor());
    let (at, log) = (address(folder.socket()), Log::default());
    let looking = UnixConnectOptions::new().check_pid(true);
    let port = listen(&reactor, &at, &UnixListenOptions::new(), &log).unwrap();
    let failure = fails(&reactor, reactor.connect_unix(&at, &looking, echoes(&log)));
    assert!(matches!(failure.check(), Some(ConnectError::NotLocked { .. })), "{failure}");
    result_of(&reactor, port.stop_listening()).unwrap();
    let _port = listen(&reactor, &at, &UnixListenOptions::new().want_pid(true), &log).unwrap();
    result_of(&reactor, reactor.connect_unix(&at, &looking, echoes(&log))).unwrap();
}

/// F63: a path that was removed under the port does no harm, and another file in its place stays.
#[test]
fn a_file_that_is_not_ours_any_more_stays() {
    let (folder, reactor) = (Folder::new(), reactor());
    let port = listen(&reactor, &address(folder.socket()), &UnixListenOptions::new(), &Log::default()).unwrap();
    fs::remove_file(folder.socket()).unwrap();
    result_of(&reactor, port.stop_listening()).unwrap();
    port.start_listening().unwrap();
    fs::remove_file(folder.socket()).unwrap();
    let other = std::os::unix::net::UnixListener::bind(folder.socket()).unwrap();
    result_of(&reactor, port.stop_listening()).unwrap();
    assert!(folder.socket().exists());
    drop(other);
}

/// A reactor that goes, and one that stops, leaves no file.
#[test]
fn no_file_outlives_its_reactor() {
    let folder = Folder::new();
    let first = reactor();
    drop(listen(&first, &address(folder.socket()), &UnixListenOptions::new().want_pid(true), &Log::default()).unwrap());
    assert!(folder.socket().exists());
    drop(first);
    assert!(!folder.socket().exists() && !folder.lock().exists());
    let second = reactor();
    let _port = listen(&second, &address(folder.socket()), &UnixListenOptions::new(), &Log::default()).unwrap();
    let handle = second.clone();
    second.call_when_running(move || handle.stop().unwrap());
    run(&second).unwrap();
    assert!(!folder.socket().exists());
}

/// Names that are no addresses are refused before anything is done with them.
#[test]
fn bad_names() {
    assert_eq!(UnixAddress::path("").unwrap_err(), UnixAddressError::Empty);
    assert_eq!(UnixAddress::path("a\0b").unwrap_err(), UnixAddressError::Nul);
    assert!(UnixAddress::path("x".repeat(107)).is_ok());
    let too_long = UnixAddressError::TooLong { length: 108, limit: 107 };
    assert_eq!(UnixAddress::path("x".repeat(108)).unwrap_err(), too_long);
    assert_eq!(UnixAddress::abstract_name([1; 108]).unwrap_err(), too_long);
    assert_eq!(UnixAddress::abstract_name("").unwrap_err(), UnixAddressError::Empty);
    let reactor = reactor();
    assert!(listen(&reactor, &UnixAddress::unnamed(), &UnixListenOptions::new(), &Log::default()).is_err());
}

/// The longest path that fits listens and is connected to.
#[test]
fn the_longest_path_works() {
    let (folder, reactor) = (Folder::new(), reactor());
    let name = "x".repeat(107 - folder.0.as_os_str().len() - 1);
    let at = address(folder.0.join(name));
    let _port = listen(&reactor, &at, &UnixListenOptions::new(), &Log::default()).unwrap();
    assert_eq!(ask(&reactor, &at).unwrap().0.peer(), at.into());
}

/// A peer that reads no more and writes on and on is lost behind the bytes that were there.
#[test]
fn endless_input_does_not_hide_a_peer_that_reads_no_more() {
    for kind in [BackendKind::Mio, BackendKind::IoUring] {
        let Some(reactor) = reactor_on(kind) else { continue };
        let (ours, mut peer) = UnixStream::pair().unwrap();
        peer.write_all(b"more and more").unwrap();
        peer.shutdown(Shutdown::Read).unwrap();
        let log = Log::default();
        let protocol = Script::new(&log);
        let received = Rc::clone(&protocol.received);
        // Each byte that is received is followed by another, as long as the peer can write.
        let protocol = protocol.made(|transport| {
            transport.write(b"unread");
            Ok(())
        });
        let protocol = protocol.data(move |_, data| {
            let _ = peer.write_all(data);
            Ok(())
        });
        let (unnamed, options) = (UnixAddress::unnamed(), AdoptOptions::new());
        let joined = reactor.adopt_stream(ours, unnamed.clone(), unnamed, &options, protocol);
        let connection = joined.expect("a connection");
        run_until(&reactor, || log.is_over());
        assert!(log.reason().starts_with("the peer reset the connection"), "{}", log.reason());
        assert!(received.borrow().starts_with(b"more and more"));
        drop(connection);
    }
}

/// Each end has the credentials of the other; over TCP there are none.
#[test]
fn credentials() {
    let (folder, reactor) = (Folder::new(), reactor());
    let at = address(folder.socket());
    let seen = Rc::new(RefCell::new(None));
    let place = Rc::clone(&seen);
    let server = Script::new(&Log::default()).made(move |transport| {
        place.replace(Some(transport.peer_credentials()?));
        transport.write(b"hello");
        Ok(())
    });
    let _port = reactor.listen_unix(&at, &UnixListenOptions::new(), once(server)).unwrap();
    let (transport, _) = ask(&reactor, &at).unwrap();
    let ours = transport.peer_credentials().unwrap();
    assert_eq!(ours.pid, std::process::id() as i32);
    assert_eq!(seen.take().unwrap(), ours);

    let (_port, tcp) = crate::common::listen(&reactor, echoes(&Log::default()));
    let connecting = crate::common::connect(&reactor, tcp, echoes(&Log::default()));
    let connection = result_of(&reactor, connecting).unwrap();
    assert!(connection.transport().peer_credentials().is_err());
}

/// A listener whose queue is full is asked again until it has room, or the attempt has lasted long
/// enough.
#[test]
fn a_full_queue_is_waited_for() {
    let (folder, reactor) = (Folder::new(), reactor());
    let listener = tcp_like_listener(&folder.socket());
    let at = address(folder.socket());
    let first: Vec<_> = (0..2).map(|_| UnixStream::connect(folder.socket()).unwrap()).collect();
    let short = UnixConnectOptions::new().timeout(Some(Duration::from_millis(30)));
    let failure = fails(&reactor, reactor.connect_unix(&at, &short, echoes(&Log::default())));
    assert!(matches!(failure.check(), Some(ConnectError::NoAnswer { .. })), "{failure}");
    let connecting = reactor.connect_unix(&at, &UnixConnectOptions::new(), echoes(&Log::default()));
    settle(&reactor);
    assert!(!connecting.is_called());
    let accepted: Vec<_> = first.iter().map(|_| rustix::net::accept(&listener).unwrap()).collect();
    result_of(&reactor, connecting).unwrap();
    drop(accepted);
}

/// A listener with room for one that waits.
fn tcp_like_listener(path: &Path) -> std::os::fd::OwnedFd {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
    rustix::net::listen(&socket, 1).unwrap();
    socket
}

/// A peer that is not ours: std's sockets, both ways, with half-closes.
#[test]
fn std_sockets_at_the_other_end() {
    let (folder, reactor) = (Folder::new(), reactor());
    let path = folder.socket();
    let _port = listen(&reactor, &address(&path), &UnixListenOptions::new(), &Log::default()).unwrap();
    let peer = thread::spawn(move || {
        let mut stream = UnixStream::connect(path).unwrap();
        stream.write_all(&[7; 100_000]).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        all
    });
    assert_eq!(run_beside(&reactor, peer), [7; 100_000]);
}

/// The endpoints, from strings: the lock is held unless the description turns it off, as in
/// Twisted; the client string of a port leads to it.
#[test]
fn endpoints_from_strings() {
    let (folder, reactor) = (Folder::new(), reactor());
    let path = quote_string_argument(folder.socket().to_str().unwrap()).into_owned();
    let endpoint = server_from_string(&reactor, &format!("unix:{path}:mode=640")).unwrap();
    let port = result_of(&reactor, endpoint.listen(echoes(&Log::default()))).unwrap();
    assert!(folder.lock().exists());
    assert_eq!(fs::metadata(folder.socket()).unwrap().permissions().mode() & 0o777, 0o640);
    let log = Log::default();
    for description in [port.client_description(), format!("unix:path={path}:timeout=5:lockfile=1")] {
        let endpoint = client_from_string(&reactor, &description).unwrap();
        result_of(&reactor, endpoint.connect(echoes(&log))).unwrap();
    }
    result_of(&reactor, port.stop_listening()).unwrap();

    let endpoint = server_from_string(&reactor, &format!("unix:{path}:600:10:0")).unwrap();
    let port = result_of(&reactor, endpoint.listen(echoes(&log))).unwrap();
    assert!(!folder.lock().exists());
    result_of(&reactor, port.stop_listening()).unwrap();

    let name = format!("unix:\0ropewalk strings {}", std::process::id());
    let endpoint = server_from_string(&reactor, &name).unwrap();
    let port = result_of(&reactor, endpoint.listen(echoes(&log))).unwrap();
    assert_eq!(port.client_description(), name);
}

/// Errors of descriptions name the fault and its place.
#[test]
fn wrong_descriptions() {
    let reactor = reactor();
    for (description, position, expectation) in [
        ("unix", 4, "address is missing"),
        ("unix:", 5, "the address of a UNIX socket"),
        ("unix:/a:999", 8, "permissions in octal"),
        ("unix:/a:mode=", 13, "permissions in octal"),
        ("unix:/a:lockfile=yes", 17, "expected a whole number from 0 to 1"),
        ("unix:/a:666:50:1:x", 17, "without a name"),
        (
            "unix:/a:size=3",
            8,
            "expected address, mode, backlog, lockfile, receiveBuffer, sendBuffer, queueLimit, atQueueLimit, maxConnections",
        ),
    ] {
        let error = server_from_string(&reactor, description).expect_err(description);
        assert!(error.to_string().contains(expectation), "{error}");
        assert_eq!(error.position(), position, "{error}");
    }
    let error = client_from_string(&reactor, "unix:/a:/b").unwrap_err();
    assert_eq!(error.position(), 8, "{error}");
}

/// On the simulated network a path belongs to its host, and leaves no file.
#[test]
fn on_the_simulated_network() {
    let network = Network::with_conditions(4, Conditions::rough(4));
    let (one, other) = (network.reactor([10, 0, 0, 1].into()), network.reactor([10, 0, 0, 2].into()));
    let at = address("/ropewalk/only/simulated");
    let log = Log::default();
    listen(&one, &at, &UnixListenOptions::new().want_pid(true), &log).unwrap();
    assert!(listen(&one, &at, &UnixListenOptions::new(), &log).is_err());
    let found = one.connect_unix(&at, &UnixConnectOptions::new(), echoes(&log));
    let mut missed = other.connect_unix(&at, &UnixConnectOptions::new(), echoes(&log));
    network.run_until(Duration::from_secs(60), || found.is_called() && missed.is_called()).unwrap();
    drop(found.add_callback(move |connection| assert_eq!(connection.transport().peer(), at.into())));
    assert!(missed.take_result().unwrap().is_err());
    assert!(!Path::new("/ropewalk").exists());
}

/// As many connections wait to be accepted as was asked for, and one more.
#[test]
fn the_backlog_reaches_the_socket() {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
    let reactor = reactor();
    let name = format!("ropewalk-backlog-{}", std::process::id());
    let at = UnixAddress::abstract_name(&name).unwrap();
    let options = UnixListenOptions::new().backlog(2);
    let _port = reactor.listen_unix(&at, &options, |_| Some(Echo)).unwrap();
    let to = SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap();
    // Nothing is accepted before the reactor turns.
    let sockets =
        [(); 4].map(|()| socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK, None).unwrap());
    let connected = sockets.iter().map(|socket| connect(socket, &to)).collect::<Vec<_>>();
    assert_eq!(connected, [Ok(()), Ok(()), Ok(()), Err(rustix::io::Errno::AGAIN)]);
}
