//! User instructions for an echo of 64 bytes, counted by valgrind's callgrind. The count does not
//! depend on other load on the machine.
//!
//! The whole server runs under callgrind. There are two runs of several rounds: in a round, all 64
//! connections send, and all answers are waited for. The counters are read after each run, and the
//! difference of the long and the short run leaves out one-time work. They are read from outside,
//! by valgrind's own vgdb, because a server that waits in an io_uring system call takes no signal.
//! The kernel decides how many connections are ready at a time, so the cost of the loop itself is
//! not exact to the last digit.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::Effort;
use crate::Result;
use crate::peers::{Missing, Service};
use crate::process::Process;
use crate::programs::{Peer, Programs};
use crate::results::Instructions;
use crate::server::{LoadProcess, Server};

const CONNECTIONS: u64 = 64;

/// Number of rounds in the two runs.
const ROUNDS: [u64; 2] = [100, 300];

/// Number of rounds for a peer that takes a thousand times as long.
const FEW_ROUNDS: [u64; 2] = [5, 25];

/// Timeout for an answer of valgrind.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// Measures a peer.
///
/// # Errors
/// Fails if the peer or valgrind is missing, or if the peer does not run under valgrind.
pub fn measure(programs: &Programs, peer: &Peer, effort: &Effort) -> Result<Instructions> {
    if !programs.has_valgrind() {
        return Err(Missing("valgrind is not installed".into()).into());
    }
    let rounds = if peer.is_python() { FEW_ROUNDS } else { effort.or(ROUNDS, FEW_ROUNDS) };
    let folder = DumpFolder::new()?;
    let mut file = OsString::from("--callgrind-out-file=");
    file.push(folder.0.join("counts"));
    let valgrind = ["valgrind".into(), "--tool=callgrind".into(), "-q".into(), file];
    let server = Server::start(programs, peer, Service::ECHO, &valgrind)?;
    let mut load = LoadProcess::start(programs, &server, 64, 1, 0)?;
    load.grow(CONNECTIONS as usize)?;
    folder.read(&server, 1)?;
    let mut instructions = [0; 2];
    for (number, (rounds, instructions)) in rounds.into_iter().zip(&mut instructions).enumerate() {
        load.rounds(rounds)?;
        *instructions = folder.read(&server, number + 2)?;
    }
    Ok(Instructions { echoes: rounds.map(|rounds| rounds * CONNECTIONS), instructions })
}

/// Temporary folder for the output of callgrind. Dropping it removes the folder.
struct DumpFolder(PathBuf);

impl DumpFolder {
    fn new() -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("ropewalk-bench-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }

    /// Returns the number of instructions since the previous dump. `number` is the number of this
    /// dump, from 1.
    fn read(&self, server: &Server, number: usize) -> Result<u64> {
        let process = format!("--pid={}", server.process.id());
        let mut vgdb = Process::start("vgdb", Command::new("vgdb").args([&process, "dump"]))?;
        if !vgdb.ended_within(ANSWER_TIMEOUT)? {
            return Err("valgrind does not answer".into());
        }
        total(&self.0.join(format!("counts.{number}")))
    }
}

impl Drop for DumpFolder {
    fn drop(&mut self) {
        // A folder that cannot be removed does no harm.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn total(file: &Path) -> Result<u64> {
    let counted = std::fs::read_to_string(file).map_err(|error| format!("callgrind counted nothing: {error}"))?;
    let total = counted.lines().find_map(|line| line.strip_prefix("totals:")?.trim().parse().ok());
    total.ok_or_else(|| "callgrind counted nothing".into())
}
