//! [`Millis`]: a small time limit.

use std::time::Duration;

/// A time limit in milliseconds, or none: in four bytes, for each connection keeps one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Millis(u32);

impl Millis {
    const NONE: Self = Self(u32::MAX);
}

impl From<Option<Duration>> for Millis {
    /// Rounds up, so that no limit comes early; what is too long (49 days) is none.
    fn from(limit: Option<Duration>) -> Self {
        let millis = limit.map(|limit| limit.as_nanos().div_ceil(1_000_000));
        millis.and_then(|millis| u32::try_from(millis).ok()).map_or(Self::NONE, Self)
    }
}

impl From<Millis> for Option<Duration> {
    fn from(Millis(millis): Millis) -> Self {
        (millis != Millis::NONE.0).then(|| Duration::from_millis(millis.into()))
    }
}
