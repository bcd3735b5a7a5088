//! The functions behind the fuzz targets: those of the property tests.

// The tests use more of it.
#[allow(dead_code)]
#[path = "../../tests/protocols/recorder.rs"]
mod recorder;
#[allow(dead_code)]
#[path = "../../tests/protocols/targets.rs"]
mod targets;

/// Runs the target of this name.
///
/// # Panics
/// If the target finds a fault, and if there is no target of this name.
pub fn run(name: &str, data: &[u8]) {
    let target = targets::TARGETS.iter().find(|(target, _)| *target == name);
    target.unwrap_or_else(|| panic!("there is no target {name}")).1(data);
}
