//! A timer of the kernel that the poller watches, for what is left of a wait below the millisecond in which `epoll_wait` counts.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use ::mio::unix::SourceFd;
use ::mio::{Interest, Registry, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

/// See the module.
#[derive(Debug)]
pub(super) struct FineTimer(OwnedFd);

impl FineTimer {
    /// A timer whose expiry is an event of this token.
    pub(super) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        registry.register(&mut SourceFd(&timer.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Self(timer))
    }

    /// Wakes the poller after `wait`, which is not zero. That replaces an earlier wait, which is not disarmed when something else ended
    /// it: the poller may be woken once for nothing.
    pub(super) fn arm(&self, wait: Duration) -> io::Result<()> {
        let once = Itimerspec { it_interval: timespec(Duration::ZERO), it_value: timespec(wait) };
        Ok(timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once).map(drop)?)
    }
}

fn timespec(wait: Duration) -> Timespec {
    // It fits, for no wait is longer than `LONGEST_WAIT`.
    Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel is told the wait to the nanosecond.
    #[test]
    fn the_kernel_is_told_the_exact_wait() {
        for nanos in [1, 999_999, 1_000_000, 1_000_001, 86_400_000_000_001] {
            let told = timespec(Duration::from_nanos(nanos));
            assert_eq!(told.tv_sec as u64 * 1_000_000_000 + told.tv_nsec as u64, nanos);
        }
    }
}
