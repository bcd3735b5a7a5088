//! The conformance suite: everything that an engine on a backend must do, whatever the backend (Twisted: `ReactorBuilder` and its
//! tests, `twisted.internet.test.reactormixins`).
//!
//! It is run on every backend of ours, and on the simulated network under many conditions. It uses nothing but what the public
//! interface promises: the peers in its cases are protocols on reactors too. It is not about speed, and not about what only one
//! backend can meet; those tests stand elsewhere.
//!
//! To run it on a backend of yours, say how reactors are made and driven ([`Setting`]), and have a test made of each [`Case`]:
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
//! By what the connections run, the addresses say: a setting whose addresses are UNIX sockets has every case run over those, and one
//! that [begins](Setting::begins) something on each transport, over that.
//!
//! A case fails its test by a panic. What a setting cannot show, a case says that it skipped: see [`CaseOutcome`].

mod closing;
mod connecting;
mod ends;
mod flow;
mod link;
mod order;
mod ports;
mod reentry;
mod running;
mod scene;
mod simulated;
mod time;

use std::fmt;
use std::time::Duration;

pub use self::link::Begin;
use self::scene::Scene;
pub use self::simulated::Simulated;
use crate::address::Address;
use crate::error::ReactorError;
use crate::failure::guarded;
use crate::reactor::Reactor;

/// Where a case runs: how its reactors are made and driven, and what it may expect of their network.
pub trait Setting {
    /// Why no case can run here, where that is so: every case is skipped with it. `None`: there is no reason.
    fn unavailable(&self) -> Option<&'static str> {
        None
    }

    /// A new reactor. All of one setting reach each other, and those that still exist are driven together.
    fn reactor(&mut self) -> Reactor;

    /// Where another port may listen, and be reached by all reactors of this setting: with port 0, or a name that no other has. All are
    /// of one kind.
    fn address(&mut self) -> Address;

    /// TLS, or whatever else is begun on each transport before its protocol hears of the connection: by the side that listened, and by
    /// the one that connected. `None`: nothing.
    fn begins(&self) -> Option<(Begin, Begin)> {
        None
    }

    /// Turns every reactor that it made until `done`, whether by runs of them or by single turns.
    ///
    /// # Panics
    /// If it takes so long that it never will, to fail the test.
    fn drive(&mut self, done: &mut dyn FnMut() -> bool);

    /// Runs one reactor until something stops it; may be given a limit, as [`drive`](Self::drive).
    ///
    /// # Errors
    /// What [`Reactor::run`] says.
    fn run(&mut self, reactor: &Reactor) -> Result<(), ReactorError> {
        reactor.run()
    }

    /// After this time, what is small and was sent has arrived.
    fn moment(&self) -> Duration;

    /// More bytes than a connection takes whose peer does not read.
    fn plenty(&self) -> usize;

    /// How many bytes are a big transfer: 1 MiB, unless that takes the setting too long.
    fn big(&self) -> usize {
        1 << 20
    }

    /// Lets a reactor have no more than so many sockets, its ports included; `None`: as many as it likes. `false`: that can't be
    /// done.
    fn limit_descriptors(&mut self, reactor: &Reactor, limit: Option<usize>) -> bool {
        let _ = (reactor, limit);
        false
    }

    /// An address that does not answer, while this setting lives; `None`: there is none.
    fn silent(&mut self) -> Option<Address> {
        None
    }
}

/// One thing that an engine must do.
#[derive(Clone, Copy)]
pub struct Case {
    /// Its name, as a function would be called.
    pub name: &'static str,
    /// What is promised, in a sentence.
    pub what: &'static str,
    run: fn(&mut dyn Setting) -> CaseOutcome,
}

impl Case {
    /// Checks it.
    ///
    /// # Panics
    /// If the engine does otherwise.
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

/// What came of a case that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a case that was skipped showed nothing"]
pub enum CaseOutcome {
    /// The engine did as it must.
    Passed,
    /// The setting can't show it: why.
    Skipped(&'static str),
}

/// Runs every case, each in a setting of its own, and gives the names of those that were skipped, with the reasons.
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

/// Runs the case of this name: what [`conformance_tests!`](crate::conformance_tests) makes tests of.
///
/// # Panics
/// If it fails, or there is no such case.
#[doc(hidden)]
#[track_caller]
pub fn run_case(name: &str, mut setting: Box<dyn Setting>) -> CaseOutcome {
    let found = cases().into_iter().find(|case| case.name == name);
    found.unwrap_or_else(|| panic!("there is no case {name}")).run(&mut *setting)
}

/// The list of cases, from which both [`cases`] and the macro are made, so that none is in only one of them.
macro_rules! catalogue {
    ($dollar:tt $($theme:ident { $($name:ident: $what:literal,)* })*) => {
        /// Every case, theme by theme.
        pub fn cases() -> Vec<Case> {
            vec![$($(Case { name: stringify!($name), what: $what, run: |setting| $theme::$name(setting).into() },)*)*]
        }

        /// Makes a module of tests, one for each case of the [conformance suite](crate::testing::conformance):
        /// `conformance_tests!(name, make)`, where `make` is a function that makes a `Box<dyn Setting>`. A case that was skipped
        /// says so on standard output.
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
        what_is_asked_inside_a_turn_waits: "a call of a call, and a timer of a timer, come in the next turn",
        a_request_never_calls_back: "whatever a transport is asked, it tells its protocol after the callback, at the end of that turn",
    }
    time {
        timers_come_in_order_and_not_early: "timers come in the order of their deadlines, equal ones in that of asking, and none before its time",
        a_timer_cancels_another: "a timer that is due can be cancelled by one that comes before it, and does not come then",
        a_timer_can_be_moved: "a timer comes when it was moved to, sooner or later, even by another timer",
    }
    flow {
        a_full_socket_goes_on_when_its_peer_reads: "what a socket does not take is kept, and sent when the slow reader reads",
        nothing_comes_while_paused: "while reading is paused nothing is delivered, and everything in order after it",
        a_reader_that_pauses_at_every_chunk_gets_everything: "pausing inside every data_received loses and doubles nothing",
        big_transfers_both_ways_arrive_intact: "much that is sent both ways at once arrives, at every moment the beginning of what was sent",
        a_producer_is_paused_and_resumed_at_the_marks: "a push producer is paused above the high mark and resumed at the low one, and a pull producer is asked when all is sent",
        a_queue_limit_tells_pauses_or_aborts: "a queue above its limit tells the protocol once, or holds back the peer, or aborts the connection",
        a_close_waits_for_a_producer: "lose_connection waits for a paused producer to be done, and sends what it wrote",
        a_producer_is_stopped_with_its_connection: "a connection that ends stops its producer, and takes no other: neither a second, nor one when it is over",
        two_reactors_talk: "what crosses from one reactor to another arrives both ways",
    }
    closing {
        connection_lost_comes_once_and_last: "whoever closes, both are told once, after the last data",
        losing_inside_data_received_sends_what_was_written: "what was written before lose_connection arrives, and nothing more is delivered",
        losing_waits_for_a_full_socket: "lose_connection sends all that is queued to a slow reader first",
        aborting_drops_the_queue: "abort_connection does not wait for a full socket, and its peer sees a reset after a beginning of the data",
        both_may_abort_at_once: "two aborts that cross end both connections once",
        a_stuck_peer_is_cut_off: "lose_connection waits no longer than the close timeout for a peer that takes nothing",
        a_reset_is_noticed_while_paused: "a reset ends a connection whose reading is paused",
        a_reset_behind_a_pause_loses_nothing: "a reset is known at once where reading is paused, and told after resuming, behind the bytes before it",
        a_reset_is_noticed_after_a_half_close: "a reset ends a connection whose peer had ended its direction before",
        a_reset_is_noticed_behind_an_end_that_waits: "a reset ends a connection where an end of stream waits behind a pause",
        a_reset_is_noticed_while_writing: "a reset ends a connection that has more to send than its socket takes, and says how much was unsent",
        nothing_is_taken_after_the_end: "a connection that is over ignores whatever it is asked",
    }
    ends {
        the_peer_ends_first: "a protocol that hears of half-closes goes on writing after its peer's end",
        we_end_first: "after lose_write_connection everything queued arrives, then the end, and reading goes on",
        both_end_at_once: "two ends that cross leave nothing out, and the connection is over once",
        an_end_with_a_full_queue_waits: "lose_write_connection on a full socket sends everything first, even if the peer's end comes meanwhile",
        without_half_close_the_peers_end_is_the_end: "a protocol that does not ask for half-closes is closed by its peer's end, after what it wrote was sent",
        an_end_waits_behind_a_pause: "an end of stream that comes while reading is paused is told after resuming, behind the bytes before it",
        every_order_of_ends_with_every_producer: "in whatever order the directions end, with a queue or without: everything that was written arrives, and what a producer was still asked for",
    }
    reentry {
        every_request_can_be_made_in_every_callback: "all requests of a transport, and of its own and another's handle, in all callbacks: nothing panics, every connection is made and lost once, and handles say Busy or Gone where they must",
        a_failing_callback_ends_its_own_connection_only: "an Err or a panic in any callback is the reason of that connection's end, and others go on",
        failing_calls_harm_nobody: "a timer, a call, a Deferred's callback or a factory that panics keeps nothing else from going on",
        a_protocol_is_reached_from_outside: "a connection's handle reaches its protocol from outside, until it is over",
    }
    ports {
        a_port_stops_and_listens_again: "after stop_listening nothing is accepted, and start_listening takes the same address again",
        a_port_stops_inside_its_callbacks: "a port that is stopped inside build_protocol or connection_made serves those that the system has let in, or resets them if told so",
        an_address_in_use_is_an_error: "an address can be listened on once",
        a_refused_connection_is_closed: "a factory that builds nothing, or panics, closes that connection, and the port goes on",
        many_connections_at_once_are_all_served: "two hundred connections at once each get what is theirs",
        slots_are_used_again_without_mixing: "many short connections after another, closed in every way, never get another's bytes",
        an_old_handle_does_not_reach_a_new_connection: "requests to a transport whose connection is over do nothing to the one that has its place",
        lingering_sockets_give_way: "a server that greets and closes serves everyone, though its peers keep their ends open and its descriptors are few",
        a_port_lives_without_descriptors: "when descriptors run out the loop goes on, and the port when there are some again",
    }
    connecting {
        the_deferred_fires_after_connection_made: "connecting gives nothing before it returns, and its connection after connection_made",
        a_refused_attempt_fails: "where nobody listens the attempt is Refused, and its factory starts and stops once",
        an_attempt_can_be_cancelled_at_every_stage: "cancelled in any turn an attempt fails or has succeeded, and leaves nothing behind",
        an_attempt_can_be_cancelled_by_its_own_factory: "cancelled inside build_protocol or connection_made, an attempt is over",
        an_attempt_without_a_protocol_fails: "a factory that builds nothing, panics, or whose protocol fails at once is told of by the Deferred",
        an_attempt_has_a_time_limit: "an attempt that is not answered fails when its time is over",
        a_fixed_port_reaches_a_peer_once: "from one port of ours a peer is connected to once at a time, and another peer meanwhile",
    }
    running {
        stop_works_inside_every_callback: "stop inside any callback ends the run, tells every connection, and works once",
        a_stopped_reactor_runs_again: "after a stop a new run serves and connects as the first did",
        a_crash_closes_nothing: "after a crash everything goes on in the next run",
        a_run_inside_a_run_is_an_error: "run and iterate from inside the loop are refused",
        a_stop_waits_for_its_triggers: "shutdown triggers come phase by phase, and each phase waits for their Deferreds",
        attempts_fail_when_the_reactor_stops: "whoever waits for a connection is told that the reactor stopped",
        calls_from_the_own_thread_are_made: "calls that the loop makes to itself come in order, and none waits for anything else to happen",
        a_job_wakes_a_loop_that_sleeps: "the result of a job in a thread arrives though nothing else would end the wait",
        a_future_goes_on_in_the_loop: "a future that awaits timers, jobs and Deferreds comes to its end",
    }
}
