//! Who is measured, and how each is had: built with us, compiled by `cc` (which the baseline is, so that there has to be one), or installed in a venv.
//!
//! What can't be had is [`Missing`], with the reason.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Result;
use crate::peers::{Missing, Service};

/// A kind of server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// What the tables call it.
    pub name: &'static str,
    engine: Engine,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Engine {
    /// A kind that `serve` has, and the backend that it is to use.
    Rust(&'static str, Option<&'static str>),
    /// A program in `peers/`, and the library that it takes.
    C(&'static str, Option<&'static str>),
    /// Scripts in `peers/`, whose names begin with this.
    Python(&'static str),
}

/// What all others are measured against.
pub const BASELINE: Peer = Peer { name: "epoll-c", engine: Engine::C("epoll.c", None) };

/// The baseline once more: what it differs from itself by is the error of all others.
pub const CONTROL: Peer = Peer { name: "control", ..BASELINE };

/// The baseline in Rust, with its system calls in line: the harsher comparison.
pub const INLINE: Peer = Peer { name: "epoll-inline", engine: Engine::Rust("epoll-inline", None) };

/// Ropewalk on each of its backends.
pub const OURS: [Peer; 2] = [
    Peer { name: "ropewalk-mio", engine: Engine::Rust("ropewalk", Some("mio")) },
    Peer { name: "ropewalk-io_uring", engine: Engine::Rust("ropewalk", Some("io_uring")) },
];

/// All that are measured, in the order of the tables.
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
    /// Whether it takes no more than cargo and the C compiler that the baseline takes, and so is there wherever this runs.
    pub fn is_always_there(&self) -> bool {
        matches!(self.engine, Engine::Rust(..) | Engine::C(_, None))
    }

    /// The backend that it is to use, of an engine that has several.
    pub fn backend(&self) -> Option<&'static str> {
        match self.engine {
            Engine::Rust(_, backend) => backend,
            _ => None,
        }
    }

    /// True if it has a server for this.
    pub fn offers(&self, service: Service) -> bool {
        service == Service::ECHO
            || match self.engine {
                Engine::Rust(kind, _) => ["ropewalk", "tokio"].contains(&kind),
                Engine::C(..) => false,
                Engine::Python(name) => name == "twisted" && !service.tls,
            }
    }

    /// Whether it takes a thousand times as long as the others under valgrind.
    pub fn is_python(&self) -> bool {
        matches!(self.engine, Engine::Python(_))
    }
}

/// The programs, once they are there.
#[derive(Debug)]
pub struct Programs {
    folder: PathBuf,
    python: Result<PathBuf, String>,
    /// Names and versions of what was found.
    pub versions: Vec<(String, String)>,
}

impl Programs {
    /// Builds what `wanted` needs. `install` allows to ask Debian for what is missing.
    ///
    /// # Errors
    /// Our own programs or the baseline can't be built.
    pub fn prepare(wanted: &[Peer], install: bool) -> Result<Self> {
        let own = std::env::current_exe()?;
        let folder = own.parent().ok_or("a program is in a folder")?.to_owned();
        build_own(&folder)?;
        compile_baseline(&folder)?;
        if install {
            // What is still missing after this says so itself.
            let _ = run("apt-get", &["install", "-qy", "libuv1-dev", "valgrind"]);
        }
        let python = if wanted.iter().any(Peer::is_python) { make_venv(&folder) } else { Err("not asked for".into()) };
        let versions = versions(python.as_deref().ok());
        Ok(Self { folder, python, versions })
    }

    /// One of our own programs.
    pub fn own(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The command that runs a peer, without what pins it.
    ///
    /// # Errors
    /// It is missing, or does not offer the service.
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
}

/// A file in `bench/peers`.
fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(name)
}

/// `cargo run` builds the program that it runs, and not those that this one starts.
fn build_own(folder: &Path) -> Result<()> {
    if let Some(cargo) = std::env::var_os("CARGO") {
        let built =
            Command::new(cargo).args(["build", "-q", "--release", "-p", "ropewalk-bench", "--bins"]).status()?;
        if !built.success() {
            return Err("the servers can't be built".into());
        }
    }
    match ["serve", "load", "pending"].into_iter().find(|name| !folder.join(name).exists()) {
        Some(name) => Err(format!("{name} is not in {}: run this by cargo", folder.display()).into()),
        None => Ok(()),
    }
}

/// Compiles the baseline into a folder, and says where it is.
///
/// # Errors
/// There is no C compiler, which nothing can be compared without.
pub fn compile_baseline(folder: &Path) -> Result<PathBuf> {
    let Engine::C(file, library) = BASELINE.engine else { return Err("the baseline is in C".into()) };
    compile(folder, file, library).map_err(|why| {
        format!("a C compiler (`cc`) is required: the baseline, bench/peers/{file}, can't be built: {why}").into()
    })
}

/// Compiles a program, unless it is there and younger than its source.
fn compile(folder: &Path, file: &str, library: Option<&str>) -> Result<PathBuf, String> {
    let (program, source) = (folder.join(file).with_extension("echo"), source(file));
    let age = |path: &Path| path.metadata().and_then(|it| it.modified()).ok();
    if age(&program).is_some_and(|program| Some(program) > age(&source)) {
        return Ok(program);
    }
    let mut arguments = vec!["-O2".into(), "-o".into(), program.clone().into_os_string(), source.into_os_string()];
    arguments.extend(library.map(|library| OsString::from(format!("-l{library}"))));
    let hint = library.map_or(String::new(), |name| format!(" (lib{name}1-dev, or --install)"));
    run("cc", &arguments).map(|_| program).map_err(|why| format!("{why}{hint}"))
}

/// A venv with what the scripts need, kept in the target folder.
fn make_venv(folder: &Path) -> Result<PathBuf, String> {
    let venv = folder.join("venv");
    let python = venv.join("bin").join("python");
    if run(&python, &["-c", "import twisted, uvloop"]).is_ok() {
        return Ok(python);
    }
    let venv = venv.into_os_string();
    run("python3", &["-m".into(), "venv".into(), venv]).map_err(|why| format!("no venv: {why}"))?;
    run(&python, &["-m", "pip", "install", "-q", "twisted", "uvloop"])
        .map_err(|why| format!("pip can't install it: {why}"))?;
    Ok(python)
}

/// Runs something to its end, for five minutes at most; what it printed, or its last words.
fn run<A: AsRef<OsStr>>(program: impl AsRef<OsStr>, arguments: &[A]) -> Result<String, String> {
    let mut command = Command::new("timeout");
    command.arg("300").arg(&program).args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    let name = program.as_ref().to_string_lossy();
    let ran = command.stdin(Stdio::null()).output().map_err(|error| format!("{name}: {error}"))?;
    if ran.status.success() {
        return Ok(String::from_utf8_lossy(&ran.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&ran.stderr);
    let what = said.lines().find(|line| line.contains("error")).or(said.lines().last()).unwrap_or("it failed");
    Err(format!("{name}: {}", what.trim()))
}

/// The versions of what is measured. Those of crates are Cargo.lock's, which is what they were built from.
fn versions(python: Option<&Path>) -> Vec<(String, String)> {
    let lock = include_str!("../../Cargo.lock").replace("name = ", "").replace("version = ", "");
    let lines: Vec<&str> = lock.lines().map(|line| line.trim_matches('"')).collect();
    let of_crate = |name: &str| lines.windows(2).find(|pair| pair[0] == name).map(|pair| pair[1].to_owned());
    let mut versions: Vec<(String, String)> =
        ["ropewalk", "rustix", "mio", "calloop", "tokio", "monoio", "rustls", "tokio-rustls"]
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
