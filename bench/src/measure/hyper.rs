//! Costs of hyper's 'Hello, world' on an engine. The program `hyper_instructions` measures them.

use std::process::Command;
use std::time::Duration;

use super::Effort;
use crate::Result;
use crate::hello::Engine;
use crate::peers::Missing;
use crate::process::Process;
use crate::programs::Programs;
use crate::results::HelloCost;

/// Timeout of the program.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Measures an engine.
///
/// # Errors
/// Fails if the engine or valgrind is missing, or if the program fails.
pub fn measure(programs: &Programs, engine: Engine, effort: &Effort) -> Result<HelloCost> {
    if !programs.has_valgrind() {
        return Err(Missing("valgrind is not installed".into()).into());
    }
    let mut command = Command::new(programs.own("hyper_instructions"));
    command.args([effort.or("--figures", "--few"), &engine.to_string()]);
    let line = Process::start("hyper_instructions", &mut command)?.line(TIMEOUT)?;
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        ["figures", instructions, system_calls, bytes] => Ok(HelloCost {
            instructions: instructions.parse()?,
            system_calls: if system_calls == "-" { None } else { Some(system_calls.parse()?) },
            bytes: bytes.parse()?,
        }),
        ["missing", ..] => Err(Missing(line.trim_start_matches("missing ").to_owned()).into()),
        _ => Err(format!("hyper_instructions printed: {line}").into()),
    }
}
