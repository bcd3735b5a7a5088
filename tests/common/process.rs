//! Processes of their own for tests that can't share one.
//!
//! The tests of a program run in threads of one process. A test that counts descriptors, threads or
//! bytes, changes a limit, a panic hook, the log's subscriber or the environment, forks, handles
//! signals or starts programs begins with [`own_process!`](own_process): the rest of it runs alone
//! in a new process of the same program.

use std::fs::File;
use std::io::{Read, Seek};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use super::LIMIT;

/// Names the one test that a process runs.
const TEST: &str = "ROPEWALK_TEST_OWN_PROCESS";

/// Seconds after which a test in a process of its own is killed. Each of its waits has a limit of
/// its own ([`LIMIT`]).
const PROCESS_LIMIT_SECONDS: u64 = 10 * LIMIT.as_secs();

/// Runs the rest of the test alone in a process of its own, and fails if it fails there. Stands
/// first in a test.
macro_rules! own_process {
    () => {
        if !$crate::common::process::is_alone(std::any::type_name_of_val(&|| ())) {
            return;
        }
    };
}
pub(crate) use own_process;

/// Returns `true` in the process of the test whose closure has this type name. Elsewhere the test
/// runs in such a process, and the result is `false` once it has passed.
#[track_caller]
pub fn is_alone(closure: &str) -> bool {
    let (_program, test) = closure.split_once("::").expect("a path");
    let test = test.trim_end_matches("::{{closure}}");
    // Miri has no processes, and runs no test that needs one.
    if cfg!(miri) {
        return true;
    }
    if std::env::var_os(TEST).is_some_and(|alone| alone == test) {
        settle_allocator();
        return true;
    }
    let (status, output) = run_alone(test);
    print!("{output}");
    assert!(status.success(), "{test} failed in its own process: {status}");
    assert!(output.contains("test result: ok. 1 passed"), "{test} did not run in its own process");
    false
}

/// This program, to run one test: its path without the program's name, such as `signals::child`. An
/// ignored one runs, too.
pub fn this_program(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("the path of this program"));
    command.args(["--exact", test, "--include-ignored", "--nocapture", "--test-threads=1"]).stdin(Stdio::null());
    command
}

/// Starts a program with no signal ignored, even if this process was started by `nohup` or in a
/// shell's background. Its standard input is empty.
pub fn with_default_signals(program: Command) -> Command {
    let signals = ["INT", "TERM", "HUP", "USR1", "USR2"];
    let numbers = [Signal::INT, Signal::TERM, Signal::HUP, Signal::USR1, Signal::USR2];
    if !numbers.into_iter().any(|signal| is_in_mask("self", "SigIgn:", signal.as_raw())) {
        return program;
    }
    let mut command = Command::new("env");
    command.arg(format!("--default-signal={}", signals.join(",")));
    command.arg(program.get_program()).args(program.get_args()).stdin(Stdio::null());
    command
}

/// Returns `true` if this mask in the status of a process has the signal. Without `/proc` the masks
/// are empty.
pub fn is_in_mask(process: &str, mask: &str, signal: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let bits = status.lines().find_map(|line| line.strip_prefix(mask)).map_or("0", str::trim);
    u64::from_str_radix(bits, 16).expect("a number") >> (signal - 1) & 1 == 1
}

/// Runs a test in its own process to the end. Returns the output, both streams in one.
fn run_alone(test: &str) -> (ExitStatus, String) {
    let mut command = with_default_signals(this_program(test));
    command.env(TEST, test);
    // In a thread, for it gives up the descriptors of this process.
    thread::spawn(move || {
        leave_descriptors();
        let output = memfd_create("output of a test", MemfdFlags::CLOEXEC).expect("a file in memory");
        let mut output = File::from(output);
        let stream = || output.try_clone().expect("a descriptor");
        let mut child = command.stdout(stream()).stderr(stream()).spawn().expect("this program runs");
        let in_time = ends_in_time(&child);
        if !in_time {
            child.kill().expect("it is a child of this process");
        }
        let status = child.wait().expect("it is a child of this process");
        let mut text = Vec::new();
        output.rewind().expect("a file");
        output.read_to_end(&mut text).expect("a file");
        let mut text = String::from_utf8_lossy(&text).into_owned();
        if !in_time {
            text.push_str(&format!("killed after {PROCESS_LIMIT_SECONDS} s\n"));
        }
        (status, text)
    })
    .join()
    .expect("the process could be started and waited for")
}

fn ends_in_time(child: &Child) -> bool {
    let process = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).expect("it is a child of this process");
    let limit = Timespec { tv_sec: PROCESS_LIMIT_SECONDS as i64, tv_nsec: 0 };
    loop {
        match poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&limit)) {
            Ok(ready) => return ready > 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Gives this thread a table of descriptors of its own with nothing but the standard streams.
///
/// A process that is being started has the descriptors of its parent until it executes its program.
/// A port that another test closes meanwhile would go on listening for that time, and a connection
/// would stay open.
#[allow(unsafe_code, reason = "a table of descriptors per thread has no safe interface")]
fn leave_descriptors() {
    use std::ffi::{c_int, c_long, c_uint};
    const CLOSE_RANGE: c_long = 436;
    const CLOSE_RANGE_UNSHARE: c_uint = 1 << 1;
    unsafe extern "C" {
        // Not `close_range`, which older C libraries do not have.
        fn syscall(number: c_long, first: c_uint, last: c_uint, flags: c_uint) -> c_long;
    }
    // SAFETY: this thread owns no descriptor, and those of the other threads stay open in their own
    // table.
    let result = unsafe { syscall(CLOSE_RANGE, 3, c_uint::MAX, CLOSE_RANGE_UNSHARE) };
    assert_eq!(result as c_int, 0, "close_range: {}", std::io::Error::last_os_error());
}

/// Has the C library open now what it opens once in a process. glibc opens `overcommit_memory` when
/// a thread's heap gives memory back for the first time, which would disturb a test that counts
/// descriptors. Small enough for the thread's own heap.
fn settle_allocator() {
    drop(std::hint::black_box([(); 8].map(|()| Vec::<u8>::with_capacity(100 << 10))));
}

/// Returns cargo, to build a program that a test runs. What it has set for the test is left out:
/// with other values of these variables, some of the dependencies would be compiled again.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        if ["CARGO_MANIFEST_", "CARGO_PKG_"].iter().any(|its| name.to_string_lossy().starts_with(its)) {
            cargo.env_remove(name);
        }
    }
    cargo
}
