//! The example `jobs`, run as a user would: jobs, progress, and a stop that lets answers out. Its
//! periodic job runs on virtual time.

#[path = "../../examples/jobs.rs"]
#[allow(dead_code, reason = "its main is run as a program")]
mod jobs;

use std::cell::RefCell;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::common::*;
use crate::running::{Running, TERMINATED, executable};
use crate::twisted_programs::{has_twisted, twisted_program};
use ropewalk::application::Service;
use ropewalk::testing::{MemoryReactor, VirtualClock, success_result_of};
use rustix::process::Signal;

/// Starts the service on a port of its own, with this number of seconds for a drain.
fn service(drain: &str) -> (Running, SocketAddr) {
    serve(Command::new(executable("jobs")), drain)
}

/// Starts a program that does the same.
fn serve(mut command: Command, drain: &str) -> (Running, SocketAddr) {
    command.args(["tcp:0:interface=127.0.0.1", drain]);
    let server = Running::of(command, Stdio::null());
    assert_eq!(server.line(), "0 waiting, 0 running, 0 done");
    let line = server.line();
    let address = line.strip_prefix("listening on ").expect("it says where").parse().expect("an address");
    (server, address)
}

/// Sends lines, and returns a reader of the answers.
fn ask(address: SocketAddr, lines: &str) -> BufReader<TcpStream> {
    let mut stream = dial(address);
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(lines.as_bytes()).unwrap();
    BufReader::new(stream)
}

#[track_caller]
fn line(reader: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).expect("an answer");
    line.trim_end().to_owned()
}

#[track_caller]
fn rest(mut reader: BufReader<TcpStream>) -> Vec<String> {
    let mut rest = String::new();
    reader.read_to_string(&mut rest).expect("answers, and an end");
    rest.lines().map(str::to_owned).collect()
}

/// Asks for the status until it is this one.
fn await_status(address: SocketAddr, expected: &str) {
    let until = Instant::now() + LIMIT;
    let mut asked = ask(address, "");
    loop {
        asked.get_mut().write_all(b"status\n").unwrap();
        let status = line(&mut asked);
        if status == expected {
            return;
        }
        assert!(Instant::now() < until, "{status}");
    }
}

/// A job reports its progress in order, and its result behind it. `quit` waits for both. Lines that
/// are no commands are answered.
#[test]
fn jobs_are_answered() {
    own_process!();
    let (server, address) = service("10");
    answers_jobs(address);
    for (limit, count) in [(0, "0"), (2, "0"), (3, "1"), (10, "4")] {
        let lines = rest(ask(address, &format!("primes {limit}\nquit\n")));
        assert_eq!(lines.last().map(|line| line.rsplit_once(' ').expect("words").1), Some(count), "{limit}");
    }
    await_status(address, "0 waiting, 0 running, 5 done");
    server.signal(Signal::TERM);
    let (status, _, errors) = server.end();
    assert_eq!((status.code(), errors.as_str()), (Some(TERMINATED), ""));
}

/// Asks for one job, and more that is refused.
fn answers_jobs(address: SocketAddr) {
    let lines = rest(ask(address, "hello\nprimes x\nprimes 100000001\nprimes 100000\nquit\nprimes 5\n"));
    let mut expected: Vec<String> = vec![
        "commands: primes LIMIT, status, quit".into(),
        "a limit is a number up to 100000000".into(),
        "a limit is a number up to 100000000".into(),
        "job 1 is accepted".into(),
        "this connection takes no more jobs".into(),
    ];
    expected.extend((1..10).map(|tenth| format!("job 1: {tenth}0%")));
    expected.push("job 1: 9592".into());
    assert_eq!(lines, expected);
}

/// The program on Twisted does the same.
#[test]
fn twisteds_program_answers_jobs_too() {
    own_process!();
    if !has_twisted("twisted.application.internet") {
        return;
    }
    let (server, address) = serve(twisted_program("jobs"), "60");
    answers_jobs(address);
    let mut working = ask(address, "primes 100000\n");
    assert_eq!(line(&mut working), "job 2 is accepted");
    // Its port forgets a connection that is accepted while it stops.
    let mut idle = ask(address, "status\n");
    assert!(line(&mut idle).ends_with("1 done"));
    server.signal(Signal::TERM);
    assert_eq!(rest(idle), Vec::<String>::new());
    assert_eq!(rest(working).last().map(String::as_str), Some("job 2: 9592"));
    let (_, _, errors) = server.end();
    assert_eq!(errors, "");
}

/// Two jobs run at a time, the next hundred wait, and more are refused. The jobs of a client that
/// leaves end with it, in the thread too.
#[test]
fn jobs_wait_for_a_thread_and_end_with_their_client() {
    own_process!();
    let (server, address) = service("10");
    let mut busy = ask(address, &"primes 100000000\n".repeat(2));
    assert_eq!([line(&mut busy), line(&mut busy)], ["job 1 is accepted", "job 2 is accepted"]);
    await_status(address, "0 waiting, 2 running, 0 done");
    let mut waiting = ask(address, &"primes 100000000\n".repeat(101));
    for number in 3..103 {
        assert_eq!(line(&mut waiting), format!("job {number} is accepted"));
    }
    assert_eq!(line(&mut waiting), "too many jobs wait; try again");
    await_status(address, "100 waiting, 2 running, 0 done");
    drop((waiting, busy));
    // The threads look at their clients every thousand numbers.
    let mut last = ask(address, "primes 10\nquit\n");
    assert_eq!(line(&mut last), "job 103 is accepted");
    assert!(rest(last).contains(&"job 103: 4".to_owned()));
    await_status(address, "0 waiting, 0 running, 1 done");
    server.signal(Signal::TERM);
    assert_eq!(server.end().0.code(), Some(TERMINATED));
}

/// SIGTERM closes the port and idle connections at once, answers what clients wait for, and then
/// ends the process.
#[test]
fn a_stop_lets_answers_out() {
    own_process!();
    let (server, address) = service("60");
    let idle = ask(address, "");
    let mut working = ask(address, "primes 500000\n");
    assert_eq!(line(&mut working), "job 1 is accepted");
    server.signal(Signal::TERM);
    assert_eq!(rest(idle), Vec::<String>::new());
    let refused = TcpStream::connect(address).map(drop).map_err(|error| error.kind());
    assert_eq!(refused, Err(ErrorKind::ConnectionRefused));
    working.get_mut().write_all(b"primes 5\n").unwrap();
    let rest = rest(working);
    assert!(rest.contains(&"this connection takes no more jobs".to_owned()), "{rest:?}");
    assert_eq!(rest.last().map(String::as_str), Some("job 1: 41538"), "{rest:?}");
    let (status, _, errors) = server.end();
    assert_eq!((status.code(), errors.as_str()), (Some(TERMINATED), ""));
}

/// A job that is not done within the time of a stop is cut off, and holds nothing up.
#[test]
fn a_long_job_is_cut_off() {
    own_process!();
    let (server, address) = service("1");
    let mut working = ask(address, "primes 100000000\n");
    assert_eq!(line(&mut working), "job 1 is accepted");
    server.signal(Signal::TERM);
    let mut rest = Vec::new();
    let end = working.read_to_end(&mut rest).map_err(|error| error.kind());
    assert_eq!(end, Err(ErrorKind::ConnectionReset));
    assert!(!String::from_utf8_lossy(&rest).contains("failed"));
    let (status, _, errors) = server.end();
    assert_eq!((status.code(), errors.as_str()), (Some(TERMINATED), ""));
}

/// The periodic job reports at its start and at each interval, until it is stopped.
#[test]
fn reports_come_at_intervals() {
    let (memory, clock) = (MemoryReactor::new(), VirtualClock::new());
    let printed: Rc<RefCell<Vec<String>>> = Rc::default();
    let lines = Rc::clone(&printed);
    let reports = jobs::Jobs::new(memory.reactor()).reports(&clock, move |line| lines.borrow_mut().push(line));
    success_result_of(&mut reports.start_service());
    clock.pump([Duration::from_secs(30); 5]);
    success_result_of(&mut reports.stop_service());
    clock.pump([Duration::from_secs(60); 5]);
    assert_eq!(*printed.borrow(), ["0 waiting, 0 running, 0 done"; 3]);
}
