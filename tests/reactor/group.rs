//! Groups of reactors: one port, several threads. `group_ends.rs` has starts that fail, and stops.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::common::*;
use ropewalk::endpoints::ServerEndpoint;
use ropewalk::error::GroupError;
use ropewalk::interfaces::*;
use ropewalk::protocol::BoxedFactory;
use ropewalk::reactor::{GroupBuilder, Member, PortSharing, ReactorGroup};
use ropewalk::{BackendKind, Deferred, Failure, Port, Reactor, Result, Transport, for_protocol};

pub(crate) const ANY_PORT: &str = "tcp:0:interface=127.0.0.1";

/// The backends that the system has.
pub(crate) fn backends() -> impl Iterator<Item = BackendKind> {
    [BackendKind::Mio, BackendKind::IoUring].into_iter().filter(|&kind| reactor_on(kind).is_some())
}

/// A group that leaves the signals of the test process alone.
pub(crate) fn group(threads: usize) -> GroupBuilder {
    ReactorGroup::builder().threads(threads).signals(false)
}

/// Answers with the index of its member, counts, and echoes.
pub(crate) struct Counting {
    member: u8,
    served: Arc<Vec<AtomicUsize>>,
}

impl Protocol for Counting {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        self.served[usize::from(self.member)].fetch_add(1, Ordering::Relaxed);
        transport.write(&[self.member]);
        Ok(())
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        transport.write(data);
        Ok(())
    }
}

pub(crate) fn counters(members: usize) -> Arc<Vec<AtomicUsize>> {
    Arc::new((0..members).map(|_| AtomicUsize::new(0)).collect())
}

fn counts(served: &[AtomicUsize]) -> Vec<usize> {
    served.iter().map(|count| count.load(Ordering::Relaxed)).collect()
}

/// A factory for each member, whose protocols count.
pub(crate) fn counting(
    served: &Arc<Vec<AtomicUsize>>,
) -> impl Fn(&Member) -> Result<Box<dyn Factory<Protocol = Counting>>> + Send + Sync + use<> {
    let served = Arc::clone(served);
    move |member| {
        let (member, served) = (u8::try_from(member.index())?, Arc::clone(&served));
        Ok(Box::new(for_protocol(move |_| Counting { member, served: Arc::clone(&served) })))
    }
}

pub(crate) fn inet(group: &ReactorGroup, port: usize) -> SocketAddr {
    group.addresses()[port].socket_addr().expect("a TCP port")
}

/// Connects, and returns the connection with the index of the member that serves it.
pub(crate) fn greeted(to: SocketAddr) -> (TcpStream, u8) {
    let mut stream = dial(to);
    let mut member = [0];
    stream.read_exact(&mut member).expect("a greeting");
    (stream, member[0])
}

pub(crate) fn echo(stream: &mut (impl Read + Write), message: &[u8]) {
    stream.write_all(message).unwrap();
    let mut answer = vec![0; message.len()];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, message);
}

pub(crate) fn read_rest(mut stream: TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("the end, and no reset");
    rest
}

/// Each reactor of a group serves the one port, on a thread of its own. Handed over, open
/// connections are even to the last one.
#[test]
fn one_port_is_served_by_every_member() {
    let _watchdog = Watchdog::new();
    for backend in backends() {
        for sharing in [PortSharing::HandOver, PortSharing::ReusePort] {
            let served = counters(3);
            let (named, names) = mpsc::channel();
            let group = group(3)
                .backend(backend)
                .port_sharing(sharing)
                .name("echo")
                .setup(move |member| {
                    assert_eq!((member.count(), member.reactor().backend()), (3, backend));
                    assert!(member.group().members().is_empty(), "the group has not started");
                    named.send((member.index(), thread::current().name().unwrap().to_owned()))?;
                    Ok(())
                })
                .listen(ANY_PORT, counting(&served))
                .listen("tcp:0:interface=127.0.0.1:backlog=16", counting(&served))
                .start()
                .unwrap();
            let names: Vec<_> = names.iter().take(3).collect();
            assert_eq!(names, [(0, "echo-0".into()), (1, "echo-1".into()), (2, "echo-2".into())]);
            assert_eq!(group.remote().members().len(), 3);
            assert_ne!(group.addresses()[0], group.addresses()[1]);
            let mut open = Vec::new();
            for number in 0..30 {
                let (mut stream, member) = greeted(inet(&group, number % 2));
                echo(&mut stream, b"hello");
                open.push((stream, member));
            }
            assert_eq!(counts(&served).iter().sum::<usize>(), 30);
            if sharing == PortSharing::HandOver {
                assert_eq!(counts(&served), [10; 3], "on {backend:?}");
            }
            group.stop();
            for (stream, _) in open {
                assert_eq!(read_rest(stream), b"");
            }
            assert!(group.join().unwrap().is_success());
        }
    }
}

/// A connection that closes makes room: the next one goes to the member that has the fewest.
#[test]
fn the_next_connection_goes_where_the_fewest_are() {
    let _watchdog = Watchdog::new();
    let served = counters(2);
    let (closed, ends) = mpsc::channel();
    let group = group(2).listen(ANY_PORT, closing(&served, closed)).start().unwrap();
    let mut open: Vec<_> = (0..6).map(|_| greeted(inet(&group, 0))).collect();
    // The three of member 1 close.
    open.retain(|(_, member)| *member == 0);
    (0..3).for_each(|_| ends.recv_timeout(LIMIT).unwrap());
    let members: Vec<u8> = (0..3)
        .map(|_| greeted(inet(&group, 0)))
        .map(|(stream, member)| {
            open.push((stream, member));
            member
        })
        .collect();
    assert_eq!(members, [1, 1, 1]);
}

/// Counts, and reports when a socket of its connections was closed by the reactor.
fn closing(
    served: &Arc<Vec<AtomicUsize>>,
    closed: Sender<()>,
) -> impl Fn(&Member) -> Result<Box<dyn Factory<Protocol = Reporting>>> + Send + Sync + use<> {
    let served = Arc::clone(served);
    move |member| {
        let (member, served, closed) = (u8::try_from(member.index())?, Arc::clone(&served), closed.clone());
        let counting = move || Counting { member, served: Arc::clone(&served) };
        Ok(Box::new(for_protocol(move |_| Reporting { inner: counting(), closed: closed.clone() })))
    }
}

struct Reporting {
    inner: Counting,
    closed: Sender<()>,
}

impl Protocol for Reporting {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        self.inner.connection_made(transport)
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        self.inner.data_received(transport, data)
    }

    fn connection_lost(&mut self, transport: &Transport, _reason: &Failure) {
        // Not before the turn in which the connection is released.
        let closed = self.closed.clone();
        transport.timers().call_later(Duration::from_millis(1), move || closed.send(()).unwrap());
    }
}

/// 10,000 short connections from several threads: each is served once, by some member, in both ways
/// of sharing.
#[test]
fn short_connections_are_all_served() {
    const PEERS: usize = 4;
    const EACH: usize = 2_500;
    for backend in backends() {
        for sharing in [PortSharing::HandOver, PortSharing::ReusePort] {
            let _watchdog = Watchdog::new();
            let served = counters(3);
            let group =
                group(3).backend(backend).port_sharing(sharing).listen(ANY_PORT, counting(&served)).start().unwrap();
            let to = inet(&group, 0);
            let peers: Vec<_> = (0..PEERS)
                .map(|_| {
                    thread::spawn(move || {
                        for _ in 0..EACH {
                            let (mut stream, _) = greeted(to);
                            echo(&mut stream, b"x");
                            // Without a reset the port numbers of this host would run out.
                            reset_on_close(&stream);
                        }
                    })
                })
                .collect();
            peers.into_iter().for_each(|peer| peer.join().expect("every connection is served"));
            println!("{backend:?}, {sharing:?}: {:?}", counts(&served));
            assert_eq!(counts(&served).iter().sum::<usize>(), PEERS * EACH);
            assert!(counts(&served).iter().all(|&count| count > 0));
            drop(group);
        }
    }
}

/// UNIX sockets and sockets that the program has handed over are shared, too.
#[test]
fn unix_sockets_and_adopted_ports_are_shared() {
    let _watchdog = Watchdog::new();
    let path = std::env::temp_dir().join(format!("ropewalk-group-{}.sock", std::process::id()));
    let listener = TcpListener::bind(loopback()).unwrap();
    let address = listener.local_addr().unwrap();
    let adopted = Arc::new(Mutex::new(Some(listener)));
    for backend in backends() {
        let served = counters(2);
        let adopted = Arc::clone(&adopted);
        let group = group(2)
            .backend(backend)
            .listen(&format!("unix:{}:lockfile=0", path.display()), counting(&served))
            .start()
            .unwrap();
        let mut members: Vec<u8> = Vec::new();
        let mut open: Vec<UnixStream> = Vec::new();
        for _ in 0..2 {
            let mut stream = UnixStream::connect(&path).unwrap();
            let mut member = [0];
            stream.read_exact(&mut member).unwrap();
            members.push(member[0]);
            echo(&mut stream, b"hello");
            open.push(stream);
        }
        assert_eq!(members, [0, 1]);
        drop((group, adopted));
        assert!(!path.exists(), "the file goes with the group");
    }
    let served = counters(2);
    // The first reactor that is asked has the descriptor: that of the group.
    let endpoint = move |reactor: &Reactor| Ok(Once { reactor: reactor.clone(), socket: Arc::clone(&adopted) });
    let group = group(2).listen_on("a handed socket", endpoint, counting(&served)).start().unwrap();
    assert_eq!(inet(&group, 0), address);
    let open = [greeted(address), greeted(address)];
    assert_eq!(open.map(|(_, member)| member), [0, 1]);
}

/// An endpoint on a socket that exists once.
#[derive(Debug)]
struct Once {
    reactor: Reactor,
    socket: Arc<Mutex<Option<TcpListener>>>,
}

impl ServerEndpoint for Once {
    fn listen_boxed(&self, factory: BoxedFactory) -> Deferred<Port> {
        // A member needs no socket: any will do, and is closed.
        let socket = self.socket.lock().unwrap().take();
        let socket = socket.unwrap_or_else(|| TcpListener::bind(loopback()).unwrap());
        let options = ropewalk::reactor::AdoptOptions::new();
        Deferred::with_result(
            self.reactor.adopt_stream_port_boxed(socket.into(), &options, factory).map_err(Into::into),
        )
    }
}

/// The ports of a group move to another one, as to another process: no moment without a listener,
/// and the file of a UNIX socket stays.
#[test]
fn a_port_moves_to_another_group() {
    let _watchdog = Watchdog::new();
    let served = counters(2);
    let path = std::env::temp_dir().join(format!("ropewalk-moves-{}.sock", std::process::id()));
    let unix = format!("unix:{}:lockfile=0", path.display());
    let old = group(2).listen(ANY_PORT, counting(&served)).listen(&unix, counting(&served)).start().unwrap();
    let to = inet(&old, 0);
    let (mut open, _) = greeted(to);
    let socket = |port| old.remote().with_port(port, |port| Ok(port.duplicate()?)).unwrap();
    let moved = |socket: std::os::fd::OwnedFd| {
        let socket = Arc::new(Mutex::new(Some(TcpListener::from(socket))));
        move |reactor: &Reactor| Ok(Once { reactor: reactor.clone(), socket: Arc::clone(&socket) })
    };
    let new = group(2)
        .listen_on("TCP", moved(socket(0)), counting(&served))
        .listen_on("UNIX", moved(socket(1)), counting(&served))
        .start()
        .unwrap();
    assert_eq!(new.addresses(), old.addresses());
    old.remote().with_port(1, |port| Ok(port.leave_socket_file()?)).unwrap();
    let failure = old.remote().with_port(2, |_| Ok(())).unwrap_err();
    assert!(matches!(failure.check(), Some(GroupError::NoPort { port: 2 })), "{failure}");
    echo(&mut open, b"still served");
    assert!(old.remote().with_port(0, |port| Ok(port.is_listening())).unwrap());
    drop(old);
    assert_eq!(read_rest(open), b"");
    drop(greeted(to));
    UnixStream::connect(&path).unwrap().read_exact(&mut [0]).unwrap();
    drop(new);
    std::fs::remove_file(&path).unwrap();
    let reuse = group(1).port_sharing(PortSharing::ReusePort).listen(ANY_PORT, counting(&served)).start().unwrap();
    assert!(reuse.remote().with_port(0, |_| Ok(())).is_err());
}

/// The handles of a group are for any thread.
#[test]
fn handles_are_for_any_thread() {
    fn is_for_any_thread<T: Send + Sync + 'static>() {}
    is_for_any_thread::<ReactorGroup>();
    is_for_any_thread::<ropewalk::reactor::GroupRemote>();
    is_for_any_thread::<ropewalk::reactor::RemoteConnection<std::rc::Rc<()>>>();
}

/// TLS is begun by the member that serves the connection, from the certificate that it has read.
#[cfg(feature = "tls")]
#[test]
fn tls_is_shared() {
    use crate::common::tls::usual;
    use ropewalk::endpoints::{TcpClientEndpoint, server_from_string, wrap_client_tls, wrap_server_tls};

    for sharing in [PortSharing::HandOver, PortSharing::ReusePort] {
        let served = counters(2);
        let (_authority, client, server) = usual();
        let endpoint =
            move |reactor: &Reactor| Ok(wrap_server_tls(server.clone(), server_from_string(reactor, ANY_PORT)?));
        let group = group(2).port_sharing(sharing).listen_on("TLS", endpoint, counting(&served)).start().unwrap();
        let (reactor, log) = (reactor(), Log::default());
        let endpoint = wrap_client_tls(client, TcpClientEndpoint::new(&reactor, inet(&group, 0)));
        let received = std::rc::Rc::default();
        let connecting = endpoint.connect(once(Script::new(&log).into_buffer(&received)));
        let connection = result_of(&reactor, connecting).unwrap();
        connection.transport().write(b"hello");
        run_until(&reactor, || received.borrow().len() == 6);
        assert!(received.borrow().ends_with(b"hello"));
        drop(group);
        run_until(&reactor, || log.is_over());
    }
}
