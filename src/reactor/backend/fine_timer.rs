//! [`FineTimer`]: a kernel timer that the poller watches. It covers the rest of a wait below the
//! millisecond in which `epoll_wait` counts.

use std::io;
#[cfg(any(target_os = "linux", target_os = "android"))]
use std::os::fd::OwnedFd;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

#[cfg(any(target_os = "linux", target_os = "android"))]
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

/// The kernel timer: see the module.
#[cfg(any(target_os = "linux", target_os = "android"))]
#[derive(Debug)]
pub(super) struct FineTimer(OwnedFd);

#[cfg(any(target_os = "linux", target_os = "android"))]
impl FineTimer {
    pub(super) fn new() -> io::Result<Option<Self>> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        Ok(Some(Self(timer)))
    }

    /// Makes the descriptor readable after `wait`, which is not zero. This replaces an earlier
    /// wait. If another event ended the earlier one, it was not disarmed, so one wakeup may be
    /// spurious.
    pub(super) fn arm(&self, wait: Duration) -> io::Result<()> {
        let once = Itimerspec { it_interval: timespec(Duration::ZERO), it_value: timespec(wait) };
        Ok(timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once).map(drop)?)
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
impl AsRawFd for FineTimer {
    /// Returns a descriptor that is readable once the timer has expired.
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// No timer, because none is needed: this system's poller counts in nanoseconds.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
#[derive(Debug)]
pub(super) enum FineTimer {}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
impl FineTimer {
    /// Returns `None`: see the type.
    pub(super) fn new() -> io::Result<Option<Self>> {
        Ok(None)
    }

    pub(super) fn arm(&self, _wait: Duration) -> io::Result<()> {
        match *self {}
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
impl AsRawFd for FineTimer {
    fn as_raw_fd(&self) -> RawFd {
        match *self {}
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn timespec(wait: Duration) -> Timespec {
    // This fits, because no wait is longer than `LONGEST_WAIT`.
    Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() }
}

#[cfg(all(test, any(target_os = "linux", target_os = "android")))]
mod tests {
    use super::*;

    /// The kernel gets the wait to the nanosecond.
    #[test]
    fn the_kernel_is_told_the_exact_wait() {
        for nanos in [1, 999_999, 1_000_000, 1_000_001, 86_400_000_000_001] {
            let told = timespec(Duration::from_nanos(nanos));
            assert_eq!(told.tv_sec as u64 * 1_000_000_000 + told.tv_nsec as u64, nanos);
        }
    }
}
