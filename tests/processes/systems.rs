//! Older systems, which lack a call: a filter (seccomp) takes it away from the test.

use std::os::unix::process::CommandExt;

use super::*;
use ropewalk::error::SpawnError;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Resource, getrlimit, setrlimit};

/// Executes its arguments under a filter that refuses calls: `number:errno`, or
/// `number:errno:bits`, for calls whose first argument has all of these bits.
const FILTER: &str = r#"
import ctypes, os, struct, sys
jump, ret, load, both = 0x15, 0x06, 0x20, 0x54
code = []
for rule in sys.argv[1].split(","):
    number, errno, bits = ([int(text, 0) for text in rule.split(":")] + [0])[:3]
    code += [(load, 0, 0, 0), (jump, 0, 4, number), (load, 0, 0, 16), (both, 0, 0, bits), (jump, 0, 1, bits),
        (ret, 0, 0, 0x50000 | errno)]
code.append((ret, 0, 0, 0x7fff0000))
text = b"".join(struct.pack("=HBBI", *line) for line in code)
place = ctypes.create_string_buffer(text, len(text))
program = struct.pack("@HP", len(code), ctypes.addressof(place))
libc = ctypes.CDLL(None, use_errno=True)
for arguments in (38, 1, 0, 0, 0), (22, 2, program, 0, 0):
    if libc.prctl(*arguments) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
os.execv(sys.argv[2], sys.argv[2:])
"#;

/// Is set in a process under a filter.
const FILTERED: &str = "ROPEWALK_TEST_FILTERED";

const CLOSE_RANGE: u32 = 436;
const PIDFD_OPEN: u32 = 434;
const GET_ENTRIES: u32 = if cfg!(target_arch = "x86_64") { 217 } else { 61 };
const CLONE: u32 = if cfg!(target_arch = "x86_64") { 56 } else { 220 };
const NO_CALL: u32 = 38;
const INVALID: u32 = 22;

/// The flags of a child that shares memory: `CLONE_VM` and `CLONE_VFORK`.
const SHARING: u32 = 0x4100;

/// Runs the test from its beginning under these rules. Returns in the process that has the filter.
fn filter(test: &str, rules: &[String]) {
    if std::env::var_os(FILTERED).is_some() {
        return;
    }
    let program = this_program(test);
    let mut filter = std::process::Command::new("python3");
    filter.args(["-c", FILTER, &rules.join(",")]).arg(program.get_program()).args(program.get_args());
    panic!("python3 does not start: {}", filter.env(FILTERED, "1").exec());
}

/// Opens a file at this number, without close-on-exec, as a C library may.
fn leak_at(number: i32) -> std::os::fd::OwnedFd {
    let file = memfd_create("leaking", MemfdFlags::CLOEXEC).expect("a file");
    let leaking = rustix::io::fcntl_dupfd_cloexec(&file, number).expect("a second descriptor");
    assert_eq!(std::os::fd::AsRawFd::as_raw_fd(&leaking), number);
    rustix::io::fcntl_setfd(&leaking, rustix::io::FdFlags::empty()).expect("it is open");
    leaking
}

/// Sets the limit of descriptors.
fn limit_descriptors(limit: u64) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, rustix::process::Rlimit { current: Some(limit), maximum }).expect("a lower limit");
}

/// A script that tells which of these descriptors are open.
fn tell_open(numbers: &[i32]) -> Command {
    let tests = numbers.iter().map(|number| format!("[ -e /proc/self/fd/{number} ] && echo {number}; "));
    shell(&(tests.collect::<String>() + ":"))
}

/// Without `close_range` the open descriptors are listed, also those above the limit. A loop up to
/// the limit would miss them, and would take long up to a high one.
#[test]
fn without_close_range_the_list_is_read() {
    own_process!();
    filter("systems::without_close_range_the_list_is_read", &[format!("{CLOSE_RANGE}:{NO_CALL}")]);
    on_each(|reactor| {
        let leaking = [leak_at(100), leak_at(5_000)];
        limit_descriptors(1_000);
        // More entries than one call returns.
        let many: Vec<_> = (200..600).map(leak_at).collect();
        let numbers: Vec<i32> = (0..8).chain(100..101).chain(200..600).chain(5_000..5_001).collect();
        assert_eq!(run_to_end(&reactor, &tell_open(&numbers)).text(), "0\n1\n2\n");
        let mut mapped = tell_open(&numbers);
        mapped.descriptor(5, ropewalk::process::ChildDescriptor::Null);
        assert_eq!(run_to_end(&reactor, &mapped).text(), "0\n1\n2\n5\n");
        drop((leaking, many));
        limit_descriptors(getrlimit(Resource::Nofile).maximum.unwrap_or(10_000).min(10_000));
    });
}

/// Without a list each number is tried, up to the limit.
#[test]
fn without_a_list_each_number_is_tried() {
    own_process!();
    let rules = [format!("{CLOSE_RANGE}:{NO_CALL}"), format!("{GET_ENTRIES}:{NO_CALL}")];
    filter("systems::without_a_list_each_number_is_tried", &rules);
    on_each(|reactor| {
        let leaking = [leak_at(100), leak_at(999)];
        limit_descriptors(1_000);
        assert_eq!(run_to_end(&reactor, &tell_open(&[0, 1, 2, 3, 4, 100, 999])).text(), "0\n1\n2\n");
        drop(leaking);
    });
}

/// Without descriptors of processes (Linux before 5.3), each request is a typed error.
#[test]
fn without_process_descriptors_nothing_starts() {
    own_process!();
    filter("systems::without_process_descriptors_nothing_starts", &[format!("{PIDFD_OPEN}:{NO_CALL}")]);
    on_each(|reactor| {
        let (seen, before) = (Seen::default(), descriptors());
        let refused = reactor.spawn_process(&Command::new("true"), seen.recorder()).expect_err("it does not start");
        assert!(matches!(refused, SpawnError::Unsupported), "{refused}");
        assert_eq!(refused.to_string(), "child processes are not supported here");
        let mut output = reactor.process_output(&Command::new("true"), 100);
        settle(&reactor);
        let failure = output.take_result().expect("it has failed").expect_err("it does not start");
        assert!(matches!(failure.check(), Some(SpawnError::Unsupported)), "{failure}");
        assert_eq!(seen.log.all(), [""; 0]);
        assert_eq!((descriptors(), children()), (before, (0, 0)));
    });
}

/// A system that shares no memory with a child: the child gets a copy, and its errors are told all
/// the same.
#[test]
fn without_shared_memory_a_child_gets_a_copy() {
    own_process!();
    filter("systems::without_shared_memory_a_child_gets_a_copy", &[format!("{CLONE}:{INVALID}:{SHARING:#x}")]);
    on_each(|reactor| {
        assert_eq!(run_to_end(&reactor, &shell("echo works")).text(), "works\n");
        let before = descriptors();
        let missing = reactor.spawn_process(&Command::new("/no/such/program"), Seen::default().recorder());
        let error = missing.expect_err("it does not start").to_string();
        assert_eq!(error, "cannot start /no/such/program: No such file or directory (os error 2)");
        let mut command = Command::new("true");
        let refused = reactor.spawn_process(command.current_dir("/no/such/directory"), Seen::default().recorder());
        let error = refused.expect_err("it does not start").to_string();
        assert!(error.contains("entering its working directory failed"), "{error}");
        assert_eq!((descriptors(), children()), (before, (0, 0)));
    });
}
