//! The peers, and how their programs are obtained. Rust peers are built with this crate. C peers
//! are compiled by `cc`, which is required because the baseline is one of them. Python peers are
//! installed in a venv.
//!
//! A peer that cannot be obtained is [`Missing`], with the reason.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Result;
use crate::peers::{Missing, Service};

/// Kind of server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Name in the tables.
    pub name: &'static str,
    engine: Engine,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Engine {
    /// Server kind for `serve`, and the backend to select.
    Rust(&'static str, Option<&'static str>),
    /// Source file in `peers/`, and the library to link.
    C(&'static str, Option<&'static str>),
    /// Prefix of the names of the scripts in `peers/`.
    Python(&'static str),
}

/// The baseline, to which the figures of all peers are ratios.
pub const BASELINE: Peer = Peer { name: "epoll-c", engine: Engine::C("epoll.c", None) };

/// The baseline for datagrams.
pub const DATAGRAM_BASELINE: Peer = Peer { name: "mmsg-c", engine: Engine::C("udp.c", None) };

/// The peers that echo datagrams, in the order of the tables. The baseline is a peer of itself.
pub const DATAGRAM_PEERS: [Peer; 5] = [
    Peer { name: "control", ..DATAGRAM_BASELINE },
    Peer { name: "mmsg-epoll-c", engine: Engine::C("udp_epoll.c", None) },
    OURS[0],
    OURS[1],
    Peer { name: "tokio", engine: Engine::Rust("tokio", None) },
];

/// The baseline for child processes: the standard library, which starts them by `posix_spawn`.
pub const CHILDREN_BASELINE: Peer = Peer { name: "posix_spawn", engine: Engine::Rust("posix_spawn", None) };

/// The peers that start child processes, in the order of the tables.
pub const CHILDREN_PEERS: [Peer; 5] = [
    Peer { name: "control", ..CHILDREN_BASELINE },
    OURS[0],
    OURS[1],
    Peer { name: "tokio", engine: Engine::Rust("tokio", None) },
    Peer { name: "twisted", engine: Engine::Python("twisted") },
];

/// The baseline as a peer of itself. The difference of its ratios from 1 is the error of all
/// ratios.
pub const CONTROL: Peer = Peer { name: "control", ..BASELINE };

/// The baseline in Rust, with its system calls inlined: the stricter comparison.
pub const INLINE: Peer = Peer { name: "epoll-inline", engine: Engine::Rust("epoll-inline", None) };

/// Ropewalk on each of its backends.
pub const OURS: [Peer; 2] = [
    Peer { name: "ropewalk-mio", engine: Engine::Rust("ropewalk", Some("mio")) },
    Peer { name: "ropewalk-io_uring", engine: Engine::Rust("ropewalk", Some("io_uring")) },
];

/// All peers, in the order of the tables.
pub const PEERS: [Peer; 12] = [
    CONTROL,
    INLINE,
    OURS[0],
    OURS[1],
    Peer { name: "mio", engine: Engine::Rust("mio", None) },
    Peer { name: "mio-inline", engine: Engine::Rust("mio-inline", None) },
    Peer { name: "calloop", engine: Engine::Rust("calloop", None) },
    Peer { name: "tokio", engine: Engine::Rust("tokio", None) },
    Peer { name: "monoio", engine: Engine::Rust("monoio", None) },
    Peer { name: "libuv", engine: Engine::C("libuv.c", Some("uv")) },
    Peer { name: "uvloop", engine: Engine::Python("uvloop") },
    Peer { name: "twisted", engine: Engine::Python("twisted") },
];

impl Peer {
    /// Returns `true` if the peer needs only cargo and the C compiler that the baseline needs. Such
    /// a peer is available wherever this program runs.
    pub fn is_always_there(&self) -> bool {
        matches!(self.engine, Engine::Rust(..) | Engine::C(_, None))
    }

    /// Returns the backend to select, if the engine has several.
    pub fn backend(&self) -> Option<&'static str> {
        match self.engine {
            Engine::Rust(_, backend) => backend,
            _ => None,
        }
    }

    /// Returns `true` if the peer has a server for this service.
    pub fn offers(&self, service: Service) -> bool {
        (service == Service::ECHO && self.name != DATAGRAM_BASELINE.name)
            || match self.engine {
                Engine::Rust(kind, _) => ["ropewalk", "tokio"].contains(&kind),
                Engine::C(file, _) => service == Service::DATAGRAMS && file.starts_with("udp"),
                Engine::Python(name) => name == "twisted" && service.answers && !service.tls,
            }
    }

    /// Returns `true` if the peer runs in Python. Under valgrind it takes a thousand times as long
    /// as the others.
    pub fn is_python(&self) -> bool {
        matches!(self.engine, Engine::Python(_))
    }
}

/// Programs that are built or found.
#[derive(Debug)]
pub struct Programs {
    folder: PathBuf,
    python: Result<PathBuf, String>,
    /// Names and versions of the measured software.
    pub versions: Vec<(String, String)>,
}

impl Programs {
    /// Builds the programs for the peers in `wanted`. `install` allows apt-get to install missing
    /// packages.
    ///
    /// # Errors
    /// Fails if the programs of this crate or the baseline cannot be built.
    pub fn prepare(wanted: &[Peer], install: bool) -> Result<Self> {
        let own = std::env::current_exe()?;
        let folder = own.parent().ok_or("the program has no folder")?.to_owned();
        build_own(&folder)?;
        compile_baseline(&folder)?;
        if install {
            // A package that is still missing is reported where it is needed.
            let _ = run("apt-get", &["install", "-qy", "libuv1-dev", "valgrind"]);
        }
        let python = if wanted.iter().any(Peer::is_python) {
            make_venv(&folder)
        } else {
            Err("no Python peer was selected".into())
        };
        let versions = versions(python.as_deref().ok());
        Ok(Self { folder, python, versions })
    }

    /// Returns the path of a program of this crate.
    pub fn own(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Returns `true` if valgrind is installed.
    pub fn has_valgrind(&self) -> bool {
        self.version("valgrind").is_some()
    }

    /// Returns the version of measured software.
    pub fn version(&self, name: &str) -> Option<&str> {
        self.versions.iter().find(|(known, _)| known == name).map(|(_, version)| version.as_str())
    }

    /// Returns the command that runs a peer, without pinning it to a core.
    ///
    /// # Errors
    /// Fails if the peer is missing or does not offer the service.
    pub fn command(&self, peer: &Peer, service: Service) -> Result<Vec<OsString>> {
        if !peer.offers(service) {
            return Err(format!("{} has no server for {service:?}", peer.name).into());
        }
        Ok(match peer.engine {
            Engine::Rust(kind, _) => {
                let words = [self.own("serve").into(), kind.into()];
                words.into_iter().chain(service.flags().map(OsString::from)).collect()
            }
            Engine::C(file, library) => vec![compile(&self.folder, file, library).map_err(Missing)?.into()],
            Engine::Python(name) => {
                let script = format!("{name}_{}.py", if service.answers { "answers" } else { "echo" });
                vec![self.python.clone().map_err(Missing)?.into(), source(&script).into()]
            }
        })
    }

    /// Returns the command of a peer that starts child processes, without pinning it to a core.
    ///
    /// # Errors
    /// Fails if the peer is missing or starts none.
    pub fn children_command(&self, peer: &Peer) -> Result<Vec<OsString>> {
        match peer.engine {
            Engine::Rust(kind, _) => Ok(vec![self.own("children").into(), kind.into()]),
            Engine::Python(name) => {
                let script = source(&format!("{name}_children.py"));
                Ok(vec![self.python.clone().map_err(Missing)?.into(), script.into()])
            }
            Engine::C(..) => Err(format!("{} starts no child processes", peer.name).into()),
        }
    }
}

/// Returns the path of a file in `bench/peers`.
fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(name)
}

/// Builds the other programs of this crate, because `cargo run` builds only the one that it runs.
fn build_own(folder: &Path) -> Result<()> {
    if let Some(cargo) = std::env::var_os("CARGO") {
        let mut build = Command::new(cargo);
        build.args(["build", "-q", "--release", "-p", "ropewalk-bench", "--bins"]);
        // Cargo has set these variables for this program. With other values of them, some of the
        // dependencies would be compiled again.
        for (name, _) in std::env::vars_os() {
            if ["CARGO_MANIFEST_", "CARGO_PKG_"].iter().any(|its| name.to_string_lossy().starts_with(its)) {
                build.env_remove(name);
            }
        }
        if !build.status()?.success() {
            return Err("the servers cannot be built".into());
        }
    }
    match ["serve", "load", "pending", "hyper_instructions", "cores", "children"]
        .into_iter()
        .find(|name| !folder.join(name).exists())
    {
        Some(name) => Err(format!("{name} is not in {}: run this program through cargo", folder.display()).into()),
        None => Ok(()),
    }
}

/// Compiles the baseline into a folder and returns its path.
///
/// # Errors
/// Fails if there is no C compiler. Without one there is nothing to compare with.
pub fn compile_baseline(folder: &Path) -> Result<PathBuf> {
    let Engine::C(file, library) = BASELINE.engine else { return Err("the baseline is in C".into()) };
    compile(folder, file, library).map_err(|why| {
        format!("a C compiler (`cc`) is required: the baseline, bench/peers/{file}, cannot be built: {why}").into()
    })
}

/// Compiles a program, unless it exists and is newer than all sources: some include others.
fn compile(folder: &Path, file: &str, library: Option<&str>) -> Result<PathBuf, String> {
    let (program, source) = (folder.join(file).with_extension("echo"), source(file));
    let age = |path: &Path| path.metadata().and_then(|it| it.modified()).ok();
    let sources = source.parent().and_then(|folder| folder.read_dir().ok()).into_iter().flatten().flatten();
    let newest = sources.filter_map(|source| age(&source.path())).max();
    if age(&program).is_some_and(|program| Some(program) > newest) {
        return Ok(program);
    }
    let mut arguments = vec!["-O2".into(), "-o".into(), program.clone().into_os_string(), source.into_os_string()];
    arguments.extend(library.map(|library| OsString::from(format!("-l{library}"))));
    let hint = library.map_or(String::new(), |name| format!(" (lib{name}1-dev, or --install)"));
    run("cc", &arguments).map(|_| program).map_err(|why| format!("{why}{hint}"))
}

/// Returns the Python interpreter of a venv that has the packages of the scripts. The venv is kept
/// in the target folder.
fn make_venv(folder: &Path) -> Result<PathBuf, String> {
    let venv = folder.join("venv");
    let python = venv.join("bin").join("python");
    if run(&python, &["-c", "import twisted, uvloop"]).is_ok() {
        return Ok(python);
    }
    let venv = venv.into_os_string();
    run("python3", &["-m".into(), "venv".into(), venv]).map_err(|why| format!("no venv: {why}"))?;
    run(&python, &["-m", "pip", "install", "-q", "twisted", "uvloop"])
        .map_err(|why| format!("pip cannot install twisted and uvloop: {why}"))?;
    Ok(python)
}

/// Runs a command to its end, for at most five minutes. Returns its output, or the line of its
/// standard error that explains the failure.
fn run<A: AsRef<OsStr>>(program: impl AsRef<OsStr>, arguments: &[A]) -> Result<String, String> {
    let mut command = Command::new("timeout");
    command.arg("300").arg(&program).args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    let name = program.as_ref().to_string_lossy();
    let ran = command.stdin(Stdio::null()).output().map_err(|error| format!("{name}: {error}"))?;
    if ran.status.success() {
        return Ok(String::from_utf8_lossy(&ran.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&ran.stderr);
    let reason =
        said.lines().find(|line| line.contains("error")).or(said.lines().last()).unwrap_or("failed without a message");
    Err(format!("{name}: {}", reason.trim()))
}

/// Returns the versions of the measured software. Crates have the versions of Cargo.lock, from
/// which they were built.
fn versions(python: Option<&Path>) -> Vec<(String, String)> {
    let lock = include_str!("../../Cargo.lock").replace("name = ", "").replace("version = ", "");
    let lines: Vec<&str> = lock.lines().map(|line| line.trim_matches('"')).collect();
    let of_crate = |name: &str| lines.windows(2).find(|pair| pair[0] == name).map(|pair| pair[1].to_owned());
    let mut versions: Vec<(String, String)> =
        ["ropewalk", "rustix", "mio", "calloop", "tokio", "monoio", "rustls", "tokio-rustls", "hyper"]
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), of_crate(name)?)))
            .collect();
    let mut add = |name: &str, said: Result<String, String>| {
        if let Some(line) = said.ok().as_deref().and_then(|said| said.lines().next()) {
            let number = line.split_whitespace().find(|word| word.contains(|letter: char| letter.is_ascii_digit()));
            versions.push((name.to_owned(), number.unwrap_or(line).trim_start_matches("valgrind-").to_owned()));
        }
    };
    add("rustc", run("rustc", &["--version"]));
    add("cc", run("cc", &["-dumpfullversion"]));
    add("libc", run("getconf", &["GNU_LIBC_VERSION"]));
    add("valgrind", run("valgrind", &["--version"]));
    add("libuv", run("dpkg-query", &["-W", "-f", "${Version}", "libuv1-dev"]));
    if let Some(python) = python {
        add("python", run(python, &["--version"]));
        add("twisted", run(python, &["-c", "import twisted; print(twisted.__version__)"]));
        add("uvloop", run(python, &["-c", "import uvloop; print(uvloop.__version__)"]));
    }
    versions
}
