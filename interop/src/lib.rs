//! Libraries of others on Ropewalk's loop. Nothing here is published.
//!
//! | library | module | feature | on |
//! |---|---|---|---|
//! | libcurl, its multi interface | `curl_multi` | `curl` | [`Reactor::watch`](ropewalk::Reactor::watch), and timers |
//! | hyper, as a server of files | `http` | `http` | [`streams`](ropewalk::streams) |

#[cfg(feature = "curl")]
pub mod curl_multi;
#[cfg(feature = "http")]
pub mod http;
