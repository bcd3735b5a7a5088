//! The command line.

use std::error::Error;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand as ClapSubcommand};
use ropewalk::logging::{LogFormat, LogLevel};

/// Networking on the command line, on Ropewalk's reactor.
#[derive(Debug, Parser)]
#[command(name = "ropewalk", version, about, arg_required_else_help = true, after_help = EXIT_CODES)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) command: Subcommand,
    #[command(flatten)]
    pub(crate) log: LogOptions,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  success; a server that was told to stop has closed its connections
  1  failure: no connection, no port, an error while running
  2  wrong usage, such as a description with an error
  128 plus the number of a signal that ended `connect` or `top`

Descriptions of endpoints:
  tcp:8888, tcp:8888:interface=127.0.0.1, unix:/run/a.sock, tls:certificates:8443  for servers
  tcp:localhost:8888, unix:/run/a.sock, tls:example.org:443                        for clients
`ropewalk describe DESCRIPTION` explains one.";

#[derive(Debug, ClapSubcommand)]
pub(crate) enum Subcommand {
    /// Send back all received bytes (RFC 862)
    #[command(after_help = "Example:\n  ropewalk echo tcp:7007 unix:/tmp/echo.sock")]
    Echo(ServerOptions),
    /// Drop all received bytes (RFC 863)
    #[command(after_help = "Example:\n  ropewalk discard tcp:9009:interface=127.0.0.1")]
    Discard(ServerOptions),
    /// Send lines of characters, as fast as the peer reads (RFC 864)
    #[command(after_help = "Example:\n  ropewalk chargen tcp:1919 --status /tmp/chargen.sock")]
    Chargen(ServerOptions),
    /// Send the time as four bytes, and close (RFC 868)
    #[command(after_help = "Example:\n  ropewalk time tcp:3737")]
    Time(ServerOptions),
    /// Join each connection of a server endpoint to a connection of a client endpoint
    #[command(after_help = FORWARD_HELP)]
    Forward(ForwardOptions),
    /// Join standard input and output to a connection
    #[command(after_help = CONNECT_HELP)]
    Connect(ConnectOptions),
    /// Explain the description of an endpoint, or show where it is wrong
    #[command(
        after_help = "Examples:\n  ropewalk describe tcp:8888:backlog=128\n  ropewalk describe --client tls:example.org:443"
    )]
    Describe(DescribeOptions),
    /// Show the connections of a running reactor
    #[command(after_help = TOP_HELP)]
    Top(TopOptions),
}

const FORWARD_HELP: &str = "\
Both directions pass on ends of the write direction, and neither reads faster than the other side
takes the bytes. Options of SERVER go further: `ropewalk describe --server SERVER` lists them.

Examples:
  ropewalk forward tcp:8000 tcp:localhost:8888
  ropewalk forward tls:/etc/certificates:443 unix:/run/app.sock --timeout 60 --limit 1000
  ropewalk forward haproxy:tcp:8000 tcp:localhost:8888 --proxy-header 2";

const CONNECT_HELP: &str = "\
The end of standard input ends the connection's write direction. The command ends when the peer has
ended the connection and all its bytes are written.

Examples:
  printf 'GET / HTTP/1.0\\r\\n\\r\\n' | ropewalk connect tcp:localhost:8080
  ropewalk connect tls:example.org:443
  ropewalk connect unix:/run/a.sock < request > answer";

const TOP_HELP: &str = "\
SOCKET is the UNIX socket of a program that runs a StatusService, or of a server of this command
that was started with --status.

Examples:
  ropewalk top /tmp/echo-status.sock
  ropewalk top --once --json /tmp/echo-status.sock";

/// The options of every server.
#[derive(Debug, Args)]
pub(crate) struct ServerOptions {
    /// Descriptions of the server endpoints to listen on
    #[arg(required = true, value_name = "DESCRIPTION")]
    pub(crate) descriptions: Vec<String>,
    #[command(flatten)]
    pub(crate) serving: ServingOptions,
}

/// The options of every command that listens.
#[derive(Debug, Args)]
pub(crate) struct ServingOptions {
    /// Time that a stop waits for connections, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub(crate) drain: Duration,
    /// A UNIX socket on which `ropewalk top` sees the server
    #[arg(long, value_name = "SOCKET")]
    pub(crate) status: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ForwardOptions {
    /// Description of the server endpoint to listen on
    #[arg(value_name = "SERVER")]
    pub(crate) server: String,
    /// Description of the client endpoint to connect to
    #[arg(value_name = "CLIENT")]
    pub(crate) client: String,
    /// Bytes a second of each connection, in each direction
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) throttle: Option<u64>,
    /// Connections at a time; others are closed at once
    #[arg(long, value_name = "CONNECTIONS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: Option<u32>,
    /// Close a connection without a byte in either direction for so long, in seconds
    #[arg(long, value_name = "SECONDS", value_parser = timeout)]
    pub(crate) timeout: Option<Duration>,
    /// Begin each connection to CLIENT with a PROXY header of this version, which names the client
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(u8).range(1..=2))]
    pub(crate) proxy_header: Option<u8>,
    #[command(flatten)]
    pub(crate) serving: ServingOptions,
}

#[derive(Debug, Args)]
pub(crate) struct ConnectOptions {
    /// Description of the client endpoint to connect to
    #[arg(value_name = "DESCRIPTION")]
    pub(crate) description: String,
}

#[derive(Debug, Args)]
pub(crate) struct DescribeOptions {
    /// The description
    #[arg(value_name = "DESCRIPTION")]
    pub(crate) description: String,
    /// Read it as the description of a client
    #[arg(long, conflicts_with = "server")]
    pub(crate) client: bool,
    /// Read it as the description of a server
    #[arg(long)]
    pub(crate) server: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TopOptions {
    /// The UNIX socket of the reactor's status
    #[arg(value_name = "SOCKET")]
    pub(crate) socket: PathBuf,
    /// Show the present state, and end
    #[arg(long)]
    pub(crate) once: bool,
    /// Write the snapshots as they come: one line of JSON each
    #[arg(long)]
    pub(crate) json: bool,
    /// Time between two views, in seconds, from 0.1 to 86400
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    pub(crate) interval: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct LogOptions {
    /// The least level of the log's events, which go to standard error
    #[arg(long = "log", value_name = "LEVEL", default_value = "warn", global = true, value_parser = named(LogLevel::ALL, LogLevel::name))]
    pub(crate) level: LogLevel,
    /// The format of the log
    #[arg(long = "log-format", value_name = "FORMAT", default_value = "text", global = true, value_parser = named(LogFormat::ALL, LogFormat::name))]
    pub(crate) format: LogFormat,
}

/// Reads one of these values by its name.
fn named<T, const N: usize>(values: [T; N], name: fn(T) -> &'static str) -> impl TypedValueParser<Value = T>
where
    T: Copy + FromStr<Err: Error + Send + Sync + 'static> + Send + Sync + 'static,
{
    PossibleValuesParser::new(values.map(name)).try_map(|text| text.parse::<T>())
}

/// Reads a number of seconds, with or without a fraction.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    // A larger number has no end that a person sees.
    seconds.filter(|seconds| *seconds <= LONGEST).ok_or_else(|| "expected seconds, such as 10 or 0.5".to_owned())
}

/// Reads a time that is not zero.
fn timeout(text: &str) -> Result<Duration, String> {
    seconds(text)
        .ok()
        .filter(|seconds| !seconds.is_zero())
        .ok_or_else(|| "expected seconds above 0, such as 60 or 0.5".to_owned())
}

/// Reads an interval that the status service takes.
fn interval(text: &str) -> Result<Duration, String> {
    let shortest = Duration::from_millis(100);
    seconds(text)
        .ok()
        .filter(|seconds| *seconds >= shortest)
        .ok_or_else(|| "expected seconds from 0.1 to 86400".to_owned())
}

const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Options::command().debug_assert();
    }

    #[test]
    fn seconds_are_bounded() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for text in ["", "-1", "inf", "NaN", "86401", "1s"] {
            assert!(seconds(text).is_err(), "{text}");
        }
        assert!(timeout("0.1").is_ok() && timeout("0").is_err());
        assert!(interval("0.1").is_ok() && interval("0").is_err() && interval("0.09").is_err());
    }
}
