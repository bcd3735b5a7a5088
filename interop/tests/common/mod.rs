//! Helpers of the tests with libraries and programs of others.
#![allow(dead_code, unused_imports, unreachable_pub, reason = "each program uses its own part")]

#[path = "../../../tests/common/allocator.rs"]
pub mod allocator;
#[path = "../../../tests/common/certificates.rs"]
pub mod certificates;
#[path = "../../../tests/common/process.rs"]
pub mod process;
#[path = "../../../tests/common/programs.rs"]
pub mod programs;
pub mod servers;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

pub(crate) use process::own_process;
use ropewalk::{BackendKind, Deferred, Reactor, Result};

/// The longest wait of a test. A test that passes never waits that long.
pub const LIMIT: Duration = Duration::from_secs(30);

/// Runs a test on each backend of this system.
pub fn on_each(test: impl Fn(&Reactor)) {
    for kind in [BackendKind::Mio, BackendKind::IoUring] {
        let reactor = Reactor::builder().signals(false).backend(kind).build().expect("a reactor");
        if reactor.backend() == kind {
            test(&reactor);
        } else {
            println!("skipped on {kind:?}: the system has no such backend for us");
        }
        reactor.close().expect("it is idle");
    }
}

/// Turns the loop until `done`.
#[track_caller]
pub fn run_until(reactor: &Reactor, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < until, "it did not happen within {LIMIT:?}");
        reactor.iterate(Duration::from_millis(5)).expect("the loop turns");
    }
}

/// Turns the loop until a Deferred has a result.
#[track_caller]
pub fn result_of<T: 'static>(reactor: &Reactor, mut deferred: Deferred<T>) -> Result<T> {
    run_until(reactor, || deferred.is_called());
    deferred.take_result().expect("it is called")
}

/// An example's executable: beside those of the tests, where `cargo test` puts it, and built first
/// if only this test was asked for.
pub fn example(name: &str, feature: &str) -> PathBuf {
    let tests = std::env::current_exe().expect("this executable");
    let profile = tests.parent().and_then(Path::parent).expect("the directory of the profile");
    let path = profile.join("examples").join(name);
    if !path.exists() {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--quiet", "--features", feature]);
        build.args(["--example", name, "--target-dir"]).arg(profile.parent().expect("the target directory"));
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        assert!(build.status().expect("cargo").success());
    }
    path
}
