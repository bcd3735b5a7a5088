//! [`Id`]: the name of a watched source.

/// Names one thing that a reactor watches: a place in its table, and a generation, so that what is said of an earlier
/// tenant of the same place is recognised as stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Id {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}
