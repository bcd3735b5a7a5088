//! F13, A10: the memory that connections cost. An allocator counts the bytes that each thread
//! holds, so the peers in their threads do not disturb the count.

#[path = "../../examples/simulate.rs"]
#[allow(dead_code, reason = "its main is for the command line")]
mod simulate;

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use crate::common::allocator::{allocations, begin_peak, live, peak};
use crate::common::*;
use ropewalk::interfaces::*;
use ropewalk::task::{Cooperator, LoopingCall, defer_later};
use ropewalk::testing::{Conditions, Network, PumpOptions};
use ropewalk::transport::Bytes;
use ropewalk::{BackendKind, Deferred, Reactor, Result, Transport, testing};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// The buffers that a reactor keeps for the next writes, at most.
const SPARES: usize = 2 * MIB;

/// Lists that grow with what is going on, and do not shrink.
const SLACK: usize = 16 * KIB;

/// The most that this thread has held since, beyond what it holds now.
struct Growth(usize);

impl Growth {
    fn begin() -> Self {
        begin_peak();
        Self(live())
    }

    fn now(&self) -> usize {
        live().saturating_sub(self.0)
    }

    fn peak(&self) -> usize {
        peak() - self.0
    }
}

/// Sends everything back, and counts it.
#[derive(Clone, Default)]
struct Counted {
    bytes: Rc<Cell<usize>>,
    transport: Rc<RefCell<Option<Transport>>>,
    /// Stops reading while more than this is queued.
    mark: Option<usize>,
}

impl Protocol for Counted {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        self.transport.replace(Some(transport.clone()));
        Ok(())
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        self.bytes.set(self.bytes.get() + data.len());
        transport.write(data);
        if self.mark.is_some_and(|mark| transport.queued_bytes() > mark) {
            transport.pause_producing();
        }
        Ok(())
    }
}

/// A reactor, a connection to it from this thread, and its transport.
fn connected(reactor: &Reactor) -> (TcpStream, Transport) {
    let kept = Rc::default();
    let (port, address) = listen(reactor, once(Script::new(&Log::default()).transport_into(&kept)));
    let client = TcpStream::connect(address).unwrap();
    run_until(reactor, || kept.borrow().is_some());
    drop(port.stop_listening());
    settle(reactor);
    (client, kept.take().unwrap())
}

/// A peer that never reads costs what is queued for it and little more, however the writes are cut,
/// and an abort frees it all.
#[test]
fn a_queue_costs_its_bytes_and_an_abort_frees_them() {
    own_process!();
    let cuts: [(&[usize], usize); 6] = [
        (&[64 * KIB], 1024 * MIB),
        (&[MIB], 256 * MIB),
        (&[100], 256 * MIB),
        (&[33 * KIB], 256 * MIB),
        // A head and a body.
        (&[100, 64 * KIB], 256 * MIB),
        (&[9000, 1, 300 * KIB], 256 * MIB),
    ];
    let pieces = vec![b'q'; MIB];
    let start = live();
    for (sizes, total) in cuts {
        let reactor = reactor();
        let (client, transport) = connected(&reactor);
        let growth = Growth::begin();
        let (mut written, mut next, mut most) = (0, 0, 0);
        for &size in sizes.iter().cycle() {
            if written > total {
                break;
            }
            transport.write(&pieces[..size]);
            written += size;
            if written >= next {
                most = most.max(transport.queued_bytes());
                let allowed = most + most / 20 + 256 * KIB + SPARES;
                assert!(growth.peak() <= allowed, "{sizes:?}: {most} bytes queued, {} held", growth.peak());
                settle(&reactor);
                next += total / 16;
            }
        }
        assert!(
            transport.queued_bytes() > written - 16 * MIB,
            "the sockets took {}",
            written - transport.queued_bytes()
        );
        println!("{sizes:?}: {:.4} bytes held per byte queued", growth.peak() as f64 / most as f64);
        transport.abort_connection();
        settle(&reactor);
        assert!(growth.now() <= SPARES + SLACK, "{sizes:?}: {} bytes are still held", growth.now());
        drop((client, transport, reactor));
        assert!(live() <= start + KIB, "{sizes:?}: {} bytes outlive the reactor", live() - start);
    }
}

/// A writer that looks at `queued` before it writes holds no more than its mark, however much it
/// sends.
#[test]
fn a_writer_that_watches_the_queue_stays_bounded() {
    own_process!();
    const TOTAL: usize = 256 * MIB;
    const MARK: usize = MIB;
    let reactor = reactor();
    let (mut client, transport) = connected(&reactor);
    let reader = std::thread::spawn(move || {
        let (mut total, mut buffer) = (0, vec![0; 256 * KIB]);
        loop {
            match client.read(&mut buffer).unwrap() {
                0 => return total,
                count => total += count,
            }
        }
    });
    let piece = vec![b'w'; 64 * KIB];
    let growth = Growth::begin();
    let mut written = 0;
    run_until(&reactor, || {
        while transport.queued_bytes() < MARK && written < TOTAL {
            transport.write(&piece);
            written += piece.len();
        }
        written == TOTAL
    });
    transport.lose_connection();
    assert_eq!(run_beside(&reactor, reader), TOTAL);
    assert!(growth.peak() <= MARK + SPARES + 4 * piece.len(), "{} bytes were held", growth.peak());
}

/// A10: a peer that asks and does not read its answers is no longer read itself once a mark is
/// passed, and memory stays where it is; when it reads at last, it gets every answer.
#[test]
fn a_protocol_that_pauses_at_a_mark_is_bounded_by_it() {
    own_process!();
    const TOTAL: usize = 64 * MIB;
    const MARK: usize = MIB;
    let reactor = reactor();
    let echo = Counted { mark: Some(MARK), ..Counted::default() };
    let (bytes, kept) = (Rc::clone(&echo.bytes), Rc::clone(&echo.transport));
    let (_port, address) = listen(&reactor, move |_| Some(echo.clone()));
    let (go, wait) = mpsc::channel::<()>();
    let client = peer(address, move |stream| {
        let (mut reading, mut writing) = (stream.try_clone().unwrap(), stream);
        let writer = std::thread::spawn(move || (0..64).for_each(|_| writing.write_all(&vec![b'?'; MIB]).unwrap()));
        wait.recv().unwrap();
        let (mut total, mut buffer) = (0, vec![0; 256 * KIB]);
        while total < TOTAL {
            total += reading.read(&mut buffer).unwrap();
        }
        writer.join().unwrap();
        total
    });
    let growth = Growth::begin();
    run_until(&reactor, || kept.borrow().is_some());
    let transport: Transport = kept.take().unwrap();
    run_until(&reactor, || transport.queued_bytes() > MARK);
    settle(&reactor);
    let (answered, watched) = (bytes.get(), transport.queued_bytes());
    assert!(answered < TOTAL / 2, "the peer was read on");
    for _ in 0..100 {
        settle(&reactor);
    }
    assert_eq!((bytes.get(), transport.queued_bytes()), (answered, watched));
    go.send(()).unwrap();
    run_until(&reactor, || {
        if transport.queued_bytes() == 0 {
            transport.resume_producing();
        }
        client.is_finished()
    });
    assert_eq!(run_beside(&reactor, client), TOTAL);
    let allowed = MARK + SPARES + 8 * 64 * KIB + ahead_of_a_pause(&reactor, 256);
    assert!(growth.peak() <= allowed, "{} bytes were held", growth.peak());
}

/// Bytes that a connection may hold that had come before the kernel heard of its pause. A ring has
/// 256 buffers of 16 KiB. It brings all of them to a connection that has as much when no other has
/// anything; to one of many it brings 32 before it handles the next. They are held in a vector that
/// doubles, so three times as many bytes are held while it grows.
fn ahead_of_a_pause(reactor: &Reactor, buffers: usize) -> usize {
    match reactor.backend() {
        BackendKind::IoUring => 3 * buffers * 16 * KIB,
        _ => 0,
    }
}

/// Stops reading at its first chunk.
struct Stopped(Rc<RefCell<Vec<Transport>>>);

impl Protocol for Stopped {
    fn data_received(&mut self, transport: &Transport, _: &[u8]) -> Result<()> {
        transport.pause_producing();
        self.0.borrow_mut().push(transport.clone());
        Ok(())
    }
}

/// A hundred connections that pause at their first chunk, with full sockets behind them, hold no
/// more than had come before the pause, and nothing when they are gone.
#[test]
fn paused_connections_hold_what_had_come() {
    own_process!();
    const CONNECTIONS: usize = 100;
    let reactor = reactor();
    let stopped = Rc::<RefCell<Vec<Transport>>>::default();
    let place = Rc::clone(&stopped);
    let (_port, address) = listen(&reactor, move |_| Some(Stopped(Rc::clone(&place))));
    let mut clients = Vec::with_capacity(CONNECTIONS);
    for count in 1..=CONNECTIONS {
        clients.push(TcpStream::connect(address).unwrap());
        run_until(&reactor, || reactor.counters().accepted == count as u64);
    }
    let piece = vec![b'p'; MIB];
    for client in &mut clients {
        client.set_nonblocking(true).unwrap();
        while client.write(&piece).is_ok() {}
    }
    let growth = Growth::begin();
    run_until(&reactor, || stopped.borrow().len() == CONNECTIONS);
    (0..20).for_each(|_| settle(&reactor));
    // And the reactor's receive buffer, which is made when something is received.
    let allowed = CONNECTIONS * ahead_of_a_pause(&reactor, 32) + 64 * KIB + SLACK;
    println!("{} bytes held for each", growth.peak() / CONNECTIONS);
    assert!(growth.peak() <= allowed, "{} bytes were held", growth.peak());
    stopped.take().iter().for_each(Transport::abort_connection);
    settle(&reactor);
    assert!(growth.now() <= more_buffers(&reactor) + 64 * KIB + SLACK, "{} bytes are still held", growth.now());
}

/// A flood that is read and dropped costs no memory at all beyond the receive buffers.
#[test]
fn a_flood_costs_nothing() {
    own_process!();
    const FLOOD: usize = 1024 * MIB;
    let reactor = reactor();
    let received = Rc::new(Cell::new(0));
    let count = Rc::clone(&received);
    let (port, address) = listen(&reactor, move |_| Some(Sink(Rc::clone(&count))));
    let client = peer(address, |mut stream| {
        let piece = vec![b'f'; MIB];
        (0..FLOOD / MIB).for_each(|_| stream.write_all(&piece).unwrap());
        // The port is gone when this returns, and with it what the warm-up needed.
    });
    run_until(&reactor, || received.get() > MIB);
    let growth = Growth::begin();
    run_beside(&reactor, client);
    run_until(&reactor, || received.get() == FLOOD);
    assert!(growth.peak() <= more_buffers(&reactor) + SLACK, "{} bytes were held", growth.peak());
    drop(port);
}

/// The most bytes of receive buffers that a ring adds: it begins with 64 buffers, and stops at 256.
fn more_buffers(reactor: &Reactor) -> usize {
    if reactor.backend() == BackendKind::IoUring { 192 * 16 * KIB } else { 0 }
}

/// Counts what it reads.
struct Sink(Rc<Cell<usize>>);

impl Protocol for Sink {
    fn data_received(&mut self, _: &Transport, data: &[u8]) -> Result<()> {
        self.0.set(self.0.get() + data.len());
        Ok(())
    }
}

/// Once a connection has warmed up, ten thousand echoes make no allocation on the reactor's thread,
/// whether a message goes through the queue or straight to the socket.
#[test]
fn an_echo_allocates_nothing() {
    own_process!();
    const WARM: usize = 200;
    const ECHOES: usize = 10_000;
    for size in [1, 64, 4000, 16 * KIB] {
        let reactor = reactor();
        let echo = Counted::default();
        let bytes = Rc::clone(&echo.bytes);
        let (_port, address) = listen(&reactor, move |_| Some(echo.clone()));
        let client = peer(address, move |mut stream| {
            stream.set_nodelay(true).unwrap();
            let (message, mut answer) = (vec![b'm'; size], vec![0; size]);
            // A turn may see to several, and none is to see the end before they are counted.
            for _ in 0..WARM + ECHOES + 100 {
                stream.write_all(&message).unwrap();
                stream.read_exact(&mut answer).unwrap();
            }
        });
        run_until(&reactor, || bytes.get() >= WARM * size);
        let before = allocations();
        run_until(&reactor, || bytes.get() >= (WARM + ECHOES) * size);
        assert_eq!(allocations() - before, 0, "messages of {size} bytes");
        run_beside(&reactor, client);
    }
}

/// A looping call and a cooperative task hold no more after 100,000 rounds than after a few, and a
/// call that returns nothing allocates for its timer only.
#[test]
fn work_that_repeats_holds_no_more() {
    own_process!();
    const WARM: u64 = 200;
    const ROUNDS: u64 = 100_000;
    const TICK: Duration = Duration::from_millis(2);
    let clock = testing::VirtualClock::new();
    let (plain, waiting) = (LoopingCall::new(&clock, || ()), LoopingCall::new(&clock, || Deferred::succeed(())));
    let timers = clock.timers().clone();
    let later = LoopingCall::new(&clock, move || defer_later(&timers, TICK / 2, || ()));
    let cooperator = Cooperator::builder(&clock).steps(2).build();
    let timers = clock.timers().clone();
    let task = cooperator.cooperate(std::iter::repeat_with(move || defer_later(&timers, TICK, || ())));
    let ended = [plain.start(TICK), waiting.start(TICK), later.start(TICK)];
    let rounds = |count| (0..count).for_each(|_| clock.pump([TICK / 2, TICK / 2]));
    rounds(WARM);
    let growth = Growth::begin();
    rounds(ROUNDS);
    assert!(growth.now() <= KIB && growth.peak() <= 4 * KIB, "{} bytes, {} at most", growth.now(), growth.peak());
    let _ = (waiting.stop(), later.stop(), task.stop());
    rounds(WARM);
    let before = allocations();
    rounds(ROUNDS);
    let per_call = (allocations() - before) as f64 / ROUNDS as f64;
    assert!(per_call <= 1.01, "{per_call} allocations per call");
    drop(ended);
}

/// An idle connection that has served a request holds no buffer, only its own state.
#[test]
fn an_idle_connection_holds_no_buffer() {
    own_process!();
    // With the port, and what warmed the reactor up, just below the size at which its tables
    // double.
    const CONNECTIONS: usize = 250;
    let reactor = reactor();
    let (_port, address) = listen(&reactor, |_| Some(Echo));
    let mut clients = Vec::with_capacity(CONNECTIONS);
    let mut warm = Vec::with_capacity(1);
    serve_one(&reactor, address, &mut warm);
    let growth = Growth::begin();
    for _ in 0..CONNECTIONS {
        serve_one(&reactor, address, &mut clients);
    }
    let each = growth.now() / CONNECTIONS;
    println!("{each} bytes per idle connection");
    assert!(each <= 400, "{each} bytes per idle connection");
    drop(clients);
    run_until(&reactor, || reactor.counters().watched == 2);
    let left = growth.now() / CONNECTIONS;
    println!("{left} bytes per closed connection in tables");
    assert!(left <= 150, "{left} bytes are left of each connection");
}

fn serve_one(reactor: &Reactor, address: std::net::SocketAddr, clients: &mut Vec<TcpStream>) {
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(b"a request").unwrap();
    client.set_nonblocking(true).unwrap();
    let mut answer = [0; 16];
    run_until(reactor, || matches!(client.read(&mut answer), Ok(9)));
    reactor.iterate(Duration::ZERO).unwrap();
    clients.push(client);
}

/// Threads of this process that the engine has started, on whatever reactor. Each test has a
/// process of its own.
fn threads_of_ours() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.starts_with("ropewalk")).count()
}

/// I9: twenty clients of an echo on a simulated network, with everything that goes wrong there, and
/// a job and a name. When all of it is dropped no socket is open, no thread was started, and no
/// byte is held that was not held before, seed after seed. The seeds are shared out among threads,
/// each of which counts its own bytes.
#[test]
fn a_simulated_program_leaves_nothing_behind() {
    own_process!();
    const THREADS: u32 = 4;
    let seeds = |first| (first..seeds(60, 1_000)).step_by(THREADS as usize).map(u64::from);
    let soaks = (0..THREADS).map(|first| std::thread::spawn(move || soak(seeds(first))));
    for soak in soaks.collect::<Vec<_>>() {
        soak.join().expect("its seeds left nothing");
    }
    // On a real reactor a thread would have been seen.
    let reactor = reactor();
    let seen = result_of(&reactor, reactor.defer_to_thread(|| Ok(threads_of_ours()))).unwrap();
    assert_eq!(seen, 1);
}

fn soak(seeds: impl Iterator<Item = u64>) {
    let round = |seed| {
        // It looks itself that no socket is left.
        let (network, outcome) = simulate::run(seed, false);
        assert_eq!(outcome, Ok(()), "seed {seed}");
        drop(network);
        a_job_and_a_name(seed);
        assert_eq!(threads_of_ours(), 0, "seed {seed}");
    };
    // The first round allocates what is allocated once, such as the log's call sites.
    round(0);
    for seed in seeds {
        let before = live();
        round(seed);
        assert_eq!(live(), before, "seed {seed}");
    }
}

fn a_job_and_a_name(seed: u64) {
    let network = Network::with_conditions(seed, Conditions::rough(seed));
    let reactor = network.reactor([10, 0, 0, 1].into());
    network.add_name("echo.example", [[10, 0, 0, 1].into()]);
    let job = reactor.defer_to_thread(|| Ok(1));
    let name = reactor.resolve("echo.example", 7);
    network.run_until(LIMIT, || job.is_called() && name.is_called()).unwrap();
    drop((job, name));
}

/// A broadcast of 1 MiB to 10,000 readers that take nothing is in memory once, and costs each of
/// them a few words. With short writes before and behind it, the message is still there once.
#[test]
fn a_broadcast_is_in_memory_once() {
    own_process!();
    const READERS: usize = 10_000;
    const WORD: usize = size_of::<usize>();
    for (head, tail, words) in [(&b""[..], &b""[..], 16), (b"head", b"tail", 48)] {
        let room = PumpOptions::new().room(1);
        let readers: Vec<_> = (0..READERS).map(|_| room.connect(Silent, Silent)).collect();
        let transports: Vec<_> = readers.iter().map(|reader| reader.client().transport().clone()).collect();
        let settle = || readers.iter().for_each(|reader| _ = reader.pump());
        // Their peers have taken a byte before, so that there is room for one.
        transports.iter().for_each(|transport| transport.write(b"x"));
        settle();
        let growth = Growth::begin();
        let message = Bytes::from(vec![b'm'; MIB]);
        for transport in &transports {
            transport.write(head);
            transport.write_shared(message.clone());
            transport.write(tail);
        }
        drop(message);
        settle();
        let queued: usize = transports.iter().map(Transport::queued_bytes).sum();
        assert!(queued > READERS * (MIB - 10), "{queued} bytes are queued");
        let each = growth.now().saturating_sub(MIB) / READERS;
        assert!(each <= words * WORD, "{each} bytes for each reader");
    }
}

/// Reads nothing, as far as its transport can help it.
struct Silent;

impl Protocol for Silent {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        transport.pause_producing();
        Ok(())
    }

    fn data_received(&mut self, _transport: &Transport, _data: &[u8]) -> Result<()> {
        Ok(())
    }
}

/// A broadcast to a reader that keeps up allocates nothing.
#[test]
fn a_broadcast_to_a_fast_reader_allocates_nothing() {
    own_process!();
    let reactor = reactor();
    let (mut client, transport) = connected(&reactor);
    let message = Bytes::from(vec![b'm'; 32 * KIB]);
    let mut buffer = vec![0; message.len() + 4];
    let mut before = 0;
    for round in 0..20 {
        if round == 10 {
            before = allocations();
        }
        transport.write(b"head");
        transport.write_shared(message.clone());
        run_until(&reactor, || transport.queued_bytes() == 0);
        client.read_exact(&mut buffer).unwrap();
        transport.write_shared(message.clone());
        run_until(&reactor, || transport.queued_bytes() == 0);
        client.read_exact(&mut buffer[..message.len()]).unwrap();
    }
    assert_eq!(allocations() - before, 0);
    drop(transport);
}

/// A reactor that is dropped holds nothing any more, nor does its ring.
#[test]
fn a_reactor_leaves_nothing_behind() {
    own_process!();
    let mut start = None;
    for _ in 0..3 {
        let reactor = reactor();
        let both = connected(&reactor);
        drop((both, reactor));
        // Memory that another thread allocated counts as less than nothing when this one frees it.
        let held = live().wrapping_sub(*start.get_or_insert_with(live)).cast_signed();
        assert!(held <= KIB.cast_signed(), "{held} bytes outlive the reactor");
    }
}
