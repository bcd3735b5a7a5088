//! Endpoints: descriptions, options, names of hosts, racing addresses and outgoing connections.

#[path = "../common/mod.rs"]
mod common;

mod connecting;
mod description_errors;
mod endpoint_descriptions;
mod endpoint_options;
mod endpoints;
mod handed_over;
mod handed_over_processes;
mod happy_eyeballs;
mod haproxy;
mod haproxy_program;
mod host_names;
mod many_attempts;
mod process_endpoint;
mod registry;
