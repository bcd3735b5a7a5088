//! Protocols, and parts of protocols, that many programs need (Twisted: `twisted.protocols`).
//!
//! | purpose | type | Twisted's name |
//! |---|---|---|
//! | send a file, no faster than the peer reads | [`FileSender`] | `basic.FileSender` |

mod file_sender;

pub use self::file_sender::{FileSender, Interrupted, Stalled};
