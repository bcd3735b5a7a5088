//! The order inside of the reactor's room.

use super::circles::Graph;

/// Each file or folder of `reactor/`, and what it may name of the others. They name only what
/// stands above them in this table, but for [`UPWARD`].
const HOUSE: &[(&str, &[&str])] = &[
    ("paged_vec", &[]),
    ("process", &[]),
    ("meter", &[]),
    ("inherited", &[]),
    ("signals", &[]),
    ("aftermath", &[]),
    ("postponed", &[]),
    // The arguments of a watch, and its part that the table knows.
    ("descriptor", &[]),
    ("interest", &[]),
    ("watched", &["interest"]),
    ("backend", &["interest", "paged_vec"]),
    ("backend_kind", &["backend"]),
    ("slot_map", &["paged_vec"]),
    ("signal_handling", &["signals"]),
    ("triggers", &["slot_map"]),
    ("threads", &["backend", "process", "slot_map"]),
    ("net", &["backend", "threads", "watched"]),
    ("run_state", &["triggers"]),
    ("life", &["backend"]),
    (
        "core",
        &[
            "aftermath",
            "backend",
            "life",
            "meter",
            "net",
            "postponed",
            "process",
            "run_state",
            "signal_handling",
            "slot_map",
            "threads",
            "triggers",
            "watched",
        ],
    ),
    ("around_wait", &[]),
    ("on_ring", &[]),
    // `Reactor`, and its builder.
    ("mod", &["around_wait", "backend", "backend_kind", "core", "inherited", "life", "net", "on_ring", "triggers"]),
    ("turn", &["backend", "core", "mod"]),
    ("run", &["core", "run_state", "triggers"]),
    ("service_manager", &["mod"]),
    ("events", &["core", "mod", "triggers"]),
    ("hosting", &["core", "mod"]),
    ("awake", &["backend", "core", "mod"]),
    ("on_signal", &["core", "interest", "mod", "signals"]),
    ("watch", &["core", "descriptor", "interest", "mod", "watched"]),
    ("standard_io", &["backend", "core", "mod", "net"]),
    ("watch_callbacks", &["watch"]),
    ("children", &["backend", "core", "interest", "mod", "net", "watched"]),
    ("react", &["mod", "triggers"]),
    ("remote_connection", &["mod", "threads"]),
    ("snapshot", &["backend_kind", "core", "meter", "mod", "slot_map", "threads"]),
    ("group", &["backend_kind", "mod", "net", "snapshot", "threads", "triggers"]),
];

/// Edges against the order. The files of a part have methods of the core, and calls of the program
/// that are given a `Reactor`. The core keeps the settings of a `Builder`, and one of these has a
/// file of its own.
const UPWARD: &[(&str, &str)] = &[
    ("threads", "core"),
    ("threads", "mod"),
    ("net", "core"),
    ("net", "mod"),
    ("life", "core"),
    ("life", "mod"),
    ("core", "mod"),
    ("around_wait", "mod"),
    ("on_ring", "mod"),
];

/// Returns the file or folder of a house that a path leads to.
fn place<'a>(house: &str, path: &'a str) -> Option<&'a str> {
    let inside = path.strip_prefix(house)?.strip_prefix('/')?;
    Some(inside.split('/').next()?.trim_end_matches(".rs"))
}

/// Returns a line for each fault: edges that are not allowed, and entries of the tables that are
/// wrong.
fn complaints(graph: &Graph, house: &str, table: &[(&str, &[&str])], upward: &[(&str, &str)]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut unseen = upward.to_vec();
    for (from, to, line) in graph.edges() {
        let (Some(from), Some(to)) = (place(house, from), place(house, to)) else { continue };
        unseen.retain(|edge| *edge != (from, to));
        let is_allowed = match table.iter().find(|(name, _)| *name == from) {
            Some((_, may_name)) => may_name.contains(&to) || upward.contains(&(from, to)),
            None => {
                wrong.push(format!("{house}/{from} is not in the table"));
                true
            }
        };
        if from != to && !is_allowed {
            wrong.push(format!("{line}: {from} may not name {to}"));
        }
    }
    wrong.extend(unseen.iter().map(|(from, to)| format!("{from} does not name {to} any more: take it out of UPWARD")));
    for (at, (name, may_name)) in table.iter().enumerate() {
        let is_above = |other: &&&str| table[..at].iter().any(|(above, _)| above == *other);
        wrong.extend(
            may_name.iter().filter(|other| !is_above(other)).map(|other| format!("{other} is not above {name}")),
        );
    }
    wrong
}

#[test]
fn a_part_of_the_reactor_names_only_parts_below_it() {
    let wrong = complaints(Graph::of_library(), "reactor", HOUSE, UPWARD);
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn an_edge_that_is_not_in_the_table_is_found() {
    let graph = super::circles::graph_of(&[
        ("house/mod.rs", "mod low; mod high; mod folder;"),
        ("house/low.rs", "use super::high::High; pub struct Low(High);"),
        ("house/high.rs", "pub struct High(super::folder::file::Deep);"),
        ("house/folder/mod.rs", "pub mod file; struct Own(file::Deep);"),
        ("house/folder/file.rs", "pub struct Deep(crate::beside::Beside);"),
        ("beside.rs", "pub struct Beside(crate::house::low::Low);"),
    ]);
    let of = |table: &[(&str, &[&str])], upward: &[(&str, &str)]| complaints(&graph, "house", table, upward).join("\n");
    let table: &[(&str, &[&str])] = &[("low", &[]), ("folder", &[]), ("high", &["folder"])];
    assert_eq!(of(table, &[("low", "high")]), "");
    assert_eq!(of(table, &[]), "house/low.rs:1 names High of house/high.rs: low may not name high");
    assert!(of(&[("low", &["high"]), ("folder", &[]), ("high", &["folder"])], &[]).contains("high is not above low"));
    assert!(of(&[("folder", &[]), ("high", &["folder"])], &[]).contains("house/low is not in the table"));
    let unneeded = of(table, &[("low", "high"), ("folder", "high")]);
    assert_eq!(unneeded, "folder does not name high any more: take it out of UPWARD");
}
