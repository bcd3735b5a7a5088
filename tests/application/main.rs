//! Services: parents and children, ports that drain, timers, and the client that connects again.

mod client_model;
mod client_states;
mod servers;
mod services;
