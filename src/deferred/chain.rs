//! The links of a chain, and the loops that run and cancel them. The parent module lists states and
//! rules.
//!
//! Upstream owns downstream: a promise owns the [`Root`], which owns the first [`Link`], and so on.
//! A [`Deferred`](super::Deferred) shares the last link. The only reference upstream is the weak
//! reference to the root, the [`Head`] of the chain, which each Deferred of the chain passes on to
//! the next. The root knows the source that the chain waits for, and cancelling needs nothing more.
//! A promise fires at the latest when it is dropped, which takes the chain apart link by link.
//!
//! No cell is ever borrowed: its content is taken out, inspected, and put back before any foreign
//! code runs.

use std::cell::Cell;
use std::mem;
use std::panic::Location;
use std::ptr;
use std::rc::{Rc, Weak};
use std::task::{Context, Waker};

use super::outcome::Resolved;
use super::{Abandoned, Cancelled, Circular, Split, unhandled};
use crate::failure::{Panicked, Result, drop_guarded, guarded};
use crate::log::error;

/// A link with a result to be handed on.
pub(super) trait ChainStep {
    /// Gives the result to its consumer, and returns the link that has the next result.
    fn hand_on(self: Rc<Self>, run: &mut ChainRun) -> Option<Rc<dyn ChainStep>>;
}

/// A link that has a result of type `T`, or will have one.
pub(super) trait ChainSource<T: 'static>: ChainStep {
    fn place(&self) -> &ChainPlace<T>;
}

/// A link that consumes a result of type `T`.
trait Sink<T> {
    fn accept(self: Rc<Self>, result: Result<T>, run: &mut ChainRun) -> Option<Rc<dyn ChainStep>>;
}

/// The start of a chain, which knows the source that the chain waits for.
pub(super) trait Head {
    /// Cancels the source that the chain waits for, or returns the head that has to be cancelled
    /// instead.
    fn cancel(self: Rc<Self>) -> Option<Rc<dyn Head>>;

    /// Sets the Deferred that the chain waits for, which a callback returned, or clears it.
    fn waits_for(&self, inner: Option<Weak<dyn Head>>);
}

/// One run of a chain: the loop that hands results from link to link.
pub(super) struct ChainRun {
    head: Rc<dyn Head>,
}

impl ChainRun {
    fn go(mut self, mut next: Option<Rc<dyn ChainStep>>) {
        while let Some(step) = next {
            next = step.hand_on(&mut self);
        }
    }
}

/// Cancels the source that a chain waits for, however many chains away it is. Chains that wait for
/// one another in a ring, which is a programming error, have no source to cancel. A ring is
/// detected by meeting a marked head again; the mark moves after 1, 2, 4, .. steps (Brent's
/// algorithm).
pub(super) fn cancel(head: Rc<dyn Head>) {
    let mut mark = Rc::downgrade(&head);
    let (mut steps, mut until) = (0_usize, 1_usize);
    let mut next = head.cancel();
    while let Some(head) = next {
        if ptr::addr_eq(mark.as_ptr(), Rc::as_ptr(&head)) {
            return;
        }
        steps += 1;
        if steps == until {
            mark = Rc::downgrade(&head);
            until *= 2;
        }
        next = head.cancel();
    }
}

/// A dangling head, for a chain that waits for nothing.
pub(super) fn no_head() -> Weak<dyn Head> {
    Weak::<Anchor>::new()
}

/// Storage of a link's result until it is consumed.
pub(super) struct ChainPlace<T: 'static> {
    content: Cell<Option<Result<T>>>,
    next: Cell<ChainNext<T>>,
    made: &'static Location<'static>,
    pauses: Cell<u32>,
    stage: Cell<ChainStage>,
    /// The consumer is a task.
    awaited: Cell<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ChainStage {
    /// There is no result yet.
    Waiting,
    Ready,
    /// The result was handed on.
    Gone,
}

/// Consumer of the result.
#[derive(Default)]
enum ChainNext<T: 'static> {
    #[default]
    Unclaimed,
    /// A callback.
    Sink(Rc<dyn Sink<T>>),
    /// A link that follows this Deferred. Boxed, because it is the largest variant and not the most
    /// frequent.
    Follower(Box<Follower<T>>),
    Task(Waker),
    /// The consumer gave up: the result is discarded silently.
    Discarded,
}

struct Follower<T: 'static> {
    link: Rc<dyn ChainSource<T>>,
    head: Rc<dyn Head>,
}

/// Outcome of taking a result.
pub(super) enum Taken<T> {
    Result(Result<T>),
    NotYet,
    Gone,
}

impl<T> Taken<T> {
    pub(super) fn result(self) -> Option<Result<T>> {
        match self {
            Self::Result(result) => Some(result),
            Self::NotYet | Self::Gone => None,
        }
    }
}

impl<T> ChainPlace<T> {
    fn new(made: &'static Location<'static>) -> Self {
        Self {
            content: Cell::new(None),
            next: Cell::new(ChainNext::Unclaimed),
            made,
            pauses: Cell::new(0),
            stage: Cell::new(ChainStage::Waiting),
            awaited: Cell::new(false),
        }
    }

    /// Returns `true` if the result is ready and not held back by a pause.
    pub(super) fn is_ready(&self) -> bool {
        self.has_result() && self.pauses.get() == 0
    }

    pub(super) fn has_result(&self) -> bool {
        self.stage.get() == ChainStage::Ready
    }

    pub(super) fn is_awaited(&self) -> bool {
        self.awaited.get()
    }

    /// Takes the result, if it is ready and not held back.
    pub(super) fn take(&self) -> Taken<T> {
        match self.stage.get() {
            ChainStage::Ready if self.is_ready() => {
                self.stage.set(ChainStage::Gone);
                self.content.take().map_or(Taken::Gone, Taken::Result)
            }
            ChainStage::Ready | ChainStage::Waiting => Taken::NotYet,
            ChainStage::Gone => Taken::Gone,
        }
    }

    /// Takes the result as `take` does, and otherwise registers the waker of the polling task.
    pub(super) fn poll(&self, context: &mut Context<'_>) -> Taken<T> {
        let taken = self.take();
        self.awaited.set(matches!(taken, Taken::NotYet));
        if self.awaited.get() {
            match self.next.take() {
                ChainNext::Task(waker) if waker.will_wake(context.waker()) => self.next.set(ChainNext::Task(waker)),
                old => {
                    self.next.set(ChainNext::Task(context.waker().clone()));
                    drop(old);
                }
            }
        }
        taken
    }

    /// Discards the result, now or when it arrives: the task that waited is gone.
    pub(super) fn give_up(&self) {
        self.awaited.set(false);
        let old = self.next.replace(ChainNext::Discarded);
        drop(old);
    }

    fn keep(&self, result: Result<T>) {
        self.stage.set(ChainStage::Ready);
        self.content.set(Some(result));
    }

    /// Gives the result to its consumer, or stores it if there is none. Returns the link that has
    /// the next result.
    fn give(&self, result: Result<T>, run: &mut ChainRun) -> Option<Rc<dyn ChainStep>> {
        if self.pauses.get() > 0 {
            self.keep(result);
            return None;
        }
        match self.next.take() {
            ChainNext::Sink(link) => {
                self.stage.set(ChainStage::Gone);
                link.accept(result, run)
            }
            ChainNext::Follower(follower) => {
                self.stage.set(ChainStage::Gone);
                let Follower { link, head } = *follower;
                head.waits_for(None);
                run.head = head;
                link.place().keep(result);
                Some(link)
            }
            ChainNext::Unclaimed => {
                self.keep(result);
                None
            }
            ChainNext::Task(waker) => {
                self.keep(result);
                waker.wake();
                None
            }
            ChainNext::Discarded => {
                self.stage.set(ChainStage::Gone);
                drop_guarded("the result of a Deferred", result);
                None
            }
        }
    }

    /// Gives the stored result to its consumer, if it is ready.
    fn give_kept(&self, run: &mut ChainRun) -> Option<Rc<dyn ChainStep>> {
        let result = self.take().result()?;
        self.give(result, run)
    }
}

impl<T> Drop for ChainPlace<T> {
    fn drop(&mut self) {
        match self.content.take() {
            Some(Err(failure)) => unhandled::report(failure, self.made),
            // The code that fires a promise may drop this: no panic of a destructor reaches it.
            Some(value) if mem::needs_drop::<T>() => drop_guarded("the result of a Deferred", value),
            _ => {}
        }
    }
}

/// The first link of a chain, which a promise fires.
pub(super) struct Root<T: 'static> {
    place: ChainPlace<T>,
    waits: Cell<Waits>,
    /// It was cancelled without a canceller: the next firing was already on its way, and has no
    /// effect.
    swallows: Cell<bool>,
}

/// The source that a chain waits for.
#[derive(Default)]
enum Waits {
    /// The promise, with its canceller if it has one.
    Promise(Option<Box<dyn FnOnce()>>),
    /// The canceller, which is running.
    Canceller,
    /// Nothing: the promise was fired.
    #[default]
    Nothing,
    /// A Deferred that a callback returned.
    Inner(Weak<dyn Head>),
}

/// Outcome of firing a promise.
pub(super) enum Fired<T> {
    Now,
    /// The promise was cancelled, and this firing was already on its way.
    Swallowed,
    /// The promise was fired before: the result comes back.
    Before(Result<T>),
}

impl<T: 'static> Root<T> {
    pub(super) fn new(canceller: Option<Box<dyn FnOnce()>>, made: &'static Location<'static>) -> Rc<Self> {
        let (place, waits) = (ChainPlace::new(made), Cell::new(Waits::Promise(canceller)));
        Rc::new(Self { place, waits, swallows: Cell::new(false) })
    }

    /// Returns `true` if the promise was fired or cancelled.
    pub(super) fn is_called(&self) -> bool {
        let waits = self.waits.take();
        let called = !matches!(waits, Waits::Promise(_) | Waits::Canceller);
        self.waits.set(waits);
        called
    }

    pub(super) fn fire(self: &Rc<Self>, result: Result<T>) -> Fired<T> {
        match self.waits.take() {
            Waits::Promise(canceller) => {
                self.run(result);
                if let Some(canceller) = canceller {
                    drop_guarded("a canceller", canceller);
                }
                Fired::Now
            }
            Waits::Canceller => {
                self.run(result);
                Fired::Now
            }
            waits @ (Waits::Nothing | Waits::Inner(_)) => {
                self.waits.set(waits);
                if self.swallows.take() { Fired::Swallowed } else { Fired::Before(result) }
            }
        }
    }

    fn run(self: &Rc<Self>, result: Result<T>) {
        let mut run = ChainRun { head: Rc::clone(self) as Rc<dyn Head> };
        let next = self.place.give(result, &mut run);
        run.go(next);
    }
}

impl<T: 'static> Drop for Root<T> {
    /// Discards the [`Abandoned`] of a dropped promise if its result never had a consumer: both
    /// ends are gone, and no failure is worth a report.
    fn drop(&mut self) {
        if matches!(self.place.next.get_mut(), ChainNext::Unclaimed)
            && let Some(Err(failure)) = self.place.content.get_mut()
            && failure.check::<Abandoned>().is_some()
        {
            self.place.content.take();
        }
    }
}

impl<T: 'static> ChainStep for Root<T> {
    fn hand_on(self: Rc<Self>, run: &mut ChainRun) -> Option<Rc<dyn ChainStep>> {
        self.place.give_kept(run)
    }
}

impl<T: 'static> ChainSource<T> for Root<T> {
    fn place(&self) -> &ChainPlace<T> {
        &self.place
    }
}

/// Logs the failure of a canceller. It is compiled once, and not for each type of results.
#[cold]
fn canceller_failed(failure: &Panicked, made: &'static Location<'static>) {
    error!(%failure, place = %made, "a canceller failed");
}

impl<T: 'static> Head for Root<T> {
    fn cancel(self: Rc<Self>) -> Option<Rc<dyn Head>> {
        match self.waits.take() {
            Waits::Promise(Some(canceller)) => {
                self.waits.set(Waits::Canceller);
                if let Err(failure) = guarded(canceller) {
                    canceller_failed(&failure, self.place.made);
                }
                // The canceller may have fired the promise itself.
                if !self.is_called() {
                    self.waits.set(Waits::Nothing);
                    self.run(Err(Cancelled.into()));
                }
                None
            }
            Waits::Promise(None) => {
                self.swallows.set(true);
                self.run(Err(Cancelled.into()));
                None
            }
            waits @ (Waits::Canceller | Waits::Nothing) => {
                self.waits.set(waits);
                None
            }
            Waits::Inner(inner) => {
                let next = inner.upgrade();
                self.waits.set(Waits::Inner(inner));
                next
            }
        }
    }

    fn waits_for(&self, inner: Option<Weak<dyn Head>>) {
        self.waits.set(inner.map_or(Waits::Nothing, Waits::Inner));
    }
}

/// A callback, and the storage of its result.
pub(super) struct Link<U: 'static, F> {
    place: ChainPlace<U>,
    call: Cell<Option<F>>,
}

impl<U: 'static, F> Drop for Link<U, F> {
    fn drop(&mut self) {
        if mem::needs_drop::<F>()
            && let Some(call) = self.call.take()
        {
            drop_guarded("a callback of a Deferred", call);
        }
    }
}

impl<U: 'static, F> Link<U, F> {
    /// Creates a link that consumes the result of `source`.
    pub(super) fn behind<T: 'static>(source: &ChainPlace<T>, call: F, made: &'static Location<'static>) -> Rc<Self>
    where
        F: FnOnce(Result<T>) -> Resolved<U> + 'static,
    {
        let link = Rc::new(Self { place: ChainPlace::new(made), call: Cell::new(Some(call)) });
        source.awaited.set(false);
        let old = source.next.replace(ChainNext::Sink(Rc::clone(&link) as Rc<dyn Sink<T>>));
        drop(old);
        link
    }
}

impl<T: 'static, U: 'static, F> Sink<T> for Link<U, F>
where
    F: FnOnce(Result<T>) -> Resolved<U> + 'static,
{
    fn accept(self: Rc<Self>, result: Result<T>, run: &mut ChainRun) -> Option<Rc<dyn ChainStep>> {
        let call = self.call.take()?;
        let result = match guarded(|| call(result)) {
            Ok(Resolved::Now(result)) => result,
            Ok(Resolved::Later(inner)) => match inner.split() {
                Split::Now(result) => result,
                Split::Later(_, its_head) if ptr::addr_eq(its_head.as_ptr(), Rc::as_ptr(&run.head)) => {
                    Err(Circular.into())
                }
                Split::Later(inner, its_head) => {
                    run.head.waits_for(Some(its_head));
                    let follower = Follower { link: self, head: Rc::clone(&run.head) };
                    inner.place().awaited.set(false);
                    let old = inner.place().next.replace(ChainNext::Follower(Box::new(follower)));
                    drop(old);
                    return None;
                }
            },
            Err(panic) => Err(panic.into()),
        };
        self.place.keep(result);
        Some(self)
    }
}

impl<U: 'static, F: 'static> ChainStep for Link<U, F> {
    fn hand_on(self: Rc<Self>, run: &mut ChainRun) -> Option<Rc<dyn ChainStep>> {
        self.place.give_kept(run)
    }
}

impl<U: 'static, F: 'static> ChainSource<U> for Link<U, F> {
    fn place(&self) -> &ChainPlace<U> {
        &self.place
    }
}

/// A stored result without a source, for a Deferred that was ready when it was paused.
pub(super) struct Kept<T: 'static>(ChainPlace<T>);

impl<T: 'static> Kept<T> {
    pub(super) fn new(result: Result<T>, made: &'static Location<'static>) -> Rc<Self> {
        let place = ChainPlace::new(made);
        place.keep(result);
        Rc::new(Self(place))
    }
}

impl<T: 'static> ChainStep for Kept<T> {
    fn hand_on(self: Rc<Self>, run: &mut ChainRun) -> Option<Rc<dyn ChainStep>> {
        self.0.give_kept(run)
    }
}

impl<T: 'static> ChainSource<T> for Kept<T> {
    fn place(&self) -> &ChainPlace<T> {
        &self.0
    }
}

/// The head of a chain that was paused after its root was gone.
struct Anchor(Cell<Option<Weak<dyn Head>>>);

impl Head for Anchor {
    fn cancel(self: Rc<Self>) -> Option<Rc<dyn Head>> {
        let inner = self.0.take();
        let next = inner.as_ref().and_then(Weak::upgrade);
        self.0.set(inner);
        next
    }

    fn waits_for(&self, inner: Option<Weak<dyn Head>>) {
        self.0.set(inner);
    }
}

/// A pause of a link. It keeps the head of the chain alive, so that a callback that runs after the
/// pause can be cancelled.
pub(super) struct Paused<T: 'static> {
    source: Rc<dyn ChainSource<T>>,
    head: Rc<dyn Head>,
}

impl<T: 'static> Paused<T> {
    /// Pauses `source`, and replaces the head if it is gone.
    pub(super) fn new(source: &Rc<dyn ChainSource<T>>, head: &mut Weak<dyn Head>) -> Self {
        let pauses = &source.place().pauses;
        pauses.set(pauses.get() + 1);
        let strong = head.upgrade().unwrap_or_else(|| {
            let anchor: Rc<dyn Head> = Rc::new(Anchor(Cell::new(None)));
            *head = Rc::downgrade(&anchor);
            anchor
        });
        Self { source: Rc::clone(source), head: strong }
    }
}

impl<T: 'static> Drop for Paused<T> {
    fn drop(&mut self) {
        let place = self.source.place();
        place.pauses.set(place.pauses.get() - 1);
        if place.is_ready() {
            let mut run = ChainRun { head: Rc::clone(&self.head) };
            let next = place.give_kept(&mut run);
            run.go(next);
        }
    }
}
