//! [`LocalExecutor`]: hyper's tasks on a [`Spawner`].

use std::future::Future;

use ::hyper::rt::Executor;

use crate::deferred::{Abandoned, Spawner};
use crate::failure::Failure;
use crate::streams::thread_bound::ThreadBound;

/// Runs the tasks of hyper in the reactor's turns, or in those of a virtual clock. HTTP/2 needs it,
/// which serves each request in a task. The futures need not be `Send`; for builders that want a
/// `Send` executor there is `ThreadBound<LocalExecutor>`.
///
/// A task that panics is logged. When the reactor closes, the tasks are dropped.
///
/// ```
/// use ropewalk::Reactor;
/// use ropewalk::streams::LocalExecutor;
///
/// fn executor(reactor: &Reactor) -> LocalExecutor {
///     LocalExecutor::new(reactor.spawner())
/// }
/// ```
#[derive(Debug, Clone)]
pub struct LocalExecutor {
    spawner: Spawner,
}

impl LocalExecutor {
    /// Creates an executor that runs its futures on `spawner`.
    pub fn new(spawner: &Spawner) -> Self {
        Self { spawner: spawner.clone() }
    }
}

impl<F> Executor<F> for LocalExecutor
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        let done = self.spawner.spawn(async move {
            future.await;
        });
        // A reactor that closes drops its tasks, which is no failure of theirs.
        done.add_errback(|failure: Failure| failure.trap::<Abandoned>().map(drop)).or_log("a task of hyper");
    }
}

impl<E: Executor<F>, F> Executor<F> for ThreadBound<E> {
    fn execute(&self, future: F) {
        (**self).execute(future);
    }
}
