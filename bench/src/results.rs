//! The figures as they are kept: one file of JSON for each part, from which the report can be made again.
//!
//! Nothing in here is a ratio: those are the report's.

use std::fs;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Result;
use crate::peers::Missing;

/// All of them.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Results {
    /// Where and when this was measured.
    pub machine: Machine,
    /// Echoes and short connections.
    pub echo: Vec<Row<Echo>>,
    /// Instructions in user space for one echo.
    pub instructions: Vec<Row<Instructions>>,
    /// Memory of idle connections.
    pub memory: Vec<Row<Memory>>,
    /// CPU against the number of connections.
    pub connections: Vec<Row<Vec<Crowd>>>,
    /// As many connections as were asked for, over several processes.
    pub many: Vec<Row<Many>>,
    /// What a timer costs.
    pub timers: Vec<Timers>,
    /// What a queue costs that nobody reads.
    pub pending: Vec<Row<Vec<Pending>>>,
    /// How long a round trip takes, by its size.
    pub round_trips: RoundTrips,
}

/// What a peer did in a scenario.
#[derive(Debug, Serialize, Deserialize)]
pub struct Row<T> {
    /// Which one, where there are several.
    pub scenario: String,
    /// By its name.
    pub peer: String,
    /// What was measured, or why nothing was.
    pub outcome: Outcome<T>,
}

/// What was measured, or why nothing was.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome<T> {
    /// The figures.
    Measured(T),
    /// It can't be had here.
    Missing(String),
    /// It should have worked.
    Failed(String),
}

impl<T> From<Result<T>> for Outcome<T> {
    fn from(result: Result<T>) -> Self {
        match result {
            Ok(figures) => Self::Measured(figures),
            Err(error) if error.is::<Missing>() => Self::Missing(error.to_string()),
            Err(error) => Self::Failed(error.to_string()),
        }
    }
}

impl<T> Outcome<T> {
    /// The figures, if there are any.
    pub fn measured(&self) -> Option<&T> {
        match self {
            Self::Measured(figures) => Some(figures),
            _ => None,
        }
    }

    /// Why there are none.
    pub fn reason(&self) -> Option<String> {
        match self {
            Self::Measured(_) => None,
            Self::Missing(why) => Some(format!("missing: {why}")),
            Self::Failed(why) => Some(format!("failed: {why}")),
        }
    }
}

/// Where and when.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    /// The model of the processor.
    pub processor: String,
    /// How many cores it has.
    pub cores: usize,
    /// The kernel's version.
    pub kernel: String,
    /// The day, in UTC.
    pub date: String,
    /// The hard limit of descriptors in one process.
    pub descriptors: u64,
    /// Names and versions of what was measured.
    pub versions: Vec<(String, String)>,
    /// How many pairs of windows each ratio is the median of.
    pub rounds: usize,
    /// How long one window is, in milliseconds.
    pub window: u64,
    /// How long all of it took, in seconds.
    pub took: u64,
}

/// One window.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Figure {
    /// Messages that were echoed, or connections served.
    pub messages: u64,
    /// How long that took.
    pub nanoseconds: u64,
    /// How long the server ran meanwhile, in nanoseconds.
    pub cpu: u64,
}

/// Two windows, one right after the other.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Pair {
    /// The peer's.
    pub peer: Figure,
    /// The baseline's.
    pub baseline: Figure,
}

impl Pair {
    /// Messages in a second, against the baseline.
    pub fn rate(&self) -> f64 {
        self.peer.rate() / self.baseline.rate()
    }

    /// CPU of the server for one message, against the baseline.
    pub fn cpu(&self) -> f64 {
        self.peer.cpu_each() / self.baseline.cpu_each()
    }
}

impl Figure {
    /// Messages in a second.
    pub fn rate(&self) -> f64 {
        self.messages as f64 * 1e9 / self.nanoseconds as f64
    }

    /// Nanoseconds of CPU for one message.
    pub fn cpu_each(&self) -> f64 {
        self.cpu as f64 / self.messages as f64
    }
}

/// How long answers took, in nanoseconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the numbers say it")]
pub struct Latency {
    pub p50: u64,
    pub p99: u64,
    pub p99_9: u64,
}

/// A scenario of echoes or short connections.
#[derive(Debug, Serialize, Deserialize)]
pub struct Echo {
    /// In the order of time.
    pub pairs: Vec<Pair>,
    /// Of all the peer's windows.
    pub latency: Latency,
    /// Of all the baseline's.
    pub baseline_latency: Latency,
}

/// Two runs under callgrind.
#[derive(Debug, Serialize, Deserialize)]
pub struct Instructions {
    /// Echoes of each.
    pub echoes: [u64; 2],
    /// Instructions of each.
    pub instructions: [u64; 2],
}

impl Instructions {
    /// Of one echo.
    pub fn each(&self) -> f64 {
        let ([few, many], [less, more]) = (self.echoes, self.instructions);
        (more as f64 - less as f64) / (many as f64 - few as f64)
    }
}

/// The same server with few and with many idle connections.
#[derive(Debug, Serialize, Deserialize)]
pub struct Memory {
    /// How many.
    pub connections: [u64; 2],
    /// Its memory, in bytes.
    pub bytes: [u64; 2],
}

impl Memory {
    /// Of one connection.
    pub fn each(&self) -> f64 {
        let ([few, many], [less, more]) = (self.connections, self.bytes);
        (more as f64 - less as f64) / (many as f64 - few as f64)
    }
}

/// Some of many connections at a time.
#[derive(Debug, Serialize, Deserialize)]
pub struct Crowd {
    /// How many there are.
    pub connections: usize,
    /// In the order of time.
    pub pairs: Vec<Pair>,
}

/// Connections over several processes.
#[derive(Debug, Serialize, Deserialize)]
pub struct Many {
    /// How many were wanted.
    pub wanted: usize,
    /// How many were open at the same time, each echoed and compared twice: when it was opened, and when all were.
    pub reached: usize,
    /// Why not more.
    pub stopped_by: Option<String>,
    /// Server processes, and as many for the load.
    pub servers: usize,
    /// Memory of all servers that these connections took, in bytes.
    pub bytes: u64,
    /// How long the opening took, in seconds.
    pub opening: f64,
}

/// What one timer takes while so many are pending, in nanoseconds; the median of some batches.
#[derive(Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Timers {
    pub pending: usize,
    pub schedule: f64,
    pub cancel: f64,
    pub fire: f64,
}

/// A queue that nobody reads.
#[derive(Debug, Serialize, Deserialize)]
pub struct Pending {
    /// What waits in it, in bytes.
    pub bytes: u64,
    /// How much more memory the process has than before, in bytes.
    pub memory: u64,
}

/// Round trips by size. They say by themselves where and when they were measured, so that they can be measured alone.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct RoundTrips {
    /// The model of the processor.
    pub processor: String,
    /// The day, in UTC.
    pub date: String,
    /// The part of all cores' time that other programs took meanwhile: near 0 on an idle machine.
    pub others: f64,
    /// For each kind and peer, in the order of sizes.
    pub rows: Vec<Row<Vec<RoundTrip>>>,
}

/// Round trips of one size, in nanoseconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct RoundTrip {
    pub size: usize,
    pub count: u64,
    pub p50: u64,
    pub p99: u64,
}

impl Results {
    /// Writes a file for each part.
    ///
    /// # Errors
    /// What the system says.
    pub fn save(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        if let Value::Object(parts) = serde_json::to_value(self)? {
            for (part, value) in parts {
                fs::write(folder.join(format!("{part}.json")), serde_json::to_string(&value)? + "\n")?;
            }
        }
        Ok(())
    }

    /// Reads what [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// A file is not there, or holds something else.
    pub fn load(folder: &Path) -> Result<Self> {
        Ok(Self {
            machine: part(folder, "machine")?,
            echo: part(folder, "echo")?,
            instructions: part(folder, "instructions")?,
            memory: part(folder, "memory")?,
            connections: part(folder, "connections")?,
            many: part(folder, "many")?,
            timers: part(folder, "timers")?,
            pending: part(folder, "pending")?,
            round_trips: part(folder, "round_trips")?,
        })
    }
}

fn part<T: DeserializeOwned>(folder: &Path, name: &str) -> Result<T> {
    let path = folder.join(format!("{name}.json"));
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()).into())
}
