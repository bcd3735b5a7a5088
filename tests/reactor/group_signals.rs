//! Groups of reactors and signals. Each test sends signals to a process of its own.

use std::io::Read;
use std::sync::mpsc;
use std::thread;

use crate::common::*;
use ropewalk::deferred::Promise;
use ropewalk::interfaces::*;
use ropewalk::reactor::{Member, ReactorGroup};
use ropewalk::{Failure, Result, Transport, for_protocol};
use rustix::process::{Signal, getpid, kill_process};

/// Says hello, and reports the reason of its end.
struct Greeting {
    lost: mpsc::Sender<String>,
}

impl Protocol for Greeting {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        transport.write(b"hello");
        Ok(())
    }

    fn data_received(&mut self, _transport: &Transport, _data: &[u8]) -> Result<()> {
        Ok(())
    }

    fn connection_lost(&mut self, _transport: &Transport, reason: &Failure) {
        self.lost.send(reason.to_string()).unwrap();
    }
}

fn signal(signal: Signal) {
    kill_process(getpid(), signal).expect("our own process");
}

/// Runs a group of two on this thread, and `peer` beside it once a connection of each member is
/// open. Returns the report and the reasons of the ends.
fn run_group(
    change: impl FnOnce(ropewalk::reactor::GroupBuilder) -> ropewalk::reactor::GroupBuilder,
    peer: impl FnOnce() + Send + 'static,
) -> (ropewalk::reactor::GroupReport, Vec<String>) {
    let (lost, reasons) = mpsc::channel();
    let greeting = move |_: &Member| {
        let lost = lost.clone();
        Ok(for_protocol(move |_| Greeting { lost: lost.clone() }))
    };
    let builder = ReactorGroup::builder().threads(2).stop_timeout(None).listen("tcp:0:interface=127.0.0.1", greeting);
    let report = change(builder)
        .started(move |group| {
            let to = group.addresses()[0].socket_addr().unwrap();
            thread::spawn(move || {
                let mut open = [dial(to), dial(to)];
                open.iter_mut().for_each(|stream| stream.read_exact(&mut [0; 5]).unwrap());
                peer();
                open.iter_mut().for_each(|stream| {
                    // The end may be a reset.
                    let _ = stream.read(&mut [0]);
                });
            });
        })
        .run()
        .unwrap();
    (report, reasons.iter().collect())
}

/// SIGTERM and SIGINT drain the group, and the report names the signal.
#[test]
fn a_signal_drains_the_group() {
    own_process!();
    let _watchdog = Watchdog::new();
    for (sent, number) in [(Signal::TERM, 15), (Signal::INT, 2)] {
        let (report, reasons) = run_group(|builder| builder, move || signal(sent));
        assert!(report.is_success());
        assert_eq!(report.signal, Some(number));
        assert_eq!(reasons, ["the connection was closed cleanly"; 2]);
        assert_eq!(
            format!("{:?}", report.exit_code()),
            format!("{:?}", std::process::ExitCode::from(128 + number as u8))
        );
    }
}

/// A second signal ends the members at once: a drain that takes for ever is not waited for.
#[test]
fn a_second_signal_ends_the_group_at_once() {
    own_process!();
    let _watchdog = Watchdog::new();
    let (told, draining) = mpsc::channel();
    let drain = move |_: &Member| {
        told.send(()).unwrap();
        let (promise, never) = Promise::new();
        std::mem::forget(promise);
        never
    };
    let (report, reasons) = run_group(
        |builder| builder.drain(drain),
        move || {
            signal(Signal::TERM);
            (0..2).for_each(|_| draining.recv_timeout(LIMIT).unwrap());
            signal(Signal::TERM);
        },
    );
    assert!(report.is_success(), "{report:?}");
    assert_eq!(report.signal, Some(15));
    assert_eq!(reasons, ["the reactor stopped"; 2]);
}
