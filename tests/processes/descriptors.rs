//! The descriptors of a child: those of its map, and no others.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};

use super::*;
use ropewalk::endpoints::{ClientEndpointExt, ProcessEndpoint};
use ropewalk::error::{SpawnError, SpawnStep};
use ropewalk::for_protocol;
use ropewalk::process::ChildDescriptor;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The numbers that are open in a child. The shell's glob uses none of its own while `echo` runs.
const OPEN: &str = "cd /proc/self/fd; for n in *; do [ -e $n ] && echo $n; done";

/// F46: no descriptor of the program or of the engine is open in a child, close-on-exec or not.
#[test]
fn a_child_sees_its_own_descriptors_only() {
    own_process!();
    on_each(|reactor| {
        // Not close-on-exec, as a C library leaves its descriptors.
        let leaking = memfd_create("leaking", MemfdFlags::empty()).expect("a file");
        let second = rustix::io::fcntl_dupfd_cloexec(&leaking, 100).expect("a second descriptor");
        rustix::io::fcntl_setfd(&second, rustix::io::FdFlags::empty()).expect("it is open");
        assert_eq!(run_to_end(&reactor, &shell(OPEN)).text(), "0\n1\n2\n");
        let mut mapped = shell(OPEN);
        mapped.descriptor(9, ChildDescriptor::share(leaking)).descriptor(4, ChildDescriptor::Null);
        assert_eq!(run_to_end(&reactor, &mapped).text(), "0\n1\n2\n4\n9\n");
        drop(second);
    });
}

/// Numbers that cross: the child's 3 is the program's 4, and the other way round.
#[test]
fn crossed_numbers_are_not_mixed_up() {
    own_process!();
    on_each(|reactor| {
        let file = |text: &str| {
            let mut file = File::from(memfd_create("text", MemfdFlags::CLOEXEC).expect("a file"));
            file.write_all(text.as_bytes()).expect("it is written");
            file.rewind().expect("it has a begin");
            OwnedFd::from(file)
        };
        let files: Vec<OwnedFd> = ["a", "b", "c"].into_iter().map(file).collect();
        let numbers: Vec<i32> = files.iter().map(AsRawFd::as_raw_fd).collect();
        // Each file goes to the number of the next one.
        let mut script = String::new();
        let mut command = Command::new("/bin/sh");
        for (at, &number) in numbers.iter().enumerate() {
            command.descriptor(numbers[(at + 1) % 3], ChildDescriptor::Number(number));
        }
        for number in &numbers {
            script.push_str(&format!("cat /proc/self/fd/{number}; "));
        }
        let seen = run_to_end(&reactor, command.args(["-c", &script]));
        assert_eq!(seen.text(), "cab", "{}", seen.error_text());
    });
}

/// The highest number that the limit permits, and the one below it, which cross.
#[test]
fn the_highest_numbers_may_be_mapped() {
    own_process!();
    on_each(|reactor| {
        let file = memfd_create("highest", MemfdFlags::CLOEXEC).expect("a file");
        let limits = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(100), ..limits }).expect("a lower limit");
        let high = [98, 99].map(|number| rustix::io::fcntl_dupfd_cloexec(&file, number).expect("a number"));
        let mut command = shell("readlink /proc/self/fd/98 /proc/self/fd/99");
        command.descriptor(98, ChildDescriptor::Number(99)).descriptor(99, ChildDescriptor::Number(98));
        let seen = run_to_end(&reactor, &command);
        assert_eq!(seen.text().matches("/memfd:highest").count(), 2, "{}", seen.text());
        drop(high);
        // Nothing of it is open here: its pipe has the number by way of another.
        let seen = run_to_end(&reactor, shell("echo hello >/proc/self/fd/99").descriptor(99, ChildDescriptor::Read));
        assert_eq!(seen.text(), "hello\n");
        setrlimit(Resource::Nofile, limits).expect("the old limit");
    });
}

/// A number that is not open in the program is an error, though the engine has just opened
/// descriptors of its own: none of those reaches the child.
#[test]
fn a_closed_number_is_none_of_the_engine() {
    own_process!();
    on_each(|reactor| {
        run_to_end(&reactor, &shell("exit 0"));
        // The numbers that the engine gets next.
        let free = (3..100).filter(|number| std::fs::read_link(format!("/proc/self/fd/{number}")).is_err());
        for number in free.take(8) {
            let mut command = shell("exit 0");
            command.descriptor(9, ChildDescriptor::Number(number));
            let refused = reactor.spawn_process(&command, Seen::default().recorder());
            assert!(matches!(refused, Err(SpawnError::Setup { step: SpawnStep::Pipes, .. })), "{number}: {refused:?}");
            let endpoint = ProcessEndpoint::new(&reactor, command);
            let connecting = endpoint.connect(for_protocol(|_| Script::new(&Log::default())));
            let refused = result_of(&reactor, connecting).expect_err("it is refused");
            assert!(matches!(refused.check(), Some(SpawnError::Setup { step: SpawnStep::Pipes, .. })), "{refused}");
        }
    });
}

/// A file, the null device and a closed descriptor in the places of pipes.
#[test]
fn standard_streams_may_be_files() {
    own_process!();
    on_each(|reactor| {
        let mut file = File::from(memfd_create("output", MemfdFlags::CLOEXEC).expect("a file"));
        let mut command = shell("read line || echo no input; echo >&2; [ -e /proc/self/fd/2 ] || echo closed");
        command
            .descriptor(0, ChildDescriptor::Null)
            .descriptor(1, ChildDescriptor::share(file.try_clone().expect("a second descriptor")))
            .descriptor(2, ChildDescriptor::Closed);
        let seen = run_to_end(&reactor, &command);
        assert_eq!((seen.log.count("lost"), seen.text().as_str()), (0, ""));
        let mut text = String::new();
        file.rewind().expect("it has a begin");
        file.read_to_string(&mut text).expect("text");
        assert_eq!(text, "no input\nclosed\n");
    });
}

/// The pipe of the standard library for errors is not replaced by a descriptor of the child: a
/// program that is missing is still an error.
#[test]
fn no_mapped_number_hides_an_error() {
    own_process!();
    on_each(|reactor| {
        let mut command = Command::new("/no/such/program");
        for number in 3..40 {
            let descriptor = if number % 2 == 0 { ChildDescriptor::Null } else { ChildDescriptor::Closed };
            command.descriptor(number, descriptor);
        }
        assert!(reactor.spawn_process(&command, Seen::default().recorder()).is_err());
        assert_eq!(children(), (0, 0));
    });
}
