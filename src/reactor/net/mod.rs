//! The network: ports, connections and attempts, between protocols and the backend.
//!
//! | file | holds |
//! |---|---|
//! | `connections.rs` | completions handed to protocols, requests handed to sockets, ends |
//! | `lingering.rs` | sockets that are read on after their close |
//! | `port.rs`, `connect.rs`, `unix.rs` | listening, connecting; the same over UNIX sockets |
//! | `options.rs` | the options of both |
//! | `resolver.rs` | names, and interfaces by name |

pub(in crate::reactor) mod connect;
pub(in crate::reactor) mod connections;
pub(in crate::reactor) mod lingering;
pub(in crate::reactor) mod options;
pub(in crate::reactor) mod port;
pub(in crate::reactor) mod resolver;
pub(in crate::reactor) mod unix;
