//! Services that are started and stopped as one (Twisted: `MultiService`).

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;

use thiserror::Error;

use super::{Service, fire_stopped, wait_for_all};
use crate::deferred::{Deferred, Promise, maybe_deferred};

/// A service made of other services (Twisted: `MultiService`, `IServiceCollection`).
///
/// 1. Children start in the order in which they were added. They stop in the reverse order. All are
///    told before any is waited for.
/// 2. A child that is added to a running parent starts at once. A child that is removed from one
///    stops.
/// 3. A child is stopped once for each start, no matter what the children do to their parent
///    meanwhile.
/// 4. The Deferred of a stop also waits for stops that were under way before.
///
/// A failure of a child with a name begins with that name. If several children fail in the same
/// start or stop, the Deferred gets the first failure, and the log gets the others. A child that
/// failed to start does not stop the others: that is the caller's choice.
///
/// ```
/// use std::time::Duration;
/// use ropewalk::application::{MultiService, Service, TimerService};
/// use ropewalk::testing::VirtualClock;
///
/// # fn main() -> ropewalk::Result<()> {
/// let clock = VirtualClock::new();
/// let program = MultiService::new();
/// let pings = TimerService::new(&clock, Duration::from_secs(20), || println!("ping"));
/// program.add_named_service("pings", pings)?;
/// program.start_service().or_log("starting");
/// assert!(program.is_running() && program.service_named("pings").is_some());
/// program.stop_service().or_log("stopping");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct MultiService(Rc<Children>);

impl MultiService {
    /// Makes a service without children.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a child (Twisted: `addService`, `setServiceParent`). If the parent runs, the child
    /// starts now, and a failure of its start is logged.
    #[track_caller]
    pub fn add_service(&self, service: impl Service) -> ServiceId {
        self.0.add(None, Rc::new(service))
    }

    /// Adds a child with a name (Twisted: `setName`, then `setServiceParent`). Otherwise as
    /// [`add_service`](Self::add_service).
    ///
    /// # Errors
    /// [`NameTaken`] if a child has that name. The service is dropped.
    #[track_caller]
    pub fn add_named_service(&self, name: &str, service: impl Service) -> Result<ServiceId, NameTaken> {
        if self.service_named(name).is_some() {
            return Err(NameTaken { name: name.to_owned() });
        }
        Ok(self.0.add(Some(name.into()), Rc::new(service)))
    }

    /// Returns the child with this name (Twisted: `getServiceNamed`).
    pub fn service_named(&self, name: &str) -> Option<Rc<dyn Service>> {
        let children = self.0.children.borrow();
        children.iter().find(|child| child.name.as_deref() == Some(name)).map(|child| Rc::clone(&child.service))
    }

    /// Removes a child, and stops it if it was started (Twisted: `removeService`,
    /// `disownServiceParent`). The name is free when this returns.
    ///
    /// # Errors
    /// The Deferred fails with [`NoSuchService`] if the child was removed before, and with the
    /// failure of its stop.
    #[track_caller]
    pub fn remove_service(&self, id: ServiceId) -> Deferred<()> {
        let removed = {
            let mut children = self.0.children.borrow_mut();
            children.iter().position(|child| child.id == id).map(|place| children.remove(place))
        };
        match removed {
            Some(child) if child.stage.replace(ChildStage::Stopped) != ChildStage::Stopped => self.0.stop(&child),
            Some(_) => Deferred::succeed(()),
            None => Deferred::fail(NoSuchService),
        }
    }

    /// Returns the children, in the order in which they start (Twisted: iteration over the
    /// service).
    pub fn services(&self) -> Vec<Rc<dyn Service>> {
        self.0.children.borrow().iter().map(|child| Rc::clone(&child.service)).collect()
    }

    /// Returns `true` from a start until the next stop (Twisted: `running`).
    pub fn is_running(&self) -> bool {
        self.0.is_running.get()
    }
}

impl Service for MultiService {
    fn privileged_start_service(&self) -> Deferred<()> {
        let mut starts = Vec::new();
        for child in self.0.snapshot() {
            // An earlier child may have started the parent, or removed this child.
            if self.0.has(child.id) && child.stage.get() == ChildStage::Stopped {
                child.stage.set(ChildStage::Privileged);
                starts.push(child.named(maybe_deferred(|| child.service.privileged_start_service())));
            }
        }
        wait_for_all(starts)
    }

    fn start_service(&self) -> Deferred<()> {
        if self.0.is_running.replace(true) {
            return Deferred::succeed(());
        }
        let mut starts = Vec::new();
        for child in self.0.snapshot() {
            // An earlier child may have stopped the parent, or removed this child.
            if self.is_running()
                && self.0.has(child.id)
                && child.stage.replace(ChildStage::Started) != ChildStage::Started
            {
                starts.push(child.named(maybe_deferred(|| child.service.start_service())));
            }
        }
        wait_for_all(starts)
    }

    fn stop_service(&self) -> Deferred<()> {
        self.0.is_running.set(false);
        let mut stops = Vec::from_iter(self.0.when_stopped());
        for child in self.0.snapshot().into_iter().rev() {
            if child.stage.replace(ChildStage::Stopped) != ChildStage::Stopped {
                stops.push(self.0.stop(&child));
            }
        }
        wait_for_all(stops)
    }
}

impl fmt::Debug for MultiService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let children = self.0.children.borrow();
        let names: Vec<_> = children.iter().map(|child| child.name.as_deref().unwrap_or("unnamed")).collect();
        f.debug_struct("MultiService").field("running", &self.is_running()).field("children", &names).finish()
    }
}

/// Identifies a child of a [`MultiService`], for [`MultiService::remove_service`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ServiceId(u64);

/// A child of the service has that name already (Twisted: a `RuntimeError`).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("a service named {name:?} is there already")]
#[non_exhaustive]
pub struct NameTaken {
    /// The name.
    pub name: String,
}

/// The service is not, or no longer, a child of this parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("there is no such child: it was removed")]
pub struct NoSuchService;

#[derive(Default)]
struct Children {
    children: RefCell<Vec<Child>>,
    next_id: Cell<u64>,
    is_running: Cell<bool>,
    /// Number of stops of children that have no result yet.
    stopping: Cell<usize>,
    waiters: RefCell<Vec<Promise<()>>>,
}

#[derive(Clone)]
struct Child {
    id: ServiceId,
    name: Option<Rc<str>>,
    service: Rc<dyn Service>,
    stage: Rc<Cell<ChildStage>>,
}

/// The calls that a child has had. It is stopped if it had any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ChildStage {
    Stopped,
    /// `privileged_start_service` was called, and `start_service` was not.
    Privileged,
    Started,
}

impl Child {
    /// Puts the child's name in front of its failure.
    fn named(&self, done: Deferred<()>) -> Deferred<()> {
        let Some(name) = self.name.clone() else { return done };
        done.add_errback(move |failure| Err(failure.context(format!("the service {name:?}"))))
    }
}

impl Children {
    #[track_caller]
    fn add(&self, name: Option<Rc<str>>, service: Rc<dyn Service>) -> ServiceId {
        let id = ServiceId(self.next_id.replace(self.next_id.get() + 1));
        let stage = if self.is_running.get() { ChildStage::Started } else { ChildStage::Stopped };
        let child = Child { id, name, service, stage: Rc::new(Cell::new(stage)) };
        self.children.borrow_mut().push(child.clone());
        if stage == ChildStage::Started {
            let service = Rc::clone(&child.service);
            let started = maybe_deferred(|| child.service.privileged_start_service());
            child.named(started.add_callback(move |()| service.start_service())).or_log("starting a service");
        }
        id
    }

    /// Stops a child that was started.
    #[track_caller]
    fn stop(self: &Rc<Self>, child: &Child) -> Deferred<()> {
        self.stopping.set(self.stopping.get() + 1);
        let parent = Rc::clone(self);
        child.named(maybe_deferred(|| child.service.stop_service())).add_both(move |result| {
            parent.stopping.set(parent.stopping.get() - 1);
            if parent.stopping.get() == 0 {
                fire_stopped(parent.waiters.take(), Ok(()));
            }
            result
        })
    }

    /// Returns a Deferred for the end of the stops that are under way, if any is.
    fn when_stopped(&self) -> Option<Deferred<()>> {
        (self.stopping.get() > 0).then(|| {
            let (promise, stopped) = Promise::new();
            self.waiters.borrow_mut().push(promise);
            stopped
        })
    }

    fn snapshot(&self) -> Vec<Child> {
        self.children.borrow().clone()
    }

    fn has(&self, id: ServiceId) -> bool {
        self.children.borrow().iter().any(|child| child.id == id)
    }
}
