//! [`AnyBackend`]: the backend of a reactor, of any kind. The calls that each turn makes are
//! compiled for the backends of this crate. So the system calls of the readiness backend stand in
//! the loop's own frame. All other calls go through the trait object.
//!
//! The reason is branch prediction. On the measured machines, a return into a frame that was
//! entered before a system call is mispredicted after that call. `docs/costs.md` has the figures.

use std::io;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

#[cfg(all(feature = "io-uring", target_os = "linux"))]
use super::Uring;
use super::{Backend, BackendEvent, Inbox, Mio, Outgoing, Progress};
use crate::transport::id::Id;

/// See the module.
#[expect(clippy::large_enum_variant, reason = "a reactor has one, and the usual one must not be behind a pointer")]
#[repr(u8)]
pub(crate) enum AnyBackend {
    /// The simulated network, and the backends of tests.
    Other(Box<dyn Backend>),
    #[cfg(all(feature = "io-uring", target_os = "linux"))]
    Uring(Box<Uring>),
    // The last variant, because the compiler tests for it first.
    Mio(Mio),
}

impl AnyBackend {
    /// [`Backend::wait`].
    #[inline(always)]
    pub(in crate::reactor) fn wait(&mut self, until: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Mio(backend) => backend.wait(until),
            #[cfg(all(feature = "io-uring", target_os = "linux"))]
            Self::Uring(backend) => backend.wait(until),
            Self::Other(backend) => backend.wait(until),
        }
    }

    /// [`Backend::next_received`].
    #[inline(always)]
    pub(in crate::reactor) fn next_received(&mut self, inbox: &mut Inbox) -> Option<Id> {
        match self {
            Self::Mio(backend) => backend.next_received(inbox),
            #[cfg(all(feature = "io-uring", target_os = "linux"))]
            Self::Uring(backend) => backend.next_received(inbox),
            Self::Other(backend) => backend.next_received(inbox),
        }
    }

    /// [`Backend::next`].
    #[inline(always)]
    pub(in crate::reactor) fn next(&mut self, inbox: &mut Inbox) -> Option<(Id, BackendEvent)> {
        match self {
            Self::Mio(backend) => backend.next(inbox),
            #[cfg(all(feature = "io-uring", target_os = "linux"))]
            Self::Uring(backend) => backend.next(inbox),
            Self::Other(backend) => backend.next(inbox),
        }
    }

    /// [`Backend::send`].
    #[inline(always)]
    pub(in crate::reactor) fn send(&mut self, id: Id, outgoing: Outgoing<'_>) -> io::Result<Progress> {
        match self {
            Self::Mio(backend) => backend.send(id, outgoing),
            #[cfg(all(feature = "io-uring", target_os = "linux"))]
            Self::Uring(backend) => backend.send(id, outgoing),
            Self::Other(backend) => backend.send(id, outgoing),
        }
    }
}

impl Deref for AnyBackend {
    type Target = dyn Backend;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::Mio(backend) => backend,
            #[cfg(all(feature = "io-uring", target_os = "linux"))]
            Self::Uring(backend) => &**backend,
            Self::Other(backend) => &**backend,
        }
    }
}

impl DerefMut for AnyBackend {
    fn deref_mut(&mut self) -> &mut Self::Target {
        match self {
            Self::Mio(backend) => backend,
            #[cfg(all(feature = "io-uring", target_os = "linux"))]
            Self::Uring(backend) => &mut **backend,
            Self::Other(backend) => &mut **backend,
        }
    }
}

impl From<Mio> for AnyBackend {
    fn from(backend: Mio) -> Self {
        Self::Mio(backend)
    }
}

#[cfg(all(feature = "io-uring", target_os = "linux"))]
impl From<Uring> for AnyBackend {
    fn from(backend: Uring) -> Self {
        Self::Uring(Box::new(backend))
    }
}

impl<B: Backend + 'static> From<Box<B>> for AnyBackend {
    fn from(backend: Box<B>) -> Self {
        Self::Other(backend)
    }
}
