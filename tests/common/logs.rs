//! Lines that a part of a program logs.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, OnceLock};

/// Calls `act`. Returns its result, and the warnings and errors that this thread logged meanwhile,
/// one line each.
pub fn logged<T>(act: impl FnOnce() -> T) -> (T, Vec<String>) {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let result = subscribed(Recorder(Arc::clone(&lines)), act);
    let lines = lines.lock().expect("no test panics under the lock").clone();
    (result, lines)
}

/// Calls `act` with a subscriber of `tracing` for this thread.
///
/// While no subscriber exists, `tracing` caches each place of an event that it meets as of no
/// interest. Another test may meet one at the moment in which this subscriber comes, and the place
/// would stay so. So one subscriber exists from the first call on.
pub fn subscribed<T>(subscriber: impl tracing::Subscriber + Send + Sync + 'static, act: impl FnOnce() -> T) -> T {
    static ALWAYS: OnceLock<tracing::Dispatch> = OnceLock::new();
    ALWAYS.get_or_init(|| tracing::Dispatch::new(Recorder(Arc::default())));
    tracing::subscriber::with_default(subscriber, act)
}

/// The lines that threads outside of [`logged`] log from now on. May be called once in a process.
pub fn log_of_other_threads() -> Arc<Mutex<Vec<String>>> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    tracing::subscriber::set_global_default(Recorder(Arc::clone(&lines))).expect("asked for once");
    lines
}

struct Recorder(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Recorder {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = String::new();
        event.record(&mut |field: &tracing::field::Field, value: &dyn Debug| {
            line.push_str(&format!("{field}={value:?} "));
        });
        self.0.lock().expect("no test panics under the lock").push(line);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}
