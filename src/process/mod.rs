//! Child processes: a [`Command`] starts one, a [`ProcessProtocol`] handles its events, and a
//! [`ProcessTransport`] writes to it and sends it signals (Twisted: `IReactorProcess`,
//! `IProcessTransport`, `twisted.internet.protocol.ProcessProtocol`).
//!
//! | to | use |
//! |---|---|
//! | start a process | [`Reactor::spawn_process`](crate::Reactor::spawn_process) |
//! | get the output of a program | [`Reactor::process_output`](crate::Reactor::process_output) |
//! | give a process more or other pipes | [`Command::descriptor`] |
//! | write, pause, close a pipe | [`ProcessTransport`], [`ProcessTransport::child`] |
//! | run it in a terminal | [`Command::terminal`], [`ProcessTransport::set_window_size`] |
//! | talk to it as to a server | [`ProcessEndpoint`](crate::endpoints::ProcessEndpoint) |
//! | end a process | [`ProcessTransport::signal`], [`ProcessTransport::kill`] |
//!
//! The end of a process is an event of its descriptor (Linux 5.4). No handler of `SIGCHLD` is
//! installed, and other children of the program are left alone. Nothing here makes a system call:
//! the reactor does. Processes on other systems than Linux do not exist yet.

// | file | holds |
// |---|---|
// | `command.rs`, `protocol.rs`, `transport.rs`, `status.rs`, `signal.rs`, `standard_error.rs` | the interface |
// | `state.rs` | a process without I/O |
// | `joint.rs` | the only caller of a process protocol |
// | `output.rs` | the protocol that collects the output of a program |
// | `driver.rs` | the requests to the reactor |

mod command;
mod driver;
mod joint;
mod output;
mod protocol;
mod signal;
mod standard_error;
mod state;
mod status;
mod transport;

pub(crate) use self::command::Settings;
pub use self::command::{ChildDescriptor, Command, WindowSize};
pub(crate) use self::driver::ProcessDriver;
pub(crate) use self::joint::ProcessJoint;
pub use self::output::ProcessOutput;
pub(crate) use self::output::{Collected, Collector};
pub use self::protocol::ProcessProtocol;
#[cfg(test)]
pub(crate) use self::signal::NAMED;
pub use self::signal::Signal;
pub use self::standard_error::StandardErrorBehavior;
pub(crate) use self::state::{PipeDirection, ProcessState};
pub use self::status::ProcessStatus;
pub use self::transport::ProcessTransport;
