//! Libraries of others on Ropewalk's loop. Nothing here is published.
//!
//! | library | module | feature | on |
//! |---|---|---|---|
//! | libcurl, its multi interface | `curl_multi` | `curl` | [`Reactor::watch`](ropewalk::Reactor::watch), and timers |
//! | hyper | `http` | `http` | byte streams |

#[cfg(feature = "curl")]
pub mod curl_multi;
#[cfg(feature = "http")]
pub mod http;
