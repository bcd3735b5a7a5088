//! [`StreamFlags`]: the facts about a stream that take one bit each.

/// Facts about a stream, in one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StreamFlags(u8);

impl StreamFlags {
    pub(super) const NONE: Self = Self(0);
    /// Bytes have left since the close deadline was last checked.
    pub(super) const PROGRESSED: Self = Self(1);
    /// The last send took less than was queued, or is still in flight. The backend reports when to
    /// go on.
    pub(super) const BLOCKED: Self = Self(2);
    /// The socket holds bytes that the system keeps for the bytes behind them.
    pub(super) const CORKED: Self = Self(4);
    /// A `Failing` stream has made its one flush.
    pub(super) const FLUSHED: Self = Self(8);
    /// The stream is on the reactor's dirty list.
    pub(super) const DIRTY: Self = Self(32);
    /// The protocol opted in to half-closes.
    pub(super) const HALF_CLOSE: Self = Self(16);
    /// The joint lends the held bytes to the protocol at present.
    pub(super) const LENT: Self = Self(64);

    /// Bytes have left since a stream with policies last looked.
    pub(super) const SENT: Self = Self(128);
    /// Bytes have left.
    pub(super) const HAS_SENT: Self = Self(Self::PROGRESSED.0 | Self::SENT.0);

    pub(super) const fn has(self, flag: Self) -> bool {
        self.0 & flag.0 != 0
    }

    pub(super) const fn add(&mut self, flag: Self) {
        self.0 |= flag.0;
    }

    pub(super) const fn set(&mut self, flag: Self, on: bool) {
        self.0 = if on { self.0 | flag.0 } else { self.0 & !flag.0 };
    }

    /// Sets or clears a flag. Returns `true` if it was set before.
    pub(super) const fn replace(&mut self, flag: Self, on: bool) -> bool {
        let had = self.has(flag);
        self.set(flag, on);
        had
    }

    /// Clears a flag. Returns `true` if it was set.
    pub(super) const fn take(&mut self, flag: Self) -> bool {
        self.replace(flag, false)
    }
}
