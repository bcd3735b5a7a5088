//! That the kernel does what Linux does, asked directly: nothing of an engine is in these tests.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::{Kernel, Owner, Refusal, SocketId};
use crate::address::Address;
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
        let mut kernel = Kernel::new(1, conditions);
        kernel.add_host(HOST);
        kernel.add_host(PEER);
        let to = SocketAddr::new(PEER, 7).into();
        let listener = kernel.listen(Owner(2), PEER, &to, 128).expect("a port").0;
        Self { kernel, listener, to }
    }

    /// Lets everything happen that is due by now.
    fn settle(&mut self) {
        self.pass(Duration::ZERO);
    }

    fn pass(&mut self, time: Duration) {
        let until = self.kernel.now + time;
        self.kernel.advance_to(until);
    }

    fn ask(&mut self, from: Option<SocketAddr>) -> Result<SocketId, Refusal> {
        let to = self.to.clone();
        self.kernel.connect(Owner(1), HOST, &to, from)
    }

    /// A connection: the end that asked, and the one that was accepted.
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

    /// From now on the next port that is tried for those who ask for none is this.
    fn wrap_around_to(&mut self, port: u16) {
        self.kernel.hosts.get_mut(&HOST).expect("it is there").next_port = port;
    }
}

#[track_caller]
fn assert_unavailable(refusal: Result<SocketId, Refusal>) {
    let Err(Refusal::Socket(error)) = refusal else { panic!("it was asked for") };
    assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
}

/// Four-tuples are unique: a port that was chosen for one connection is not chosen for another to the same peer while that is there, and
/// for 60 s after that if its end has closed first.
#[test]
fn four_tuples_are_unique() {
    let mut world = World::new(Conditions::ideal());
    let (first, served) = world.connect(None);
    let port = world.port(first);
    world.wrap_around_to(port);
    let (second, _) = world.connect(None);
    assert_eq!(world.port(second), port + 1);
    // It closes first, and so it waits.
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

/// A fixed port goes to one peer once, and is free again when the other end has closed first, or after 60 s.
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

/// A reset leaves nothing that waits.
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

/// A port that is listened on is in use for a connection, and one that connections have shared is not for a listener's.
#[test]
fn ports_of_listeners_and_connections() {
    let mut world = World::new(Conditions::ideal());
    let address = SocketAddr::new(HOST, 4000);
    let listener = world.kernel.listen(Owner(1), HOST, &address.into(), 1).expect("it is free").0;
    let Err(Refusal::Bind(error)) = world.ask(Some(address)) else { panic!("it is in use") };
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    world.kernel.close(listener, false);
    world.connect(Some(address));
    let other = SocketAddr::new(PEER, 8).into();
    world.kernel.listen(Owner(2), PEER, &other, 1).expect("it is free");
    assert!(world.kernel.connect(Owner(1), HOST, &other, Some(address)).is_ok(), "another peer");
}
