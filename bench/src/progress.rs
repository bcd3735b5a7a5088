//! Progress of a run and the estimated time left, on standard error.
//!
//! On a terminal, a bar is redrawn in place. Elsewhere, each step that begins prints a line.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

const BAR_WIDTH: usize = 30;

/// Progress of a run whose steps have weights: their estimated durations in seconds.
#[derive(Debug)]
pub struct Progress {
    total: f64,
    done: f64,
    start: Instant,
    terminal: bool,
    drawn: Option<Instant>,
}

impl Progress {
    /// Starts at zero. `total` is the sum of all weights.
    pub fn new(total: f64) -> Self {
        Self { total, done: 0.0, start: Instant::now(), terminal: std::io::stderr().is_terminal(), drawn: None }
    }

    /// Reports that a step begins.
    pub fn begin(&mut self, step: &str) {
        self.drawn = None;
        self.draw(step, true);
    }

    /// Adds the weight of finished work.
    pub fn advance(&mut self, step: &str, weight: f64) {
        self.done += weight;
        self.draw(step, false);
    }

    /// Returns the time since the start.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    fn draw(&mut self, step: &str, new: bool) {
        if !new && (!self.terminal || self.drawn.is_some_and(|at| at.elapsed() < Duration::from_millis(200))) {
            return;
        }
        self.drawn = Some(Instant::now());
        let part = (self.done / self.total).clamp(0.0, 1.0);
        // The elapsed time corrects the weights once enough work is done.
        let (passed, planned) = (self.elapsed().as_secs_f64(), self.total - self.done);
        let left = if self.done > 3.0 { passed / self.done * planned } else { planned }.max(0.0);
        let (minutes, seconds) = (left as u64 / 60, left as u64 % 60);
        let mut errors = std::io::stderr().lock();
        // An error while drawing is ignored: the run does not depend on the display.
        let _ = if self.terminal {
            let bar: String =
                (0..BAR_WIDTH).map(|at| if (at as f64) < part * BAR_WIDTH as f64 { '█' } else { '░' }).collect();
            write!(errors, "\r{bar} {:3.0} %  {minutes}:{seconds:02} left  {step:<50}", part * 100.0)
        } else {
            writeln!(errors, "{:3.0} %, {minutes}:{seconds:02} left: {step}", part * 100.0)
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
