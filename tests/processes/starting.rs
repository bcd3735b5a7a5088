//! A child shares the memory of the program until its exec. The program is the same before and
//! after.

use super::*;
use rustix::process::{DumpableBehavior, dumpable_behavior};

/// Bytes that a test holds while a child starts.
const HELD_BYTES: usize = 64 << 20;

/// The least page of a system.
const PAGE_BYTES: usize = 4096;

/// Returns the page faults of this thread that needed no disk.
fn faults() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("the status of this thread");
    // The tenth field. The second one may have blanks, and ends with a bracket.
    let fields = stat.rsplit(") ").next().expect("a status");
    fields.split(' ').nth(7).expect("ten fields").parse().expect("a number")
}

/// Writes to each page. Returns the faults of that.
fn write_pages(held: &mut [u8]) -> u64 {
    let before = faults();
    held.iter_mut().step_by(PAGE_BYTES).for_each(|byte| *byte = byte.wrapping_add(1));
    std::hint::black_box(held);
    faults() - before
}

/// Returns the lines of the program's status that a child could have changed.
fn surroundings() -> Vec<String> {
    let status = std::fs::read_to_string("/proc/thread-self/status").expect("a status");
    let names = ["Uid:", "Gid:", "Groups:", "SigBlk:", "SigIgn:", "SigCgt:", "Umask:", "NSsid:", "NSpgid:"];
    let kept = status.lines().filter(|line| names.iter().any(|name| line.starts_with(name)));
    let directory = std::env::current_dir().expect("a working directory").display().to_string();
    kept.map(str::to_owned).chain([directory, format!("{:?}", dumpable_behavior())]).collect()
}

/// A page of the program that a child would have had a copy of causes a fault when it is written to
/// again. A child of another user shows that: its memory is a copy.
#[test]
fn a_start_copies_no_memory() {
    own_process!();
    let mut held = vec![1_u8; HELD_BYTES];
    let pages = write_pages(&mut held);
    assert_eq!(write_pages(&mut held), 0, "the pages are there");
    on_each(|reactor| {
        let mut faults_after = |command: &Command| {
            run_to_end(&reactor, command);
            write_pages(&mut held)
        };
        assert_eq!(faults_after(&shell("exit 0")), 0, "of {pages}");
        assert_eq!(faults_after(shell("exit 0").new_session().current_dir("/").env("A", "1")), 0, "of {pages}");
        // The user and the group stay as they are, but the command names them.
        let own = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let copied = faults_after(shell("exit 0").uid(own.0).gid(own.1));
        assert!(copied > 10, "{copied} of {pages}: the check sees no copy");
    });
}

/// A child's steps are its own: signals, directory, session, user, whether they fail or not.
#[test]
fn a_start_leaves_the_program_as_it_was() {
    own_process!();
    on_each(|reactor| {
        let before = surroundings();
        assert!(before.len() > 8, "{before:?}");
        run_to_end(&reactor, shell("exit 0").new_session().current_dir("/"));
        assert_eq!(surroundings(), before);
        for command in [
            Command::new("/no/such/program").new_session().current_dir("/"),
            Command::new("true").process_group(1).current_dir("/"),
            Command::new("true").current_dir("/no/such/directory"),
        ] {
            reactor.spawn_process(command, Seen::default().recorder()).expect_err("it does not start");
            assert_eq!(surroundings(), before);
        }
    });
}

/// A process that changes its user marks its memory: nothing is dumped or traced any more. The
/// program's memory has no such mark.
#[test]
fn a_child_of_another_user_does_not_mark_the_program() {
    own_process!();
    if !rustix::process::geteuid().is_root() {
        println!("skipped: the test needs the rights of root");
        return;
    }
    on_each(|reactor| {
        let before = surroundings();
        assert_eq!(dumpable_behavior(), Ok(DumpableBehavior::Dumpable));
        run_to_end(&reactor, shell("exit 0").uid(65534).gid(65533));
        assert_eq!(surroundings(), before);
        // The user is set before the step that fails.
        let mut command = Command::new("true");
        command.uid(65534).current_dir("/no/such/directory");
        reactor.spawn_process(&command, Seen::default().recorder()).expect_err("it does not start");
        assert_eq!(surroundings(), before);
    });
}

/// Threads that allocate meanwhile hold locks of the allocator, which a child must not wait for.
#[test]
fn threads_allocate_while_children_start() {
    own_process!();
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let is_running = || !is_over.load(std::sync::atomic::Ordering::Relaxed);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut blocks = Vec::new();
                while is_running() {
                    blocks.push(vec![0_u8; 1 + blocks.len() * 100]);
                    if blocks.len() == 100 {
                        blocks.clear();
                    }
                }
            });
        }
        on_each(|reactor| {
            for _ in 0..50 {
                assert!(run_to_end(&reactor, &shell("exit 0")).status().is_success());
                let missing = reactor.spawn_process(&Command::new("/no/such/program"), Seen::default().recorder());
                assert!(missing.is_err());
            }
        });
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(children(), (0, 0));
}
