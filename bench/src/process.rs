//! A child process that answers in lines. Each line has a time limit, and the process does not
//! outlive its handle.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::Result;

/// Handle of a child process. Dropping it kills the process. The process also asks the kernel to
/// kill it when the thread that started it ends.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
    read: Vec<u8>,
}

impl Process {
    /// Starts a command with piped standard input, output and error.
    ///
    /// # Errors
    /// Fails if the command cannot be started.
    pub fn start(name: &str, command: &mut Command) -> Result<Self> {
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().map_err(|error| format!("{name} cannot be started: {error}"))?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (input, output) = input.zip(output).ok_or("the child has no pipes")?;
        Ok(Self { name: name.into(), child, input, output, read: Vec::new() })
    }

    /// Sends a line and waits for the next line of output.
    ///
    /// # Errors
    /// Fails as [`line`](Self::line) does.
    pub fn request(&mut self, line: &str, limit: Duration) -> Result<String> {
        // If the process has ended, `line` reports that, with the reason.
        let _ = writeln!(self.input, "{line}");
        self.line(limit)
    }

    /// Returns the next line of output.
    ///
    /// # Errors
    /// Fails if the process ended, with the last line of its standard error, or if it printed
    /// nothing within the limit.
    pub fn line(&mut self, limit: Duration) -> Result<String> {
        let end = Instant::now() + limit;
        loop {
            if let Some(at) = self.read.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=at).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            let left = end.saturating_duration_since(Instant::now());
            let mut ready = [PollFd::new(&self.output, PollFlags::IN)];
            if poll(&mut ready, Some(&Timespec::try_from(left)?))? == 0 {
                return Err(format!("{} printed nothing for {limit:?}", self.name).into());
            }
            let mut piece = [0; 4096];
            match self.output.read(&mut piece)? {
                0 => return Err(self.end_reason().into()),
                count => self.read.extend_from_slice(&piece[..count]),
            }
        }
    }

    /// Returns the process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the process to end. Returns `false` if it is still running after `limit`.
    ///
    /// # Errors
    /// Returns the error of the system call.
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

    /// Kills the process and returns its status and the last line of its standard error.
    fn end_reason(&mut self) -> String {
        let _ = self.child.kill();
        let status = self.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
        let mut error_output = Vec::new();
        if let Some(mut errors) = self.child.stderr.take() {
            let _ = rustix::io::ioctl_fionbio(errors.as_fd(), true);
            let _ = errors.read_to_end(&mut error_output);
        }
        let error_output = String::from_utf8_lossy(&error_output);
        let last = error_output.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it printed nothing");
        format!("{} ended ({status}): {last}", self.name)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
