//! Child processes (Twisted: `spawnProcess`, `twisted.internet.process`): starting them, their
//! pipes, their ends.
//!
//! | file | holds |
//! |---|---|
//! | `spawn.rs` | the order of a start, and the way back at each step |
//! | `image.rs` | the files, arguments and environment of its exec |
//! | `exec.rs` | the clone of a child, and its steps up to the exec |
//! | `exec_elsewhere.rs` | the same on systems that start none |
//! | `listed.rs` | the list of open descriptors, read in the child |
//! | `pidfd.rs` | the descriptor of a process: its status, signals |
//! | `connect.rs` | a process as the peer of a connection |
//! | `exit.rs` | the watch of that descriptor |
//! | `pipe.rs` | a pipe of a child, as a connection |
//! | `terminal.rs` | a terminal in the place of pipes |
//! | `output.rs` | the output of a program in one call |

mod connect;
#[cfg_attr(not(target_os = "linux"), path = "exec_elsewhere.rs")]
mod exec;
mod exit;
#[cfg(target_os = "linux")]
mod image;
#[cfg(target_os = "linux")]
mod listed;
mod output;
mod pidfd;
mod pipe;
mod spawn;
mod terminal;
#[cfg(test)]
mod tests;

pub(crate) use self::connect::{OnStart, ProcessConnect};
