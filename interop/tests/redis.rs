//! The async client of redis on the reactor, with a real server, over a UNIX socket and over TCP.
//!
//! Its multiplexed connection wants a stream that is `Send`, and so gets one that is bound to its
//! thread. Its own time-outs would take a runtime of tokio, and are off.

mod common;

use std::cell::Cell;
use std::rc::Rc;

use common::servers::Server;
use common::*;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, FromRedisValue, RedisConnectionInfo, RedisError};
use ropewalk::endpoints::client_from_string;
use ropewalk::streams::{ThreadBound, connect_stream};
use ropewalk::{Deferred, Reactor, Result};

/// A connection, and a Deferred that fires when the library's driver of it has ended.
#[track_caller]
fn connect(reactor: &Reactor, endpoint: &str) -> (MultiplexedConnection, Deferred<()>) {
    let connecting = connect_stream(&client_from_string(reactor, endpoint).expect("a good description"));
    let spawner = reactor.spawner().clone();
    let connected = reactor.spawn(async move {
        let stream = ThreadBound::new(connecting.await?);
        let config = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
        let info = RedisConnectionInfo::default();
        let (connection, driver) = MultiplexedConnection::new_with_config(&info, stream, config).await?;
        Result::Ok((connection, spawner.spawn(driver)))
    });
    result_of(reactor, connected).expect("a connection")
}

/// Sends a command, and returns a Deferred of its answer.
fn ask<T: FromRedisValue + 'static>(
    reactor: &Reactor,
    connection: &MultiplexedConnection,
    words: &[&str],
) -> Deferred<T> {
    let (mut command, mut connection) = (redis::Cmd::new(), connection.clone());
    for word in words {
        command.arg(*word);
    }
    reactor.spawn(async move { Ok(command.query_async(&mut connection).await?) })
}

/// Values of 300 kB come back as they were, and commands are answered in order: ten thousand in one
/// pipeline, and a thousand at once by themselves. An error of the server is its command's alone.
#[test]
fn commands_are_answered() {
    own_process!();
    let Some(server) = Server::redis() else { return };
    on_each(|reactor| {
        for endpoint in &server.endpoints {
            let (connection, over) = connect(reactor, endpoint);
            let value: Vec<u8> = (0..300_000).map(|at| (at * 7) as u8).collect();
            let (mut setting, sent) = (connection.clone(), value.clone());
            let got = reactor.spawn(async move {
                redis::cmd("SET").arg("large").arg(&sent).query_async::<()>(&mut setting).await?;
                Result::Ok(redis::cmd("GET").arg("large").query_async::<Vec<u8>>(&mut setting).await?)
            });
            assert!(result_of(reactor, got).expect("an answer") == value);

            result_of::<i64>(reactor, ask(reactor, &connection, &["DEL", "count"])).expect("an answer");
            let mut pipelined = connection.clone();
            let counted = reactor.spawn(async move {
                let mut pipe = redis::pipe();
                for _ in 0..10_000 {
                    pipe.cmd("INCR").arg("count");
                }
                Result::Ok(pipe.query_async::<Vec<i64>>(&mut pipelined).await?)
            });
            assert!(result_of(reactor, counted).expect("answers").into_iter().eq(1..=10_000));
            let single: Vec<Deferred<i64>> =
                (0..1_000).map(|_| ask(reactor, &connection, &["INCR", "count"])).collect();
            let wrong = ask::<i64>(reactor, &connection, &["LPUSH", "count", "x"]);
            for (answer, expected) in single.into_iter().zip(10_001..) {
                assert_eq!(result_of(reactor, answer).expect("an answer"), expected);
            }
            let failure = result_of(reactor, wrong).expect_err("it is no list");
            assert_eq!(failure.check::<RedisError>().and_then(RedisError::code), Some("WRONGTYPE"), "{failure}");

            drop(connection);
            result_of(reactor, over).expect("it ends with its last handle");
        }
    });
}

/// A server that is killed under way: each command is answered, or fails. So does a later one.
#[test]
fn a_killed_server_fails_the_commands() {
    own_process!();
    for endpoint in 0..2 {
        on_each(|reactor| {
            let Some(mut server) = Server::redis() else { return };
            let (connection, over) = connect(reactor, &server.endpoints[endpoint]);

            // 5,000 commands are answered under way. `BLPOP` holds up the commands behind it.
            let (answered, failed) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
            let count = |words: &[&str]| {
                let (answered, failed) = (Rc::clone(&answered), Rc::clone(&failed));
                let counted = ask::<redis::Value>(reactor, &connection, words).add_both(move |answer| {
                    let counter = if answer.is_ok() { answered } else { failed };
                    counter.set(counter.get() + 1);
                    Ok(())
                });
                counted.or_log("a count");
            };
            (0..5_000).for_each(|_| count(&["INCR", "count"]));
            count(&["BLPOP", "absent", "0"]);
            (0..100).for_each(|_| count(&["INCR", "count"]));
            run_until(reactor, || answered.get() > 0);
            server.kill();
            run_until(reactor, || answered.get() + failed.get() == 5_101);
            assert!(failed.get() >= 101, "{} of them", failed.get());
            let late = ask::<i64>(reactor, &connection, &["INCR", "count"]);
            assert!(result_of(reactor, late).expect_err("it is gone").check::<RedisError>().is_some());
            drop(connection);
            result_of(reactor, over).expect("the driver has ended");
        });
    }
}
