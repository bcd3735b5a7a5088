//! The reasons why a group of reactors does not start.

use std::io;

use thiserror::Error;

use super::ReactorError;
use crate::failure::Failure;

/// The reason why a [`ReactorGroup`](crate::reactor::ReactorGroup) does not start, fails, or
/// refuses a call. After a failed start no thread of the group is left, and no port.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GroupError {
    /// The group was to have no thread.
    #[error("a group of reactors needs at least one thread")]
    NoThreads,
    /// The system refused a thread.
    #[error("there is no thread for the group")]
    Thread(#[source] io::Error),
    /// A reactor cannot be built.
    #[error("a reactor of the group cannot be built")]
    Reactor(#[source] ReactorError),
    /// A reactor has another backend than the group's: the one that was asked for is not available,
    /// or not for all reactors.
    #[error("a reactor of the group has the backend {found}, and not {expected}")]
    Backend {
        /// The backend that was asked for, or that of the group's own reactor.
        expected: &'static str,
        /// The backend that the system provides.
        found: &'static str,
    },
    /// A port does not listen.
    #[error("the group cannot listen on {endpoint}: {failure}")]
    Listen {
        /// The description of the endpoint, or its debug representation.
        endpoint: String,
        /// A [`ListenError`](super::ListenError), or the failure of the endpoint.
        failure: Failure,
    },
    /// An endpoint did not listen before it returned, or not through the reactor that it was given.
    /// Such endpoints cannot be shared.
    #[error("the endpoint {endpoint} does not listen at once, so that a group cannot share it")]
    NotShareable {
        /// The description of the endpoint, or its debug representation.
        endpoint: String,
    },
    /// A function of the program failed or panicked on the thread of a member.
    #[error("member {member} cannot be set up: {failure}")]
    Setup {
        /// The index of the member.
        member: usize,
        /// The failure, or a [`Panicked`](crate::failure::Panicked).
        failure: Failure,
    },
    /// The group's own reactor has no port with this index.
    #[error("the group's own reactor has no port {port}")]
    NoPort {
        /// The index.
        port: usize,
    },
    /// The group's own thread panicked.
    #[error("the thread of the group panicked")]
    Panicked(#[source] crate::failure::Panicked),
}
