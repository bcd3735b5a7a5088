//! The ends of a group's members, and the report that they become.

use std::fmt;
use std::future::poll_fn;
use std::process::ExitCode;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use crate::failure::Failure;

/// The end of a group. From [`ReactorGroup::join`](super::ReactorGroup::join) and
/// [`GroupBuilder::run`](super::GroupBuilder::run).
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct GroupReport {
    /// The signal that stopped the group, if one did.
    pub signal: Option<i32>,
    /// The ends of the members, by their index.
    pub members: Vec<MemberEnd>,
}

impl GroupReport {
    /// Returns `true` if every member was stopped, and ended in time.
    pub fn is_success(&self) -> bool {
        self.members.iter().all(|end| matches!(end, MemberEnd::Stopped))
    }

    /// Returns the exit code of a program that was this group, as [`run`](crate::run) has it: 1 if
    /// a member did not end well, 128 plus the number of a signal that stopped the group, or 0.
    pub fn exit_code(&self) -> ExitCode {
        if !self.is_success() {
            return ExitCode::FAILURE;
        }
        self.signal.and_then(|signal| u8::try_from(128 + signal).ok()).map_or(ExitCode::SUCCESS, ExitCode::from)
    }
}

/// The end of a member of a group.
#[derive(Clone)]
#[non_exhaustive]
pub enum MemberEnd {
    /// Its reactor was stopped.
    Stopped,
    /// Its reactor failed, or a panic ended its thread ([`Panicked`](crate::failure::Panicked)).
    Failed(Failure),
    /// It did not end: a call of the program keeps its thread. The thread is left to itself.
    StillRunning,
}

impl fmt::Debug for MemberEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("Stopped"),
            Self::Failed(failure) => write!(f, "Failed({failure})"),
            Self::StillRunning => f.write_str("StillRunning"),
        }
    }
}

/// The ends so far. The members report them, and the leader waits for them: by a future while its
/// loop runs, and blocking afterwards.
pub(super) struct Ends {
    state: Mutex<EndsState>,
    changed: Condvar,
}

struct EndsState {
    ends: Vec<Option<MemberEnd>>,
    /// Ends that the leader's future has not seen.
    unseen: Vec<usize>,
    waker: Option<Waker>,
}

impl Ends {
    pub(super) fn new(members: usize) -> Arc<Self> {
        let state = EndsState { ends: (0..members).map(|_| None).collect(), unseen: Vec::new(), waker: None };
        Arc::new(Self { state: Mutex::new(state), changed: Condvar::new() })
    }

    /// Reports the end of a member, from its thread.
    pub(super) fn report(&self, member: usize, end: MemberEnd) {
        let mut state = self.lock();
        state.ends[member] = Some(end);
        state.unseen.push(member);
        let waker = state.waker.take();
        drop(state);
        self.changed.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Waits for the next end, in the order of the reports.
    pub(super) async fn next(&self) -> (usize, MemberEnd) {
        poll_fn(|context| {
            let mut state = self.lock();
            if state.unseen.is_empty() {
                state.waker = Some(context.waker().clone());
                return Poll::Pending;
            }
            let member = state.unseen.remove(0);
            Poll::Ready((member, state.ends[member].clone().unwrap_or(MemberEnd::StillRunning)))
        })
        .await
    }

    /// Blocks until all members have ended, or for at most `longest`. Returns the ends.
    pub(super) fn wait(&self, longest: Duration) -> Vec<MemberEnd> {
        let until = Instant::now() + longest;
        let mut state = self.lock();
        while state.ends.iter().any(Option::is_none) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.ends.iter().map(|end| end.clone().unwrap_or(MemberEnd::StillRunning)).collect()
    }

    /// Blocks until a member has ended whose thread is about to.
    pub(super) fn wait_for(&self, member: usize) -> MemberEnd {
        let state = self.changed.wait_while(self.lock(), |state| state.ends[member].is_none());
        let state = state.unwrap_or_else(PoisonError::into_inner);
        state.ends[member].clone().unwrap_or(MemberEnd::StillRunning)
    }

    fn lock(&self) -> MutexGuard<'_, EndsState> {
        // No code panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
