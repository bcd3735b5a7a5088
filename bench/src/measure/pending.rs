//! Memory of a write queue whose peer does not read. The program `pending` fills the queue and
//! prints the memory that it takes.

use std::process::Command;
use std::time::Duration;

use super::Effort;
use crate::Result;
use crate::process::Process;
use crate::programs::Programs;
use crate::results::Pending;

/// Sizes of a write. Each is a curve of its own.
pub const WRITE_BYTES: [usize; 2] = [64 << 10, 64];

/// Fills a queue step by step with writes of `write_bytes` bytes, on a backend.
///
/// # Errors
/// Fails if the backend is missing, or if the program fails.
pub fn measure(programs: &Programs, backend: &str, write_bytes: usize, effort: &Effort) -> Result<Vec<Pending>> {
    let steps: &[u64] = effort.or(&[1, 4, 16, 64, 256, 1024], &[1, 4, 16]);
    let mut command = Command::new(programs.own("pending"));
    command.arg(write_bytes.to_string()).env("ROPEWALK_BACKEND", backend);
    let mut process = Process::start("pending", &mut command)?;
    steps
        .iter()
        .map(|mebibytes| {
            let line = process.request(&(mebibytes << 20).to_string(), Duration::from_secs(60))?;
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["pending", bytes, memory] => Ok(Pending { bytes: bytes.parse()?, memory: memory.parse()? }),
                ["missing", ..] => Err(crate::peers::Missing(line.trim_start_matches("missing ").to_owned()).into()),
                _ => Err(format!("pending printed: {line}").into()),
            }
        })
        .collect()
}
