//! Policies and pauses over real sockets, on each backend.

use std::io::{ErrorKind, Read, Write};
use std::rc::Rc;

use super::*;
use crate::common::*;
use ropewalk::interfaces::*;
use ropewalk::policies::{ConnectionLimits, ConnectionPolicies, Rate, WhenFull};
use ropewalk::{BackendKind, ListenOptions, Reactor};

/// The reactors of this system.
fn reactors() -> Vec<Reactor> {
    [BackendKind::Mio, BackendKind::IoUring].into_iter().filter_map(reactor_on).collect()
}

/// Peers that come while a port is paused wait in the system's queue with what they have sent, and
/// are served when it resumes. So are those that came before, and were not accepted yet.
#[test]
fn a_paused_port_leaves_peers_in_the_queue() {
    for reactor in reactors() {
        let port = reactor.listen_tcp(loopback(), &ListenOptions::new(), |_| Some(Echo)).unwrap();
        let address = port.host().socket_addr().unwrap();
        let mut peers: Vec<_> = (0..20).map(|_| dial(address)).collect();
        assert!(port.pause_accepting());
        peers.extend((0..20).map(|_| dial(address)));
        peers.iter_mut().for_each(|peer| peer.write_all(b"?").unwrap());
        settle(&reactor);
        assert_eq!(reactor.counters().accepted, 0, "{:?}", reactor.backend());
        assert!(port.resume_accepting());
        for peer in &mut peers {
            assert_eq!(read_exact(&reactor, peer, 1), b"?");
        }
        assert_eq!(reactor.counters().accepted, 40);
    }
}

/// A full port takes the next peer when a place is free, again and again.
#[test]
fn a_full_port_takes_one_for_one() {
    for reactor in reactors() {
        let limits = ConnectionLimits::new().max_connections(2);
        let port = reactor.listen_tcp(loopback(), &ListenOptions::new().limits(limits), |_| Some(Echo)).unwrap();
        let address = port.host().socket_addr().unwrap();
        let mut peers: Vec<_> = (0..30).map(|_| dial(address)).collect();
        for mut peer in peers.drain(..) {
            peer.write_all(b"?").unwrap();
            assert_eq!(read_exact(&reactor, &mut peer, 1), b"?");
            assert!(reactor.counters().watched <= 4, "the port, two connections, and one that goes");
        }
        run_until(&reactor, || !port.is_paused());
        assert_eq!((reactor.counters().accepted, reactor.counters().shed), (30, 0), "{:?}", reactor.backend());
    }
}

/// A shedding port resets what is over its number, of one peer too.
#[test]
fn excess_is_reset() {
    for reactor in reactors() {
        for limits in [
            ConnectionLimits::new().max_connections(2).when_full(WhenFull::Shed),
            ConnectionLimits::new().max_per_peer(2),
        ] {
            let shed = reactor.counters().shed;
            let port = reactor.listen_tcp(loopback(), &ListenOptions::new().limits(limits), |_| Some(Echo)).unwrap();
            let address = port.host().socket_addr().unwrap();
            let mut peers: Vec<_> = (0..5).map(|_| dial(address)).collect();
            run_until(&reactor, || reactor.counters().shed == shed + 3);
            for peer in &mut peers[..2] {
                peer.write_all(b"?").unwrap();
                assert_eq!(read_exact(&reactor, peer, 1), b"?");
            }
            for peer in &mut peers[2..] {
                assert_eq!(peer.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
            }
        }
    }
}

/// Throttled bytes arrive whole and in order over sockets.
#[test]
fn rates_lose_nothing() {
    for reactor in reactors() {
        let rate = Rate::bytes_per_second(4_000_000).burst(10_000);
        let options = ListenOptions::new().policies(ConnectionPolicies::new().rate(rate).idle(SECOND * 60));
        let port = reactor.listen_tcp(loopback(), &options, |_| Some(Echo)).unwrap();
        let address = port.host().socket_addr().unwrap();
        let talker = peer(address, |mut stream| {
            let mut reader = stream.try_clone().unwrap();
            let data: Vec<u8> = (0..400_000_u32).map(|place| (place % 249) as u8).collect();
            let expected = data.clone();
            let writer = std::thread::spawn(move || stream.write_all(&data).unwrap());
            let mut heard = vec![0; expected.len()];
            reader.read_exact(&mut heard).unwrap();
            writer.join().unwrap();
            heard == expected
        });
        assert!(run_beside(&reactor, talker), "{:?}", reactor.backend());
    }
}

/// A silent peer, and one that trickles too slowly for its lifetime, are closed by the clock of the
/// reactor. The test waits for the ends, not for a time.
#[test]
fn slow_peers_are_closed() {
    for reactor in reactors() {
        for policies in [
            ConnectionPolicies::new().first_byte(Duration::from_millis(20)),
            ConnectionPolicies::new().idle(Duration::from_millis(20)),
            ConnectionPolicies::new().lifetime(Duration::from_millis(20)),
        ] {
            let reason = Rc::default();
            let place = Rc::clone(&reason);
            let factory = move |_| Some(Script::new(&Log::default()).reason_into(&place));
            let port = reactor.listen_tcp(loopback(), &ListenOptions::new().policies(policies), factory).unwrap();
            let mut silent = dial(port.host().socket_addr().unwrap());
            assert_eq!(read_to_end(&reactor, &mut silent), Ok(Vec::new()));
            assert_eq!(limit_of(reason.take()).1, Duration::from_millis(20));
        }
    }
}

/// Descriptors pass over a UNIX socket under policies, each with the byte that it is bound to.
#[test]
fn descriptors_pass_at_a_rate() {
    use ropewalk::reactor::UnixListenOptions;
    use std::os::fd::OwnedFd;

    struct Giver;
    impl Protocol for Giver {
        fn connection_made(&mut self, transport: &ropewalk::Transport) -> ropewalk::Result<()> {
            transport.write(&[b'.'; 500]);
            for _ in 0..3 {
                let file = std::fs::File::open("/proc/self/exe")?;
                transport.send_file_descriptor(file.into(), b"file")?;
                transport.write(&[b'.'; 300]);
            }
            transport.lose_connection();
            Ok(())
        }
        fn data_received(&mut self, _: &ropewalk::Transport, _: &[u8]) -> ropewalk::Result<()> {
            Ok(())
        }
    }

    #[derive(Default)]
    struct Taker(Rc<std::cell::RefCell<Vec<u8>>>, Rc<std::cell::Cell<usize>>, Rc<std::cell::Cell<bool>>);
    impl Protocol for Taker {
        fn data_received(&mut self, _: &ropewalk::Transport, data: &[u8]) -> ropewalk::Result<()> {
            self.0.borrow_mut().extend_from_slice(data);
            Ok(())
        }
        fn file_descriptor_received(&mut self, _: &ropewalk::Transport, descriptor: OwnedFd) -> ropewalk::Result<()> {
            // Everything in front of the descriptor's byte is here already.
            assert!(self.0.borrow().len() <= 500 + self.1.get() * 304);
            self.1.set(self.1.get() + 1);
            drop(descriptor);
            Ok(())
        }
        fn connection_lost(&mut self, _: &ropewalk::Transport, _: &ropewalk::Failure) {
            self.2.set(true);
        }
    }

    for reactor in reactors() {
        let name = unix_name();
        let rate = Rate::bytes_per_second(20_000).burst(64);
        let options = UnixListenOptions::new().policies(ConnectionPolicies::new().send_rate(rate));
        let port = reactor.listen_unix(&name, &options, |_| Some(Giver)).unwrap();
        let (bytes, files, over) = Default::default();
        let taker = Taker(Rc::clone(&bytes), Rc::clone(&files), Rc::clone(&over));
        let mut taker = Some(taker);
        let connecting = reactor.connect_unix(&name, &Default::default(), move |_| taker.take());
        connecting.or_log("connecting");
        run_until(&reactor, || over.get());
        assert_eq!((bytes.borrow().len(), files.get()), (500 + 3 * 304, 3), "{:?}", reactor.backend());
        drop(port.stop_listening());
    }
}
