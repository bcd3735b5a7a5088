//! `cargo run --release -p ropewalk-bench --bin compare [-- OPTION..]`: measures every peer beside
//! the baseline, and writes the report.
//!
//! | option | effect |
//! |---|---|
//! | `--smoke` | measures a little of everything, to show that it works |
//! | `--only PEER,..` | measures only these peers |
//! | `--scenario NAME,..` | measures only these scenarios and parts |
//! | `--rounds N` | number of pairs of windows for each ratio |
//! | `--no-python` | leaves out the peers that run in Python |
//! | `--install` | lets apt-get, as root, install libuv's header and valgrind |
//! | `--out FOLDER` | writes the results to this folder |
//! | `--report` | measures nothing, and regenerates the report from the figures in the folder |
//!
//! A smoke run has only those peers that need no more than cargo and a C compiler. If one of them
//! does not work, the run fails. A run that is not complete writes its results to `bench-part` in
//! the target folder, unless `--out` names another one.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use ropewalk_bench::hello::Engine;
use ropewalk_bench::measure::{
    Effort, children, cores, datagrams, echo, hyper, instructions, memory, pending, round_trips, scale, timers,
};
use ropewalk_bench::programs::{CHILDREN_PEERS, DATAGRAM_PEERS, OURS, PEERS, Peer, Programs};
use ropewalk_bench::progress::Progress;
use ropewalk_bench::results::{Children, Datagrams, Hyper, Outcome, Results, RoundTrips, Row};
use ropewalk_bench::system::{self, Core, CoreTime, pin, raise_descriptor_limit};
use ropewalk_bench::{Result, report};

/// Parts other than the scenarios of echoes.
const PARTS: [&str; 11] = [
    "instructions",
    "memory",
    "connections",
    "many",
    "timers",
    "pending",
    "round-trips",
    "hyper",
    "cores",
    "datagrams",
    "children",
];

/// Number of connections to open at the same time over several processes.
const MANY: usize = 100_000;

#[derive(Debug, Default)]
struct Options {
    smoke: bool,
    report: bool,
    no_python: bool,
    install: bool,
    rounds: Option<usize>,
    only: Option<Vec<String>>,
    scenarios: Option<Vec<String>>,
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)).and_then(|options| run(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options> {
    let mut options = Options::default();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} takes a value"));
        let list = |text: String| Some(text.split(',').map(str::to_owned).collect());
        match argument.as_str() {
            "--smoke" => options.smoke = true,
            "--report" => options.report = true,
            "--no-python" => options.no_python = true,
            "--install" => options.install = true,
            "--rounds" => options.rounds = Some(value()?.parse()?),
            "--only" => options.only = list(value()?),
            "--scenario" => options.scenarios = list(value()?),
            "--out" => options.out = Some(value()?.into()),
            _ => return Err(format!("unknown option: {argument}").into()),
        }
    }
    let known = |name: &String, known: &[&str]| known.contains(&name.as_str());
    let peers: Vec<_> = PEERS.iter().map(|peer| peer.name).collect();
    let scenarios: Vec<_> = echo::SCENARIOS.iter().map(|scenario| scenario.name).chain(PARTS).collect();
    if let Some(name) = options.only.iter().flatten().find(|name| !known(name, &peers)) {
        return Err(format!("unknown peer {name}; the peers are {}", peers.join(", ")).into());
    }
    if let Some(name) = options.scenarios.iter().flatten().find(|name| !known(name, &scenarios)) {
        return Err(format!("unknown scenario {name}; the scenarios are {}", scenarios.join(", ")).into());
    }
    Ok(options)
}

/// Runs the program. Returns `false` if a measurement that should have worked failed.
fn run(options: &Options) -> Result<bool> {
    let folder = folder(options)?;
    if options.report {
        report::write(&Results::load(&folder)?, &folder)?;
        println!("{}", folder.join("report.md").display());
        return Ok(true);
    }
    if cfg!(debug_assertions) {
        return Err("the figures of a debug build mean nothing: use --release".into());
    }
    let peers: Vec<Peer> = PEERS.into_iter().filter(|peer| options.wants_peer(peer)).collect();
    let programs = Programs::prepare(&peers, options.install)?;
    let mut run = Run::new(options, programs, raise_descriptor_limit()?, &peers);
    run.cores();
    pin(Core::Load)?;
    run.all(&peers)?;
    let took = run.progress.elapsed();
    let (mut results, failures) = (run.results, run.failures);
    results.machine = system::machine(run.programs.versions, run.descriptors)?;
    results.machine.rounds = run.effort.rounds;
    results.machine.window = run.effort.window.as_millis() as u64;
    results.machine.took = took.as_secs();
    results.twisted = Results::twisted(&folder)?;
    results.save(&folder)?;
    report::write(&results, &folder)?;
    drop(run.progress);
    println!("{}", folder.join("report.md").display());
    failures.iter().for_each(|failure| eprintln!("{failure}"));
    Ok(failures.is_empty())
}

fn folder(options: &Options) -> Result<PathBuf> {
    let whole = !options.smoke && options.only.is_none() && options.scenarios.is_none() && !options.no_python;
    Ok(match &options.out {
        Some(folder) => folder.clone(),
        None if whole => Path::new(env!("CARGO_MANIFEST_DIR")).join("results"),
        None => std::env::current_exe()?.with_file_name("bench-part"),
    })
}

impl Options {
    fn wants_peer(&self, peer: &Peer) -> bool {
        self.only.as_ref().is_none_or(|only| only.iter().any(|name| name == peer.name))
            && (peer.is_always_there() || !self.smoke)
            && !(peer.is_python() && self.no_python)
    }

    fn wants(&self, scenario: &str) -> bool {
        self.scenarios.as_ref().is_none_or(|wanted| wanted.iter().any(|name| name == scenario))
    }

    fn effort(&self) -> Effort {
        let (rounds, window) = if self.smoke { (2, 30) } else { (41, 80) };
        let rounds = self.rounds.unwrap_or(rounds);
        Effort { rounds, window: Duration::from_millis(window), smoke: self.smoke }
    }
}

/// State of a run, which measures part by part.
struct Run<'a> {
    options: &'a Options,
    programs: Programs,
    effort: Effort,
    descriptors: u64,
    progress: Progress,
    results: Results,
    failures: Vec<String>,
}

impl<'a> Run<'a> {
    fn new(options: &'a Options, programs: Programs, descriptors: u64, peers: &[Peer]) -> Self {
        let effort = options.effort();
        let progress = Progress::new(estimated_seconds(options, &effort, peers));
        let (results, failures) = (Results::default(), Vec::new());
        Self { options, programs, effort, descriptors, progress, results, failures }
    }

    /// Measures the servers with several threads, on all cores.
    fn cores(&mut self) {
        if !self.options.wants("cores") {
            return;
        }
        self.progress.begin("cores");
        match cores::measure(&self.programs, &self.effort) {
            Ok(cores) => self.results.cores = cores,
            Err(error) => self.failures.push(format!("cores: {error}")),
        }
        self.progress.advance("cores", self.effort.or(CORES_SECONDS, CORES_SMOKE_SECONDS));
    }

    /// Measures everything else, on one core for the server and one for the load.
    fn all(&mut self, peers: &[Peer]) -> Result<()> {
        for scenario in echo::SCENARIOS.into_iter().filter(|scenario| self.options.wants(scenario.name)) {
            for peer in peers {
                let row = self.row(scenario.name, peer.name, |run| {
                    let each = round_seconds(&run.effort);
                    let (progress, what) = (&mut run.progress, format!("{}: {}", scenario.title, peer.name));
                    echo::measure(&run.programs, &scenario, peer, &run.effort, || progress.advance(&what, each))
                });
                self.results.echo.push(row);
            }
        }
        for peer in peers.iter().filter(|_| self.options.wants("memory")) {
            let row =
                self.row("memory", peer.name, |run| memory::measure(&run.programs, peer, &run.effort, run.descriptors));
            self.results.memory.push(row);
            self.progress.advance("memory", MEMORY_SECONDS);
        }
        self.growth(peers);
        self.round_trips(peers)?;
        self.datagrams()?;
        self.children()?;
        for peer in peers.iter().filter(|_| self.options.wants("instructions")) {
            let row =
                self.row("instructions", peer.name, |run| instructions::measure(&run.programs, peer, &run.effort));
            self.results.instructions.push(row);
            self.progress.advance("instructions", instructions_seconds(peer));
        }
        self.hyper()
    }

    fn hyper(&mut self) -> Result<()> {
        if !self.options.wants("hyper") {
            return Ok(());
        }
        let mut rows = Vec::new();
        for engine in Engine::ALL {
            rows.push(self.row("hyper", &engine.to_string(), |run| hyper::measure(&run.programs, engine, &run.effort)));
            self.progress.advance("hyper", HYPER_SECONDS);
        }
        let version = |name| format!("{name} {}", self.programs.version(name).unwrap_or("of unknown version"));
        let versions = ["hyper", "tokio"].map(version).join(", ");
        self.results.hyper = Hyper { date: system::today()?, versions, rows };
        Ok(())
    }

    /// Measures growing numbers of connections, timers and queued bytes.
    fn growth(&mut self, peers: &[Peer]) {
        let ours: Vec<&Peer> = OURS.iter().filter(|peer| peers.contains(peer)).collect();
        for peer in ours.iter().filter(|_| self.options.wants("connections")) {
            let row = self.row("connections", peer.name, |run| {
                let (progress, each) = (&mut run.progress, round_seconds(&run.effort) * run.effort.rounds as f64);
                let tick = || progress.advance("connections", each);
                scale::measure(&run.programs, peer, &run.effort, run.descriptors, tick)
            });
            self.results.connections.push(row);
        }
        for peer in ours.iter().filter(|_| self.options.wants("many")) {
            let wanted = self.effort.or(MANY, 4_000);
            let row = self.row("many", peer.name, |run| scale::many(&run.programs, peer, wanted, run.descriptors));
            self.results.many.push(row);
            self.progress.advance("many", MANY_SECONDS);
        }
        for peer in ours.iter().filter(|_| self.options.wants("pending")) {
            for write_bytes in pending::WRITE_BYTES {
                let row = self.row(&format!("writes of {write_bytes} B"), peer.name, |run| {
                    pending::measure(&run.programs, peer.backend().unwrap_or_default(), write_bytes, &run.effort)
                });
                self.results.pending.push(row);
                self.progress.advance("pending", PENDING_SECONDS);
            }
        }
        if self.options.wants("timers") {
            self.progress.begin("timers");
            let progress = &mut self.progress;
            self.results.timers = timers::measure(&self.effort, || progress.advance("timers", TIMERS_SECONDS));
        }
    }

    fn round_trips(&mut self, peers: &[Peer]) -> Result<()> {
        if !self.options.wants("round-trips") {
            return Ok(());
        }
        let (processor, date, began) = (system::processor()?, system::today()?, CoreTime::now()?);
        let mut rows = Vec::new();
        for kind in round_trips::KINDS {
            for entrant in round_trips::RoundTripPeer::all(peers) {
                rows.push(self.row(kind.title(), &entrant.name(), |run| {
                    let tick = || run.progress.advance("round trips", ROUND_TRIPS_SECONDS);
                    round_trips::measure(&run.programs, &entrant, kind, &run.effort, tick)
                }));
            }
        }
        self.results.round_trips = RoundTrips { processor, date, others: began.taken_by_others()?, rows };
        Ok(())
    }

    fn datagrams(&mut self) -> Result<()> {
        if !self.options.wants("datagrams") {
            return Ok(());
        }
        let mut rows = Vec::new();
        for size in datagrams::SIZES {
            for peer in DATAGRAM_PEERS.iter().filter(|peer| self.options.wants_peer(peer)) {
                rows.push(self.row(&report::datagram_scenario(size), peer.name, |run| {
                    let each = round_seconds(&run.effort);
                    let progress = &mut run.progress;
                    let tick = || progress.advance("datagrams", each);
                    datagrams::measure(&run.programs, peer, size, &run.effort, tick)
                }));
            }
        }
        self.results.datagrams = Datagrams { processor: system::processor()?, date: system::today()?, rows };
        Ok(())
    }

    fn children(&mut self) -> Result<()> {
        if !self.options.wants("children") {
            return Ok(());
        }
        let mut rows = Vec::new();
        for held in children::HELD_MEBIBYTES {
            for peer in CHILDREN_PEERS.iter().filter(|peer| self.options.wants_peer(peer)) {
                rows.push(self.row(&report::children_scenario(held), peer.name, |run| {
                    let progress = &mut run.progress;
                    let tick = || progress.advance("children", CHILDREN_SECONDS);
                    children::measure(&run.programs, peer, held, &run.effort, tick)
                }));
            }
        }
        self.results.children = Children { processor: system::processor()?, date: system::today()?, rows };
        Ok(())
    }

    fn row<T>(&mut self, scenario: &str, peer: &str, measure: impl FnOnce(&mut Self) -> Result<T>) -> Row<T> {
        self.progress.begin(&format!("{scenario}: {peer}"));
        let outcome = Outcome::from(measure(self));
        if let Outcome::Failed(why) = &outcome {
            self.failures.push(format!("{scenario}, {peer}: {why}"));
        }
        Row { scenario: scenario.into(), peer: peer.into(), outcome }
    }
}

/// Estimated durations in seconds. They serve only for the displayed time left.
const MEMORY_SECONDS: f64 = 2.0;
const MANY_SECONDS: f64 = 15.0;
const PENDING_SECONDS: f64 = 3.0;
const TIMERS_SECONDS: f64 = 1.0;
const ROUND_TRIPS_SECONDS: f64 = 0.1;
const HYPER_SECONDS: f64 = 4.0;
const CHILDREN_SECONDS: f64 = 0.3;
const CORES_SECONDS: f64 = 70.0;
const CORES_SMOKE_SECONDS: f64 = 6.0;

fn round_seconds(effort: &Effort) -> f64 {
    2.0 * effort.window.as_secs_f64() + 0.02
}

fn instructions_seconds(peer: &Peer) -> f64 {
    if peer.is_python() { 40.0 } else { 5.0 }
}

fn round_trips_seconds(effort: &Effort, peers: &[Peer]) -> f64 {
    let rows = round_trips::KINDS.len() * round_trips::RoundTripPeer::all(peers).len();
    (rows * round_trips::passes(effort)) as f64 * ROUND_TRIPS_SECONDS
}

fn children_seconds(effort: &Effort) -> f64 {
    (CHILDREN_PEERS.len() * children::HELD_MEBIBYTES.len() * children::windows(effort)) as f64 * CHILDREN_SECONDS
}

fn estimated_seconds(options: &Options, effort: &Effort, peers: &[Peer]) -> f64 {
    let scenarios = echo::SCENARIOS.iter().filter(|scenario| options.wants(scenario.name)).count();
    let if_wanted = |part: &str, seconds: f64| if options.wants(part) { seconds } else { 0.0 };
    let (rounds, ours) = (round_seconds(effort) * effort.rounds as f64, OURS.len() as f64);
    (scenarios * peers.len()) as f64 * rounds
        + if_wanted("datagrams", (DATAGRAM_PEERS.len() * datagrams::SIZES.len()) as f64 * rounds)
        + if_wanted("children", children_seconds(&options.effort()))
        + if_wanted("memory", MEMORY_SECONDS * peers.len() as f64)
        + if_wanted("connections", ours * rounds * 6.0)
        + if_wanted("many", ours * MANY_SECONDS)
        + if_wanted("pending", ours * PENDING_SECONDS * pending::WRITE_BYTES.len() as f64)
        + if_wanted("timers", TIMERS_SECONDS * 4.0)
        + if_wanted("cores", effort.or(CORES_SECONDS, CORES_SMOKE_SECONDS))
        + if_wanted("hyper", HYPER_SECONDS * Engine::ALL.len() as f64)
        + if_wanted("round-trips", round_trips_seconds(effort, peers))
        + if_wanted("instructions", peers.iter().map(instructions_seconds).sum())
}
