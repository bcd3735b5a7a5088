//! [`Signal`]: a signal by name or number, for a child process.

use std::fmt;
use std::str::FromStr;

use crate::error::ProcessError;

/// The highest number of a signal.
const LAST: i32 = 64;

/// Names and numbers, as Linux has them on all but the MIPS and SPARC processors.
/// `reactor/children/tests.rs` compares them with those of the C library.
pub(crate) const NAMED: [(&str, i32); 31] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// A signal for [`ProcessTransport::signal`](super::ProcessTransport::signal) (Twisted: the
/// argument of `signalProcess`).
///
/// ```
/// use ropewalk::process::Signal;
///
/// assert_eq!("TERM".parse::<Signal>().unwrap(), Signal::TERM);
/// assert_eq!("SIGTERM".parse::<Signal>().unwrap(), Signal::TERM);
/// assert_eq!(Signal::from_number(9).unwrap().to_string(), "SIGKILL");
/// assert!("NONE".parse::<Signal>().is_err());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signal(i32);

impl Signal {
    /// The terminal has hung up, or: read the configuration again.
    pub const HUP: Self = Self(1);
    /// An interrupt from the keyboard.
    pub const INT: Self = Self(2);
    /// A quit from the keyboard.
    pub const QUIT: Self = Self(3);
    /// Ends the process. It cannot be handled.
    pub const KILL: Self = Self(9);
    /// The first signal for the program's own use.
    pub const USR1: Self = Self(10);
    /// The second signal for the program's own use.
    pub const USR2: Self = Self(12);
    /// A request to end.
    pub const TERM: Self = Self(15);
    /// Continues a stopped process.
    pub const CONT: Self = Self(18);
    /// Stops the process. It cannot be handled.
    pub const STOP: Self = Self(19);
    /// The size of the terminal has changed.
    pub const WINCH: Self = Self(28);

    /// Returns the signal with this number, from 1 to 64.
    ///
    /// # Errors
    /// [`ProcessError::UnknownSignal`] for any other number.
    pub fn from_number(number: i32) -> Result<Self, ProcessError> {
        if (1..=LAST).contains(&number) {
            Ok(Self(number))
        } else {
            Err(ProcessError::UnknownSignal { name: number.to_string() })
        }
    }

    /// Returns the number.
    pub fn number(self) -> i32 {
        self.0
    }

    /// Returns the name without `SIG`. Real-time signals have none.
    pub fn name(self) -> Option<&'static str> {
        NAMED.iter().find(|(_, number)| *number == self.0).map(|(name, _)| *name)
    }
}

impl FromStr for Signal {
    type Err = ProcessError;

    /// Reads a name in capitals, with or without `SIG`.
    fn from_str(name: &str) -> Result<Self, ProcessError> {
        let bare = name.strip_prefix("SIG").unwrap_or(name);
        let named = NAMED.iter().find(|(known, _)| *known == bare);
        named.map(|(_, number)| Self(*number)).ok_or_else(|| ProcessError::UnknownSignal { name: name.to_owned() })
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "SIG{name}"),
            None => write!(f, "signal {}", self.0),
        }
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_back() {
        for (name, number) in NAMED {
            let signal = Signal::from_number(number).unwrap();
            assert_eq!(signal.to_string().parse::<Signal>().unwrap(), signal, "{name}");
            assert_eq!(name.parse::<Signal>().unwrap().number(), number);
        }
    }

    /// Numbers at and beyond the ends, and texts that are no names.
    #[test]
    fn unknown_signals_are_refused() {
        for number in [i32::MIN, -1, 0, 65, i32::MAX] {
            assert!(matches!(Signal::from_number(number), Err(ProcessError::UnknownSignal { .. })), "{number}");
        }
        for name in ["", "SIG", "term", "SIGSIGTERM", "9", "TERM "] {
            assert!(matches!(name.parse::<Signal>(), Err(ProcessError::UnknownSignal { .. })), "{name}");
        }
        assert_eq!(Signal::from_number(40).unwrap().to_string(), "signal 40");
    }
}
