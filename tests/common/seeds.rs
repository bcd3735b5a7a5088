//! Numbers of seeds for simulated tests.

/// Number of seeds or cases of a simulated test: `few` in a build without optimisation, `many` in
/// one with it, where each takes a fraction of the time. CI runs these tests in both.
pub const fn seeds(few: u32, many: u32) -> u32 {
    if cfg!(debug_assertions) { few } else { many }
}
