//! Starts of child processes: the time of a start and an end of `/bin/true`, and the CPU time of
//! the program that starts it. Windows of a peer alternate with those of `posix_spawn`.
//!
//! A window is a number of children, one after the other. CPU time of a child up to its exec counts
//! as the child's. The time of a window has all of it, since nothing else runs on that core.

use std::process::Command;
use std::time::{Duration, Instant};

use super::Effort;
use crate::Result;
use crate::peers::Missing;
use crate::process::Process;
use crate::programs::{CHILDREN_BASELINE, Peer, Programs};
use crate::results::{WindowFigures, WindowPair};
use crate::system;

/// Memory in MiB that each program holds. A fork copies the page tables of it.
pub const HELD_MEBIBYTES: [usize; 2] = [0, 256];

/// Children of each peer: 1,000 in the windows of a whole run.
const WINDOW_CHILDREN: usize = 25;
const WINDOWS: usize = 40;

/// Time to wait for an answer of a program.
const PATIENCE: Duration = Duration::from_secs(60);

/// Measures a peer. `tick` is called after each pair of windows.
///
/// # Errors
/// Fails if the peer is missing or if it fails.
pub fn measure(
    programs: &Programs,
    peer: &Peer,
    held: usize,
    effort: &Effort,
    mut tick: impl FnMut(),
) -> Result<Vec<WindowPair>> {
    let mut tested = Starter::start(programs, peer, held)?;
    let mut baseline = Starter::start(programs, &CHILDREN_BASELINE, held)?;
    let mut pairs = Vec::new();
    for round in 0..windows(effort) {
        // The side that begins alternates.
        pairs.push(if round % 2 == 0 {
            let peer = tested.window()?;
            WindowPair { peer, baseline: baseline.window()? }
        } else {
            let baseline = baseline.window()?;
            WindowPair { peer: tested.window()?, baseline }
        });
        tick();
    }
    Ok(pairs)
}

/// Returns the number of pairs of windows for a peer.
pub fn windows(effort: &Effort) -> usize {
    effort.or(WINDOWS, 2)
}

/// A program that starts children.
struct Starter(Process);

impl Starter {
    fn start(programs: &Programs, peer: &Peer, held: usize) -> Result<Self> {
        let mut pinned = Command::new(programs.own("serve"));
        pinned.arg("--").args(programs.children_command(peer)?);
        if let Some(backend) = peer.backend() {
            pinned.env("ROPEWALK_BACKEND", backend);
        }
        let mut process = Process::start(peer.name, &mut pinned)?;
        let line = process.line(PATIENCE)?;
        match line.split_once(' ') {
            Some(("missing", why)) => return Err(Missing(why.to_owned()).into()),
            None if line == "ready" => {}
            _ => return Err(format!("{} printed: {line}", peer.name).into()),
        }
        let mut starter = Self(process);
        starter.request(&format!("hold {held}"), "held")?;
        Ok(starter)
    }

    fn window(&mut self) -> Result<WindowFigures> {
        let (before, begun) = (system::cpu_time(self.0.id())?, Instant::now());
        self.request(&format!("run {WINDOW_CHILDREN}"), "done")?;
        let nanoseconds = begun.elapsed().as_nanos() as u64;
        let cpu = system::cpu_time(self.0.id())? - before;
        Ok(WindowFigures { messages: WINDOW_CHILDREN as u64, nanoseconds, cpu })
    }

    fn request(&mut self, line: &str, expected: &str) -> Result<()> {
        let answer = self.0.request(line, PATIENCE)?;
        if answer == expected { Ok(()) } else { Err(format!("the answer to {line} was: {answer}").into()) }
    }
}
