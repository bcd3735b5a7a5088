//! `serve PEER [ADDRESS] [--unpinned]`: an echo server of one kind; `serve [--unpinned] -- PROGRAM ARGUMENT..`: any other program.
//!
//! It listens on 127.0.0.1 at a port that the system chooses, unless an address is given, prints `ready PORT [DETAIL]` on one line, and
//! serves until whoever started it ends or kills it: the system sees to that, so that no thread has to wait for the end of anything. (A
//! process with two threads pays for it in every call that goes through libc.) It is pinned to the first core, unless told otherwise. A
//! peer that can't be had here prints `missing REASON` and ends. A program that is not in Rust is pinned and ended in the same way.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use ropewalk_bench::system::{Core, end_with_parent, pin, raise_descriptor_limit};
use ropewalk_bench::{Result, peers};

fn run(mut arguments: Vec<String>) -> Result<()> {
    end_with_parent()?;
    raise_descriptor_limit()?;
    let program = arguments.iter().position(|argument| argument == "--").map(|at| arguments.split_off(at));
    let pinned =
        arguments.iter().position(|argument| argument == "--unpinned").map(|at| arguments.remove(at)).is_none();
    if pinned {
        pin(Core::Server)?;
    }
    match (program.as_deref(), &arguments[..]) {
        (Some([_, program, rest @ ..]), []) => Err(Command::new(program).args(rest).exec().into()),
        (None, [peer]) => peers::serve(peer, SocketAddr::from(([127, 0, 0, 1], 0))).map(|never| match never {}),
        (None, [peer, address]) => peers::serve(peer, address.parse()?).map(|never| match never {}),
        _ => Err("usage: serve PEER [ADDRESS] [--unpinned] | serve [--unpinned] -- PROGRAM ARGUMENT..".into()),
    }
}

fn main() -> ExitCode {
    let Err(error) = run(std::env::args().skip(1).collect()) else { return ExitCode::SUCCESS };
    match error.downcast_ref::<peers::Missing>() {
        Some(missing) => println!("missing {missing}"),
        None => eprintln!("{error}"),
    }
    ExitCode::FAILURE
}
