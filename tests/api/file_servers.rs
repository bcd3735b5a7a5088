//! The folders of the file servers' tests, and the servers: an example, and the same program on
//! Twisted.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::{FileExt, symlink};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use super::running::{Running, TERMINATED};
use super::twisted_programs::has_twisted;

/// Any port of the loopback interface, as a description.
pub(crate) const ENDPOINT: &str = "tcp:0:interface=127.0.0.1";

/// A folder that is removed with the test. It holds `served`, and a secret beside it.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("ropewalk-{}-{name}", std::process::id()));
        let served = folder.join("served");
        fs::create_dir_all(served.join("sub")).expect("a folder");
        fs::write(folder.join("secret"), "secret\n").expect("a file");
        for (name, text) in [
            ("small", "small\n"),
            ("empty", ""),
            ("index.html", "<p>front\n"),
            ("sub/index.html", "<p>sub\n"),
            ("sub/page", "page\n"),
            ("a file.txt", "spaces\n"),
        ] {
            fs::write(served.join(name), text).expect("a file");
        }
        symlink("../secret", served.join("outside")).expect("a link");
        symlink("sub/page", served.join("inside")).expect("a link");
        // A server that opens it hangs until there is a writer.
        rustix::fs::mkfifoat(rustix::fs::CWD, served.join("fifo"), rustix::fs::Mode::RWXU).expect("a FIFO");
        Self(folder)
    }

    pub(crate) fn served(&self) -> PathBuf {
        self.0.join("served")
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("text").to_owned()
    }

    /// Makes a file with holes. No two pieces of 64 KiB are the same.
    pub(crate) fn add_large(&self, name: &str, bytes: u64) {
        let file = File::create(self.served().join(name)).expect("a file");
        file.set_len(bytes).expect("its length");
        for start in (0..bytes.saturating_sub(8)).step_by(64 * 1024) {
            file.write_all_at(&start.to_be_bytes(), start).expect("a stamp");
        }
    }

    /// Starts the example as a server of this folder.
    pub(crate) fn example(&self, name: &str, arguments: &[&str]) -> Server {
        Server::new(Running::start(name, &[&[&*self.path("served")], arguments].concat()), false)
    }

    /// Starts the example, and the program on Twisted if Python has it, as servers of this folder.
    pub(crate) fn servers(&self, name: &str, arguments: &[&str]) -> Vec<Server> {
        let mut servers = vec![self.example(name, arguments)];
        if has_twisted("twisted") {
            let mut command = Command::new("python3");
            command.arg(format!("{}/docs/programs/{name}.py", env!("CARGO_MANIFEST_DIR")));
            command.arg(self.path("served")).args(arguments);
            servers.push(Server::new(Running::of(command, Stdio::null()), true));
        }
        servers
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A test that failed may have left it in any state.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A server that listens.
pub(crate) struct Server {
    pub(crate) program: Running,
    pub(crate) address: SocketAddr,
    pub(crate) is_on_twisted: bool,
}

impl Server {
    /// Reads the port at the end of the line that says where a program listens.
    fn new(program: Running, is_on_twisted: bool) -> Self {
        let line = program.line();
        let port = line.trim_end_matches(')').rsplit([':', '=']).next().and_then(|port| port.parse().ok());
        Self { program, address: SocketAddr::from(([127, 0, 0, 1], port.expect(&line))), is_on_twisted }
    }

    /// Stops the program by SIGTERM. Returns its complaints.
    #[track_caller]
    pub(crate) fn end(self) -> String {
        self.program.signal(Signal::TERM);
        self.ends()
    }

    /// Waits for the end of a program that was told to stop. Returns its complaints.
    #[track_caller]
    pub(crate) fn ends(self) -> String {
        let (status, _, errors) = self.program.end();
        assert!(self.is_on_twisted || status.code() == Some(TERMINATED), "{status}: {errors}");
        errors
    }
}
