//! Measures the lateness of timers on an idle loop, beside tokio's `sleep`.
//!
//! `cargo bench -p ropewalk-bench --bench lateness`
//!
//! Timers run one after the other: each schedules the next. The lateness is the time from the
//! deadline, as the caller computes it, to the call. In every round, all peers take turns, so that
//! drift affects all of them.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ropewalk::{BackendKind, Clock, Reactor};
use tokio::runtime::Runtime;

/// Delays, and the number of timers of each in a round.
const DELAYS: [(Duration, usize); 3] =
    [(Duration::from_micros(100), 1000), (Duration::from_millis(1), 300), (Duration::from_millis(10), 40)];

const ROUNDS: usize = 10;

enum Peer {
    Ropewalk(Reactor),
    Tokio(Runtime),
}

impl Peer {
    fn ropewalk(kind: BackendKind) -> Option<Self> {
        let reactor = Reactor::builder().signals(false).backend(kind).build().expect("a poller is available");
        (reactor.backend() == kind).then_some(Self::Ropewalk(reactor))
    }

    /// Creates a runtime with its poller, as a network program has it.
    fn tokio() -> Self {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        Self::Tokio(builder.enable_all().build().expect("a poller is available"))
    }

    fn measure(&self, delay: Duration, count: usize) -> Vec<Duration> {
        match self {
            Self::Ropewalk(reactor) => {
                let late = Rc::new(RefCell::new(Vec::with_capacity(count)));
                let (handle, recorded) = (reactor.clone(), Rc::clone(&late));
                reactor.call_when_running(move || next_of(&handle, delay, count, &recorded));
                reactor.run().expect("the reactor runs");
                late.take()
            }
            Self::Tokio(runtime) => runtime.block_on(async {
                let mut late = Vec::with_capacity(count);
                for _ in 0..count {
                    let due = Instant::now() + delay;
                    tokio::time::sleep_until(due.into()).await;
                    late.push(due.elapsed());
                }
                late
            }),
        }
    }
}

fn next_of(reactor: &Reactor, delay: Duration, count: usize, late: &Rc<RefCell<Vec<Duration>>>) {
    if late.borrow().len() == count {
        return reactor.stop().expect("the reactor runs, because it makes this call");
    }
    let (handle, recorded, due) = (reactor.clone(), Rc::clone(late), Instant::now() + delay);
    reactor.call_later(delay, move || {
        recorded.borrow_mut().push(due.elapsed());
        next_of(&handle, delay, count, &recorded);
    });
}

fn main() {
    let peers = [
        ("ropewalk, mio", Peer::ropewalk(BackendKind::Mio)),
        ("ropewalk, io_uring", Peer::ropewalk(BackendKind::IoUring)),
        ("tokio", Some(Peer::tokio())),
    ];
    println!("us late, median and 99 %");
    for (delay, count) in DELAYS {
        let mut late = [const { Vec::new() }; 3];
        for _ in 0..ROUNDS {
            for (peer, late) in peers.iter().zip(&mut late) {
                late.extend(peer.1.as_ref().map(|peer| peer.measure(delay, count)).unwrap_or_default());
            }
        }
        for ((name, _), late) in peers.iter().zip(&mut late) {
            late.sort();
            let at = |percent| late.get(late.len() * percent / 100).map(Duration::as_micros);
            match (at(50), at(99)) {
                (Some(median), Some(most)) => println!("{delay:>6?}  {name:<20} {median:>6} {most:>6}"),
                _ => println!("{delay:>6?}  {name:<20} missing: the backend is not available"),
            }
        }
    }
}
