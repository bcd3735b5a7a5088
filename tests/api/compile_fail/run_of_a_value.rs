//~ a value is returned as `Ok(value)`, a failure as `Err(failure)`
use std::process::ExitCode;

fn main() -> ExitCode {
    ropewalk::run(|_reactor| 0)
}
