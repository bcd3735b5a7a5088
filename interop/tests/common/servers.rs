//! Servers of databases, started for one test in a folder of its own.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;

use rustix::process::{Pid, Signal, getuid, kill_process};

use super::certificates::Folder;
use super::programs::has;

/// The user and the group that PostgreSQL runs as if the test is root's, for which it does not run.
/// Both are called `nobody` on most systems.
const UNPRIVILEGED: u32 = 65_534;

/// Seconds after which a server is ended by itself, if its test could not do so.
const SERVER_LIMIT_SECONDS: &str = "120";

/// A server. Dropped, it ends.
pub struct Server {
    child: Child,
    /// The descriptions of client endpoints: a UNIX socket's, and a TCP port's.
    pub endpoints: [String; 2],
    folder: Folder,
}

impl Server {
    /// Starts PostgreSQL with an empty cluster whose superuser is `ropewalk`. `None` if it is
    /// missing.
    pub fn postgres() -> Option<Self> {
        let Some(programs) = postgres_programs() else {
            assert!(std::env::var_os("CI").is_none(), "PostgreSQL is missing");
            println!("skipped: there is no PostgreSQL");
            return None;
        };
        let folder = Folder::new();
        let home = folder.at("home");
        std::fs::create_dir(&home).expect("a folder");
        if getuid().is_root() {
            std::os::unix::fs::chown(&home, Some(UNPRIVILEGED), Some(UNPRIVILEGED)).expect("root may");
        }
        let mut create = unprivileged(Command::new(programs.join("initdb")), &home);
        create.args([
            "--pgdata=data",
            "--username=ropewalk",
            "--auth=trust",
            "--no-sync",
            "--no-locale",
            "--encoding=UTF8",
        ]);
        let created = create.output().expect("initdb runs");
        assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
        let socket = |port: u16| format!("unix:{home}/.s.PGSQL.{port}");
        let (child, port) = on_a_port("ready to accept connections", |port| {
            // SIGINT closes connections. SIGTERM would wait for them.
            let mut server = unprivileged(Command::new("timeout"), &home);
            server.args(["-s", "INT", SERVER_LIMIT_SECONDS]).arg(programs.join("postgres"));
            server.args(["-D", "data", "-k", &home, "-p", &port.to_string()]);
            server.args(["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]);
            server
        });
        Some(Self { child, endpoints: [socket(port), format!("tcp:127.0.0.1:{port}")], folder })
    }

    /// Starts redis without persistence. `None` if there is none.
    pub fn redis() -> Option<Self> {
        if !has("redis-server") {
            return None;
        }
        let folder = Folder::new();
        let (child, endpoints) = start_redis(&folder);
        Some(Self { child, endpoints, folder })
    }

    /// Starts a redis that was killed again, without data. It listens on the same UNIX socket, and
    /// on another TCP port.
    pub fn restart_redis(&mut self) {
        (self.child, self.endpoints) = start_redis(&self.folder);
    }

    /// Sends the server a signal. `timeout` passes it on, unless it is SIGKILL.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Kills the server, and waits until it is gone.
    pub fn kill(&mut self) {
        let timeout = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{timeout}/task/{timeout}/children")).expect("it runs");
        let server = children.trim().parse().expect("the server is the one child of `timeout`");
        kill_process(Pid::from_raw(server).expect("a process"), Signal::KILL).expect("it runs");
        self.child.wait().expect("a child of this process");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that was waited for has no number any more.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill_process(Pid::from_child(&self.child), Signal::INT);
            let _ = self.child.wait();
        }
    }
}

/// Starts redis in a folder. Returns its endpoints, too.
fn start_redis(folder: &Folder) -> (Child, [String; 2]) {
    let socket = folder.at("socket");
    let (child, port) = on_a_port("Ready to accept connections", |port| {
        let mut server = Command::new("timeout");
        server.args([SERVER_LIMIT_SECONDS, "redis-server", "--save", "", "--appendonly", "no"]);
        server.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--unixsocket", &socket]);
        server
    });
    (child, [format!("unix:{socket}"), format!("tcp:127.0.0.1:{port}")])
}

/// The folder of PostgreSQL's programs: the newest of Debian's, or that of the path.
fn postgres_programs() -> Option<PathBuf> {
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = debian.max_by_key(|entry| entry.file_name().to_string_lossy().parse::<u32>().unwrap_or_default());
    let folders = newest.map(|entry| entry.path().join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    folders.into_iter().chain(std::env::split_paths(&path)).find(|folder| folder.join("initdb").exists())
}

/// The command in a folder, as a user that is not root.
fn unprivileged(mut command: Command, home: &str) -> Command {
    command.current_dir(home).stdin(Stdio::null());
    if getuid().is_root() {
        command.uid(UNPRIVILEGED).gid(UNPRIVILEGED);
    }
    command
}

/// Starts a server on a port that was free just before, and waits until it has printed `marker`. If
/// the port was taken meanwhile, it tries others.
fn on_a_port(marker: &str, command: impl Fn(u16) -> Command) -> (Child, u16) {
    let mut printed = Vec::new();
    for _ in 0..3 {
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = free.local_addr().expect("an address").port();
        drop(free);
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let mut child = {
            let mut command = command(port);
            command.stdin(Stdio::null()).stdout(writer.try_clone().expect("a descriptor")).stderr(writer);
            command.spawn().expect("a program")
        };
        let mut lines = BufReader::new(reader).lines();
        printed.clear();
        for line in lines.by_ref().map_while(Result::ok) {
            let is_ready = line.contains(marker);
            printed.push(line);
            if is_ready {
                // The server goes on writing, and would block on a full pipe.
                thread::spawn(move || lines.for_each(drop));
                return (child, port);
            }
        }
        child.wait().expect("it has ended");
    }
    panic!("the server does not start: {printed:#?}");
}
