//! Bounds of the instruction gate: a file with a number for each case.
//!
//! A line is `NAME: NUMBER`, for example `echo on mio: 708`. Empty lines and lines that begin with
//! `#` are comments. They are lost when the file is rewritten. Each name occurs once.

use std::fmt;

use crate::Result;

/// Greatest difference between a measured number and its bound, in percent.
pub const TOLERANCE_PERCENT: f64 = 5.0;

/// Bounds by the name of the case, in the order of the file.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Bounds(Vec<(String, u64)>);

impl Bounds {
    /// Parses the text of a file.
    ///
    /// # Errors
    /// Fails if a line is not `NAME: NUMBER`, if the number is 0, or if a name occurs twice.
    pub fn parse(text: &str) -> Result<Self> {
        let mut bounds = Self::default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let parsed = line.rsplit_once(':').map(|(name, number)| (name.trim(), number.trim().parse()));
            let Some((name, Ok(number @ 1..))) = parsed else {
                return Err(format!("expected `NAME: NUMBER`, found {line:?}").into());
            };
            if bounds.get(name).is_some() {
                return Err(format!("{name:?} occurs twice").into());
            }
            bounds.set(name, number);
        }
        Ok(bounds)
    }

    /// Returns the bound of a case.
    pub fn get(&self, name: &str) -> Option<u64> {
        self.0.iter().find(|(known, _)| known == name).map(|&(_, number)| number)
    }

    /// Records a bound. It replaces the old one, or is appended if the case is new.
    pub fn set(&mut self, name: &str, number: u64) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = number,
            None => self.0.push((name.to_owned(), number)),
        }
    }

    /// Returns the names of all cases.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }
}

/// Formats the text of the file.
impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(name, number)| writeln!(f, "{name}: {number}"))
    }
}

/// Result of comparing a measured number with its bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Within the tolerance.
    Kept,
    /// Less by more than the tolerance. The new number should be recorded, or the gain can be lost
    /// unnoticed.
    Better,
    /// More by more than the tolerance. The gate fails.
    Worse,
}

impl Verdict {
    /// Compares a measured number with the recorded bound.
    pub fn of(measured: f64, recorded: u64) -> Self {
        let change = change_percent(measured, recorded);
        if change > TOLERANCE_PERCENT {
            Self::Worse
        } else if change < -TOLERANCE_PERCENT {
            Self::Better
        } else {
            Self::Kept
        }
    }
}

/// Returns the change from the recorded bound, in percent of that bound.
pub fn change_percent(measured: f64, recorded: u64) -> f64 {
    (measured - recorded as f64) * 100.0 / recorded as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reading and writing a file preserves it, except for its comments. A new case is appended,
    /// and a known case keeps its position.
    #[test]
    fn files_are_read_and_written() {
        let mut bounds = Bounds::parse("# a comment\n\necho on mio: 708\n accept on io_uring :  4700 \n").unwrap();
        assert_eq!(bounds.to_string(), "echo on mio: 708\naccept on io_uring: 4700\n");
        bounds.set("new", 1);
        bounds.set("echo on mio", 700);
        assert_eq!(bounds.to_string(), "echo on mio: 700\naccept on io_uring: 4700\nnew: 1\n");
        assert_eq!(Bounds::parse(&bounds.to_string()).unwrap(), bounds);
        assert_eq!(bounds.names().collect::<Vec<_>>(), ["echo on mio", "accept on io_uring", "new"]);
        assert_eq!((bounds.get("new"), bounds.get("echo")), (Some(1), None));
    }

    /// A file with a malformed or duplicate bound is refused, so no case passes unmeasured.
    #[test]
    fn malformed_files_are_refused() {
        for text in ["708", "echo: ", "echo: many", "echo: -1", "echo: 0", "echo: 1.5", "echo: 1\necho: 2"] {
            assert!(Bounds::parse(text).is_err(), "{text:?}");
        }
    }

    /// A change of exactly 5 % is within the tolerance in both directions.
    #[test]
    fn verdicts_at_the_tolerance() {
        let verdicts = [1051.0, 1050.0, 1000.0, 950.0, 949.0].map(|measured| Verdict::of(measured, 1000));
        assert_eq!(verdicts, [Verdict::Worse, Verdict::Kept, Verdict::Kept, Verdict::Kept, Verdict::Better]);
    }
}
