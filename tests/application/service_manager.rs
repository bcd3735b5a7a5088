//! What a service manager hears of a program, by systemd's protocol.

use std::io::{ErrorKind, Read};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{Child, ExitStatus, Stdio};

use crate::common::LIMIT;
use crate::common::process::{own_process, this_program, with_default_signals};
use ropewalk::application::{MultiService, StreamServerEndpointService, run_service};
use ropewalk::endpoints::server_from_string;
use ropewalk::for_protocol;
use ropewalk::interfaces::*;
use ropewalk::testing::MemoryReactor;
use rustix::process::{Pid, Signal, kill_process};

/// Asks [`program`] to run, in a process of its own.
const INSIDE: &str = "ROPEWALK_TEST_SERVICE_MANAGER";

struct Silent;

impl Protocol for Silent {
    fn data_received(&mut self, _transport: &ropewalk::Transport, _data: &[u8]) -> ropewalk::Result<()> {
        Ok(())
    }
}

/// The program of the tests. It is no test by itself.
#[test]
fn program() {
    if std::env::var_os(INSIDE).is_none() {
        return;
    }
    let code = ropewalk::run(|reactor| {
        let services = MultiService::new();
        let endpoint = server_from_string(reactor, "tcp:0:interface=127.0.0.1")?;
        services.add_service(StreamServerEndpointService::new(endpoint, for_protocol(|_| Silent)));
        Ok(run_service(reactor, services))
    });
    println!("the exit code is {code:?}");
}

fn start(socket: &str) -> Child {
    let mut command = with_default_signals(this_program("service_manager::program"));
    command.env(INSIDE, "1").env("NOTIFY_SOCKET", socket).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Returns the next message, or an error after a while.
fn message(manager: &UnixDatagram) -> String {
    manager.set_read_timeout(Some(LIMIT)).unwrap();
    let mut buffer = [0; 4096];
    let count = manager.recv(&mut buffer).unwrap();
    String::from_utf8_lossy(&buffer[..count]).into_owned()
}

fn terminate(mut program: Child) -> (ExitStatus, String) {
    kill_process(Pid::from_child(&program), Signal::TERM).unwrap();
    let mut said = String::new();
    program.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    program.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    (program.wait().unwrap(), said)
}

/// The manager hears that the program is ready, and that it stops, each once and in this order. Its
/// socket has a path or an abstract name.
#[test]
fn it_hears_of_readiness_and_of_the_stop() {
    own_process!();
    let path = std::env::temp_dir().join(format!("ropewalk-notify-{}", std::process::id()));
    let name = format!("ropewalk-test-{}", std::process::id());
    let abstract_address = SocketAddr::from_abstract_name(&name).unwrap();
    for (manager, socket) in [
        (UnixDatagram::bind(&path).unwrap(), path.to_str().unwrap().to_owned()),
        (UnixDatagram::bind_addr(&abstract_address).unwrap(), format!("@{name}")),
    ] {
        let program = start(&socket);
        assert_eq!(message(&manager), "READY=1");
        let (status, said) = terminate(program);
        assert!(status.success(), "{status}: {said}");
        assert!(said.contains("the exit code is"), "{said}");
        assert_eq!(message(&manager), "STOPPING=1");
        manager.set_nonblocking(true).unwrap();
        assert_eq!(manager.recv(&mut [0; 16]).unwrap_err().kind(), ErrorKind::WouldBlock, "a third message");
    }
    std::fs::remove_file(path).unwrap();
}

/// A manager that cannot be told is reported, and the program runs nevertheless.
#[test]
fn a_manager_that_is_not_there_is_reported() {
    own_process!();
    for socket in ["/nonexistent/notify", "@ropewalk-test-absent", "vsock:2:1"] {
        let mut program = start(socket);
        let mut line = Vec::new();
        let mut errors = program.stderr.take().unwrap();
        while !line.ends_with(b"\n") {
            let mut byte = [0];
            errors.read_exact(&mut byte).unwrap();
            line.push(byte[0]);
        }
        let line = String::from_utf8(line).unwrap();
        assert!(line.contains("the service manager was not told READY=1") && line.contains(socket), "{line}");
        program.stderr = Some(errors);
        let (status, said) = terminate(program);
        assert!(status.success(), "{status}: {said}");
    }
}

/// A simulated program has no manager, and a message has to be one.
#[test]
fn a_simulated_program_has_none() {
    let memory = MemoryReactor::new();
    assert!(!memory.reactor().notify_service_manager("READY=1").unwrap());
    let wrong = memory.reactor().notify_service_manager("ready").unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::InvalidInput);
}
