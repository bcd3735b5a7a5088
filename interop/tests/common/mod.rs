//! Helpers of the tests with libraries and programs of others.
#![allow(dead_code, unused_imports, unreachable_pub, reason = "each program uses its own part")]

#[path = "../../../tests/common/allocator.rs"]
pub mod allocator;
mod backends;
#[path = "../../../tests/common/certificates.rs"]
pub mod certificates;
#[path = "../../../tests/common/process.rs"]
pub mod process;
#[path = "../../../tests/common/programs.rs"]
pub mod programs;
pub mod servers;

use std::path::{Path, PathBuf};

pub use backends::{LIMIT, on_each, result_of, run_until};
pub(crate) use process::own_process;

/// An example's executable: beside those of the tests, where `cargo test` puts it, and built first
/// if only this test was asked for.
pub fn example(name: &str, feature: &str) -> PathBuf {
    let tests = std::env::current_exe().expect("this executable");
    let profile = tests.parent().and_then(Path::parent).expect("the directory of the profile");
    let path = profile.join("examples").join(name);
    if !path.exists() {
        let mut build = process::cargo();
        build.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--quiet", "--features", feature]);
        build.args(["--example", name, "--target-dir"]).arg(profile.parent().expect("the target directory"));
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        assert!(build.status().expect("cargo").success());
    }
    path
}
