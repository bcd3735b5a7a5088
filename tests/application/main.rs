//! Services: parents and children, ports that drain, timers, and the client that connects again.

#[path = "../common/mod.rs"]
mod common;

mod client_model;
mod client_network;
mod client_states;
mod client_stops;
mod logging;
mod restarts;
mod servers;
mod service_manager;
mod services;
mod signals;
mod status;
