//! Asks a PostgreSQL server from callbacks, by tokio-postgres. The arguments are an endpoint, the
//! user and the database:
//!
//! ```sh
//! cargo run -p ropewalk-interop --features postgres --example postgres -- \
//!     unix:/var/run/postgresql/.s.PGSQL.5432 "$USER" postgres
//! ```
//!
//! It prints the answers of pipelined queries, the error of one of them, the sum of 100,000 rows
//! that are read one by one, and a notification that it sends itself.

use std::cell::Cell;
use std::process::ExitCode;
use std::rc::Rc;

use ropewalk::deferred::gather_results;
use ropewalk::endpoints::client_from_string;
use ropewalk::{Deferred, Failure, Result};
use ropewalk_interop::database::Database;
use tokio_postgres::{Config, Error, Row};

/// Ten queries in one callback. The fourth one divides by zero, and only that one fails.
fn pipelined(database: &Database) -> Deferred<()> {
    let database = database.clone();
    database.prepare("SELECT 12 / (4 - $1::int)").add_callback(move |statement| {
        let ask = |number: i32| {
            let answer = database.query(&statement, vec![Box::new(number + 1)]);
            answer.add_callback(move |rows| print_first(number, &rows)).add_errback(move |failure: Failure| {
                let Some(error) = failure.check::<Error>().and_then(Error::as_db_error) else { return Err(failure) };
                println!("query {number}: {}", error.message());
                Ok(())
            })
        };
        gather_results((0..10).map(ask).collect::<Vec<_>>()).add_callback(|_| Ok(()))
    })
}

fn print_first(number: i32, rows: &[Row]) -> Result<()> {
    let answer: i32 = rows.first().ok_or_else(|| Failure::message("no row came"))?.try_get(0)?;
    println!("query {number}: {answer}");
    Ok(())
}

/// Reads many rows. Each is taken when the one before was dealt with.
fn many_rows(database: &Database) -> Deferred<()> {
    let (database, sum) = (database.clone(), Rc::new(Cell::new(0)));
    database.prepare("SELECT n, repeat('x', 1000) FROM generate_series(1, 100000) AS n").add_callback(
        move |statement| {
            let added = Rc::clone(&sum);
            let read = database.for_each_row(&statement, move |row| {
                Deferred::with_result(row.try_get::<_, i32>(0).map_err(Failure::from)).add_callback({
                    let added = Rc::clone(&added);
                    move |number| {
                        added.set(added.get() + i64::from(number));
                        Ok(())
                    }
                })
            });
            read.add_callback(move |count| {
                println!("{count} rows, the sum is {}", sum.get());
                Ok(())
            })
        },
    )
}

fn main() -> ExitCode {
    ropewalk::run(|reactor| {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let [description, user, name] = &arguments[..] else {
            return Err(Failure::message("three arguments are needed: endpoint, user, database"));
        };
        let mut config = Config::new();
        config.user(user).dbname(name);
        let (notified, notification) = ropewalk::deferred::Promise::new();
        let connecting =
            Database::connect(reactor, &client_from_string(reactor, description)?, &config, move |notice| {
                // One is waited for.
                let _ = notified.callback(notice.payload().to_owned());
            });
        Ok(connecting.add_callback(|(database, over)| {
            let (first, second, third) = (database.clone(), database.clone(), database);
            pipelined(&first)
                .add_callback(move |()| many_rows(&second))
                .add_callback(move |()| third.run("LISTEN ropes; NOTIFY ropes, 'tarred'"))
                .add_callback(|()| notification)
                .add_callback(|payload| {
                    println!("notified: {payload}");
                    // No handle is left: the connection ends.
                    over
                })
        }))
    })
}
