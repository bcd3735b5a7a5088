//! The one-way order of the rooms, and the one place of system calls, proven by reading the source:
//! see `docs/design.md`.
//!
//! | file | checks |
//! |---|---|
//! | `layering.rs` | the rooms, system calls, `unsafe` |
//! | `layering/house.rs` | the order inside of `reactor/` |
//! | `layering/circles.rs` | circles of files |
//! | `layering/parts.rs` | the fields of the parts of a core |
//! | `layering/source.rs`, `layering/names.rs` | nothing: they read files, and resolve names |

#[path = "layering/circles.rs"]
mod circles;
#[path = "layering/house.rs"]
mod house;
#[path = "layering/names.rs"]
mod names;
#[path = "layering/parts.rs"]
mod parts;
#[path = "layering/source.rs"]
mod source;

use std::collections::BTreeSet;

use self::source::{Source, code};

/// Each room, and what it may name. A room that stands in no list is visible to the crate's root
/// only.
const ROOMS: &[(&str, &[&str])] = &[
    ("address", &[]),
    ("random", &[]),
    ("haproxy", &["address"]),
    ("failure", &["log"]),
    ("log", &["failure"]),
    ("logging", &[]),
    ("error", &["address", "failure"]),
    ("time", &["error", "failure", "log"]),
    ("deferred", &["failure", "error", "time", "log"]),
    ("task", &["failure", "error", "time", "deferred", "log"]),
    (
        "testing",
        &[
            "address",
            "datagram",
            "deferred",
            "error",
            "failure",
            "protocol",
            "random",
            "reactor",
            "task",
            "time",
            "transport",
            "log",
        ],
    ),
    ("transport", &["address", "error", "failure", "time", "log"]),
    ("tls", &["address", "error", "failure", "transport", "log"]),
    ("protocol", &["address", "error", "failure", "time", "deferred", "transport", "log"]),
    ("datagram", &["address", "error", "failure", "deferred", "transport", "log"]),
    ("process", &["error", "failure", "deferred", "time", "transport", "log"]),
    ("policies", &["address", "error", "failure", "protocol", "time", "transport", "log"]),
    ("locks", &["error", "failure", "time", "deferred", "log"]),
    (
        "reactor",
        &[
            "address",
            "error",
            "failure",
            "time",
            "deferred",
            "locks",
            "transport",
            "policies",
            "protocol",
            "datagram",
            "process",
            "log",
        ],
    ),
    (
        "endpoints",
        &[
            "address",
            "error",
            "failure",
            "haproxy",
            "time",
            "deferred",
            "transport",
            "policies",
            "process",
            "protocol",
            "reactor",
            "tls",
            "log",
        ],
    ),
    (
        "application",
        &[
            "address",
            "deferred",
            "endpoints",
            "error",
            "failure",
            "protocol",
            "random",
            "reactor",
            "task",
            "time",
            "transport",
            "log",
        ],
    ),
    ("protocols", &["address", "deferred", "endpoints", "error", "failure", "protocol", "time", "transport", "log"]),
    (
        "streams",
        &[
            "address",
            "deferred",
            "endpoints",
            "error",
            "failure",
            "protocol",
            "reactor",
            "time",
            "tls",
            "transport",
            "log",
        ],
    ),
    (
        "interfaces",
        &[
            "application",
            "datagram",
            "deferred",
            "endpoints",
            "failure",
            "process",
            "protocol",
            "protocols",
            "time",
            "reactor",
            "transport",
        ],
    ),
];

/// Names that only the reactor and locks may use: they make system calls, start threads or read the
/// clock.
const SYSTEM: &[&str] = &[
    "mio::",
    "io_uring",
    "rustix::",
    "libc::",
    "signal_hook",
    "std::net::Tcp",
    "std::net::Udp",
    "ToSocketAddrs",
    "std::thread",
    "Instant::now",
    "SystemTime",
    "std::process",
    "std::fs",
    "rustls_native_certs",
];

/// The file beside the reactor's room that reads files: certificates, when a configuration is made.
const READS_FILES: &str = "tls/files.rs";

/// Names of files, and of their times.
const FILES: &[&str] = &["std::fs", "SystemTime", "rustls_native_certs"];

/// The file outside of the reactor that reads the clock: once, for the origin of hyper's instants,
/// which cannot be made in another way. Times are counted from it by the reactor's clock.
const READS_CLOCK: &str = "streams/hyper/timer.rs";

/// Files in which `unsafe` may stand. `docs/backends.md` says why.
const UNSAFE: &[&str] = &[
    "reactor/inherited.rs",
    "reactor/process.rs",
    "reactor/children/exec.rs",
    "reactor/backend/outstanding.rs",
    "reactor/backend/mmsg.rs",
    "reactor/backend/uring/buffers.rs",
    "reactor/backend/uring/ring.rs",
];

/// The files of the rooms: all but the root, and the list of pages whose programs are tests.
fn sources() -> impl Iterator<Item = &'static Source> {
    source::library().iter().filter(|source| source.room != "lib" && source.room != "guides")
}

fn allowed(room: &str) -> &'static [&'static str] {
    let found = ROOMS.iter().find(|(name, _)| *name == room);
    found.unwrap_or_else(|| panic!("{room} is not in the table of rooms")).1
}

/// The rooms that a text names, in whatever form: `crate::room`, `crate::{room, ..}`.
fn rooms_named(code: &str) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let list = match rest.strip_prefix('{') {
            Some(inner) => inner.split('}').next().unwrap().split(',').map(str::trim).collect(),
            None => vec![rest],
        };
        for item in list {
            let name: String = item.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            named.insert(name);
        }
    }
    named
}

#[test]
fn a_room_uses_only_rooms_below_it() {
    for source in sources() {
        let allowed = allowed(&source.room);
        for named in rooms_named(&source.code) {
            let fine = named == source.room || allowed.contains(&named.as_str());
            assert!(fine, "{}: the room {} may not name {named}", source.path.display(), source.room);
        }
    }
}

#[test]
fn only_the_reactor_and_locks_make_system_calls() {
    for source in sources().filter(|source| !["reactor", "locks"].contains(&&*source.room)) {
        let reads_files = source.path.ends_with(READS_FILES);
        let reads_clock = source.path.ends_with(READS_CLOCK);
        let is_excepted =
            |name: &str| (reads_files && FILES.contains(&name)) || (reads_clock && name == "Instant::now");
        for name in SYSTEM.iter().filter(|name| !is_excepted(name)) {
            assert!(!source.code.contains(name), "{}: {name} belongs in the reactor", source.path.display());
        }
    }
}

#[test]
fn only_a_backend_names_its_poller() {
    for source in sources() {
        for (poller, place) in [(" ::mio::", "reactor/backend/mio.rs"), ("use io_uring::", "reactor/backend/uring")] {
            let is_backend = source.path.starts_with(place);
            assert!(is_backend || !source.code.contains(poller), "{}: that stays in {place}", source.path.display());
        }
    }
}

#[test]
fn unsafe_stands_only_where_the_design_says() {
    for source in sources() {
        let named = UNSAFE.iter().any(|path| source.path.ends_with(path));
        let words = source.code.split(|c: char| !c.is_alphanumeric() && c != '_');
        assert!(named || !words.into_iter().any(|word| word == "unsafe"), "{}: unsafe code", source.path.display());
    }
}

/// The checks themselves: a test that can't fail proves nothing.
#[test]
fn the_reader_sees_what_it_is_to_see() {
    let text = "use crate::reactor::Port; // crate::endpoints\nuse crate::{time::Clock, error};\nfn f() { crate::failure::g() }";
    let named = rooms_named(&code(text));
    assert_eq!(named.into_iter().collect::<Vec<_>>(), ["error", "failure", "reactor", "time"]);
}
