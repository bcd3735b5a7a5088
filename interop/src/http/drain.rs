//! [`Drain`]: ends connections when they have finished their requests.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Waker;

use ropewalk::Deferred;
use ropewalk::deferred::Promise;

/// The open connections of a server. A cheap handle.
#[derive(Clone, Default)]
pub struct Drain(Rc<DrainState>);

#[derive(Default)]
struct DrainState {
    is_draining: Cell<bool>,
    /// The open connections, by number, with their tasks once each was polled.
    open: RefCell<BTreeMap<u64, Option<Waker>>>,
    opened: Cell<u64>,
    promises: RefCell<Vec<Promise<()>>>,
}

impl Drain {
    /// Creates a drain without connections.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of open connections.
    pub fn open(&self) -> usize {
        self.0.open.borrow().len()
    }

    /// Asks every connection to finish. The Deferred fires when none is open.
    pub fn begin(&self) -> Deferred<()> {
        self.0.is_draining.set(true);
        let tasks: Vec<Waker> = self.0.open.borrow_mut().values_mut().filter_map(Option::take).collect();
        tasks.into_iter().for_each(Waker::wake);
        let (promise, done) = Promise::new();
        self.0.promises.borrow_mut().push(promise);
        self.fire_if_empty();
        done
    }

    /// Polls a connection to its end. `finish` asks it to finish.
    pub(super) async fn watch<C: Future>(
        &self,
        mut connection: Pin<&mut C>,
        finish: impl FnOnce(Pin<&mut C>),
    ) -> C::Output {
        let open = Open::new(self);
        let mut finish = Some(finish);
        poll_fn(|cx| {
            if self.0.is_draining.get() {
                if let Some(finish) = finish.take() {
                    finish(connection.as_mut());
                }
            } else {
                open.keep(cx.waker());
            }
            connection.as_mut().poll(cx)
        })
        .await
    }

    fn fire_if_empty(&self) {
        if self.open() == 0 {
            for promise in self.0.promises.take() {
                // A caller that has cancelled does not wait any more.
                let _ = promise.callback(());
            }
        }
    }
}

impl fmt::Debug for Drain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drain").field("open", &self.open()).finish_non_exhaustive()
    }
}

/// A connection in the table, while it exists.
struct Open {
    drain: Drain,
    number: u64,
}

impl Open {
    fn new(drain: &Drain) -> Self {
        let number = drain.0.opened.replace(drain.0.opened.get() + 1);
        drain.0.open.borrow_mut().insert(number, None);
        Self { drain: drain.clone(), number }
    }

    /// Keeps the task of the connection. A task that is known is not cloned again.
    fn keep(&self, task: &Waker) {
        if let Some(kept) = self.drain.0.open.borrow_mut().get_mut(&self.number)
            && !kept.as_ref().is_some_and(|kept| kept.will_wake(task))
        {
            *kept = Some(task.clone());
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.drain.0.open.borrow_mut().remove(&self.number);
        if self.drain.0.is_draining.get() {
            self.drain.fire_if_empty();
        }
    }
}
