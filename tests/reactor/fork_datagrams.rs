//! F45: forks of a process with datagram ports. A child that was forked before the first turn goes
//! on with them. Nothing that any other child does gets at its parent's sockets, files and locks.

use std::cell::RefCell;
use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::rc::Rc;

use super::fork::{Child, lock_of, path};
use crate::common::*;
use ropewalk::address::UnixAddress;
use ropewalk::datagram::{UdpOptions, UnixDatagramOptions};
use ropewalk::error::{DatagramError, ListenError};
use ropewalk::interfaces::*;
use ropewalk::locks::FilesystemLock;
use ropewalk::{Address, BackendKind, DatagramTransport, Reactor, Result};

/// Logs datagrams and the end, and answers.
struct Answer(Log);

impl DatagramProtocol for Answer {
    fn datagram_received(&mut self, transport: &DatagramTransport, data: &[u8], peer: &Address) -> Result<()> {
        self.0.add(String::from_utf8_lossy(data));
        Ok(transport.write(data, peer)?)
    }

    fn stop_protocol(&mut self, _transport: &DatagramTransport) {
        self.0.add("stopped");
    }
}

/// A reactor with a UDP port and a UNIX port, and a peer for each.
struct Ports {
    log: Log,
    udp: DatagramTransport,
    unix: DatagramTransport,
    file: PathBuf,
    inet: UdpSocket,
    local: UnixDatagram,
}

impl Ports {
    fn new(reactor: &Reactor, name: &str) -> Self {
        let (log, file, own) = (Log::default(), path(name), path(&format!("{name}-peer")));
        let udp = reactor.listen_udp(loopback(), &UdpOptions::new(), Answer(log.clone())).unwrap();
        let options = UnixDatagramOptions::new().want_pid(true);
        let at = UnixAddress::path(&file).unwrap();
        let unix = reactor.listen_unix_datagram(&at, &options, Answer(log.clone())).unwrap();
        let (inet, local) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UnixDatagram::bind(&own).unwrap());
        inet.set_read_timeout(Some(LIMIT)).unwrap();
        local.set_read_timeout(Some(LIMIT)).unwrap();
        Self { log, udp, unix, file, inet, local }
    }

    /// Sends a datagram to each port.
    fn ask(&self, data: &[u8]) {
        self.inet.send_to(data, self.udp.host().socket_addr().unwrap()).unwrap();
        self.local.send_to(data, &self.file).unwrap();
    }

    /// Receives the answers.
    fn are_answered(&self, data: &[u8]) {
        let mut answer = [0; 100];
        let length = self.inet.recv(&mut answer).unwrap();
        assert_eq!(&answer[..length], data);
        let length = self.local.recv(&mut answer).unwrap();
        assert_eq!(&answer[..length], data);
    }

    /// Asserts that both ports of this process work.
    fn are_well(&self, reactor: &Reactor, data: &str) {
        self.ask(data.as_bytes());
        run_until(reactor, || self.log.count(data) == 2);
        self.are_answered(data.as_bytes());
    }
}

impl Drop for Ports {
    fn drop(&mut self) {
        let own = self.local.local_addr().ok().and_then(|own| own.as_pathname().map(PathBuf::from));
        let _ = own.map(std::fs::remove_file);
    }
}

fn on_each(mut test: impl FnMut(Reactor)) {
    for kind in [BackendKind::Mio, BackendKind::IoUring] {
        match reactor_on(kind) {
            Some(reactor) => test(reactor),
            None => println!("skipped on {kind:?}: {NO_BACKEND}"),
        }
    }
}

/// A child that drops its parent's reactor or stops its ports gets at none of them: the file and
/// the lock stay, no callback is called, and the parent receives what comes meanwhile.
#[test]
fn a_child_leaves_the_datagram_ports_of_its_parent_alone() {
    own_process!();
    on_each(|reactor| {
        let ports = Ports::new(&reactor, "datagrams");
        ports.are_well(&reactor, "before");
        let held = Rc::new(RefCell::new(Some(reactor)));
        let child = Child::new(|| {
            let reactor = held.take().unwrap();
            let errors = [ports.udp.write(b"no", &ports.udp.host()), ports.unix.write(b"no", &ports.unix.host())];
            assert!(errors.iter().all(|error| matches!(error, Err(DatagramError::NotListening))), "{errors:?}");
            for port in [&ports.udp, &ports.unix] {
                let failure = port.stop_listening().take_result().unwrap().unwrap_err();
                assert!(matches!(failure.check(), Some(ListenError::ForkedChild)), "{failure}");
            }
            let late = reactor.listen_udp(loopback(), &UdpOptions::new(), Answer(Log::default()));
            assert!(matches!(late, Err(ListenError::ForkedChild)), "{late:?}");
            drop(reactor);
            assert_eq!(ports.log.count("stopped"), 0);
        });
        ports.ask(b"meanwhile");
        child.ends_well(|| ());
        let reactor = held.take().unwrap();
        assert!(ports.file.exists() && FilesystemLock::is_held(lock_of(&ports.file)).unwrap());
        run_until(&reactor, || ports.log.count("meanwhile") == 2);
        ports.are_answered(b"meanwhile");
        ports.are_well(&reactor, "after");
        reactor.close().unwrap();
        assert!(!ports.file.exists() && !lock_of(&ports.file).exists());
    });
}

/// A daemon binds its datagram ports, forks before the first turn, and serves them in the child,
/// which removes the file at its end.
#[test]
fn a_daemon_serves_datagram_ports() {
    own_process!();
    on_each(|reactor| {
        let ports = Ports::new(&reactor, "datagram-daemon");
        let held = Rc::new(RefCell::new(Some(reactor)));
        let child = Child::new(|| {
            let reactor = held.take().unwrap();
            run_until(&reactor, || ports.log.count("hello") == 2);
            let stops = [ports.udp.stop_listening(), ports.unix.stop_listening()];
            for stopped in stops {
                result_of(&reactor, stopped).expect("it stops");
            }
            assert!(!ports.file.exists() && !lock_of(&ports.file).exists(), "they are the child's now");
        });
        ports.ask(b"hello");
        ports.are_answered(b"hello");
        child.ends_well(|| ());
        assert!(ports.log.all().is_empty(), "the parent has received");
        drop(held.take());
    });
}

/// Collects an answer, and forks in the same callback.
struct ForkWhileCollecting;

impl DatagramProtocol for ForkWhileCollecting {
    fn datagram_received(&mut self, transport: &DatagramTransport, data: &[u8], peer: &Address) -> Result<()> {
        transport.write(data, peer)?;
        Child::new(|| {
            let refused = transport.write(b"no", peer);
            assert!(matches!(refused, Err(DatagramError::NotListening)), "{refused:?}");
        })
        .ends_well(|| ());
        Ok(())
    }
}

/// Datagrams that a callback has collected before a fork are sent once, by the parent. In the
/// child, the port takes nothing more.
#[test]
fn a_child_sends_nothing_that_was_collected() {
    own_process!();
    on_each(|reactor| {
        let options = UdpOptions::new().collect_writes(true);
        let port = reactor.listen_udp(loopback(), &options, ForkWhileCollecting).unwrap();
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        peer.set_nonblocking(true).unwrap();
        peer.send_to(b"answer", port.host().socket_addr().unwrap()).unwrap();
        let mut answers = Vec::new();
        let mut receive = || {
            let mut answer = [0; 100];
            while let Ok(length) = peer.recv(&mut answer) {
                answers.push(answer[..length].to_vec());
            }
            answers.len()
        };
        run_until(&reactor, || receive() > 0);
        reactor.close().unwrap();
        assert_eq!((receive(), answers), (1, vec![b"answer".to_vec()]));
    });
}
