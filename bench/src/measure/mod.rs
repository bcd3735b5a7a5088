//! The measurements, one in each file. Each is a function that returns raw figures, or the reason
//! for which there are none.

pub mod children;
pub mod cores;
pub mod datagrams;
pub mod echo;
pub mod hyper;
pub mod instructions;
pub mod memory;
pub mod pending;
pub mod round_trips;
pub mod scale;
pub mod timers;

use std::time::Duration;

/// Extent of a run.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Number of pairs of windows for each ratio.
    pub rounds: usize,
    /// Length of a window.
    pub window: Duration,
    /// `true` for a smoke run, which only shows that everything works.
    pub smoke: bool,
}

impl Effort {
    /// Returns `full`, or `smoke` in a smoke run.
    pub fn or<T>(&self, full: T, smoke: T) -> T {
        if self.smoke { smoke } else { full }
    }
}
