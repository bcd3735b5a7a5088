//! The test kit: `StringTransport`, the pump, the chunking check and the simulated network.

#[path = "../common/mod.rs"]
mod common;

mod network;
mod network_faults;
#[cfg(feature = "tls")]
mod network_layers;
mod test_kit;
mod test_kit_agrees;
mod test_kit_chunking;
mod test_kit_pump;
