//! The links of a chain, and the loops that run and cancel them. See the module above for states and rules.
//!
//! Upstream owns downstream: a promise owns its [`Root`], which owns the next [`Link`], and so on; a [`Deferred`](super::Deferred) owns
//! the last. Downstream refers upstream weakly, for cancelling. A promise fires when it is dropped at the latest, which
//! takes the chain apart link by link.
//!
//! No cell stays borrowed while anything runs, or is dropped, that is not ours.

use std::cell::{Cell, RefCell};
use std::mem;
use std::panic::Location;
use std::rc::{Rc, Weak};
use std::task::{Context, Waker};

use super::outcome::Resolved;
use super::{Cancelled, unhandled};
use crate::failure::{Result, guarded};

/// Something that will have a result of type `T`.
pub(super) trait Source<T: 'static>: Cancel {
    fn place(&self) -> &Place<T>;
    fn into_cancel(self: Rc<Self>) -> Rc<dyn Cancel>;
}

/// Something that can be cancelled.
pub(super) trait Cancel {
    /// Cancels this, or says what is to be cancelled instead: what it waits for.
    fn cancel(self: Rc<Self>) -> Option<Rc<dyn Cancel>>;
}

/// Something that takes a result of type `T`.
pub(super) trait Sink<T>: Step {
    fn put(&self, result: Result<T>);
    fn into_step(self: Rc<Self>) -> Rc<dyn Step>;
}

/// A link whose turn has come.
pub(super) trait Step {
    /// Runs its callback, and says who is next.
    fn run(self: Rc<Self>) -> Option<Rc<dyn Step>>;
}

/// Where a result is kept until somebody wants it.
pub(super) struct Place<T: 'static> {
    content: RefCell<Content<T>>,
    next: RefCell<Next<T>>,
    pauses: Cell<usize>,
    made: &'static Location<'static>,
}

enum Content<T> {
    Nothing,
    Result(Result<T>),
    Gone,
}

/// Who wants the result.
enum Next<T: 'static> {
    Nobody,
    /// A callback.
    Sink(Rc<dyn Sink<T>>),
    /// A link that follows this Deferred.
    Follower(Rc<dyn Source<T>>),
    Task(Waker),
}

/// What taking a result gave.
pub(super) enum Taken<T> {
    Result(Result<T>),
    NotYet,
    Gone,
}

impl<T> Place<T> {
    fn new(content: Content<T>, made: &'static Location<'static>) -> Self {
        Self { content: RefCell::new(content), next: RefCell::new(Next::Nobody), pauses: Cell::new(0), made }
    }

    pub(super) fn is_there(&self) -> bool {
        matches!(&*self.content.borrow(), Content::Result(_))
    }

    pub(super) fn take(&self) -> Option<Result<T>> {
        if self.pauses.get() > 0 || !self.is_there() {
            return None;
        }
        match self.content.replace(Content::Gone) {
            Content::Result(result) => Some(result),
            Content::Nothing | Content::Gone => None,
        }
    }

    pub(super) fn poll(&self, context: &mut Context<'_>) -> Taken<T> {
        if let Some(result) = self.take() {
            return Taken::Result(result);
        }
        if matches!(&*self.content.borrow(), Content::Gone) {
            return Taken::Gone;
        }
        let is_the_same = matches!(&*self.next.borrow(), Next::Task(waker) if waker.will_wake(context.waker()));
        if !is_the_same {
            let old = self.next.replace(Next::Task(context.waker().clone()));
            drop(old);
        }
        Taken::NotYet
    }

    pub(super) fn hand_on_to<L: Sink<T> + 'static>(&self, link: Rc<L>) {
        let old = self.next.replace(Next::Sink(link));
        drop(old);
    }

    pub(super) fn pause(&self) {
        self.pauses.set(self.pauses.get() + 1);
    }
}

impl<T> Drop for Place<T> {
    fn drop(&mut self) {
        if let Content::Result(Err(failure)) = mem::replace(self.content.get_mut(), Content::Gone) {
            unhandled::report(failure, self.made);
        }
    }
}

/// Gives a place its result, and whoever wants it the turn. Follows followers, however many, without recursion.
fn settle<T: 'static>(source: Rc<dyn Source<T>>, result: Result<T>) -> Option<Rc<dyn Step>> {
    let (mut source, mut result) = (source, result);
    loop {
        let place = source.place();
        if place.pauses.get() > 0 {
            place.content.replace(Content::Result(result));
            return None;
        }
        match place.next.replace(Next::Nobody) {
            Next::Nobody => {
                place.content.replace(Content::Result(result));
                return None;
            }
            Next::Task(waker) => {
                place.content.replace(Content::Result(result));
                waker.wake();
                return None;
            }
            Next::Sink(link) => {
                place.content.replace(Content::Gone);
                link.put(result);
                return Some(link.into_step());
            }
            Next::Follower(follower) => {
                place.content.replace(Content::Gone);
                (source, result) = (follower, result);
            }
        }
    }
}

/// Runs a link, and all that follow.
fn run(mut next: Option<Rc<dyn Step>>) {
    while let Some(step) = next {
        next = step.run();
    }
}

/// Cancels, going to what is waited for.
pub(super) fn cancel(link: Rc<dyn Cancel>) {
    let mut next = Some(link);
    while let Some(link) = next {
        next = link.cancel();
    }
}

/// One pause less.
pub(super) fn unpause<T: 'static>(source: &Rc<dyn Source<T>>) {
    let place = source.place();
    place.pauses.set(place.pauses.get() - 1);
    if matches!(&*place.next.borrow(), Next::Nobody) {
        return;
    }
    if let Some(result) = place.take() {
        run(settle(Rc::clone(source), result));
    }
}

/// What firing a promise came to.
pub(super) enum Fired<T> {
    Now,
    /// It was cancelled, and this was already on its way.
    Swallowed,
    /// It was fired before: the result comes back.
    Before(Result<T>),
}

/// Fires.
pub(super) fn fire<T: 'static>(root: &Rc<Root<T>>, result: Result<T>) -> Fired<T> {
    match root.stage.get() {
        Stage::Waiting | Stage::Cancelling => {
            root.stage.set(Stage::Fired);
            let canceller = root.canceller.take();
            run(settle(Rc::clone(root) as Rc<dyn Source<T>>, result));
            drop(canceller);
            Fired::Now
        }
        Stage::Cancelled => {
            root.stage.set(Stage::Fired);
            Fired::Swallowed
        }
        Stage::Fired => Fired::Before(result),
    }
}

/// The first link: what a promise fires.
pub(super) struct Root<T: 'static> {
    place: Place<T>,
    stage: Cell<Stage>,
    canceller: Cell<Option<Box<dyn FnOnce()>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting,
    /// Its canceller runs.
    Cancelling,
    /// It was cancelled without a canceller: one firing is swallowed.
    Cancelled,
    Fired,
}

impl<T: 'static> Root<T> {
    pub(super) fn waiting(canceller: Option<Box<dyn FnOnce()>>, made: &'static Location<'static>) -> Rc<Self> {
        let (place, stage) = (Place::new(Content::Nothing, made), Cell::new(Stage::Waiting));
        Rc::new(Self { place, stage, canceller: Cell::new(canceller) })
    }

    pub(super) fn settled(result: Result<T>, made: &'static Location<'static>) -> Rc<Self> {
        let (place, stage) = (Place::new(Content::Result(result), made), Cell::new(Stage::Fired));
        Rc::new(Self { place, stage, canceller: Cell::new(None) })
    }

    pub(super) fn is_called(&self) -> bool {
        matches!(self.stage.get(), Stage::Fired | Stage::Cancelled)
    }
}

impl<T: 'static> Source<T> for Root<T> {
    fn place(&self) -> &Place<T> {
        &self.place
    }

    fn into_cancel(self: Rc<Self>) -> Rc<dyn Cancel> {
        self
    }
}

impl<T: 'static> Cancel for Root<T> {
    fn cancel(self: Rc<Self>) -> Option<Rc<dyn Cancel>> {
        if self.stage.get() != Stage::Waiting {
            return None;
        }
        let after = match self.canceller.take() {
            Some(canceller) => {
                self.stage.set(Stage::Cancelling);
                if let Err(failure) = guarded(canceller) {
                    tracing::error!(%failure, place = %self.place.made, "a canceller failed");
                }
                Stage::Fired
            }
            None => Stage::Cancelled,
        };
        if self.stage.get() != Stage::Fired {
            self.stage.set(after);
            run(settle(self as Rc<dyn Source<T>>, Err(Cancelled.into())));
        }
        None
    }
}

/// A callback, and the place of what it makes.
pub(super) struct Link<T, U: 'static, F> {
    place: Place<U>,
    input: Cell<Option<Result<T>>>,
    call: Cell<Option<F>>,
    /// What is waited for: the link before, then the Deferred that is followed.
    waits_for: RefCell<Weak<dyn Cancel>>,
}

impl<T: 'static, U: 'static, F> Link<T, U, F>
where
    F: FnOnce(Result<T>) -> Resolved<U> + 'static,
{
    pub(super) fn new(call: F, waits_for: Weak<dyn Cancel>, made: &'static Location<'static>) -> Rc<Self> {
        Rc::new(Self {
            place: Place::new(Content::Nothing, made),
            input: Cell::new(None),
            call: Cell::new(Some(call)),
            waits_for: RefCell::new(waits_for),
        })
    }

    /// The callback returned a Deferred: its result becomes ours.
    fn follow(self: Rc<Self>, inner: Rc<dyn Source<U>>) -> Option<Rc<dyn Step>> {
        if let Some(result) = inner.place().take() {
            return settle(self as Rc<dyn Source<U>>, result);
        }
        self.waits_for.replace(Rc::downgrade(&Rc::clone(&inner).into_cancel()));
        let old = inner.place().next.replace(Next::Follower(self));
        drop(old);
        None
    }
}

impl<T: 'static, U: 'static, F> Step for Link<T, U, F>
where
    F: FnOnce(Result<T>) -> Resolved<U> + 'static,
{
    fn run(self: Rc<Self>) -> Option<Rc<dyn Step>> {
        let (Some(call), Some(input)) = (self.call.take(), self.input.take()) else { return None };
        match guarded(|| call(input)) {
            Ok(Resolved::Now(result)) => settle(self as Rc<dyn Source<U>>, result),
            Ok(Resolved::Later(inner)) => self.follow(inner.0),
            Err(panic) => settle(self as Rc<dyn Source<U>>, Err(panic.into())),
        }
    }
}

impl<T: 'static, U: 'static, F> Sink<T> for Link<T, U, F>
where
    F: FnOnce(Result<T>) -> Resolved<U> + 'static,
{
    fn put(&self, result: Result<T>) {
        self.input.set(Some(result));
    }

    fn into_step(self: Rc<Self>) -> Rc<dyn Step> {
        self
    }
}

impl<T: 'static, U: 'static, F> Source<U> for Link<T, U, F>
where
    F: FnOnce(Result<T>) -> Resolved<U> + 'static,
{
    fn place(&self) -> &Place<U> {
        &self.place
    }

    fn into_cancel(self: Rc<Self>) -> Rc<dyn Cancel> {
        self
    }
}

impl<T: 'static, U: 'static, F> Cancel for Link<T, U, F>
where
    F: FnOnce(Result<T>) -> Resolved<U> + 'static,
{
    fn cancel(self: Rc<Self>) -> Option<Rc<dyn Cancel>> {
        self.waits_for.borrow().upgrade()
    }
}
