//! The callbacks of a process protocol: their order, their failures, and the pipes.

use super::*;
use ropewalk::Clock;
use ropewalk::error::ProcessError;
use ropewalk::process::{ChildDescriptor, Signal};
use ropewalk::transport::QueueLimit;

/// The order: made, data, the ends of the pipes and the exit, and the end last.
#[test]
fn output_and_exit_come_before_the_end() {
    own_process!();
    on_each(|reactor| {
        let seen = run_to_end(&reactor, &shell("echo out; echo err >&2; exit 3"));
        assert_eq!((seen.text().as_str(), seen.error_text().as_str()), ("out\n", "err\n"));
        assert_eq!(seen.status(), ProcessStatus::Exited(3));
        let events = seen.log.all();
        assert_eq!((events[0].as_str(), events[5].as_str()), ("made", "ended: exited with code 3"), "{events:?}");
        for once in ["lost 0", "lost 1", "lost 2", "exited: exited with code 3"] {
            assert_eq!(seen.log.count(once), 1, "{events:?}");
        }
        assert_eq!(events.len(), 6, "{events:?}");
        assert_eq!(children(), (0, 0));
    });
}

/// Bytes go to the child and come back, all of them, through full pipes.
#[test]
fn a_megabyte_goes_through_cat() {
    own_process!();
    on_each(|reactor| {
        let seen = Seen::default();
        let data: Vec<u8> = (0..1 << 20).map(|at: u32| (at % 251) as u8).collect();
        let written = data.clone();
        let recorder = seen.recorder().made(move |process| {
            process.write(&written)?;
            process.close_stdin();
            assert!(matches!(process.write(b"late"), Err(ProcessError::NoPipe { descriptor: 0 })));
            Ok(())
        });
        reactor.spawn_process(&Command::new("/bin/cat"), recorder).expect("it starts");
        run_until(&reactor, || seen.is_ended());
        assert!(*seen.output.borrow() == data);
        assert!(seen.status().is_success());
    });
}

/// A callback that fails or panics is logged, and the process goes on to its end.
#[test]
fn a_failing_callback_leaves_the_process_alone() {
    own_process!();
    on_each(|reactor| {
        let seen = Seen::default();
        let recorder = seen
            .recorder()
            .made(|process| {
                process.close_stdin();
                Err("not made".into())
            })
            .received(|_| panic!("not received"))
            .exited(|_| Err("not exited".into()));
        let ((), lines) = logged(|| {
            reactor.spawn_process(&shell("echo out"), recorder).expect("it starts");
            run_until(&reactor, || seen.is_ended());
        });
        let failures: Vec<_> = lines.iter().filter(|line| line.contains("the process goes on")).collect();
        assert_eq!(failures.len(), 3, "{lines:?}");
        for text in ["not made", "not received", "not exited"] {
            assert!(failures.iter().any(|line| line.contains(text)), "{failures:?}");
        }
        assert!(seen.status().is_success());
    });
}

/// F46: a child that closes its input early: the pipe ends, no SIGPIPE kills this process, and the
/// child lives on.
#[test]
fn a_child_that_closes_its_input_early() {
    own_process!();
    on_each(|reactor| {
        let seen = Seen::default();
        // More than the pipe holds: some of it is sent to a closed pipe.
        let recorder = seen.recorder().made(|process| Ok(process.write(&vec![b'x'; 1 << 20])?));
        let process = reactor.spawn_process(&shell("exec 0<&-; echo closed; exec sleep 1000"), recorder);
        let process = process.expect("it starts");
        run_until(&reactor, || seen.log.has("lost 0") && seen.text() == "closed\n");
        assert!(process.is_running() && !seen.log.has("exited"));
        assert!(matches!(process.write(b"more"), Err(ProcessError::NoPipe { descriptor: 0 })));
        process.signal(Signal::TERM).expect("it runs");
        run_until(&reactor, || seen.is_ended());
        assert_eq!(seen.status(), ProcessStatus::Killed { signal: Signal::TERM, is_core_dumped: false });
    });
}

/// Input that is queued when its pipe is closed waits for the child, however late that reads. No
/// timer cuts it, for the child would take the rest for all of it.
#[test]
fn a_child_that_reads_late_gets_all_of_its_input() {
    own_process!();
    on_each(|reactor| {
        let seen = Seen::default();
        let recorder = seen.recorder().made(|process| {
            process.write(&vec![b'x'; 1 << 20])?;
            process.close_stdin();
            Ok(())
        });
        // It reads when another pipe has ended.
        let mut command = shell("cat <&3; wc -c");
        command.descriptor(3, ropewalk::process::ChildDescriptor::Write);
        let process = reactor.spawn_process(&command, recorder).expect("it starts");
        settle(&reactor);
        assert!(process.child(0).is_some_and(|pipe| pipe.queued_bytes() > 0) && reactor.delayed_calls().is_empty());
        process.close_child(3);
        run_until(&reactor, || seen.is_ended());
        assert_eq!(seen.text(), "1048576\n");
    });
}

/// F46: a gibibyte that is not read stays in the child: the pipe is paused, and memory is bounded.
#[test]
fn unread_output_is_not_collected() {
    own_process!();
    on_each(|reactor| {
        let seen = Seen::default();
        let recorder = seen.recorder().received(|process| {
            process.pause_child(1);
            Ok(())
        });
        let before = allocator::live_in_process();
        let process = reactor.spawn_process(&shell("head -c 1073741824 /dev/zero"), recorder).expect("it starts");
        run_until(&reactor, || !seen.text().is_empty());
        settle(&reactor);
        let (received, grown) = (seen.output.borrow().len(), allocator::live_in_process() - before);
        assert!(received <= 1 << 20 && grown < 4 << 20, "{received} bytes were received, and {grown} are held");
        assert!(!seen.log.has("lost 1") && process.is_running());
        process.kill().expect("it runs");
        run_until(&reactor, || seen.log.has("exited"));
        process.close_child(1);
        run_until(&reactor, || seen.is_ended());
    });
}

/// A paused pipe goes on where it was, and a pipe of another number keeps its own state.
#[test]
fn pipes_are_paused_one_by_one() {
    own_process!();
    on_each(|reactor| {
        let seen = Seen::default();
        let recorder = seen.recorder().made(|process| {
            process.pause_child(1);
            Ok(())
        });
        let process = reactor.spawn_process(&shell("echo out; echo err >&2"), recorder).expect("it starts");
        run_until(&reactor, || seen.log.has("exited") && seen.log.has("lost 2"));
        settle(&reactor);
        assert_eq!((seen.text().as_str(), seen.error_text().as_str()), ("", "err\n"));
        process.resume_child(1);
        run_until(&reactor, || seen.is_ended());
        assert_eq!(seen.text(), "out\n");
    });
}

/// A queue beyond its limit aborts the pipe, and not the process.
#[test]
fn a_pipe_has_the_limits_of_a_transport() {
    own_process!();
    on_each(|reactor| {
        let seen = Seen::default();
        let recorder = seen.recorder().made(|process| {
            let pipe = process.child(0).expect("standard input is open");
            pipe.set_queue_limit(Some(QueueLimit::abort(1 << 20)));
            process.write(&vec![0; 4 << 20])?;
            Ok(())
        });
        let process = reactor.spawn_process(&shell("exec sleep 1000"), recorder).expect("it starts");
        run_until(&reactor, || seen.log.has("lost 0"));
        assert!(process.is_running());
        process.lose_connection();
        process.kill().expect("it runs");
        run_until(&reactor, || seen.is_ended());
    });
}

/// A pipe whose transport is discarded is told of all the same, and does not keep the end away.
#[test]
fn a_discarded_pipe_is_told_of() {
    own_process!();
    on_each(|reactor| {
        let seen = Seen::default();
        let recorder = seen.recorder().received(|process| {
            for descriptor in [0, 1, 2] {
                if let Some(pipe) = process.child(descriptor) {
                    pipe.discard(ropewalk::transport::DiscardMode::End);
                }
            }
            Ok(())
        });
        reactor.spawn_process(&shell("echo out; read line"), recorder).expect("it starts");
        run_until(&reactor, || seen.is_ended());
        assert_eq!(seen.log.count("lost"), 3);
    });
}

/// More pipes than three, each in its direction.
#[test]
fn a_child_has_the_pipes_of_its_map() {
    own_process!();
    on_each(|reactor| {
        let seen = Seen::default();
        let mut command = shell("cat <&7 >&5");
        command.descriptor(5, ChildDescriptor::Read).descriptor(7, ChildDescriptor::Write);
        let recorder = seen.recorder().made(|process| {
            process.write_to_child(7, b"through seven")?;
            process.close_child(7);
            assert!(matches!(process.write_to_child(5, b""), Err(ProcessError::NotWritable { descriptor: 5 })));
            assert!(matches!(process.write_to_child(6, b""), Err(ProcessError::NoPipe { descriptor: 6 })));
            Ok(())
        });
        reactor.spawn_process(&command, recorder).expect("it starts");
        run_until(&reactor, || seen.is_ended());
        assert_eq!(seen.text(), "through seven");
        assert_eq!(seen.log.count("lost"), 5);
    });
}
