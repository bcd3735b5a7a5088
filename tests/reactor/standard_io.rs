//! Standard input and output as a connection (`StandardIo`), over each kind of descriptor, on each
//! backend.

use std::cell::{Cell, RefCell};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, Write, pipe};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::thread;

use crate::common::*;
use ropewalk::error::{ConnectionClosed, StandardIoError, StandardStream};
use ropewalk::reactor::StandardIo;
use ropewalk::transport::QueueLimit;
use ropewalk::{Address, BackendKind, Connection, Failure, Protocol, Reactor, Result, Transport};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{MemfdFlags, OFlags, SealFlags, fcntl_add_seals, fcntl_getfl, fcntl_setfl, memfd_create};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::tcgetattr;

fn on_each(test: impl Fn(Reactor)) {
    for kind in [BackendKind::Mio, BackendKind::IoUring] {
        match reactor_on(kind) {
            Some(reactor) => test(reactor),
            None => println!("skipped on {kind:?}: {NO_BACKEND}"),
        }
    }
}

/// Echoes, and records the most bytes that were queued, and the reason of the end.
#[derive(Default)]
struct Recording {
    received: RefCell<Vec<u8>>,
    most: Cell<usize>,
    lost: RefCell<Option<Failure>>,
}

struct Echo(Rc<Recording>);

impl Protocol for Echo {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        self.0.received.borrow_mut().extend_from_slice(data);
        transport.write(data);
        self.0.most.set(self.0.most.get().max(transport.queued_bytes()));
        Ok(())
    }

    fn connection_lost(&mut self, _transport: &Transport, reason: &Failure) {
        self.0.lost.replace(Some(reason.clone()));
    }
}

/// A regular file without a name, with these bytes in front of its place.
fn file(bytes: &[u8]) -> File {
    let mut file = File::from(memfd_create("a file", MemfdFlags::CLOEXEC).expect("a file in memory"));
    file.write_all(bytes).expect("a file");
    file.rewind().expect("a file");
    file
}

fn join(reactor: &Reactor, input: impl Into<OwnedFd>, output: impl Into<OwnedFd>) -> (Connection<Echo>, Rc<Recording>) {
    let recording = Rc::<Recording>::default();
    let io = StandardIo::new(reactor).input(input).output(output);
    (io.join(Echo(Rc::clone(&recording))).expect("open descriptors"), recording)
}

fn run_until_lost(reactor: &Reactor, recording: &Recording) -> Failure {
    run_until(reactor, || recording.lost.borrow().is_some());
    recording.lost.take().expect("it is over")
}

fn is_done(reason: &Failure) -> bool {
    matches!(reason.check(), Some(ConnectionClosed::Done))
}

fn bytes(count: usize) -> Vec<u8> {
    repeated(0..251, count)
}

/// All bytes are in the file when `connection_lost` is called.
#[test]
fn regular_files_are_read_and_written() {
    on_each(|reactor| {
        for count in [0, 1, 1_000_000] {
            let (input, mut output) = (file(&bytes(count)), file(b""));
            let (connection, recording) = join(&reactor, input, output.try_clone().expect("a descriptor"));
            assert_eq!(connection.transport().peer(), Address::Pipe);
            let reason = run_until_lost(&reactor, &recording);
            assert!(is_done(&reason), "{reason}");
            output.rewind().expect("a file");
            let mut written = Vec::new();
            output.read_to_end(&mut written).expect("a file");
            assert!(written == bytes(count), "{} of {count} bytes, or others", written.len());
        }
    });
}

/// The system's poller refuses `/dev/null`. A directory has no bytes, and `/dev/full` no room.
#[test]
fn devices_and_directories_have_typed_ends() {
    on_each(|reactor| {
        let null = || File::options().read(true).write(true).open("/dev/null").expect("a device");
        let (_connection, recording) = join(&reactor, null(), null());
        assert!(is_done(&run_until_lost(&reactor, &recording)));
        let (_connection, recording) = join(&reactor, File::open("/").expect("a directory"), null());
        assert!(!is_done(&run_until_lost(&reactor, &recording)), "a directory cannot be read");
        let full = File::options().write(true).open("/dev/full").expect("a device");
        let (_connection, recording) = join(&reactor, file(b"more than fits"), full);
        assert!(!is_done(&run_until_lost(&reactor, &recording)), "a full device takes nothing");
    });
}

/// The reason counts the bytes that a file with too little room has not taken.
#[test]
fn a_full_file_has_taken_what_fits() {
    // Three pages, which no piece of the input ends with.
    const ROOM_BYTES: usize = 3 << 12;
    on_each(|reactor| {
        let full = memfd_create("a file", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).map(File::from);
        let full = full.expect("a file in memory");
        full.set_len(ROOM_BYTES as u64).expect("a file");
        fcntl_add_seals(&full, SealFlags::GROW).expect("a file that does not grow");
        let all = bytes(1 << 17);
        let (_connection, recording) = join(&reactor, file(&all), full.try_clone().expect("a copy"));
        let reason = run_until_lost(&reactor, &recording);
        let unsent = match reason.check() {
            Some(ConnectionClosed::Lost { unsent, .. }) => *unsent,
            _ => panic!("{reason}"),
        };
        assert_eq!(unsent, recording.received.borrow().len() - ROOM_BYTES);
        let mut taken = [0; ROOM_BYTES];
        full.read_exact_at(&mut taken, 0).expect("a file");
        assert!(taken == all[..ROOM_BYTES], "other bytes were written");
    });
}

/// The flags of pipes stay as they are, during the connection and after it.
#[test]
fn pipes_keep_their_flags() {
    on_each(|reactor| {
        let ((input, mut to), (mut from, output)) = (pipe().expect("a pipe"), pipe().expect("a pipe"));
        let (input_copy, output_copy) = (input.try_clone().expect("a copy"), output.try_clone().expect("a copy"));
        let nonblocking = || {
            [input_copy.as_fd(), output_copy.as_fd()]
                .map(|end| fcntl_getfl(end).expect("flags").contains(OFlags::NONBLOCK))
        };
        let (_connection, recording) = join(&reactor, input, output);
        to.write_all(b"hello").expect("a pipe");
        run_until(&reactor, || recording.received.borrow().len() == 5);
        assert_eq!(nonblocking(), [false; 2]);
        drop(to);
        assert!(is_done(&run_until_lost(&reactor, &recording)));
        assert_eq!(nonblocking(), [false; 2]);
        let mut answer = [0; 5];
        from.read_exact(&mut answer).expect("a pipe");
        assert_eq!(&answer, b"hello");
    });
}

/// One socket for both directions, as `inetd` passes it.
#[test]
fn a_socket_serves_both_directions() {
    on_each(|reactor| {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        let (_connection, recording) = join(&reactor, ours.try_clone().expect("a copy"), ours);
        theirs.write_all(b"hello").expect("a socket");
        theirs.shutdown(std::net::Shutdown::Write).expect("a socket");
        assert!(is_done(&run_until_lost(&reactor, &recording)));
        let mut answer = String::new();
        theirs.read_to_string(&mut answer).expect("a socket");
        assert_eq!(answer, "hello");
    });
}

/// Both sides of a terminal.
fn terminal() -> (File, File) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&master).and_then(|()| unlockpt(&master)).expect("a terminal");
    let name = ptsname(&master, Vec::new()).expect("a name");
    let open = File::options().read(true).write(true).open(OsStr::from_bytes(name.as_bytes()));
    (master.into(), open.expect("a terminal"))
}

/// Another program has left the terminal nonblocking. A full one holds the output back all the
/// same, and its flags stay.
#[test]
fn a_nonblocking_terminal_loses_no_output() {
    on_each(|reactor| {
        let (mut master, terminal) = terminal();
        let flags = fcntl_getfl(&terminal).expect("flags") | OFlags::NONBLOCK;
        fcntl_setfl(&terminal, flags).expect("flags");
        let copy = || terminal.try_clone().expect("a copy");
        let (connection, recording) = join(&reactor, copy(), copy());
        connection.transport().write(&vec![b'x'; 1 << 20]);
        connection.transport().lose_connection();
        // Far more than a terminal holds, before any of it is read.
        let shown = || rustix::event::poll(&mut [PollFd::new(&master, PollFlags::IN)], Some(&Timespec::default()));
        run_until(&reactor, || shown().expect("it is polled") == 1);
        settle(&reactor);
        let reading = thread::spawn(move || {
            let mut shown = vec![0; 1 << 20];
            master.read_exact(&mut shown).expect("a terminal");
            (shown.iter().all(|byte| *byte == b'x'), master)
        });
        assert!(is_done(&run_until_lost(&reactor, &recording)));
        assert!(result_of_thread(&reactor, reading).0, "other bytes came");
        assert_eq!(fcntl_getfl(&terminal).expect("flags"), flags);
    });
}

/// A terminal is read by lines, written, and hung up. Its modes and flags stay as they are.
#[test]
fn a_terminal_is_read_written_and_hung_up() {
    on_each(|reactor| {
        let (mut master, terminal) = terminal();
        let state = |terminal: &File| {
            let modes = tcgetattr(terminal).expect("modes");
            let flags = fcntl_getfl(terminal).expect("flags");
            (modes.input_modes, modes.output_modes, modes.local_modes, flags)
        };
        let before = state(&terminal);
        let copy = || terminal.try_clone().expect("a copy");
        let (_connection, recording) = join(&reactor, copy(), copy());
        // Two lines are two reads of a terminal.
        master.write_all(b"one\ntwo\n").expect("a terminal");
        run_until(&reactor, || *recording.received.borrow() == b"one\ntwo\n");
        // The terminal echoes both lines, and so does the protocol.
        let reading = thread::spawn(move || {
            let mut shown = [0; 20];
            master.read_exact(&mut shown).expect("a terminal");
            (shown, master)
        });
        let (shown, master) = result_of_thread(&reactor, reading);
        assert_eq!(shown.iter().filter(|byte| **byte == b'\n').count(), 4);
        assert!(before == state(&terminal), "the terminal has other modes or flags");
        drop(master);
        assert!(is_done(&run_until_lost(&reactor, &recording)));
    });
}

/// 10 MiB pass through a slow reader, and the queue stays near its limit.
#[test]
fn a_slow_reader_holds_the_input_back() {
    const LIMIT_BYTES: usize = 256 << 10;
    const RECEIVE_BYTES: usize = 64 << 10;
    on_each(|reactor| {
        let (mut from, output) = pipe().expect("a pipe");
        let all = bytes(10 << 20);
        let recording = Rc::<Recording>::default();
        let io = StandardIo::new(&reactor).input(file(&all)).output(output);
        let joined = io.queue_limit(QueueLimit::pause(LIMIT_BYTES as u32)).join(Echo(Rc::clone(&recording)));
        let _connection = joined.expect("open descriptors");
        // It is so slow that the queue has filled before it begins.
        run_until(&reactor, || recording.most.get() > LIMIT_BYTES / 2);
        let reading = thread::spawn(move || {
            let (mut read, mut piece) = (Vec::new(), [0; 997]);
            loop {
                match from.read(&mut piece).expect("a pipe") {
                    0 => return read,
                    count => read.extend_from_slice(&piece[..count]),
                }
            }
        });
        assert!(is_done(&run_until_lost(&reactor, &recording)));
        assert!(result_of_thread(&reactor, reading) == all, "other bytes arrived");
        let most = recording.most.get();
        assert!(most <= LIMIT_BYTES + RECEIVE_BYTES, "{most} bytes were queued");
    });
}

fn result_of_thread<T>(reactor: &Reactor, thread: thread::JoinHandle<T>) -> T {
    run_until(reactor, || thread.is_finished());
    thread.join().expect("a thread")
}

/// An output without a reader loses the connection with a typed reason, and no signal.
#[test]
fn a_lost_reader_is_a_typed_reason() {
    on_each(|reactor| {
        let ((input, _to), (from, output)) = (pipe().expect("a pipe"), pipe().expect("a pipe"));
        let (connection, recording) = join(&reactor, input, output);
        drop(from);
        connection.transport().write(b"for no one");
        let reason = run_until_lost(&reactor, &recording);
        assert!(matches!(reason.check(), Some(ConnectionClosed::Reset { unsent: 10 })), "{reason}");
    });
}

/// The loss comes behind the input that was there, though more is written without a pause.
#[test]
fn endless_input_does_not_hide_a_lost_reader() {
    /// Writes as many bytes to its own input as it receives.
    struct Endless(File, Rc<Recording>);

    impl Protocol for Endless {
        fn data_received(&mut self, _: &Transport, data: &[u8]) -> Result<()> {
            self.1.received.borrow_mut().extend_from_slice(data);
            Ok(self.0.write_all(data)?)
        }

        fn connection_lost(&mut self, _: &Transport, reason: &Failure) {
            self.1.lost.replace(Some(reason.clone()));
        }
    }

    on_each(|reactor| {
        let ((input, to), (from, output)) = (pipe().expect("a pipe"), pipe().expect("a pipe"));
        let mut to = File::from(OwnedFd::from(to));
        to.write_all(b"more and more").expect("a pipe");
        drop(from);
        let recording = Rc::<Recording>::default();
        let io = StandardIo::new(&reactor).input(input).output(output);
        let _connection = io.join(Endless(to, Rc::clone(&recording))).expect("open descriptors");
        let reason = run_until_lost(&reactor, &recording);
        assert!(matches!(reason.check(), Some(ConnectionClosed::Reset { .. })), "{reason}");
        // Once as input, and once as the rest.
        assert!(recording.received.borrow().len() <= 2 * b"more and more".len());
    });
}

/// A descriptor that is not open for its direction is named.
#[test]
fn a_descriptor_of_the_wrong_direction_is_refused() {
    on_each(|reactor| {
        for stream in [StandardStream::Input, StandardStream::Output] {
            let ((reader, other_writer), (other_reader, writer)) = (pipe().expect("a pipe"), pipe().expect("a pipe"));
            let io = StandardIo::new(&reactor);
            let io = match stream {
                StandardStream::Input => io.input(other_writer).output(writer),
                StandardStream::Output => io.input(reader).output(other_reader),
            };
            let refused = io.join(Echo(Rc::default())).err();
            let named = match &refused {
                Some(StandardIoError::Unusable { stream, .. }) => Some(*stream),
                _ => None,
            };
            assert_eq!(named, Some(stream), "{refused:?}");
        }
    });
}

/// Standard input and output belong to one connection at a time. The input of this process is
/// empty.
#[test]
fn standard_streams_belong_to_one_connection() {
    own_process!();
    let reactor = reactor();
    for _ in 0..2 {
        let recording = Rc::<Recording>::default();
        let _connection = StandardIo::new(&reactor).join(Echo(Rc::clone(&recording))).expect("both are open");
        let second = StandardIo::new(&reactor).join(Echo(Rc::default()));
        assert!(matches!(second, Err(StandardIoError::InUse)), "{second:?}");
        assert!(is_done(&run_until_lost(&reactor, &recording)));
        assert_eq!(reactor.counters().watched, 0);
    }
}
