//! The native half of the Python package `ropewalk`: Twisted's reactor on the engine of the crate
//! `ropewalk`. The Python half is beside it, in `python/ropewalk`, and docs/python.md says how the
//! two fit together.
//!
//! | file | holds |
//! |---|---|
//! | `engine.rs` | `Engine`: the loop, as Python sees it |
//! | `state.rs` | the tables of all objects that an engine keeps, and its turns |
//! | `conn.rs`, `conn/` | `Conn`: the native half of a TCP connection |
//! | `accepting.rs` | `Listener`: accepts for a port |
//! | `contexts.rs` | the log context of a callback, on Twisted's stack |
//! | `call_later.rs` | `callLater` of the reactor |
//! | `timers.rs` | `DelayedCall`: Twisted's `IDelayedCall` on the engine's timers |
//! | `watches.rs` | foreign descriptors: Twisted's `IReactorFDSet` |
//! | `receivers/` | parsing for Twisted's `LineReceiver` and the like, where a program asks for it |
//! | `table.rs` | a list with reused places |
//! | `logs.rs` | log events of the engine, for Twisted's log |
//! | `gil.rs` | Python's lock, and all `unsafe` code |

mod accepting;
mod call_later;
mod conn;
mod contexts;
mod engine;
mod gil;
mod logs;
mod receivers;
mod state;
mod table;
mod timers;
mod watches;

use pyo3::prelude::*;

/// The module `ropewalk._native`.
#[pymodule(gil_used = true)]
mod _native {
    #[pymodule_export]
    use crate::accepting::{Accepted, Listener};
    #[pymodule_export]
    use crate::conn::Conn;
    #[pymodule_export]
    use crate::engine::Engine;
    #[pymodule_export]
    use crate::receivers::{LineLoop, Lines, Netstrings, Prefixed, Rest};
    #[pymodule_export]
    use crate::timers::DelayedCall;

    use super::*;
    use crate::call_later::CallLater;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        crate::logs::subscribe();
        module.add("callLater", crate::gil::method::<CallLater>(module.py())?)
    }
}
