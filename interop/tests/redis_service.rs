//! A [`ClientService`] and a real redis that is killed and comes back. The client is that of the
//! example `redis`.

mod common;
#[path = "../../examples/redis.rs"]
#[allow(dead_code, reason = "its main takes a server that runs already")]
mod redis;

use std::time::Duration;

use common::servers::Server;
use common::*;
use redis::{Redis, Reply, ask};
use ropewalk::application::{ClientService, ClientState, Service};
use ropewalk::endpoints::client_from_string;
use ropewalk::error::{ConnectError, ConnectionClosed, Unavailable};
use ropewalk::{Connection, Deferred, Reactor, Result, for_protocol};

/// The number of commands that are under way together.
const COMMANDS: i64 = 1_000;

fn service(reactor: &Reactor, endpoint: &str) -> ClientService<Redis> {
    let endpoint = client_from_string(reactor, endpoint).expect("a good description");
    ClientService::builder(reactor, endpoint, for_protocol(|_| Redis::default()))
        .retry_policy(|_failures| Duration::from_millis(10))
        .build()
}

/// Counts up, as many times as commands may be under way.
fn count_up(connection: &Connection<Redis>) -> Vec<Deferred<Reply>> {
    (0..COMMANDS).map(|_| ask(connection, &["INCR", "count"])).collect()
}

fn results_of<T: 'static>(reactor: &Reactor, deferreds: Vec<Deferred<T>>) -> Vec<Result<T>> {
    deferreds.into_iter().map(|deferred| result_of(reactor, deferred)).collect()
}

/// The server is killed while it holds up a thousand commands. Each command is answered in its
/// order, or fails with the reason of the connection's end. Commands that wait for the next
/// connection are answered by the next server.
#[test]
fn a_killed_server_comes_back() {
    own_process!();
    on_each(|reactor| {
        let Some(mut server) = Server::redis() else { return };
        let service = service(reactor, &server.endpoints[0]);
        result_of(reactor, service.start_service()).expect("a start");
        let connection = result_of(reactor, service.when_connected(None)).expect("a connection");

        let counted = count_up(&connection);
        // It waits for a push without end, and the commands behind it wait for it.
        let blocked = ask(&connection, &["BLPOP", "absent", "0"]);
        let held_up = count_up(&connection);
        run_until(reactor, || counted[0].is_called());
        server.kill();
        // The loop has not seen the end yet.
        let written_too_late = ask(&connection, &["INCR", "count"]);

        let counted = results_of(reactor, counted);
        let answered = counted.iter().take_while(|result| result.is_ok()).count();
        assert!(answered > 0);
        for (result, expected) in counted[..answered].iter().zip(1..) {
            assert_eq!(result.as_ref().ok(), Some(&Reply::Number(expected)));
        }
        let failed = counted.into_iter().skip(answered);
        let lost = failed.chain(results_of(reactor, held_up));
        for result in lost.chain(results_of(reactor, vec![blocked, written_too_late])) {
            let failure = result.expect_err("the server was killed before it");
            assert!(failure.check::<ConnectionClosed>().is_some(), "{failure:?}");
        }

        // The service goes on trying while there is no server.
        run_until(reactor, || service.failures() > 2);
        assert!(service.connection().is_none());
        let refused = result_of(reactor, service.when_connected(Some(1))).expect_err("no server");
        assert!(matches!(refused.check(), Some(ConnectError::Refused { .. })), "{refused:?}");
        let gone = result_of(reactor, ask(&connection, &["PING"])).expect_err("an old connection");
        assert_eq!(gone.check(), Some(&Unavailable::Gone), "{gone:?}");
        let waiting: Vec<Deferred<Reply>> = (0..COMMANDS)
            .map(|_| service.when_connected(None).add_callback(|connection| ask(&connection, &["INCR", "count"])))
            .collect();

        server.restart_redis();
        for (result, expected) in results_of(reactor, waiting).into_iter().zip(1..) {
            assert_eq!(result.expect("an answer"), Reply::Number(expected));
        }
        assert_eq!((service.state(), service.failures()), (ClientState::Connected, 0));
        result_of(reactor, service.stop_service()).expect("a stop");
        assert_eq!(service.state(), ClientState::Stopped);
    });
}
