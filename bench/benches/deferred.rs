//! Time of a Deferred, beside a `oneshot` channel of the `futures` crate with the same number of
//! maps.
//!
//! `cargo bench -p ropewalk-bench --bench deferred`

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use futures::channel::oneshot;
use futures::{FutureExt, TryFutureExt};
use ropewalk::deferred::{DeferredLock, Promise, gather_results};
use ropewalk::{Deferred, Failure, Result};

/// Work of each callback, which the compiler cannot remove.
fn next(n: u64) -> u64 {
    black_box(n) + 1
}

fn three_callbacks(deferred: Deferred<u64>) -> Deferred<u64> {
    deferred.add_callback(|n| Ok(next(n))).add_callback(|n| Ok(next(n))).add_callback(|n| Ok(next(n)))
}

fn create_three_fire() -> Option<Result<u64>> {
    let (promise, deferred) = Promise::new();
    let mut end = three_callbacks(deferred);
    promise.callback(black_box(1)).expect("it has not been fired");
    end.take_result()
}

fn create_fire_three() -> Option<Result<u64>> {
    let (promise, deferred) = Promise::new();
    promise.callback(black_box(1)).expect("it has not been fired");
    three_callbacks(deferred).take_result()
}

fn succeed_three() -> Option<Result<u64>> {
    three_callbacks(Deferred::succeed(black_box(1))).take_result()
}

fn chain(links: usize) -> Option<Result<u64>> {
    let (promise, deferred) = Promise::new();
    let mut end = (0..links).fold(deferred, |end, _| end.add_callback(|n| Ok(next(n))));
    promise.callback(black_box(1)).expect("it has not been fired");
    end.take_result()
}

/// Fires `depth` Deferreds, each of which waits for the one before.
fn waiting_for_one_another(depth: usize) -> Option<Result<u64>> {
    let (innermost, inner) = Promise::new();
    let mut end = (0..depth).fold(inner, |inner, _| {
        let (promise, outer) = Promise::new();
        let end = outer.add_callback(move |()| inner);
        promise.callback(()).expect("it has not been fired");
        end
    });
    innermost.callback(black_box(1)).expect("it has not been fired");
    end.take_result()
}

fn gather(count: usize) -> Option<Result<Vec<u64>>> {
    let (promises, deferreds): (Vec<_>, Vec<_>) = (0..count).map(|_| Promise::new()).unzip();
    let mut all = gather_results(deferreds);
    for promise in &promises {
        promise.callback(black_box(1)).expect("it has not been fired");
    }
    all.take_result()
}

fn oneshot_three_maps() -> Option<Result<u64>> {
    let (sender, receiver) = oneshot::channel();
    let end = receiver.map_err(Failure::from).map_ok(next).map_ok(next).map_ok(next);
    sender.send(black_box(1)).expect("the receiver is alive");
    end.now_or_never()
}

fn oneshot_three_boxed_maps() -> Option<Result<u64>> {
    let (sender, receiver) = oneshot::channel();
    let end = receiver.map_err(Failure::from).map_ok(next).boxed_local().map_ok(next).boxed_local();
    let end = end.map_ok(next).boxed_local();
    sender.send(black_box(1)).expect("the receiver is alive");
    end.now_or_never()
}

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("deferred");
    group.bench_function("create, three callbacks, fire", |bench| bench.iter(create_three_fire));
    group.bench_function("create, fire, three callbacks", |bench| bench.iter(create_fire_three));
    group.bench_function("succeed, three callbacks", |bench| bench.iter(succeed_three));
    group.bench_function("a chain of 1,000, fired", |bench| bench.iter(|| chain(black_box(1000))));
    group.bench_function("1,000 waiting for one another", |bench| {
        bench.iter(|| waiting_for_one_another(black_box(1000)))
    });
    group.bench_function("gather 10", |bench| bench.iter(|| gather(black_box(10))));
    let lock = DeferredLock::new();
    group.bench_function("run under a free lock", |bench| {
        bench.iter(|| lock.run(|| Ok(black_box(1))).take_result());
    });
    group.finish();
    let mut group = criterion.benchmark_group("futures");
    group.bench_function("oneshot, three maps, send", |bench| bench.iter(oneshot_three_maps));
    group.bench_function("oneshot, three boxed maps, send", |bench| bench.iter(oneshot_three_boxed_maps));
    group.finish();
}

criterion_group!(deferred, benches);
criterion_main!(deferred);
