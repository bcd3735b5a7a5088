//! Costs of servers with one thread and with several. The program `cores` measures them.

use std::process::Command;
use std::time::Duration;

use super::Effort;
use crate::Result;
use crate::peers::Missing;
use crate::process::Process;
use crate::programs::Programs;
use crate::results::{Cores, CoresCost, Outcome, Row};
use crate::system::{self, CoreTime};

/// Number of rounds of a full measurement.
const ROUNDS: usize = 15;

/// Timeout of the program.
const TIMEOUT: Duration = Duration::from_secs(180);

/// Measures all servers. The calling thread must not be pinned to a core.
///
/// # Errors
/// Fails if the program fails, or prints anything else than figures.
pub fn measure(programs: &Programs, effort: &Effort) -> Result<Cores> {
    let began = CoreTime::now()?;
    let mut command = Command::new(programs.own("cores"));
    let mut program = Process::start("cores", command.args(["figures", &effort.or(ROUNDS, 1).to_string()]))?;
    let mut rows = Vec::new();
    loop {
        let line = program.line(TIMEOUT)?;
        if line == "end" {
            break;
        }
        rows.push(row(&line)?);
    }
    // The time of a child counts as this program's once it has been waited for.
    program.ended_within(TIMEOUT)?;
    Ok(Cores { processor: system::processor()?, date: system::today()?, others: began.taken_by_others()?, rows })
}

fn row(line: &str) -> Result<Row<CoresCost>> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (peer, outcome) = match words[..] {
        ["figures", peer, echo, echoes_per_second, connection, connections_per_second] => {
            let cost = CoresCost {
                echo: echo.parse()?,
                echoes_per_second: echoes_per_second.parse()?,
                connection: connection.parse()?,
                connections_per_second: connections_per_second.parse()?,
            };
            (peer, Ok(cost))
        }
        ["missing", peer, ref why @ ..] => (peer, Err(Missing(why.join(" ")).into())),
        _ => return Err(format!("cores printed: {line}").into()),
    };
    Ok(Row { scenario: "cores".into(), peer: peer.into(), outcome: Outcome::from(outcome) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line is a row, and any other text is an error.
    #[test]
    fn a_line_is_a_row() {
        let measured = row("figures mio-2 9000 62500.5 74600 20000").unwrap();
        assert_eq!((measured.peer.as_str(), measured.outcome.measured().unwrap().connection), ("mio-2", 74_600.0));
        let missing = row("missing io_uring-2 no ring here").unwrap();
        assert_eq!(missing.outcome.reason().as_deref(), Some("missing: no ring here"));
        assert!(row("figures mio-2 9000").is_err());
    }
}
