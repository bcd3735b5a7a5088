//! Tests the kernel directly, without an engine: it behaves as Linux does.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::{Kernel, Owner, Sharing, SimulatedRefusal, SocketId};
use crate::address::{Address, UnixAddress};
use crate::testing::Conditions;

const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));

/// Two hosts, and a listener on the second.
struct World {
    kernel: Kernel,
    listener: SocketId,
    to: Address,
}

impl World {
    fn new(conditions: Conditions) -> Self {
        Self::listening(conditions, SocketAddr::new(PEER, 7).into())
    }

    /// Connects over UNIX sockets, on one host.
    fn unix() -> Self {
        Self::unix_with(Conditions::ideal())
    }

    fn unix_with(conditions: Conditions) -> Self {
        Self::listening(conditions, UnixAddress::abstract_name("name").expect("a name").into())
    }

    fn listening(conditions: Conditions, to: Address) -> Self {
        let mut kernel = Kernel::new(1, conditions);
        kernel.add_host(HOST);
        kernel.add_host(PEER);
        let host = if to.unix().is_some() { HOST } else { PEER };
        let listener = kernel.listen(Owner(2), host, &to, 128, Sharing::default()).expect("a port").0;
        Self { kernel, listener, to }
    }

    /// Handles all events that are due by now.
    fn settle(&mut self) {
        self.pass(Duration::ZERO);
    }

    fn pass(&mut self, time: Duration) {
        let until = self.kernel.now + time;
        self.kernel.advance_to(until);
    }

    fn ask(&mut self, from: Option<SocketAddr>) -> Result<SocketId, SimulatedRefusal> {
        let to = self.to.clone();
        self.kernel.connect(Owner(1), HOST, &to, from, Sharing::default())
    }

    /// Connects, and returns both ends: the asking one, and the accepted one.
    fn connect(&mut self, from: Option<SocketAddr>) -> (SocketId, SocketId) {
        let Ok(attempt) = self.ask(from) else { panic!("it can be asked for") };
        self.settle();
        let Some(super::News::Connected(asking, _)) = self.kernel.news(attempt) else { panic!("it is made") };
        let Some(super::News::Accepted { stream, .. }) = self.kernel.news(self.listener) else { panic!("it waits") };
        (asking, stream)
    }

    fn port(&mut self, id: SocketId) -> u16 {
        self.kernel.stream(id).and_then(|stream| stream.local.port()).expect("it has a port")
    }

    fn close(&mut self, id: SocketId) {
        self.kernel.close(id, false);
        self.settle();
    }

    /// Makes `port` the next ephemeral port to be tried.
    fn wrap_around_to(&mut self, port: u16) {
        self.kernel.hosts.get_mut(&HOST).expect("it is there").next_port = port;
    }
}

#[track_caller]
fn assert_unavailable(refusal: Result<SocketId, SimulatedRefusal>) {
    let Err(SimulatedRefusal::Bind(error)) = refusal else { panic!("it was asked for") };
    assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
}

/// Four-tuples are unique: a port chosen for one connection is not chosen for another to the same
/// peer while that exists, nor for 60 s after it if its end has closed first.
#[test]
fn four_tuples_are_unique() {
    let mut world = World::new(Conditions::ideal());
    let (first, served) = world.connect(None);
    let port = world.port(first);
    world.wrap_around_to(port);
    let (second, _) = world.connect(None);
    assert_eq!(world.port(second), port + 1);
    // The asking end closes first, and so holds the four-tuple in TIME_WAIT.
    world.close(first);
    world.close(served);
    world.wrap_around_to(port);
    let (third, _) = world.connect(None);
    assert_eq!(world.port(third), port + 2);
    world.pass(Duration::from_secs(60));
    world.wrap_around_to(port);
    let (fourth, _) = world.connect(None);
    assert_eq!(world.port(fourth), port);
}

/// A fixed port reaches one peer once, and is free again when the other end has closed first, or
/// after 60 s.
#[test]
fn a_fixed_port_waits() {
    let mut world = World::new(Conditions::ideal());
    let from = Some(SocketAddr::new(HOST, 4000));
    let (first, served) = world.connect(from);
    assert_unavailable(world.ask(from));
    world.close(served);
    assert_unavailable(world.ask(from));
    world.close(first);
    let (second, served) = world.connect(from);
    world.close(second);
    world.close(served);
    assert_unavailable(world.ask(from));
    world.pass(Duration::from_secs(59));
    assert_unavailable(world.ask(from));
    world.pass(Duration::from_secs(1));
    world.connect(from);
}

/// A reset leaves no four-tuple in TIME_WAIT.
#[test]
fn a_reset_frees_the_four_tuple() {
    let mut world = World::new(Conditions::ideal());
    let from = Some(SocketAddr::new(HOST, 4000));
    let (first, served) = world.connect(from);
    world.kernel.close(first, true);
    world.settle();
    world.close(served);
    world.connect(from);
}

/// A port of a listener is in use for a connection, and a port shared by connections is not in use
/// for a listener.
#[test]
fn ports_of_listeners_and_connections() {
    let mut world = World::new(Conditions::ideal());
    let address = SocketAddr::new(HOST, 4000);
    let listener = world.kernel.listen(Owner(1), HOST, &address.into(), 1, Sharing::default()).expect("it is free").0;
    let Err(SimulatedRefusal::Bind(error)) = world.ask(Some(address)) else { panic!("it is in use") };
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    world.kernel.close(listener, false);
    world.connect(Some(address));
    let other = SocketAddr::new(PEER, 8).into();
    world.kernel.listen(Owner(2), PEER, &other, 1, Sharing::default()).expect("it is free");
    assert!(world.kernel.connect(Owner(1), HOST, &other, Some(address), Sharing::default()).is_ok(), "another peer");
}

/// One operation of a program on a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    Send,
    /// Receives until there are no more news.
    Receive,
    /// Polls without receiving, as a poller does while reading is paused.
    Pause,
}

/// The way in which the peer closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goes {
    /// Sends, and closes with unread bytes.
    Unread,
    /// Sends, and resets with unread bytes.
    Aborts,
    /// Sends, and closes.
    Closes,
    /// Ends its direction, and then closes with unread bytes.
    EndsThenUnread,
}

/// Collects the system's answers to a program whose peer sends `hello` and closes.
fn answers(unix: bool, goes: Goes, asks: &[Ask]) -> Vec<String> {
    let mut world = if unix { World::unix() } else { World::new(Conditions::ideal()) };
    let (ours, theirs) = world.connect(None);
    if goes != Goes::Closes {
        world.kernel.send(ours, b"unread").expect("it is open");
    }
    world.kernel.send(theirs, b"hello").expect("it is open");
    if goes == Goes::EndsThenUnread {
        world.kernel.shut_down(theirs);
    }
    world.settle();
    world.kernel.close(theirs, goes == Goes::Aborts);
    world.settle();
    let mut answers = Vec::new();
    for ask in asks {
        world.kernel.stream(ours).expect("it is open").receiving = *ask == Ask::Receive;
        if *ask == Ask::Send {
            answers.push(match world.kernel.send(ours, b"x") {
                Ok(count) => count.to_string(),
                Err(error) => format!("{:?}", error.kind()),
            });
        } else {
            while let Some(news) = world.kernel.news(ours) {
                answers.push(match news {
                    super::News::Received(count) => {
                        let mut into = vec![0; count];
                        world.kernel.read(ours, &mut into);
                        String::from_utf8(into).expect("it is text")
                    }
                    super::News::Broken { kind, .. } => format!("{kind:?}"),
                    news => format!("{news:?}"),
                });
            }
        }
        world.settle();
    }
    world.kernel.check_faults();
    answers
}

/// F09, F11: errors after a peer's close are those of Linux over the loopback interface. Arrived
/// bytes stay, and an error is reported once, by the first operation.
#[test]
fn errors_are_told_once_and_bytes_stay() {
    use Ask::{Pause, Receive, Send};
    let all: [(bool, Goes, &[Ask], &[&str]); 14] = [
        (
            false,
            Goes::Unread,
            &[Send, Send, Receive, Send],
            &["ConnectionReset", "BrokenPipe", "hello", "EndOfStream", "BrokenPipe"],
        ),
        (false, Goes::Unread, &[Receive, Send, Receive], &["hello", "ConnectionReset", "BrokenPipe"]),
        (false, Goes::Unread, &[Pause, Receive, Send], &["ConnectionReset", "hello", "EndOfStream", "BrokenPipe"]),
        (false, Goes::Aborts, &[Send, Receive, Send], &["ConnectionReset", "hello", "EndOfStream", "BrokenPipe"]),
        (false, Goes::Aborts, &[Receive, Send], &["hello", "ConnectionReset", "BrokenPipe"]),
        (false, Goes::Closes, &[Send, Send, Receive], &["1", "BrokenPipe", "hello", "EndOfStream"]),
        (false, Goes::Closes, &[Send, Receive], &["1", "hello", "EndOfStream", "BrokenPipe"]),
        (false, Goes::EndsThenUnread, &[Receive, Send], &["hello", "EndOfStream", "BrokenPipe", "BrokenPipe"]),
        (false, Goes::EndsThenUnread, &[Send, Send, Receive], &["BrokenPipe", "BrokenPipe", "hello", "EndOfStream"]),
        (true, Goes::Unread, &[Send, Send, Receive], &["BrokenPipe", "BrokenPipe", "hello", "ConnectionReset"]),
        (true, Goes::Unread, &[Receive, Send], &["hello", "ConnectionReset", "BrokenPipe"]),
        (true, Goes::Unread, &[Pause, Receive], &["ConnectionReset", "hello", "EndOfStream"]),
        (
            true,
            Goes::Closes,
            &[Send, Send, Receive],
            &["BrokenPipe", "BrokenPipe", "hello", "EndOfStream", "BrokenPipe"],
        ),
        (true, Goes::Closes, &[Receive, Send], &["hello", "EndOfStream", "BrokenPipe", "BrokenPipe"]),
    ];
    for (unix, goes, asks, expected) in all {
        assert_eq!(answers(unix, goes, asks), expected, "unix {unix}, {goes:?}, {asks:?}");
    }
}

/// Connections that were not accepted are reset when their listener closes, over UNIX sockets too.
#[test]
fn waiting_connections_are_reset_with_their_listener() {
    for mut world in [World::new(Conditions::ideal()), World::unix()] {
        let Ok(attempt) = world.ask(None) else { panic!("it can be asked for") };
        world.settle();
        let Some(super::News::Connected(ours, _)) = world.kernel.news(attempt) else { panic!("it is made") };
        world.kernel.close(world.listener, false);
        world.settle();
        world.kernel.stream(ours).expect("it is open").receiving = true;
        let told = world.kernel.news(ours);
        assert!(
            matches!(told, Some(super::News::Broken { kind: ErrorKind::ConnectionReset, rest: false })),
            "{told:?}"
        );
    }
}

/// Collects the news of a stream that receives from now on, chunk by chunk.
fn pieces(world: &mut World, id: SocketId) -> Vec<String> {
    world.kernel.stream(id).expect("it is open").receiving = true;
    let mut pieces = Vec::new();
    while let Some(news) = world.kernel.news(id) {
        match news {
            super::News::Received(count) => {
                let mut into = vec![0; count];
                let count = world.kernel.read(id, &mut into);
                pieces.push(String::from_utf8_lossy(&into[..count]).into_owned());
            }
            news => pieces.push(format!("{news:?}")),
        }
    }
    world.kernel.check_faults();
    pieces
}

/// A receive stops at an urgent byte, and the next one goes on behind it. The byte is no part of
/// the stream, unless another one overtakes it.
#[test]
fn a_receive_stops_at_an_urgent_byte() {
    // Exclamation and question marks are sent out of band.
    let all: [(&str, &[&str]); 6] = [
        ("abc!def", &["abc", "def"]),
        ("!def", &["def"]),
        ("abc!", &["abc"]),
        ("abc!de?fg", &["abc!de", "fg"]),
        ("abc!?fg", &["abc!", "fg"]),
        ("!", &[]),
    ];
    for (sent, expected) in all {
        let mut world = World::new(Conditions::ideal());
        let (ours, theirs) = world.connect(None);
        for byte in sent.bytes() {
            let count = match byte {
                b'!' | b'?' => world.kernel.send_urgent(theirs, byte),
                byte => world.kernel.send(theirs, &[byte]),
            };
            assert_eq!(count.expect("it is open"), 1);
        }
        world.settle();
        assert_eq!(pieces(&mut world, ours), expected, "{sent}");
        world.kernel.shut_down(theirs);
        world.settle();
        assert_eq!(pieces(&mut world, ours), ["EndOfStream"], "{sent}");
    }
}

/// Dropping bytes before a close goes on behind an urgent byte, so that the close is no reset.
#[test]
fn a_close_reads_past_an_urgent_byte() {
    let mut world = World::new(Conditions::ideal());
    let (ours, theirs) = world.connect(None);
    world.kernel.send(theirs, b"abc").expect("it is open");
    world.kernel.send_urgent(theirs, b'!').expect("it is open");
    world.kernel.send(theirs, b"def").expect("it is open");
    world.settle();
    world.kernel.discard(ours, 1024);
    world.close(ours);
    assert_eq!(pieces(&mut world, theirs), ["EndOfStream"]);
}

/// Returns the milliseconds until `count` bytes have arrived at a socket.
fn arrived(world: &mut World, id: SocketId, count: usize) -> u128 {
    let start = world.kernel.now;
    world.settle();
    while world.kernel.state(id).0 < count {
        let next = world.kernel.next_event().expect("they are under way");
        world.kernel.advance_to(next);
    }
    (world.kernel.now - start).as_millis()
}

/// Nagle's algorithm holds a partial segment while earlier bytes are not acknowledged, and the
/// acknowledgement is 40 ms late.
#[test]
fn small_segments_are_held() {
    type Does = fn(&mut World, SocketId, SocketId);
    let two: Does = |world, ours, _| {
        world.kernel.send(ours, b"a").expect("it is open");
        world.kernel.send(ours, b"b").expect("it is open");
    };
    let all: [(&str, bool, Does, usize, u128); 7] = [
        ("two small ones", true, two, 2, 40),
        ("without it", false, two, 2, 0),
        ("a single one", true, |world, ours, _| drop(world.kernel.send(ours, b"a")), 1, 0),
        (
            "an end behind them",
            true,
            |world, ours, _| {
                world.kernel.send(ours, b"a").expect("it is open");
                world.kernel.send(ours, b"b").expect("it is open");
                world.kernel.shut_down(ours);
            },
            2,
            0,
        ),
        (
            "turned off when they wait",
            true,
            |world, ours, _| {
                world.kernel.send(ours, b"a").expect("it is open");
                world.kernel.send(ours, b"b").expect("it is open");
                world.kernel.set_no_delay(ours, true);
            },
            2,
            0,
        ),
        (
            "an answer between them",
            true,
            |world, ours, theirs| {
                world.kernel.send(ours, b"a").expect("it is open");
                world.settle();
                world.kernel.send(theirs, b"answer").expect("it is open");
                world.kernel.send(ours, b"b").expect("it is open");
            },
            2,
            0,
        ),
        (
            "two full segments ahead",
            true,
            |world, ours, _| {
                world.kernel.send(ours, &[b'a'; 2 * 1460 + 1]).expect("it is open");
            },
            2 * 1460 + 1,
            0,
        ),
    ];
    for (what, nagle, does, count, expected) in all {
        let mut world = World::new(Conditions::ideal().nagle(nagle));
        let (ours, theirs) = world.connect(None);
        does(&mut world, ours, theirs);
        assert_eq!(arrived(&mut world, theirs, count), expected, "{what}");
        // UNIX sockets do nothing of the kind.
        let mut world = World::unix_with(Conditions::ideal().nagle(nagle));
        let (ours, theirs) = world.connect(None);
        does(&mut world, ours, theirs);
        assert_eq!(arrived(&mut world, theirs, count), 0, "{what}");
    }
}
