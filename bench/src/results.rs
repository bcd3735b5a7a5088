//! Raw figures as they are stored: one JSON file for each part. The report can be regenerated from
//! them.
//!
//! Ratios are not stored: the report computes them.

use std::fs;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Result;
use crate::peers::Missing;

/// Figures of all parts.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Results {
    /// Machine and date of the measurement.
    pub machine: Machine,
    /// Echoes and short connections.
    pub echo: Vec<Row<Echo>>,
    /// User instructions for an echo.
    pub instructions: Vec<Row<Instructions>>,
    /// Memory of idle connections.
    pub memory: Vec<Row<Memory>>,
    /// CPU time as the number of connections grows.
    pub connections: Vec<Row<Vec<ScalePoint>>>,
    /// Many connections, spread over several processes.
    pub many: Vec<Row<ManyConnections>>,
    /// Time of timer operations.
    pub timers: Vec<Timers>,
    /// Memory of a write queue whose peer does not read.
    pub pending: Vec<Row<Vec<Pending>>>,
    /// Round-trip times by size.
    pub round_trips: RoundTrips,
    /// hyper on Ropewalk and on tokio.
    pub hyper: Hyper,
    /// Servers with one thread and with several.
    pub cores: Cores,
    /// Echoes of datagrams.
    pub datagrams: Datagrams,
    /// Starts of child processes.
    pub children: Children,
    /// Twisted's reactors in Python. `python/bench/figures` writes the file, so it is only read.
    #[serde(skip_serializing)]
    pub twisted: Twisted,
}

/// Result of a peer in a scenario.
#[derive(Debug, Serialize, Deserialize)]
pub struct Row<T> {
    /// Name of the scenario, where there are several.
    pub scenario: String,
    /// Name of the peer.
    pub peer: String,
    /// Figures, or the reason for which there are none.
    pub outcome: Outcome<T>,
}

/// Figures, or the reason for which there are none.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome<T> {
    /// The figures.
    Measured(T),
    /// The peer cannot be obtained on this machine.
    Missing(String),
    /// The measurement should have worked.
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
    /// Returns the figures, if there are any.
    pub fn measured(&self) -> Option<&T> {
        match self {
            Self::Measured(figures) => Some(figures),
            _ => None,
        }
    }

    /// Returns the reason for which there are no figures.
    pub fn reason(&self) -> Option<String> {
        match self {
            Self::Measured(_) => None,
            Self::Missing(why) => Some(format!("missing: {why}")),
            Self::Failed(why) => Some(format!("failed: {why}")),
        }
    }
}

/// Machine, date and settings of a measurement.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    /// Model of the processor.
    pub processor: String,
    /// Number of cores.
    pub cores: usize,
    /// Version of the kernel.
    pub kernel: String,
    /// Date in UTC.
    pub date: String,
    /// Hard limit of descriptors in one process.
    pub descriptors: u64,
    /// Names and versions of the measured software.
    pub versions: Vec<(String, String)>,
    /// Number of pairs of windows of which each ratio is the median.
    pub rounds: usize,
    /// Length of a window in milliseconds.
    pub window: u64,
    /// Duration of the whole run in seconds.
    pub took: u64,
}

/// Figures of one window.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct WindowFigures {
    /// Number of echoed messages, or of served connections.
    pub messages: u64,
    /// Duration in nanoseconds.
    pub nanoseconds: u64,
    /// CPU time of the server in nanoseconds.
    pub cpu: u64,
}

/// Two windows, one directly after the other.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct WindowPair {
    /// Window of the peer.
    pub peer: WindowFigures,
    /// Window of the baseline.
    pub baseline: WindowFigures,
}

impl WindowPair {
    /// Returns the rate as a ratio to the baseline.
    pub fn rate(&self) -> f64 {
        self.peer.rate() / self.baseline.rate()
    }

    /// Returns the CPU time for a message as a ratio to the baseline.
    pub fn cpu(&self) -> f64 {
        self.peer.cpu_each() / self.baseline.cpu_each()
    }
}

impl WindowFigures {
    /// Returns the messages per second.
    pub fn rate(&self) -> f64 {
        self.messages as f64 * 1e9 / self.nanoseconds as f64
    }

    /// Returns the CPU time for a message in nanoseconds.
    pub fn cpu_each(&self) -> f64 {
        self.cpu as f64 / self.messages as f64
    }
}

/// Percentiles of the latency in nanoseconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are the percentiles")]
pub struct Latency {
    pub p50: u64,
    pub p99: u64,
    pub p99_9: u64,
}

/// Figures of a scenario of echoes or short connections.
#[derive(Debug, Serialize, Deserialize)]
pub struct Echo {
    /// Pairs of windows in the order of time.
    pub pairs: Vec<WindowPair>,
    /// Latency over all of the peer's windows.
    pub latency: Latency,
    /// Latency over all of the baseline's windows.
    pub baseline_latency: Latency,
}

/// Counts of two runs under callgrind.
#[derive(Debug, Serialize, Deserialize)]
pub struct Instructions {
    /// Number of echoes in each run.
    pub echoes: [u64; 2],
    /// Number of instructions in each run.
    pub instructions: [u64; 2],
}

impl Instructions {
    /// Returns the number of instructions for an echo.
    pub fn each(&self) -> f64 {
        let ([few, many], [less, more]) = (self.echoes, self.instructions);
        (more as f64 - less as f64) / (many as f64 - few as f64)
    }
}

/// Memory of one server with few and with many idle connections.
#[derive(Debug, Serialize, Deserialize)]
pub struct Memory {
    /// Number of connections.
    pub connections: [u64; 2],
    /// Memory of the server in bytes.
    pub bytes: [u64; 2],
}

impl Memory {
    /// Returns the memory of a connection in bytes.
    pub fn each(&self) -> f64 {
        let ([few, many], [less, more]) = (self.connections, self.bytes);
        (more as f64 - less as f64) / (many as f64 - few as f64)
    }
}

/// CPU time with a given number of connections, of which a few send at a time.
#[derive(Debug, Serialize, Deserialize)]
pub struct ScalePoint {
    /// Number of connections.
    pub connections: usize,
    /// Pairs of windows in the order of time.
    pub pairs: Vec<WindowPair>,
}

/// Figures of many connections, spread over several processes.
#[derive(Debug, Serialize, Deserialize)]
pub struct ManyConnections {
    /// Target number of connections.
    pub wanted: usize,
    /// Number of connections open at the same time. Each was echoed and compared twice: when it was
    /// opened, and when all were open.
    pub reached: usize,
    /// Reason for which there were not more.
    pub stopped_by: Option<String>,
    /// Number of server processes. There are as many load processes.
    pub servers: usize,
    /// Memory that these connections took in all servers, in bytes.
    pub bytes: u64,
    /// Time to open the connections, in seconds.
    pub opening: f64,
}

/// Time of each timer operation with `pending` timers pending, in nanoseconds; the median of
/// several batches.
#[derive(Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names describe the fields")]
pub struct Timers {
    pub pending: usize,
    pub schedule: f64,
    pub cancel: f64,
    pub fire: f64,
}

/// Memory of a write queue whose peer does not read.
#[derive(Debug, Serialize, Deserialize)]
pub struct Pending {
    /// Queued bytes.
    pub bytes: u64,
    /// Memory that the process has gained since before the writes, in bytes.
    pub memory: u64,
}

/// Round trips by size. They have a machine and a date of their own, so that they can be measured
/// alone.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct RoundTrips {
    /// Model of the processor.
    pub processor: String,
    /// Date in UTC.
    pub date: String,
    /// Fraction of the time of all cores that other programs took during the measurement. It is
    /// near 0 on an idle machine.
    pub others: f64,
    /// Rows for each kind of round trip and each peer, in the order of sizes.
    pub rows: Vec<Row<Vec<RoundTrip>>>,
}

/// Percentiles of the round trips of one size, in nanoseconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names describe the fields")]
pub struct RoundTrip {
    pub size: usize,
    pub count: u64,
    pub p50: u64,
    pub p99: u64,
}

/// hyper's 'Hello, world' on each engine. It has a date and versions of its own, so that it can be
/// measured alone.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Hyper {
    /// Date in UTC.
    pub date: String,
    /// Versions of hyper and tokio, with the names.
    pub versions: String,
    /// A row for each engine.
    pub rows: Vec<Row<HelloCost>>,
}

/// Costs of an HTTP server on one engine.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct HelloCost {
    /// User instructions of a request and its answer.
    pub instructions: f64,
    /// System calls of a request and its answer, if they could be counted.
    pub system_calls: Option<f64>,
    /// Private memory of an idle connection in bytes.
    pub bytes: f64,
}

/// Servers with one thread and with several. They have a machine and a date of their own, so that
/// they can be measured alone.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Cores {
    /// Model of the processor.
    pub processor: String,
    /// Date in UTC.
    pub date: String,
    /// Fraction of the time of all cores that other programs took during the measurement.
    pub others: f64,
    /// A row for each server.
    pub rows: Vec<Row<CoresCost>>,
}

/// Costs of a server. CPU is that of all its threads, in nanoseconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct CoresCost {
    /// CPU for an echo on an open connection.
    pub echo: f64,
    /// Echoes in a second.
    pub echoes_per_second: f64,
    /// CPU for a connection with one echo.
    pub connection: f64,
    /// Such connections in a second.
    pub connections_per_second: f64,
}

/// Echoes of datagrams. They have a date of their own.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Datagrams {
    /// Model of the processor.
    pub processor: String,
    /// Date in UTC.
    pub date: String,
    /// A row for each size and peer: pairs of windows in the order of time.
    pub rows: Vec<Row<Vec<WindowPair>>>,
}

/// Starts of child processes. They have a date of their own.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Children {
    /// Model of the processor.
    pub processor: String,
    /// Date in UTC.
    pub date: String,
    /// A row for each size of the program and each peer: pairs of windows in the order of time.
    pub rows: Vec<Row<Vec<WindowPair>>>,
}

/// Twisted's reactors in Python. They have a date and versions of their own.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Twisted {
    /// Date of the counts in UTC.
    pub date: String,
    /// Date of the CPU times in UTC, if there are any.
    pub cpu_date: Option<String>,
    /// Versions of Python and its packages, with the names.
    pub versions: String,
    /// A row for each reactor.
    pub rows: Vec<Row<TwistedCost>>,
}

/// Costs of an echo and of timers on one reactor.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TwistedCost {
    /// User instructions of an echo.
    pub instructions: Option<f64>,
    /// System calls of an echo.
    pub system_calls: Option<f64>,
    /// User instructions of a timer that is scheduled and cancelled.
    pub cancel: Option<f64>,
    /// User instructions of a timer that is scheduled and fires.
    pub fire: Option<f64>,
    /// CPU time of an echo as ratios to Twisted's epoll reactor, one for each pair of windows.
    pub cpu: Vec<f64>,
}

impl Results {
    /// Writes a JSON file for each part.
    ///
    /// # Errors
    /// Fails if a file cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        if let Value::Object(parts) = serde_json::to_value(self)? {
            for (part, value) in parts {
                fs::write(folder.join(format!("{part}.json")), serde_json::to_string(&value)? + "\n")?;
            }
        }
        Ok(())
    }

    /// Reads the files that [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// Fails if a file is missing or malformed.
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
            hyper: part(folder, "hyper")?,
            cores: part(folder, "cores")?,
            datagrams: part(folder, "datagrams")?,
            children: part(folder, "children")?,
            twisted: Self::twisted(folder)?,
        })
    }

    /// Reads the figures of Twisted's reactors, which another program has written. There are none
    /// without its file.
    ///
    /// # Errors
    /// Fails if the file is malformed.
    pub fn twisted(folder: &Path) -> Result<Twisted> {
        if folder.join("twisted.json").exists() { part(folder, "twisted") } else { Ok(Twisted::default()) }
    }
}

fn part<T: DeserializeOwned>(folder: &Path, name: &str) -> Result<T> {
    let path = folder.join(format!("{name}.json"));
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()).into())
}
