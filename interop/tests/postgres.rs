//! tokio-postgres on the reactor, with a real server, over a UNIX socket and over TCP.

mod common;

use std::cell::{Cell, RefCell};
use std::process::Command;
use std::rc::Rc;

use common::servers::Server;
use common::*;
use ropewalk::deferred::{Promise, gather_results};
use ropewalk::endpoints::client_from_string;
use ropewalk::error::ConnectError;
use ropewalk::{Deferred, Failure, Reactor};
use ropewalk_interop::database::Database;
use rustix::process::Signal;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Config, Error};

#[global_allocator]
static ALLOCATOR: allocator::Counting = allocator::Counting;

fn config() -> Config {
    let mut config = Config::new();
    config.user("ropewalk").dbname("postgres");
    config
}

#[track_caller]
fn connect(reactor: &Reactor, endpoint: &str) -> (Database, Deferred<()>) {
    let endpoint = client_from_string(reactor, endpoint).expect("a good description");
    result_of(reactor, Database::connect(reactor, &endpoint, &config(), |_| ())).expect("it lets us in")
}

/// The SQLSTATE of the server's error.
#[track_caller]
fn state(failure: &Failure) -> SqlState {
    let error = failure.check::<Error>().expect("an error of the library");
    error.code().unwrap_or_else(|| panic!("no error of the server: {error}")).clone()
}

/// A thousand queries of one callback are all answered, in their order. One that fails does so
/// alone. The connection ends with its last handle.
#[test]
fn queries_are_answered_in_order() {
    own_process!();
    let Some(server) = Server::postgres() else { return };
    on_each(|reactor| {
        for endpoint in &server.endpoints {
            let (database, over) = connect(reactor, endpoint);
            let statement = result_of(reactor, database.prepare("SELECT $1::int, 1 / ($1::int - 500)")).expect("SQL");
            let order = Rc::new(RefCell::new(Vec::new()));
            let asked = (0..1000i32).map(|number| {
                let order = Rc::clone(&order);
                database.query(&statement, vec![Box::new(number)]).add_both(move |rows| {
                    let answer = match rows {
                        Ok(rows) => rows[0].get(0),
                        Err(failure) => {
                            assert_eq!(state(&failure), SqlState::DIVISION_BY_ZERO);
                            -number
                        }
                    };
                    order.borrow_mut().push(answer);
                    Ok(())
                })
            });
            let asked = gather_results(asked.collect::<Vec<_>>());
            drop((database, statement));
            result_of(reactor, asked).expect("all are answered");
            let expected: Vec<i32> = (0..1000).map(|number| if number == 500 { -number } else { number }).collect();
            assert!(*order.borrow() == expected, "{endpoint}: {:?}", order.borrow());
            result_of(reactor, over).expect("it ends cleanly");
        }
    });
}

/// A reader of 100 MB that does not take its next row makes the server wait: little is held. When
/// it goes on, it gets all rows.
#[test]
fn many_rows_wait_for_their_reader() {
    own_process!();
    const ROWS: u32 = 100_000;
    // The stream's 64 KiB, as much again of a receive, and the library's buffers of the same size.
    // On io_uring, the receive under way at the first pause has the ring's first buffers, 1 MiB,
    // which two growing buffers hold one after the other.
    const HELD_BYTES: usize = 4 << 20;
    let Some(server) = Server::postgres() else { return };
    on_each(|reactor| {
        for endpoint in &server.endpoints {
            let (database, over) = connect(reactor, endpoint);
            let sql = "SELECT n, repeat('x', 1000) FROM generate_series(1, 100000) AS n";
            let statement = result_of(reactor, database.prepare(sql)).expect("SQL");
            let before = allocator::live();
            allocator::begin_peak();
            let (go_on, mut wait) = Promise::new();
            let mut wait = Some(std::mem::replace(&mut wait, Deferred::succeed(())));
            let (taken, sum) = (Rc::new(Cell::new(0u32)), Rc::new(Cell::new(0u64)));
            let (counts, adds) = (Rc::clone(&taken), Rc::clone(&sum));
            let mut read = database.for_each_row(&statement, move |row| {
                counts.set(counts.get() + 1);
                adds.set(adds.get() + row.get::<_, i32>(0) as u64);
                assert_eq!(row.get::<_, &str>(1).len(), 1000);
                let waits = counts.get() == 10_000;
                waits.then(|| wait.take()).flatten().unwrap_or_else(|| Deferred::succeed(()))
            });
            run_until(reactor, || taken.get() == 10_000);
            // Nothing more comes, however often the loop turns.
            for _ in 0..100 {
                reactor.iterate(std::time::Duration::from_millis(1)).expect("the loop turns");
            }
            assert!(taken.get() == 10_000 && !read.is_called());
            go_on.callback(()).expect("it waits");
            run_until(reactor, || read.is_called());
            assert_eq!(read.take_result().expect("it is called").expect("all rows"), u64::from(ROWS));
            assert_eq!(sum.get(), u64::from(ROWS) * u64::from(ROWS + 1) / 2);
            let held = allocator::peak().saturating_sub(before);
            assert!(held < HELD_BYTES, "{endpoint}: {held} bytes");
            println!("{endpoint}: {held} bytes at most");

            // An error of the reader ends its query. The connection goes on.
            let broken = database.for_each_row(&statement, |_| Deferred::fail(Failure::message("enough")));
            assert_eq!(result_of(reactor, broken).expect_err("it failed").to_string(), "enough");
            result_of(reactor, database.run("SELECT 1")).expect("it goes on");
            drop((database, statement));
            result_of(reactor, over).expect("it ends cleanly");
        }
    });
}

/// Notifications of another connection come by themselves, in order.
#[test]
fn notifications_come() {
    own_process!();
    let Some(server) = Server::postgres() else { return };
    on_each(|reactor| {
        let heard = Rc::new(RefCell::new(Vec::new()));
        let hears = Rc::clone(&heard);
        let endpoint = client_from_string(reactor, &server.endpoints[0]).expect("a good description");
        let listening = Database::connect(reactor, &endpoint, &config(), move |notification| {
            hears.borrow_mut().push(format!("{} {}", notification.channel(), notification.payload()));
        });
        let (listener, _over) = result_of(reactor, listening).expect("it lets us in");
        result_of(reactor, listener.run("LISTEN ropes")).expect("SQL");
        let (teller, _over) = connect(reactor, &server.endpoints[1]);
        result_of(reactor, teller.run("NOTIFY ropes, 'one'; NOTIFY yarns, 'none'; NOTIFY ropes, 'two'")).expect("SQL");
        run_until(reactor, || heard.borrow().len() == 2);
        assert_eq!(*heard.borrow(), ["ropes one", "ropes two"]);
        drop((listener, teller));
    });
}

/// Errors of the login are the Deferred's: of the network, and of the server.
#[test]
fn a_login_that_fails_is_an_error() {
    own_process!();
    let Some(server) = Server::postgres() else { return };
    on_each(|reactor| {
        let attempt = |endpoint: &str, name: &str| {
            let endpoint = client_from_string(reactor, endpoint).expect("a good description");
            let connecting = Database::connect(reactor, &endpoint, config().dbname(name), |_| ());
            result_of(reactor, connecting).expect_err("it fails")
        };
        assert_eq!(state(&attempt(&server.endpoints[1], "absent")), SqlState::UNDEFINED_DATABASE);
        let refused = attempt(&format!("{}-absent", server.endpoints[0]), "postgres");
        assert!(refused.check::<ConnectError>().is_some(), "{refused}");
    });
}

/// A server that dies fails the query under way, those behind it, later ones, and the connection.
#[test]
fn a_server_that_dies_fails_the_queries() {
    own_process!();
    for endpoint in 0..2 {
        on_each(|reactor| {
            let Some(server) = Server::postgres() else { return };
            let (database, over) = connect(reactor, &server.endpoints[endpoint]);
            let statement = result_of(reactor, database.prepare("SELECT pg_sleep($1)")).expect("SQL");
            let sleep = |seconds: f64| database.query(&statement, vec![Box::new(seconds)]);
            result_of(reactor, sleep(0.0)).expect("it answers");
            let asked: Vec<_> = [60.0, 0.0, 0.0].map(sleep).into();
            // An immediate shutdown.
            server.signal(Signal::QUIT);
            for query in asked {
                let failure = result_of(reactor, query).expect_err("it is not answered");
                assert!(failure.check::<Error>().is_some(), "{failure}");
            }
            result_of(reactor, over).expect_err("the server has ended it");
            let late = result_of(reactor, sleep(0.0)).expect_err("it is over");
            assert!(late.check::<Error>().is_some_and(Error::is_closed), "{late}");
        });
    }
}

/// The example does as its page says.
#[test]
fn the_example_runs() {
    own_process!();
    let Some(server) = Server::postgres() else { return };
    for (backend, endpoint) in ["mio", "io_uring"].iter().zip(&server.endpoints) {
        let mut program = Command::new("timeout");
        program.arg("30").arg(example("postgres", "postgres")).args([endpoint, "ropewalk", "postgres"]);
        let output = program.env("ROPEWALK_BACKEND", backend).output().expect("it runs");
        let text = String::from_utf8(output.stdout).expect("text");
        let lines: Vec<&str> = text.lines().collect();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(lines[..4], ["query 0: 4", "query 1: 6", "query 2: 12", "query 3: division by zero"]);
        assert_eq!(lines[10..], ["100000 rows, the sum is 5000050000", "notified: tarred"]);
    }
}
