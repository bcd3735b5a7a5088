//! A chat over WebSocket: tungstenite's protocol on the byte streams of a reactor. The example
//! `websocket_chat` is the program.
//!
//! The path of the request is the room. The first text message is the name, and each later one goes
//! to all members of the room, as `<name> text`. `* name has joined` and `* name has left` tell of
//! the others. A name that is taken, empty or too long is asked for again.
//!
//! | a peer that | gets |
//! |---|---|
//! | sends text that is not UTF-8 | close code 1007 |
//! | sends a message over the limit | 1009, before the message is read |
//! | sends binary messages | 1003 |
//! | breaks the protocol | 1002 |
//! | answers no ping | 1011, and an abort if that can't be sent |
//! | reads too slowly | an abort: its queue is full, so no code can reach it |
//! | does not finish the handshake | a closed connection |
//! | is there when the server stops | 1001 |
//!
//! | file | has |
//! |---|---|
//! | `session.rs` | one connection, from its handshake to its closing handshake |
//! | `member.rs` | its bounded queue, and its end |
//! | `rooms.rs` | the members of each room |

mod member;
mod rooms;
mod session;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use ropewalk::deferred::{Promise, Spawner};
use ropewalk::endpoints::ServerEndpoint;
use ropewalk::streams::{ByteStream, listen_streams};
use ropewalk::{Deferred, Port, Reactor};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use self::member::Member;
use self::rooms::Rooms;

/// The limits of a [`Chat`], each with a default for people who write to each other.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Number of bytes of a received message. 16 KiB: a long text.
    pub message_bytes: usize,
    /// Number of bytes that may wait for one member. 256 KiB: it is far behind a lively room.
    pub queue_bytes: usize,
    /// Number of connections. 10,000 of them, with full queues, take 2.5 GB.
    pub connections: usize,
    /// Time for the handshakes of TLS and of WebSocket. 10 s.
    pub handshake: Duration,
    /// Time between two pings. A peer of which nothing was received between two of them is gone.
    /// 20 s, below the time-outs of most middleboxes.
    pub ping_interval: Duration,
    /// Time for the closing handshake. 5 s.
    pub closing: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: 16 << 10,
            queue_bytes: 256 << 10,
            connections: 10_000,
            handshake: Duration::from_secs(10),
            ping_interval: Duration::from_secs(20),
            closing: Duration::from_secs(5),
        }
    }
}

/// A chat on the connections of any number of ports. A cheap handle.
#[derive(Clone)]
pub struct Chat(Rc<Hall>);

/// The state that all sessions share.
struct Hall {
    limits: Limits,
    rooms: Rc<Rooms>,
    spawner: Spawner,
    ports: RefCell<Vec<Port>>,
    sessions: RefCell<BTreeMap<u64, Rc<Member>>>,
    next_session: Cell<u64>,
    is_draining: Cell<bool>,
    drained: RefCell<Vec<Promise<()>>>,
}

impl Chat {
    /// Creates a chat whose sessions run on a reactor.
    pub fn new(reactor: &Reactor, limits: Limits) -> Self {
        Self(Rc::new(Hall {
            limits,
            rooms: Rc::default(),
            spawner: reactor.spawner().clone(),
            ports: RefCell::default(),
            sessions: RefCell::default(),
            next_session: Cell::new(0),
            is_draining: Cell::new(false),
            drained: RefCell::default(),
        }))
    }

    /// Listens at an endpoint, plain or over TLS.
    ///
    /// # Errors
    /// The Deferred fails with a `ListenError`.
    pub fn listen<E: ServerEndpoint + ?Sized>(&self, endpoint: &E) -> Deferred<Port> {
        let (serving, kept) = (self.clone(), self.clone());
        listen_streams(endpoint, move |stream| serving.serve(stream)).add_callback(move |port| {
            kept.0.ports.borrow_mut().push(port.clone());
            Ok(port)
        })
    }

    /// Serves a connection.
    pub fn serve(&self, stream: ByteStream) {
        let hall = &self.0;
        if hall.is_draining.get() || hall.sessions.borrow().len() >= hall.limits.connections {
            // A drop closes the connection.
            return;
        }
        let member = Member::new(stream.transport(), &hall.limits);
        let id = hall.next_session.replace(hall.next_session.get() + 1);
        hall.sessions.borrow_mut().insert(id, Rc::clone(&member));
        let entry = Entry { hall: Rc::clone(hall), id };
        let served = hall.spawner.spawn(session::serve(stream, member, Rc::clone(&hall.rooms), entry));
        served.or_log("a session of the chat");
    }

    /// Number of connections, in their handshakes, open and closing.
    pub fn sessions(&self) -> usize {
        self.0.sessions.borrow().len()
    }

    /// Names in a room, in order.
    pub fn names(&self, room: &str) -> Vec<String> {
        self.0.rooms.names(room)
    }

    /// Stops listening, and closes all connections with code 1001. The Deferred fires when they are
    /// gone, which the limits of the handshakes bound.
    pub fn drain(&self) -> Deferred<()> {
        let hall = &self.0;
        hall.is_draining.set(true);
        for port in hall.ports.take() {
            port.stop_listening().or_log("stopping to listen");
        }
        let members: Vec<_> = hall.sessions.borrow().values().cloned().collect();
        for member in members {
            member.end(CloseCode::Away, "the server is going away");
        }
        let (promise, drained) = Promise::new();
        hall.drained.borrow_mut().push(promise);
        hall.check_drained();
        drained
    }
}

impl fmt::Debug for Chat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limits = &self.0.limits;
        f.debug_struct("Chat").field("sessions", &self.sessions()).field("limits", limits).finish_non_exhaustive()
    }
}

impl Hall {
    fn check_drained(&self) {
        if self.sessions.borrow().is_empty() {
            for promise in self.drained.take() {
                // It may have been cancelled.
                let _ = promise.callback(());
            }
        }
    }
}

/// The place of a session in the list. The session is over when it is dropped.
struct Entry {
    hall: Rc<Hall>,
    id: u64,
}

impl Entry {
    fn limits(&self) -> &Limits {
        &self.hall.limits
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let member = self.hall.sessions.borrow_mut().remove(&self.id);
        drop(member);
        self.hall.check_drained();
    }
}
