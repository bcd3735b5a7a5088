//! Instructions in user space for an echo of 64 bytes, by valgrind's callgrind, which takes no notice of how busy the machine is.
//!
//! The whole server runs under it. Twice so many rounds are made, in which all 64 connections send and all are waited for, and after each
//! the counters are read; the difference of a short and a long run leaves out what is done once. They are read from outside (by vgdb,
//! valgrind's own), because a server that waits in io_uring's system call takes no signal. How many connections are ready at a time is the
//! kernel's affair, so the loop's own share of the number is not exact to the last digit.

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
use crate::server::{Generator, Server};

const CONNECTIONS: u64 = 64;

/// How many times all of them are echoed, in the two runs.
const ROUNDS: [u64; 2] = [100, 300];

/// The same for what takes a thousand times as long.
const FEW_ROUNDS: [u64; 2] = [5, 25];

/// How long valgrind may take to answer.
const LIMIT: Duration = Duration::from_secs(20);

/// Measures a peer.
///
/// # Errors
/// The peer or valgrind is missing, or they can't do it together.
pub fn measure(programs: &Programs, peer: &Peer, effort: &Effort) -> Result<Instructions> {
    if !programs.versions.iter().any(|(name, _)| name == "valgrind") {
        return Err(Missing("valgrind is not installed".into()).into());
    }
    let rounds = if peer.is_python() { FEW_ROUNDS } else { effort.or(ROUNDS, FEW_ROUNDS) };
    let folder = Counts::new()?;
    let mut file = OsString::from("--callgrind-out-file=");
    file.push(folder.0.join("counts"));
    let valgrind = ["valgrind".into(), "--tool=callgrind".into(), "-q".into(), file];
    let server = Server::start(programs, peer, Service::ECHO, &valgrind)?;
    let mut load = Generator::start(programs, &server, 64, 1, 0)?;
    load.grow(CONNECTIONS as usize)?;
    folder.read(&server, 1)?;
    let mut instructions = [0; 2];
    for (number, (rounds, instructions)) in rounds.into_iter().zip(&mut instructions).enumerate() {
        load.rounds(rounds)?;
        *instructions = folder.read(&server, number + 2)?;
    }
    Ok(Instructions { echoes: rounds.map(|rounds| rounds * CONNECTIONS), instructions })
}

/// A folder of its own for what callgrind writes, which goes when this does.
struct Counts(PathBuf);

impl Counts {
    fn new() -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("ropewalk-bench-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }

    /// How many instructions were counted since this was asked for the last time. `number` is how often that was.
    fn read(&self, server: &Server, number: usize) -> Result<u64> {
        let process = format!("--pid={}", server.process.id());
        let mut vgdb = Process::start("vgdb", Command::new("vgdb").args([&process, "dump"]))?;
        if !vgdb.ended_within(LIMIT)? {
            return Err("valgrind does not answer".into());
        }
        total(&self.0.join(format!("counts.{number}")))
    }
}

impl Drop for Counts {
    fn drop(&mut self) {
        // What is left there is in nobody's way.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn total(file: &Path) -> Result<u64> {
    let counted = std::fs::read_to_string(file).map_err(|error| format!("callgrind has counted nothing: {error}"))?;
    let total = counted.lines().find_map(|line| line.strip_prefix("totals:")?.trim().parse().ok());
    total.ok_or_else(|| "callgrind has counted nothing".into())
}
