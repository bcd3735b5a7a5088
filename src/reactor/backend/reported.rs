//! [`Readiness`]: the report of a poller, as flags that all systems have.

#[cfg(any(target_os = "linux", target_os = "android"))]
use rustix::event::PollFlags;

/// The readiness that a poller has reported for a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Readiness(u8);

impl Readiness {
    /// No readiness.
    pub(super) const NONE: Self = Self(0);
    /// There may be something to receive.
    pub(super) const READABLE: Self = Self(1);
    /// There may be room.
    pub(super) const WRITABLE: Self = Self(2);
    /// The peer's end, or an error, was announced.
    pub(super) const HUNG_UP: Self = Self(4);
    /// An error was announced.
    pub(super) const FAILED: Self = Self(8);
    /// An urgent byte was announced. A receive stops at it, so a short receive has not drained the
    /// socket.
    pub(super) const URGENT: Self = Self(32);
    /// The peer has closed, so sent bytes would not be read. Only for UNIX sockets does this add to
    /// the other flags.
    pub(super) const GONE: Self = Self(16);

    /// An urgent byte was announced, and nothing else to read. Only foreign descriptors tell the
    /// two apart, since they may block.
    pub(super) const ONLY_URGENT: Self = Self(64);

    /// Flags with which a short receive does not prove that the socket was drained.
    pub(super) const UNDRAINED: Self = Self(Self::HUNG_UP.0 | Self::URGENT.0);

    /// Converts the flags of `poll` or epoll.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[inline(always)]
    pub(super) fn of(flags: PollFlags) -> Self {
        if flags == PollFlags::IN { Self::READABLE } else { Self::of_slow(flags) }
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn of_slow(flags: PollFlags) -> Self {
        let (readable, failed) = (flags.contains(PollFlags::IN), flags.contains(PollFlags::ERR));
        let (urgent, closed) = (flags.contains(PollFlags::PRI), flags.contains(PollFlags::HUP));
        let hung_up = closed || failed || readable && flags.contains(PollFlags::RDHUP);
        Self::NONE
            .with(Self::READABLE, readable || urgent || hung_up)
            .with(Self::WRITABLE, flags.contains(PollFlags::OUT))
            .with(Self::HUNG_UP, hung_up)
            .with(Self::FAILED, failed)
            .with(Self::URGENT, urgent)
            .with(Self::ONLY_URGENT, urgent && !readable && !hung_up)
            .with(Self::GONE, closed || failed)
    }

    /// Adds `other` if `is_so` is true.
    pub(super) fn with(self, other: Self, is_so: bool) -> Self {
        if is_so { Self(self.0 | other.0) } else { self }
    }

    /// Returns the readiness of both.
    #[inline(always)]
    pub(super) fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(super) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(super) fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }

    pub(super) fn remove(&mut self, other: Self) {
        self.0 &= !other.0;
    }
}
