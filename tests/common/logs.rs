//! Lines that a part of a program logs.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, OnceLock};

/// Calls `act`. Returns its result, and the warnings and errors that this thread logged meanwhile,
/// one line each.
pub fn logged<T>(act: impl FnOnce() -> T) -> (T, Vec<String>) {
    recorded(is_warning, act)
}

fn is_warning(event: &tracing::Metadata<'_>) -> bool {
    *event.level() <= tracing::Level::WARN
}

/// Calls `act`. Returns its result, and the events among the `wanted` ones that this thread emitted
/// meanwhile, one line each.
///
/// While no subscriber exists, `tracing` caches each place of an event that it meets as of no
/// interest. Another test may meet one at the moment in which this subscriber comes, and the place
/// would stay so. So one subscriber exists from the first call on.
pub fn recorded<T>(wanted: fn(&tracing::Metadata<'_>) -> bool, act: impl FnOnce() -> T) -> (T, Vec<String>) {
    static ALWAYS: OnceLock<tracing::Dispatch> = OnceLock::new();
    ALWAYS.get_or_init(|| tracing::Dispatch::new(Recorder { wanted: |_| false, lines: Arc::default() }));
    let lines = Arc::<Mutex<Vec<String>>>::default();
    let result = tracing::subscriber::with_default(Recorder { wanted, lines: Arc::clone(&lines) }, act);
    let lines = lines.lock().expect("no test panics under the lock").clone();
    (result, lines)
}

/// The lines that threads outside of [`logged`] log from now on. May be called once in a process.
pub fn log_of_other_threads() -> Arc<Mutex<Vec<String>>> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    tracing::subscriber::set_global_default(Recorder { wanted: is_warning, lines: Arc::clone(&lines) })
        .expect("asked for once");
    lines
}

struct Recorder {
    wanted: fn(&tracing::Metadata<'_>) -> bool,
    lines: Arc<Mutex<Vec<String>>>,
}

impl tracing::Subscriber for Recorder {
    /// The answer of `enabled` is not cached, so that it is asked for each event.
    fn register_callsite(&self, _: &'static tracing::Metadata<'static>) -> tracing::subscriber::Interest {
        tracing::subscriber::Interest::sometimes()
    }

    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        (self.wanted)(metadata)
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
        self.lines.lock().expect("no test panics under the lock").push(line);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}
