//! The reactor: turns, timers, threads, signals, processes, backends, and the end of its life.

#[path = "../common/mod.rs"]
mod common;

mod adopt_stream;
mod backend_choice;
mod blocking_calls;
mod custom_events;
mod descriptors;
mod foreign_descriptors;
mod fork;
mod fork_datagrams;
mod group;
mod group_ends;
mod group_signals;
mod hosting;
mod hosting_wakes;
mod life;
mod no_threads;
mod own_thread_pools;
mod remote_connections;
mod rings;
mod running;
mod signals;
mod snapshots;
mod standard_io;
mod stopping;
mod thread_pool;
mod thread_shutdown;
mod threads;
mod timers;
mod triggers;
mod turn;
#[cfg(feature = "io-uring")]
mod uring;
#[cfg(feature = "io-uring")]
mod uring_storms;
mod waiting;
