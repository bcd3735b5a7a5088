//! [`BackendKind`]: which backend a reactor gets.

use std::env;
use std::io;

use super::backend::{Backend, Mio};

/// Who chooses where the program does not.
const VARIABLE: &str = "ROPEWALK_BACKEND";

/// What does a reactor's system calls (Twisted: the choice of a reactor, `twisted.internet.epollreactor` and its like).
///
/// They do the same, and are tested with the same suite; they differ in what it costs. See [`Builder::backend`](super::Builder::backend).
///
/// ```
/// use ropewalk::{BackendKind, Reactor};
///
/// # fn main() -> ropewalk::Result<()> {
/// let reactor = Reactor::builder().backend(BackendKind::IoUring).build()?;
/// // Where the system has none for us, or this crate was built without its feature, it is the other.
/// assert!(matches!(reactor.backend(), BackendKind::IoUring | BackendKind::Mio));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BackendKind {
    /// Readiness: epoll or kqueue, by the `mio` crate. Everywhere, and the default.
    Mio,
    /// Completion: io_uring. With the feature `io-uring`, on Linux 6.1 or later, where it is not forbidden.
    IoUring,
}

impl BackendKind {
    /// The name of it, as `ROPEWALK_BACKEND` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mio => "mio",
            Self::IoUring => "io_uring",
        }
    }

    /// What the environment asks for; the default where it asks for nothing.
    fn of_environment() -> io::Result<Self> {
        let Some(value) = env::var_os(VARIABLE).filter(|value| !value.is_empty()) else { return Ok(Self::Mio) };
        [Self::Mio, Self::IoUring].into_iter().find(|kind| value == kind.name()).ok_or_else(|| {
            let found = value.display();
            let message = format!("{VARIABLE} is {found:?}: expected \"mio\" or \"io_uring\"");
            io::Error::new(io::ErrorKind::InvalidInput, message)
        })
    }
}

/// A backend as asked for, or as the environment asks where nobody does. Without io_uring it is mio, and the log says why.
pub(super) fn backend(asked: Option<BackendKind>) -> io::Result<(BackendKind, Box<dyn Backend>)> {
    let asked = asked.map_or_else(BackendKind::of_environment, Ok)?;
    if asked == BackendKind::IoUring {
        match io_uring() {
            Ok(backend) => return Ok((BackendKind::IoUring, backend)),
            Err(error) => tracing::warn!(%error, "no io_uring for this reactor: it uses mio"),
        }
    }
    Ok((BackendKind::Mio, Box::new(Mio::new()?)))
}

#[cfg(all(feature = "io-uring", target_os = "linux"))]
fn io_uring() -> io::Result<Box<dyn Backend>> {
    Ok(Box::new(super::backend::Uring::new()?))
}

#[cfg(not(all(feature = "io-uring", target_os = "linux")))]
fn io_uring() -> io::Result<Box<dyn Backend>> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "built without it (feature `io-uring`, on Linux)"))
}
