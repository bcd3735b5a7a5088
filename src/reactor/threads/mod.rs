//! Threads: those that work for the loop, and those that call it.
//!
//! | file | holds |
//! |---|---|
//! | `pool.rs` | a pool of threads and its queue, without anything of reactors |
//! | `jobs.rs` | the reactor's two pools, and who waits for a job |
//! | `thread_pool.rs` | pools of the program's own |
//! | `remote.rs`, `wakeup.rs` | calls from other threads, and what wakes the loop for them |

pub(in crate::reactor) mod jobs;
pub(in crate::reactor) mod pool;
pub(in crate::reactor) mod remote;
pub(in crate::reactor) mod thread_pool;
pub(in crate::reactor) mod wakeup;
