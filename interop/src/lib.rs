//! Event-driven C libraries on Ropewalk's loop. Nothing here is published: it shows that
//! [`Reactor::watch`](ropewalk::Reactor::watch) and timers are all that such a library needs.
//!
//! | library | module | feature |
//! |---|---|---|
//! | libcurl, its multi interface | `curl_multi` | `curl` |

#[cfg(feature = "curl")]
pub mod curl_multi;
