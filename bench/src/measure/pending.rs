//! What a queue costs that nobody reads: `pending` writes to a peer that does not read, and says how much memory that took.

use std::process::Command;
use std::time::Duration;

use super::Effort;
use crate::Result;
use crate::process::Process;
use crate::programs::Programs;
use crate::results::Pending;

/// The sizes of a write, each a curve of its own.
pub const PIECES: [usize; 2] = [64 << 10, 64];

/// Fills a queue step by step with writes of so many bytes, on a backend.
///
/// # Errors
/// The backend is missing, or the program fails.
pub fn measure(programs: &Programs, backend: &str, piece: usize, effort: &Effort) -> Result<Vec<Pending>> {
    let steps: &[u64] = effort.or(&[1, 4, 16, 64, 256, 1024], &[1, 4, 16]);
    let mut command = Command::new(programs.own("pending"));
    command.arg(piece.to_string()).env("ROPEWALK_BACKEND", backend);
    let mut process = Process::start("pending", &mut command)?;
    steps
        .iter()
        .map(|mebibytes| {
            let line = process.ask(&(mebibytes << 20).to_string(), Duration::from_secs(60))?;
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["pending", bytes, memory] => Ok(Pending { bytes: bytes.parse()?, memory: memory.parse()? }),
                ["missing", ..] => Err(crate::peers::Missing(line.trim_start_matches("missing ").to_owned()).into()),
                _ => Err(format!("pending said: {line}").into()),
            }
        })
        .collect()
}
