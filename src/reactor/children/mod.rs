//! Child processes (Twisted: `spawnProcess`, `twisted.internet.process`): starting them, their
//! pipes, their ends.
//!
//! | file | holds |
//! |---|---|
//! | `spawn.rs` | the order of a start, and the way back at each step |
//! | `exec.rs` | the steps between fork and exec, in the child |
//! | `pidfd.rs` | the descriptor of a process: its status, signals |
//! | `exit.rs` | the watch of that descriptor |
//! | `pipe.rs` | a pipe of a child, as a connection |
//! | `terminal.rs` | a terminal in the place of pipes |
//! | `output.rs` | the output of a program in one call |

mod exec;
mod exit;
mod output;
mod pidfd;
mod pipe;
mod spawn;
mod terminal;
#[cfg(test)]
mod tests;
