//! The traits of tokio and of hyper, the executor, the timer, and what is bound to its thread.

use std::io::ErrorKind;
use std::time::Duration;

use hyper::rt::{Executor, Read, ReadBuf, Timer, Write};
use ropewalk::streams::{ClockTimer, LocalExecutor, ThreadBound};
use ropewalk::testing::VirtualClock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// tokio's traits, by tokio's own helpers, without its runtime: copy, split, shutdown.
#[test]
fn tokio_reads_and_writes() {
    let (pump, mut ours, theirs) = pair(5000);
    let spawner = pump.clock().spawner().clone();
    let echoed = spawner.spawn(async move {
        let (mut reader, mut writer) = tokio::io::split(theirs);
        let count = tokio::io::copy(&mut reader, &mut writer).await?;
        writer.shutdown().await?;
        ropewalk::Result::Ok(count)
    });
    let mut asked = spawner.spawn(async move {
        assert!(tokio::io::AsyncWrite::is_write_vectored(&ours));
        ours.write_all(&pattern(60_000)).await?;
        ours.flush().await?;
        ours.shutdown().await?;
        let mut answer = Vec::new();
        ours.read_to_end(&mut answer).await?;
        assert_eq!(ours.write_all(b"late").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        ropewalk::Result::Ok(answer)
    });
    for _ in 0..100 {
        pump.flush();
        pump.clock().turn();
    }
    assert!(asked.take_result().expect("an answer").unwrap() == pattern(60_000));
    assert!(echoed.is_called());
}

/// hyper's traits: a read fills its cursor and no more, a write takes pieces, a shutdown waits.
#[test]
fn hyper_reads_and_writes() {
    let (connection, mut stream) = joined();
    let task = Task::new();
    let waker = task.waker();
    let mut cx = Context::from_waker(&waker);
    let mut read = |stream: &mut ByteStream, room| {
        let mut space = vec![0; room];
        let mut buffer = ReadBuf::new(&mut space);
        let polled = Read::poll_read(Pin::new(stream), &mut cx, buffer.unfilled());
        polled.map_ok(|()| buffer.filled().to_vec())
    };
    assert!(read(&mut stream, 4).is_pending());
    connection.deliver(b"a rope");
    assert_eq!((ready(read(&mut stream, 4)), ready(read(&mut stream, 4))), (b"a ro".to_vec(), b"pe".to_vec()));
    connection.end_of_stream();
    assert_eq!(ready(read(&mut stream, 4)), b"");

    let mut cx = Context::from_waker(&waker);
    assert!(Write::is_write_vectored(&stream));
    let pieces = [b"one ", b"two "].map(|piece| std::io::IoSlice::new(piece));
    assert_eq!(ready(Write::poll_write_vectored(Pin::new(&mut stream), &mut cx, &pieces)), 8);
    assert_eq!(ready(Write::poll_write(Pin::new(&mut stream), &mut cx, b"three")), 5);
    ready(Write::poll_flush(Pin::new(&mut stream), &mut cx));
    assert!(Write::poll_shutdown(Pin::new(&mut stream), &mut cx).is_pending());
    connection.turn();
    ready(Write::poll_shutdown(Pin::new(&mut stream), &mut cx));
    assert_eq!(connection.string().value(), b"one two three");
}

/// Sleeps end on the clock's time, are moved by a reset, before and after their end, and are
/// cancelled by a drop.
#[test]
fn the_timer_is_the_clock() {
    let clock = VirtualClock::new();
    let timer = ClockTimer::new(&clock);
    let start = timer.now();
    let seconds = Duration::from_secs;
    let task = Task::new();
    let waker = task.waker();
    let mut cx = Context::from_waker(&waker);

    let mut sleep = timer.sleep_until(start + seconds(10));
    assert!(sleep.as_mut().poll(&mut cx).is_pending());
    clock.advance(seconds(9));
    timer.reset(&mut sleep, start + seconds(20));
    clock.advance(seconds(10));
    assert!(sleep.as_mut().poll(&mut cx).is_pending());
    assert_eq!(task.woken(), 0);
    clock.advance(seconds(1));
    assert_eq!((task.woken(), sleep.as_mut().poll(&mut cx)), (1, Poll::Ready(())));
    assert_eq!(timer.now() - start, seconds(20));

    timer.reset(&mut sleep, start + seconds(25));
    assert!(sleep.as_mut().poll(&mut cx).is_pending());
    clock.advance(seconds(5));
    assert_eq!((task.woken(), sleep.as_mut().poll(&mut cx)), (1, Poll::Ready(())));

    use ropewalk::Clock;
    let left = clock.timers().len();
    let dropped = timer.sleep(seconds(1));
    assert_eq!(clock.timers().len(), left + 1);
    drop(dropped);
    assert_eq!(clock.timers().len(), left);
    assert!(timer.sleep_until(start).as_mut().poll(&mut cx).is_pending(), "it is due in the next turn");
}

/// The executor runs futures that are not `Send`, logs one that panics, and says nothing of futures
/// that a closing reactor drops.
#[test]
fn the_executor_runs_local_futures() {
    let clock = VirtualClock::new();
    let executor = LocalExecutor::new(clock.spawner());
    let count = Rc::new(Cell::new(0));
    let counted = Rc::clone(&count);
    executor.execute(async move { counted.set(counted.get() + 1) });
    assert_eq!(count.get(), 1);
    let ((), lines) = common::logged(|| executor.execute(async { panic!("a task") }));
    assert!(lines.len() == 1 && lines[0].contains("a task"), "{lines:?}");
    let ((), lines) = common::logged(|| {
        let reactor = common::reactor();
        LocalExecutor::new(reactor.spawner()).execute(std::future::pending::<()>());
        reactor.close().unwrap();
    });
    assert_eq!(lines, [""; 0]);
}

fn wants_send<T: Send + Sync + 'static>(value: T) -> T {
    value
}

/// A bound value is `Send`, has the traits of its value, and panics on another thread.
#[test]
fn a_bound_value_stays_on_its_thread() {
    let (connection, stream) = joined();
    let mut bound = wants_send(ThreadBound::new(stream));
    let task = Task::new();
    let waker = task.waker();
    let mut cx = Context::from_waker(&waker);
    connection.deliver(b"yarn");
    let mut space = [0; 10];
    let mut buffer = tokio::io::ReadBuf::new(&mut space);
    ready(tokio::io::AsyncRead::poll_read(Pin::new(&mut bound), &mut cx, &mut buffer));
    assert_eq!(buffer.filled(), b"yarn");
    assert_eq!(ready(Write::poll_write(Pin::new(&mut bound), &mut cx, b"rope")), 4);
    assert_eq!(ready(AsyncWrite::poll_write(Pin::new(&mut bound), &mut cx, b" and")), 4);
    connection.turn();
    assert_eq!(connection.string().value(), b"rope and");

    let value = ThreadBound::new(Rc::new(5));
    assert!(value.is_here());
    let (shown, panicked) = std::thread::scope(|scope| {
        let shown = scope.spawn(|| format!("{value:?} {}", value.is_here())).join().unwrap();
        (shown, scope.spawn(|| **value).join().is_err())
    });
    assert_eq!((&*shown, panicked), ("ThreadBound(<on another thread>) false", true));
    assert_eq!(*value.into_inner(), 5);
}
