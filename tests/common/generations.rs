//! Processes that follow one another behind one port: this program again in other roles, and peers
//! that connect all the while.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use super::LIMIT;
use ropewalk::interfaces::*;
use ropewalk::{Result, Transport};

/// Has the role of a process: see [`child`].
pub const ROLE: &str = "ROPEWALK_TEST_ROLE";

/// This program again, to run the test with this path in another role.
pub fn child(test: &str, role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(ROLE, role);
    command
}

/// The role that this process was started for, if it is a child.
pub fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// Ends a child if the test fails before it has.
pub struct Ends(pub Child);

impl Ends {
    /// Waits until the child has ended with status 0.
    #[track_caller]
    pub fn well(mut self, mut meanwhile: impl FnMut()) {
        let until = Instant::now() + LIMIT;
        while Instant::now() < until {
            if let Some(status) = self.0.try_wait().unwrap() {
                assert!(status.success(), "the child ended with {status}");
                return;
            }
            meanwhile();
            thread::yield_now();
        }
        panic!("the child hangs");
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Answers each connection with one letter, and closes it. Counts its answers.
pub struct Letter(pub u8, pub Rc<Cell<usize>>);

impl Protocol for Letter {
    fn data_received(&mut self, transport: &Transport, _data: &[u8]) -> Result<()> {
        self.1.set(self.1.get() + 1);
        transport.write(&[self.0]);
        transport.lose_connection();
        Ok(())
    }
}

/// Peers on threads: each connects, asks, and gets one letter and an end, again and again.
pub struct Askers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    address: SocketAddr,
    letters: &'static [u8],
    /// The answers with each letter, and the failures behind them.
    counts: Vec<AtomicUsize>,
    begun: AtomicUsize,
    limit: AtomicUsize,
}

impl Askers {
    /// Starts the threads. They make this number of connections, whose answers are these letters.
    pub fn start(address: SocketAddr, letters: &'static [u8], connections: usize) -> Self {
        let counts = (0..=letters.len()).map(|_| AtomicUsize::new(0)).collect();
        let (begun, limit) = (AtomicUsize::new(0), AtomicUsize::new(connections));
        let shared = Arc::new(Shared { address, letters, counts, begun, limit });
        let threads = (0..8).map(|_| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.ask_many())
        });
        Self { threads: threads.collect(), shared }
    }

    /// The number of answers with this letter.
    pub fn count(&self, letter: u8) -> usize {
        let place = self.shared.letters.iter().position(|&other| other == letter).expect("one of the letters");
        self.shared.counts[place].load(Ordering::Relaxed)
    }

    /// The number of connections that have ended, well or not.
    pub fn total(&self) -> usize {
        self.shared.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Begins no more connections.
    pub fn stop(&self) {
        self.shared.limit.store(0, Ordering::Relaxed);
    }

    /// True once all connections were made.
    pub fn are_done(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Waits for the end, and checks that no connection was lost. Returns the numbers of answers,
    /// by their letters.
    #[track_caller]
    pub fn end(self) -> Vec<usize> {
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        let mut counts: Vec<_> = self.shared.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        assert_eq!(counts.pop(), Some(0), "connections were lost");
        counts
    }
}

impl Shared {
    fn ask_many(&self) {
        while self.begun.fetch_add(1, Ordering::Relaxed) < self.limit.load(Ordering::Relaxed) {
            let answer = self.ask();
            let place = match answer.as_deref() {
                Ok(&[letter]) => self.letters.iter().position(|&other| other == letter),
                _ => None,
            };
            if place.is_none() {
                eprintln!("a connection was lost: {answer:?}");
            }
            self.counts[place.unwrap_or(self.letters.len())].fetch_add(1, Ordering::Relaxed);
        }
    }

    fn ask(&self) -> std::io::Result<Vec<u8>> {
        let mut peer = TcpStream::connect(self.address)?;
        peer.set_read_timeout(Some(LIMIT))?;
        peer.write_all(b"?")?;
        let mut heard = Vec::new();
        peer.read_to_end(&mut heard)?;
        Ok(heard)
    }
}
