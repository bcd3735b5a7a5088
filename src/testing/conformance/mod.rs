//! The conformance suite: the behaviour that every engine must have on every backend (Twisted:
//! `ReactorBuilder` and its tests, `twisted.internet.test.reactormixins`).
//!
//! It runs on every backend of this crate, and on the simulated network under many conditions. It
//! uses only what the public interface promises: the peers in its cases are protocols on reactors
//! too. It does not measure speed, and does not cover features of a single backend. Other tests do.
//!
//! To run it on a backend of your own, implement [`Setting`], which makes and drives reactors, and
//! make a test of each [`Case`]:
//!
//! ```
//! use std::time::{Duration, Instant};
//! use ropewalk::{Address, Reactor};
//! use ropewalk::testing::conformance::Setting;
//!
//! #[derive(Default)]
//! struct Loopback(Vec<Reactor>);
//!
//! impl Setting for Loopback {
//!     fn reactor(&mut self) -> Reactor {
//!         let reactor = Reactor::builder().signals(false).build().expect("a poller");
//!         self.0.push(reactor.clone());
//!         reactor
//!     }
//!
//!     fn address(&mut self) -> Address {
//!         Address::Inet("127.0.0.1:0".parse().expect("an address"))
//!     }
//!
//!     fn drive(&mut self, done: &mut dyn FnMut() -> bool) {
//!         let until = Instant::now() + Duration::from_secs(30);
//!         while !done() {
//!             assert!(Instant::now() < until, "it did not happen");
//!             self.0.iter().for_each(|reactor| reactor.iterate(Duration::from_millis(1)).expect("the loop turns"));
//!         }
//!     }
//!
//!     fn moment(&self) -> Duration {
//!         Duration::from_millis(20)
//!     }
//!
//!     fn plenty(&self) -> usize {
//!         24_000_000
//!     }
//! }
//!
//! // In a test file: one test for each case, in a module of this name.
//! ropewalk::conformance_tests!(loopback, || Box::new(Loopback::default()));
//! ```
//!
//! The addresses of a setting decide how connections run. If they are UNIX sockets, every case runs
//! over those. If the setting [begins](Setting::begins) something on each transport, such as TLS,
//! every case runs over that.
//!
//! A case fails its test by a panic. A case that a setting can't show is skipped, and says so: see
//! [`CaseOutcome`].

mod closing;
mod connecting;
mod datagrams;
mod discarding;
mod ends;
mod flow;
mod link;
mod order;
mod ports;
mod reentry;
mod running;
mod scene;
mod shared;
mod simulated;
mod time;
mod watching;

use std::fmt;
use std::time::Duration;

pub use self::link::Begin;
use self::scene::Scene;
pub use self::simulated::Simulated;
pub use self::watching::SetDescriptor;
use crate::address::Address;
use crate::error::ReactorError;
use crate::failure::guarded;
use crate::reactor::Reactor;

/// The environment of a case: it makes and drives the case's reactors, and states what the case may
/// expect of their network.
pub trait Setting {
    /// Returns the reason for which no case can run here, if there is one. Every case is then
    /// skipped with it. Default: `None`.
    fn unavailable(&self) -> Option<&'static str> {
        None
    }

    /// Makes a new reactor. All reactors of one setting reach each other, and those that still
    /// exist are driven together.
    fn reactor(&mut self) -> Reactor;

    /// Returns an address for another port, which all reactors of this setting can reach: with port
    /// 0, or with a unique name. All addresses of a setting are of one kind.
    fn address(&mut self) -> Address;

    /// Returns what to begin on each transport before its protocol hears of the connection, such as
    /// TLS: first on the side that listened, then on the one that connected. Default: `None`, for
    /// nothing.
    fn begins(&self) -> Option<(Begin, Begin)> {
        None
    }

    /// Turns every reactor of this setting until `done` returns `true`, by runs or by single turns.
    ///
    /// # Panics
    /// To fail the test, after so long a time that `done` will never return `true`.
    fn drive(&mut self, done: &mut dyn FnMut() -> bool);

    /// Runs one reactor until something stops it. It may have a time limit, like
    /// [`drive`](Self::drive).
    ///
    /// # Errors
    /// The same as [`Reactor::run`].
    fn run(&mut self, reactor: &Reactor) -> Result<(), ReactorError> {
        reactor.run()
    }

    /// Returns the time after which a few sent bytes have arrived.
    fn moment(&self) -> Duration;

    /// Returns a number of bytes that is more than a connection takes whose peer does not read.
    fn plenty(&self) -> usize;

    /// Returns the size of a big transfer, in bytes. Default: 1 MiB. Return less if that takes the
    /// setting too long.
    fn big(&self) -> usize {
        1 << 20
    }

    /// Limits the number of sockets of a reactor, its ports included. `None` removes the limit.
    /// Returns `false` if the setting can't limit them.
    fn limit_descriptors(&mut self, reactor: &Reactor, limit: Option<usize>) -> bool {
        let _ = (reactor, limit);
        false
    }

    /// Makes a descriptor that is not a connection's, for the cases about [`Reactor::watch`].
    /// `None` skips them. Default: `None`.
    fn descriptor(&mut self) -> Option<Box<dyn SetDescriptor>> {
        None
    }

    /// Returns an address that does not answer while this setting lives, or `None` if there is
    /// none.
    fn silent(&mut self) -> Option<Address> {
        None
    }
}

/// One behaviour that every engine must have.
#[derive(Clone, Copy)]
pub struct Case {
    /// Its name, which is a function name.
    pub name: &'static str,
    /// The promise, in a sentence.
    pub what: &'static str,
    run: fn(&mut dyn Setting) -> CaseOutcome,
}

impl Case {
    /// Runs the case.
    ///
    /// # Panics
    /// If the engine breaks the promise.
    #[track_caller]
    pub fn run(&self, setting: &mut dyn Setting) -> CaseOutcome {
        setting.unavailable().map_or_else(|| (self.run)(setting), CaseOutcome::Skipped)
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The outcome of a case that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a skipped case has shown nothing"]
pub enum CaseOutcome {
    /// The engine keeps the promise.
    Passed,
    /// The setting can't show the promise, for this reason.
    Skipped(&'static str),
}

/// Runs every case, each in a setting of its own. Returns the names of the skipped cases with the
/// reasons.
///
/// ```no_run
/// use ropewalk::testing::Conditions;
/// use ropewalk::testing::conformance::{Simulated, run_all};
///
/// let skipped = run_all(|| Box::new(Simulated::new(7, Conditions::rough(7))));
/// assert_eq!(skipped, []);
/// ```
///
/// # Panics
/// With the first case that fails.
#[track_caller]
pub fn run_all(mut make: impl FnMut() -> Box<dyn Setting>) -> Vec<(&'static str, &'static str)> {
    let mut skipped = Vec::new();
    for case in cases() {
        match guarded(|| case.run(&mut *make())) {
            Ok(CaseOutcome::Passed) => {}
            Ok(CaseOutcome::Skipped(reason)) => skipped.push((case.name, reason)),
            Err(panic) => panic!("{}: {}", case.name, panic.message),
        }
    }
    skipped
}

/// Runs the case of this name. The tests of [`conformance_tests!`](crate::conformance_tests) call
/// it.
///
/// # Panics
/// If the case fails, or there is no case of this name.
#[doc(hidden)]
#[track_caller]
pub fn run_case(name: &str, mut setting: Box<dyn Setting>) -> CaseOutcome {
    let found = cases().into_iter().find(|case| case.name == name);
    found.unwrap_or_else(|| panic!("there is no case {name}")).run(&mut *setting)
}

/// The single list of cases, from which both [`cases`] and the macro are generated, so that no case
/// is in only one of them.
macro_rules! catalogue {
    ($dollar:tt $($theme:ident { $($name:ident: $what:literal,)* })*) => {
        /// Returns every case, theme by theme.
        pub fn cases() -> Vec<Case> {
            vec![$($(Case { name: stringify!($name), what: $what, run: |setting| $theme::$name(setting).into() },)*)*]
        }

        /// Makes a module of tests, one for each case of the
        /// [conformance suite](crate::testing::conformance): `conformance_tests!(name, make)`,
        /// where `make` is a function that returns a `Box<dyn Setting>`. A skipped case prints its
        /// reason on standard output.
        #[macro_export]
        macro_rules! conformance_tests {
            ($dollar module:ident, $dollar make:expr) => {
                mod $dollar module {
                    #[allow(unused_imports, reason = "what the settings need is known outside")]
                    use super::*;
                    $($(
                        #[test]
                        fn $name() {
                            let setting = ($dollar make)();
                            let outcome = $crate::testing::conformance::run_case(stringify!($name), setting);
                            if let $crate::testing::conformance::CaseOutcome::Skipped(reason) = outcome {
                                println!("skipped: {reason}");
                            }
                        }
                    )*)*
                }
            };
        }
    };
}

impl From<()> for CaseOutcome {
    /// Most cases can't be skipped, and return nothing.
    fn from((): ()) -> Self {
        Self::Passed
    }
}

catalogue! {
    $
    order {
        the_phases_of_a_turn_come_in_order: "calls, timers, data, futures, lost directions, lost connections, stopped ports: in this order in one turn",
        what_is_asked_inside_a_turn_waits: "a call made by a call, and a timer set by a timer, come in the next turn",
        a_request_never_calls_back: "no request to a transport calls back: its protocol is notified after the callback, at the end of that turn",
    }
    time {
        timers_come_in_order_and_not_early: "timers come in the order of their deadlines, equal ones in the order in which they were set, and none before its time",
        a_timer_cancels_another: "a due timer that another cancels before it comes does not come",
        a_timer_can_be_moved: "a timer comes when it was moved to, sooner or later, even by another timer",
    }
    flow {
        a_full_socket_goes_on_when_its_peer_reads: "bytes that a socket does not take are kept, and sent when the slow reader reads",
        nothing_comes_while_paused: "while reading is paused nothing is delivered, and afterwards everything in order",
        a_reader_that_pauses_at_every_chunk_gets_everything: "pausing inside every data_received loses and doubles nothing",
        big_transfers_both_ways_arrive_intact: "big transfers in both directions at once arrive, and the received bytes are at every moment a prefix of the sent ones",
        a_producer_is_paused_and_resumed_at_the_marks: "a push producer is paused above the high mark and resumed at the low one, and a pull producer is resumed when everything is sent",
        a_queue_limit_tells_pauses_or_aborts: "a queue above its limit notifies the protocol once, or pauses reading from the peer, or aborts the connection",
        a_close_waits_for_a_producer: "lose_connection waits until a paused producer is done, and sends its bytes",
        a_producer_is_stopped_with_its_connection: "a connection that ends stops its producer, and accepts no other: neither a second one, nor one after the end",
        two_reactors_talk: "bytes between two reactors arrive in both directions",
    }
    shared {
        shared_and_copied_bytes_keep_their_order: "shared and copied writes arrive in the order in which they were made, behind a full socket too",
        a_reader_that_pauses_gets_shared_bytes_in_order: "shared bytes of which a socket takes a part at a time arrive whole, and once",
        a_close_sends_shared_bytes_and_an_abort_drops_them: "lose_connection and lose_write_connection send shared bytes first, and abort_connection gives up every reference",
        shared_bytes_count_for_the_limit_of_a_queue: "shared bytes count as queued, and a limit of the queue holds for them",
    }
    closing {
        connection_lost_comes_once_and_last: "a close by either side is reported to both sides once, after the last data",
        losing_inside_data_received_sends_what_was_written: "bytes written before lose_connection arrive, and nothing more is delivered",
        losing_waits_for_a_full_socket: "lose_connection first sends the whole queue to a slow reader",
        aborting_drops_the_queue: "abort_connection does not wait for a full socket, and its peer sees a reset after a prefix of the data",
        both_may_abort_at_once: "two aborts that cross each other end both connections once",
        a_stuck_peer_is_cut_off: "lose_connection waits for a peer that takes nothing until the close timeout, and no longer",
        a_reset_is_noticed_while_paused: "a reset ends a connection whose reading is paused",
        a_reset_behind_a_pause_loses_nothing: "a reset is known at once while reading is paused, and reported after resuming, behind the bytes before it",
        a_reset_is_noticed_after_a_half_close: "a reset ends a connection whose peer had ended its direction before",
        a_reset_is_noticed_behind_an_end_that_waits: "a reset ends a connection whose end of stream waits behind a pause",
        a_reset_is_noticed_while_writing: "a reset ends a connection that has more to send than its socket takes, and reports the number of unsent bytes",
        nothing_is_taken_after_the_end: "a connection that has ended ignores every request",
    }
    discarding {
        a_discarded_connection_is_closed_at_once: "a discarded connection has no socket, no queue and no protocol from then on, and its peer sees an end or a reset",
        a_discard_drops_what_waits_for_a_full_socket: "a discard drops the queue, the chunk in flight and the producer, and the received bytes are a prefix of the sent ones",
        a_discard_inside_a_callback_is_its_last: "a protocol that discards its own connection in any callback is called no more, and dropped",
        a_discard_inside_connection_made_is_the_last_call_too: "a protocol that discards its connection in connection_made is called no more, whatever its peer has got",
        a_discard_of_another_connection_holds_at_once: "a connection that another's callback discards is told nothing of what the same turn brought it",
        a_discard_in_an_outside_call_waits_for_its_end: "a protocol that is discarded inside a call from outside is dropped as soon as that call returns",
        a_discard_in_a_queue_notice_is_its_last: "a protocol that discards its connection when its queue is above the limit is called no more",
    }
    ends {
        the_peer_ends_first: "a protocol with half-closes goes on writing after its peer's end",
        we_end_first: "after lose_write_connection the whole queue arrives, then the end, and reading goes on",
        both_end_at_once: "two ends that cross each other lose no bytes, and end the connection once",
        an_end_with_a_full_queue_waits: "lose_write_connection on a full socket sends everything first, even if the peer's end comes meanwhile",
        without_half_close_the_peers_end_is_the_end: "a protocol without half-closes is closed by its peer's end, after its own bytes were sent",
        an_end_waits_behind_a_pause: "an end of stream that comes while reading is paused is reported after resuming, behind the bytes before it",
        every_order_of_ends_with_every_producer: "in every order of the two directions' ends, with or without a queue, all written bytes arrive, and so do those still requested from a producer",
    }
    reentry {
        every_request_can_be_made_in_every_callback: "all requests to a transport, to its own handle and to another's, in all callbacks: nothing panics, every connection is made and lost once, and handles return Busy or Gone where they must",
        a_failing_callback_ends_its_own_connection_only: "an Err or a panic in any callback is the reason of that connection's end, and others go on",
        failing_calls_harm_nobody: "a panic of a timer, a call, a Deferred's callback or a factory stops nothing else",
        a_protocol_is_reached_from_outside: "a connection's handle reaches its protocol from outside, until the connection ends",
    }
    ports {
        a_port_stops_and_listens_again: "after stop_listening nothing is accepted, and start_listening takes the same address again",
        a_port_stops_inside_its_callbacks: "a port that is stopped inside build_protocol or connection_made serves the connections that the system has let in, or resets them on request",
        a_paused_port_accepts_nothing: "a port that is paused at any moment, in the middle of a burst too, hands over nothing until it resumes, and loses no connection",
        an_address_in_use_is_an_error: "listening on an address that is in use is an error",
        a_refused_connection_is_closed: "a factory that builds nothing, or panics, closes that one connection, and the port goes on",
        many_connections_at_once_are_all_served: "two hundred connections at once each get their own bytes",
        slots_are_used_again_without_mixing: "many short connections in succession, closed in every way, never get another's bytes",
        an_old_handle_does_not_reach_a_new_connection: "requests to a transport whose connection has ended do nothing to the connection that reuses its slot",
        lingering_sockets_give_way: "a server that greets and closes serves every client, although its peers keep their ends open and its descriptors are few",
        a_port_lives_without_descriptors: "when descriptors run out the loop goes on, and so does the port once there are some again",
    }
    connecting {
        the_deferred_fires_after_connection_made: "a connect's Deferred never fires before connect returns, and gives the connection after connection_made",
        a_refused_attempt_fails: "without a listener the attempt is Refused, and its factory starts and stops once",
        an_attempt_can_be_cancelled_at_every_stage: "an attempt cancelled in any turn fails or has succeeded, and leaves nothing behind",
        an_attempt_can_be_cancelled_by_its_own_factory: "cancelling an attempt inside build_protocol or connection_made ends it",
        an_attempt_without_a_protocol_fails: "a factory that builds nothing, panics, or whose protocol fails at once fails the Deferred",
        an_attempt_has_a_time_limit: "an attempt without an answer fails after its timeout",
        a_fixed_port_reaches_a_peer_once: "a fixed local port connects to a peer once at a time, and to another peer meanwhile",
    }
    running {
        stop_works_inside_every_callback: "stop inside any callback ends the run, ends every connection, and works once",
        a_stopped_reactor_runs_again: "after a stop a new run serves and connects as the first did",
        a_crash_closes_nothing: "after a crash everything goes on in the next run",
        a_run_inside_a_run_is_an_error: "run and iterate from inside the loop are refused",
        a_stop_waits_for_its_triggers: "shutdown triggers run phase by phase, and each phase waits for their Deferreds",
        attempts_fail_when_the_reactor_stops: "pending attempts to connect fail because the reactor stopped",
        calls_from_the_own_thread_are_made: "calls that the loop makes to itself come in order, and none waits for another event",
        a_job_wakes_a_loop_that_sleeps: "the result of a job in a thread arrives, although nothing else would end the wait",
        a_future_goes_on_in_the_loop: "a future that awaits timers, jobs and Deferreds completes",
    }
    watching {
        a_ready_descriptor_is_reported_in_every_turn: "a watched descriptor is reported once in each turn for as long as it is ready, and not otherwise",
        reading_and_writing_are_paused_apart: "the interest of a watch changes at any time, and what is not of interest is not reported",
        a_hang_up_is_reported_to_every_interest: "a hang-up is reported to reading and to writing, whichever is of interest, and to no paused watch",
        a_callback_ends_and_begins_watches: "a callback of a watch may end its own watch and others, ready ones too, and begin another",
        a_failing_callback_ends_its_own_watch_only: "an Err or a panic of a watch's callback ends that watch, with the failure as its reason, and no other",
        a_descriptor_is_watched_once: "a second watch of a descriptor is an error, and a later one is not",
        a_busy_descriptor_starves_nothing: "a descriptor that is always ready holds up neither timers nor connections",
        watches_end_when_the_reactor_stops: "a stop ends all watches, tells them so, and takes no others",
    }
    datagrams {
        datagrams_of_every_size_come_back: "datagrams from the empty one to the longest come back whole, and a longer one is an error",
        datagram_callbacks_come_in_order: "start_protocol comes first and stop_protocol last, each once, nothing inside another, and every stop's Deferred fires",
        a_longer_datagram_is_said_to_be_truncated: "a datagram that is longer than its port takes is reported as truncated, and the next one is whole",
        a_refusal_reaches_a_connected_port_only: "a peer without a socket is reported to a connected port, which hears that peer alone, and to no other",
        a_datagram_port_stops_in_every_callback: "a port that stops in any callback is told of its end, and of nothing else",
        a_failing_datagram_callback_leaves_its_port_open: "an Err or a panic of a callback leaves the port open, except in start_protocol",
        a_paused_datagram_port_delivers_nothing: "while a port is paused nothing is delivered, and afterwards everything in order",
        a_flooded_datagram_port_starves_no_other: "a port delivers a bounded number of datagrams in a turn, and the other ports have theirs",
        a_datagram_of_another_family_is_an_error: "a write that the port's socket does not reach is an error, and so is an address in use",
    }
}
