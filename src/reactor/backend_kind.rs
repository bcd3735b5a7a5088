//! [`BackendKind`]: the choice of a reactor's backend.

use std::env;
use std::io;

use super::backend::{AnyBackend, Mio};

/// The environment variable that chooses the backend if the program does not.
const BACKEND_VARIABLE: &str = "ROPEWALK_BACKEND";

/// A backend: the part of a reactor that makes the system calls (Twisted: the choice of a reactor,
/// `twisted.internet.epollreactor` and its like).
///
/// All backends behave the same, and pass the same conformance suite. They differ in their costs.
/// See [`Builder::backend`](super::Builder::backend).
///
/// ```
/// use ropewalk::{BackendKind, Reactor};
///
/// # fn main() -> ropewalk::Result<()> {
/// let reactor = Reactor::builder().backend(BackendKind::IoUring).build()?;
/// // If io_uring is not available, or this crate was built without its feature, the backend is mio.
/// assert!(matches!(reactor.backend(), BackendKind::IoUring | BackendKind::Mio));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BackendKind {
    /// Readiness: epoll or kqueue, through the `mio` crate. Available everywhere, and the default.
    Mio,
    /// Completion: io_uring. Needs the feature `io-uring`, Linux 6.1 or later, and a system that
    /// does not forbid it.
    IoUring,
}

impl BackendKind {
    /// Returns the name, as in `ROPEWALK_BACKEND`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mio => "mio",
            Self::IoUring => "io_uring",
        }
    }

    /// Returns the backend that the environment selects, or the default if it selects none.
    fn of_environment() -> io::Result<Self> {
        let Some(value) = env::var_os(BACKEND_VARIABLE).filter(|value| !value.is_empty()) else { return Ok(Self::Mio) };
        [Self::Mio, Self::IoUring].into_iter().find(|kind| value == kind.name()).ok_or_else(|| {
            let found = value.display();
            let message = format!("{BACKEND_VARIABLE} is {found:?}: expected \"mio\" or \"io_uring\"");
            io::Error::new(io::ErrorKind::InvalidInput, message)
        })
    }
}

/// Makes the requested backend, or the one that the environment selects. Without io_uring it is
/// mio, and the log gives the reason.
pub(super) fn backend(asked: Option<BackendKind>) -> io::Result<(BackendKind, AnyBackend)> {
    let asked = asked.map_or_else(BackendKind::of_environment, Ok)?;
    make_backend(asked, io_uring)
}

fn make_backend(
    asked: BackendKind,
    io_uring: impl FnOnce() -> io::Result<AnyBackend>,
) -> io::Result<(BackendKind, AnyBackend)> {
    if asked == BackendKind::IoUring {
        match io_uring() {
            Ok(backend) => return Ok((BackendKind::IoUring, backend)),
            Err(error) => tracing::warn!(%error, "no io_uring for this reactor: it uses mio"),
        }
    }
    Ok((BackendKind::Mio, Mio::new()?.into()))
}

#[cfg(all(feature = "io-uring", target_os = "linux"))]
fn io_uring() -> io::Result<AnyBackend> {
    Ok(super::backend::Uring::new()?.into())
}

#[cfg(not(all(feature = "io-uring", target_os = "linux")))]
fn io_uring() -> io::Result<AnyBackend> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this crate was built without it (feature `io-uring`, on Linux)"))
}

#[cfg(test)]
mod tests {
    use std::fmt;
    use std::sync::{Arc, Mutex};

    use tracing::field::{Field, Visit};
    use tracing::{Event, Metadata, Subscriber, span};

    use super::*;

    /// Records the fields of log events.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<String>>>);

    impl Subscriber for Lines {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }

        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

        fn event(&self, event: &Event<'_>) {
            let mut line = Line(event.metadata().level().to_string());
            event.record(&mut line);
            self.0.lock().unwrap().push(line.0);
        }

        fn enter(&self, _: &span::Id) {}

        fn exit(&self, _: &span::Id) {}
    }

    struct Line(String);

    impl Visit for Line {
        fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
            self.0 += &format!(" {field}={value:?}");
        }
    }

    /// A system that forbids io_uring, as many do, still gives a reactor on mio, and the reason in
    /// one line of the log.
    #[test]
    fn a_refused_ring_is_mio_and_one_line() {
        let lines = Lines::default();
        let refused = || Err(io::ErrorKind::PermissionDenied.into());
        let made = tracing::subscriber::with_default(lines.clone(), || make_backend(BackendKind::IoUring, refused));
        assert_eq!(made.unwrap().0, BackendKind::Mio);
        let expected = "WARN message=no io_uring for this reactor: it uses mio error=permission denied";
        assert_eq!(*lines.0.lock().unwrap(), [expected]);
    }

    /// A request for mio does not make a ring.
    #[test]
    fn nobody_makes_a_ring_for_mio() {
        let (kind, _backend) = make_backend(BackendKind::Mio, || panic!("a ring was made")).unwrap();
        assert_eq!(kind, BackendKind::Mio);
    }
}
