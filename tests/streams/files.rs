//! A file that the system sends (`FileSender::file`): the same order, backpressure, progress and
//! errors as with one that is read, over TCP on each backend.

use std::cell::{Cell, RefCell};
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::net::TcpStream;
use std::rc::Rc;

use crate::common::*;
use ropewalk::policies::{ConnectionPolicies, Rate};
use ropewalk::protocols::{FileRoute, FileSender, Interrupted};
use ropewalk::{Failure, Reactor, Result, Transport};

/// A file with these bytes that has no name any more.
fn file_of(bytes: &[u8]) -> File {
    let path = std::env::temp_dir().join(format!("ropewalk-file-{}-{:p}", std::process::id(), bytes));
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

fn pattern(count: usize) -> Vec<u8> {
    repeated(0..251, count)
}

/// A connection of this thread to a reactor, with its log.
struct Fixture {
    reactor: Reactor,
    log: Log,
    client: TcpStream,
    transport: Transport,
}

impl Fixture {
    fn new() -> Self {
        let (reactor, log, kept) = (reactor(), Log::default(), Rc::default());
        let (port, address) = listen(&reactor, once(Script::new(&log).transport_into(&kept)));
        let client = TcpStream::connect(address).unwrap();
        run_until(&reactor, || kept.borrow().is_some());
        drop(port.stop_listening());
        settle(&reactor);
        let transport = kept.take().unwrap();
        Self { reactor, log, client, transport }
    }

    fn read(&mut self, count: usize) -> Vec<u8> {
        read_exact(&self.reactor, &mut self.client, count)
    }
}

/// This system sends files by itself.
const SENDS_FILES: bool = cfg!(target_os = "linux");

/// The bytes from the position of the file arrive between those that were written before and those
/// that are written when it is sent. The position is then at the end.
#[test]
fn a_file_keeps_its_place_among_other_bytes() {
    let mut it = Fixture::new();
    let body = pattern(3_000_000);
    let mut file = file_of(&body);
    file.seek(SeekFrom::Start(10)).unwrap();
    let position = file.try_clone().unwrap();
    it.transport.write(b"head ");
    it.transport.write_shared(pattern(9000));
    let sender = FileSender::file(file);
    assert_eq!(sender.route(&it.transport) == FileRoute::System, SENDS_FILES);
    let seen: Rc<RefCell<Vec<u64>>> = Rc::default();
    let (list, done) = (Rc::clone(&seen), it.transport.clone());
    let sent = sender.progress(move |count| list.borrow_mut().push(count)).begin(&it.transport);
    let result = Rc::new(Cell::new(0));
    let place = Rc::clone(&result);
    sent.add_callback(move |count| {
        place.set(count);
        done.write(b" tail");
    })
    .or_log("sending");
    let length = body.len() - 10;
    let expected = [&b"head "[..], &pattern(9000), &body[10..], b" tail"].concat();
    assert!(it.read(expected.len()) == expected);
    assert_eq!((result.get(), (&position).stream_position().unwrap()), (length as u64, body.len() as u64));
    let seen = seen.borrow();
    assert!(seen.is_sorted() && seen.last() == Some(&(length as u64)), "{seen:?}");
    assert!(!it.transport.has_producer() && !it.log.is_over());
}

/// A peer that does not read stops the file: no more than a piece waits. A write meanwhile goes
/// behind that piece.
#[test]
fn a_slow_reader_holds_the_file_back() {
    let mut it = Fixture::new();
    let body = pattern(30_000_000);
    let sent = FileSender::file(file_of(&body)).piece(100_000).begin(&it.transport);
    let mut before = usize::MAX;
    while it.transport.queued_bytes() != before || before == 0 {
        before = it.transport.queued_bytes();
        settle(&it.reactor);
        assert!(it.transport.queued_bytes() <= 100_000);
    }
    assert!(!sent.is_called() && it.transport.queued_bytes() > 0, "the test needs a full socket");
    it.transport.write(b"aside");
    let all = it.read(body.len() + 5);
    let at = (0..all.len()).find(|at| all.get(*at..at + 5) == Some(b"aside")).expect("the bytes arrive");
    assert!(all[..at] == body[..at] && all[at + 5..] == body[at..]);
    assert_eq!(result_of(&it.reactor, sent).unwrap(), 30_000_000);
}

/// A close waits for the file, and a lost peer ends it.
#[test]
fn a_file_ends_with_its_connection() {
    let mut it = Fixture::new();
    let body = pattern(20_000_000);
    let sent = FileSender::file(file_of(&body)).begin(&it.transport);
    it.transport.lose_connection();
    assert!(read_to_end(&it.reactor, &mut it.client).unwrap() == body);
    assert_eq!(result_of(&it.reactor, sent).unwrap(), 20_000_000);
    run_until(&it.reactor, || it.log.is_over());
    assert_eq!(it.log.reason(), "the connection was closed cleanly");

    let it = Fixture::new();
    let sent = FileSender::file(file_of(&body)).begin(&it.transport);
    settle(&it.reactor);
    reset_on_close(&it.client);
    drop(it.client);
    let failure: Failure = result_of(&it.reactor, sent).unwrap_err();
    assert!(failure.check::<Interrupted>().is_some_and(|end| end.sent < 20_000_000), "{failure}");
    run_until(&it.reactor, || it.log.is_over());

    let it = Fixture::new();
    let sent = FileSender::file(file_of(&body)).begin(&it.transport);
    settle(&it.reactor);
    it.transport.abort_connection();
    let failure: Failure = result_of(&it.reactor, sent).unwrap_err();
    assert!(failure.check::<Interrupted>().is_some(), "{failure}");
}

/// A file that becomes shorter ends where it ends then, also in the middle of a piece that waits,
/// and one that grows is sent as a whole.
#[test]
fn a_file_changes_while_it_is_sent() {
    for (length, when) in [(150_000_u64, 100_000), (100_000, 100_000), (450_000, 200_000)] {
        let mut it = Fixture::new();
        let file = file_of(&pattern(300_000));
        let other = file.try_clone().unwrap();
        let sender = FileSender::file(file).piece(100_000);
        let sent = sender
            .progress(move |count| {
                if count == when {
                    other.set_len(length).unwrap()
                }
            })
            .begin(&it.transport);
        assert_eq!(it.read(length as usize).len(), length as usize);
        assert_eq!(result_of(&it.reactor, sent).unwrap(), length);
        it.transport.write(b"and on");
        assert_eq!(it.read(6), b"and on");
    }

    // The rest of a piece waits for room when the file is cut in the middle of it.
    let mut it = Fixture::new();
    let body = pattern(30_000_000);
    let file = file_of(&body);
    let other = file.try_clone().unwrap();
    let sent = FileSender::file(file).begin(&it.transport);
    let mut before = u64::MAX;
    while (&other).stream_position().unwrap() != before || before == 0 {
        before = (&other).stream_position().unwrap();
        settle(&it.reactor);
    }
    let length = before + 10;
    assert!(it.transport.queued_bytes() > 10, "the test needs a full socket");
    other.set_len(length).unwrap();
    assert!(it.read(length as usize) == body[..length as usize]);
    assert_eq!(result_of(&it.reactor, sent).unwrap(), length);
    assert_eq!(it.transport.queued_bytes(), 0);
}

/// Files that the system can't send are read: of no size, of another kind, or for a connection
/// whose bytes do not leave as they are. Errors are those of a read.
#[test]
fn other_files_are_read() -> Result<()> {
    let mut it = Fixture::new();
    if SENDS_FILES {
        let status = std::fs::read("/proc/self/cmdline")?;
        let sent = FileSender::file(File::open("/proc/self/cmdline")?).begin(&it.transport);
        assert_eq!(it.read(status.len()), status);
        assert_eq!(result_of(&it.reactor, sent)?, status.len() as u64);
    }
    let (output, mut input) = io::pipe()?;
    input.write_all(b"of a pipe")?;
    drop(input);
    let sender = FileSender::file(output);
    assert_eq!(sender.route(&it.transport), FileRoute::Read);
    let sent = sender.begin(&it.transport);
    assert_eq!(it.read(9), b"of a pipe");
    assert_eq!(result_of(&it.reactor, sent)?, 9);

    ConnectionPolicies::new().send_rate(Rate::bytes_per_second(1 << 30)).share().apply(&it.transport);
    let body = pattern(300_000);
    let sender = FileSender::file(file_of(&body));
    assert_eq!(sender.route(&it.transport), FileRoute::Read);
    let sent = sender.begin(&it.transport);
    assert!(it.read(body.len()) == body);
    assert_eq!(result_of(&it.reactor, sent)?, 300_000);

    let it = Fixture::new();
    let path = std::env::temp_dir().join(format!("ropewalk-unreadable-{}", std::process::id()));
    let unreadable = OpenOptions::new().write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    unreadable.set_len(10)?;
    let sent = FileSender::file(unreadable).begin(&it.transport);
    let failure: Failure = result_of(&it.reactor, sent).unwrap_err();
    assert!(failure.check::<io::Error>().is_some(), "{failure}");
    run_until(&it.reactor, || it.log.is_over());
    Ok(())
}

/// A rate that begins in the middle of a file changes the way of the rest, and no byte.
#[test]
fn the_way_changes_in_the_middle() {
    let mut it = Fixture::new();
    let body = pattern(2_000_000);
    let paced = it.transport.clone();
    let sender = FileSender::file(file_of(&body)).piece(100_000).progress(move |count| {
        if count == 500_000 {
            ConnectionPolicies::new().send_rate(Rate::bytes_per_second(1 << 30)).share().apply(&paced);
        }
    });
    let sent = sender.begin(&it.transport);
    assert!(it.read(body.len()) == body);
    assert_eq!(result_of(&it.reactor, sent).unwrap(), 2_000_000);
}

#[allow(unsafe_code, reason = "this process has nothing that depends on the signal")]
mod system {
    unsafe extern "C" {
        fn signal(signal: i32, action: usize) -> usize;
    }

    /// Gives SIGPIPE its default action, which ends the process.
    pub(super) fn die_of_sigpipe() {
        const SIGPIPE: i32 = 13;
        // SAFETY: zero is the default action.
        assert_ne!(unsafe { signal(SIGPIPE, 0) }, usize::MAX);
    }
}

/// `sendfile` raises SIGPIPE if the peer is gone. A process that the signal would end reads its
/// files, and learns of the loss by an error.
#[test]
fn a_lost_peer_ends_no_process() {
    own_process!();
    let it = Fixture::new();
    system::die_of_sigpipe();
    let sender = FileSender::file(file_of(&pattern(3_000_000)));
    assert_eq!(sender.route(&it.transport), FileRoute::Read);
    drop(it.client);
    let sent = sender.begin(&it.transport);
    let failure = result_of(&it.reactor, sent).unwrap_err();
    assert!(failure.check::<Interrupted>().is_some(), "{failure}");
}
