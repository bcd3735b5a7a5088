//! The command `ropewalk`: small servers, connections, and a view of running reactors. `--help` and
//! `docs/guide/src/reference/command.md` describe its use.
//!
//! | file | holds |
//! |---|---|
//! | `options.rs` | the command line |
//! | `program.rs`, `ending.rs` | a reactor for one command; the exit codes; the end of a connection |
//! | `servers.rs`, `protocols/` | the servers: `echo`, `discard`, `chargen`, `time` |
//! | `forward.rs` | connections of a server, joined to those of a client |
//! | `live.rs` | the line about connections and bytes, on a terminal |
//! | `connect.rs` | a connection, joined to standard input and output |
//! | `describe/` | an endpoint's description, explained |
//! | `top/` | the view of a reactor |

mod connect;
mod describe;
mod ending;
mod forward;
mod live;
mod options;
mod program;
mod protocols;
mod quantity;
mod servers;
mod top;

use std::process::ExitCode;

use clap::Parser;
use ropewalk::logging::ProgramLog;

use self::options::{LogOptions, Options, Subcommand};
use self::program::CommandError;

fn main() -> ExitCode {
    // Wrong usage ends the process here, with exit code 2.
    let options = Options::parse();
    let LogOptions { level, format } = options.log;
    // No part of the process has set a subscriber before.
    ProgramLog::new().level(level).format(format).start();
    let result = match options.command {
        Subcommand::Echo(server) => servers::run(&server, protocols::echo),
        Subcommand::Discard(server) => servers::run(&server, protocols::discard),
        Subcommand::Chargen(server) => servers::run(&server, protocols::chargen),
        Subcommand::Time(server) => servers::run(&server, protocols::time),
        Subcommand::Forward(forward) => forward::run(&forward),
        Subcommand::Connect(connect) => connect::run(&connect),
        Subcommand::Describe(describe) => describe::run(&describe),
        Subcommand::Top(top) => top::run(&top),
    };
    result.unwrap_or_else(CommandError::report)
}
