//! How far a run has got, and how long it may still take, on the standard error.
//!
//! On a terminal it is a bar that is drawn anew; elsewhere a line for each thing that is begun.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

const WIDTH: usize = 30;

/// The progress of a run whose parts have weights, in seconds that they are thought to take.
#[derive(Debug)]
pub struct Progress {
    total: f64,
    done: f64,
    start: Instant,
    terminal: bool,
    drawn: Option<Instant>,
}

impl Progress {
    /// At the beginning.
    pub fn new(total: f64) -> Self {
        Self { total, done: 0.0, start: Instant::now(), terminal: std::io::stderr().is_terminal(), drawn: None }
    }

    /// Says what is begun.
    pub fn begin(&mut self, what: &str) {
        self.drawn = None;
        self.draw(what, true);
    }

    /// So much of it is done.
    pub fn advance(&mut self, what: &str, weight: f64) {
        self.done += weight;
        self.draw(what, false);
    }

    /// How long it has taken until now.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    fn draw(&mut self, what: &str, new: bool) {
        if !new && (!self.terminal || self.drawn.is_some_and(|at| at.elapsed() < Duration::from_millis(200))) {
            return;
        }
        self.drawn = Some(Instant::now());
        let part = (self.done / self.total).clamp(0.0, 1.0);
        // What has passed says how right the weights are, once there is enough of it.
        let (passed, planned) = (self.elapsed().as_secs_f64(), self.total - self.done);
        let left = if self.done > 3.0 { passed / self.done * planned } else { planned }.max(0.0);
        let (minutes, seconds) = (left as u64 / 60, left as u64 % 60);
        let mut errors = std::io::stderr().lock();
        // Nothing depends on it being seen.
        let _ = if self.terminal {
            let bar: String = (0..WIDTH).map(|at| if (at as f64) < part * WIDTH as f64 { '█' } else { '░' }).collect();
            write!(errors, "\r{bar} {:3.0} %  {minutes}:{seconds:02} left  {what:<50}", part * 100.0)
        } else {
            writeln!(errors, "{:3.0} %, {minutes}:{seconds:02} left: {what}", part * 100.0)
        };
        let _ = errors.flush();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.terminal {
            eprintln!();
        }
    }
}
