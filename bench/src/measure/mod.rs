//! What is measured, one thing a file. Each is a function that gives raw figures, or says why there are none.

pub mod crowds;
pub mod echo;
pub mod instructions;
pub mod memory;
pub mod pending;
pub mod round_trips;
pub mod timers;

use std::time::Duration;

/// How thorough a run is.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Pairs of windows for each ratio.
    pub rounds: usize,
    /// How long a window is.
    pub window: Duration,
    /// Whether everything is cut down to what shows that it works.
    pub smoke: bool,
}

impl Effort {
    /// The first of two, or the second if this only shows that it works.
    pub fn or<T>(&self, full: T, smoke: T) -> T {
        if self.smoke { smoke } else { full }
    }
}
