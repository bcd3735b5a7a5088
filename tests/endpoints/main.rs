//! Endpoints: descriptions, options, names of hosts, racing addresses and outgoing connections.

#[path = "../common/mod.rs"]
mod common;

mod connecting;
mod endpoint_descriptions;
mod endpoint_options;
mod endpoints;
mod handed_over;
mod handed_over_processes;
mod haproxy;
mod haproxy_program;
mod happy_eyeballs;
mod host_names;
mod registry;
