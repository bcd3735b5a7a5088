//! `ropewalk describe`: the type of an endpoint's description, and each of its arguments with the
//! given value or the default. An error is shown with carets under its place, and has exit code 2.
//!
//! The endpoint is made, so that its files are read: a certificate that is not there is an error.
//! Nothing listens and nothing connects.

pub(crate) mod pointer;
mod types;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use ropewalk::Reactor;
use ropewalk::endpoints::{
    Description, DescriptionError, DescriptionErrorKind, Field, client_from_string, server_from_string,
};

use self::types::{Argument, CLIENTS, Default, SERVERS, Type};
use crate::options::DescribeOptions;
use crate::program::{self, CommandError};

pub(crate) fn run(options: &DescribeOptions) -> Result<ExitCode, CommandError> {
    let reactor = Reactor::builder().signals(false).build()?;
    let text = &options.description;
    let sides: &[Side] = match (options.server, options.client) {
        (true, _) => &[Side::Server],
        (_, true) => &[Side::Client],
        (false, false) => &[Side::Server, Side::Client],
    };
    let (mut texts, mut wrong) = (Vec::new(), None);
    for side in sides {
        match describe(&reactor, text, *side) {
            Ok(text) => texts.push(text),
            Err(error) => wrong = Some(wrong.map_or(error.clone(), |other| nearer(other, error))),
        }
    }
    reactor.close()?;
    match wrong {
        Some(error) if texts.is_empty() => Err(error.into()),
        _ => program::print(&texts.join("\n")).map(|()| ExitCode::SUCCESS),
    }
}

/// The use of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Server,
    Client,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
        }
    }

    fn types(self) -> &'static [Type] {
        match self {
            Self::Server => SERVERS,
            Self::Client => CLIENTS,
        }
    }
}

/// Returns the error of the side that got further: a type that is for one side only is unknown on
/// the other one, and a wrong value comes behind a missing argument.
fn nearer(server: DescriptionError, client: DescriptionError) -> DescriptionError {
    let is_unknown = |error: &DescriptionError| matches!(error.kind(), DescriptionErrorKind::UnknownType { .. });
    let is_client = is_unknown(&server) || (!is_unknown(&client) && client.position() > server.position());
    if is_client { client } else { server }
}

/// Explains a description, or says where it is wrong.
fn describe(reactor: &Reactor, text: &str, side: Side) -> Result<String, DescriptionError> {
    match side {
        Side::Server => drop(server_from_string(reactor, text)?),
        Side::Client => drop(client_from_string(reactor, text)?),
    }
    let description = Description::parse(text)?;
    let kind = description.kind();
    let mut shown = format!("{kind} ({}): ", side.name());
    let Some(described) = side.types().iter().find(|known| known.kind == kind) else {
        // A type that the engine knows and this table does not.
        shown.push_str("there is no explanation of this type\n");
        return Ok(shown);
    };
    shown.push_str(described.summary);
    shown.push('\n');
    let rows = described.arguments().map(|argument| row(described, &description, argument));
    let rows: Vec<_> = rows.chain(program_rows(described, &description)).collect();
    let (names, values) = (widest(&rows, |row| &row.name), widest(&rows, |row| &row.value));
    for row in &rows {
        let line = format!("  {:names$}  {:values$}  {}", row.name, row.value, row.meaning);
        // Writing to a string does not fail.
        let _ = writeln!(shown, "{}", line.trim_end());
        if let Some(file) = &row.file {
            let _ = writeln!(shown, "  {:names$}  {file}", "");
        }
    }
    if let Some(at) = behind_prefix(described, &description) {
        shown.push_str("in front of\n");
        shown.push_str(&describe(reactor, &text[at..], side)?);
    }
    Ok(shown)
}

/// Returns the position of the description behind a prefix, if this is one.
fn behind_prefix(described: &Type, description: &Description) -> Option<usize> {
    if described.kind != PREFIX {
        return None;
    }
    let is_option = |field: &&Field| described.arguments().any(|argument| field.name() == Some(argument.name));
    description.fields().iter().find(|field| !is_option(field)).map(Field::position)
}

/// The type whose description has another one behind it.
const PREFIX: &str = "haproxy";

/// A line about an argument.
struct Row {
    name: String,
    value: String,
    meaning: &'static str,
    /// The file that the value names.
    file: Option<String>,
}

fn row(described: &Type, description: &Description, argument: &Argument) -> Row {
    let given = given(described, description, argument.name);
    let (value, file) = match (given, argument.default) {
        (Some(field), _) => (quoted(field.value()), argument.is_path.then(|| field.value())),
        (None, Default::Value(default)) => (format!("{default} (default)"), argument.is_path.then_some(default)),
        (None, Default::Without(then)) => (format!("- ({then})"), None),
        // The endpoint was made, so it is there.
        (None, Default::Required) => ("-".to_owned(), None),
    };
    Row { name: argument.name.to_owned(), value, meaning: argument.meaning, file: file.map(about_file) }
}

/// The type whose description has the arguments and the variables of a program, in any number.
const PROGRAM: &str = "process";

/// Returns the lines about the arguments and the variables of a program.
fn program_rows(described: &Type, description: &Description) -> Vec<Row> {
    if described.kind != PROGRAM {
        return Vec::new();
    }
    let row = |name: &str, field: &Field, meaning| Row {
        name: name.to_owned(),
        value: quoted(field.value()),
        meaning,
        file: None,
    };
    let unnamed = description.fields().iter().filter(|field| field.name().is_none());
    // The program itself may be given by name.
    let program = usize::from(description.keyword("program").is_none());
    let arguments = unnamed.skip(program).map(|field| row("", field, "an argument of the program"));
    let variables = description.fields().iter().filter_map(|field| {
        let name = field.name().filter(|name| name.starts_with("env."))?;
        Some(row(name, field, "a variable of its environment"))
    });
    arguments.chain(variables).collect()
}

/// Returns the field that gives an argument its value: by its name, or by its position.
fn given<'d>(described: &Type, description: &'d Description, name: &str) -> Option<&'d Field> {
    if let Some(field) = description.keyword(name) {
        return Some(field);
    }
    let mut unnamed = description.fields().iter().filter(|field| field.name().is_none());
    // If a client's host is given by name, a single position is the port.
    let is_port_alone = described.positional.iter().any(|argument| argument.name == "host")
        && description.keyword("host").is_some()
        && unnamed.clone().count() == 1;
    let position = described.positional.iter().position(|argument| argument.name == name)?;
    unnamed.nth(if is_port_alone { position.checked_sub(1)? } else { position })
}

fn quoted(value: &str) -> String {
    let needs_quotes = value.is_empty() || value.contains(|char: char| char.is_whitespace() || char.is_control());
    if needs_quotes { format!("{value:?}") } else { value.to_owned() }
}

/// Says what stands at a path.
fn about_file(path: &str) -> String {
    match fs::metadata(Path::new(path)) {
        Ok(found) if found.is_dir() => format!("{path} is a folder with {} .pem files", pem_files(path)),
        Ok(found) => format!("{path} is a file of {} bytes", found.len()),
        Err(error) => format!("{path}: {error}"),
    }
}

/// Number of the files in a folder whose names end with `.pem`.
fn pem_files(folder: &str) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "pem")).count()
}

fn widest<T: AsRef<str>>(rows: &[Row], cell: impl Fn(&Row) -> &T) -> usize {
    rows.iter().map(|row| cell(row).as_ref().chars().count()).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn reactor() -> Reactor {
        Reactor::builder().signals(false).build().expect("a poller")
    }

    /// The table has each type of the engine, with exactly the arguments that the engine takes, and
    /// those with a position in the same order.
    #[test]
    fn the_table_has_the_engines_types_and_arguments() {
        let reactor = reactor();
        for side in [Side::Server, Side::Client] {
            let error = |text: &str| match side {
                Side::Server => server_from_string(&reactor, text).unwrap_err(),
                Side::Client => client_from_string(&reactor, text).unwrap_err(),
            };
            let DescriptionErrorKind::UnknownType { known, .. } = error("?").kind().clone() else {
                panic!("a type `?`")
            };
            let kinds: BTreeSet<_> = side.types().iter().map(|described| described.kind).collect();
            assert_eq!(kinds, known.iter().map(String::as_str).collect());
            for described in side.types() {
                let kind = described.kind;
                if kind == "stdio" {
                    // It has no arguments: behind its colon stands nothing.
                    continue;
                }
                // Behind a prefix stand the arguments of another type.
                let text = if kind == PREFIX { format!("?=1:{kind}:tcp:1") } else { format!("{kind}:?=1") };
                let DescriptionErrorKind::Unknown { known, .. } = error(&text).kind().clone() else {
                    panic!("{kind} has an argument `?`")
                };
                let names: BTreeSet<_> = described.arguments().map(|argument| argument.name).collect();
                assert_eq!(names, known.into_iter().collect(), "{kind}, {side:?}");
                if kind == PREFIX || kind == PROGRAM {
                    continue;
                }
                let many = format!("{kind}{}", ":1".repeat(20));
                let DescriptionErrorKind::TooMany { positional, .. } = error(&many).kind().clone() else {
                    panic!("{kind} takes 20 positions")
                };
                let order: Vec<_> = described.positional.iter().map(|argument| argument.name).collect();
                assert_eq!(order, positional, "{kind}, {side:?}");
            }
        }
        reactor.close().unwrap();
    }

    #[test]
    fn values_and_defaults_are_shown() {
        let reactor = reactor();
        let shown = describe(&reactor, "tcp:8888:backlog=128", Side::Server).unwrap();
        let line = |name: &str| shown.lines().find(|line| line.trim_start().starts_with(name)).unwrap().to_owned();
        assert!(shown.starts_with("tcp (server): listens on a TCP port"), "{shown}");
        assert!(line("port ").contains(" 8888 "), "{shown}");
        assert!(line("backlog ").contains(" 128 "), "{shown}");
        assert!(line("interface ").contains("0.0.0.0 (all IPv4 interfaces) (default)"), "{shown}");
        assert!(line("queueLimit ").contains("- (no limit)"), "{shown}");
        let client = describe(&reactor, "tcp:80:host=example.org", Side::Client).unwrap();
        assert!(client.contains("  host           example.org"), "{client}");
        assert!(client.contains("  port           80"), "{client}");
        reactor.close().unwrap();
    }

    /// A program is explained with all of its arguments and variables.
    #[test]
    fn programs_are_explained_with_their_arguments() {
        let reactor = reactor();
        let shown = describe(&reactor, "process:sort:-r:a b:env.LC_ALL=C:stderr=drop", Side::Client).unwrap();
        let has = |name: &str, value: &str| {
            shown.lines().any(|line| line.trim_start().starts_with(name) && line.contains(&format!(" {value} ")))
        };
        assert!(has("program ", "sort") && has("-r ", "") && has("\"a b\" ", ""), "{shown}");
        assert!(has("env.LC_ALL ", "C") && has("stderr ", "drop"), "{shown}");
        assert!(describe(&reactor, "stdio:", Side::Server).unwrap().starts_with("stdio (server): serves"));
        reactor.close().unwrap();
    }

    /// A prefix is explained with the description behind it, and an error there has its place.
    #[test]
    fn prefixes_are_explained_with_what_is_behind_them() {
        let reactor = reactor();
        let shown = describe(&reactor, "haproxy:headerTimeout=3:tcp:8888:idleTimeout=60", Side::Server).unwrap();
        assert!(shown.contains("headerTimeout  3 "), "{shown}");
        assert!(shown.contains("in front of\ntcp (server): listens"), "{shown}");
        assert!(shown.lines().any(|line| line.trim_start().starts_with("idleTimeout") && line.contains(" 60 ")));
        let text = "haproxy:tcp:http";
        let error = describe(&reactor, text, Side::Server).unwrap_err();
        assert_eq!(&text[error.range()], "http");
        reactor.close().unwrap();
    }

    #[test]
    fn the_error_of_the_side_that_got_further_is_shown() {
        let reactor = reactor();
        let error = |text: &str| {
            let [server, client] = [Side::Server, Side::Client].map(|side| describe(&reactor, text, side).unwrap_err());
            nearer(server, client).kind().to_string()
        };
        assert!(error("tcp:localhost:http").contains("\"http\" is not a port"), "{}", error("tcp:localhost:http"));
        assert!(error("systemd:domain=INET").contains("exactly one of index and name"));
        assert!(error("tpc:80").contains("\"tpc\" is not a type"));
        reactor.close().unwrap();
    }
}
