//! The links of a chain, and the loops that run and cancel them. See the module above for states and rules.
//!
//! Upstream owns downstream: a promise owns the [`Root`], which owns the first [`Link`], and so on; a
//! [`Deferred`](super::Deferred) shares the last. Nothing refers upstream but the weak reference to the root, the [`Head`] of the
//! chain, that every Deferred of it hands on to the next: the root knows what is being waited for, which is all that cancelling
//! needs. A promise fires when it is dropped at the latest, which takes the chain apart link by link.
//!
//! No cell is borrowed, ever: what is in one is taken out, looked at, and put back before anything runs that is not ours.

use std::cell::Cell;
use std::mem;
use std::panic::Location;
use std::ptr;
use std::rc::{Rc, Weak};
use std::task::{Context, Waker};

use super::outcome::Resolved;
use super::{Abandoned, Cancelled, Circular, Split, unhandled};
use crate::failure::{Result, drop_guarded, guarded};
use crate::log::error;

/// A link with a result, to be handed on.
pub(super) trait ChainStep {
    /// Gives the result to whoever wants it, and says who has the next one.
    fn hand_on(self: Rc<Self>, run: &mut ChainRun) -> Option<Rc<dyn ChainStep>>;
}

/// Something that has a result of type `T`, or will have one.
pub(super) trait ChainSource<T: 'static>: ChainStep {
    fn place(&self) -> &ChainPlace<T>;
}

/// Something that takes a result of type `T`.
trait Sink<T> {
    fn accept(self: Rc<Self>, result: Result<T>, run: &mut ChainRun) -> Option<Rc<dyn ChainStep>>;
}

/// What knows what a chain is waiting for.
pub(super) trait Head {
    /// Cancels what is waited for, or says whose business that is.
    fn cancel(self: Rc<Self>) -> Option<Rc<dyn Head>>;

    /// A callback returned a Deferred: from now on that is waited for, or no longer.
    fn waits_for(&self, inner: Option<Weak<dyn Head>>);
}

/// A chain that runs.
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

/// Cancels, going to what is waited for, however far away. Chains that wait for one another in a ring, which is an error of
/// whoever made it, have nobody who could be cancelled: that is noticed by meeting again a head that was marked, a mark being
/// set after 1, 2, 4, .. steps (Brent's way).
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

/// A head of nothing: that of a chain which waits for nobody.
pub(super) fn no_head() -> Weak<dyn Head> {
    Weak::<Anchor>::new()
}

/// Where a result is kept until somebody wants it.
pub(super) struct ChainPlace<T: 'static> {
    content: Cell<Option<Result<T>>>,
    next: Cell<ChainNext<T>>,
    made: &'static Location<'static>,
    pauses: Cell<u32>,
    stage: Cell<ChainStage>,
    /// The next is a task.
    awaited: Cell<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ChainStage {
    /// No result yet.
    Waiting,
    There,
    /// The result went on.
    Gone,
}

/// Who wants the result.
#[derive(Default)]
enum ChainNext<T: 'static> {
    #[default]
    Nobody,
    /// A callback.
    Sink(Rc<dyn Sink<T>>),
    /// A link that follows this Deferred. Boxed: it is the largest, and not the most frequent.
    Follower(Box<Follower<T>>),
    Task(Waker),
    /// It gave up, and does not want to hear of it.
    Nowhere,
}

struct Follower<T: 'static> {
    link: Rc<dyn ChainSource<T>>,
    head: Rc<dyn Head>,
}

/// What taking a result gave.
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
            next: Cell::new(ChainNext::Nobody),
            made,
            pauses: Cell::new(0),
            stage: Cell::new(ChainStage::Waiting),
            awaited: Cell::new(false),
        }
    }

    /// Whether it has its result, and does not keep it back.
    pub(super) fn is_there(&self) -> bool {
        self.has_result() && self.pauses.get() == 0
    }

    pub(super) fn has_result(&self) -> bool {
        self.stage.get() == ChainStage::There
    }

    pub(super) fn is_awaited(&self) -> bool {
        self.awaited.get()
    }

    /// The result, if it is there and not kept back.
    pub(super) fn take(&self) -> Taken<T> {
        match self.stage.get() {
            ChainStage::There if self.is_there() => {
                self.stage.set(ChainStage::Gone);
                self.content.take().map_or(Taken::Gone, Taken::Result)
            }
            ChainStage::There | ChainStage::Waiting => Taken::NotYet,
            ChainStage::Gone => Taken::Gone,
        }
    }

    /// As `take`; whoever polls is woken when there is more to say.
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

    /// The task that waited is gone: what comes now goes nowhere.
    pub(super) fn give_up(&self) {
        self.awaited.set(false);
        let old = self.next.replace(ChainNext::Nowhere);
        drop(old);
    }

    fn keep(&self, result: Result<T>) {
        self.stage.set(ChainStage::There);
        self.content.set(Some(result));
    }

    /// Keeps the result if nobody wants it now, otherwise gives it away, and says who has the next one.
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
            ChainNext::Nobody => {
                self.keep(result);
                None
            }
            ChainNext::Task(waker) => {
                self.keep(result);
                waker.wake();
                None
            }
            ChainNext::Nowhere => {
                self.stage.set(ChainStage::Gone);
                drop_guarded("the result of a Deferred", result);
                None
            }
        }
    }

    /// Gives what is kept.
    fn give_kept(&self, run: &mut ChainRun) -> Option<Rc<dyn ChainStep>> {
        let result = self.take().result()?;
        self.give(result, run)
    }
}

impl<T> Drop for ChainPlace<T> {
    fn drop(&mut self) {
        match self.content.take() {
            Some(Err(failure)) => unhandled::report(failure, self.made),
            // Whoever fires a promise may be the one that drops this.
            Some(value) if mem::needs_drop::<T>() => drop_guarded("the result of a Deferred", value),
            _ => {}
        }
    }
}

/// The first link: what a promise fires.
pub(super) struct Root<T: 'static> {
    place: ChainPlace<T>,
    waits: Cell<Waits>,
    /// It was cancelled without a canceller: the next firing was on its way, and does nothing.
    swallows: Cell<bool>,
}

/// What a chain is waiting for.
#[derive(Default)]
enum Waits {
    /// The promise, which somebody may know how to give up.
    Promise(Option<Box<dyn FnOnce()>>),
    /// The canceller, which runs.
    Canceller,
    /// Nothing: it was fired.
    #[default]
    Nothing,
    /// A Deferred that a callback returned.
    Inner(Weak<dyn Head>),
}

/// What firing a promise came to.
pub(super) enum Fired<T> {
    Now,
    /// It was cancelled, and this was already on its way.
    Swallowed,
    /// It was fired before: the result comes back.
    Before(Result<T>),
}

impl<T: 'static> Root<T> {
    pub(super) fn new(canceller: Option<Box<dyn FnOnce()>>, made: &'static Location<'static>) -> Rc<Self> {
        let (place, waits) = (ChainPlace::new(made), Cell::new(Waits::Promise(canceller)));
        Rc::new(Self { place, waits, swallows: Cell::new(false) })
    }

    /// Whether it was fired or cancelled.
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
    /// Throws away that the promise was dropped, if nothing ever waited for the result: both ends went, and nothing is missed.
    fn drop(&mut self) {
        if matches!(self.place.next.get_mut(), ChainNext::Nobody)
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

impl<T: 'static> Head for Root<T> {
    fn cancel(self: Rc<Self>) -> Option<Rc<dyn Head>> {
        match self.waits.take() {
            Waits::Promise(Some(canceller)) => {
                self.waits.set(Waits::Canceller);
                if let Err(failure) = guarded(canceller) {
                    error!(%failure, place = %self.place.made, "a canceller failed");
                }
                // It may have fired the promise itself.
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

/// A callback, and the place of what it makes.
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
    /// A link behind `source`.
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

/// A result that is kept back, though nobody has to be waited for.
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

/// The head of a chain that was paused after its root had gone.
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

/// A pause of a place. It keeps the head of the chain, for whoever cancels what runs after it.
pub(super) struct Paused<T: 'static> {
    source: Rc<dyn ChainSource<T>>,
    head: Rc<dyn Head>,
}

impl<T: 'static> Paused<T> {
    /// Pauses; the head is replaced if there is none any more.
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
        if place.is_there() {
            let mut run = ChainRun { head: Rc::clone(&self.head) };
            let next = place.give_kept(&mut run);
            run.go(next);
        }
    }
}
