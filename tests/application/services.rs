//! Parents, children and timers: the order of starts and stops, failures, and changes meanwhile.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use ropewalk::application::{MultiService, NoSuchService, Service, TimerService};
use ropewalk::deferred::{Promise, unhandled};
use ropewalk::testing::{VirtualClock, assert_no_result, failure_result_of, success_result_of};
use ropewalk::{Clock, Deferred, Failure};

const SECOND: Duration = Duration::from_secs(1);

type Events = Rc<RefCell<Vec<String>>>;

type AtStart = Box<dyn FnOnce() -> Deferred<()>>;

/// Records its calls, and does at its start what the test wants.
struct Part {
    name: &'static str,
    events: Events,
    at_start: RefCell<Option<AtStart>>,
    stops: RefCell<Vec<Promise<()>>>,
    stops_later: bool,
}

fn part(name: &'static str, events: &Events) -> Part {
    Part {
        name,
        events: Rc::clone(events),
        at_start: RefCell::default(),
        stops: RefCell::default(),
        stops_later: false,
    }
}

impl Part {
    fn at_start(self, call: impl FnOnce() -> Deferred<()> + 'static) -> Self {
        self.at_start.replace(Some(Box::new(call)));
        self
    }

    fn stops_later(mut self) -> Rc<Self> {
        self.stops_later = true;
        Rc::new(self)
    }

    fn end_stop(&self) {
        let promise = self.stops.borrow_mut().remove(0);
        promise.callback(()).unwrap();
    }

    fn log(&self, what: &str) {
        self.events.borrow_mut().push(format!("{what} {}", self.name));
    }
}

impl Service for Part {
    fn privileged_start_service(&self) -> Deferred<()> {
        self.log("prepare");
        Deferred::succeed(())
    }

    fn start_service(&self) -> Deferred<()> {
        self.log("start");
        let call = self.at_start.take();
        call.map_or_else(|| Deferred::succeed(()), |call| call())
    }

    fn stop_service(&self) -> Deferred<()> {
        self.log("stop");
        if !self.stops_later {
            return Deferred::succeed(());
        }
        let (promise, stopped) = Promise::new();
        self.stops.borrow_mut().push(promise);
        stopped
    }
}

fn start(service: &impl Service) {
    success_result_of(&mut service.start_service());
}

/// Children start in order and stop in reverse; all are told before any is waited for.
#[test]
fn children_start_in_order_and_stop_in_reverse() {
    let events = Events::default();
    let parent = MultiService::new();
    let slow = part("b", &events).stops_later();
    parent.add_service(part("a", &events));
    parent.add_service(Rc::clone(&slow));
    parent.add_service(part("c", &events));
    success_result_of(&mut parent.privileged_start_service());
    start(&parent);
    start(&parent);
    assert_eq!(events.take(), ["prepare a", "prepare b", "prepare c", "start a", "start b", "start c"]);
    let mut stopped = parent.stop_service();
    assert_eq!(events.take(), ["stop c", "stop b", "stop a"]);
    assert_no_result(&mut stopped);
    slow.end_stop();
    success_result_of(&mut stopped);
    success_result_of(&mut parent.stop_service());
    assert!(events.take().is_empty(), "it was stopped already");
}

/// A child that is added to a running parent starts, one that is removed stops, and each once.
#[test]
fn a_running_parent_starts_and_stops_what_comes_and_goes() {
    let events = Events::default();
    let parent = MultiService::new();
    let early = parent.add_named_service("early", part("early", &events)).unwrap();
    assert!(parent.add_named_service("early", part("twin", &events)).is_err());
    success_result_of(&mut parent.remove_service(early));
    assert!(events.take().is_empty(), "it was never started");
    assert!(failure_result_of(&mut parent.remove_service(early)).check::<NoSuchService>().is_some());

    start(&parent);
    let slow = part("late", &events).stops_later();
    let late = parent.add_named_service("late", Rc::clone(&slow)).unwrap();
    assert_eq!(events.take(), ["prepare late", "start late"]);
    let mut removed = parent.remove_service(late);
    assert_eq!(events.take(), ["stop late"]);
    assert!(parent.service_named("late").is_none() && parent.services().is_empty());
    // The parent waits for the child that is on its way out.
    let mut stopped = parent.stop_service();
    assert_no_result(&mut stopped);
    slow.end_stop();
    success_result_of(&mut removed);
    success_result_of(&mut stopped);
    assert!(events.take().is_empty());
}

/// The first failure reaches the caller with the child's name, and the others reach the log.
#[test]
fn failures_are_told_once() {
    let events = Events::default();
    let parent = MultiService::new();
    parent.add_named_service("web", part("a", &events).at_start(|| Deferred::fail("port taken"))).unwrap();
    parent.add_service(part("b", &events).at_start(|| panic!("broken")));
    parent.add_service(part("c", &events));
    let (failure, unheard) = unhandled::collect(|| failure_result_of(&mut parent.start_service()));
    assert_eq!(failure.to_string(), "the service \"web\": port taken");
    assert_eq!(unheard.len(), 1, "{unheard:?}");
    assert!(unheard[0].failure.to_string().contains("broken"));
    assert_eq!(events.take(), ["start a", "start b", "start c"]);
    success_result_of(&mut parent.stop_service());
    assert_eq!(events.take(), ["stop c", "stop b", "stop a"], "one that failed to start may have begun");

    let ((), unheard) = unhandled::collect(|| {
        start(&parent);
        parent.add_named_service("mail", part("d", &events).at_start(|| Deferred::fail("no disk"))).unwrap();
    });
    assert_eq!(unheard.len(), 1);
    assert!(unheard[0].failure.to_string().contains("no disk"), "{unheard:?}");
}

/// A child may stop its parent, or remove a sibling, in the middle of the parent's start.
#[test]
fn children_change_their_parent_while_it_starts() {
    let events = Events::default();
    let parent = MultiService::new();
    let stopping = parent.clone();
    parent.add_service(part("a", &events).at_start(move || stopping.stop_service()));
    parent.add_service(part("b", &events));
    start(&parent);
    assert_eq!(events.take(), ["start a", "stop a"]);
    assert!(!parent.is_running());

    let parent = MultiService::new();
    let (removing, sibling) = (parent.clone(), Rc::new(Cell::new(None)));
    let id = Rc::clone(&sibling);
    let adds = Rc::clone(&events);
    parent.add_service(part("a", &events).at_start(move || {
        removing.add_service(part("c", &adds));
        removing.remove_service(id.get().unwrap())
    }));
    sibling.set(Some(parent.add_service(part("b", &events))));
    start(&parent);
    assert_eq!(events.take(), ["start a", "prepare c", "start c"]);
    success_result_of(&mut parent.stop_service());
    assert_eq!(events.take(), ["stop c", "stop a"]);
}

/// A child whose privileged part was started is stopped, even if the parent never was.
#[test]
fn a_stop_takes_back_a_privileged_start() {
    let events = Events::default();
    let parent = MultiService::new();
    parent.add_service(part("a", &events));
    success_result_of(&mut parent.privileged_start_service());
    success_result_of(&mut parent.stop_service());
    assert_eq!(events.take(), ["prepare a", "stop a"]);
}

/// A second stop waits for the first one, and a start in between is obeyed.
#[test]
fn a_start_while_stopping_and_a_second_stop() {
    let events = Events::default();
    let parent = MultiService::new();
    let slow = part("a", &events).stops_later();
    parent.add_service(Rc::clone(&slow));
    start(&parent);
    let mut first = parent.stop_service();
    let mut again = parent.stop_service();
    assert_no_result(&mut again);
    start(&parent);
    assert_eq!(events.take(), ["start a", "stop a", "start a"]);
    slow.end_stop();
    success_result_of(&mut first);
    success_result_of(&mut again);
    assert!(parent.is_running());
}

/// A timer service calls while it runs, and its stop waits for the call that is under way.
#[test]
fn a_timer_service_waits_for_its_call() {
    let clock = VirtualClock::new();
    let call = Rc::new(RefCell::new(None));
    let place = Rc::clone(&call);
    let service = TimerService::new(&clock, SECOND, move || {
        let (promise, done) = Promise::new();
        place.replace(Some(promise));
        done
    });
    success_result_of(&mut service.stop_service());
    start(&service);
    start(&service);
    let mut stopped = service.stop_service();
    assert_no_result(&mut stopped);
    let promise: Promise<()> = call.take().unwrap();
    promise.callback(()).unwrap();
    success_result_of(&mut stopped);
    clock.advance(SECOND * 5);
    assert!(call.take().is_none() && clock.delayed_calls().is_empty());

    start(&service);
    let promise = call.take().expect("it was started again");
    promise.callback(()).unwrap();
    assert!(service.is_running());
}

/// The failure of a call is logged once, and ends the calls until the next start.
#[test]
fn a_timer_service_logs_the_failure_of_its_call() {
    let clock = VirtualClock::new();
    let calls = Rc::new(Cell::new(0));
    let counted = Rc::clone(&calls);
    let service = TimerService::new(&clock, SECOND, move || {
        counted.set(counted.get() + 1);
        if counted.get() == 2 { Err(Failure::message("disk full")) } else { Ok(()) }
    });
    start(&service);
    let ((), unheard) = unhandled::collect(|| clock.pump([SECOND; 3]));
    assert_eq!((calls.get(), unheard.len()), (2, 1));
    assert!(unheard[0].failure.to_string().contains("disk full"));
    assert!(!service.is_running());
    success_result_of(&mut service.stop_service());
    start(&service);
    clock.pump([SECOND; 2]);
    assert_eq!(calls.get(), 5);
}
