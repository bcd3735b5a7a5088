//! The log of the engine's events, on standard error.

use std::io;

use tracing::level_filters::LevelFilter;

use crate::options::{LogFormat, LogLevel, LogOptions};

/// Sends the events of the whole process to standard error from now on.
pub(crate) fn start(options: &LogOptions) {
    let level = match options.level {
        LogLevel::Off => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let log = tracing_subscriber::fmt().with_max_level(level).with_writer(io::stderr);
    match options.format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}
