//! The public surface: what the compiler says of mistakes, the examples, calls from everywhere, and
//! code that fails.

#[path = "../common/mod.rs"]
mod common;

mod anywhere;
mod compile_fail;
mod datagram_example;
mod examples;
mod factories;
mod failing_callbacks;
mod failing_drops;
mod file_servers;
mod files_example;
mod guide;
mod jobs_example;
mod logs;
mod open_connections;
mod reaching;
mod reentrancy;
mod running;
mod simulated_example;
mod standard_io_example;
mod static_http_example;
#[cfg(feature = "tls")]
mod submit_example;
mod supervisor_example;
#[cfg(feature = "tls")]
mod tls_proxy_example;
mod tutorial;
mod tutorial_chat;
mod twisted_programs;
