//! Reactors on each backend, and turns of their loops.
#![allow(dead_code, unreachable_pub, reason = "each program uses its own part")]

use std::time::{Duration, Instant};

use ropewalk::{BackendKind, Deferred, Reactor, Result};

/// Time limit after which a test fails. A passing test never waits for it.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Runs a test on each backend of this system.
pub fn on_each(test: impl Fn(&Reactor)) {
    for kind in [BackendKind::Mio, BackendKind::IoUring] {
        let reactor = Reactor::builder().signals(false).backend(kind).build().expect("a reactor");
        if reactor.backend() == kind {
            test(&reactor);
        } else {
            println!("skipped on {kind:?}: the system has no such backend for us");
        }
        reactor.close().expect("it is idle");
    }
}

/// Turns the loop until `done`.
#[track_caller]
pub fn run_until(reactor: &Reactor, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < until, "it did not happen within {LIMIT:?}");
        reactor.iterate(Duration::from_millis(5)).expect("the loop turns");
    }
}

/// Turns the loop until a Deferred has a result.
#[track_caller]
pub fn result_of<T: 'static>(reactor: &Reactor, mut deferred: Deferred<T>) -> Result<T> {
    run_until(reactor, || deferred.is_called());
    deferred.take_result().expect("it is called")
}
