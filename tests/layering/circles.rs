//! No circle of more than two files.
//!
//! A file names another if its code names an item that is defined there (see `names.rs`). Two files
//! that name each other are one thing in two files. Three and more can be read in no order.
//!
//! A parent and its children are one thing, as in the compiler's rules of privacy: a `mod.rs`
//! defines the items that its folder shares. So the edge from a child to its own parent makes no
//! circle. All other edges count: those from a parent's code to its children, and those to the
//! `mod.rs` of another folder or of the parent's parent.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

use super::names::Names;
use super::source::{Source, declared, library, module};

/// An edge from each file to the files whose items its code names.
pub(crate) struct Graph {
    files: Vec<String>,
    /// For each file: the indices of the named files, an item of each, and the line.
    edges: Vec<BTreeMap<usize, (String, usize)>>,
}

impl Graph {
    pub(crate) fn of(sources: &[&Source]) -> Self {
        let names = Names::of(sources);
        Self {
            files: sources.iter().map(|source| source.name()).collect(),
            edges: (0..sources.len()).map(|file| names.named_by(file)).collect(),
        }
    }

    /// The library's, without unit tests. It is made once.
    pub(crate) fn of_library() -> &'static Self {
        static GRAPH: LazyLock<Graph> = LazyLock::new(|| Graph::of(&declared(library())));
        assert!(GRAPH.edges().count() > 400, "the reader sees no names");
        &GRAPH
    }

    /// Returns the edges: from, to, and a line for a message.
    pub(crate) fn edges(&self) -> impl Iterator<Item = (&str, &str, String)> {
        self.edges.iter().enumerate().flat_map(move |(from, edges)| {
            edges.iter().map(move |(&to, (item, line))| {
                let (from, to) = (&*self.files[from], &*self.files[to]);
                (from, to, format!("{from}:{line} names {item} of {to}"))
            })
        })
    }

    /// Returns the groups of more than two files that name one another, directly or through others.
    fn circles(&self) -> Vec<Vec<&str>> {
        let reached: Vec<Vec<bool>> = (0..self.files.len()).map(|file| self.reached_from(file)).collect();
        let mut found = Vec::new();
        for (first, from_here) in reached.iter().enumerate() {
            let is_with = |other: &usize| from_here[*other] && reached[*other][first];
            let circle: Vec<usize> = (0..self.files.len()).filter(is_with).collect();
            if circle.len() > 2 && circle[0] == first {
                found.push(circle.into_iter().map(|file| &*self.files[file]).collect());
            }
        }
        found
    }

    fn reached_from(&self, file: usize) -> Vec<bool> {
        let mut reached = vec![false; self.files.len()];
        let mut open = vec![file];
        while let Some(from) = open.pop() {
            for &to in self.edges[from].keys().filter(|to| !is_parent(&self.files[**to], &self.files[from])) {
                if !reached[to] {
                    reached[to] = true;
                    open.push(to);
                }
            }
        }
        reached
    }

    /// Returns a line for each circle of more than two files, and one for each edge in it.
    fn complaints(&self) -> String {
        let circles = self.circles();
        let mut wrong = String::new();
        for circle in &circles {
            writeln!(wrong, "a circle of {} files: {}", circle.len(), circle.join(", ")).unwrap();
            for (from, to, line) in self.edges() {
                if circle.contains(&from) && circle.contains(&to) && !is_parent(to, from) {
                    writeln!(wrong, "    {line}").unwrap();
                }
            }
        }
        wrong
    }
}

/// True if `parent` declares the module that `child` is.
fn is_parent(parent: &str, child: &str) -> bool {
    module(child).rsplit_once('/').is_some_and(|(folder, _)| module(parent) == folder)
}

#[test]
fn no_circle_has_more_than_two_files() {
    let wrong = Graph::of_library().complaints();
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn a_circle_is_found_wherever_its_edges_hide() {
    let graph = graph_of(&[
        ("a/mod.rs", "mod one; mod two; pub use self::one::One; pub struct Shared;"),
        ("a/one.rs", "use super::Shared; pub struct One(crate::b::Two, Shared);"),
        ("a/two.rs", "use crate::a::One; pub struct Two(Option<One>);"),
        (
            "b.rs",
            "pub use crate::a::two::Two as Three; pub use Three as Two; pub struct Five; fn f(_: crate::c::Six) {}",
        ),
        ("c.rs", "mod inner { use super::super::b; pub struct Six(b::Five); } pub use self::inner::*;"),
    ]);
    // The re-exports of `b.rs` lead to `two.rs`; what the files share with their parent is no
    // circle; `b` and `c` are two.
    assert_eq!(graph.circles(), Vec::<Vec<&str>>::new());
    let edges: Vec<_> = graph.edges().map(|(from, to, _)| (from, to)).collect();
    let expected = [("a/one.rs", "a/mod.rs"), ("a/one.rs", "a/two.rs"), ("a/two.rs", "a/one.rs"), ("b.rs", "c.rs")];
    assert_eq!(edges, [&expected[..], &[("c.rs", "b.rs")]].concat());
}

#[test]
fn a_circle_of_three_fails_and_says_where() {
    let files = [
        ("a.rs", "use crate::b::{self, B as Other};\npub struct A(Other);"),
        ("b.rs", "pub struct B;\nimpl B { fn f() { crate::c::g::<u8>() } }"),
        ("c.rs", "use crate::a;\nuse crate::d::D as _;\npub fn g<T>() -> Option<a::A> { None }"),
        ("d.rs", "pub trait D {}"),
    ];
    let graph = graph_of(&files);
    let wrong = graph.complaints();
    for line in [
        "a circle of 3 files: a.rs, b.rs, c.rs",
        "a.rs:2 names B of b.rs",
        "b.rs:2 names g of c.rs",
        "c.rs:3 names A of a.rs",
    ] {
        assert!(wrong.contains(line), "{line} is not in {wrong}");
    }
    assert!(!wrong.contains("d.rs"), "{wrong}");
}

#[test]
fn only_the_own_parent_is_left_out() {
    let graph = graph_of(&[
        ("a/mod.rs", "mod b; mod e; pub struct Top(b::c::Low); struct Third(e::Side);"),
        ("a/b/mod.rs", "mod c;"),
        ("a/b/c.rs", "pub struct Low(Box<crate::a::Top>, Box<crate::a::e::Side>);"),
        ("a/e.rs", "pub struct Side(super::Top);"),
    ]);
    assert_eq!(graph.circles(), Vec::<Vec<&str>>::new(), "`e.rs` leads to its parent alone");
    let graph = graph_of(&[
        ("a/mod.rs", "mod b; mod e; pub struct Top(e::Side);"),
        ("a/b/mod.rs", "mod c;"),
        ("a/b/c.rs", "pub struct Low(Box<crate::a::Top>);"),
        ("a/e.rs", "pub struct Side(Box<super::b::c::Low>);"),
    ]);
    assert_eq!(graph.circles(), [["a/b/c.rs", "a/e.rs", "a/mod.rs"]]);
}

/// The graph of these files.
pub(crate) fn graph_of(files: &[(&str, &str)]) -> Graph {
    let mut sources: Vec<_> = files.iter().map(|(path, text)| Source::new(path, text)).collect();
    sources.push(Source::new("lib.rs", ""));
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    Graph::of(&sources.iter().collect::<Vec<_>>())
}
