//! The reactor inside tokio's current-thread runtime.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use ropewalk::error::ReactorError;
use ropewalk::interfaces::*;
use ropewalk::task::defer_later;
use ropewalk::{BackendKind, ListenOptions, Reactor, Result, Transport};
use ropewalk_hosting::tokio_host::Hosted;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::timeout;

/// The longest wait of a test. A test that passes never waits that long.
const LIMIT: Duration = Duration::from_secs(30);

struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        transport.write(data);
        Ok(())
    }
}

/// Runs `test` beside a hosted reactor, on each backend that there is, until the test is done.
fn beside<F: Future<Output = Result<()>> + 'static>(test: impl Fn(Reactor) -> F) {
    for kind in [BackendKind::Mio, BackendKind::IoUring] {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let reactor = Reactor::builder().signals(false).backend(kind).build().expect("a poller");
        if reactor.backend() != kind {
            continue;
        }
        let done = LocalSet::new().block_on(&runtime, async {
            let hosted = Hosted::begin(&reactor).expect("it does not run");
            let stopping = reactor.clone();
            let tested = test(reactor.clone());
            let tested = spawn_local(async move {
                let tested = timeout(LIMIT, tested).await.expect("the test ends");
                // A test may have stopped it.
                let _ = stopping.stop();
                tested
            });
            timeout(LIMIT, hosted).await.expect("the run ends").expect("the loop turns");
            tested.await.expect("the test does not panic")
        });
        done.unwrap_or_else(|failure| panic!("{failure} on {kind:?}"));
        assert!(!reactor.is_running());
    }
}

/// A client of tokio talks to a server of callbacks: a turn for each message, and one or two more
/// for what io_uring completes.
#[test]
fn a_client_of_tokio_talks_to_a_server_of_callbacks() {
    const ROUNDS: u64 = 200;
    beside(|reactor| async move {
        let port = reactor.listen_tcp("127.0.0.1:0".parse()?, &ListenOptions::new(), |_| Some(Echo))?;
        let mut stream = TcpStream::connect(port.host().socket_addr().expect("a TCP port")).await?;
        stream.set_nodelay(true)?;
        let before = reactor.counters().turns;
        for round in 0..ROUNDS {
            stream.write_all(&round.to_be_bytes()).await?;
            let mut answer = [0; 8];
            stream.read_exact(&mut answer).await?;
            assert_eq!(answer, round.to_be_bytes());
        }
        let turns = reactor.counters().turns - before;
        assert!((ROUNDS..=3 * ROUNDS + 10).contains(&turns), "{turns} turns");
        Ok(())
    });
}

/// No turn is made while nothing happens.
#[test]
fn an_idle_reactor_makes_no_turn() {
    beside(|reactor| async move {
        let _port = reactor.listen_tcp("127.0.0.1:0".parse()?, &ListenOptions::new(), |_| Some(Echo))?;
        tokio::time::sleep(Duration::from_millis(20)).await;
        let before = reactor.counters().turns;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(reactor.counters().turns, before);
        Ok(())
    });
}

/// Each side waits for what the other brings: timers, Deferreds, futures, threads.
#[test]
fn each_side_waits_for_the_other() {
    beside(|reactor| async move {
        let begun = reactor.seconds();
        defer_later(&reactor, Duration::from_millis(5), || Ok(())).await?;
        assert!(reactor.seconds() >= begun + Duration::from_millis(5));
        let sleep = async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            Ok::<_, ropewalk::Failure>(())
        };
        reactor.spawn(sleep).await?;
        assert_eq!(reactor.defer_to_thread(|| Ok(7)).await?, 7);
        let (told, tells) = tokio::sync::oneshot::channel();
        let remote = reactor.remote();
        let call = move |_: &Reactor| told.send(8).expect("it is awaited");
        std::thread::spawn(move || remote.call_from_thread(call)).join().expect("no panic")?;
        assert_eq!(tells.await?, 8);
        Ok(())
    });
}

/// A write of a tokio task, outside of a turn, leaves at once.
#[test]
fn a_task_writes_outside_of_a_turn() {
    struct Kept(Rc<Cell<Option<Transport>>>);

    impl Protocol for Kept {
        fn connection_made(&mut self, transport: &Transport) -> Result<()> {
            self.0.set(Some(transport.clone()));
            Ok(())
        }

        fn data_received(&mut self, _: &Transport, _: &[u8]) -> Result<()> {
            Ok(())
        }
    }
    beside(|reactor| async move {
        let place = Rc::<Cell<Option<Transport>>>::default();
        let kept = Rc::clone(&place);
        let factory = move |_| Some(Kept(Rc::clone(&kept)));
        let port = reactor.listen_tcp("127.0.0.1:0".parse()?, &ListenOptions::new(), factory)?;
        let mut stream = TcpStream::connect(port.host().socket_addr().expect("a TCP port")).await?;
        let transport = loop {
            if let Some(transport) = place.take() {
                break transport;
            }
            tokio::task::yield_now().await;
        };
        tokio::time::sleep(Duration::from_millis(20)).await;
        transport.write(b"outside");
        let mut bytes = [0; 7];
        stream.read_exact(&mut bytes).await?;
        assert_eq!(&bytes, b"outside");
        transport.lose_connection();
        assert_eq!(stream.read(&mut bytes).await?, 0);
        Ok(())
    });
}

/// A busy reactor leaves the other tasks their turns.
#[test]
fn a_busy_reactor_starves_nobody() {
    beside(|reactor| async move {
        fn again(reactor: Reactor) {
            let next = reactor.clone();
            reactor.call_later(Duration::ZERO, move || again(next));
        }
        again(reactor.clone());
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        reactor.crash()?;
        Ok(())
    });
}

/// Dropping the future leaves the run, and another one goes on.
#[test]
fn a_dropped_host_leaves_the_run() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let reactor = Reactor::builder().signals(false).build().expect("a poller");
    runtime.block_on(async {
        let mut hosted = Hosted::begin(&reactor).expect("it does not run");
        assert!(timeout(Duration::from_millis(10), &mut hosted).await.is_err());
        let second = Hosted::begin(&reactor).expect_err("it runs");
        assert!(matches!(second.check(), Some(ReactorError::AlreadyRunning)), "{second}");
        assert!(reactor.is_running());
        drop(hosted);
        assert!(!reactor.is_running());
        let hosted = Hosted::begin(&reactor).expect("it was left");
        reactor.stop().expect("it runs");
        timeout(LIMIT, hosted).await.expect("the run ends").expect("the loop turns");
    });
}
