//! Chains of a million links: they fire, are cancelled and are dropped without a deep stack.

use ropewalk::deferred::{Cancelled, Promise, unhandled};

use super::deferred::{failure, value};

/// A million links in one chain run, cancel and drop without a deep stack.
#[test]
fn a_million_links_take_no_stack() {
    const LINKS: usize = if cfg!(miri) { 1_000 } else { 1_000_000 };
    let build = || {
        let (promise, deferred) = Promise::<usize>::new();
        (promise, (0..LINKS).fold(deferred, |deferred, _| deferred.add_callback(|n| Ok(n + 1))))
    };
    let (promise, mut end) = build();
    promise.callback(0).unwrap();
    assert_eq!(value(&mut end), LINKS);

    let (_promise, end) = build();
    end.cancel();
    assert!(failure(end).check::<Cancelled>().is_some());

    let (promise, end) = build();
    drop(end);
    let ((), reports) = unhandled::collect(|| drop(promise));
    assert_eq!(reports.len(), 1);
}

/// A million Deferreds, each waiting for the next, fire, cancel and drop without a deep stack.
#[test]
fn a_million_deferreds_waiting_for_the_next_take_no_stack() {
    const DEPTH: usize = if cfg!(miri) { 1_000 } else { 1_000_000 };
    let build = || {
        let (innermost, mut inner) = Promise::<usize>::new();
        for _ in 0..DEPTH {
            let (promise, outer) = Promise::<()>::new();
            let waiting = outer.add_callback(move |()| inner);
            promise.callback(()).unwrap();
            inner = waiting;
        }
        (innermost, inner)
    };
    let (promise, mut end) = build();
    promise.callback(5).unwrap();
    assert_eq!(value(&mut end), 5);

    let (_promise, end) = build();
    end.cancel();
    assert!(failure(end).check::<Cancelled>().is_some());

    let (promise, end) = build();
    drop(end);
    let ((), reports) = unhandled::collect(|| drop(promise));
    assert_eq!(reports.len(), 1);
}
