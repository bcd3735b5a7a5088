//! A chat server on several threads: each has a reactor, and all share one port.
//!
//! ```sh
//! cargo run --example cores &
//! nc localhost 6000
//! ```
//!
//! The first argument says where to listen (default `tcp:6000:queueLimit=1048576`), the second how
//! many threads serve (default: one for each processor). SIGTERM or SIGINT sends a farewell to all
//! talkers, and prints the number of lines that each thread has passed on.
//!
//! A line goes to the talkers of all reactors: `RemoteConnection` is the handle of a connection for
//! other threads. A talker that is gone when a line arrives for it is taken out of the room.

use std::mem;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ropewalk::interfaces::*;
use ropewalk::reactor::{Member, ReactorGroup, RemoteConnection};
use ropewalk::{Deferred, Failure, Result, Transport, for_protocol};

const LONGEST_LINE_BYTES: usize = 1024;

/// The state that all threads share.
#[derive(Default)]
struct Room {
    talkers: Mutex<Vec<RemoteConnection<Talker>>>,
    /// Number of lines that each member has passed on.
    lines: Vec<AtomicUsize>,
}

impl Room {
    fn new(threads: usize) -> Self {
        Self { lines: (0..threads).map(|_| AtomicUsize::new(0)).collect(), ..Self::default() }
    }

    /// Returns the talkers of this moment. Sending to them needs no lock.
    fn talkers(&self) -> Vec<RemoteConnection<Talker>> {
        self.talkers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add(&self, talker: RemoteConnection<Talker>) {
        self.talkers.lock().unwrap_or_else(PoisonError::into_inner).push(talker);
    }

    fn remove(&self, talker: &RemoteConnection<Talker>) {
        self.talkers.lock().unwrap_or_else(PoisonError::into_inner).retain(|other| other != talker);
    }

    fn tell_all(self: &Arc<Self>, line: &str) {
        let line: Arc<str> = line.into();
        for talker in self.talkers() {
            let (room, gone) = (Arc::clone(self), talker.clone());
            talker.send(Arc::clone(&line), Talker::hear, move |_undelivered| room.remove(&gone));
        }
    }
}

struct Talker {
    room: Arc<Room>,
    member: usize,
    /// An incomplete line.
    unread: Vec<u8>,
}

impl Talker {
    fn hear(&mut self, transport: &Transport, line: Arc<str>) -> Result<()> {
        transport.write(line.as_bytes());
        Ok(())
    }

    fn line_received(&mut self, line: &str) {
        self.room.lines[self.member].fetch_add(1, Ordering::Relaxed);
        self.room.tell_all(&format!("<member {}> {line}\n", self.member));
    }
}

impl Protocol for Talker {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        self.room.add(transport.connection().remote());
        transport.write(format!("served by member {}\n", self.member).as_bytes());
        Ok(())
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        self.unread.extend_from_slice(data);
        for line in mem::take(&mut self.unread).split_inclusive(|&byte| byte == b'\n') {
            match line.strip_suffix(b"\n") {
                _ if line.len() > LONGEST_LINE_BYTES => transport.lose_connection(),
                Some(line) => self.line_received(String::from_utf8_lossy(line).trim()),
                None => self.unread = line.to_vec(),
            }
        }
        Ok(())
    }

    fn connection_lost(&mut self, transport: &Transport, _reason: &Failure) {
        self.room.remove(&transport.connection().remote());
    }
}

/// Has the first member send a farewell to all talkers, of all members.
fn say_farewell(member: &Member, room: &Room) -> Deferred<()> {
    if member.index() == 0 {
        let farewell = |_talker: &mut Talker, transport: &Transport, ()| {
            transport.write(b"the server stops\n");
            transport.lose_connection();
            Ok(())
        };
        for talker in room.talkers() {
            // A talker that is gone needs no farewell.
            talker.send((), farewell, drop);
        }
    }
    Deferred::succeed(())
}

fn main() -> Result<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    let description = arguments.next().unwrap_or_else(|| "tcp:6000:queueLimit=1048576".to_owned());
    let threads = match arguments.next() {
        Some(threads) => threads.parse()?,
        None => std::thread::available_parallelism()?.into(),
    };
    let room = Arc::new(Room::new(threads));
    let (of_talkers, of_drain) = (Arc::clone(&room), Arc::clone(&room));
    let group = ReactorGroup::builder()
        .threads(threads)
        .stop_timeout(Some(Duration::from_secs(5)))
        .listen(&description, move |member| {
            let (room, member) = (Arc::clone(&of_talkers), member.index());
            Ok(for_protocol(move |_peer| Talker { room: Arc::clone(&room), member, unread: Vec::new() }))
        })
        .drain(move |member| say_farewell(member, &of_drain))
        .started(|group| println!("listening on {}", group.addresses()[0]));
    let report = group.run()?;
    for (member, lines) in room.lines.iter().enumerate() {
        println!("member {member} passed on {} lines", lines.load(Ordering::Relaxed));
    }
    Ok(report.exit_code())
}
