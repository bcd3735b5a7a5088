//! Handed-over sockets between processes: service managers, and ports that move.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use super::handed_over::{Folder, answers, gets_free, result_now};
use crate::common::generations::{Askers, Ends, Letter, ROLE, child, role};
use crate::common::process::own_process;
use crate::common::*;
use ropewalk::address::UnixAddress;
use ropewalk::endpoints::{AdoptedStreamServerEndpoint, server_from_string};
use ropewalk::error::{AdoptError, InheritedError, ListenError};
use ropewalk::interfaces::*;
use ropewalk::reactor::{AdoptOptions, InheritedDescriptor, ListenFds};
use ropewalk::{BackendKind, ListenOptions, Reactor, Result, Transport};

/// Two sockets that a shell passes as a service manager does, from descriptor 3 on: by place and by
/// name, each once; and no program that the child starts inherits them.
#[test]
fn descriptors_of_a_service_manager() {
    if role().is_some() {
        return with_passed_descriptors();
    }
    own_process!();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let unix = UnixListener::bind(Folder::new().socket()).unwrap();
    let address = tcp.local_addr().unwrap().to_string();
    let this = child("handed_over_processes::descriptors_of_a_service_manager", &address);
    let mut shell = Command::new("/bin/sh");
    // The shell has the sockets as its input and its output.
    let script = r#"exec 3<&0 4<&1 </dev/null >&2; LISTEN_PID=$$; export LISTEN_PID; exec "$@""#;
    shell.args(["-c", script, "sh"]).arg(this.get_program()).args(this.get_args());
    shell.env(ROLE, &address).env("LISTEN_FDS", "2").env("LISTEN_FDNAMES", "web:admin");
    let child = shell.stdin(OwnedFd::from(tcp)).stdout(OwnedFd::from(unix)).spawn().unwrap();
    Ends(child).well(|| ());
}

fn with_passed_descriptors() {
    let address: SocketAddr = role().unwrap().parse().unwrap();
    let passed = ListenFds::of_process().unwrap();
    assert_eq!((passed.len(), passed.names()), (2, Some(&["web".to_owned(), "admin".to_owned()][..])));
    let open = |program: &mut Command| program.stdin(Stdio::null()).status().unwrap().success();
    let looks = "test ! -e /proc/self/fd/3 && test ! -e /proc/self/fd/4";
    assert!(open(Command::new("/bin/sh").args(["-c", looks])), "a child has inherited a socket");
    let reactor = reactor();
    let on = |text: &str| result_now(server_from_string(&reactor, text).unwrap().listen(|_| Echo));
    let inherited = |text: &str| match on(text).unwrap_err().check() {
        Some(ListenError::Inherited(error)) => error.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(inherited("systemd:index=2"), InheritedError::NoSuchIndex { index: 2, count: 2 });
    assert!(matches!(inherited("systemd:name=mail"), InheritedError::NoSuchName { .. }));
    // A failure gives the descriptor back.
    let failure = on("systemd:UNIX:0").unwrap_err();
    assert!(matches!(failure.check(), Some(ListenError::Adopt(AdoptError::WrongFamily { .. }))), "{failure}");
    let port = on("systemd:domain=INET:index=0").unwrap();
    assert_eq!(port.host(), address.into());
    assert_eq!(inherited("systemd:name=web"), InheritedError::Taken { number: 3 });
    assert_eq!(inherited("fd:3"), InheritedError::Taken { number: 3 });
    answers(&reactor, dial(address));

    let admin = InheritedDescriptor::Name("admin".to_owned());
    let endpoint = AdoptedStreamServerEndpoint::inherited(&reactor, admin.clone());
    let port = result_now(endpoint.listen(|_| Echo)).unwrap();
    assert!(port.host().unix().is_some());
    assert_eq!(admin.take().map(|_| ()), Err(InheritedError::Taken { number: 4 }));
    assert_eq!(inherited("systemd:index=1"), InheritedError::Taken { number: 4 });
}

/// `fd:` takes a socket by its number: here the one that a shell has put there.
#[test]
fn a_descriptor_by_its_number() {
    if let Some(address) = role() {
        let (reactor, address) = (reactor(), address.parse::<SocketAddr>().unwrap());
        let listening = || server_from_string(&reactor, "fd:7:domain=INET").unwrap().listen(|_| Echo);
        let port = result_now(listening()).unwrap();
        assert_eq!(port.host(), address.into());
        answers(&reactor, dial(address));
        let failure = result_now(listening()).unwrap_err();
        let expected = InheritedError::Taken { number: 7 };
        assert!(matches!(failure.check(), Some(ListenError::Inherited(error)) if *error == expected), "{failure}");
        return;
    }
    own_process!();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap().to_string();
    let this = child("handed_over_processes::a_descriptor_by_its_number", &address);
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", r#"exec 7<&0 </dev/null; exec "$@""#, "sh"]).arg(this.get_program()).args(this.get_args());
    let child = shell.env(ROLE, &address).stdin(OwnedFd::from(tcp)).spawn().unwrap();
    Ends(child).well(|| ());
}

/// systemd's own program listens, and starts this one for the first connection.
#[test]
fn socket_activation_by_systemd() {
    if let Some(path) = role() {
        let reactor = reactor();
        let endpoint = server_from_string(&reactor, "systemd:domain=UNIX:name=web").unwrap();
        let log = Log::default();
        let port = result_now(endpoint.listen(echoes(&log))).unwrap();
        assert_eq!(port.host(), UnixAddress::path(path).unwrap().into());
        return run_until(&reactor, || log.is_over());
    }
    own_process!();
    let (folder, this) = (Folder::new(), child("handed_over_processes::socket_activation_by_systemd", ""));
    let mut command = Command::new("systemd-socket-activate");
    command.arg("--listen").arg(folder.socket()).args(["--fdname=web", "--setenv"]);
    command.arg(format!("{ROLE}={}", folder.socket().display()));
    command.arg(this.get_program()).args(this.get_args());
    let Ok(activation) = command.stdin(Stdio::null()).spawn() else {
        return println!("skipped: there is no systemd-socket-activate here");
    };
    let (activation, until) = (Ends(activation), Instant::now() + LIMIT);
    let mut peer = loop {
        match UnixStream::connect(folder.socket()) {
            Ok(peer) => break peer,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        thread::yield_now();
    };
    peer.set_read_timeout(Some(LIMIT)).unwrap();
    peer.write_all(b"hello").unwrap();
    let mut heard = [0; 5];
    peer.read_exact(&mut heard).unwrap();
    assert_eq!(heard, *b"hello");
    drop(peer);
    // It has executed our program in its own place.
    activation.well(|| ());
}

/// Connections of the test below, for each pair of backends.
const CONNECTIONS: usize = 10_000;

/// A port goes from this process to another one while peers connect: none of ten thousand
/// connections is refused, reset or left without its answer, and both processes have served some.
#[test]
fn no_connection_is_lost_when_a_port_moves() {
    if let Some(kind) = role() {
        return new_process(&kind);
    }
    own_process!();
    for old in [BackendKind::Mio, BackendKind::IoUring] {
        for new in ["mio", "io_uring"] {
            match reactor_on(old) {
                Some(reactor) if new == "mio" || ring_reactor().is_some() => move_port(&reactor, new),
                _ => println!("skipped: {NO_BACKEND}"),
            }
        }
    }
}

fn move_port(reactor: &Reactor, new: &str) {
    let served = Rc::new(Cell::new(0));
    let counted = Rc::clone(&served);
    let factory = move |_| Letter(b'o', Rc::clone(&counted));
    let port = reactor.listen_tcp(loopback(), &ListenOptions::new(), factory).unwrap();
    let address = port.host().socket_addr().unwrap();
    let askers = Askers::start(address, b"on", CONNECTIONS);
    let count = |letter| askers.count(letter);
    run_until(reactor, || count(b'o') > CONNECTIONS / 5);

    // The child's standard input is one end of a socket pair, over which it gets the port.
    let (ours, theirs) = UnixStream::pair().unwrap();
    let name = "handed_over_processes::no_connection_is_lost_when_a_port_moves";
    let process = Ends(child(name, new).stdin(OwnedFd::from(theirs)).spawn().unwrap());
    let log = Log::default();
    let adopting = reactor.adopt_stream_connection(ours, &AdoptOptions::new(), once(Script::new(&log))).unwrap();
    let control = result_of(reactor, adopting).unwrap().transport().clone();
    control.send_file_descriptor(port.duplicate().unwrap(), b"p").unwrap();
    run_until(reactor, || log.has("data"));
    // Both accept for a while.
    let before = served.get();
    run_until(reactor, || {
        count(b'n') > CONNECTIONS / 20 && (served.get() > before || count(b'o') + count(b'n') > CONNECTIONS / 2)
    });
    result_of(reactor, port.stop_listening()).unwrap();
    run_until(reactor, || askers.are_done());
    let counts = askers.end();
    control.lose_connection();
    process.well(|| reactor.iterate(Duration::from_millis(1)).unwrap());
    println!("{:?} to {new}: {} by the old process, {} by the new one", reactor.backend(), counts[0], counts[1]);
    assert_eq!(counts[0] + counts[1], CONNECTIONS);
    gets_free(address);
}

/// The new process: adopts the port that comes over its standard input, and serves until that
/// connection ends.
fn new_process(kind: &str) {
    struct Control {
        reactor: Reactor,
        port: Rc<RefCell<Option<ropewalk::Port>>>,
        log: Log,
    }
    impl Protocol for Control {
        fn data_received(&mut self, _transport: &Transport, _data: &[u8]) -> Result<()> {
            Ok(())
        }

        fn file_descriptor_received(&mut self, transport: &Transport, descriptor: OwnedFd) -> Result<()> {
            let served = Rc::new(Cell::new(0));
            let factory = move |_| Letter(b'n', Rc::clone(&served));
            let port = self.reactor.adopt_stream_port(descriptor, &AdoptOptions::new(), factory)?;
            self.port.replace(Some(port));
            transport.write(b"ready");
            Ok(())
        }

        fn connection_lost(&mut self, _transport: &Transport, _reason: &ropewalk::Failure) {
            self.log.add("lost");
        }
    }
    let kind = if kind == "mio" { BackendKind::Mio } else { BackendKind::IoUring };
    let reactor = reactor_on(kind).unwrap();
    let (port, log) = (Rc::<RefCell<Option<ropewalk::Port>>>::default(), Log::default());
    let control = Control { reactor: reactor.clone(), port: Rc::clone(&port), log: log.clone() };
    let input = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let mut control = Some(control);
    let adopting = reactor.adopt_stream_connection(input, &AdoptOptions::new(), move |_| control.take()).unwrap();
    let _connection = result_of(&reactor, adopting).unwrap();
    run_until(&reactor, || log.is_over());
    let port = port.take().expect("the port came");
    result_of(&reactor, port.stop_listening()).unwrap();
    // The circle of reactor and protocol ends here.
    reactor.close().unwrap();
}
