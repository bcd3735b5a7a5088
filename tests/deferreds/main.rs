//! Deferreds, and what is built on them: locks and queues, looping calls, cooperative tasks,
//! futures and timeouts.

#[path = "../common/mod.rs"]
mod common;

mod cooperator;
mod deep_chains;
mod defer_later;
mod deferred;
mod deferred_model;
mod filesystem_lock;
mod locks_and_queues;
mod looping_call;
mod looping_model;
mod many_deferreds;
mod spawn;
mod spawn_for;
mod timeouts;
mod virtual_clock;
