//! Hosts for Ropewalk's reactor: event loops in which it runs as a guest, in the same thread.
//!
//! | host | here |
//! |---|---|
//! | tokio, on a current-thread runtime or in a `LocalSet` | [`tokio_host::Hosted`] |
//! | GLib's main loop (feature `glib`) | `glib_host::attach` |
//!
//! Both are built on [`Reactor::begin_run`](ropewalk::Reactor::begin_run) alone, and are short
//! enough to copy into a program. `docs/guide/src/how-to/other-loops.md` explains them.

#[cfg(feature = "glib")]
pub mod glib_host;
pub mod tokio_host;
