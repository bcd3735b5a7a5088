//! [`RingWaker`]: how other threads end a wait of the ring.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use rustix::event::EventfdFlags;

use crate::log::error;
use crate::reactor::backend::Wake;

/// Wakes the ring, and a host that waits in its place.
pub(super) struct RingWaker {
    /// The ring polls this counter. It is never read, because each addition is an event.
    bell: OwnedFd,
    /// The counter to which the ring reports completions for a host. The waker adds to it as well:
    /// the kernel does not report to a counter what is caused by an addition to another one.
    reports: OnceLock<OwnedFd>,
}

impl RingWaker {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { bell: counter()?, reports: OnceLock::new() })
    }

    /// Returns the counter that the ring polls.
    pub(super) fn bell(&self) -> &OwnedFd {
        &self.bell
    }

    /// Returns the counter for a host, which is made by the first call.
    pub(super) fn reports(&self) -> io::Result<&OwnedFd> {
        if let Some(reports) = self.reports.get() {
            return Ok(reports);
        }
        let made = counter()?;
        Ok(self.reports.get_or_init(|| made))
    }

    /// Takes the reports so far. Returns `false` if there were none.
    pub(super) fn take_reports(&self) -> bool {
        let mut count = [0; 8];
        self.reports.get().is_some_and(|reports| rustix::io::read(reports, &mut count).is_ok())
    }
}

impl Wake for RingWaker {
    fn wake(&self) {
        for counter in [Some(&self.bell), self.reports.get()].into_iter().flatten() {
            // The only possible failure is a full counter, which takes hundreds of years.
            if let Err(error) = rustix::io::write(counter, &1_u64.to_ne_bytes()) {
                error!(%error, "cannot wake the reactor");
            }
        }
    }
}

/// Makes a counter of the kernel, which is readable while it is not zero.
fn counter() -> io::Result<OwnedFd> {
    Ok(rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}
