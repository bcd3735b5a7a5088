//! [`OptionalMillis`]: a time limit in four bytes.

use std::time::Duration;

/// A time limit in milliseconds, or none. It takes four bytes, because each connection keeps one.
#[derive(Debug, Clone, Copy)]
pub(super) struct OptionalMillis(u32);

impl OptionalMillis {
    const NONE: Self = Self(u32::MAX);
}

impl From<Option<Duration>> for OptionalMillis {
    /// Rounds up, so that no limit comes early. A limit that is too long (49 days) is none.
    fn from(limit: Option<Duration>) -> Self {
        let millis = limit.map(|limit| limit.as_nanos().div_ceil(1_000_000));
        millis.and_then(|millis| u32::try_from(millis).ok()).map_or(Self::NONE, Self)
    }
}

impl From<OptionalMillis> for Option<Duration> {
    fn from(OptionalMillis(millis): OptionalMillis) -> Self {
        (millis != OptionalMillis::NONE.0).then(|| Duration::from_millis(millis.into()))
    }
}
