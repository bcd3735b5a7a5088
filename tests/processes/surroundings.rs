//! The surroundings of a child: environment, directory, user, session, signals.

use std::os::unix::process::CommandExt;

use super::*;

/// The environment is inherited, and changed or cleared as the command says.
#[test]
fn the_environment_is_inherited_unless_it_is_cleared() {
    own_process!();
    on_each(|reactor| {
        let path = std::env::var("PATH").expect("a path");
        let mut command = shell("echo $PATH $EXTRA");
        assert_eq!(run_to_end(&reactor, command.env("EXTRA", "more")).text(), format!("{path} more\n"));
        let mut cleared = Command::new("/usr/bin/env");
        cleared.env_clear().env("ONLY", "this");
        assert_eq!(run_to_end(&reactor, &cleared).text(), "ONLY=this\n");
    });
}

/// The directory, the name and the arguments are those of the command.
#[test]
fn directory_name_and_arguments() {
    own_process!();
    on_each(|reactor| {
        let mut command = Command::new("/bin/sh");
        command.arg0("a name").args(["-c", "pwd; echo $0; echo $1", "zero", "one argument"]).current_dir("/usr");
        assert_eq!(run_to_end(&reactor, &command).text(), "/usr\nzero\none argument\n");
        let mut named = Command::new("/bin/cat");
        named.arg0("a name").arg("/proc/self/cmdline");
        assert_eq!(run_to_end(&reactor, &named).text(), "a name\0/proc/self/cmdline\0");
    });
}

/// A new session or process group, whose leader the child is.
#[test]
fn sessions_and_process_groups() {
    own_process!();
    on_each(|reactor| {
        // Fields 4 to 6 of the status: the parent, the group, the session.
        let ids = |command: &mut Command| {
            let text = run_to_end(&reactor, command).text();
            let numbers: Vec<u32> = text.split_whitespace().map(|id| id.parse().expect("a number")).collect();
            (numbers[0], numbers[1], numbers[2])
        };
        let script = "set -- $(cat /proc/$$/stat); echo $1 $5 $6";
        let (pid, group, session) = ids(&mut shell(script));
        assert!(group != pid && session != pid);
        let (pid, group, other) = ids(shell(script).process_group(0));
        assert!(group == pid && other == session);
        let (pid, group, session) = ids(shell(script).new_session());
        assert_eq!((group, session), (pid, pid));
    });
}

/// A23: a child of another user has no group of root, and no way back.
#[test]
fn a_child_of_another_user_has_no_supplementary_groups() {
    own_process!();
    if !rustix::process::geteuid().is_root() {
        println!("skipped: the test needs the rights of root");
        return;
    }
    rustix::thread::set_thread_groups(&[rustix::process::Gid::from_raw(4), rustix::process::Gid::from_raw(27)])
        .expect("root may");
    on_each(|reactor| {
        let status = |command: &mut Command| {
            let text = run_to_end(&reactor, command).text();
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
        };
        let script = "grep -E '^(Uid|Gid|Groups):' /proc/self/status";
        assert_eq!(status(&mut shell(script))[2], "Groups: 4 27");
        let both = status(shell(script).uid(65534).gid(65533));
        assert_eq!(both, ["Uid: 65534 65534 65534 65534", "Gid: 65533 65533 65533 65533", "Groups:"]);
        assert_eq!(status(shell(script).gid(65533))[1..], ["Gid: 65533 65533 65533 65533", "Groups:"]);
        assert_eq!(status(shell(script).uid(65534))[2], "Groups:");
    });
}

/// A child blocks and ignores no signal, even if this process does.
#[test]
fn signals_are_reset_in_a_child() {
    own_process!();
    // A second process of this test, under `nohup` and with a mask that Python sets.
    const CHILD: &str = "ROPEWALK_TEST_SIGNALS";
    if std::env::var_os(CHILD).is_none() {
        let program = this_program("surroundings::signals_are_reset_in_a_child");
        let mut nohup = std::process::Command::new("python3");
        let script = "import os,signal,sys\n\
            signal.signal(signal.SIGHUP, signal.SIG_IGN); signal.signal(signal.SIGUSR2, signal.SIG_IGN)\n\
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR1])\n\
            os.execv(sys.argv[1], sys.argv[1:])";
        nohup.args(["-c", script]).arg(program.get_program()).args(program.get_args()).env(CHILD, "1");
        panic!("python3 does not start: {}", nohup.exec());
    }
    assert!(is_in_mask("self", "SigIgn:", 1) && is_in_mask("thread-self", "SigBlk:", 15));
    on_each(|reactor| {
        let text = run_to_end(&reactor, &shell("grep -E '^Sig(Blk|Ign):' /proc/self/status")).text();
        for line in text.lines() {
            assert!(line.ends_with("0000000000000000"), "{line}");
        }
        assert_eq!(text.lines().count(), 2);
    });
}
