//! Limits and policies of a port that the reactors of a group share: one port, on each backend, in
//! both ways of sharing.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::*;
use ropewalk::endpoints::TcpServerEndpoint;
use ropewalk::interfaces::*;
use ropewalk::policies::{ConnectionLimits, ConnectionPolicies, WhenFull};
use ropewalk::reactor::{PortSharing, ReactorGroup};
use ropewalk::{BackendKind, Failure, ListenOptions, Reactor, Result, Transport, for_protocol};

/// Members of each group.
const MEMBERS: usize = 3;

/// The open connections of a group.
#[derive(Default)]
struct Census {
    open: AtomicUsize,
    most: AtomicUsize,
}

impl Census {
    fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}

/// Greets with a byte, and counts itself.
struct Greeter(Arc<Census>);

impl Protocol for Greeter {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        let open = self.0.open.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.most.fetch_max(open, Ordering::SeqCst);
        transport.write(b"!");
        Ok(())
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        transport.write(data);
        Ok(())
    }

    fn connection_lost(&mut self, _transport: &Transport, _reason: &Failure) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A group with these options of its port, and its address.
fn group(
    kind: BackendKind,
    sharing: PortSharing,
    options: &ListenOptions,
    census: &Arc<Census>,
) -> (ReactorGroup, SocketAddr) {
    let (options, census) = (options.clone(), Arc::clone(census));
    let endpoint =
        move |reactor: &Reactor| Ok(TcpServerEndpoint::bind_to(reactor, loopback()).options(options.clone()));
    let group = ReactorGroup::builder()
        .threads(MEMBERS)
        .signals(false)
        .backend(kind)
        .port_sharing(sharing)
        .listen_on("greeters", endpoint, move |_| {
            let census = Arc::clone(&census);
            Ok(for_protocol(move |_| Greeter(Arc::clone(&census))))
        })
        .start()
        .unwrap();
    let address = group.addresses()[0].socket_addr().unwrap();
    (group, address)
}

/// Calls `test` with each backend of this system, and each way of sharing.
fn in_each_way(test: impl Fn(BackendKind, PortSharing)) {
    for kind in [BackendKind::Mio, BackendKind::IoUring].into_iter().filter(|&kind| reactor_on(kind).is_some()) {
        for sharing in [PortSharing::HandOver, PortSharing::ReusePort] {
            let _watchdog = Watchdog::new();
            test(kind, sharing);
        }
    }
}

/// Connects. Returns `None` if the connection is reset instead of greeted. A reset that comes soon
/// is the result of the call that connects.
fn greeted(to: SocketAddr) -> Option<TcpStream> {
    let greeting = TcpStream::connect(to).and_then(|mut stream| {
        stream.set_read_timeout(Some(LIMIT))?;
        stream.read_exact(&mut [0])?;
        Ok(stream)
    });
    match greeting {
        Ok(stream) => Some(stream),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
        Err(error) => panic!("neither a greeting nor a reset: {error}"),
    }
}

/// A full port has its number of connections on all reactors together, never more, and serves those
/// that wait one for one. None is reset.
#[test]
fn a_full_port_pauses_for_the_whole_group() {
    const MOST: usize = 3;
    in_each_way(|kind, sharing| {
        let census = Arc::default();
        let options = ListenOptions::new().limits(ConnectionLimits::new().max_connections(MOST as u32));
        let (group, to) = group(kind, sharing, &options, &census);
        // A connection ends once as many as are permitted are open together.
        let together = Arc::new(Barrier::new(MOST));
        let peers: Vec<_> = (0..MOST * 12)
            .map(|_| {
                let together = Arc::clone(&together);
                let mut stream = dial(to);
                thread::spawn(move || {
                    stream.write_all(b"?").unwrap();
                    stream.read_exact(&mut [0; 2]).expect("a greeting and an echo");
                    together.wait();
                })
            })
            .collect();
        peers.into_iter().for_each(|peer| peer.join().expect("every peer is served"));
        assert_eq!(census.most(), MOST, "on {kind:?} with {sharing:?}");
        assert!(group.remote().members().len() == MEMBERS);
    });
}

/// Connections over the number of a port that sheds, and over that of one peer, are reset,
/// whichever reactor has the others. A freed place can be taken.
#[test]
fn excess_is_reset_for_the_whole_group() {
    in_each_way(|kind, sharing| {
        for limits in [
            ConnectionLimits::new().max_connections(2).when_full(WhenFull::Shed),
            ConnectionLimits::new().max_per_peer(2),
        ] {
            let options = ListenOptions::new().limits(limits);
            let (_group, to) = group(kind, sharing, &options, &Arc::default());
            let mut open: Vec<_> = (0..8).map(|_| greeted(to)).collect();
            let served: Vec<_> = open.iter().map(Option::is_some).collect();
            assert_eq!(served, [true, true, false, false, false, false, false, false], "{kind:?}, {sharing:?}");
            open.truncate(1);
            // The server learns of the end in its own time.
            while greeted(to).is_none() {
                thread::yield_now();
            }
        }
    });
}

/// The connections that are accepted in a second are those of all reactors, and a port that sheds
/// resets the others.
#[test]
fn accepting_is_paced_for_the_whole_group() {
    in_each_way(|kind, sharing| {
        let limits = ConnectionLimits::new().accepts_per_second(1).when_full(WhenFull::Shed);
        let (_group, to) = group(kind, sharing, &ListenOptions::new().limits(limits), &Arc::default());
        let began = Instant::now();
        let served = (0..50).filter(|_| greeted(to).is_some()).count();
        // The burst is one, and a second that has begun may have brought another.
        let most = 2 + usize::try_from(began.elapsed().as_secs()).unwrap();
        assert!((1..=most).contains(&served), "{served} of {most}, {kind:?}, {sharing:?}");
        assert!(served < 50, "none was reset, {kind:?}, {sharing:?}");
    });
}

/// The other policies hold for each connection, on whichever reactor it is.
#[test]
fn silent_peers_of_every_member_are_closed() {
    in_each_way(|kind, sharing| {
        let policies = ConnectionPolicies::new().first_byte(Duration::from_millis(20));
        let (_group, to) = group(kind, sharing, &ListenOptions::new().policies(policies), &Arc::default());
        let peers: Vec<_> = (0..MEMBERS * 4).map(|_| dial(to)).collect();
        for mut peer in peers {
            let mut heard = Vec::new();
            peer.read_to_end(&mut heard).expect("an end, and no reset");
            assert_eq!(heard, b"!", "{kind:?}, {sharing:?}");
        }
    });
}

/// A group stops while its port is full: the open connection ends, those that wait are reset, and
/// none is left.
#[test]
fn a_full_group_stops() {
    in_each_way(|kind, sharing| {
        let options = ListenOptions::new().limits(ConnectionLimits::new().max_connections(1));
        let (group, to) = group(kind, sharing, &options, &Arc::default());
        let mut open = greeted(to).unwrap();
        let waiting: Vec<_> = (0..6).map(|_| dial(to)).collect();
        group.stop();
        assert!(group.join().unwrap().is_success(), "{kind:?}, {sharing:?}");
        assert_eq!(open.read(&mut [0]).unwrap(), 0);
        for mut peer in waiting {
            // A place that the first connection has freed in time is taken.
            let mut heard = Vec::new();
            match peer.read_to_end(&mut heard) {
                Ok(_) => assert_eq!(heard, b"!"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
            }
        }
    });
}
