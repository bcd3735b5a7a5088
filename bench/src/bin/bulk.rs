//! `bulk`: the CPU time of many bytes from one thread to another: of a file, and of a broadcast.
//!
//! `cargo run --release -p ropewalk-bench --bin bulk [-- --smoke]`
//!
//! | case | kinds, in pairs that alternate |
//! |---|---|
//! | a file of 1 GiB, over one connection | read and written; sent by the system (`FileSender::file`); a bare loop |
//! | a broadcast to 1,000 readers: a head, and 4 KiB or 64 KiB | copied writes; shared ones; tokio's `write_vectored` |
//!
//! The time is that of the sending thread, with the work of the system on its behalf. On a loopback
//! that includes the receiving side of TCP, but not the reads. The program prints medians, and each
//! kind's ratio to the first. `--smoke` sends little, once.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, Read, Seek, SeekFrom, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::rc::Rc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use mio::{Events, Interest, Poll, Token};
use ropewalk::interfaces::*;
use ropewalk::protocols::FileSender;
use ropewalk::reactor::AdoptOptions;
use ropewalk::transport::Streaming;
use ropewalk::{Connection, Failure, Reactor, Result, Transport};
use rustix::fs::sendfile;
use rustix::time::{ClockId, clock_gettime};

/// Bytes before each message of a broadcast, which are written by themselves.
const HEAD: &[u8] = b"a head, copied\r\n";

/// Time after which a measurement fails.
const PATIENCE: Duration = Duration::from_secs(120);

/// The sizes of all that is measured.
struct Sizes {
    pairs: usize,
    file: u64,
    readers: usize,
    /// Lengths of messages, and their numbers.
    messages: [(usize, usize); 2],
}

const FULL: Sizes = Sizes { pairs: 7, file: 1 << 30, readers: 1000, messages: [(4 * 1024, 100), (64 * 1024, 20)] };
const SMOKE: Sizes = Sizes { pairs: 1, file: 4 << 20, readers: 20, messages: [(4 * 1024, 3), (64 * 1024, 3)] };

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => report(&FULL),
        ["--smoke"] => report(&SMOKE),
        _ => Err(Failure::message("usage: bulk [--smoke]")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bulk: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Sends a file, or a broadcast, and returns the CPU time of it in nanoseconds.
type FileCase = fn(File, u64) -> Result<u64>;
type BroadcastCase = fn(&Broadcast) -> Result<u64>;

fn report(sizes: &Sizes) -> Result<()> {
    let file = file_of(sizes.file)?;
    let ways: [(&str, FileCase); 3] = [
        ("read", |file, size| send_file(FileSender::new(file), size)),
        ("sent by the system", |file, size| send_file(FileSender::file(file), size)),
        ("a bare loop of sendfile", send_file_bare),
    ];
    compare("file", sizes.pairs, ways, |way| way(at_start(&file)?, sizes.file))?;
    for (length, count) in sizes.messages {
        let scene = Broadcast { readers: sizes.readers, message: vec![b'm'; length].into(), count };
        let kinds: [(&str, BroadcastCase); 3] = [
            ("copied", |scene| broadcast(scene, |transport, bytes| transport.write(bytes))),
            ("shared", |scene| broadcast(scene, |transport, bytes| transport.write_shared(bytes.clone()))),
            ("tokio", broadcast_on_tokio),
        ];
        compare(&format!("broadcast of {length} bytes"), sizes.pairs, kinds, |kind| kind(&scene))?;
    }
    Ok(())
}

/// A message to many readers.
struct Broadcast {
    readers: usize,
    message: Bytes,
    /// Number of times that each reader gets it.
    count: usize,
}

impl Broadcast {
    /// Connects the readers.
    fn readers(&self) -> Result<(Vec<TcpStream>, JoinHandle<io::Result<()>>)> {
        readers(self.readers, self.count * (HEAD.len() + self.message.len()))
    }
}

/// Measures each kind in turn, `pairs` times, and prints the medians.
fn compare<T, const N: usize>(
    what: &str,
    pairs: usize,
    kinds: [(&str, T); N],
    measure: impl Fn(&T) -> Result<u64>,
) -> Result<()> {
    let mut times = vec![Vec::new(); N];
    for _ in 0..pairs {
        for (times, (_, kind)) in times.iter_mut().zip(&kinds) {
            times.push(measure(kind)?);
        }
    }
    let medians: Vec<f64> = times.iter_mut().map(|times| median(times) as f64).collect();
    for ((name, _), time) in kinds.iter().zip(&medians) {
        println!("{what}, {name}: {:.1} ms of CPU time, {:.2}", time / 1e6, time / medians[0]);
    }
    Ok(())
}

fn median(times: &mut [u64]) -> u64 {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Makes a file that has no name any more.
fn file_of(size: u64) -> Result<File> {
    let path = std::env::temp_dir().join(format!("ropewalk-bulk-{}", std::process::id()));
    let mut file = File::options().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    let piece = vec![7; 1 << 20];
    for _ in 0..size / piece.len() as u64 {
        file.write_all(&piece)?;
    }
    Ok(file)
}

/// Returns another descriptor of a file, whose position is at its beginning.
fn at_start(mut file: &File) -> Result<File> {
    file.seek(SeekFrom::Start(0))?;
    Ok(file.try_clone()?)
}

/// Sends a file to a reader in a thread. Returns the CPU time of this side, in nanoseconds.
fn send_file<R: Read + 'static>(sender: FileSender<R>, size: u64) -> Result<u64> {
    let (mut streams, reading) = readers(1, usize::try_from(size)?)?;
    let before = cpu_time();
    run(|reactor| {
        let connection = adopt(reactor, &Rc::default(), streams.remove(0))?;
        let (transport, done) = (connection.transport().clone(), connection.transport().clone());
        sender.begin(&transport).add_callback(move |_| done.lose_connection()).or_log("sending a file");
        Ok(())
    })?;
    finish(reading, cpu_time() - before)
}

/// The same by a loop of system calls that block.
fn send_file_bare(file: File, size: u64) -> Result<u64> {
    let size = usize::try_from(size)?;
    let (mut streams, reading) = readers(1, size)?;
    let before = cpu_time();
    let (stream, mut left) = (streams.remove(0), size);
    while left > 0 {
        left -= sendfile(&stream, &file, None, left.min(1 << 20))?;
    }
    drop(stream);
    finish(reading, cpu_time() - before)
}

/// Sends a message to each reader, again when it has taken the last one.
fn broadcast(scene: &Broadcast, write: fn(&Transport, &Bytes)) -> Result<u64> {
    let (streams, reading) = scene.readers()?;
    let before = cpu_time();
    run(|reactor| {
        let open = Rc::default();
        for stream in streams {
            let connection = adopt(reactor, &open, stream)?;
            let messages = Messages { message: scene.message.clone(), left: scene.count, write };
            connection.transport().register_producer(messages, Streaming::Pull)?;
        }
        Ok(())
    })?;
    finish(reading, cpu_time() - before)
}

/// Writes a message each time that the last one has left.
struct Messages {
    message: Bytes,
    left: usize,
    write: fn(&Transport, &Bytes),
}

impl Producer for Messages {
    fn resume_producing(&mut self, consumer: &Transport) -> Result<()> {
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                consumer.write(HEAD);
                (self.write)(consumer, &self.message);
            }
            None => {
                consumer.unregister_producer();
                consumer.lose_connection();
            }
        }
        Ok(())
    }

    fn stop_producing(&mut self, _consumer: &Transport) {}
}

/// Runs a reactor until all connections that `begin` makes are over.
fn run(begin: impl FnOnce(&Reactor) -> Result<()>) -> Result<()> {
    let reactor = Reactor::builder().signals(false).build()?;
    begin(&reactor)?;
    let late = reactor.clone();
    let timer = reactor.call_later(PATIENCE, move || drop(late.stop()));
    reactor.run()?;
    timer.cancel().map_err(|_| io::Error::from(ErrorKind::TimedOut).into())
}

fn adopt(reactor: &Reactor, open: &Rc<Cell<usize>>, stream: TcpStream) -> Result<Connection<Sending>> {
    open.set(open.get() + 1);
    let sending = Sending { reactor: reactor.clone(), open: Rc::clone(open) };
    let (host, peer) = (stream.local_addr()?, stream.peer_addr()?);
    Ok(reactor.adopt_stream(stream, host, peer, &AdoptOptions::new(), sending)?)
}

/// The protocol of a connection that a producer writes to. The last one that ends stops the
/// reactor.
struct Sending {
    reactor: Reactor,
    open: Rc<Cell<usize>>,
}

impl Protocol for Sending {
    fn data_received(&mut self, _transport: &Transport, _data: &[u8]) -> Result<()> {
        Ok(())
    }

    fn connection_lost(&mut self, _transport: &Transport, _reason: &Failure) {
        self.open.set(self.open.get() - 1);
        if self.open.get() == 0 && self.reactor.stop().is_err() {
            eprintln!("bulk: the reactor was stopped already");
        }
    }
}

/// The same broadcast by tasks of tokio, one for each reader.
fn broadcast_on_tokio(scene: &Broadcast) -> Result<u64> {
    let (streams, reading) = scene.readers()?;
    let before = cpu_time();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for stream in streams {
            stream.set_nonblocking(true)?;
            tasks.spawn(write_messages(tokio::net::TcpStream::from_std(stream)?, scene.message.clone(), scene.count));
        }
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        Ok::<(), Failure>(())
    })?;
    drop(runtime);
    finish(reading, cpu_time() - before)
}

async fn write_messages(stream: tokio::net::TcpStream, message: Bytes, messages: usize) -> io::Result<()> {
    for _ in 0..messages {
        let (mut head, mut rest) = (HEAD, message.clone());
        while !rest.is_empty() {
            match stream.try_write_vectored(&[IoSlice::new(head), IoSlice::new(&rest)]) {
                Ok(count) => {
                    let of_head = count.min(head.len());
                    head = &head[of_head..];
                    drop(rest.split_to(count - of_head));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => stream.writable().await?,
                Err(error) => return Err(error),
            }
        }
        // The next message comes when all have had their turn, as in the other kinds.
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Connects `count` streams to a thread that reads `each` bytes from each of them, and no more.
fn readers(count: usize, each: usize) -> Result<(Vec<TcpStream>, JoinHandle<io::Result<()>>)> {
    let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))?;
    let address: SocketAddr = listener.local_addr()?;
    let mut pairs = Vec::new();
    for _ in 0..count {
        let stream = TcpStream::connect(address)?;
        pairs.push((stream, listener.accept()?.0));
    }
    let (ours, theirs): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    Ok((ours, thread::spawn(move || read_all(theirs, count * each))))
}

/// Reads all streams to their ends, and drops the bytes, which are to be so many.
fn read_all(streams: Vec<TcpStream>, expected: usize) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut streams: Vec<_> = streams
        .into_iter()
        .map(|stream| {
            stream.set_nonblocking(true)?;
            Ok(mio::net::TcpStream::from_std(stream))
        })
        .collect::<io::Result<_>>()?;
    for (token, stream) in streams.iter_mut().enumerate() {
        poll.registry().register(stream, Token(token), Interest::READABLE)?;
    }
    let (mut open, mut received) = (streams.len(), 0);
    let (mut events, mut buffer) = (Events::with_capacity(1024), vec![0; 1 << 20]);
    while open > 0 {
        poll.poll(&mut events, Some(PATIENCE))?;
        if events.is_empty() {
            return Err(ErrorKind::TimedOut.into());
        }
        for event in &events {
            let stream = &mut streams[event.token().0];
            loop {
                match stream.read(&mut buffer) {
                    Ok(0) => {
                        poll.registry().deregister(stream)?;
                        open -= 1;
                        break;
                    }
                    Ok(count) => received += count,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
        }
    }
    if received == expected { Ok(()) } else { Err(io::Error::other(format!("{received} of {expected} bytes"))) }
}

/// Waits for the reader, and returns the time.
fn finish(reading: JoinHandle<io::Result<()>>, time: u64) -> Result<u64> {
    reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    Ok(time)
}

/// The CPU time of this thread in nanoseconds.
fn cpu_time() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
