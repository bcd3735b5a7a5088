//! `examples/chat.rs` on tokio: the same program, so that their lines can be compared.
//!
//! Argument: where to listen (`0.0.0.0:6000`).

use std::cell::{OnceCell, RefCell};
use std::env;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join;
use futures::{FutureExt, StreamExt};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{sleep, timeout};
use tokio_util::codec::{AnyDelimiterCodec, FramedRead};
use tokio_util::sync::CancellationToken;

const LONGEST_LINE_BYTES: usize = 1024;
const QUEUE_LIMIT_BYTES: usize = 1024 * 1024;
const IDLE_LIMIT: Duration = Duration::from_secs(600);
const ACCEPT_RETRY: Duration = Duration::from_secs(1);

type Room = Rc<RefCell<Vec<Rc<Talker>>>>;

/// A connection. The room has all of them.
struct Talker {
    name: OnceCell<String>,
    /// Lines that are not written yet. Each holds a permit for its bytes.
    queue: UnboundedSender<(String, OwnedSemaphorePermit)>,
    free_bytes: Arc<Semaphore>,
    cut_off: CancellationToken,
}

impl Talker {
    /// Queues a line. A peer that does not read is cut off.
    fn tell(&self, line: &str) {
        match Arc::clone(&self.free_bytes).try_acquire_many_owned(line.len() as u32) {
            // A connection that is ending needs no line.
            Ok(permit) => drop(self.queue.send((line.to_owned(), permit))),
            Err(_) => self.cut_off.cancel(),
        }
    }
}

/// Keeps a talker in the room.
struct Seat {
    room: Room,
    talker: Rc<Talker>,
}

impl Seat {
    fn take(room: Room, talker: Rc<Talker>) -> Self {
        room.borrow_mut().push(Rc::clone(&talker));
        Self { room, talker }
    }

    fn tell_all(&self, line: &str) {
        self.room.borrow().iter().for_each(|talker| talker.tell(line));
    }

    fn line_received(&self, line: &str) {
        let name = &self.talker.name;
        if let Some(name) = name.get() {
            self.tell_all(&format!("<{name}> {line}\n"));
        } else if line.is_empty() || self.room.borrow().iter().any(|other| other.name.get().is_some_and(|n| n == line))
        {
            self.talker.tell("choose another name\n");
        } else {
            let name = name.get_or_init(|| line.to_owned());
            self.tell_all(&format!("* {name} is here\n"));
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.room.borrow_mut().retain(|other| !Rc::ptr_eq(other, &self.talker));
        if let Some(name) = self.talker.name.get() {
            self.tell_all(&format!("* {name} has left\n"));
        }
    }
}

async fn talk(mut stream: TcpStream, room: Room) -> io::Result<()> {
    let (queue, mut lines) = unbounded_channel();
    let (free_bytes, cut_off) = (Arc::new(Semaphore::new(QUEUE_LIMIT_BYTES)), CancellationToken::new());
    let talker = Talker { name: OnceCell::new(), queue, free_bytes, cut_off: cut_off.clone() };
    let (reader, mut writer) = stream.split();
    let reading = async {
        let seat = Seat::take(room, Rc::new(talker));
        seat.talker.tell("what is your name?\n");
        let codec = AnyDelimiterCodec::new_with_max_length(b"\n".into(), b"\n".into(), LONGEST_LINE_BYTES);
        let mut received = FramedRead::new(reader, codec);
        // A line that is too long ends the connection too.
        while let Some(Ok(line)) = timeout(IDLE_LIMIT, received.next()).await? {
            seat.line_received(String::from_utf8_lossy(&line).trim());
        }
        Ok(())
    };
    let writing = async {
        while let Some((line, _permit)) = lines.recv().await {
            timeout(IDLE_LIMIT, writer.write_all(line.as_bytes())).await??;
        }
        Ok(())
    };
    match cut_off.run_until_cancelled(try_join(reading, writing)).await {
        Some(ended) => ended.map(drop),
        None => stream.set_zero_linger(),
    }
}

async fn run() -> io::Result<()> {
    let listener = TcpListener::bind(env::args().nth(1).as_deref().unwrap_or("0.0.0.0:6000")).await?;
    println!("listening on {}", listener.local_addr()?);
    let room = Room::default();
    loop {
        match listener.accept().await {
            // The others hear of its end. It is no error of the server.
            Ok((stream, _)) => drop(spawn_local(talk(stream, Rc::clone(&room)).map(drop))),
            Err(error) => {
                eprintln!("cannot accept: {error}");
                sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

fn main() -> io::Result<()> {
    LocalSet::new().block_on(&Builder::new_current_thread().enable_all().build()?, run())
}
