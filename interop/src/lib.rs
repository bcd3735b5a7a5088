//! Libraries of others on Ropewalk's loop. Nothing here is published.
//!
//! | library | module | feature | on |
//! |---|---|---|---|
//! | libcurl, its multi interface | `curl_multi` | `curl` | [`Reactor::watch`](ropewalk::Reactor::watch), and timers |
//! | tokio-tungstenite | `chat` | `websocket` | byte streams |
//! | tokio-postgres | `database` | `postgres` | byte streams |
//! | redis | none, its test alone | `redis` | byte streams, bound to their thread |
//! | the program redis, with the client of an example | none, its test alone | none | a `ClientService` |
//! | hyper, as a server of files | `http` | `http` | [`streams`](ropewalk::streams) |

#[cfg(feature = "websocket")]
pub mod chat;
#[cfg(feature = "curl")]
pub mod curl_multi;
#[cfg(feature = "postgres")]
pub mod database;
#[cfg(feature = "http")]
pub mod http;
