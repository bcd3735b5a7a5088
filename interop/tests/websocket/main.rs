//! The chat over WebSocket: on the simulated network, and with Python's `websockets`.

#[path = "../common/mod.rs"]
mod common;

mod faults;
mod members;
mod python;
mod world;
