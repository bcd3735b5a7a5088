//! The endpoint of a child process (Twisted: `ProcessEndpoint`).

use std::fmt;
use std::rc::Rc;

use super::ClientEndpoint;
use super::arguments::{Argument, Arguments};
use super::description::{Description, Field};
use super::description_error::DescriptionError;
use crate::deferred::Deferred;
use crate::process::{Command, ProcessTransport, StandardErrorBehavior};
use crate::protocol::{AnyConnection, BoxedFactory};
use crate::reactor::{OnStart, ProcessConnect, Reactor};
use crate::transport::QueueLimit;

/// The type of the description.
const KIND: &str = "process";

/// The prefix of an argument that is a variable of the environment: `env.LC_ALL=C`.
const VARIABLE: &str = "env.";

/// Arguments that are given by name only. The last stands for all variables in texts of errors.
const NAMES: [&str; 8] = ["directory", "uid", "gid", "clearEnv", "stderr", "queueLimit", "atQueueLimit", "env.NAME"];

/// Starts a process, and connects to its standard input and output (Twisted: `ProcessEndpoint`).
///
/// Written bytes are the input of the process, received bytes are its output. The connection ends
/// when the process has exited and its output was read, as in Twisted: cleanly after exit code 0,
/// otherwise with [`ProcessTerminated`](crate::error::ProcessTerminated). Bytes that the process
/// does not read are dropped. `lose_write_connection` ends its input.
///
/// `lose_connection` closes both pipes once all bytes are written, and does not end the process:
/// most programs end when their input does. [`on_start`](Self::on_start) is handed the process, for
/// signals. A `connect` fails with a [`SpawnError`](crate::error::SpawnError) if the program does
/// not start. Both addresses of the connection are [`Address::Pipe`](crate::Address::Pipe).
///
/// ```
/// use ropewalk::endpoints::{ProcessEndpoint, connect_protocol};
/// use ropewalk::process::{Command, StandardErrorBehavior};
/// use ropewalk::{Failure, Protocol, Reactor, Result, Transport};
///
/// struct Sorted(Reactor, Vec<u8>);
///
/// impl Protocol for Sorted {
///     fn connection_made(&mut self, transport: &Transport) -> Result<()> {
///         transport.write(b"b\na\n");
///         transport.lose_write_connection();
///         Ok(())
///     }
///
///     fn data_received(&mut self, _: &Transport, data: &[u8]) -> Result<()> {
///         self.1.extend_from_slice(data);
///         Ok(())
///     }
///
///     fn connection_lost(&mut self, _: &Transport, _: &Failure) {
///         assert_eq!(self.1, b"a\nb\n");
///         let _ = self.0.stop();
///     }
/// }
///
/// # fn main() -> Result<()> {
/// let reactor = Reactor::new()?;
/// let endpoint = ProcessEndpoint::new(&reactor, Command::new("sort")).standard_error(StandardErrorBehavior::Inherit);
/// connect_protocol(&endpoint, Sorted(reactor.clone(), Vec::new())).or_log("sorting");
/// reactor.run()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ProcessEndpoint {
    reactor: Reactor,
    command: Command,
    standard_error: StandardErrorBehavior,
    queue_limit: Option<QueueLimit>,
    started: Option<OnStart>,
}

impl ProcessEndpoint {
    /// Creates the endpoint of a command. Its descriptors 0, 1 and 2 are those of the connection.
    /// One with a [terminal](Command::terminal) is refused when it starts.
    pub fn new(reactor: &Reactor, command: Command) -> Self {
        let standard_error = StandardErrorBehavior::Log;
        Self { reactor: reactor.clone(), command, standard_error, queue_limit: None, started: None }
    }

    /// Sets the use of the standard error (Twisted: `errFlag`). By default it is logged.
    pub fn standard_error(mut self, behavior: StandardErrorBehavior) -> Self {
        self.standard_error = behavior;
        self
    }

    /// Limits the queue of bytes that the process has not read yet.
    pub fn queue_limit(mut self, limit: QueueLimit) -> Self {
        self.queue_limit = Some(limit);
        self
    }

    /// Calls `call` with each process that was started, before `connection_made`. (In Twisted, the
    /// transport of the protocol has the methods of a process.)
    ///
    /// ```
    /// use ropewalk::endpoints::ProcessEndpoint;
    /// use ropewalk::process::Command;
    ///
    /// # fn main() -> ropewalk::Result<()> {
    /// # let reactor = ropewalk::Reactor::new()?;
    /// let endpoint = ProcessEndpoint::new(&reactor, Command::new("cat"));
    /// let endpoint = endpoint.on_start(|process| println!("{} runs", process.pid()));
    /// # drop(endpoint);
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_start(mut self, call: impl Fn(&ProcessTransport) + 'static) -> Self {
        self.started = Some(Rc::new(call));
        self
    }
}

impl ClientEndpoint for ProcessEndpoint {
    fn connect_boxed(&self, factory: BoxedFactory) -> Deferred<AnyConnection> {
        let start = ProcessConnect {
            command: self.command.clone(),
            standard_error: self.standard_error,
            queue_limit: self.queue_limit,
            started: self.started.clone(),
        };
        self.reactor.connect_process_boxed(start, factory)
    }
}

impl fmt::Debug for ProcessEndpoint {
    /// Shows the command without its environment, which may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessEndpoint")
            .field("command", &self.command)
            .field("standard_error", &self.standard_error)
            .finish_non_exhaustive()
    }
}

/// Creates the endpoint of `process:program[:argument..]`, with options by name. A variable of the
/// environment is an option, too: `env.LC_ALL=C`.
pub(super) fn client(
    reactor: &Reactor,
    description: &Description,
) -> Result<Box<dyn ClientEndpoint>, DescriptionError> {
    let mut unnamed = description.fields().iter().filter(|field| field.name().is_none());
    let program = unnamed.next();
    let named = description.fields().iter().filter(|field| field.name().is_some() && variable(field).is_none());
    let arguments = Arguments::of_fields(description, program.into_iter().chain(named), KIND, &["program"], &NAMES)?;
    let program = arguments.required("program", |program| match program.value() {
        "" => Err(program.invalid("the name or the path of a program")),
        program => Ok(program),
    })?;
    let mut command = Command::new(program);
    command.args(unnamed.map(Field::value));
    if arguments.optional("clearEnv", Argument::flag)?.unwrap_or(false) {
        command.env_clear();
    }
    for (name, field) in description.fields().iter().filter_map(|field| Some((variable(field)?, field))) {
        if name.is_empty() {
            return Err(arguments.unusable(format!("{VARIABLE} is followed by the name of a variable")));
        }
        command.env(name, field.value());
    }
    if let Some(directory) = arguments.optional("directory", |directory| Ok(directory.value()))? {
        command.current_dir(directory);
    }
    if let Some(uid) = arguments.optional("uid", |uid| uid.number(0..=u32::MAX - 1))? {
        command.uid(uid);
    }
    if let Some(gid) = arguments.optional("gid", |gid| gid.number(0..=u32::MAX - 1))? {
        command.gid(gid);
    }
    let standard_error = arguments.optional("stderr", standard_error)?.unwrap_or_default();
    let mut endpoint = ProcessEndpoint::new(reactor, command).standard_error(standard_error);
    endpoint.queue_limit = arguments.queue_limit()?;
    Ok(Box::new(endpoint))
}

/// Returns the name of the variable, if the field is one.
fn variable(field: &Field) -> Option<&str> {
    field.name()?.strip_prefix(VARIABLE)
}

fn standard_error(argument: Argument<'_>) -> Result<StandardErrorBehavior, DescriptionError> {
    match argument.value() {
        "log" => Ok(StandardErrorBehavior::Log),
        "drop" => Ok(StandardErrorBehavior::Drop),
        "inherit" => Ok(StandardErrorBehavior::Inherit),
        _ => Err(argument.invalid("log, drop or inherit")),
    }
}
