//! [`ProgramLog`]: the log of a program on standard error (feature `logging`; Twisted:
//! `twisted.logger.textFileLogObserver`, `jsonFileLogObserver`).
//!
//! Ropewalk's events and those of the program go through [`tracing`], which drops them unless a
//! subscriber is set. This module sets one that writes to standard error. A program with other
//! wishes, such as levels for each module, sets a subscriber of its own instead. The
//! guide's page about logs has the events.
//!
//! | a program | ERROR events | other events |
//! |---|---|---|
//! | sets no subscriber | a line each on standard error | are dropped |
//! | starts a `ProgramLog` | are written from its level on | are written from its level on |
//! | has set a subscriber before | go there alone | go there alone |

use std::env::{self, VarError};
use std::fmt;
use std::io;
use std::str::FromStr;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt as subscriber;

/// The log of a program on standard error. `start` sets it for the whole process.
///
/// As text it is words such as `debug` or `info,json`, for an environment variable or an argument:
/// a level, a format, or both in any order, separated by a comma. The level is `info` and the
/// format `text` unless given.
///
/// ```no_run
/// use std::process::ExitCode;
/// use ropewalk::logging::ProgramLog;
/// use ropewalk::Deferred;
///
/// fn main() -> ExitCode {
///     ropewalk::run(|reactor| {
///         ProgramLog::from_env("ECHO_LOG")?.start();
///         tracing::info!("starting");
///         Ok(reactor.when_stopped())
///     })
/// }
/// ```
///
/// Standard error is written at the event, on the thread of the event, so that no line is lost at
/// an exit. A reader that does not read holds the program up. If standard error is gone, the lines
/// are dropped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProgramLog {
    level: LogLevel,
    format: LogFormat,
}

impl ProgramLog {
    /// Creates the settings of a log of level `info`, as text.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the settings from an environment variable of the program. One that is absent or empty
    /// leaves the defaults.
    ///
    /// # Errors
    /// [`LogError`] if the variable has another value than the words of the type's documentation.
    pub fn from_env(variable: &str) -> Result<Self, LogError> {
        let refused = |text: String| LogError { variable: Some(variable.to_owned()), text };
        match env::var(variable) {
            Ok(text) if text.is_empty() => Ok(Self::new()),
            Ok(text) => text.parse().map_err(|error: LogError| refused(error.text)),
            Err(VarError::NotPresent) => Ok(Self::new()),
            Err(VarError::NotUnicode(text)) => Err(refused(text.to_string_lossy().into_owned())),
        }
    }

    /// Sets the least level of the events that are written.
    #[must_use]
    pub fn level(self, level: LogLevel) -> Self {
        Self { level, ..self }
    }

    /// Sets the format of the lines.
    #[must_use]
    pub fn format(self, format: LogFormat) -> Self {
        Self { format, ..self }
    }

    /// Sends the events of the whole process to standard error from now on. Returns `false`, and
    /// changes nothing, if the process has a subscriber already. Threads with a subscriber of their
    /// own keep it.
    pub fn start(self) -> bool {
        // The program's other crates may have turned colours on. A log is read by other programs,
        // too. A line that cannot be written is no reason for another one, nor for a panic.
        let log = subscriber()
            .with_max_level(self.level.filter())
            .with_writer(io::stderr)
            .with_ansi(false)
            .log_internal_errors(false);
        match self.format {
            LogFormat::Text => log.try_init().is_ok(),
            LogFormat::Json => log.json().try_init().is_ok(),
        }
    }
}

impl FromStr for ProgramLog {
    type Err = LogError;

    fn from_str(text: &str) -> Result<Self, LogError> {
        let refused = || LogError { variable: None, text: text.to_owned() };
        let (mut level, mut format) = (None, None);
        for word in text.split(',') {
            let is_first = match (word.parse(), word.parse()) {
                (Ok(found), _) => level.replace(found).is_none(),
                (_, Ok(found)) => format.replace(found).is_none(),
                _ => false,
            };
            if !is_first {
                return Err(refused());
            }
        }
        Ok(Self { level: level.unwrap_or_default(), format: format.unwrap_or_default() })
    }
}

/// The least level of the events of a [`ProgramLog`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum LogLevel {
    /// No event, not even an error.
    Off,
    /// Failures that no part of the program handles.
    Error,
    /// The same, and shortages, limits and second signals.
    Warn,
    /// The same, and messages of the program. Ropewalk has no events of this level.
    #[default]
    Info,
    /// The same, and lost connections.
    Debug,
    /// The same, and details of socket calls.
    Trace,
}

impl LogLevel {
    /// All levels, the quietest first.
    pub const ALL: [Self; 6] = [Self::Off, Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// Returns the name: `off`, `error`, `warn`, `info`, `debug` or `trace`. It is also what
    /// [`FromStr`] reads, in any case of its letters.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }

    fn filter(self) -> LevelFilter {
        match self {
            Self::Off => LevelFilter::OFF,
            Self::Error => LevelFilter::ERROR,
            Self::Warn => LevelFilter::WARN,
            Self::Info => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
            Self::Trace => LevelFilter::TRACE,
        }
    }
}

/// The format of the lines of a [`ProgramLog`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LogFormat {
    /// The time, the level, the module, the message and the fields, without colours.
    #[default]
    Text,
    /// A JSON object: `timestamp`, `level`, `target`, and `fields` with `message` among them.
    Json,
}

impl LogFormat {
    /// All formats.
    pub const ALL: [Self; 2] = [Self::Text, Self::Json];

    /// Returns the name: `text` or `json`. It is also what [`FromStr`] reads, in any case of its
    /// letters.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// Reads a value by its name.
macro_rules! from_name {
    ($($type:ty),+) => {$(
        impl FromStr for $type {
            type Err = LogError;

            fn from_str(text: &str) -> Result<Self, LogError> {
                let found = Self::ALL.into_iter().find(|value| value.name().eq_ignore_ascii_case(text));
                found.ok_or_else(|| LogError { variable: None, text: text.to_owned() })
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }
    )+};
}
from_name!(LogLevel, LogFormat);

/// A text that is no setting of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogError {
    variable: Option<String>,
    text: String,
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(variable) = &self.variable {
            write!(f, "{variable} in the environment: ")?;
        }
        let levels = LogLevel::ALL.map(LogLevel::name).join(", ");
        let formats = LogFormat::ALL.map(LogFormat::name).join(" or ");
        write!(
            f,
            "{:?} is no setting of a log: expected a level ({levels}), a format ({formats}), or both",
            self.text
        )?;
        f.write_str(" with a comma between them")
    }
}

impl std::error::Error for LogError {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words in any order and any case, each kind once.
    #[test]
    fn settings_are_words() {
        let log = ProgramLog::new();
        for (text, expected) in [
            ("debug", log.level(LogLevel::Debug)),
            ("json", log.format(LogFormat::Json)),
            ("WARN,json", log.level(LogLevel::Warn).format(LogFormat::Json)),
            ("text,off", log.level(LogLevel::Off)),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for wrong in ["", ",", "debug,", "debug,info", "json,text", "loud", " debug", "ropewalk=debug"] {
            assert!(wrong.parse::<ProgramLog>().is_err(), "{wrong:?}");
        }
        for level in LogLevel::ALL {
            assert_eq!(level.to_string().parse(), Ok(level));
        }
    }

    /// An error names the variable, the text, and every word that is expected.
    #[test]
    fn an_error_says_what_was_expected() {
        let error = LogError { variable: Some("ECHO_LOG".to_owned()), text: "loud".to_owned() };
        assert_eq!(
            error.to_string(),
            "ECHO_LOG in the environment: \"loud\" is no setting of a log: expected a level (off, error, warn, info, \
             debug, trace), a format (text or json), or both with a comma between them"
        );
        assert_eq!(ProgramLog::from_env("ROPEWALK_TEST_ABSENT_LOG"), Ok(ProgramLog::new()));
    }
}
