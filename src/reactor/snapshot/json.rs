//! The text of a [`Snapshot`] for programs: one line of JSON.

use std::fmt::{self, Display, Write as _};
use std::time::Duration;

use super::{ConnectionSnapshot, LongestCallback, PortSnapshot, Snapshot};
use crate::reactor::ThreadPoolStatistics;

/// Number of the format. A field may be added without a new number. A field that changes its
/// meaning, or is gone, has one.
const FORMAT: u32 = 1;

impl Snapshot {
    /// Returns the snapshot as one object of JSON, in one line without its end.
    ///
    /// Durations are seconds, as numbers with up to nine decimals. An unknown value is `null`. The
    /// field `format` is 1.
    ///
    /// ```
    /// # fn main() -> ropewalk::Result<()> {
    /// let json = ropewalk::Reactor::new()?.snapshot().to_json();
    /// assert!(json.starts_with(r#"{"format":1,"time":"#));
    /// assert!(json.ends_with(r#""ports":[],"connections":[]}"#));
    /// # Ok(())
    /// # }
    /// ```
    pub fn to_json(&self) -> String {
        let counters = &self.counters;
        let mut json = Object::new();
        json.raw("format", FORMAT);
        json.seconds("time", Some(self.time));
        json.text("backend", self.backend.name());
        json.raw("running", self.is_running);
        json.seconds("observed", self.observed);
        json.optional("received", self.received_bytes);
        json.optional("written", self.written_bytes);
        json.raw("turns", counters.turns);
        json.raw("accepted", counters.accepted);
        json.raw("shed", counters.shed);
        json.raw("accept_failures", counters.accept_failures);
        json.raw("stale_events", counters.stale_events);
        json.seconds("longest_lateness", Some(counters.longest_lateness));
        json.raw("messages_waiting", counters.messages_waiting);
        json.raw("connecting", self.connecting);
        json.raw("lingering", self.lingering);
        json.raw("descriptors", self.descriptors);
        json.raw("datagram_ports", self.datagram_ports);
        let mut timers = Object::new();
        timers.raw("pending", self.timers.pending);
        timers.seconds("next_due", self.timers.next_due);
        json.raw("timers", timers.end());
        json.raw("jobs", load(&self.jobs));
        json.raw("lookups", load(&self.lookups));
        json.raw("pools", list(&self.pools, load));
        json.optional("longest_callback", self.longest_callback.map(longest));
        json.raw("ports", list(&self.ports, port));
        json.raw("connections", list(&self.connections, connection));
        json.end()
    }
}

fn load(load: &ThreadPoolStatistics) -> String {
    let mut json = Object::new();
    json.raw("idle", load.idle);
    json.raw("working", load.working);
    json.raw("queued", load.queued);
    json.end()
}

fn longest(longest: LongestCallback) -> String {
    let mut json = Object::new();
    json.seconds("took", Some(longest.took));
    json.seconds("ended_at", Some(longest.ended_at));
    json.text("callback", longest.callback);
    json.optional_text("connection", longest.connection);
    json.end()
}

fn port(port: &PortSnapshot) -> String {
    let mut json = Object::new();
    json.text("id", port.id);
    json.text("host", &port.host);
    json.raw("accepted", port.accepted);
    json.optional("descriptor", port.descriptor);
    json.end()
}

fn connection(connection: &ConnectionSnapshot) -> String {
    let mut json = Object::new();
    json.text("id", connection.id);
    json.text("host", &connection.host);
    json.text("peer", &connection.peer);
    json.text("protocol", connection.protocol);
    json.raw("client", connection.is_client);
    json.text("state", connection.state.name());
    json.raw("paused", connection.is_paused);
    json.raw("layers", connection.layers);
    json.raw("queued", connection.queued_bytes);
    json.optional("descriptor", connection.descriptor);
    json.seconds("age", connection.age);
    json.optional("received", connection.received_bytes);
    json.optional("written", connection.written_bytes);
    json.seconds("busy", connection.busy);
    json.end()
}

fn list<T>(items: &[T], show: impl Fn(&T) -> String) -> String {
    format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(","))
}

/// An object that is being written.
struct Object(String);

impl Object {
    fn new() -> Self {
        Self("{".to_owned())
    }

    /// Adds a field whose text is JSON as it stands: a number, a boolean, a list, an object.
    fn raw(&mut self, name: &str, value: impl Display) {
        self.optional(name, Some(value));
    }

    fn optional(&mut self, name: &str, value: Option<impl Display>) {
        let comma = if self.0.len() > 1 { "," } else { "" };
        let written = match value {
            Some(value) => write!(self.0, "{comma}\"{name}\":{value}"),
            None => write!(self.0, "{comma}\"{name}\":null"),
        };
        debug_assert!(written.is_ok(), "a string takes any text");
    }

    fn seconds(&mut self, name: &str, value: Option<Duration>) {
        self.optional(name, value.map(|value| format!("{}.{:09}", value.as_secs(), value.subsec_nanos())));
    }

    fn text(&mut self, name: &str, value: impl Display) {
        self.optional_text(name, Some(value));
    }

    fn optional_text(&mut self, name: &str, value: Option<impl Display>) {
        self.optional(name, value.map(|value| Text(value.to_string())));
    }

    fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

/// A string of JSON.
struct Text(String);

impl Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for char in self.0.chars() {
            match char {
                '"' | '\\' => write!(f, "\\{char}")?,
                // Line separators end a line in some readers.
                '\0'..' ' | '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' => write!(f, "\\u{:04x}", u32::from(char))?,
                _ => f.write_char(char)?,
            }
        }
        f.write_char('"')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path of a socket may hold any character.
    #[test]
    fn texts_are_escaped() {
        let mut json = Object::new();
        json.text("path", "/a\"b\\c\nd\u{2028}é");
        assert_eq!(json.end(), r#"{"path":"/a\"b\\c\u000ad\u2028é"}"#);
    }

    #[test]
    fn seconds_keep_their_nanoseconds() {
        let mut json = Object::new();
        json.seconds("one", Some(Duration::new(1, 5)));
        json.seconds("none", None);
        assert_eq!(json.end(), r#"{"one":1.000000005,"none":null}"#);
    }
}
