//! The reactor inside GLib's main loop.
#![cfg(feature = "glib")]

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use glib::{MainContext, MainLoop};
use ropewalk::interfaces::*;
use ropewalk::{BackendKind, Reactor};
use ropewalk_hosting::glib_host::attach;

/// Timers, threads and requests from GLib's own sources reach the reactor, on each backend. A stop
/// ends the run, and no turn is made while nothing happens. One test, because all use the default
/// context.
#[test]
fn the_main_loop_of_glib_is_a_host() {
    for kind in [BackendKind::Mio, BackendKind::IoUring] {
        let reactor = Reactor::builder().signals(false).backend(kind).build().expect("a poller");
        if reactor.backend() != kind {
            continue;
        }
        let (main_loop, ended) = (MainLoop::new(None, false), Rc::<Cell<bool>>::default());
        let (quitting, told) = (main_loop.clone(), Rc::clone(&ended));
        let attached = attach(&reactor, move |result| {
            result.expect("the loop turns");
            told.set(true);
            quitting.quit();
        })
        .expect("it does not run");
        assert!(attach(&reactor, |_| ()).is_err(), "one run at a time");
        // A timer, which starts a thread, whose call is heard.
        let came = Rc::<Cell<u32>>::default();
        let counted = Rc::clone(&came);
        let remote = reactor.remote();
        reactor.call_later(Duration::from_millis(5), move || {
            counted.set(1);
            drop(std::thread::spawn(move || remote.call_from_thread(|_| {})));
        });
        // A source of GLib asks for a timer earlier than the reactor's next deadline.
        reactor.call_later(Duration::from_secs(3600), || {});
        let (asking, counted) = (reactor.clone(), Rc::clone(&came));
        glib::timeout_add_local_once(Duration::from_millis(30), move || {
            asking.call_later(Duration::from_millis(1), move || counted.set(counted.get() + 10));
        });
        // No turn while nothing happens.
        let turns = Rc::<Cell<u64>>::default();
        let (kept, counting) = (Rc::clone(&turns), reactor.clone());
        glib::timeout_add_local_once(Duration::from_millis(60), move || kept.set(counting.counters().turns));
        let (kept, stopping) = (Rc::clone(&turns), reactor.clone());
        glib::timeout_add_local_once(Duration::from_millis(120), move || {
            assert_eq!(kept.get(), stopping.counters().turns);
            stopping.stop().expect("it runs");
        });
        let limit = main_loop.clone();
        let limit = glib::timeout_add_local_once(Duration::from_secs(30), move || limit.quit());
        main_loop.run();
        limit.remove();
        assert_eq!((came.get(), ended.get()), (11, true), "on {kind:?}");
        drop(attached);
        // A dropped host leaves the run.
        drop(attach(&reactor, |_| ()).expect("the last run is over"));
        assert!(!reactor.is_running() && !MainContext::default().pending());
    }
}
