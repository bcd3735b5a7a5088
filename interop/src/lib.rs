//! Event-driven C libraries on Ropewalk's loop. Nothing here is published.
//!
//! | library | module | feature | on |
//! |---|---|---|---|
//! | libcurl, its multi interface | `curl_multi` | `curl` | [`Reactor::watch`](ropewalk::Reactor::watch), and timers |

#[cfg(feature = "curl")]
pub mod curl_multi;
