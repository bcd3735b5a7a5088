//! A server of static files over HTTP/1.0, 1.1 and HTTP/2: hyper on the streams of a reactor.
//!
//! | file | holds |
//! |---|---|
//! | `program.rs` | [`start`]: arguments, ports, the stop on a signal |
//! | `server.rs` | [`HttpServer`]: connections, their limits and time-outs, the drain |
//! | `connections.rs` | the open connections, and the deadline of each |
//! | `files.rs` | [`Files`]: the service that answers with files |
//! | `opened.rs` | paths, and opening a file that is below the root |
//! | `conditions.rs` | conditional requests and ranges, without I/O |
//! | `body.rs` | bodies that are read from a file in pieces |
//!
//! [`HttpServer`] knows nothing of files: it serves any function from a request to an answer.

mod body;
mod conditions;
mod connections;
mod files;
mod opened;
mod program;
mod server;

pub use self::body::FileBody;
pub use self::connections::TrackedBody;
pub use self::files::{FileAnswer, Files};
pub use self::program::start;
pub use self::server::{HttpLimits, HttpServer};
