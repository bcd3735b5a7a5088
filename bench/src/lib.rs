//! Benchmarks of Ropewalk beside its peers, in the same run.
//!
//! This library has the code that the programs in `bin/` share, and no other users. `serve` is an
//! echo server of one kind, and `load` sends requests to it. `compare` runs both for every peer and
//! writes the report. `soak` opens and closes connections until a leak would show.
//!
//! A figure is a ratio to the baseline, which is measured in windows that alternate with those of
//! the peer. A figure that cannot be measured is a row that gives the reason.

pub mod answers;
pub mod bounds;
pub mod callgrind;
pub mod hello;
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

/// Result with an error for a human reader.
pub type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;
