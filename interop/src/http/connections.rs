//! The open connections of an [`HttpServer`](super::HttpServer), and the deadline of each.
//!
//! A connection makes progress when a request begins or ends, and when a piece of a request's or an
//! answer's body passes. Bytes by themselves are no progress: a client that sends a header byte by
//! byte, or nothing but pings, does not put its deadline off.
//!
//! | state | deadline, since the last progress | then |
//! |---|---|---|
//! | a request is under way, or bytes are queued | [`HttpLimits::stall`] | the connection is aborted |
//! | neither | [`HttpLimits::idle`] | it is asked to finish, as by a drain |
//! | neither, and it was asked to finish | [`HttpLimits::finish`] | it is closed |

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use hyper::body::{Body, Frame, SizeHint};
use hyper::rt::{Sleep, Timer};
use ropewalk::deferred::Promise;
use ropewalk::streams::ClockTimer;
use ropewalk::time::Timers;
use ropewalk::{Clock, Deferred, Transport};

use super::HttpLimits;

/// The open connections by number, and the drain that waits for their end.
#[derive(Default)]
pub(super) struct HttpConnections {
    open: RefCell<BTreeMap<u64, Rc<HttpActivity>>>,
    opened: Cell<u64>,
    is_draining: Cell<bool>,
    aborted: Cell<usize>,
    promises: RefCell<Vec<Promise<usize>>>,
}

impl HttpConnections {
    /// Number of open connections.
    pub(super) fn count(&self) -> usize {
        self.open.borrow().len()
    }

    /// Adds a connection, for as long as the result is kept.
    pub(super) fn enter(self: &Rc<Self>, transport: &Transport) -> OpenConnection {
        let number = self.opened.replace(self.opened.get() + 1);
        let activity = Rc::new(HttpActivity::new(transport));
        self.open.borrow_mut().insert(number, Rc::clone(&activity));
        OpenConnection { connections: Rc::clone(self), number, activity }
    }

    /// Returns `true` once a drain has begun.
    pub(super) fn is_draining(&self) -> bool {
        self.is_draining.get()
    }

    /// Asks every connection to finish, those to come too. The Deferred fires when none is open,
    /// with the number of those that [`abort`](Self::abort) has cut off.
    pub(super) fn drain(&self) -> Deferred<usize> {
        self.is_draining.set(true);
        let (promise, drained) = Promise::new();
        self.promises.borrow_mut().push(promise);
        let open: Vec<_> = self.open.borrow().values().map(Rc::clone).collect();
        open.iter().for_each(|activity| activity.wake());
        self.fire_if_drained();
        drained
    }

    /// Aborts the open connections.
    pub(super) fn abort(&self) {
        let open: Vec<_> = self.open.borrow().values().map(Rc::clone).collect();
        self.aborted.set(self.aborted.get() + open.len());
        open.iter().for_each(|activity| activity.transport.abort_connection());
    }

    fn fire_if_drained(&self) {
        if self.is_draining() && self.count() == 0 {
            for promise in self.promises.take() {
                // A caller that has cancelled does not wait any more.
                let _ = promise.callback(self.aborted.get());
            }
        }
    }
}

/// A connection in the list. Dropped, it leaves the list.
pub(super) struct OpenConnection {
    connections: Rc<HttpConnections>,
    number: u64,
    activity: Rc<HttpActivity>,
}

impl OpenConnection {
    pub(super) fn activity(&self) -> &Rc<HttpActivity> {
        &self.activity
    }

    /// Polls a connection to its end. `finish` asks it to finish: by a drain, or by the deadline of
    /// an idle one.
    pub(super) async fn run<C: Future>(
        &self,
        mut connection: Pin<&mut C>,
        timer: &ClockTimer,
        limits: &HttpLimits,
        finish: impl Fn(Pin<&mut C>),
    ) -> ConnectionEnd<C::Output> {
        let activity = &self.activity;
        let mut deadline = ConnectionDeadline::new(timer, activity.deadline(limits), activity.timers.seconds());
        poll_fn(|cx| {
            if self.connections.is_draining() && activity.begin_finish() {
                finish(connection.as_mut());
            }
            loop {
                activity.keep_task(cx.waker());
                if let Poll::Ready(output) = connection.as_mut().poll(cx) {
                    return Poll::Ready(ConnectionEnd::Done(output));
                }
                ready!(deadline.poll(cx, activity.deadline(limits), activity.timers.seconds()));
                if activity.is_busy() {
                    activity.transport.abort_connection();
                    return Poll::Ready(ConnectionEnd::Stalled);
                }
                if !activity.begin_finish() {
                    return Poll::Ready(ConnectionEnd::Idle);
                }
                finish(connection.as_mut());
            }
        })
        .await
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        let entry = self.connections.open.borrow_mut().remove(&self.number);
        drop(entry);
        self.connections.fire_if_drained();
    }
}

/// The end of a connection.
pub(super) enum ConnectionEnd<T> {
    /// It ended by itself, with this result.
    Done(T),
    /// It was aborted, with an answer under way.
    Stalled,
    /// It was idle, and did not end when it was asked to.
    Idle,
}

/// The progress of one connection, by the table of this module.
pub(super) struct HttpActivity {
    transport: Transport,
    timers: Timers,
    /// Number of requests that have no whole answer yet.
    under_way: Cell<usize>,
    /// The moment of the last progress.
    progress: Cell<Duration>,
    is_finishing: Cell<bool>,
    task: RefCell<Option<Waker>>,
}

impl HttpActivity {
    fn new(transport: &Transport) -> Self {
        let timers = transport.timers();
        Self {
            transport: transport.clone(),
            progress: Cell::new(timers.seconds()),
            timers,
            under_way: Cell::new(0),
            is_finishing: Cell::new(false),
            task: RefCell::default(),
        }
    }

    /// Notes that a request begins. It ends when the result is dropped.
    pub(super) fn begin(self: &Rc<Self>) -> RequestUnderWay {
        self.under_way.set(self.under_way.get() + 1);
        self.note_progress();
        RequestUnderWay(Rc::clone(self))
    }

    /// Returns `true` if a request has no whole answer yet.
    pub(super) fn is_answering(&self) -> bool {
        self.under_way.get() > 0
    }

    fn note_progress(&self) {
        self.progress.set(self.timers.seconds());
    }

    /// Returns `true` the first time.
    fn begin_finish(&self) -> bool {
        let begins = !self.is_finishing.replace(true);
        if begins {
            self.note_progress();
        }
        begins
    }

    /// Returns `true` if the client has an answer to expect, or the rest of one.
    fn is_busy(&self) -> bool {
        self.is_answering() || self.transport.queued_bytes() > 0
    }

    fn deadline(&self, limits: &HttpLimits) -> Duration {
        let (now, progress) = (self.timers.seconds(), self.progress.get());
        let deadline = match (self.under_way.get(), self.is_finishing.get()) {
            (0, false) => progress + limits.idle,
            (0, true) => progress + limits.finish,
            _ => return progress + limits.stall,
        };
        if deadline <= now && self.is_busy() {
            // A slow client has not taken the end of the last answer. Its bytes leave without a
            // call, so they are looked at again.
            return (now + limits.finish).min(progress + limits.stall);
        }
        deadline
    }

    fn keep_task(&self, task: &Waker) {
        let is_kept = self.task.borrow().as_ref().is_some_and(|kept| kept.will_wake(task));
        if !is_kept {
            // Wakers are the program's: nothing is borrowed while one is cloned or dropped.
            let task = task.clone();
            let old = self.task.replace(Some(task));
            drop(old);
        }
    }

    fn wake(&self) {
        let task = self.task.take();
        if let Some(task) = task {
            task.wake();
        }
    }
}

/// A request of a connection, until its answer was handed over or given up.
pub(super) struct RequestUnderWay(Rc<HttpActivity>);

impl Drop for RequestUnderWay {
    fn drop(&mut self) {
        self.0.under_way.set(self.0.under_way.get() - 1);
        self.0.note_progress();
        if self.0.is_finishing.get() {
            // The deadline may be nearer now than the timer is.
            self.0.wake();
        }
    }
}

/// A timer at a deadline that moves. Usually it moves away while the timer runs, and the timer is
/// set again only when it has fired too early.
struct ConnectionDeadline<'t> {
    timer: &'t ClockTimer,
    sleep: Pin<Box<dyn Sleep>>,
    /// The moment for which the timer is set.
    set_for: Duration,
}

impl<'t> ConnectionDeadline<'t> {
    fn new(timer: &'t ClockTimer, deadline: Duration, now: Duration) -> Self {
        Self { timer, sleep: timer.sleep(deadline.saturating_sub(now)), set_for: deadline }
    }

    /// Is ready once the deadline has passed.
    fn poll(&mut self, cx: &mut Context<'_>, deadline: Duration, now: Duration) -> Poll<()> {
        if deadline < self.set_for {
            self.set(deadline, now);
        }
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            if deadline <= now {
                return Poll::Ready(());
            }
            self.set(deadline, now);
        }
    }

    fn set(&mut self, deadline: Duration, now: Duration) {
        self.set_for = deadline;
        self.timer.reset(&mut self.sleep, self.timer.now() + deadline.saturating_sub(now));
    }
}

/// A body whose pieces are progress of its connection: of a request, or of an answer, which keeps
/// its request under way until it ends.
pub struct TrackedBody<B> {
    body: B,
    activity: Rc<HttpActivity>,
    _request: Option<RequestUnderWay>,
}

impl<B> TrackedBody<B> {
    pub(super) fn of_request(body: B, activity: &Rc<HttpActivity>) -> Self {
        Self { body, activity: Rc::clone(activity), _request: None }
    }

    pub(super) fn of_answer(body: B, request: RequestUnderWay) -> Self {
        Self { body, activity: Rc::clone(&request.0), _request: Some(request) }
    }
}

impl<B: Body + Unpin> Body for TrackedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.activity.note_progress();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B: std::fmt::Debug> std::fmt::Debug for TrackedBody<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TrackedBody").field("body", &self.body).finish_non_exhaustive()
    }
}
