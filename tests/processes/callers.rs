//! Starts from places other than the loop's own callbacks: other threads, members of a group, and
//! the functions around a wait.

use std::sync::mpsc;
use std::thread;

use super::*;
use ropewalk::reactor::ReactorGroup;

/// Reports the output of a process to another thread.
struct Report(Vec<u8>, mpsc::Sender<(Vec<u8>, ProcessStatus)>);

impl ProcessProtocol for Report {
    fn child_data_received(&mut self, _: &ProcessTransport, _: i32, data: &[u8]) -> Result<()> {
        self.0.extend_from_slice(data);
        Ok(())
    }

    fn process_ended(&mut self, _: &ProcessTransport, status: &ProcessStatus) -> Result<()> {
        Ok(self.1.send((std::mem::take(&mut self.0), *status))?)
    }
}

/// A loop that waits is woken by a call of another thread, which starts a process.
#[test]
fn another_thread_has_a_waiting_loop_start_a_process() {
    own_process!();
    on_each(|reactor| {
        let remote = reactor.remote();
        let caller = thread::spawn(move || {
            let (sender, ended) = mpsc::channel();
            let start = move |reactor: &Reactor| {
                reactor.spawn_process(&shell("echo $((6 * 7))"), Report(Vec::new(), sender)).expect("it starts");
            };
            remote.call_from_thread(start).expect("the reactor is there");
            let ended = ended.recv_timeout(LIMIT).expect("the process ends");
            remote.call_from_thread(|reactor| reactor.stop().expect("it runs")).expect("the reactor is there");
            ended
        });
        reactor.run().expect("it runs");
        assert_eq!(caller.join().expect("no panic"), (b"42\n".to_vec(), ProcessStatus::Exited(0)));
        assert_eq!(children(), (0, 0));
    });
}

/// Each member of a group has children of its own, and takes the status of no other's.
#[test]
fn members_of_a_group_start_processes() {
    own_process!();
    let (sender, ended) = mpsc::channel();
    let group = ReactorGroup::builder().threads(3).signals(false).setup(move |member| {
        for number in 0..5 {
            let code = member.index() * 5 + number;
            let command = shell(&format!("echo {code}; exit {code}"));
            member.reactor().spawn_process(&command, Report(Vec::new(), sender.clone()))?;
        }
        Ok(())
    });
    let group = group.start().expect("it starts");
    let mut codes: Vec<i32> = (0..15)
        .map(|_| {
            let (output, status) = ended.recv_timeout(LIMIT).expect("the process ends");
            let code = status.code().expect("it has exited");
            assert_eq!(output, format!("{code}\n").into_bytes());
            code
        })
        .collect();
    codes.sort_unstable();
    assert_eq!(codes, (0..15).collect::<Vec<_>>());
    group.stop();
    assert!(group.join().expect("it ends").is_success());
}

/// A start between the functions around a wait, when the poller is out of reach: the process is
/// watched when the wait has ended, and its end is told.
#[test]
fn a_start_while_the_poller_is_out_of_reach() {
    own_process!();
    for kind in [BackendKind::Mio, BackendKind::IoUring] {
        let handle = Rc::<RefCell<Option<Reactor>>>::default();
        let seen = Seen::default();
        let (known, recorder) = (Rc::clone(&handle), RefCell::new(Some(seen.recorder())));
        let before = move || {
            let reactor = known.borrow().clone();
            if let (Some(reactor), Some(recorder)) = (reactor, recorder.take()) {
                assert!(reactor.is_waiting());
                reactor.spawn_process(&shell("echo out"), recorder).expect("it starts");
            }
        };
        let reactor = Reactor::builder().signals(false).backend(kind).around_wait(before, || ());
        let reactor = reactor.build().expect("a reactor");
        if reactor.backend() != kind {
            println!("skipped on {kind:?}: {NO_BACKEND}");
            continue;
        }
        handle.replace(Some(reactor.clone()));
        run_until(&reactor, || seen.is_ended());
        assert_eq!((seen.text().as_str(), seen.status()), ("out\n", ProcessStatus::Exited(0)));
        handle.take();
    }
}
