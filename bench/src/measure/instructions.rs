//! Instructions in user space for an echo of 64 bytes, by valgrind's callgrind: the difference of two runs, so that what is done once
//! does not count. It takes no notice of how busy the machine is.
//!
//! All 64 connections send, and all are waited for, before they send again. How many are ready at a time is the kernel's affair, so
//! the loop's own share of the number is not exact to the last digit.

use std::ffi::OsString;
use std::time::Duration;

use super::Effort;
use crate::Result;
use crate::peers::Missing;
use crate::programs::{Peer, Programs};
use crate::results::Instructions;
use crate::server::{Generator, Server};

const CONNECTIONS: u64 = 64;

/// How many times all of them are echoed, in the two runs.
const ROUNDS: [u64; 2] = [100, 300];

/// The same for what takes a thousand times as long.
const FEW_ROUNDS: [u64; 2] = [5, 25];

/// Measures a peer.
///
/// # Errors
/// The peer or valgrind is missing, or they can't do it together.
pub fn measure(programs: &Programs, peer: &Peer, effort: &Effort) -> Result<Instructions> {
    if !programs.versions.iter().any(|(name, _)| name == "valgrind") {
        return Err(Missing("valgrind is not installed".into()).into());
    }
    let rounds = if peer.is_python() { FEW_ROUNDS } else { ROUNDS };
    let rounds = effort.or(rounds, FEW_ROUNDS);
    let instructions = [count(programs, peer, rounds[0])?, count(programs, peer, rounds[1])?];
    Ok(Instructions { echoes: rounds.map(|rounds| rounds * CONNECTIONS), instructions })
}

/// The instructions of a run of so many rounds.
fn count(programs: &Programs, peer: &Peer, rounds: u64) -> Result<u64> {
    let output = std::env::temp_dir().join(format!("ropewalk-bench-{}-{}", std::process::id(), peer.name));
    let counted = run(programs, peer, rounds, &output).and_then(|()| Ok(std::fs::read_to_string(&output)?));
    drop(std::fs::remove_file(&output));
    let counted = counted?;
    let total = counted.lines().find_map(|line| line.strip_prefix("totals:")?.trim().parse().ok());
    total.filter(|&total| total > 0).ok_or_else(|| "callgrind has counted nothing".into())
}

fn run(programs: &Programs, peer: &Peer, rounds: u64, output: &std::path::Path) -> Result<()> {
    let mut file = OsString::from("--callgrind-out-file=");
    file.push(output);
    let valgrind = ["valgrind".into(), "--tool=callgrind".into(), "-q".into(), file];
    let mut server = Server::start(programs, peer, &valgrind).map_err(|error| match error.downcast::<Missing>() {
        Ok(missing) => missing as Box<dyn std::error::Error>,
        Err(error) => format!("under valgrind: {error}").into(),
    })?;
    let mut load = Generator::start(programs, &server, 64, 1, 0)?;
    load.grow(CONNECTIONS as usize)?;
    load.rounds(rounds)?;
    server.process.terminate()?;
    if !server.process.ended_within(Duration::from_millis(500))? {
        // Valgrind takes no signal while it is in io_uring's system call, which the end of the connections ends.
        drop(load);
        if !server.process.ended_within(Duration::from_secs(30))? {
            return Err("valgrind does not end".into());
        }
    }
    Ok(())
}
