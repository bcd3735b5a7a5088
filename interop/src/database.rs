//! [`Database`]: PostgreSQL by tokio-postgres, for programs of callbacks. Results are Deferreds.
//!
//! The library's connection is a future over a byte stream, and runs in the reactor's turns.
//! Queries that are asked for in one callback are pipelined: they leave together, and none waits
//! for the answer of another. The Deferreds fire in the order of the queries.

use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;

use futures_util::TryStreamExt;
use ropewalk::deferred::Spawner;
use ropewalk::endpoints::ClientEndpoint;
use ropewalk::streams::connect_stream;
use ropewalk::{Deferred, Reactor};
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, Notification, Row, Statement};

/// A parameter of a query.
pub type Parameter = Box<dyn ToSql + Sync>;

/// A connection to a database. A cheap handle: the last one ends the connection, behind the queries
/// under way.
#[derive(Clone)]
pub struct Database {
    client: Rc<Client>,
    spawner: Spawner,
}

impl Database {
    /// Connects to the server at an endpoint, and logs in. TLS is the endpoint's, if it is wanted.
    /// `notified` is called with each notification of the channels that were listened to.
    ///
    /// The second Deferred fires when the connection is over. It fails if the server has ended it,
    /// as the queries do that wait then.
    ///
    /// # Errors
    /// The first Deferred fails with a `ConnectError`, or with a [`tokio_postgres::Error`].
    pub fn connect<E: ClientEndpoint + ?Sized>(
        reactor: &Reactor,
        endpoint: &E,
        config: &Config,
        mut notified: impl FnMut(Notification) + 'static,
    ) -> Deferred<(Self, Deferred<()>)> {
        let (connecting, config, spawner) = (connect_stream(endpoint), config.clone(), reactor.spawner().clone());
        reactor.spawn(async move {
            let (client, mut connection) = config.connect_raw(connecting.await?, NoTls).await?;
            let over = spawner.spawn(async move {
                while let Some(message) = poll_fn(|cx| connection.poll_message(cx)).await {
                    match message? {
                        AsyncMessage::Notification(notification) => notified(notification),
                        AsyncMessage::Notice(notice) => tracing::info!(%notice, "a notice of the server"),
                        _ => {}
                    }
                }
                Ok(())
            });
            Ok((Self { client: Rc::new(client), spawner }, over))
        })
    }

    /// Prepares a statement. Only prepared statements are pipelined.
    ///
    /// # Errors
    /// The Deferred fails with a [`tokio_postgres::Error`], here and below: the server's, with its
    /// SQLSTATE, or that of a connection that is over.
    pub fn prepare(&self, sql: &str) -> Deferred<Statement> {
        let (client, sql) = (Rc::clone(&self.client), sql.to_owned());
        self.spawner.spawn(async move { Ok(client.prepare(&sql).await?) })
    }

    /// Runs a prepared statement, and returns its rows.
    pub fn query(&self, statement: &Statement, parameters: Vec<Parameter>) -> Deferred<Vec<Row>> {
        let (client, statement) = (Rc::clone(&self.client), statement.clone());
        self.spawner.spawn(async move {
            let parameters = parameters.iter().map(|parameter| &**parameter as &(dyn ToSql + Sync));
            Ok(client.query_raw(&statement, parameters.collect::<Vec<_>>()).await?.try_collect().await?)
        })
    }

    /// Runs statements without parameters, one after the other.
    pub fn run(&self, sql: &str) -> Deferred<()> {
        let (client, sql) = (Rc::clone(&self.client), sql.to_owned());
        self.spawner.spawn(async move { Ok(client.batch_execute(&sql).await?) })
    }

    /// Runs a prepared statement, and calls `row` with each row. Returns the number of rows.
    ///
    /// The next row waits for the Deferred of the one before. The server is made to wait meanwhile,
    /// so any number of rows takes little memory. An error of `row` ends the query.
    pub fn for_each_row(
        &self,
        statement: &Statement,
        mut row: impl FnMut(Row) -> Deferred<()> + 'static,
    ) -> Deferred<u64> {
        let (client, statement) = (Rc::clone(&self.client), statement.clone());
        self.spawner.spawn(async move {
            let mut rows = pin!(client.query_raw(&statement, Vec::<Parameter>::new()).await?);
            let mut count = 0;
            while let Some(next) = rows.try_next().await? {
                row(next).await?;
                count += 1;
            }
            Ok(count)
        })
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("closed", &self.client.is_closed()).finish_non_exhaustive()
    }
}
