//! `serve PEER [ADDRESS] [--answers] [--tls] [--datagrams] [--unpinned]`: a server of one kind.
//! `serve [--unpinned] -- PROGRAM ARGUMENT..`: any other program.
//!
//! The server echoes. With `--answers` it answers requests instead (`src/answers.rs`). With `--tls`
//! it does so over TLS, and DETAIL is its certificate. With `--datagrams` it echoes datagrams.
//!
//! The server listens on 127.0.0.1 at a port that the kernel chooses, unless an address is given.
//! It prints `ready PORT [DETAIL]` on one line, and serves until its parent ends or kills it. The
//! kernel enforces that, so no thread has to wait for it. (A process with two threads pays for the
//! second in every call through libc.) It is pinned to the first core, unless `--unpinned` is
//! given. A peer that is not available here prints `missing REASON` and ends. A program that is not
//! in Rust is pinned and ended in the same way.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use ropewalk_bench::peers::Service;
use ropewalk_bench::system::{Core, end_with_parent, pin, raise_descriptor_limit};
use ropewalk_bench::{Result, peers};

fn run(mut arguments: Vec<String>) -> Result<()> {
    end_with_parent()?;
    raise_descriptor_limit()?;
    let program = arguments.iter().position(|argument| argument == "--").map(|at| arguments.split_off(at));
    let mut flag =
        |name| arguments.iter().position(|argument| argument == name).map(|at| arguments.remove(at)).is_some();
    let (is_pinned, service) = (
        !flag("--unpinned"),
        Service { answers: flag("--answers"), tls: flag("--tls"), datagrams: flag("--datagrams") },
    );
    if is_pinned {
        pin(Core::Server)?;
    }
    match (program.as_deref(), &arguments[..]) {
        (Some([_, program, rest @ ..]), []) if service == Service::ECHO => {
            Err(Command::new(program).args(rest).exec().into())
        }
        (None, [peer]) => serve(peer, SocketAddr::from(([127, 0, 0, 1], 0)), service),
        (None, [peer, address]) => serve(peer, address.parse()?, service),
        _ => Err(
            "usage: serve PEER [ADDRESS] [--answers] [--tls] [--datagrams] [--unpinned] | serve [--unpinned] -- PROGRAM ARGUMENT.."
                .into(),
        ),
    }
}

fn serve(peer: &str, address: SocketAddr, service: Service) -> Result<()> {
    peers::serve(peer, address, service).map(|never| match never {})
}

fn main() -> ExitCode {
    let Err(error) = run(std::env::args().skip(1).collect()) else { return ExitCode::SUCCESS };
    match error.downcast_ref::<peers::Missing>() {
        Some(missing) => println!("missing {missing}"),
        None => eprintln!("{error}"),
    }
    ExitCode::FAILURE
}
