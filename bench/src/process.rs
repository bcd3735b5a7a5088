//! A child process that answers in lines, with a time limit for each, and that does not outlive the handle.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::Result;

/// The child. It is killed when this is dropped; and, as it asks for that itself, when the thread that started it ends.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    orders: ChildStdin,
    answers: ChildStdout,
    read: Vec<u8>,
}

impl Process {
    /// Starts a command, with pipes for everything.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start(name: &str, command: &mut Command) -> Result<Self> {
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().map_err(|error| format!("{name} can't be started: {error}"))?;
        let (orders, answers) = (child.stdin.take(), child.stdout.take());
        let (orders, answers) = orders.zip(answers).ok_or("a child without pipes")?;
        Ok(Self { name: name.into(), child, orders, answers, read: Vec::new() })
    }

    /// Sends a line, and waits for the next one that comes.
    ///
    /// # Errors
    /// As [`line`](Self::line).
    pub fn ask(&mut self, order: &str, limit: Duration) -> Result<String> {
        // If it is gone, the line that does not come says so, with the reason.
        let _ = writeln!(self.orders, "{order}");
        self.line(limit)
    }

    /// The next line that it prints.
    ///
    /// # Errors
    /// It ended, with what it said last; or it said nothing within the limit.
    pub fn line(&mut self, limit: Duration) -> Result<String> {
        let end = Instant::now() + limit;
        loop {
            if let Some(at) = self.read.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=at).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            let left = end.saturating_duration_since(Instant::now());
            let mut ready = [PollFd::new(&self.answers, PollFlags::IN)];
            if poll(&mut ready, Some(&Timespec::try_from(left)?))? == 0 {
                return Err(format!("{} said nothing for {limit:?}", self.name).into());
            }
            let mut piece = [0; 4096];
            match self.answers.read(&mut piece)? {
                0 => return Err(self.last_words().into()),
                count => self.read.extend_from_slice(&piece[..count]),
            }
        }
    }

    /// The number of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end, and says whether it has come.
    ///
    /// # Errors
    /// What the system says.
    pub fn ended_within(&mut self, limit: Duration) -> Result<bool> {
        let end = Instant::now() + limit;
        while self.child.try_wait()?.is_none() {
            if Instant::now() >= end {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(true)
    }

    /// Why it ended, from what it wrote to its standard error.
    fn last_words(&mut self) -> String {
        let _ = self.child.kill();
        let status = self.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
        let mut said = Vec::new();
        if let Some(mut errors) = self.child.stderr.take() {
            let _ = rustix::io::ioctl_fionbio(errors.as_fd(), true);
            let _ = errors.read_to_end(&mut said);
        }
        let said = String::from_utf8_lossy(&said);
        let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
        format!("{} ended ({status}): {last}", self.name)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
