//! An event loop that is not the reactor's: a plain `poll`. It drives reactors by the seams for
//! hosts alone, and makes a turn only when one of them tells it to.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use ropewalk::error::ReactorError;
use ropewalk::reactor::HostedRun;
use ropewalk::testing::conformance::{Begin, Setting};
use ropewalk::{Address, Reactor};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::LIMIT;
use super::setting::Loopback;

/// A guest of the loop: a run, and the descriptor that tells of it.
pub struct Guest {
    pub run: HostedRun,
    pub poller: OwnedFd,
}

impl Guest {
    pub fn begin(reactor: &Reactor) -> Result<Self, ReactorError> {
        let run = reactor.begin_run()?;
        let poller = run.poller()?;
        Ok(Self { run, poller })
    }

    /// Returns `true` if the descriptor is readable, or becomes so within this time.
    pub fn is_readable(&self, within: Duration) -> bool {
        wait(&[self], within)[0]
    }
}

/// Waits for the guests' descriptors. Returns which of them are readable.
fn wait(guests: &[&Guest], longest: Duration) -> Vec<bool> {
    let mut asked: Vec<_> = guests.iter().map(|guest| PollFd::new(&guest.poller, PollFlags::IN)).collect();
    let timeout = Timespec::try_from(longest).expect("no test waits so long");
    poll(&mut asked, Some(&timeout)).expect("poll works");
    asked.iter().map(|asked| asked.revents().contains(PollFlags::IN)).collect()
}

/// Drives the guests until `done`, or until none of them runs. A wake-up that is lost ends in a
/// panic, because nothing else would make a turn.
#[track_caller]
pub fn host(guests: &mut Vec<Guest>, done: &mut dyn FnMut() -> bool) -> Result<(), ReactorError> {
    let until = Instant::now() + LIMIT;
    while !done() && !guests.is_empty() {
        let left = until.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "it did not happen within {LIMIT:?}");
        let prepared: Vec<_> = guests.iter().map(|guest| guest.run.prepare_to_wait(None)).collect();
        let longest = prepared.iter().flatten().copied().min().unwrap_or(left).min(left);
        let readable = wait(&guests.iter().collect::<Vec<_>>(), longest);
        let mut failed = Ok(());
        let mut at = 0;
        guests.retain(|guest| {
            let is_due = readable[at] || prepared[at] == Some(Duration::ZERO);
            at += 1;
            if !is_due {
                return true;
            }
            guest.run.step(Some(Duration::ZERO)).unwrap_or_else(|error| {
                failed = Err(error);
                false
            })
        });
        failed?;
    }
    Ok(())
}

/// The setting of the conformance suite in which a foreign loop drives the reactors.
pub struct Hosted(pub Loopback);

impl Setting for Hosted {
    fn unavailable(&self) -> Option<&'static str> {
        self.0.unavailable()
    }

    fn reactor(&mut self) -> Reactor {
        self.0.reactor()
    }

    fn address(&mut self) -> Address {
        self.0.address()
    }

    fn begins(&self) -> Option<(Begin, Begin)> {
        self.0.begins()
    }

    #[track_caller]
    fn drive(&mut self, done: &mut dyn FnMut() -> bool) {
        if done() {
            return;
        }
        let begin = |reactor: &Reactor| match Guest::begin(reactor) {
            Err(ReactorError::Closed) => None,
            begun => Some(begun.expect("a run begins")),
        };
        let mut guests: Vec<Guest> = self.0.reactors().iter().filter_map(begin).collect();
        let mut is_done = false;
        host(&mut guests, &mut || {
            is_done = done();
            is_done
        })
        .expect("the loop turns");
        assert!(is_done, "all reactors have stopped, and it did not happen");
    }

    fn run(&mut self, reactor: &Reactor) -> Result<(), ReactorError> {
        host(&mut vec![Guest::begin(reactor)?], &mut || false)
    }

    fn moment(&self) -> Duration {
        self.0.moment()
    }

    fn plenty(&self) -> usize {
        self.0.plenty()
    }

    fn silent(&mut self) -> Option<Address> {
        self.0.silent()
    }
}
