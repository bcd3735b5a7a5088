//! Tests of numbers that only the C library of the system can confirm.

use crate::process::{NAMED, Signal};

#[cfg(target_os = "linux")]
#[test]
fn signals_have_the_numbers_of_the_system() {
    let numbers = [
        libc::SIGHUP,
        libc::SIGINT,
        libc::SIGQUIT,
        libc::SIGILL,
        libc::SIGTRAP,
        libc::SIGABRT,
        libc::SIGBUS,
        libc::SIGFPE,
        libc::SIGKILL,
        libc::SIGUSR1,
        libc::SIGSEGV,
        libc::SIGUSR2,
        libc::SIGPIPE,
        libc::SIGALRM,
        libc::SIGTERM,
        libc::SIGSTKFLT,
        libc::SIGCHLD,
        libc::SIGCONT,
        libc::SIGSTOP,
        libc::SIGTSTP,
        libc::SIGTTIN,
        libc::SIGTTOU,
        libc::SIGURG,
        libc::SIGXCPU,
        libc::SIGXFSZ,
        libc::SIGVTALRM,
        libc::SIGPROF,
        libc::SIGWINCH,
        libc::SIGIO,
        libc::SIGPWR,
        libc::SIGSYS,
    ];
    assert_eq!(NAMED.map(|(_, number)| number), numbers);
    let constants = [
        (Signal::HUP, libc::SIGHUP),
        (Signal::INT, libc::SIGINT),
        (Signal::QUIT, libc::SIGQUIT),
        (Signal::KILL, libc::SIGKILL),
        (Signal::USR1, libc::SIGUSR1),
        (Signal::USR2, libc::SIGUSR2),
        (Signal::TERM, libc::SIGTERM),
        (Signal::CONT, libc::SIGCONT),
        (Signal::STOP, libc::SIGSTOP),
        (Signal::WINCH, libc::SIGWINCH),
    ];
    for (signal, number) in constants {
        assert_eq!(signal.number(), number, "{signal}");
    }
}
