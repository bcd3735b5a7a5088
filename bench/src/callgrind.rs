//! [`Profile`]: callgrind counts, parsed from an output file.
//!
//! The parser covers the part of the [format](https://valgrind.org/docs/manual/cl-format.html) that
//! a run with `--collect-systime=yes` writes.

use std::collections::BTreeMap;

use crate::Result;

/// Counts of one run.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Number of user instructions.
    pub instructions: u64,
    /// Number of system calls, by the function that makes them itself.
    pub system_calls: BTreeMap<String, u64>,
}

impl Profile {
    /// Parses an output file.
    ///
    /// # Errors
    /// Fails if nothing was counted, or if the columns are not instructions and system calls.
    pub fn parse(text: &str) -> Result<Self> {
        let mut profile = Self::default();
        let (mut names, mut function, mut is_of_callee) = (BTreeMap::new(), "", false);
        for line in text.lines() {
            if let Some((key, value)) = line.split_once('=') {
                match key {
                    "fn" => function = name(&mut names, value)?,
                    "cfn" => drop(name(&mut names, value)?),
                    // The next line has the cost of the called function.
                    "calls" => is_of_callee = true,
                    _ => {}
                }
            } else if let Some(columns) = line.strip_prefix("events:") {
                if !columns.split_whitespace().take(2).eq(["Ir", "sysCount"]) {
                    return Err(format!("expected the columns Ir and sysCount, callgrind wrote{columns}").into());
                }
            } else if let Some(totals) = line.strip_prefix("totals:") {
                profile.instructions = totals.split_whitespace().next().unwrap_or_default().parse()?;
            } else if line.starts_with(['+', '-', '*']) || line.starts_with(|first: char| first.is_ascii_digit()) {
                let is_own = !std::mem::take(&mut is_of_callee);
                // Columns: the position, the instructions, the system calls. Trailing zeros are
                // left out.
                if let Some(count) = line.split_whitespace().nth(2).filter(|_| is_own) {
                    *profile.system_calls.entry(function.to_owned()).or_default() += count.parse::<u64>()?;
                }
            }
        }
        profile.system_calls.retain(|_, count| *count > 0);
        if profile.instructions == 0 {
            return Err("callgrind counted nothing".into());
        }
        Ok(profile)
    }
}

/// Returns the name in `(7) name`, or the name that an earlier line gave to `(7)`.
fn name<'a>(names: &mut BTreeMap<&'a str, &'a str>, value: &'a str) -> Result<&'a str> {
    let (number, name) =
        value.split_once(')').ok_or_else(|| format!("no closing parenthesis in the name {value:?}"))?;
    if !name.is_empty() {
        names.insert(number, name.trim_start());
    }
    Ok(names.get(number).ok_or_else(|| format!("no earlier line has the name of {value:?}"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
# callgrind format
events: Ir sysCount sysTime
summary: 26 9 1

fn=(1) turn
7 3
cfn=(2) Core>::iterate
calls=2 0
* 20 4 1

fn=(2)
+2 10 2
fe=(3) other.rs
-1 4 1 1
cfn=(4) accept
calls=1 0
* 6 1

fn=(4)
9 6 1
fn=(2)
12 3
totals: 26 4 1
";

    /// A function's own calls are counted, wherever its lines occur. Calls in its callees are not
    /// counted.
    #[test]
    fn calls_belong_to_the_function_that_makes_them() {
        let profile = Profile::parse(OUTPUT).unwrap();
        assert_eq!(profile.instructions, 26);
        let expected = [("Core>::iterate", 3), ("accept", 1)].map(|(name, count)| (name.to_owned(), count));
        assert_eq!(profile.system_calls, BTreeMap::from(expected));
    }

    /// Output without counts, with other columns or with an unnamed function is refused.
    #[test]
    fn malformed_output_is_refused() {
        for (part, other) in [("totals: 26", "totals: 0"), ("sysCount", "Dr"), ("(2) Core>::iterate", "(2)")] {
            assert!(Profile::parse(&OUTPUT.replace(part, other)).is_err(), "{other}");
        }
        assert!(Profile::parse("").is_err());
    }
}
