//! Ropewalk measured beside its peers, in the same run.
//!
//! This is no library for anybody else: it is what the programs in `bin/` share. `serve` is an echo server of one kind, `load` asks it,
//! `compare` runs both for every peer and writes the report, `soak` opens and closes connections until something would have leaked.
//!
//! The rule: a figure is a ratio to the baseline, which is measured in windows that alternate with the peer's. What can't be measured
//! is a row that says why.

pub mod answers;
pub mod bounds;
pub mod callgrind;
pub mod histogram;
pub mod load;
pub mod machine_code;
pub mod measure;
pub mod peers;
pub mod plot;
pub mod process;
pub mod programs;
pub mod progress;
pub mod report;
pub mod results;
pub mod round_trips;
pub mod server;
pub mod stats;
pub mod system;
pub mod tls;

/// What went wrong, for a person to read.
pub type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;
