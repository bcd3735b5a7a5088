//! The list of a factory's open connections: who is in it and when, and what may be done while it
//! is iterated over.

use std::cell::RefCell;
use std::rc::Rc;

use ropewalk::endpoints::{ClientEndpointExt, ServerEndpointExt, TcpClientEndpoint, TcpServerEndpoint};
use ropewalk::testing::{MemoryReactor, assert_no_result, success_result_of};
use ropewalk::{Connections, Failure, Protocol, Result, Transport, bail, for_protocol};

/// Speaks of itself by the number of its peer's port, and passes what it hears on to all.
struct Member {
    room: Connections<Self>,
    seen: Rc<RefCell<Vec<String>>>,
    name: u16,
}

impl Member {
    /// How many are in the list, and whether this one is.
    fn tell(&self, what: &str, transport: &Transport) {
        let among = self.room.iter().any(|member| member.transport().peer() == transport.peer());
        self.seen.borrow_mut().push(format!("{what}: {} open, {}", self.room.len(), if among { "in" } else { "out" }));
    }
}

impl Protocol for Member {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        self.tell("made", transport);
        Ok(())
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        if data == b"fail" {
            bail!("as asked");
        }
        // Its own protocol is busy, all others can be reached.
        let names = self.room.iter().filter_map(|member| member.with(|member, _| member.name).ok()).count();
        assert_eq!(names, self.room.len() - 1);
        for member in &self.room {
            member.transport().write(data);
        }
        self.tell("data", transport);
        Ok(())
    }

    fn connection_lost(&mut self, transport: &Transport, _reason: &Failure) {
        self.tell("lost", transport);
        assert_ne!(self.name, 13, "a callback that panics");
    }
}

struct Scene {
    memory: MemoryReactor,
    room: Connections<Member>,
    seen: Rc<RefCell<Vec<String>>>,
}

impl Scene {
    fn new() -> Self {
        Self { memory: MemoryReactor::new(), room: Connections::new(), seen: Rc::default() }
    }

    /// Has a factory of its own listen; the one peer whose name is 99 is refused.
    fn listen(&self, port: u16, mut names: impl Iterator<Item = u16> + 'static) {
        let (room, seen) = (self.room.clone(), Rc::clone(&self.seen));
        let factory = move |_| {
            let name = names.next().filter(|&name| name != 99)?;
            Some(Member { room: room.clone(), seen: Rc::clone(&seen), name })
        };
        let endpoint = TcpServerEndpoint::bind_to(self.memory.reactor(), (MemoryReactor::HOST, port).into());
        endpoint.listen(self.room.track(factory)).or_log("listening");
    }

    fn names(&self) -> Vec<u16> {
        self.room.iter().map(|member| member.with(|member, _| member.name).unwrap()).collect()
    }

    fn settle(&self) {
        self.memory.settle().unwrap();
    }
}

/// From `connection_made` on a connection is in the list, in `connection_lost` it is no longer,
/// however it ends; a connection that was refused never is.
#[test]
fn members_from_made_to_lost() {
    let scene = Scene::new();
    scene.listen(1, [1, 99, 2, 3].into_iter());
    let [first, refused, second, third] = [(); 4].map(|()| scene.memory.connect(1).unwrap());
    assert_eq!(scene.names(), [1, 2, 3]);
    second.write(b"hello").unwrap();
    scene.settle();
    assert_eq!([&first, &refused, &second, &third].map(|peer| peer.read()), [&b"hello"[..], b"", b"hello", b"hello"]);

    first.close();
    scene.settle();
    second.write(b"fail").unwrap();
    scene.settle();
    third.abort();
    scene.settle();
    let expected = [
        "made: 1 open, in",
        "made: 2 open, in",
        "made: 3 open, in",
        "data: 3 open, in",
        "lost: 2 open, out",
        "lost: 1 open, out",
        "lost: 0 open, out",
    ];
    assert_eq!(*scene.seen.borrow(), expected);
}

/// The list is waited for: at once if it is empty, behind the last `connection_lost` otherwise,
/// also if that panics. A waiter that was cancelled is no harm.
#[test]
fn waiting_for_the_last() {
    let scene = Scene::new();
    success_result_of(&mut scene.room.when_empty());
    scene.listen(1, [1, 13].into_iter());
    let [first, second] = [(); 2].map(|()| scene.memory.connect(1).unwrap());
    let seen = Rc::clone(&scene.seen);
    let mut empty = scene.room.when_empty().add_callback(move |()| seen.borrow_mut().push("empty".into()));
    let mut another = scene.room.when_empty();
    let cancelled = scene.room.when_empty();
    cancelled.cancel();
    cancelled.add_errback(|_| Ok(())).or_log("waiting");

    first.close();
    scene.settle();
    assert_no_result(&mut empty);
    second.close();
    scene.settle();
    success_result_of(&mut empty);
    success_result_of(&mut another);
    assert_eq!(scene.seen.borrow()[2..], ["lost: 1 open, out", "lost: 0 open, out", "empty"]);
}

/// Connections and the reactor may be changed while the list is iterated over. The iteration leaves
/// out lost connections, and new ones come last.
#[test]
fn changes_while_iterating() {
    let scene = Scene::new();
    scene.listen(1, 1..);
    let _peers: Vec<_> = (0..4).map(|_| scene.memory.connect(1).unwrap()).collect();
    let mut met = Vec::new();
    let mut late = None;
    for member in &scene.room {
        met.push(member.with(|member, _| member.name).unwrap());
        match met.len() {
            1 => {
                member.transport().abort_connection();
                scene.room.iter().nth(1).unwrap().transport().abort_connection();
                scene.settle();
            }
            3 => late = Some(scene.memory.connect(1).unwrap()),
            _ => {}
        }
    }
    assert_eq!(met, [1, 3, 4, 5]);
    for _ in &scene.room {
        scene.memory.reactor().close().unwrap();
    }
    assert!(scene.room.is_empty());
    drop(late);
}

/// One list for two ports, and for clients, which reach their protocol through it.
#[test]
fn one_list_for_several_factories() {
    let scene = Scene::new();
    scene.listen(1, [1].into_iter());
    scene.listen(2, [2].into_iter());
    let _peers = [scene.memory.connect(2).unwrap(), scene.memory.connect(1).unwrap()];
    assert_eq!(scene.names(), [2, 1]);

    let (room, seen) = (scene.room.clone(), Rc::clone(&scene.seen));
    let factory = for_protocol(move |_| Member { room: room.clone(), seen: Rc::clone(&seen), name: 3 });
    let endpoint = TcpClientEndpoint::new(scene.memory.reactor(), ([198, 51, 100, 7], 80).into());
    let mut connecting = endpoint.connect(scene.room.track(factory));
    let server = scene.memory.attempts().remove(0).accept().unwrap();
    scene.settle();
    let connection = success_result_of(&mut connecting);
    assert_eq!(connection.with(|member, _| member.protocol().name), Ok(3));
    assert_eq!(connection.transport().connection::<Member>().with(|member, _| member.name += 1), Ok(()));
    assert_eq!(scene.names(), [2, 1, 4]);
    server.close();
    scene.settle();
    assert_eq!(scene.names(), [2, 1]);
}
