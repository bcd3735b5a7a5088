//! [`Id`]: the name of a watched source.

/// Name of one source that a reactor watches: a slot of its table, and a generation. An event for
/// an earlier source of the same slot is recognised as stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Id {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}
