//! [`Interest`]: the readiness that a watch of a foreign descriptor waits for.

use std::fmt;
use std::ops::{BitOr, BitOrAssign};

/// The kinds of readiness that a [watch](super::Reactor::watch) waits for. Kinds are combined with
/// `|`.
///
/// | constant | calls | when (Twisted's name) |
/// |---|---|---|
/// | [`READ`](Self::READ) | `do_read` | there is something to read (`addReader`) |
/// | [`WRITE`](Self::WRITE) | `do_write` | there is room to write (`addWriter`) |
/// | [`URGENT`](Self::URGENT) | `do_read_urgent` | there is urgent data, the `POLLPRI` of `poll(2)` (none) |
/// | [`NONE`](Self::NONE) | nothing | never: the watch is paused |
///
/// ```
/// use ropewalk::reactor::Interest;
///
/// let both = Interest::READ | Interest::WRITE;
/// assert!(both.reads() && both.writes() && !both.is_urgent());
/// assert_eq!(both.without(Interest::READ), Interest::WRITE);
/// assert!(Interest::NONE.is_none());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Interest(u8);

impl Interest {
    /// No readiness at all: the watch is paused. Not even a hang-up is reported.
    pub const NONE: Self = Self(0);
    /// Something to read, or the peer's end.
    pub const READ: Self = Self(1);
    /// Room to write.
    pub const WRITE: Self = Self(2);
    /// Urgent data: a byte out of band of a TCP socket, or an event of a file of `/sys` or `/proc`.
    /// Linux only.
    pub const URGENT: Self = Self(4);

    /// Returns `true` if reading is of interest.
    pub fn reads(self) -> bool {
        self.0 & Self::READ.0 != 0
    }

    /// Returns `true` if writing is of interest.
    pub fn writes(self) -> bool {
        self.0 & Self::WRITE.0 != 0
    }

    /// Returns `true` if urgent data is of interest.
    pub fn is_urgent(self) -> bool {
        self.0 & Self::URGENT.0 != 0
    }

    /// Returns `true` if nothing is of interest.
    pub fn is_none(self) -> bool {
        self == Self::NONE
    }

    /// Returns the kinds that are in `self` and in `other`.
    pub(crate) fn both(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Returns the kinds of `self` that are not in `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl BitOr for Interest {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Interest {
    fn bitor_assign(&mut self, other: Self) {
        *self = *self | other;
    }
}

impl fmt::Debug for Interest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_none() {
            return f.write_str("NONE");
        }
        let kinds = [(self.reads(), "READ"), (self.writes(), "WRITE"), (self.is_urgent(), "URGENT")];
        let named: Vec<_> = kinds.into_iter().filter_map(|(is_set, name)| is_set.then_some(name)).collect();
        f.write_str(&named.join(" | "))
    }
}

/// The readiness of a watched descriptor, as a backend reports it. An error or the peer's end is
/// reported as every kind that is of interest, because the next call on the descriptor returns it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ready {
    /// The kinds of interest that are ready.
    pub(crate) kinds: Interest,
    /// The peer has closed, or there is an error.
    pub(crate) hung_up: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_combine_and_print() {
        let mut some = Interest::READ | Interest::URGENT;
        assert_eq!(format!("{some:?}"), "READ | URGENT");
        some |= Interest::WRITE;
        assert_eq!(some.without(Interest::READ | Interest::URGENT), Interest::WRITE);
        assert_eq!((some.without(some), format!("{:?}", Interest::NONE).as_str()), (Interest::NONE, "NONE"));
    }
}
