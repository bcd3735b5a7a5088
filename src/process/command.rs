//! [`Command`]: the program of a child process, and its surroundings.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A program to start, in the manner of [`std::process::Command`] (Twisted: the arguments of
/// `spawnProcess`). It can be used many times.
///
/// | setting | default |
/// |---|---|
/// | environment | that of this process (Twisted: empty) |
/// | working directory, user, session | those of this process |
/// | descriptor 0, standard input | a pipe that is written to |
/// | descriptors 1 and 2, output and error | pipes that are read |
/// | every other descriptor | closed |
/// | signal mask, ignored signals | nothing is blocked or ignored |
///
/// ```
/// use ropewalk::process::{ChildDescriptor, Command};
///
/// let mut command = Command::new("sort");
/// command.args(["-r", "-u"]).env("LC_ALL", "C").current_dir("/").descriptor(2, ChildDescriptor::Null);
/// assert_eq!(command.program(), "sort");
/// ```
#[derive(Clone)]
pub struct Command(Settings);

/// The settings of a [`Command`].
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) program: OsString,
    pub(crate) arg0: Option<OsString>,
    pub(crate) args: Vec<OsString>,
    pub(crate) is_env_cleared: bool,
    /// Changes of the environment. `None` removes a variable.
    pub(crate) env: BTreeMap<OsString, Option<OsString>>,
    pub(crate) directory: Option<PathBuf>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) descriptors: BTreeMap<i32, ChildDescriptor>,
    pub(crate) terminal: Option<WindowSize>,
    pub(crate) is_session: bool,
    pub(crate) group: Option<i32>,
    pub(crate) pipe_grace: Option<Duration>,
}

/// The size of a terminal, in characters and in pixels.
///
/// ```
/// use ropewalk::process::{Command, WindowSize};
///
/// Command::new("top").terminal(WindowSize::new(24, 80));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowSize {
    /// Number of lines.
    pub rows: u16,
    /// Number of characters in a line.
    pub columns: u16,
    /// Width in pixels. 0 if it is not known.
    pub width_pixels: u16,
    /// Height in pixels. 0 if it is not known.
    pub height_pixels: u16,
}

impl WindowSize {
    /// Makes a size in characters.
    pub fn new(rows: u16, columns: u16) -> Self {
        Self { rows, columns, width_pixels: 0, height_pixels: 0 }
    }
}

/// The object behind a descriptor of the child, for [`Command::descriptor`] (Twisted: the values of
/// `childFDs`: `"w"`, `"r"` or a number).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ChildDescriptor {
    /// A pipe that the program writes to, and the child reads (Twisted: `"w"`).
    Write,
    /// A pipe that the child writes to, and the program reads (Twisted: `"r"`).
    Read,
    /// The null device: no input, and output is dropped.
    Null,
    /// A descriptor of this process, which the child shares: [`ChildDescriptor::share`].
    Shared(Arc<OwnedFd>),
    /// The descriptor of this process with this number, such as 2 for its own standard error
    /// (Twisted: a number).
    Number(i32),
    /// Nothing: the descriptor is closed in the child.
    Closed,
}

impl ChildDescriptor {
    /// Lets the child share a file, a socket or any other descriptor of this process.
    ///
    /// ```
    /// use ropewalk::process::{ChildDescriptor, Command};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let null = std::fs::File::open("/dev/null")?;
    /// Command::new("wc").descriptor(0, ChildDescriptor::share(null));
    /// # Ok(())
    /// # }
    /// ```
    pub fn share(descriptor: impl Into<OwnedFd>) -> Self {
        Self::Shared(Arc::new(descriptor.into()))
    }
}

impl Command {
    /// Makes a command without arguments. A program without a slash is searched for in the
    /// directories of `PATH`: that of the child's environment if it is set there, or else of this
    /// process.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let descriptors = [(0, ChildDescriptor::Write), (1, ChildDescriptor::Read), (2, ChildDescriptor::Read)];
        Self(Settings {
            program: program.as_ref().to_owned(),
            arg0: None,
            args: Vec::new(),
            is_env_cleared: false,
            env: BTreeMap::new(),
            directory: None,
            uid: None,
            gid: None,
            descriptors: descriptors.into(),
            terminal: None,
            is_session: false,
            group: None,
            pipe_grace: None,
        })
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.0
    }

    /// Returns the program.
    pub fn program(&self) -> &OsStr {
        &self.0.program
    }

    /// Adds an argument.
    pub fn arg(&mut self, arg: impl AsRef<OsStr>) -> &mut Self {
        self.0.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args<T: AsRef<OsStr>>(&mut self, args: impl IntoIterator<Item = T>) -> &mut Self {
        self.0.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets the name that the program sees as its own, its argument 0 (Twisted: `args[0]`). The
    /// default is the program.
    pub fn arg0(&mut self, name: impl AsRef<OsStr>) -> &mut Self {
        self.0.arg0 = Some(name.as_ref().to_owned());
        self
    }

    /// Sets a variable of the environment.
    pub fn env(&mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Self {
        self.0.env.insert(name.as_ref().to_owned(), Some(value.as_ref().to_owned()));
        self
    }

    /// Removes a variable from the environment.
    pub fn env_remove(&mut self, name: impl AsRef<OsStr>) -> &mut Self {
        self.0.env.insert(name.as_ref().to_owned(), None);
        self
    }

    /// Empties the environment, as it is by default in Twisted. Variables that are set later stay.
    pub fn env_clear(&mut self) -> &mut Self {
        self.0.is_env_cleared = true;
        self.0.env.clear();
        self
    }

    /// Sets the working directory (Twisted: `path`). A relative program is looked up from there.
    pub fn current_dir(&mut self, directory: impl Into<PathBuf>) -> &mut Self {
        self.0.directory = Some(directory.into());
        self
    }

    /// Sets the user by number (Twisted: `uid`). If this process is root's, the child has no
    /// supplementary groups: they are dropped first, then the [group](Self::gid) is set, and the
    /// user last. The group stays that of this process unless it is set.
    pub fn uid(&mut self, uid: u32) -> &mut Self {
        self.0.uid = Some(uid);
        self
    }

    /// Sets the group by number (Twisted: `gid`). If this process is root's, the child has no
    /// supplementary groups.
    pub fn gid(&mut self, gid: u32) -> &mut Self {
        self.0.gid = Some(gid);
        self
    }

    /// Sets the object behind a descriptor of the child (Twisted: `childFDs`). Other descriptors
    /// stay as they are in this command. A negative number makes the start fail with
    /// [`SpawnStep::Descriptors`](crate::error::SpawnStep::Descriptors).
    pub fn descriptor(&mut self, number: i32, descriptor: ChildDescriptor) -> &mut Self {
        self.0.descriptors.insert(number, descriptor);
        self
    }

    /// Runs the program in a new terminal (Twisted: `usePTY`), as the leader of a session. The
    /// terminal takes the place of descriptors 0, 1 and 2, whatever was set for them.
    ///
    /// All output is reported as that of descriptor 1. Input goes to descriptor 0, and is echoed as
    /// the terminal's modes say. Closing 0, 1 or 2 closes the terminal, which hangs up: SIGHUP. To
    /// end the input only, write byte 4.
    pub fn terminal(&mut self, size: WindowSize) -> &mut Self {
        self.0.terminal = Some(size);
        self
    }

    /// Starts the program as the leader of a new session, without a terminal (`setsid`).
    pub fn new_session(&mut self) -> &mut Self {
        self.0.is_session = true;
        self
    }

    /// Starts the program in this process group. 0 makes a new one, which has the number of the
    /// process. A [new session](Self::new_session) has a new group anyway.
    pub fn process_group(&mut self, group: i32) -> &mut Self {
        self.0.group = Some(group);
        self
    }

    /// Closes pipes that are still open this long after the exit, because a child of the child
    /// holds them. The output that is in a pipe by then is delivered first; if the pipe is paused,
    /// for up to a second. The default is to wait for ever, as Twisted does.
    pub fn pipe_grace(&mut self, grace: Duration) -> &mut Self {
        self.0.pipe_grace = Some(grace);
        self
    }
}

impl fmt::Debug for Command {
    /// Shows the program and its arguments, and none of the environment, which may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command").field("program", &self.0.program).field("args", &self.0.args).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The log of a program shows commands, and must not show passwords.
    #[test]
    fn the_environment_is_not_shown() {
        let mut command = Command::new("psql");
        command.arg("-l").env("PGPASSWORD", "secret");
        assert_eq!(format!("{command:?}"), r#"Command { program: "psql", args: ["-l"], .. }"#);
    }

    #[test]
    fn a_cleared_environment_has_later_variables_only() {
        let mut command = Command::new("env");
        command.env("A", "1").env_clear().env("B", "2").env_remove("C");
        let names: Vec<_> = command.settings().env.keys().collect();
        assert_eq!(names, ["B", "C"]);
        assert!(command.settings().is_env_cleared);
    }
}
