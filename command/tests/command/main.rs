//! The command as a program: its servers, connections, texts and exit codes.

mod common;

mod connect;
mod describe;
mod forward;
mod nginx;
mod servers;
mod terminal;
mod top;
